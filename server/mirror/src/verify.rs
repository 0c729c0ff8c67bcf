//! Verification: both copies of a set in sync are read and compared, at a bounded rate, and made good where it is known how (C10).
//!
//! ```text
//! claimed --> hashed here --> Verify --> hashed there --Verified--> alike: learnt by both tables
//!                                                              \--> deviating blocks are judged, one by one
//! ```
//! A run's range is claimed like a rebuild's: every write to it has ended on both sides and none begins, so nothing under way
//! is ever taken for a difference. What deviates is judged by the stored sums. A sum is known only of a content that both
//! copies had, and is taken back before any write (`sums`), so a side whose content matches a known sum is right, whoever
//! keeps the sum. The twin's blocks are set right by a rebuild, within sync, as after a break of the link; this side's are asked
//! of the twin and written back (`mend`). Where no sum is known, or neither content matches, nobody can tell: the block is
//! reported, and stays as it is.

use crate::action::Action;
use crate::config::{RUN_BLOCKS_LONG, VERIFY_BYTES_S, VERIFY_RUNS_MAX};
use crate::input::{LocalFault, LocalResult, Range};
use crate::mirror::{Mirror, Op};
use crate::pace::Pace;
use crate::pair::Awaited;
use crate::progress::Progress;
use crate::sum_page::{Sum, sum_of};
use crate::sums::Look;
use peer::block::{BLOCK_BYTES, Body, HASH_BYTES, Odd};
use peer::control::{Done, OrderFault, Role, Ticket, UNRESOLVED_MAX, VerifyResult, VerifyStatus};
use std::collections::{BTreeMap, BTreeSet};
use wire::Time;
use wire::alert::RebuildKind;

/// Neighbouring blocks on their way.
#[derive(Debug)]
struct Run {
    first: u64,
    count: u64,
    hashes: Vec<[u8; HASH_BYTES]>,
    /// It waits for pages of the table.
    waits: bool,
}

/// A verification.
#[derive(Debug)]
pub(crate) struct Verify {
    pub(crate) pace: Pace,
    paused: bool,
    limit: Option<u64>,
    progress: Progress,
    cursor: u64,
    runs: BTreeMap<u64, Run>,
    /// Of broken runs, where to begin again.
    again: BTreeSet<(u64, u64)>,
    found: VerifyResult,
}

/// Which content of a block is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    Here,
    There,
    Nobody,
}

/// Judges two contents that differ by what both tables know. None: that side could not read it.
fn judge(here: Option<Sum>, there: Option<Sum>, known: [Option<Sum>; 2]) -> Right {
    let known = match known {
        [Some(mine), Some(twins)] if mine != twins => return Right::Nobody,
        [Some(sum), _] | [None, Some(sum)] => Some(sum),
        [None, None] => None,
    };
    match (here, there, known) {
        (Some(_), None, None) => Right::Here,
        (None, Some(_), None) => Right::There,
        (here, there, Some(sum)) if here == Some(sum) && there != here => Right::Here,
        (here, there, Some(sum)) if there == Some(sum) && there != here => Right::There,
        _ => Right::Nobody,
    }
}

fn bytes_of(first: u64, count: u64) -> Range {
    Range { offset: first * BLOCK_BYTES, length: u32::try_from(count * BLOCK_BYTES).unwrap_or_default() }
}

impl Mirror {
    /// Begins a verification, changes how it goes, or ends it.
    pub(crate) fn verify_ordered(&mut self, ticket: Ticket, run: bool, paused: bool, limit: Option<u64>) {
        if !run {
            self.end_verify(true);
            self.answer(ticket, Ok(Done::Done));
            return;
        }
        let fault = if self.role != Role::Active {
            Some(OrderFault::WrongRole)
        } else if self.verify.is_none() && !(self.needs_twin && self.equal()) {
            Some(OrderFault::NotEqual)
        } else {
            None
        };
        if let Some(fault) = fault {
            self.answer(ticket, Err(fault));
            return;
        }
        let bound = Some(limit.unwrap_or(VERIFY_BYTES_S));
        let (now, total) = (self.now, self.map.blocks());
        let verify = self.verify.get_or_insert_with(|| Verify {
            pace: Pace::new(now, bound),
            paused,
            limit,
            progress: Progress::new(total, now),
            cursor: 0,
            runs: BTreeMap::new(),
            again: BTreeSet::new(),
            found: VerifyResult { began: now, ..VerifyResult::default() },
        });
        (verify.paused, verify.limit) = (paused, limit);
        verify.pace.set_limit(bound);
        (self.told.report, self.moved) = (true, true);
        self.answer(ticket, Ok(Done::Done));
    }

