//! `mirror-sim`: the mirror alone under hundreds of thousands of seeds, and every bug put back into it is found.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Options;
use crate::report::{Outcome, Table};
use crate::{layers, paths};

/// What the claim asks for.
const SEEDS: u64 = 200_000;
/// Of the bugs that can be put back so many at least concern the mirror, and all of them are found.
const BUGS: u64 = 12;

/// The show.
///
/// # Errors
/// When the simulator cannot be built or says nothing that can be read.
pub fn run(options: &Options) -> Result<Outcome> {
    let wanted = options.figure("seeds", SEEDS)?;
    let seeds = wanted.to_string();
    let mut sim = Command::new("cargo");
    sim.args(["run", "--quiet", "--locked", "--release", "-p", "sim", "--"]);
    sim.args(["mirror", "show", "--seeds", &seeds, "--jobs", &layers::jobs()]);
    sim.current_dir(paths::root()).stdin(Stdio::null()).stderr(Stdio::null());
    let said = sim.output().context("start the simulator")?;
    let text = String::from_utf8_lossy(&said.stdout);
    println!("{}", text.trim_end());
    let Some(last) = text.lines().last() else {
        bail!("the simulator said nothing and ended with {}", said.status)
    };
    let mut facts: Value =
        serde_json::from_str(last).with_context(|| format!("the simulator's last line {last:?}"))?;
    let mut table = Table::new(&["bug put back", "found by seed", "seeds tried"]);
    for found in facts["found"].as_array().into_iter().flatten() {
        let text = |name: &str| found[name].to_string().replace('"', "");
        table.row(&[&text("bug"), &text("seed"), &text("seeds")]);
    }
    table.print();
    let figure = |name: &str| facts[name].as_u64().unwrap_or(0);
    let holds = said.status.success()
        && figure("seeds") >= wanted
        && ["violations", "semi_violations", "async_violations"].iter().all(|name| facts[*name] == 0)
        && figure("bugs") >= BUGS
        && figure("bugs_found") == figure("bugs");
    if let Some(fields) = facts.as_object_mut() {
        fields.remove("found");
    }
    Ok(Outcome::new(holds, facts))
}
