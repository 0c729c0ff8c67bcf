//! When the writes of a mirror set are acknowledged (C4): the three modes, each with what it means; the one that the view shows is
//! pressed, and one that was asked for is pending until the view shows it.

use crate::api::{self, Away};
use crate::page::{Page, page};
use leptos::prelude::*;
use leptos::task::spawn_local;
use wire::ids::SetId;
use wire::text;
use wire::traffic::WriteMode;

const ALL: [WriteMode; 3] = [WriteMode::Synchronous, WriteMode::SemiSynchronous, WriteMode::Asynchronous];

/// What became of the last choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Asked {
    #[default]
    Nothing,
    Mode(WriteMode),
    Refused(String),
}

/// The choice, in a set's panel.
#[component]
pub fn WriteModes(id: SetId) -> impl IntoView {
    let page = page();
    let set = page.set(id);
    let asked = RwSignal::new(Asked::default());
    let chosen = Memo::new(move |_| set.with(|s| s.as_ref().map_or(WriteMode::Synchronous, |s| s.mode)));
    Effect::new(move |_| {
        let shown = chosen.get();
        if asked.with(|asked| *asked == Asked::Mode(shown)) {
            asked.set(Asked::Nothing);
        }
    });
    let refused = Memo::new(move |_| set.with(|s| s.as_ref().and_then(|s| s.mode_refused)));
    let greyed = Memo::new(move |_| page.stale.get() || refused.get().is_some());
    let pending = move |mode| asked.with(|asked| *asked == Asked::Mode(mode));
    let title = move || {
        set.with(|s| s.as_ref().map_or_else(String::new, |s| text::write_modes(page.lang.get(), &s.name)))
    };
    let heading = format!("set-{}-modes", id.0);
    let said = move || {
        let lang = page.lang.get();
        match (asked.get(), refused.get()) {
            (Asked::Refused(reason), _) => reason,
            (Asked::Mode(mode), _) => text::write_mode_pending(lang, mode),
            (Asked::Nothing, Some(kind)) => text::greyed(lang, kind),
            (Asked::Nothing, None) => String::new(),
        }
    };
    let choice = move |mode: WriteMode| {
        let press = move |_| {
            if !greyed.get_untracked() && chosen.get_untracked() != mode {
                order(page, asked, id, mode);
            }
        };
        let means = format!("set-{}-means-{}", id.0, word(mode));
        view! {
            <div class="mode">
                <button class="button" class:primary=move || chosen.get() == mode class:greyed=move || greyed.get() && chosen.get() != mode
                    class:pending=move || pending(mode) data-testid=format!("set-{}-mode-{}", id.0, word(mode))
                    aria-pressed=move || (chosen.get() == mode).to_string()
                    aria-disabled=move || greyed.get().to_string() aria-describedby=means.clone() on:click=press>
                    {move || text::write_mode(page.lang.get(), mode)}
                </button>
                <p class="detail" id=means>{move || text::write_mode_means(page.lang.get(), mode)}</p>
            </div>
        }
    };
    view! {
        <section class="modes" aria-labelledby=heading>
            <h3 id=heading.clone()>{title}</h3>
            <div class="mode-row">{ALL.map(choice)}</div>
            <p class="detail" role="status" data-testid=format!("set-{}-mode-said", id.0)>{said}</p>
        </section>
    }
}

fn word(mode: WriteMode) -> &'static str {
    match mode {
        WriteMode::Synchronous => "sync",
        WriteMode::SemiSynchronous => "semi",
        WriteMode::Asynchronous => "async",
    }
}

fn order(page: Page, asked: RwSignal<Asked>, set: SetId, mode: WriteMode) {
    asked.set(Asked::Mode(mode));
    let lang = page.lang.get_untracked();
    spawn_local(async move {
        let answer = api::set_mode(set, mode, lang).await;
        let reason = match answer {
            Ok(None) => return,
            Ok(Some(reason)) => reason,
            Err(Away) => text::write_mode_unanswered(lang),
        };
        // A later choice has an answer of its own.
        if asked.try_get_untracked() == Some(Asked::Mode(mode)) {
            asked.set(Asked::Refused(reason));
        }
    });
}

/// The mode of a set where it is not the usual one, and how far the other copy is behind: in the set's place between its servers.
#[component]
pub fn ModeLine(id: SetId) -> impl IntoView {
    let page = page();
    let set = page.set(id);
    let mode = move || {
        let lang = page.lang.get();
        set.with(|s| s.as_ref().and_then(|s| text::set_mode(lang, s)))
    };
    let behind = move || {
        let lang = page.lang.get();
        set.with(|s| s.as_ref().and_then(|s| s.behind).map(|behind| text::set_behind(lang, behind)))
    };
    view! {
        {move || mode().map(|words| view! {
            <p class="mirror-line"><b data-testid=format!("set-{}-mode", id.0)>{words}</b></p>
        })}
        {move || behind().map(|words| view! {
            <p class="mirror-line" data-testid=format!("set-{}-behind", id.0)>{words}</p>
        })}
    }
}
