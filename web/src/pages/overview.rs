//! The overview: verdict, incident, picture, actions, events.

use crate::components::actions::Actions;
use crate::components::announce::Announce;
use crate::components::demo::Demo;
use crate::components::event::Events;
use crate::components::incident::IncidentPanel;
use crate::components::twin::Twin;
use crate::components::verdict::VerdictBand;
use crate::page::page;
use leptos::prelude::*;
use wire::text::Label;

/// The page of a cluster.
#[component]
pub fn Overview() -> impl IntoView {
    let page = page();
    let demo = move || page.session.with(|s| s.as_ref().is_some_and(|s| s.demo));
    view! {
        <main id="main" class="overview" class:stale=move || page.stale.get() data-testid="overview">
            <Announce/>
            <VerdictBand/>
            <IncidentPanel/>
            <div class="body">
                <div class="left-side">
                    <Twin/>
                    <Actions/>
                    <p class="detail keys">{move || page.t(Label::KeysHelp)}</p>
                    <Show when=demo><Demo/></Show>
                </div>
                <Events/>
            </div>
        </main>
    }
}
