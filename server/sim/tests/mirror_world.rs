//! The world of two mirrors: fixed seeds, fresh ones, the pattern of the rejoin, and every bug put back is found.

use sim::pair::{self, Options};
use wire::traffic::WriteMode;

/// Seeds that each found a fault of the mirror when its world was young (or of the world: they are kept for the ways they go).
const FIXED: [u64; 26] = [
    2, 5, 37, 83, 786, 959, 1469, 1698, 2929, 6316, 7430, 8135, 9194, 9932, 10405, 10530, 11193, 11356,
    11869, 13884, 14633, 15541, 16012, 16645, 17084, 18278,
];
/// Seeds out of fresh ones: a standby that was asked late to count alone took no rebuild any more; a write that nobody had read
/// ended with the holder's copy; a restarted holder went on through its twin by a word that had been asked for before.
const FRESH_FOUND: [u64; 3] = [1_795_401_590_003_250, 148_197_654_351_004, 148_197_654_367_703];
/// Of semi-synchronous and asynchronous sets.
const MODES: [u64; 3] = [1448, 18020, 46933];
/// Seeds that are run in any case, from 1 on.
const FIRST: u64 = 500;
/// Fresh ones: seconds without optimisation.
const FRESH: u64 = 1_000;
/// Seeds within which each bug is found.
const BUG_SEEDS: u64 = 40_000;
const JOBS: u64 = 2;

fn none_fails(seeds: &[u64], mode: WriteMode) {
    none_of(seeds, mode, false);
}

fn none_of(seeds: &[u64], mode: WriteMode, changing: bool) {
    let one = |place: u64| pair::run(seeds[place as usize], Options { mode, changing, ..Options::default() });
    pair::run_many(seeds.len() as u64, JOBS, one, |ended| {
        let again = format!("cargo run --release -p sim -- mirror {}", ended.seed);
        assert_eq!(ended.failure, None, "{mode:?}, seed {}: {again}", ended.seed);
        true
    });
}

#[test]
fn fixed_seeds() {
    none_fails(&FIXED, WriteMode::Synchronous);
    none_fails(&FRESH_FOUND, WriteMode::Synchronous);
    none_fails(&(1..=FIRST).collect::<Vec<_>>(), WriteMode::Synchronous);
}

/// The other ways to acknowledge: what each promises, and what it does not (C4).
#[test]
fn semi_synchronous_and_asynchronous_seeds() {
    for mode in [WriteMode::SemiSynchronous, WriteMode::Asynchronous] {
        none_fails(&MODES, mode);
        none_fails(&(1..=FIRST).collect::<Vec<_>>(), mode);
    }
}

/// One changes into the other while the set serves, and back.
#[test]
fn changing_seeds() {
    none_of(&(1..=FIRST).collect::<Vec<_>>(), WriteMode::Synchronous, true);
}

#[test]
fn fresh_seeds() {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let from = since.expect("a clock after 1970").as_secs() * 1_000_000;
    println!("fresh seeds from {from}");
    none_fails(&(from..from + FRESH).collect::<Vec<_>>(), WriteMode::Synchronous);
    for mode in [WriteMode::SemiSynchronous, WriteMode::Asynchronous] {
        none_fails(&(from..from + FRESH / 2).collect::<Vec<_>>(), mode);
    }
    none_of(&(from..from + FRESH / 2).collect::<Vec<_>>(), WriteMode::Synchronous, true);
}

#[test]
fn a_seed_is_a_run_and_does_something() {
    let [one, two] = [7, 7].map(|seed| pair::run(seed, Options { traced: true, ..Options::default() }));
    assert_eq!(one.lines, two.lines);
    let (mut acknowledged, mut terms, mut rebuilds, mut faults) = (0, 0, 0, 0);
    for seed in 1..=100 {
        let ended = pair::run(seed, Options::default());
        acknowledged += ended.acknowledged;
        terms += ended.switches;
        rebuilds += ended.rebuilds;
        faults += ended.planned;
    }
    assert!(
        acknowledged > 2_000 && terms > 150 && rebuilds > 100 && faults > 400,
        "{acknowledged} {terms} {rebuilds}"
    );
}

#[test]
fn a_standby_returns_to_a_survivor_with_a_map_whatever_breaks_after_any_step() {
    let explored = pair::explore_rejoin(1, 2, 0, JOBS);
    assert!(explored.failures.is_empty(), "{:?}", explored.failures);
    assert!(explored.runs > 500, "{} runs", explored.runs);
}

/// Each known bug put back is found: the checks see what they are there for.
#[test]
fn bugs_put_back_are_found() {
    for bug in pair::bugs() {
        let found = pair::find_bug(bug, BUG_SEEDS, JOBS);
        let (tried, ended) =
            found.unwrap_or_else(|| panic!("{} is not found in {BUG_SEEDS} seeds", bug.name));
        println!("{}: seed {} of {tried}: {:?}", bug.name, ended.seed, ended.failure);
    }
}

#[test]
fn a_failing_seed_is_shrunk_and_told_side_by_side() {
    let bug =
        pair::bugs().into_iter().find(|bug| bug.name == "forget_unstable_on_put_out").expect("a known bug");
    let (_, ended) = pair::find_bug(bug, BUG_SEEDS, JOBS).expect("it is found");
    let options = Options { bug: bug.faults, ..Options::default() };
    let small = pair::shrink(ended.seed, &options).expect("it fails");
    assert!(small.ended.failure.is_some());
    assert!(small.ended.requests <= ended.requests);
    let heading = small.ended.lines.first().expect("a heading");
    assert!(heading.contains("side 1") && heading.contains("side 2"), "{heading}");
    assert!(small.ended.lines.iter().any(|line| line.contains("FAILED")));
}
