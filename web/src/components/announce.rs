//! What a screen reader hears: the verdict's sentence, alarms at once, a rebuild at each ten percent; nothing that ticks.

use crate::page::page;
use leptos::prelude::*;
use wire::text::{self, Label};
use wire::verdict::{Tone, verdict};
use wire::view::SetState;

/// The live regions, out of sight.
#[component]
pub fn Announce() -> impl IntoView {
    let page = page();
    let said = Memo::new(move |_| {
        if page.stale.get() {
            return (Tone::Un, page.t(Label::NotLive).to_owned());
        }
        page.with(|lang, view, names| {
            let found = verdict(view);
            Some((found.tone, text::verdict_words(lang, &found, names)))
        })
        .unwrap_or((Tone::Un, String::new()))
    });
    let calm =
        move || said.with(|(tone, words)| if *tone == Tone::Bad { String::new() } else { words.clone() });
    let alarm =
        move || said.with(|(tone, words)| if *tone == Tone::Bad { words.clone() } else { String::new() });
    // The tab's own title tells the verdict where many tabs are open.
    Effect::new(move |_| {
        let cluster = page.with(|_, view, _| view.cluster.clone());
        said.with(|(_, words)| document().set_title(&format!("{words} · {cluster} · futago")));
    });
    let progress = Memo::new(move |_| {
        page.with(|lang, view, _| {
            let rebuilding = view.sets.iter().filter_map(|set| match &set.state {
                SetState::Rebuilding { progress } => {
                    Some((&set.name, text::percent(progress.done, progress.total) / 10 * 10))
                }
                SetState::InSync
                | SetState::Alone { .. }
                | SetState::Split
                | SetState::Broken { .. }
                | SetState::Idle
                | SetState::Unknown => None,
            });
            rebuilding
                .map(|(name, tens)| text::announce_percent(lang, name, tens))
                .collect::<Vec<_>>()
                .join(". ")
        })
    });
    view! {
        <div class="hidden">
            <p role="status">{calm}</p>
            <p role="alert">{alarm}</p>
            <p role="status">{move || progress.get()}</p>
        </div>
    }
}
