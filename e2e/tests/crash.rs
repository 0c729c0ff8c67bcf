//! Crash consistency in the small: a few random schedules of what `cargo x show mirror-crash` runs by the hundred.

#![allow(clippy::expect_used, reason = "a story that cannot go on has failed")]

use e2e::crash::{self, Disks, Story};

/// Schedules of each run; they run at once and take some seconds each.
const SCHEDULES: u64 = 15;
/// So many at once.
const JOBS: u64 = 8;
/// Schedules of the control at most; nearly each loses something.
const CONTROLS: u64 = 12;

#[test]
fn random_schedules_of_kills_cuts_and_bad_disks_lose_nothing() {
    // Other seeds than the day before: a few more each time, and the same again where one fails.
    let from = std::env::var("FUTAGO_CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(day);
    println!("seeds {from}..{} (FUTAGO_CRASH_SEED={from})", from + SCHEDULES);
    let mut bad = Vec::new();
    let mut acknowledged = 0;
    crash::run_all(from, SCHEDULES, JOBS, Disks::of, Story::Any, |ran| {
        acknowledged += ran.tally.acknowledged;
        if !ran.is_good() {
            let kept = ran.keep("crash-test").expect("a place for the records");
            bad.push(format!(
                "seed {}: {:?} {:?}, records {}",
                ran.seed,
                ran.tally.told,
                ran.broken,
                kept.display()
            ));
        }
        true
    });
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(acknowledged > 1_000, "only {acknowledged} writes: nothing was tried");
}

#[test]
fn the_oracle_sees_a_flush_that_does_nothing() {
    let mut lost = 0;
    crash::run_all(
        1,
        CONTROLS,
        JOBS,
        |_| Disks { volatile: true, no_flush: true, weak: false },
        Story::Any,
        |ran| {
            lost += ran.tally.lost;
            lost == 0
        },
    );
    assert!(lost > 0, "nothing was lost although nothing was flushed");
}

fn day() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs() / 86_400 * 1_000
}
