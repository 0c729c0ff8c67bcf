//! Cables pulled while every process lives: the witness decides, and never are two active (A8, A9).

use anyhow::{Result, ensure};
use e2e::cut::cut_active;
use e2e::lab::{Lab, Setup};
use e2e::scenes;
use e2e::writer::Judge;

#[test]
fn an_active_server_that_is_cut_off_stops_serving_before_the_other_starts() -> Result<()> {
    let mut lab = Lab::start(&Setup { backing: Some("volatile"), ..Setup::default() })?;
    let mut client = lab.writer("client")?;
    let mut judge = Judge::default();
    let cut = cut_active(&mut lab, &mut client, &mut judge)?;
    ensure!(cut.one_active(), "two were active: {cut:?}");
    ensure!(judge.lost == 0, "{judge:?}");
    ensure!(cut.loser_refuses, "the losing side can still write: {cut:?}");
    ensure!(cut.loser_until_ms < cut.winner_from_ms, "{cut:?}");
    scenes::recover(&mut lab, cut.loser)?;
    client.end()?;
    lab.end()
}
