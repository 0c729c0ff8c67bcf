//! `situations`: the seed's nine situations and all others, each a file that an operator can read, run by the real engines.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Options;
use crate::paths;
use crate::report::Outcome;

/// What the claim asks for.
const FILES: u64 = 150;
/// The numbered situations of [6.2.5].
const NINE: u64 = 9;
/// What the test prints before the title of a situation, and before its figures.
const LINE: &str = "situation ";
const FIGURES: &str = "situations ";

/// The show.
///
/// # Errors
/// When the situations cannot be built or say nothing that can be read.
pub fn run(_options: &Options) -> Result<Outcome> {
    let mut test = Command::new("cargo");
    test.args(["test", "--quiet", "--locked", "-p", "engine", "--test", "situations"]);
    test.args(["every_situation", "--", "--nocapture"]);
    test.current_dir(paths::root()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let said = test.output().context("start the situations")?;
    let text = String::from_utf8_lossy(&said.stdout);
    for line in text.lines().filter_map(|line| line.strip_prefix(LINE)) {
        println!("{line}");
    }
    let Some(figures) = text.lines().find_map(|line| line.strip_prefix(FIGURES)) else {
        bail!("the situations said nothing and ended with {}", said.status)
    };
    let facts: Value = serde_json::from_str(figures).with_context(|| format!("understand {figures:?}"))?;
    let figure = |name: &str| facts[name].as_u64().unwrap_or(0);
    let holds = said.status.success()
        && figure("files") >= FILES
        && figure("green") == figure("files")
        && figure("seeds_nine") == NINE;
    Ok(Outcome::new(holds, facts))
}
