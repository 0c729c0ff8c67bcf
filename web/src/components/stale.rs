//! The way out of a stale page: the other server's page, offered only while it answers.

use crate::api;
use crate::browser;
use crate::components::sign::Sign;
use crate::look::Look;
use crate::page::page;
use crate::shape::Shape;
use leptos::prelude::*;
use leptos::task::spawn_local;
use std::time::Duration;
use wire::text;
use wire::verdict::Tone;

/// How often the twin is asked while the page is stale.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// "Just now": an older answer no longer counts.
const FRESH_MS: u64 = 5_000;

/// Asks the twin again and again while it is shown.
#[component]
pub fn WayOut() -> impl IntoView {
    let page = page();
    let answered = RwSignal::new(None::<u64>);
    let twin = Memo::new(move |_| {
        page.view.with(|v| {
            let view = v.as_ref()?;
            let other = view.servers.iter().find(|s| s.id != view.server)?;
            Some((other.name.clone(), other.page.clone()))
        })
    });
    let ask = move || {
        let Some((_, address)) = twin.get_untracked() else { return };
        spawn_local(async move {
            if api::healthy(&address).await {
                // The component may be gone by the time of the answer.
                let _ = answered.try_set(Some(browser::now_ms()));
            }
        });
    };
    ask();
    if let Ok(handle) = set_interval_with_handle(ask, ASK_EVERY) {
        on_cleanup(move || handle.clear());
    }
    let ago_ms =
        move || answered.get().map(|at| page.now.get().saturating_sub(at)).filter(|ago| *ago < FRESH_MS);
    let offer = move || {
        let (name, address) = twin.get()?;
        let ago = ago_ms()?;
        let lang = page.lang.get();
        Some((address, text::open_on(lang, &name), text::twin_answers(lang, &name, ago / 1000)))
    };
    view! {
        {move || offer().map(|(address, open, answers)| view! {
            <a class="button primary" data-testid="open-twin" href=address>{open}</a>
            <span class="badge">
                <Sign look=Signal::derive(|| Look { shape: Shape::Disc, tone: Tone::Ok }) size="s16"/>
                <span>{answers}</span>
            </span>
        })}
    }
}
