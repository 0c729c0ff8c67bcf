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

fn fold(events: &[Event]) -> Vec<Folded> {
    let mut folded: Vec<Folded> = Vec::new();
    for event in events {
        match folded.last_mut() {
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

    #[test]
    fn repeats_fold_into_the_newest() {
        let event = |number, kind| Event { origin: NodeId(1), number, at: WallClock(number), kind };
        let events = [
            event(4, EventKind::WitnessLost),
            event(3, EventKind::WitnessLost),
            event(2, EventKind::WitnessUp),
            event(1, EventKind::WitnessLost),
        ];
        let folded: Vec<(u64, usize)> = fold(&events).iter().map(|(e, times)| (e.number, *times)).collect();
        assert_eq!(folded, [(4, 2), (2, 1), (1, 1)]);
    }
}
