//! How a view becomes a verdict: the worst thing for people first.

use super::{Fact, Kind, Row, Todo, Tone, Verdict};
use crate::ids::{GroupId, NodeId};
use crate::traffic::WriteMode;
use crate::view::{
    ClusterView, GroupState, GroupView, LinkState, LinkView, Outcome, ServerState, ServerView, SetState,
    SetView, Standby,
};

/// Rows beside the verdict: more would push the picture down (VISUAL 5).
const ROWS_MAX: usize = 3;

/// Judges a view.
#[must_use]
pub fn verdict(view: &ClusterView) -> Verdict {
    let (tone, kind) = kind(view);
    let facts = facts(view, &kind);
    let rows = rows(view, &kind, tone);
    Verdict { tone, kind, facts, rows }
}

fn kind(view: &ClusterView) -> (Tone, Kind) {
    if let Some(kind) = bad(view) {
        return (Tone::Bad, kind);
    }
    if let Some(kind) = at_rest(view) {
        return (if kind == Kind::NoGroups { Tone::Ok } else { Tone::Un }, kind);
    }
    if let Some(kind) = warn(view) {
        return (Tone::Warn, kind);
    }
    let planned = view.groups.iter().find_map(planned);
    planned.map_or((Tone::Ok, Kind::Protected), |kind| (Tone::Move, kind))
}

/// A wanted group does not serve, or data is at risk.
fn bad(view: &ClusterView) -> Option<Kind> {
    let split = view.sets.iter().find(|s| s.state == SetState::Split);
    if let Some(set) = split {
        return Some(Kind::Split { set: set.id });
    }
    if cut_off(view) {
        return Some(Kind::CutOff { server: view.server });
    }
    let by_state = |wanted: fn(&GroupView) -> bool| view.groups.iter().find(|g| wanted(g)).map(|g| g.id);
    if let Some(group) = behind_silence(view) {
        return Some(Kind::GroupUnknown { group });
    }
    if let Some(group) = by_state(|g| matches!(g.state, GroupState::Failed { .. })) {
        return Some(Kind::GroupFailed { group });
    }
    if let Some(group) = by_state(|g| matches!(g.state, GroupState::Held { .. }) && g.active.is_none()) {
        return Some(Kind::GroupHeld { group });
    }
    let broken = |s: &&SetView| matches!(s.state, SetState::Broken { .. });
    if let Some(set) = view.sets.iter().find(broken) {
        return Some(Kind::MirrorBroken { set: set.id });
    }
    let wanted = view.groups.iter().any(|g| g.state != GroupState::Stopped);
    let stopped_by_hand = view.servers.iter().all(|s| s.state == ServerState::Stopped);
    if wanted && !stopped_by_hand && !view.servers.iter().any(|s| s.state == ServerState::Normal) {
        return Some(Kind::NoService);
    }
    // With both servers normal a start is planned work; beside a failed server it is a failover under way.
    if view.servers.iter().any(failed)
        && let Some(group) = by_state(|g| g.state == GroupState::Starting)
    {
        return Some(Kind::FailingOver { group });
    }
    by_state(|g| g.state == GroupState::Unknown).map(|group| Kind::GroupUnknown { group })
}

/// Nothing is meant to run.
fn at_rest(view: &ClusterView) -> Option<Kind> {
    let both_stopped = view.servers.iter().all(|s| s.state == ServerState::Stopped);
    if !view.servers.is_empty() && both_stopped {
        return Some(Kind::AllStopped);
    }
    let healthy = !view.servers.iter().any(|s| s.state != ServerState::Normal);
    if view.groups.is_empty() {
        return healthy.then_some(Kind::NoGroups);
    }
    view.groups.iter().all(|g| g.state == GroupState::Stopped).then_some(Kind::AllStopped)
}

/// Its copy is being made; one that an operator paused is not.
fn is_built(set: &SetView) -> bool {
    matches!(set.state, SetState::Rebuilding { progress } if !progress.paused)
}

/// Service runs, but the next failure would hurt.
fn warn(view: &ClusterView) -> Option<Kind> {
    if let Some(group) = view.groups.iter().find(|g| matches!(g.state, GroupState::Held { .. })) {
        return Some(Kind::GroupHeld { group: group.id });
    }
    if let Some(out) = view.servers.iter().find(|s| s.state != ServerState::Normal) {
        return Some(Kind::OnlyOn { server: out.id.twin() });
    }
    if view.halted.is_some() {
        return Some(Kind::Halted { server: view.server });
    }
    if view.sets.iter().any(is_built) {
        return Some(Kind::Building);
    }
    if view.sets.iter().any(|s| matches!(s.state, SetState::Alone { .. } | SetState::Rebuilding { .. })) {
        return Some(Kind::NotProtected);
    }
    if let Some(server) = view.servers.iter().find(|s| s.node_away) {
        return Some(Kind::ManagerAway { server: server.id });
    }
    if view.witness.as_ref().is_some_and(|w| !w.up || !w.votes) {
        return Some(Kind::WitnessOut);
    }
    view.links.iter().find(|l| hurt(l)).map(|l| Kind::LinkOut { link: l.id })
}

