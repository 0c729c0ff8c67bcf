//! What tests and shows have in common: one power loss, one dead manager, each seen through to its end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use wire::command::Operation;
use wire::ids::{GroupId, NodeId};
use wire::view::{GroupState, ServerState};

use crate::lab::{Lab, Status, Writer, signal_pid};
use crate::writer::Judge;

/// For the other server to take over: detection, decision, mount, address, script, on two busy cores.
pub const TAKE_OVER: Duration = Duration::from_secs(60);
/// For a server to come back, be recovered and have an equal copy again.
pub const RECOVER: Duration = Duration::from_secs(180);
/// For a manager that was killed to be back.
pub const NODE_BACK: Duration = Duration::from_secs(30);

/// One power loss of the active server, from in sync to in sync.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// The server that was killed.
    pub victim: NodeId,
    /// The longest time without an acknowledgement, in milliseconds.
    pub gap_ms: u64,
    /// From powering on again to normal and in sync, in milliseconds.
    pub in_sync_ms: u64,
}

/// Kills the active server as by power loss, sees the writer go on through the same address, powers the server on again
/// and waits until the pair is in sync. Needs a lab that recovers by itself.
///
/// # Errors
/// When nobody takes over, the writer does not go on, or the pair does not heal.
pub fn power_loss(lab: &mut Lab, writer: &mut Writer, judge: &mut Judge) -> Result<Round> {
    let victim = kill_active(lab, writer, judge)?;
    let begun = Instant::now();
    lab.demo(&["restart", &name(victim)])?;
    lab.wait_healthy(RECOVER)?;
    let in_sync_ms = millis(begun);
    judge.hear(&writer.wait_for_more(TAKE_OVER)?);
    Ok(Round { victim, gap_ms: judge.take_gap_ms(), in_sync_ms })
}

/// Kills the active server as by power loss and waits until the writer goes on; the server that was killed.
///
/// # Errors
/// When nobody takes over, or the writer does not go on.
pub fn kill_active(lab: &mut Lab, writer: &mut Writer, judge: &mut Judge) -> Result<NodeId> {
    let victim = lab.wait_healthy(RECOVER)?;
    judge.hear(&writer.wait_for_more(TAKE_OVER)?);
    judge.take_gap_ms();
    lab.demo(&["kill", &name(victim)])?;
    judge.hear(&writer.told()?);
    let twin = victim.twin();
    lab.wait("the other server takes over", TAKE_OVER, |status| runs(status, twin, twin).then_some(()))?;
    judge.hear(&writer.wait_for_answer(twin, TAKE_OVER)?);
    Ok(victim)
}

/// Kills the standby as by power loss while the writer goes on, powers it on again and waits until the pair is in sync.
/// Needs a lab that recovers by itself.
///
/// # Errors
/// When the active server does not go on alone, or the pair does not heal.
pub fn standby_loss(lab: &mut Lab, writer: &mut Writer, judge: &mut Judge) -> Result<()> {
    let active = lab.wait_healthy(RECOVER)?;
    let victim = active.twin();
    judge.hear(&writer.wait_for_more(TAKE_OVER)?);
    lab.demo(&["kill", &name(victim)])?;
    lab.wait("the active server goes on alone", TAKE_OVER, |status| {
        (state(status, active, victim)? == ServerState::Down).then_some(())
    })?;
    judge.hear(&writer.wait_for_more(TAKE_OVER)?);
    lab.demo(&["restart", &name(victim)])?;
    lab.wait_healthy(RECOVER)?;
    judge.hear(&writer.wait_for_more(TAKE_OVER)?);
    Ok(())
}

/// Waits for a server to be up again but kept apart, recovers it by command, and waits until the pair is in sync.
///
/// # Errors
/// When it does not come so far.
pub fn recover(lab: &mut Lab, server: NodeId) -> Result<u64> {
    wait_restarted(lab, server)?;
    let begun = Instant::now();
    lab.operate(server.twin(), Operation::RecoverServer { server })?;
    lab.wait_healthy(RECOVER)?;
    Ok(millis(begun))
}

