//! A mirror set between the two places of its group: its state, and the progress of a rebuild towards its target.

use crate::components::mode::ModeLine;
use crate::components::progress::{Figures, ProgressBar, progress_of};
use crate::components::sign::Sign;
use crate::look;
use crate::page::page;
use leptos::prelude::*;
use wire::ids::SetId;
use wire::text;
use wire::view::{Rebuild, SetState};

/// One mirror set.
#[component]
pub fn Mirror(id: SetId) -> impl IntoView {
    let page = page();
    let set = page.set(id);
    let look =
        Signal::derive(move || page.look(set.with(|s| s.as_ref().map_or(look::STALE, look::set_with_work))));
    let state = move || set.with(|s| s.as_ref().map_or("Unknown", |s| kind_of(&s.state)));
    let rebuild = Memo::new(move |_| set.with(|s| s.as_ref().and_then(|s| progress_of(&s.state))));
    let word = move || {
        let lang = page.lang.get();
        set.with(|s| s.as_ref().map_or_else(String::new, |s| page.word(text::set_word(lang, s))))
    };
    view! {
        <section class=move || format!("mirror is-{}", if page.stale.get() { "old" } else { state() })
            data-testid=format!("set-{}", id.0) data-state=state>
            <span class="line double" aria-hidden="true"></span>
            <Show when=move || rebuild.with(Option::is_some) fallback=move || view! { <Quiet id/> }>
                <div class=move || format!("progress tone-{}", look.get().tone.name())>
                    <p class="progress-head">
                        <Sign look=look size="s20"/>
                        <b class=move || format!("mirror-word tone-{}", look.get().tone.name())
                            data-testid=format!("set-{}-state", id.0)>{word}</b>
                        <b class="percent" data-testid=format!("set-{}-percent", id.0)>{move || percent(rebuild.get())}</b>
                    </p>
                    <ProgressBar id/>
                    <Figures id/>
                </div>
            </Show>
        </section>
    }
}

/// A set that is not being rebuilt: its word in the middle of the line.
#[component]
fn Quiet(id: SetId) -> impl IntoView {
    let page = page();
    let set = page.set(id);
    let look =
        Signal::derive(move || page.look(set.with(|s| s.as_ref().map_or(look::STALE, look::set_with_work))));
    let word = move || {
        let lang = page.lang.get();
        set.with(|s| s.as_ref().map_or_else(String::new, |s| page.word(text::set_word(lang, s))))
    };
    let name = move || set.with(|s| s.as_ref().map_or_else(String::new, |s| s.name.clone()));
    let line = move || {
        let lang = page.lang.get();
        set.with(|s| {
            s.as_ref().map_or_else(String::new, |s| match &s.verify {
                Some(verify) if s.state == SetState::InSync => text::verifying(lang, verify),
                Some(_) | None => text::set_line(lang, s),
            })
        })
    };
    let changed = move || {
        let lang = page.lang.get();
        set.with(|s| s.as_ref().and_then(|s| text::set_changed(lang, s)))
    };
    let rate =
        move || set.with(|s| s.as_ref().filter(|s| s.state == SetState::InSync).map(|s| s.bytes_per_s));
    // The arrow points the way the data flows: away from where the group runs.
    let to_left = move || {
        let group = set.with(|s| s.as_ref().map(|s| s.group));
        page.view.with(|v| {
            let active =
                v.as_ref().and_then(|v| v.groups.iter().find(|g| Some(g.id) == group)).and_then(|g| g.active);
            active == Some(wire::ids::NodeId(2))
        })
    };
    view! {
        <p class="mirror-head">
            <Sign look=look size="s20"/>
            <b class=move || format!("mirror-word tone-{}", look.get().tone.name())
                data-testid=format!("set-{}-state", id.0)>{word}</b>
        </p>
        <p class="mirror-line">
            <span>{name}</span>
            {move || changed().map(|words| view! { " " <b>{words}</b> })}
            {move || rate().map(|rate| view! {
                <svg class="flow" class:left=to_left viewBox="0 0 24 12" aria-hidden="true" focusable="false">
                    <path d="M2 6h19m-5-4 5 4-5 4" fill="none" stroke="currentColor" stroke-width="2"/>
                </svg>
                <b data-testid=format!("set-{}-speed", id.0)>{text::bytes_per_s(rate)}</b>
            })}
        </p>
        <p class="mirror-line">{line}</p>
        <ModeLine id/>
    }
}

fn percent(rebuild: Option<Rebuild>) -> String {
    rebuild.map_or_else(String::new, |r| format!("{}\u{a0}%", text::percent(r.done, r.total)))
}

fn kind_of(state: &SetState) -> &'static str {
    match state {
        SetState::InSync => "InSync",
        SetState::Alone { .. } => "Alone",
        SetState::Rebuilding { .. } => "Rebuilding",
        SetState::Split => "Split",
        SetState::Broken { .. } => "Broken",
        SetState::Idle => "Idle",
        SetState::Unknown => "Unknown",
    }
}
