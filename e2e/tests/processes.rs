//! Any process may die: what runs goes on, the next one goes on with it (A7, C12).

use anyhow::{Result, ensure};
use e2e::lab::{Lab, Setup};
use e2e::scenes;
use e2e::writer::Judge;

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
