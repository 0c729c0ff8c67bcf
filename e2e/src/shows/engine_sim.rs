//! `engine-sim`: the whole cluster simulated from many seeds, no violation; bugs put back are found, a failing run is shrunk.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Options;
use crate::report::Outcome;
use crate::{layers, paths};

/// What the claim asks for.
const SEEDS: u64 = 200_000;
/// So many bugs at least are put back one at a time, and all are found.
const BUGS: u64 = 12;

/// The show.
///
/// # Errors
/// When the simulator cannot be built or says nothing that can be read.
pub fn run(options: &Options) -> Result<Outcome> {
    let wanted = options.figure("seeds", SEEDS)?;
    let mut sim = Command::new("cargo");
    sim.args(["run", "--quiet", "--locked", "--release", "-p", "sim", "--"]);
    sim.args(["engine", "show", "--seeds", &wanted.to_string(), "--jobs", &layers::jobs()]);
    sim.current_dir(paths::root()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = sim.spawn().context("start the simulator")?;
    let Some(output) = child.stdout.take() else { bail!("the simulator has no output") };
    let mut last = String::new();
    for line in BufReader::new(output).lines() {
        last = line.context("read what the simulator says")?;
        println!("{last}");
    }
    let status = child.wait().context("wait for the simulator")?;
    let facts: Value =
        serde_json::from_str(&last).with_context(|| format!("the simulator's last line {last:?}"))?;
    let figure = |name: &str| facts[name].as_u64().unwrap_or(0);
    let holds = status.success()
        && figure("seeds") >= wanted
        && facts["violations"] == 0
        && figure("bugs") >= BUGS
        && figure("bugs_found") == figure("bugs")
        && facts["shrink"]["runs"].as_u64().is_some_and(|runs| runs > 0);
    Ok(Outcome::new(holds, facts))
}
