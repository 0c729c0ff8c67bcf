//! The steps of a plan while it runs: done with its time, under way, to come.

use crate::components::sign::Sign;
use crate::look;
use crate::page::page;
use leptos::prelude::*;
use wire::ids::GroupId;
use wire::text::{self, Label};
use wire::view::StepView;

/// The steps of a group's plan; nothing while none runs.
#[component]
pub fn Steps(group: GroupId) -> impl IntoView {
    let page = page();
    let found = page.group(group);
    let steps = move || found.with(|g| g.as_ref().map_or(Vec::new(), |g| g.steps.clone()));
    view! {
        <Show when=move || !steps().is_empty()>
            <ol class="steps" data-testid="steps" aria-label=move || page.t(Label::Steps)>
                {move || steps().into_iter().map(|step| view! { <Step step/> }).collect_view()}
            </ol>
        </Show>
    }
}

#[component]
fn Step(step: StepView) -> impl IntoView {
    let page = page();
    let (at, stopping) = (step.progress, step.stopping);
    let look = Signal::derive(move || page.look(look::step(at, stopping)));
    let kind = step.kind;
    let words = move || text::step(page.lang.get(), kind, stopping);
    let progress = move || text::step_progress(page.lang.get(), &step, page.at());
    view! {
        <li>
            <Sign look=look size="s16"/>
            <span>{words}</span>
            <span class="when">{progress}</span>
        </li>
    }
}
