//! `rejoin-map`: the standby returns to a survivor whose map is not empty, and something breaks into the rebuild.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Options;
use crate::crash::{self, Disks, Story};
use crate::report::{Outcome, Table};
use crate::{command, layers, paths};

/// Schedules on two real disk processes.
const ROUNDS: u64 = 50;
/// At once.
const JOBS: u64 = 8;
/// The first seed of a run that names none.
const FROM: u64 = 1;
/// Schedules of the simulator: after each step of each, every fault, and every second one after each of the next steps.
const SIMULATED: u64 = 2;
/// So many next steps.
const NEAR: u64 = 2;
/// For the simulator, to be built as well.
const SIMULATOR: Duration = Duration::from_secs(1_800);

/// The show.
///
/// # Errors
/// When the simulator cannot be run.
pub fn run(options: &Options) -> Result<Outcome> {
    let from = options.figure("seed", FROM)?;
    let rounds = options.figure("rounds", ROUNDS)?;
    let jobs = options.figure("jobs", JOBS)?;
    let simulated = explore(options)?;
    println!("on two real disk processes: schedules {from}..{}", from + rounds);
    let (mut ran, mut lost, mut stuck, mut rebuilds, mut audits, mut compared, mut acknowledged) =
        (0, 0, 0, 0, 0, 0, 0);
    let mut bad = Vec::new();
    // Half lose power, half only the process: there the images hold all that was written.
    let disks =
        |seed: u64| Disks { volatile: seed.is_multiple_of(2), no_flush: false, weak: seed.is_multiple_of(4) };
    crash::run_all(from, rounds, jobs, disks, Story::Rejoin, |one| {
        ran += 1;
        lost += one.tally.lost;
        stuck += u64::from(one.broken.is_some());
        rebuilds += one.rebuilds;
        audits += one.audits;
        compared += one.compared;
        acknowledged += one.tally.acknowledged;
        if !one.is_good() {
            bad.push(one.seed);
            println!("seed {} FAILS: {:?} {:?}", one.seed, one.tally.told, one.broken);
            match one.keep("rejoin-map") {
                Ok(folder) => println!("  records: {}", folder.display()),
                Err(error) => println!("  no records: {error:#}"),
            }
        }
        true
    });
    let mut table = Table::new(&["what", "number"]);
    let interleavings = simulated["interleavings"].as_u64().unwrap_or(0);
    let violations = simulated["violations"].as_u64();
    for (what, number) in [
        ("interleavings in the simulator", interleavings),
        ("schedules on two real disk processes", ran),
        ("writes acknowledged there", acknowledged),
        ("rebuilds completed", rebuilds),
        ("looks at both when called equal", audits),
        ("stopped copies compared with their maps", compared),
        ("sectors lost, or different though called equal", lost),
        ("schedules that did not heal", stuck),
    ] {
        table.row(&[what.to_owned(), number.to_string()]);
    }
    println!();
    table.print();
    let real = ran == rounds && lost == 0 && stuck == 0 && audits >= rounds;
    let facts = json!({
        "rounds": ran, "lost": lost, "stuck": stuck, "bad_seeds": bad, "audits": audits, "rebuilds": rebuilds,
        "stopped_comparisons": compared, "interleavings": interleavings, "violations": violations,
    });
    Ok(Outcome::new(real && violations == Some(0) && interleavings > 0, facts))
}

/// Every interleaving of the pattern, in the simulator's world of two mirrors; what its last line says.
fn explore(options: &Options) -> Result<Value> {
    let (schedules, near) = (options.figure("simulated", SIMULATED)?, options.figure("near", NEAR)?);
    if schedules == 0 {
        return Ok(json!({}));
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--locked", "--release", "-p", "sim", "--", "mirror", "--rejoin"]);
    cargo.args(["--seeds", &schedules.to_string(), "--near", &near.to_string(), "--jobs", &layers::jobs()]);
    let said = command::collect(cargo.current_dir(paths::root()), SIMULATOR)?;
    println!("the simulator: {}{}", said.out, said.err);
    let last = said.out.lines().last().context("the simulator says nothing")?;
    serde_json::from_str(last).with_context(|| format!("the simulator ends with {last:?}"))
}