fn planned(group: &GroupView) -> Option<Kind> {
    match group.state {
        GroupState::Moving { to } => Some(Kind::Moving { group: group.id, to }),
        GroupState::Starting => Some(Kind::Starting { group: group.id }),
        GroupState::Stopping => Some(Kind::Stopping { group: group.id }),
        GroupState::Stopped
        | GroupState::Running
        | GroupState::Failed { .. }
        | GroupState::Held { .. }
        | GroupState::Unknown => None,
    }
}

fn failed(server: &ServerView) -> bool {
    matches!(server.state, ServerState::Down | ServerState::RestartedAfterDown)
}

fn lost(link: &LinkView) -> bool {
    matches!(link.state, LinkState::Lost | LinkState::NoCable)
}

fn hurt(link: &LinkView) -> bool {
    lost(link) || link.state == LinkState::Slow
}

/// Neither the twin nor the witness is heard, and nothing serves here.
fn cut_off(view: &ClusterView) -> bool {
    let silent = view.witness.as_ref().is_some_and(|w| !w.up);
    let serves = view.groups.iter().any(|g| g.state == GroupState::Running && g.active == Some(view.server));
    silent && !serves && !view.links.is_empty() && view.links.iter().all(lost)
}

/// A group of the twin's while every path to the twin is silent and nothing is judged yet.
fn behind_silence(view: &ClusterView) -> Option<GroupId> {
    let heard = view.links.iter().any(|l| matches!(l.state, LinkState::Up | LinkState::Slow));
    let twin = view.servers.iter().find(|s| s.id != view.server && s.state == ServerState::Normal)?;
    if heard || view.links.is_empty() || twin.node_away {
        return None;
    }
    view.groups.iter().find(|g| g.active == Some(twin.id) && g.state == GroupState::Running).map(|g| g.id)
}

fn groups(view: &ClusterView, which: impl Fn(&GroupView) -> bool) -> Vec<GroupId> {
    view.groups.iter().filter(|g| which(g)).map(|g| g.id).collect()
}

fn facts(view: &ClusterView, kind: &Kind) -> Vec<Fact> {
    let mut facts = Vec::new();
    match kind {
        Kind::Split { .. } => facts.push(Fact::NothingOverwritten),
        Kind::MirrorBroken { .. } => facts.extend(broken_facts(view)),
        Kind::GroupFailed { group } | Kind::GroupHeld { group } => facts.extend(step_facts(view, *group)),
        Kind::CutOff { .. } => facts.extend([Fact::NoPath, Fact::WitnessSilent, Fact::MayRunElsewhere]),
        Kind::Halted { .. } => {
            facts.extend(view.halted.clone().map(|reason| Fact::HaltedBecause { reason }));
        }
        Kind::GroupUnknown { .. } if !view.links.iter().any(|l| l.state == LinkState::Up) => {
            facts.push(Fact::NoPath)
        }
        Kind::ManagerAway { server } => facts.push(Fact::ManagerSilent { server: *server }),
        Kind::WitnessOut => facts.push(witness_fact(view)),
        Kind::LinkOut { .. } => facts.extend(link_facts(view)),
        Kind::NoGroups
        | Kind::Protected
        | Kind::Moving { .. }
        | Kind::Starting { .. }
        | Kind::Stopping { .. }
        | Kind::AllStopped
        | Kind::OnlyOn { .. }
        | Kind::Building
        | Kind::NotProtected
        | Kind::FailingOver { .. }
        | Kind::GroupUnknown { .. }
        | Kind::NoService => {}
    }
    // While nothing is heard of the twin, nothing is said of it.
    if matches!(kind, Kind::GroupUnknown { .. }) && !facts.is_empty() {
        return facts;
    }
    if !matches!(kind, Kind::CutOff { .. } | Kind::LinkOut { .. } | Kind::WitnessOut | Kind::Halted { .. }) {
        facts.extend(server_facts(view));
    }
    facts.extend(service_facts(view));
    facts.extend(data_facts(view, kind));
    facts
}

