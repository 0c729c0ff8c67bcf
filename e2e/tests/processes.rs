//! Any process may die: what runs goes on, the next one goes on with it (A7, C12).

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::command;
use e2e::lab::{Lab, Setup, signal_pid};
use e2e::scenes;
use e2e::writer::Judge;
use rustix::process::Signal;
use wire::NodeId;

/// Deaths of a set's disk processes within a minute after which its keeper gives it up.
const DEATHS: usize = 5;
/// For a command on a host.
const COMMAND: Duration = Duration::from_secs(10);

#[test]
fn killing_the_manager_disturbs_nobody() -> Result<()> {
    let mut lab = Lab::start(&Setup { backing: Some("volatile"), ..Setup::default() })?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    for _ in 0..2 {
        scenes::kill_node(&mut lab)?;
        judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
    }
    judge.hear(&writer.end()?);
    ensure!(judge.unanswered == 0, "{} tries went without an answer", judge.unanswered);
    ensure!(judge.lost == 0, "{} acknowledged increments are missing", judge.lost);
    lab.end()
}

#[test]
fn killing_disk_processes_and_keepers_is_a_pause() -> Result<()> {
    let mut lab = Lab::start(&Setup::default())?;
    let active = lab.wait_healthy(scenes::RECOVER)?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    for side in [active, active.twin(), active] {
        scenes::kill_disk(&mut lab, side)?;
        judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
        scenes::kill_keeper(&mut lab, side)?;
        judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
    }
    judge.hear(&writer.end()?);
    ensure!(judge.unanswered == 0, "{} tries went without an answer", judge.unanswered);
    ensure!(judge.lost == 0, "{} acknowledged increments are missing", judge.lost);
    lab.end()
}

/// Five deaths within a minute are no accident: the keeper withdraws the device, and the twin, which has all of it, takes over.
#[test]
fn a_disk_process_that_dies_again_and_again_gives_the_group_to_the_twin() -> Result<()> {
    let mut lab = Lab::start(&Setup::default())?;
    let active = lab.wait_healthy(scenes::RECOVER)?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
    let mut last = None;
    for death in 1..=DEATHS {
        let pid = lab.wait("another disk process", scenes::NODE_BACK, |status| {
            status.server(active).ok()?.disk_pid.filter(|pid| Some(*pid) != last)
        })?;
        if death > 1 {
            judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
        }
        signal_pid(pid, Signal::KILL)?;
        last = Some(pid);
    }
    let twin = active.twin();
    lab.wait("the twin takes over", scenes::TAKE_OVER, |status| {
        scenes::runs(status, twin, twin).then_some(())
    })?;
    judge.hear(&writer.wait_for_answer(twin, scenes::TAKE_OVER)?);
    ensure!(!addressed(&lab, active)?, "{active} still has the floating address");
    judge.hear(&writer.end()?);
    ensure!(judge.lost == 0, "{} acknowledged increments are missing", judge.lost);
    lab.end()
}

/// Node and disk process stand still at once, as where a machine thrashes: the keeper, which does not, ends what they hold when
/// their lease is over, so that the twin may take over and the address is at one place only. Awake again they change nothing.
#[test]
fn what_stands_still_is_fenced_by_the_keeper_and_changes_nothing_when_it_wakes() -> Result<()> {
    let mut lab = Lab::start(&Setup::default())?;
    let active = lab.wait_healthy(scenes::RECOVER)?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
    let (node, disk) = lab.wait("both processes", scenes::NODE_BACK, |status| {
        let server = status.server(active).ok()?;
        Some((server.node_pid?, server.disk_pid?))
    })?;
    signal_pid(disk, Signal::STOP)?;
    signal_pid(node, Signal::STOP)?;
    let twin = active.twin();
    let taken = lab.wait("the twin takes over", scenes::TAKE_OVER, |status| {
        scenes::runs(status, twin, twin).then_some(())
    });
    let heard = taken.and_then(|()| writer.wait_for_answer(twin, scenes::TAKE_OVER));
    let gone = addressed(&lab, active).map(|held| !held);
    // A fenced disk process is killed, and its pid may be another's.
    let _ = signal_pid(disk, Signal::CONT);
    signal_pid(node, Signal::CONT)?;
    judge.hear(&heard?);
    ensure!(gone?, "{active} had the floating address while {twin} served");
    scenes::recover(&mut lab, active)?;
    judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
    ensure!(lab.wait_healthy(scenes::RECOVER)? == twin, "the group moved back by itself");
    judge.hear(&writer.end()?);
    ensure!(judge.lost == 0, "{} acknowledged increments are missing", judge.lost);
    lab.end()
}

/// With the keeper standing still nobody replaces a killed disk process: the manager gives the group to the twin.
#[test]
fn a_keeper_that_stands_still_costs_a_failover_and_no_more() -> Result<()> {
    let mut lab = Lab::start(&Setup { auto_recover: true, ..Setup::default() })?;
    let active = lab.wait_healthy(scenes::RECOVER)?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
    let (keeper, disk) = lab.wait("both processes", scenes::NODE_BACK, |status| {
        let server = status.server(active).ok()?;
        Some((server.keeper_pid?, server.disk_pid?))
    })?;
    signal_pid(keeper, Signal::STOP)?;
    signal_pid(disk, Signal::KILL)?;
    let twin = active.twin();
    let taken = lab.wait("the twin takes over", scenes::TAKE_OVER, |status| {
        scenes::runs(status, twin, twin).then_some(())
    });
    let heard = taken.and_then(|()| writer.wait_for_answer(twin, scenes::TAKE_OVER));
    let gone = addressed(&lab, active).map(|held| !held);
    signal_pid(keeper, Signal::CONT)?;
    judge.hear(&heard?);
    ensure!(gone?, "{active} had the floating address while {twin} served");
    lab.wait_healthy(scenes::RECOVER)?;
    judge.hear(&writer.end()?);
    ensure!(judge.lost == 0, "{} acknowledged increments are missing", judge.lost);
    lab.end()
}

/// Whether a host has the floating address.
fn addressed(lab: &Lab, on: NodeId) -> Result<bool> {
    let address = lab.status()?.service.ip();
    let mut ip = lab.exec(&scenes::name(on));
    ip.args(["ip", "-o", "address"]).stdin(Stdio::null());
    let said = command::output(&mut ip, COMMAND).context("ask for addresses")?;
    Ok(said.contains(&format!(" {address}/")))
}
