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
/// How often the trial of the flush is played: the standby returns from a power loss, then has to serve.
const FLUSH_ROUNDS: u64 = 2;

/// The backings, as the launcher names them: unflushed writes are lost at the kill; flush does nothing.
const VOLATILE: &str = "volatile";
const NO_FLUSH: &str = "volatile-lying";

/// The show.
///
/// # Errors
/// When a round does not come to its end.
pub fn run(options: &Options) -> Result<Outcome> {
    let wanted = options.figure("rounds", ROUNDS)?;
    let mut table = Table::new(&["round", "killed", "gap ms", "in sync again ms", "lost so far"]);
    let mut rounds = Vec::new();
    let (judge, broken) = play(VOLATILE, wanted, false, |number, round, judge| {
        println!("round {number}: {round:?}, lost {}", judge.lost);
        table.row(&[
            number.to_string(),
            scenes::name(round.victim),
            round.gap_ms.to_string(),
            round.in_sync_ms.to_string(),
            judge.lost.to_string(),
        ]);
        rounds.push(round);
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
    let (with, without) = if options.figure("flush", 1)? == 1 {
        (flush_trial(VOLATILE)?, flush_trial(NO_FLUSH)?)
    } else {
        (None, Some("not asked for".to_owned()))
    };
    let done = u64::try_from(rounds.len())?;
    let alternating = rounds.windows(2).all(|pair| pair[0].victim != pair[1].victim);
    let green =
        broken.is_none() && done == wanted && judge.lost == 0 && judge.acknowledged > 0 && alternating;
    let facts = json!({
        "rounds": done, "lost": judge.lost, "acknowledged": judge.acknowledged, "unanswered": judge.unanswered,
        "gap_ms": gaps, "in_sync_ms": waits, "alternating": alternating, "error": broken,
        "lost_with_flush": with, "lost_without_flush": without,
    });
    Ok(Outcome::new(green && with.is_none() && without.as_deref().is_some_and(is_damage), facts))
}

/// What a disk that forgets does to the data: increments are missing, or the file system cannot even be mounted. Any other
/// trouble is no proof that the flush matters.
fn is_damage(found: &str) -> bool {
    found.ends_with(LOST) || found.to_lowercase().contains("mount")
}

/// The end of what is told of missing increments.
const LOST: &str = "acknowledged increments lost";

/// Plays rounds until the number is reached or one fails; what failed is told, not returned as an error, for the
/// rounds before it count. With `standby_too` the standby is killed and returns before each.
fn play(
    backing: &'static str,
    rounds: u64,
    standby_too: bool,
    mut seen: impl FnMut(u64, Round, &Judge),
) -> Result<(Judge, Option<String>)> {
    let mut lab = Lab::start(&Setup { backing: Some(backing), auto_recover: true, ..Setup::default() })?;
    let mut writer = lab.writer("client")?;
    let mut judge = Judge::default();
    for number in 1..=rounds {
        let before =
            if standby_too { scenes::standby_loss(&mut lab, &mut writer, &mut judge) } else { Ok(()) };
        match before.and_then(|()| scenes::power_loss(&mut lab, &mut writer, &mut judge)) {
            Ok(round) => seen(number, round, &judge),
            Err(error) => {
                let records = lab.keep(&format!("counter-failover-{backing}"))?;
                return Ok((
                    judge,
                    Some(format!("round {number}: {error:#}\nrecords: {}", records.display())),
                ));
            }
        }
    }
    judge.hear(&writer.end()?);
    // Where nothing is flushed the file system may well break: errors in the logs are what is looked for there.
    if backing == VOLATILE {
        lab.end()?;
    }
    Ok((judge, None))
}

/// The standby loses power and returns, then the active server loses power: what the standby had acknowledged before
/// its own loss is served from its disk. Once with flush, which must lose nothing, and once with flush taken out,
/// which must lose, or all rounds prove nothing. Tells what was lost.
fn flush_trial(backing: &'static str) -> Result<Option<String>> {
    println!("\nthe standby returns, then has to serve, on {backing}:");
    let (judge, broken) = play(backing, FLUSH_ROUNDS, true, |number, round, judge| {
        println!("round {number}: {round:?}, lost {}", judge.lost);
    })?;
    let found = match (judge.lost, broken) {
        (0, broken) => broken,
        (lost, _) => Some(format!("{lost} {LOST}")),
    };
    println!("{backing}: {}", found.as_deref().unwrap_or("nothing lost"));
    Ok(found)
}
