//! Bugs put back on purpose, each of which some seed must find: the test of the tests.

use crate::runner::{self, Ended};
use crate::world::{Bugs, Options};
use engine::EngineFaults;
use mirror::Faults;

/// A bug that so many seeds do not find is not found.
pub const SEEDS: u64 = 5_000;

/// Every bug that can be put back and is found, by name. Not in the list: `accept_lower_session` of the mirror, the second
/// fence behind the closed connection, which no frame of an earlier session outlives here; the mirror's own test takes it.
#[must_use]
pub fn all() -> Vec<(&'static str, Bugs)> {
    let e = EngineFaults::default();
    let m = Faults::default();
    let engine = |engine| Bugs { engine, mirror: m };
    let mirror = |mirror| Bugs { engine: e, mirror };
    vec![
        ("grant_after_suspect", engine(EngineFaults { grant_after_suspect: true, ..e })),
        ("promote_without_waiting_lease", engine(EngineFaults { promote_without_waiting_lease: true, ..e })),
        ("skip_store_before_send", engine(EngineFaults { skip_store_before_send: true, ..e })),
        ("readmit_without_switch", engine(EngineFaults { readmit_without_switch: true, ..e })),
        ("ignore_pending", engine(EngineFaults { ignore_pending: true, ..e })),
        ("never_fence", engine(EngineFaults { never_fence: true, ..e })),
        ("repeat_alerts", engine(EngineFaults { repeat_alerts: true, ..e })),
        ("forget_unstable_on_put_out", mirror(Faults { forget_unstable_on_put_out: true, ..m })),
        ("skip_generation_on_alone", mirror(Faults { skip_generation_on_alone: true, ..m })),
        ("ack_before_twin", mirror(Faults { ack_before_twin: true, ..m })),
        ("skip_hot_extents_after_crash", mirror(Faults { skip_hot_extents_after_crash: true, ..m })),
        ("flush_local_only", mirror(Faults { flush_local_only: true, ..m })),
        ("rebuild_without_order", mirror(Faults { rebuild_without_order: true, ..m })),
        ("clear_bits_before_flush", mirror(Faults { clear_bits_before_flush: true, ..m })),
        ("end_run_early", mirror(Faults { end_run_early: true, ..m })),
        ("cool_before_bits", mirror(Faults { cool_before_bits: true, ..m })),
    ]
}

/// Runs seeds with a bug until one fails that does not fail without it: how many were tried, and that run.
#[must_use]
pub fn find(bugs: Bugs, seeds: u64, jobs: u64) -> Option<(u64, Ended)> {
    let mut tried = 0;
    let mut found = None;
    runner::run_many(1, seeds, jobs, &Options { bugs, ..Options::default() }, |ended| {
        tried += 1;
        let clean = || runner::run(ended.seed, Options::default()).failure.is_none();
        if ended.failure.is_some() && found.is_none() && clean() {
            found = Some(ended);
        }
        found.is_none()
    });
    found.map(|ended| (tried, ended))
}
