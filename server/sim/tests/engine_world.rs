//! The runs that concern the engine most: fixed seeds, fresh ones, a failing run as a file that replays, and its shrink.

use sim::bugs;
use sim::runner;
use sim::shrink::{self, Run};
use sim::world::Options;

/// Seeds that are run in any case.
const FIRST: u64 = 40;
/// Fresh ones: seconds without optimisation.
const FRESH: u64 = 12;
/// Seeds within which the bug shows.
const BUG_SEEDS: u64 = 200;

fn options() -> Options {
    Options { engine: true, ..Options::default() }
}

fn none_fails(from: u64, seeds: u64) {
    runner::run_many(from, seeds, 2, &options(), |ended| {
        let again = format!("cargo run --release -p sim -- engine {}", ended.seed);
        assert_eq!(ended.failure, None, "seed {}: {again}", ended.seed);
        true
    });
}

#[test]
fn fixed_seeds() {
    none_fails(1, FIRST);
}

#[test]
fn fresh_seeds() {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let from = since.expect("a clock after 1970").as_secs() * 1_000_000;
    println!("fresh seeds from {from}");
    none_fails(from, FRESH);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let [one, two] = [5, 5].map(|seed| runner::run(seed, options()));
    assert_eq!((one.events, one.simulated), (two.events, two.simulated));
}

#[test]
fn a_failing_run_is_shrunk_and_its_file_replays() {
    let (name, bug) = bugs::all().into_iter().find(|(name, _)| *name == "never_fence").expect("a known bug");
    let with = Options { bugs: bug, ..options() };
    let mut failing = None;
    runner::run_many(1, BUG_SEEDS, 2, &with, |ended| {
        failing = failing.or(ended.failure.is_some().then_some(ended.seed));
        failing.is_none()
    });
    let seed = failing.expect("the bug is found");
    let before = shrink::plan_of(seed, &with);
    let small = shrink::shrink(seed, &with).expect("it fails");
    assert!(small.plan.faults.len() <= before.faults.len() && small.plan.until <= before.until);
    let ended = small.ended.failure.clone().expect("the small run fails too");
    let run = Run { seed, engine: true, bug: Some(name.into()), plan: small.plan, ended: ended.to_string() };
    let text = serde_json::to_string(&run).expect("a file");
    let read: Run = serde_json::from_str(&text).expect("the same");
    let again = runner::run(read.seed, Options { plan: Some(read.plan), ..with });
    assert_eq!(again.failure, Some(ended));
    let clean = runner::run(read.seed, Options { plan: Some(run.plan), ..options() });
    assert_eq!(clean.failure, None, "without the bug nothing is wrong");
}

#[test]
fn an_alert_told_twice_is_found() {
    let (_, bug) = bugs::all().into_iter().find(|(name, _)| *name == "repeat_alerts").expect("a known bug");
    let (_, ended) = bugs::find(bug, BUG_SEEDS, 2).expect("it is found");
    let failure = ended.failure.expect("a failure").to_string();
    assert!(failure.starts_with("invariant 10"), "{failure}");
}
