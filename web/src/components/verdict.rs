//! The verdict band: one shape, one sentence, its explanation, and what comes next at its right.

use crate::components::sign::Sign;
use crate::components::stale::WayOut;
use crate::look;
use crate::page::page;
use leptos::prelude::*;
use wire::ids::WallClock;
use wire::text::{self, Label, Lang, Names};
use wire::verdict::{Row, Tone, Verdict, verdict};
use wire::view::ClusterView;

/// The band.
#[component]
pub fn VerdictBand() -> impl IntoView {
    let page = page();
    let found: Memo<Option<Verdict>> = Memo::new(move |_| page.view.with(|v| v.as_ref().map(verdict)));
    let stale = page.stale;
    let tone =
        move || if stale.get() { Tone::Un } else { found.with(|v| v.as_ref().map_or(Tone::Un, |v| v.tone)) };
    let kind =
        move || if stale.get() { "stale" } else { found.with(|v| v.as_ref().map_or("", |v| v.kind.name())) };
    let look =
        Signal::derive(move || page.look(found.with(|v| v.as_ref().map_or(look::STALE, look::verdict))));
    let words = move || {
        let old = stale.get().then(|| age_s(page));
        page.with(|lang, view, names| match old {
            Some(seconds) => text::stale_words(lang, &names.server(view.server), seconds),
            None => found.with(|v| v.as_ref().map_or(String::new(), |v| text::verdict_words(lang, v, names))),
        })
    };
    let detail = move || {
        let retry = page.retry_ms.get().div_ceil(1000);
        page.with(|lang, view, names| {
            if stale.get() {
                return text::stale_detail(lang, view.at, retry, page.east);
            }
            found.with(|v| v.as_ref().map_or(String::new(), |v| text::verdict_detail(lang, v, names)))
        })
    };
    let rows = move || {
        page.with(|lang, view, names| {
            found.with(|v| {
                v.as_ref().map_or(Vec::new(), |v| v.rows.iter().map(|r| row(lang, r, view, names)).collect())
            })
        })
    };
    view! {
        <section class=move || format!("verdict tone-{}", tone().name()) data-testid="verdict"
            data-tone=move || tone().name() data-kind=kind aria-labelledby="verdict-words">
            <div class="verdict-main">
                <Sign look=look size="s60"/>
                <div>
                    <h1 id="verdict-words" data-testid="verdict-words">{words}</h1>
                    <p class="verdict-detail" data-testid="verdict-detail">{detail}</p>
                </div>
            </div>
            <Show when=move || stale.get() fallback=move || view! { <Rows rows=rows/> }>
                <div class="verdict-side"><WayOut/></div>
            </Show>
        </section>
    }
}

/// Seconds since the last data.
fn age_s(page: crate::page::Page) -> u64 {
    let now = page.now.get();
    page.state.with(|s| s.last_data.map_or(0, |last| now.saturating_sub(last) / 1000))
}

/// When, answer, effect, and the name of the row for tests.
type Told = (String, String, String, String);

#[component]
fn Rows(rows: impl Fn() -> Vec<Told> + Send + Sync + 'static) -> impl IntoView {
    view! {
        <dl class="verdict-side rows">
            {move || rows().into_iter().map(|(when, answer, effect, id)| view! {
                <div data-testid=id>
                    <dt>{when}</dt>
                    <dd><strong>{answer}</strong><span>{effect}</span></dd>
                </div>
            }).collect_view()}
        </dl>
    }
}

fn row(lang: Lang, row: &Row, _view: &ClusterView, names: Names<'_>) -> Told {
    match row {
        Row::Forecast(forecast) => (
            text::forecast_when(lang, forecast, names),
            text::forecast(lang, forecast, names),
            text::forecast_effect(lang, forecast, names),
            format!("forecast-{}", forecast.server.0),
        ),
        Row::ProtectedAgain { about_s } => (
            text::label(lang, Label::ProtectedAgain).to_owned(),
            about_s.map_or_else(
                || text::label(lang, Label::WhenMeasured).to_owned(),
                |seconds| text::in_about(lang, seconds),
            ),
            text::label(lang, Label::AfterRebuild).to_owned(),
            "protected-again".to_owned(),
        ),
        Row::Todo(todo) => {
            let (strong, small) = text::todo(lang, *todo, names);
            (text::label(lang, Label::WhatToDo).to_owned(), strong, small, "todo".to_owned())
        }
    }
}

/// The clock of a moment, with its day when that was another one.
#[must_use]
pub fn moment(page: crate::page::Page, at: WallClock) -> String {
    text::day_and_clock(page.lang.get(), at, page.at(), page.east)
}
