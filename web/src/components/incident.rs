//! The last failover: a bar to scale, and under it each part with its milliseconds in plain words.

use crate::page::page;
use leptos::prelude::*;
use wire::text::{self, Label};
use wire::view::{Incident, IncidentPart, PartKind};

/// The incident panel; nothing while there is none.
#[component]
pub fn IncidentPanel() -> impl IntoView {
    let page = page();
    let incident: Memo<Option<Incident>> =
        Memo::new(move |_| page.view.with(|v| v.as_ref()?.incident.clone()));
    view! {
        {move || incident.get().map(|found| {
            let title = page.with(|lang, _, names| text::incident_title(lang, &found, names, page.east));
            let clients = page.with(|lang, _, names| text::incident_clients(lang, &found, names));
            let lang = page.lang.get();
            let parts = found.parts.clone();
            let total = found.total_ms;
            let longest = parts.iter().map(|p| p.ms).max().unwrap_or(1).max(1);
            let columns = parts.iter().map(|part| {
                let words = page.with(|lang, _, names| text::part(lang, part.kind, &found, names));
                column(*part, words, longest)
            }).collect_view();
            view! {
                <section class="panel incident" data-testid="incident" data-number=found.number.to_string()>
                    <h2><span>{title}</span> <small>{clients}</small></h2>
                    <div class="scale" aria-hidden="true">{parts.iter().map(|p| piece(*p)).collect_view()}</div>
                    <ol class="parts">
                        {columns}
                        {total.map(|ms| view! {
                            <li class="total" data-testid="incident-total">
                                <b>{text::milliseconds(ms)}</b>
                                <span>{text::label(lang, Label::UntilServed)}</span>
                            </li>
                        })}
                    </ol>
                </section>
            }
        })}
    }
}

/// A part of the bar: its share of the time, at least two pixels (held by the style sheet).
fn piece(part: IncidentPart) -> impl IntoView {
    let class = if part.kind == PartKind::Detection { "piece detection" } else { "piece" };
    view! { <span class=class style:flex-grow=part.ms.max(1).to_string()></span> }
}

fn column(part: IncidentPart, words: String, longest: u64) -> impl IntoView {
    let class = if part.kind == PartKind::Detection { "detection" } else { "" };
    let share = (part.ms * 100 / longest).max(1);
    view! {
        <li class=class>
            <b>{text::count(part.ms)}</b>
            <i class="share" aria-hidden="true"><i style:width=format!("{share}%")></i></i>
            <span>{words}</span>
        </li>
    }
}
