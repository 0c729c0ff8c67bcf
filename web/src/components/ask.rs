//! Before something ends: what will stop and for how long, beside its button (VISUAL 7: never "Are you sure?").

use crate::browser;
use crate::command;
use crate::page::page;
use leptos::prelude::*;
use wire::command::Operation;
use wire::text::{self, Label};

/// What will stop and for how long, and the choice; beside its button, never over the verdict (VISUAL 7).
#[component]
pub fn Ask(what: Memo<Operation>) -> impl IntoView {
    let page = page();
    let ending = move || page.with(|lang, view, _| text::ending(lang, what.get(), view));
    let title = move || ending().map(|e| e.title).unwrap_or_default();
    let effects = move || ending().map(|e| e.effects).unwrap_or_default();
    let close = move || page.asking.set(None);
    Effect::new(move |_| browser::focus("ask-cancel"));
    view! {
        <div class="ask" role="alertdialog" aria-labelledby="ask-title" aria-describedby="ask-effects" data-testid="dialog"
            on:keydown=move |event: web_sys::KeyboardEvent| if event.key() == "Escape" { close() }>
            <h3 id="ask-title">{title}</h3>
            <ul id="ask-effects">{move || effects().into_iter().map(|e| view! { <li>{e}</li> }).collect_view()}</ul>
            <p class="choice">
                <button class="button primary" data-testid="dialog-confirm"
                    on:click=move |_| command::give(page, what.get_untracked())>{title}</button>
                <button class="button" id="ask-cancel" data-testid="dialog-cancel" on:click=move |_| close()>
                    {move || page.t(Label::Cancel)}
                </button>
            </p>
        </div>
    }
}
