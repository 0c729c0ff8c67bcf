//! `sim-first`: thousands of simulated disasters without a violation, and the simulator finds bugs that are put back.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Options;
use crate::report::Outcome;
use crate::{layers, paths};

/// What the claim asks for.
const SEEDS: u64 = 5_000;
const BUGS: u64 = 3;

/// The show.
///
/// # Errors
/// When the simulator cannot be built or says nothing that can be read.
pub fn run(options: &Options) -> Result<Outcome> {
    let wanted = options.figure("seeds", SEEDS)?;
    let mut sim = Command::new("cargo");
    sim.args([
        "run",
        "--quiet",
        "--locked",
        "--release",
        "-p",
        "sim",
        "--",
        "show",
        "--seeds",
        &wanted.to_string(),
    ]);
    sim.args(["--jobs", &layers::jobs()]);
    sim.current_dir(paths::root()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let said = sim.output().context("start the simulator")?;
    let text = String::from_utf8_lossy(&said.stdout);
    println!("{}", text.trim_end());
    let Some(last) = text.lines().last() else {
        bail!("the simulator said nothing and ended with {}", said.status)
    };
    let facts: Value =
        serde_json::from_str(last).with_context(|| format!("the simulator's last line {last:?}"))?;
    let figure = |name: &str| facts[name].as_u64().unwrap_or(0);
    let holds = said.status.success()
        && figure("seeds") >= wanted
        && figure("bugs_found") >= BUGS
        && figure("register_states") > 0;
    Ok(Outcome::new(holds, facts))
}
