//! `node-kill`: the manager on the active server is killed and comes back; kept away too long, the group fails over.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::Options;
use crate::lab::{Lab, Setup};
use crate::report::{Outcome, Table, spread};
use crate::scenes;
use crate::writer::Judge;

/// What the claim asks for.
const KILLS: u64 = 10;

/// The show.
///
/// # Errors
/// When the group moves after a kill, no manager comes back, or nobody takes over when it stays away.
pub fn run(options: &Options) -> Result<Outcome> {
    let wanted = options.figure("kills", KILLS)?;
    let mut lab = Lab::start(&Setup { backing: Some("volatile"), ..Setup::default() })?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    judge.hear(&writer.told()?);
    let mut table =
        Table::new(&["kill", "manager away ms", "longest wait of the writer ms", "tries without answer"]);
    let (mut away, mut waits) = (Vec::new(), Vec::new());
    for number in 1..=wanted {
        judge.take_gap_ms();
        away.push(scenes::kill_node(&mut lab)?);
        judge.hear(&writer.wait_for_more(Duration::from_secs(10))?);
        waits.push(judge.take_gap_ms());
        let row =
            [number, away.last().copied().unwrap_or(0), waits.last().copied().unwrap_or(0), judge.unanswered];
        println!("kill {row:?}");
        table.row(&row);
    }
    let unanswered = judge.unanswered;
    let taken_over = keep_away(&mut lab, &mut writer, &mut judge)?;
    judge.hear(&writer.end()?);
    lab.end()?;
    println!();
    table.print();
    println!("\nkept away for longer than its grace: taken over, writer waited {taken_over} ms");
    println!("away ms {:?}, waits ms {:?} (smallest, middle, largest)", spread(&away), spread(&waits));
    let facts = json!({
        "kills": wanted, "unanswered": unanswered, "lost": judge.lost, "away_ms": away, "wait_ms": waits,
        "kept_away_gap_ms": taken_over,
    });
    Ok(Outcome::new(unanswered == 0 && judge.lost == 0, facts))
}

/// Stops the manager's return for longer than its grace: the other server takes over; then all is healed again.
fn keep_away(lab: &mut Lab, writer: &mut crate::lab::Writer, judge: &mut Judge) -> Result<u64> {
    let server = lab.wait_healthy(scenes::RECOVER)?;
    let twin = server.twin();
    judge.hear(&writer.told()?);
    judge.take_gap_ms();
    lab.demo(&["stop-node", &scenes::name(server)])?;
    lab.wait("the other server takes over after the grace", scenes::TAKE_OVER, |status| {
        scenes::runs(status, twin, twin).then_some(())
    })?;
    judge.hear(&writer.wait_for_answer(twin, scenes::TAKE_OVER)?);
    let gap = judge.take_gap_ms();
    lab.demo(&["start-node", &scenes::name(server)])?;
    scenes::recover(lab, server)?;
    Ok(gap)
}
