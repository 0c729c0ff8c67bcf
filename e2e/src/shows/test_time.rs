//! `test-time`: the whole test run from a clean clone with a cold target folder, in minutes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::Options;
use crate::report::Outcome;
use crate::{command, paths};

/// A run that takes longer than this on two cores is too long to be run often.
const LIMIT_MINUTES: f64 = 40.0;

/// The show.
///
/// # Errors
/// When the work tree cannot be cloned.
pub fn run(_options: &Options) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let clone = folder.path().join("futago");
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", "--no-hardlinks"]).arg(paths::root()).arg(&clone);
    command::output(&mut git, Duration::from_secs(120))?;
    let begun = Instant::now();
    let mut test = Command::new("cargo");
    test.args(["x", "test"]).current_dir(&clone).env_remove("CARGO_TARGET_DIR").stdin(Stdio::null());
    let passed = command::shown(&mut test)?;
    let minutes = (begun.elapsed().as_secs_f64() / 6.0).round() / 10.0;
    println!("\nthe whole run, cold: {minutes} minutes");
    let facts = json!({"minutes": minutes, "passed": passed, "limit_minutes": LIMIT_MINUTES});
    Ok(Outcome::new(passed && minutes <= LIMIT_MINUTES, facts))
}
