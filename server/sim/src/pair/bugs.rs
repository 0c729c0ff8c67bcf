//! Bugs put back into the mirror on purpose, each of which some seed must find: the test of the tests.

use super::{Ended, Focus, Options, run, run_many};
use mirror::Faults;
use wire::traffic::WriteMode;

/// A bug that so many seeds do not find is not found.
pub const SEEDS: u64 = 20_000;

/// A bug that can be put back.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// Its name, as in `mirror::Faults`.
    pub name: &'static str,
    /// The mirror with it.
    pub faults: Faults,
    /// The kind of runs that meet it.
    pub focus: Option<Focus>,
    /// When the set acknowledges.
    pub mode: WriteMode,
    /// That changes now and then.
    pub changing: bool,
}

/// Every bug of the mirror that can be put back and that loses something here. The others (a write that is not sent again waits,
/// unanswered, until the twin is put out; these sets have too few pages for `join_before_saved`) end the mirror's own stories:
/// `rules_taken_out_are_seen`.
#[must_use]
pub fn all() -> Vec<Bug> {
    let none = Faults::default();
    let that = |mode| move |name, faults| Bug { name, faults, focus: None, mode, changing: false };
    let bug = that(WriteMode::Synchronous);
    let semi = that(WriteMode::SemiSynchronous);
    let asynchronous = that(WriteMode::Asynchronous);
    let among = |focus, name, faults| Bug { focus: Some(focus), ..bug(name, faults) };
    let changing = |name, faults| Bug { changing: true, ..bug(name, faults) };
    vec![
        bug("clear_bits_before_flush", Faults { clear_bits_before_flush: true, ..none }),
        bug("forget_unstable_on_put_out", Faults { forget_unstable_on_put_out: true, ..none }),
        bug("skip_generation_on_alone", Faults { skip_generation_on_alone: true, ..none }),
        bug("ack_before_twin", Faults { ack_before_twin: true, ..none }),
        bug("skip_hot_extents_after_crash", Faults { skip_hot_extents_after_crash: true, ..none }),
        bug("accept_lower_session", Faults { accept_lower_session: true, ..none }),
        bug("flush_local_only", Faults { flush_local_only: true, ..none }),
        bug("flush_covered_by_any", Faults { flush_covered_by_any: true, ..none }),
        bug("rebuild_without_order", Faults { rebuild_without_order: true, ..none }),
        bug("cool_before_bits", Faults { cool_before_bits: true, ..none }),
        bug("write_before_hot", Faults { write_before_hot: true, ..none }),
        bug("ignore_twin_map", Faults { ignore_twin_map: true, ..none }),
        bug("ready_before_mark", Faults { ready_before_mark: true, ..none }),
        bug("built_before_stored", Faults { built_before_stored: true, ..none }),
        bug("reborn_in_sync", Faults { reborn_in_sync: true, ..none }),
        bug("alone_before_stored", Faults { alone_before_stored: true, ..none }),
        among(Focus::Old, "overwrite_before_kept", Faults { overwrite_before_kept: true, ..none }),
        among(Focus::Old, "check_last_segment_only", Faults { check_last_segment_only: true, ..none }),
        among(Focus::Old, "keep_copies_only", Faults { keep_copies_only: true, ..none }),
        bug("ignore_undone", Faults { ignore_undone: true, ..none }),
        bug("write_before_distrust", Faults { write_before_distrust: true, ..none }),
        bug("believe_before_flush", Faults { believe_before_flush: true, ..none }),
        bug("believe_with_pages", Faults { believe_with_pages: true, ..none }),
        bug("believe_outdated_pages", Faults { believe_outdated_pages: true, ..none }),
        among(Focus::BadDisk, "through_unasked", Faults { through_unasked: true, ..none }),
        among(Focus::BadDisk, "shoulder_keeps_base", Faults { shoulder_keeps_base: true, ..none }),
        among(Focus::SetBack, "ignore_set_back", Faults { ignore_set_back: true, ..none }),
        among(Focus::SetBack, "forget_set_back", Faults { forget_set_back: true, ..none }),
        semi("forget_trailing", Faults { forget_trailing: true, ..none }),
        semi("drop_promised", Faults { drop_promised: true, ..none }),
        asynchronous("forget_trailing", Faults { forget_trailing: true, ..none }),
        asynchronous("pass_barriers", Faults { pass_barriers: true, ..none }),
        asynchronous("skip_barriers", Faults { skip_barriers: true, ..none }),
        changing("tighten_at_once", Faults { tighten_at_once: true, ..none }),
        asynchronous("rebuild_async_in_sync", Faults { rebuild_async_in_sync: true, ..none }),
    ]
}

/// Runs seeds with a bug until one fails that does not fail without it: how many were tried, and that run.
#[must_use]
pub fn find(bug: Bug, seeds: u64, jobs: u64) -> Option<(u64, Ended)> {
    let mut tried = 0;
    let mut found = None;
    let (focus, mode) = (bug.focus, bug.mode);
    let with = |place| {
        run(place + 1, Options { bug: bug.faults, focus, mode, changing: bug.changing, ..Options::default() })
    };
    run_many(seeds, jobs, with, |ended| {
        tried += 1;
        let clean = || {
            run(ended.seed, Options { focus, mode, changing: bug.changing, ..Options::default() })
                .failure
                .is_none()
        };
        if ended.failure.is_some() && found.is_none() && clean() {
            found = Some(ended);
        }
        found.is_none()
    });
    found.map(|ended| (tried, ended))
}
