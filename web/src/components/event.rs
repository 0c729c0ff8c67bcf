//! The rail of events: shape, sentence with its remedy, time, stable number; newest first, repeats folded.

use crate::components::sign::Sign;
use crate::components::verdict::moment;
use crate::look::{self, Look};
use crate::page::page;
use leptos::prelude::*;
use wire::Event;
use wire::text::{self, Label};

/// An event and how often it followed itself.
type Folded = (Event, usize);

/// Both servers may tell of the same thing within this time, in milliseconds.
const SAME_MS: u64 = 3_000;

/// Folds repeats; what both servers recorded of one happening is shown once.
fn fold(events: &[Event]) -> Vec<Folded> {
    let mut folded: Vec<Folded> = Vec::new();
    for event in events {
        let twice = folded.iter().any(|(shown, _)| {
            shown.kind == event.kind
                && shown.origin != event.origin
                && shown.at.0.abs_diff(event.at.0) < SAME_MS
        });
        match folded.last_mut() {
            _ if twice => {}
            Some((last, times)) if last.kind == event.kind => *times += 1,
            _ => folded.push((event.clone(), 1)),
        }
    }
    folded
}

/// The rail.
#[component]
pub fn Events() -> impl IntoView {
    let page = page();
    let rows = Memo::new(move |_| page.view.with(|v| v.as_ref().map_or(Vec::new(), |v| fold(&v.events))));
    view! {
        <section class="panel rail" aria-labelledby="events-title" data-testid="events">
            <h2 id="events-title">{move || page.t(Label::Events)}</h2>
            <Show when=move || rows.with(Vec::is_empty)>
                <p class="detail pad">{move || page.t(Label::NoEvents)}</p>
            </Show>
            <ol tabindex="0" aria-labelledby="events-title">
                <For each=move || rows.get() key=|(event, times)| (event.origin, event.number, *times) let(row)>
                    <EventRow row=row/>
                </For>
            </ol>
        </section>
    }
}

#[component]
fn EventRow(row: Folded) -> impl IntoView {
    let page = page();
    let (event, times) = row;
    let code = event.kind.code();
    let (at, kind) = (event.at, event.kind);
    let shape = look::event(&kind);
    // Events of a stale page keep their shapes, without colour: they are history (VISUAL 5).
    let look = Signal::derive(move || {
        let tone = if page.stale.get() { wire::verdict::Tone::Un } else { shape.tone };
        Look { tone, ..shape }
    });
    let words = move || page.with(|lang, _, names| text::event(lang, &kind, names));
    view! {
        <li data-testid=format!("event-{code}")>
            <Sign look=look size="s16"/>
            <p>{words}{(times > 1).then(|| view! { " " <b>{format!("\u{d7}\u{2009}{times}")}</b> })}</p>
            <span class="when">{move || moment(page, at)}</span>
            <span class="number">{text::event_number(code)}</span>
        </li>
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::EventKind;
    use wire::ids::{NodeId, WallClock};

    fn event(origin: u8, number: u64, at: u64, kind: EventKind) -> Event {
        Event { origin: NodeId(origin), number, at: WallClock(at), kind }
    }

    fn shown(events: &[Event]) -> Vec<(u64, usize)> {
        fold(events).iter().map(|(e, times)| (e.number, *times)).collect()
    }

    #[test]
    fn repeats_fold_into_the_newest() {
        let events = [
            event(1, 4, 40_000, EventKind::WitnessLost),
            event(1, 3, 30_000, EventKind::WitnessLost),
            event(1, 2, 20_000, EventKind::WitnessUp),
            event(1, 1, 10_000, EventKind::WitnessLost),
        ];
        assert_eq!(shown(&events), [(4, 2), (2, 1), (1, 1)]);
    }

    #[test]
    fn what_both_servers_saw_is_shown_once() {
        let events = [
            event(2, 9, 40_100, EventKind::WitnessLost),
            event(2, 8, 40_050, EventKind::ServerUp { server: NodeId(2) }),
            event(1, 4, 40_000, EventKind::WitnessLost),
            event(1, 3, 30_000, EventKind::WitnessLost),
        ];
        assert_eq!(shown(&events), [(9, 1), (8, 1), (3, 1)]);
    }
}