/// Waits until the other server says that this one is restarted-after-down.
///
/// # Errors
/// When it does not come so far.
pub fn wait_restarted(lab: &mut Lab, server: NodeId) -> Result<()> {
    lab.wait("the server is restarted-after-down", RECOVER, |status| {
        (state(status, server.twin(), server)? == ServerState::RestartedAfterDown).then_some(())
    })
}

/// Kills the manager on the active server with `kill -9` and waits until a new one has adopted what runs; how long it
/// was away, in milliseconds.
///
/// # Errors
/// When the group moves or stops, or no new manager comes.
pub fn kill_node(lab: &mut Lab) -> Result<u64> {
    let active = lab.wait_healthy(RECOVER)?;
    let (pid, epoch) = lab.wait("the manager's process", NODE_BACK, |status| {
        let server = status.server(active).ok()?;
        Some((server.node_pid?, server.view.as_ref()?.groups.first()?.epoch))
    })?;
    signal_pid(pid, Signal::KILL)?;
    let begun = Instant::now();
    let now_active = lab.wait("a new manager has adopted the group", NODE_BACK, |status| {
        let server = status.server(active).ok()?;
        let group = server.view.as_ref()?.groups.first()?;
        let back = server.node_pid.is_some_and(|new| new != pid) && group.state == GroupState::Running;
        back.then_some((group.active, group.epoch))
    })?;
    let away = millis(begun);
    if now_active != (Some(active), epoch) {
        bail!("the group was on {active} in {epoch}, and is on {now_active:?} after its manager was killed");
    }
    ensure!(lab.wait_healthy(RECOVER)? == active, "the group moved after its manager was killed");
    Ok(away)
}

/// Kills the disk process of a server with `kill -9` and waits until another one is there and the pair is in sync, the group
/// where it was, in the same term.
///
/// # Errors
/// When the group moves or stops, or no new process comes.
pub fn kill_disk(lab: &mut Lab, on: NodeId) -> Result<()> {
    let active = lab.wait_healthy(RECOVER)?;
    let (pid, epoch) = lab.wait("the disk process", NODE_BACK, |status| {
        let epoch = status.server(active).ok()?.view.as_ref()?.groups.first()?.epoch;
        Some((status.server(on).ok()?.disk_pid?, epoch))
    })?;
    signal_pid(pid, Signal::KILL)?;
    lab.wait("a new disk process", NODE_BACK, |status| {
        status.server(on).ok()?.disk_pid.filter(|new| *new != pid)
    })?;
    let now = lab.wait("the pair is in sync", RECOVER, |status| {
        let active = status.healthy()?;
        Some((active, status.server(active).ok()?.view.as_ref()?.groups.first()?.epoch))
    })?;
    ensure!(now == (active, epoch), "the group was on {active} in {epoch}, and is on {now:?}");
    Ok(())
}

/// Kills the keeper of a server with `kill -9` and waits until another one is there.
///
/// # Errors
/// When none comes.
pub fn kill_keeper(lab: &mut Lab, on: NodeId) -> Result<()> {
    let pid = lab.wait("the keeper", NODE_BACK, |status| status.server(on).ok()?.keeper_pid)?;
    signal_pid(pid, Signal::KILL)?;
    lab.wait("a new keeper", NODE_BACK, |status| {
        status.server(on).ok()?.keeper_pid.filter(|new| *new != pid).map(|_| ())
    })
}

/// The demo's group.
///
/// # Errors
/// When no server answers.
pub fn group(lab: &Lab) -> Result<GroupId> {
    let status = lab.status()?;
    status.views().find_map(|view| Some(view.groups.first()?.id)).context("no server shows a group")
}

/// Whether the group runs on a server, as another (or the same) one says.
#[must_use]
pub fn runs(status: &Status, asked: NodeId, on: NodeId) -> bool {
    let view = status.server(asked).ok().and_then(|server| server.view.as_ref());
    view.and_then(|view| view.groups.first())
        .is_some_and(|group| group.active == Some(on) && group.state == GroupState::Running)
}

fn state(status: &Status, asked: NodeId, of: NodeId) -> Option<ServerState> {
    let view = status.server(asked).ok()?.view.as_ref()?;
    view.servers.iter().find(|server| server.id == of).map(|server| server.state)
}

/// The name of a server of the demo.
#[must_use]
pub fn name(server: NodeId) -> String {
    format!("server{}", server.0)
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
