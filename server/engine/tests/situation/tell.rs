//! What came of a situation, line by line: server states, groups, what was done on each server, what was told to people.

use super::words::letter;
use crate::common::{Host, World};
use peer::control::Role;
use wire::text::{Lang, Names};
use wire::view::{ClusterView, GroupState, GroupView, ServerState, Standby};
use wire::{GroupId, NodeId, Severity};

fn state_of(state: ServerState) -> &'static str {
    match state {
        ServerState::Normal => "normal",
        ServerState::Stopped => "stopped",
        ServerState::Down => "down",
        ServerState::RestartedAfterDown => "restarted after down",
    }
}

fn views(world: &mut World) -> Vec<(NodeId, ClusterView)> {
    let alive: Vec<NodeId> = NodeId::BOTH.into_iter().filter(|s| world.hosts[s].engine.is_some()).collect();
    alive.into_iter().map(|server| (server, world.view(server))).collect()
}

/// Something is under way.
pub fn is_busy(world: &mut World) -> bool {
    let moving = |group: &GroupView| {
        matches!(group.state, GroupState::Starting | GroupState::Stopping | GroupState::Moving { .. })
    };
    views(world).iter().any(|(_, view)| view.groups.iter().any(moving))
}

/// Server states and groups, one line each. Where the servers differ, each view is told.
pub fn state(world: &mut World) -> Vec<String> {
    let views = views(world);
    let Some((_, first)) = views.first() else { return vec!["both servers are off".into()] };
    let mut lines = Vec::new();
    for server in &first.servers {
        lines.extend(agreed(&views, |view| {
            let found = view.servers.iter().find(|s| s.id == server.id).unwrap();
            let recovering = if found.recovering { ", recovering" } else { "" };
            format!("server {}: {}{recovering}", found.id.0, state_of(found.state))
        }));
    }
    for group in first.groups.iter().map(|group| group.id) {
        lines.extend(agreed(&views, |view| group_line(view.groups.iter().find(|g| g.id == group).unwrap())));
        lines.extend(really(world, group));
    }
    if views.iter().any(|(_, view)| view.maintenance) {
        lines.push("maintenance".into());
    }
    lines
}

/// One line if all say the same; otherwise what each says.
fn agreed(views: &[(NodeId, ClusterView)], line: impl Fn(&ClusterView) -> String) -> Vec<String> {
    let said: Vec<(NodeId, String)> = views.iter().map(|(server, view)| (*server, line(view))).collect();
    match said.as_slice() {
        [(_, one)] => vec![one.clone()],
        [(_, one), (_, two)] if one == two => vec![one.clone()],
        all => all.iter().map(|(server, line)| format!("{line} (says server {})", server.0)).collect(),
    }
}

fn group_line(group: &GroupView) -> String {
    let at = group.active.map_or(String::new(), |at| format!(" on {}", at.0));
    let state = match &group.state {
        GroupState::Stopped => "stopped".to_string(),
        GroupState::Starting => format!("starting{at}"),
        GroupState::Running => format!("running{at}"),
        GroupState::Stopping => format!("stopping{at}"),
        GroupState::Moving { to } => format!("moving to {}", to.0),
        GroupState::Failed { step, reason } => format!("failed, {step:?}: {reason}").to_lowercase(),
        GroupState::Held { step, reason } => format!("held{at}, {step:?}: {reason}").to_lowercase(),
        GroupState::Unknown => "nobody here can know".to_string(),
    };
    let standby = match group.standby {
        Standby::Ready => "ready",
        Standby::Rebuilding => "being rebuilt",
        Standby::OutOfDate { .. } => "out of date",
        Standby::Away => "away",
        Standby::Unknown => "unknown",
    };
    let kept = if group.kept { ", kept" } else { "" };
    format!("{}: {state}{kept}; the other copy is {standby}", letter(group.id))
}