fn server_facts(view: &ClusterView) -> Vec<Fact> {
    let out: Vec<Fact> = view
        .servers
        .iter()
        .filter_map(|s| match s.state {
            ServerState::Normal => None,
            ServerState::Down => Some(Fact::Down { server: s.id }),
            ServerState::Stopped => Some(Fact::ServerStopped { server: s.id }),
            ServerState::RestartedAfterDown if s.recovering => Some(Fact::Recovering { server: s.id }),
            ServerState::RestartedAfterDown => Some(Fact::WaitsForRecovery { server: s.id }),
        })
        .collect();
    if out.is_empty() { vec![Fact::BothUp] } else { out }
}

fn service_facts(view: &ClusterView) -> Vec<Fact> {
    let stopped = groups(view, |g| g.state == GroupState::Stopped);
    let away = groups(view, |g| g.state != GroupState::Stopped && g.state != GroupState::Running);
    let serving = groups(view, |g| g.state == GroupState::Running);
    let mut facts = Vec::new();
    if !away.is_empty() {
        facts.push(Fact::NotServing { groups: away });
    } else if !serving.is_empty() {
        facts.push(Fact::AllServe { groups: serving });
    }
    if !stopped.is_empty() && stopped.len() < view.groups.len() {
        facts.push(Fact::StoppedOnPurpose { groups: stopped });
    }
    facts
}

/// An asynchronous set, or one that is still becoming another.
fn follows(set: &SetView) -> bool {
    set.mode.max(set.mode_in_force) == WriteMode::Asynchronous
}

fn data_facts(view: &ClusterView, kind: &Kind) -> Vec<Fact> {
    let equal = |s: &SetView| matches!(s.state, SetState::InSync | SetState::Idle);
    if !view.sets.is_empty() && view.sets.iter().all(equal) {
        return vec![if view.sets.iter().any(follows) { Fact::CopyFollows } else { Fact::DataOnBoth }];
    }
    if !matches!(kind, Kind::OnlyOn { .. } | Kind::Building | Kind::NotProtected) {
        return Vec::new();
    }
    let mut facts = Vec::new();
    let lossless = !view.sets.iter().any(follows);
    if lossless
        && matches!(kind, Kind::OnlyOn { .. })
        && view.incident.as_ref().is_some_and(|i| i.total_ms.is_some())
    {
        facts.push(Fact::NothingLost);
    } else if let Some(server) = view.sets.iter().find_map(good_side) {
        facts.push(Fact::DataOnOne { server });
    }
    facts.extend(
        unprotected_since(view)
            .map(|since| Fact::UnprotectedFor { seconds: view.at.0.saturating_sub(since) / 1000 }),
    );
    facts
}

fn good_side(set: &SetView) -> Option<NodeId> {
    match &set.state {
        SetState::Alone { good } => Some(*good),
        SetState::Rebuilding { progress } => Some(progress.to.twin()),
        SetState::InSync | SetState::Split | SetState::Broken { .. } | SetState::Idle | SetState::Unknown => {
            None
        }
    }
}

/// When the protection ended, in milliseconds of the wall clock: at the failure, or when a copy fell behind.
fn unprotected_since(view: &ClusterView) -> Option<u64> {
    let out = view.servers.iter().find(|s| failed(s));
    let incident = view.incident.as_ref().filter(|i| out.is_some_and(|s| s.id == i.server));
    let behind = view.groups.iter().filter_map(|g| match g.standby {
        Standby::OutOfDate { since } => Some(since.0),
        Standby::Ready | Standby::Rebuilding | Standby::Away | Standby::Unknown => None,
    });
    incident.map(|i| i.began.0).or_else(|| behind.min()).or_else(|| out.map(|s| s.since.0))
}

fn broken_facts(view: &ClusterView) -> Vec<Fact> {
    let reason = |s: &SetView| match &s.state {
        SetState::Broken { reason } => Some(Fact::BrokenBecause { set: s.id, reason: reason.clone() }),
        SetState::InSync
        | SetState::Alone { .. }
        | SetState::Rebuilding { .. }
        | SetState::Split
        | SetState::Idle
        | SetState::Unknown => None,
    };
    view.sets.iter().filter_map(reason).take(1).collect()
}

fn step_facts(view: &ClusterView, id: GroupId) -> Vec<Fact> {
    let Some(group) = view.groups.iter().find(|g| g.id == id) else { return Vec::new() };
    match group.state.clone() {
        GroupState::Failed { step, reason } => vec![Fact::StepFailed { group: id, step, reason }],
        GroupState::Held { step, reason } => vec![Fact::StopFailed { group: id, step, reason }],
        GroupState::Stopped
        | GroupState::Starting
        | GroupState::Running
        | GroupState::Stopping
        | GroupState::Moving { .. }
        | GroupState::Unknown => Vec::new(),
    }
}

