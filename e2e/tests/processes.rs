//! The manager may die: what runs goes on, a new one adopts it; kept away too long, the other server takes over (A7).

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