/// What is really there, where that is not what the word of its state says.
fn really(world: &mut World, group: GroupId) -> Vec<String> {
    let config = world.config.group(group).cloned().unwrap();
    let parts = |host: &Host| {
        let mut found = Vec::new();
        let sets = world.config.sets.iter().filter(|s| s.group == group);
        if sets.clone().any(|s| host.up && host.disks[&s.id].role == Role::Active) {
            found.push("disk");
        }
        if config.mounts.iter().any(|m| host.mounted.contains(&m.set)) {
            found.push("mount");
        }
        if config.addresses.iter().any(|a| host.addresses.contains(a)) {
            found.push("address");
        }
        if host.running.contains(&group) {
            found.push("script");
        }
        found
    };
    let there: Vec<(NodeId, Vec<&str>)> = world.hosts.iter().map(|(id, host)| (*id, parts(host))).collect();
    let here = there.iter().filter(|(_, found)| !found.is_empty());
    here.map(|(id, found)| format!("  there on {}: {}", id.0, found.join(", "))).collect()
}

/// What was done on a server for a group since the last time, in order.
fn done(host: &Host, group: GroupId, sets: &[wire::SetId]) -> Vec<String> {
    let mut steps = Vec::new();
    for line in &host.log {
        let Some((_, text)) = line.split_once(' ') else { continue };
        let of_set = sets.iter().any(|set| text.starts_with(&format!("order {set} ")));
        let of_group = text.contains(&format!("group: GroupId({})", group.0));
        let word = if text.starts_with("order ") && of_set {
            match text.split_whitespace().nth(2).unwrap_or("") {
                "Activate" if text.contains("alone: true") => "disk alone",
                "Activate" => "disk",
                "Deactivate" => "leave disk",
                "Fence" => "fence disk",
                "PutOut" => "go on alone",
                "Readmit" => "take the twin back",
                _ => continue,
            }
        } else if of_group && !text.starts_with("event") {
            match text.split([' ', '{']).next().unwrap_or("") {
                "Mount" => "mount",
                "Unmount" if text.contains("force: true") => "unmount by force",
                "Unmount" => "unmount",
                "AddAddress" => "address",
                "RemoveAddress" => "remove address",
                "StartScript" => "start script",
                "StopScript" => "stop script",
                "Kill" => "kill",
                _ => continue,
            }
        } else {
            continue;
        };
        steps.push(word.to_string());
    }
    // What is repeated is told once, with its number.
    let mut told: Vec<(String, u32)> = Vec::new();
    for step in steps {
        match told.last_mut().filter(|(last, _)| *last == step) {
            Some((_, times)) => *times += 1,
            None => told.push((step, 1)),
        }
    }
    told.into_iter().map(|(step, n)| if n > 1 { format!("{step} x{n}") } else { step }).collect()
}

/// Durations differ with every change of an interval; they are no matter of a situation.
fn without_times(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let timed = |word: &str| word.contains('\u{a0}') && word.starts_with(|c: char| c.is_ascii_digit());
    words.into_iter().map(|word| if timed(word) { "..." } else { word }).collect::<Vec<_>>().join(" ")
}

/// Everything that is told at a `then`.
pub fn told(world: &mut World) -> Vec<String> {
    let mut lines = state(world);
    for server in NodeId::BOTH {
        for group in world.config.groups.clone() {
            let sets: Vec<_> =
                world.config.sets.iter().filter(|s| s.group == group.id).map(|s| s.id).collect();
            let steps = done(&world.hosts[&server], group.id, &sets);
            if !steps.is_empty() {
                lines.push(format!("done on {} for {}: {}", server.0, letter(group.id), steps.join(", ")));
            }
        }
    }
    for server in NodeId::BOTH {
        if world.hosts[&server].engine.is_none() {
            continue;
        }
        let view = world.view(server);
        for event in &world.hosts[&server].events {
            let matters = event.kind.severity() != Severity::Info || event.kind.code() / 100 == 20;
            if event.origin == server && matters {
                let said = without_times(&wire::text::event(Lang::En, &event.kind, Names(&view)));
                lines.push(format!("told by {}: {said}", server.0));
            }
        }
    }
    lines
}