fn witness_fact(view: &ClusterView) -> Fact {
    if view.witness.as_ref().is_some_and(|w| w.up) { Fact::WitnessWithoutVote } else { Fact::WitnessSilent }
}

fn link_facts(view: &ClusterView) -> Vec<Fact> {
    let mut facts: Vec<Fact> = view
        .links
        .iter()
        .filter(|l| hurt(l))
        .map(|l| {
            if lost(l) {
                Fact::LinkLost { link: l.id, cable: l.no_cable_at }
            } else {
                Fact::LinkSlow { link: l.id }
            }
        })
        .take(2)
        .collect();
    let left = view.links.iter().filter(|l| l.state == LinkState::Up).count();
    facts.push(if left == 0 {
        Fact::NoPath
    } else {
        Fact::OtherPaths { count: u64::try_from(left).unwrap_or(u64::MAX) }
    });
    facts
}

fn rows(view: &ClusterView, kind: &Kind, tone: Tone) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let todo = todo(view, kind).map(Row::Todo);
    // When people have no service, what to do comes before what could happen next.
    if tone == Tone::Bad {
        rows.extend(todo.clone());
    }
    let alone = if let Kind::OnlyOn { server } = kind { Some(*server) } else { None };
    let told = |f: &crate::view::Forecast| match alone {
        Some(server) => f.server == server,
        None => f.outcome != Outcome::NothingStops || matches!(kind, Kind::Protected | Kind::NoGroups),
    };
    if tone != Tone::Bad {
        rows.extend(view.forecasts.iter().filter(|f| told(f)).cloned().map(Row::Forecast));
    }
    if view.sets.iter().any(is_built) && tone == Tone::Warn {
        rows.push(Row::ProtectedAgain { about_s: protected_in(view) });
    } else if tone != Tone::Bad {
        rows.extend(todo);
    }
    rows.truncate(ROWS_MAX);
    rows
}

/// Sets are rebuilt side by side: the slowest decides. Unknown while one is not measured or waits for its turn.
fn protected_in(view: &ClusterView) -> Option<u64> {
    let mut longest = 0;
    for set in &view.sets {
        match &set.state {
            SetState::Rebuilding { progress } if progress.stalled_s == 0 && !progress.paused => {
                longest = longest.max(progress.left_s?)
            }
            SetState::InSync | SetState::Idle => {}
            SetState::Rebuilding { .. }
            | SetState::Alone { .. }
            | SetState::Split
            | SetState::Broken { .. }
            | SetState::Unknown => return None,
        }
    }
    Some(longest)
}

fn todo(view: &ClusterView, kind: &Kind) -> Option<Todo> {
    let state = |id: NodeId| view.servers.iter().find(|s| s.id == id);
    match kind {
        Kind::Protected
        | Kind::NoGroups
        | Kind::Moving { .. }
        | Kind::Starting { .. }
        | Kind::Stopping { .. } => None,
        Kind::AllStopped => Some(match view.servers.iter().find(|s| s.state == ServerState::Stopped) {
            Some(server) => Todo::StartServer { server: server.id },
            None => Todo::StartGroups,
        }),
        Kind::OnlyOn { server } => state(server.twin()).map(about_server),
        Kind::NotProtected => {
            let paused = |s: &&SetView| matches!(s.state, SetState::Rebuilding { .. });
            Some(view.sets.iter().find(paused).map_or(Todo::Wait, |set| Todo::Resume { set: set.id }))
        }
        Kind::Building | Kind::FailingOver { .. } => Some(Todo::Wait),
        Kind::LinkOut { link } => Some(Todo::CheckLink { link: *link }),
        Kind::WitnessOut => Some(Todo::CheckWitness),
        Kind::ManagerAway { server } | Kind::Halted { server } => {
            Some(Todo::RestartManager { server: *server })
        }
        Kind::GroupFailed { group } | Kind::GroupHeld { group } => Some(Todo::LookAtGroup { group: *group }),
        Kind::GroupUnknown { .. } | Kind::CutOff { .. } => Some(Todo::AskTwin { server: view.server.twin() }),
        Kind::Split { set } => Some(Todo::Choose { set: *set }),
        Kind::MirrorBroken { set } => Some(Todo::CheckDisk { set: *set }),
        Kind::NoService => view.servers.iter().find(|s| failed(s)).map(about_server),
    }
}

fn about_server(server: &ServerView) -> Todo {
    let server_id = server.id;
    match server.state {
        ServerState::Down => Todo::LookAtServer { server: server_id },
        ServerState::Stopped => Todo::StartServer { server: server_id },
        ServerState::RestartedAfterDown if server.recovering => Todo::Wait,
        ServerState::RestartedAfterDown => Todo::Recover { server: server_id },
        ServerState::Normal => Todo::Wait,
    }
}
