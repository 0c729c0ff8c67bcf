//! Power loss on real parts: the writer goes on through the same address, and the server that returns is recovered.

use anyhow::{Result, ensure};
use e2e::lab::{Lab, Setup};
use e2e::scenes;
use e2e::writer::Judge;
use wire::command::Operation;

/// Two rounds: each server is killed once, so each copy must serve what the other acknowledged. On the backing that
/// loses at the kill what was not flushed.
#[test]
fn the_counter_survives_the_power_loss_of_either_server() -> Result<()> {
    let mut lab = Lab::start(&Setup { backing: Some("volatile"), auto_recover: true, ..Setup::default() })?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    let first = scenes::power_loss(&mut lab, &mut writer, &mut judge)?;
    let second = scenes::power_loss(&mut lab, &mut writer, &mut judge)?;
    judge.hear(&writer.end()?);
    ensure!(first.victim != second.victim, "the victims alternate");
    ensure!(judge.lost == 0, "{} acknowledged increments are missing", judge.lost);
    lab.end()
}

/// Nothing moves to a server that was down until an operator recovers it (A4, B3 situations 3 to 5).
#[test]
fn a_killed_server_comes_back_kept_apart_until_it_is_recovered() -> Result<()> {
    let mut lab = Lab::start(&Setup::default())?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    let victim = scenes::kill_active(&mut lab, &mut writer, &mut judge)?;
    lab.demo(&["restart", &scenes::name(victim)])?;
    scenes::wait_restarted(&mut lab, victim)?;
    let group = scenes::group(&lab)?;
    let refused = lab.operate(victim.twin(), Operation::MoveGroup { group, to: victim });
    ensure!(refused.is_err(), "a group moved to a server that is not recovered: {refused:?}");
    scenes::recover(&mut lab, victim)?;
    judge.hear(&writer.wait_for_more(scenes::TAKE_OVER)?);
    lab.operate(victim.twin(), Operation::MoveGroup { group, to: victim })?;
    lab.wait("the group is home again", scenes::TAKE_OVER, |status| {
        scenes::runs(status, victim, victim).then_some(())
    })?;
    judge.hear(&writer.wait_for_answer(victim, scenes::TAKE_OVER)?);
    judge.hear(&writer.end()?);
    ensure!(judge.lost == 0, "{} acknowledged increments are missing", judge.lost);
    lab.end()
}
