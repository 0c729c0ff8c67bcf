//! The rows in a group's place: where clients find it, its disk, since when; or what the other copy is worth.

use crate::components::verdict::moment;
use crate::page::Page;
use leptos::prelude::*;
use wire::ids::NodeId;
use wire::text::{self, Label, Lang};
use wire::view::{ClusterView, GroupState, GroupView, Outcome, SetView, Standby};

/// What, strong words, the rest.
pub type Fact = (String, String, String);

/// The rows of a group's place on server `on`; `here`: it is the solid one.
#[must_use]
pub fn facts(
    page: Page,
    lang: Lang,
    view: &ClusterView,
    group: &GroupView,
    on: NodeId,
    here: bool,
) -> Vec<Fact> {
    let label = |l: Label| text::label(lang, l).to_owned();
    let sets: Vec<&SetView> = view.sets.iter().filter(|s| s.group == group.id).collect();
    let backing = |s: &&SetView| s.backing[usize::from(on.0 != 1)].clone();
    let backings = sets.iter().map(backing).collect::<Vec<_>>().join(" · ");
    let size = sets.first().map(|s| text::bytes(s.size)).unwrap_or_default();
    if !here {
        return slot_facts(page, lang, view, group, on, &backings);
    }
    let mut facts = Vec::new();
    if let GroupState::Failed { step, reason } | GroupState::Held { step, reason } = &group.state {
        let stopping = matches!(group.state, GroupState::Held { .. });
        facts.push((label(Label::Reason), text::step(lang, *step, stopping), reason.clone()));
    }
    let addresses: Vec<String> = group.addresses.iter().map(ToString::to_string).collect();
    if !addresses.is_empty() {
        facts.push((label(Label::ClientsUse), addresses.join(" · "), String::new()));
    }
    if !sets.is_empty() {
        facts.push((label(Label::Disk), group.mounts.join(" · "), format!("{backings} · {size}")));
    }
    if group.active == Some(on) && group.state == GroupState::Running {
        let how = if group.failed_over { label(Label::FailedOver) } else { String::new() };
        facts.push((label(Label::HereSince), moment(page, group.since), how));
    }
    facts
}

fn slot_facts(
    page: Page,
    lang: Lang,
    view: &ClusterView,
    group: &GroupView,
    on: NodeId,
    backings: &str,
) -> Vec<Fact> {
    let label = |l: Label| text::label(lang, l).to_owned();
    let copy = |strong: String| {
        let rest = if backings.is_empty() { String::new() } else { format!("· {backings}") };
        (label(Label::Copy), strong, rest)
    };
    let mut facts = vec![match group.standby {
        _ if group.sets.is_empty() => (label(Label::Copy), String::new(), label(Label::CopyNone)),
        Standby::Ready => copy(label(Label::CopyEqual)),
        Standby::Rebuilding => copy(label(Label::CopyRebuilding)),
        Standby::OutOfDate { since } => {
            (label(Label::Copy), String::new(), text::copy_behind(lang, since, page.east))
        }
        Standby::Away => copy(label(Label::CopyAway)),
        Standby::Unknown => copy(label(Label::CopyUnknown)),
    }];
    let forecast = group.active.and_then(|at| view.forecasts.iter().find(|f| f.server == at));
    if let Some(Outcome::Moves { about_ms }) =
        forecast.map(|f| f.outcome).filter(|_| group.standby == Standby::Ready)
    {
        facts.push((label(Label::WouldTake), text::about_ms(lang, about_ms), String::new()));
    }
    if group.policy.first() == Some(&on) {
        facts.push((label(Label::Home), label(Label::HomeYes), String::new()));
    }
    facts
}

/// Text that may break after each slash of a path, and nowhere inside a name while there is room.
#[must_use]
pub fn breakable(text: &str) -> impl IntoView + use<> {
    let pieces: Vec<String> = text.split_inclusive('/').map(str::to_owned).collect();
    pieces.into_iter().map(|piece| view! { {piece}<wbr/> }).collect_view()
}