    /// Whether runs may begin: in sync, with nothing to copy.
    pub(crate) fn verify_runs(&self) -> bool {
        let wanted = self.verify.as_ref().is_some_and(|verify| !verify.paused);
        wanted
            && self.role == Role::Active
            && self.needs_twin
            && self.joined()
            && self.failed.is_none()
            && self.rebuild.is_none()
            && self.finish.is_none()
            && self.map.count() == 0
    }

    pub(crate) fn advance_verify(&mut self) {
        if self.verify.is_none() {
            return;
        }
        if self.role != Role::Active {
            self.end_verify(true);
            return;
        }
        self.repair_twin();
        if !self.verify_runs() {
            return;
        }
        let (now, blocks) = (self.now, self.map.blocks());
        let Some(verify) = &mut self.verify else { return };
        verify.pace.advance(now);
        verify.progress.measure(now, blocks.saturating_sub(verify.progress.done));
        while self.begin_verify_run() {}
        let ended = self
            .verify
            .as_ref()
            .is_some_and(|it| it.cursor >= blocks && it.runs.is_empty() && it.again.is_empty());
        if ended {
            self.end_verify(false);
        }
    }

    /// What deviates on the twin is copied as what a break of the link may have lost.
    fn repair_twin(&mut self) {
        let idle = self.rebuild.is_none() && self.finish.is_none() && self.joined() && self.needs_twin;
        if idle && self.map.count() > 0 && self.failed.is_none() {
            self.rebuild_kind = RebuildKind::Fast;
            self.begin_rebuild();
            self.moved = true;
        }
    }

    fn begin_verify_run(&mut self) -> bool {
        let blocks = self.map.blocks();
        let Some(verify) = &mut self.verify else { return false };
        let allowed = verify.pace.next_run(RUN_BLOCKS_LONG);
        if verify.runs.len() >= VERIFY_RUNS_MAX || allowed == 0 {
            return false;
        }
        let (first, count) = match verify.again.pop_first() {
            Some(run) => run,
            None if verify.cursor < blocks => {
                let count = allowed.min(blocks - verify.cursor);
                verify.cursor += count;
                (verify.cursor - count, count)
            }
            None => return false,
        };
        verify.pace.spend(count * BLOCK_BYTES);
        self.next_id += 1;
        let id = self.next_id;
        verify.runs.insert(id, Run { first, count, hashes: Vec::new(), waits: false });
        let range = bytes_of(first, count);
        if self.ranges.claim(id, range.offset, u64::from(range.length), true) {
            self.verify_granted(id);
        }
        self.moved = true;
        true
    }

    /// A claim is granted; `false`: it is no run's of a verification.
    pub(crate) fn verify_granted(&mut self, id: u64) -> bool {
        let Some(run) = self.verify.as_ref().and_then(|verify| verify.runs.get(&id)) else { return false };
        let (first, count) = (run.first, run.count);
        let ready = self.sums_ready(first, count);
        if let Some(run) = self.verify.as_mut().and_then(|verify| verify.runs.get_mut(&id)) {
            run.waits = !ready;
        }
        if ready {
            let op = self.begin(Op::VerifyHash(id));
            self.act(Action::HashLocal { op, range: bytes_of(first, count), keep: false });
        }
        true
    }

