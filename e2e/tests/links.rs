//! Cables pulled while every process lives: the witness decides, and never are two active (A8, A9).

use anyhow::{Result, ensure};
use e2e::lab::{Lab, Setup};
use e2e::scenes;

#[test]
fn an_active_server_that_is_cut_off_stops_serving_before_the_other_starts() -> Result<()> {
    let mut lab = Lab::start(&Setup { backing: Some("volatile"), ..Setup::default() })?;
    let cut = scenes::cut_active(&mut lab)?;
    ensure!(cut.both_active == 0, "both acknowledged at once: {cut:?}");
    ensure!(cut.loser_refuses, "the losing side can still write: {cut:?}");
    ensure!(cut.loser_until_ms < cut.winner_from_ms, "{cut:?}");
    scenes::recover(&mut lab, cut.loser)?;
    lab.end()
}
