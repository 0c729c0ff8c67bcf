//! The witness at the foot of the picture: whether the third vote is there.

use crate::components::sign::Sign;
use crate::look;
use crate::page::page;
use leptos::prelude::*;
use wire::text::{self, Label};
use wire::view::WitnessView;

/// The witness, or that there is none.
#[component]
pub fn Witness() -> impl IntoView {
    let page = page();
    let witness: Memo<Option<WitnessView>> =
        Memo::new(move |_| page.view.with(|v| v.as_ref()?.witness.clone()));
    let look =
        Signal::derive(move || page.look(witness.with(|w| w.as_ref().map_or(look::STALE, look::witness))));
    let state = move || {
        witness.with(|w| match w {
            None => "None",
            Some(w) if w.up && w.votes => "Up",
            Some(w) if w.up => "NoVote",
            Some(_) => "Lost",
        })
    };
    let note = move || {
        witness.with(|w| {
            w.as_ref().map_or_else(String::new, |w| {
                let vote = page.t(if w.up && !w.votes { Label::NoVote } else { Label::ThirdVote });
                format!("{vote} · {}", w.name)
            })
        })
    };
    let value = move || {
        witness.with(|w| {
            w.as_ref().map_or_else(String::new, |w| match w.round_trip_us {
                Some(us) if w.up => text::round_trip(us),
                _ if w.up => String::new(),
                _ => page.t(Label::WitnessAway).to_owned(),
            })
        })
    };
    view! {
        <p class="witness" data-testid="witness" data-state=state>
            <span class="dots" aria-hidden="true"></span>
            <Show when=move || witness.with(Option::is_some)
                fallback=move || view! { <span class="words">{move || page.t(Label::NoWitness)}</span> }>
                <span class="words">
                    <Sign look=look size="s13"/>
                    <b class=move || if state() == "Lost" { "tone-bad" } else { "" }>{move || page.t(Label::Witness)}</b>
                    <span>{note}</span>
                    <b class=move || if state() == "Lost" { "tone-bad" } else { "" }>{value}</b>
                </span>
            </Show>
            <span class="dots" aria-hidden="true"></span>
        </p>
    }
}
