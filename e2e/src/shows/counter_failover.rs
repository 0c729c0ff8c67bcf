//! `counter-failover`: a counter behind the floating IP survives the power loss of its server, round after round.

use anyhow::Result;
use serde_json::json;

use super::Options;
use crate::lab::{Lab, Setup};
use crate::report::{Outcome, Table, spread};
use crate::scenes::{self, Round};
use crate::writer::Judge;

/// What the claim asks for.
const ROUNDS: u64 = 20;
/// Without flush the loss shows when a server is killed that came back from an earlier kill: the third round at the latest.
const ROUNDS_WITHOUT_FLUSH: u64 = 6;

/// The show.
///
/// # Errors
/// When a round does not come to its end.
pub fn run(options: &Options) -> Result<Outcome> {
    let wanted = options.figure("rounds", ROUNDS)?;
    let mut table = Table::new(&["round", "killed", "gap ms", "in sync again ms", "lost so far"]);
    let mut rounds = Vec::new();
    let (judge, broken) = play("volatile", wanted, |number, round, judge| {
        println!("round {number}: {round:?}, lost {}", judge.lost);
        table.row(&[
            number.to_string(),
            scenes::name(round.victim),
            round.gap_ms.to_string(),
            round.in_sync_ms.to_string(),
            judge.lost.to_string(),
        ]);
        rounds.push(round);
        true
    })?;
    println!();
    table.print();
    let gaps: Vec<u64> = rounds.iter().map(|round| round.gap_ms).collect();
    let waits: Vec<u64> = rounds.iter().map(|round| round.in_sync_ms).collect();
    println!(
        "\ngap ms: smallest, middle, largest {:?}; in sync again ms: {:?}",
        spread(&gaps),
        spread(&waits)
    );
    if let Some(broken) = &broken {
        println!("\n{broken}");
    }
    let red = if options.figure("red", 1)? == 1 { Some(without_flush()?) } else { None };
    let done = u64::try_from(rounds.len())?;
    let alternating = rounds.windows(2).all(|pair| pair[0].victim != pair[1].victim);
    let green =
        broken.is_none() && done == wanted && judge.lost == 0 && judge.acknowledged > 0 && alternating;
    let facts = json!({
        "rounds": done, "lost": judge.lost, "acknowledged": judge.acknowledged, "unanswered": judge.unanswered,
        "gap_ms": gaps, "in_sync_ms": waits, "alternating": alternating, "error": broken, "without_flush": red,
    });
    Ok(Outcome::new(green && red != Some(None), facts))
}

/// Plays rounds until the number is reached, `go_on` says no or a round fails; what failed is told, not returned as an
/// error, for the rounds before it count.
fn play(
    backing: &'static str,
    rounds: u64,
    mut go_on: impl FnMut(u64, Round, &Judge) -> bool,
) -> Result<(Judge, Option<String>)> {
    let mut lab = Lab::start(&Setup { backing: Some(backing), auto_recover: true, ..Setup::default() })?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    for number in 1..=rounds {
        match scenes::power_loss(&mut lab, &mut writer, &mut judge) {
            Ok(round) if go_on(number, round, &judge) => {}
            Ok(_) => break,
            Err(error) => {
                let records = lab.keep("counter-failover")?;
                return Ok((
                    judge,
                    Some(format!("round {number}: {error:#}\nrecords: {}", records.display())),
                ));
            }
        }
    }
    judge.hear(&writer.end()?);
    if backing == "volatile" {
        lab.end()?;
    }
    Ok((judge, None))
}

/// The same on a backing whose flush answers and does nothing: it must lose, or the rounds above prove nothing. What
/// was lost, or how the file system on it broke; nothing where it did not lose.
fn without_flush() -> Result<Option<String>> {
    println!("\nthe same with flush taken out:");
    let (judge, broken) = play("volatile-lying", ROUNDS_WITHOUT_FLUSH, |number, round, judge| {
        println!("round {number}: {round:?}, lost {}", judge.lost);
        judge.lost == 0
    })?;
    let found = match (judge.lost, broken) {
        (0, None) => None,
        (0, Some(broken)) => Some(broken),
        (lost, _) => Some(format!("{lost} acknowledged increments lost")),
    };
    println!(
        "without flush: {}",
        found.as_deref().unwrap_or("NOTHING LOST, so the rounds above prove nothing")
    );
    Ok(found)
}