    /// Pages of the table are here: runs that wait for them look again.
    pub(crate) fn verify_looks_again(&mut self) {
        let Some(verify) = &self.verify else { return };
        let waiting = verify.runs.iter().filter(|(_, run)| run.waits);
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.verify_granted(id);
        }
    }

    pub(crate) fn verify_hashed(&mut self, id: u64, result: Result<LocalResult, LocalFault>) {
        let Some(run) = self.verify.as_mut().and_then(|verify| verify.runs.get_mut(&id)) else { return };
        let (first, count) = (run.first, run.count);
        match result {
            Ok(LocalResult::Hashes(hashes)) if hashes.len() as u64 == count => {
                run.hashes.clone_from(&hashes);
                let sequence = self.send(Body::Verify { offset: first * BLOCK_BYTES, hashes }, None);
                if let Some(link) = &mut self.link {
                    link.awaited.insert(sequence, Awaited::Verify(id));
                }
            }
            Ok(_) => self.broken("a hash for each block"),
            // What cannot be read here is made good by what the twin reads, as for a request.
            Err(_) => {
                if let Some(verify) = &mut self.verify {
                    verify.found.different += count;
                    verify.found.repaired_here += count;
                }
                self.mend_range(bytes_of(first, count));
                self.end_verify_run(id);
            }
        }
    }

    /// The twin has compared: `odd` deviates there.
    pub(crate) fn verified(&mut self, id: u64, odd: &[Odd]) {
        let Some(run) = self.verify.as_ref().and_then(|verify| verify.runs.get(&id)) else { return };
        let (first, hashes) = (run.first, run.hashes.clone());
        let deviates: BTreeMap<u64, &Odd> = odd.iter().map(|odd| (u64::from(odd.block), odd)).collect();
        for (at, hash) in (0..).zip(&hashes) {
            let (block, here) = (first + at, sum_of(hash));
            match deviates.get(&at) {
                None => self.sum_learn(block, here),
                Some(odd) => self.deviates(block, here, odd),
            }
        }
        self.end_verify_run(id);
    }

    fn deviates(&mut self, block: u64, here: Sum, odd: &Odd) {
        let mine = match self.sums.look(block) {
            Look::Known(sum) => Some(sum),
            Look::Unknown | Look::Stored(_) => None,
        };
        let twins = odd.stored.as_ref().map(sum_of);
        let right = judge(Some(here), odd.found.as_ref().map(sum_of), [mine, twins]);
        let Some(verify) = &mut self.verify else { return };
        let found = &mut verify.found;
        found.different += 1;
        match right {
            Right::Here => {
                found.repaired_there += 1;
                self.map.set(block, 1);
            }
            Right::There => {
                found.repaired_here += 1;
                self.mend_range(bytes_of(block, 1));
            }
            Right::Nobody => {
                found.unresolved += 1;
                if found.blocks.len() < UNRESOLVED_MAX {
                    found.blocks.push(block);
                }
            }
        }
    }

    fn end_verify_run(&mut self, id: u64) {
        let Some(verify) = &mut self.verify else { return };
        let Some(run) = verify.runs.remove(&id) else { return };
        verify.progress.done += run.count;
        verify.found.checked += run.count;
        self.release_claim(id);
    }

    /// The connection is gone: what was under way is done again over the next one.
    pub(crate) fn break_verify(&mut self) {
        let Some(verify) = &mut self.verify else { return };
        let runs = std::mem::take(&mut verify.runs);
        verify.again.extend(runs.values().map(|run| (run.first, run.count)));
        for id in runs.into_keys() {
            self.release_claim(id);
        }
    }

    pub(crate) fn end_verify(&mut self, stopped: bool) {
        self.break_verify();
        if let Some(verify) = self.verify.take() {
            self.last_verify = Some(VerifyResult { stopped, ended: self.now, ..verify.found });
            (self.told.report, self.moved) = (true, true);
        }
    }

    pub(crate) fn verify_status(&self) -> Option<VerifyStatus> {
        let verify = self.verify.as_ref()?;
        let running = self.verify_runs();
        Some(VerifyStatus {
            began: verify.found.began,
            done: verify.progress.done,
            total: verify.progress.total,
            running,
            paused: verify.paused,
            limit: verify.limit,
            left_ms: verify.progress.left_ms().filter(|_| running),
            different: verify.found.different,
            unresolved: verify.found.unresolved,
        })
    }

    pub(crate) fn verify_deadline(&self) -> Option<Time> {
        let verify = self.verify.as_ref().filter(|_| self.verify_runs())?;
        verify.pace.deadline().map(|at| at.max(self.now.plus(1)))
    }

    pub(crate) fn verify_run_count(&self) -> usize {
        self.verify.as_ref().map_or(0, |verify| verify.runs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_matches_what_is_known_is_right_and_nobody_is_where_nothing_is() {
        let sum = |of: u8| [of; 15];
        let (a, b, c) = (Some(sum(1)), Some(sum(2)), Some(sum(3)));
        let table = [
            (a, b, [a, a], Right::Here),
            (a, b, [a, None], Right::Here),
            (a, b, [None, a], Right::Here),
            (a, b, [b, b], Right::There),
            (a, b, [b, None], Right::There),
            (a, b, [None, b], Right::There),
            (a, b, [None, None], Right::Nobody),
            (a, b, [c, c], Right::Nobody),
            (a, b, [a, b], Right::Nobody),
            // What cannot be read is wrong, unless the other one is known to be so too.
            (a, None, [None, None], Right::Here),
            (a, None, [a, a], Right::Here),
            (a, None, [c, None], Right::Nobody),
            (None, b, [None, None], Right::There),
            (None, None, [a, a], Right::Nobody),
        ];
        for (here, there, known, right) in table {
            assert_eq!(judge(here, there, known), right, "{here:?} {there:?} {known:?}");
        }
    }
}
