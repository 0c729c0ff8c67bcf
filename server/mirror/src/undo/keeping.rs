//! Keeping: batches of blocks that are to be overwritten are read, written to the store, and made durable, several at once.
//!
//! ```text
//! Reading --all read and hashed--> Read --its place is known--> Writing --header and blocks written--> Written
//!         --a flush that began after it and all before it were written--> kept: its blocks may be overwritten
//! ```
//! A place is known when all batches before are read, for zeroes take none. One flush serves all batches that are written when
//! it begins, in order: a batch counts only with all before it, as a start finds it ([`super::segment`]).

use super::Stage;
use super::block_set::BlockSet;
use super::segment::{Kept, RUN_BLOCKS_MAX, RUNS_MAX, SEGMENT_BLOCKS_MAX, Segment, UNSEALED_MAX, sum};
use crate::action::{Action, ControlWrite, Data, LinkFault, OpId};
use crate::config::{AHEAD_BLOCKS_MAX, BUFFERED_MAX};
use crate::input::{LocalFault, LocalResult, Range, ZERO_HASH};
use crate::layout::UNIT;
use crate::log::blocks;
use crate::mirror::{Mirror, Op};
use peer::block::BLOCK_BYTES;
use peer::control::Role;
use std::collections::{BTreeSet, VecDeque};
use wire::Session;

const _: () = assert!(
    UNSEALED_MAX as u64 * SEGMENT_BLOCKS_MAX * BLOCK_BYTES <= BUFFERED_MAX,
    "all batches have no more in memory than a rebuild"
);

/// Blocks that one batch looks at for what is unkept: the longest zero range twice.
const LOOKED_AT_MAX: u64 = 16 * 1024;

/// Batches that are read at once: while one is hashed the next is read.
const READING_MAX: usize = 2;

/// What an operation of a batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepOp {
    Read,
    Write,
    Flush,
}

/// What of the record is kept, and on its way into the store.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// Place of the header that follows the last one that counts, in units.
    pub(super) head: u64,
    /// Its number.
    number: u64,
    kept: BlockSet,
    /// Kept, or in a batch.
    taken: BlockSet,
    /// Oldest first.
    batches: VecDeque<Batch>,
    flushing: bool,
    /// Numbers the batches.
    serial: u64,
    /// Blocks that the twin is about to send.
    ahead: BTreeSet<u64>,
    /// Something is wanted that was not looked at.
    asked: bool,
}

/// Blocks on their way into the store.
#[derive(Debug)]
struct Batch {
    serial: u64,
    record: u64,
    session: Session,
    runs: Vec<Kept>,
    /// Holds the runs' bytes, one behind the other.
    buffer: OpId,
    step: Step,
    /// Operations without an answer.
    open: usize,
    /// The flush under way makes it durable.
    covered: bool,
    failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Reading,
    Read,
    Writing,
    Written,
}

impl Batch {
    /// Units of the store that it takes, header included; zeroes are only known to be such when they are read.
    fn units(&self) -> u64 {
        let unread = self.step == Step::Reading;
        let runs = self.runs.iter().filter(|run| unread || run.place.is_some());
        1 + runs.map(|run| run.count).sum::<u64>()
    }

    /// What was read.
    fn fill(&mut self, hashes: &[[u8; 16]]) {
        let mut at = 0;
        for run in &mut self.runs {
            let found = hashes.get(at..at + run.count as usize);
            at += run.count as usize;
            let Some(found) = found else {
                self.failed = true;
                return;
            };
            let zero = found.iter().all(|hash| *hash == ZERO_HASH);
            run.sum = sum(found);
            run.place = (!zero).then_some(0);
        }
        self.failed |= at != hashes.len();
    }
}

impl Keeping {
    /// Nothing is kept of so many blocks.
    pub(super) fn new(blocks: u64) -> Keeping {
        Keeping { kept: BlockSet::new(blocks), taken: BlockSet::new(blocks), ..Keeping::default() }
    }

    /// Begins anew for so many blocks; what is under way comes to its end and is of no use.
    pub(super) fn begin(&mut self, blocks: u64) {
        let old = std::mem::replace(self, Keeping::new(blocks));
        (self.batches, self.flushing, self.serial) = (old.batches, old.flushing, old.serial);
    }

    /// No batch is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.batches.is_empty()
    }

    /// Blocks kept.
    pub(super) fn count(&self) -> u64 {
        self.kept.count()
    }

    pub(super) fn has(&self, block: u64) -> bool {
        self.kept.has(block)
    }

    /// A segment counts.
    pub(super) fn found(&mut self, segment: &Segment) {
        (self.head, self.number) = (segment.end(), segment.number + 1);
        for run in &segment.runs {
            self.kept.insert(run.first, run.count);
            self.taken.insert(run.first, run.count);
        }
    }

    /// Work waits.
    pub(super) fn ask(&mut self) {
        self.asked = true;
    }

    /// The twin is gone, and so is what it was about to send.
    pub(crate) fn forget_ahead(&mut self) {
        self.ahead.clear();
    }
}

impl Mirror {
    /// The twin tells what its copies are about to overwrite.
    pub(crate) fn ahead_received(&mut self, runs: &[(u64, u32)]) {
        let takes = self.role == Role::Standby && self.link.as_ref().is_some_and(|link| link.takes);
        let blocks = self.sb.size / BLOCK_BYTES;
        let inside = |(first, count): &(u64, u32)| {
            *count > 0 && first.checked_add(u64::from(*count)).is_some_and(|end| end <= blocks)
        };
        if !takes || !runs.iter().all(inside) {
            self.close_link(LinkFault::Protocol);
            return;
        }
        for (first, count) in runs {
            let count = u64::from(*count).min(AHEAD_BLOCKS_MAX);
            // Their sums are taken back by then, too.
            let length = u32::try_from(count * BLOCK_BYTES).unwrap_or_default();
            self.sums_forget(Range { offset: first * BLOCK_BYTES, length });
            self.keep_ahead(*first, count);
        }
    }

    /// Copies of these blocks are about to come.
    pub(crate) fn keep_ahead(&mut self, first: u64, count: u64) {
        if !matches!(self.undo.stage, Stage::Keeping) {
            return;
        }
        let keeping = &mut self.undo.keeping;
        for block in first..first + count {
            if (keeping.ahead.len() as u64) < AHEAD_BLOCKS_MAX && !keeping.taken.has(block) {
                keeping.ahead.insert(block);
                keeping.asked = true;
                self.moved = true;
            }
        }
    }

    pub(super) fn advance_keeping(&mut self) {
        let live = matches!(self.undo.stage, Stage::Keeping);
        let sound = |batch: &Batch| batch.record == self.sb.record && !batch.failed;
        if !live || !self.undo.keeping.batches.iter().all(sound) {
            self.bury_batches();
            return;
        }
        self.write_batches();
        self.flush_batches();
        self.begin_batch();
    }

    /// Waits for what is under way in vain.
    fn bury_batches(&mut self) {
        let keeping = &mut self.undo.keeping;
        if keeping.batches.is_empty() || keeping.flushing || keeping.batches.iter().any(|it| it.open > 0) {
            return;
        }
        let mut failed = false;
        for batch in std::mem::take(&mut keeping.batches) {
            failed |= batch.failed && batch.record == self.sb.record;
            self.act(Action::Release { data: Data::Buffer(batch.buffer) });
        }
        self.moved = true;
        if failed {
            // A disk that cannot read what is to be kept, or write it, costs the undo, not the rebuild.
            self.lose_record();
        }
    }

    /// What is read goes into the store, as far as its place is known.
    fn write_batches(&mut self) {
        let (mut at, mut number) = (self.undo.keeping.head, self.undo.keeping.number);
        for place in 0..self.undo.keeping.batches.len() {
            match self.undo.keeping.batches.get(place).map(|batch| batch.step) {
                Some(Step::Reading) | None => return,
                Some(Step::Read) => self.write_batch(place, at, number),
                Some(Step::Writing | Step::Written) => {}
            }
            at += self.undo.keeping.batches.get(place).map_or(0, Batch::units);
            number += 1;
        }
    }

    /// A header, and behind it what is not zero.
    fn write_batch(&mut self, place: usize, at: u64, number: u64) {
        let Some(batch) = self.undo.keeping.batches.get_mut(place) else { return };
        batch.step = Step::Writing;
        // Blocks in the buffer, where they go, and how many.
        let mut pieces: Vec<(u64, u64, u64)> = Vec::new();
        let (mut from, mut unit) = (0, 0);
        for run in &mut batch.runs {
            if run.place.is_some() {
                run.place = u32::try_from(unit).ok();
                match pieces.last_mut() {
                    Some((first, _, count)) if *first + *count == from => *count += run.count,
                    Some(_) | None => pieces.push((from, unit, run.count)),
                }
                unit += run.count;
            }
            from += run.count;
        }
        batch.open = 1 + pieces.len();
        let (serial, buffer) = (batch.serial, batch.buffer);
        let segment = Segment { at, number, session: batch.session, runs: batch.runs.clone() };
        for (from, unit, count) in pieces {
            let op = self.begin(Op::Keep(KeepOp::Write, serial));
            let range = self.store_range(at + 1 + unit, count);
            let from = u32::try_from(from * BLOCK_BYTES).unwrap_or_default();
            self.act(Action::WriteLocal { op, range, data: Data::Part { op: buffer, from } });
        }
        let write = ControlWrite { offset: self.store_offset(at), bytes: segment.bytes(&self.sb) };
        let op = self.begin(Op::Keep(KeepOp::Write, serial));
        self.act(Action::WriteControl { op, write });
    }

    /// One flush for all that is written, without a gap.
    fn flush_batches(&mut self) {
        let gaps = self.config.faults.keep_with_gaps;
        let keeping = &mut self.undo.keeping;
        if keeping.flushing {
            return;
        }
        let written = |batch: &Batch| batch.step == Step::Written;
        let count = keeping.batches.iter().take_while(|batch| gaps || written(batch)).count();
        for batch in keeping.batches.iter_mut().take(count).filter(|batch| written(batch)) {
            batch.covered = true;
            keeping.flushing = true;
        }
        if keeping.flushing {
            let op = self.begin(Op::Keep(KeepOp::Flush, 0));
            self.act(Action::FlushLocal { op });
        }
    }

    /// An operation of a batch is done.
    pub(crate) fn keep_done(&mut self, what: KeepOp, serial: u64, result: Result<LocalResult, LocalFault>) {
        self.moved = true;
        if what == KeepOp::Flush {
            return self.batches_flushed(result.is_ok());
        }
        let early = self.config.faults.overwrite_before_kept;
        let keeping = &mut self.undo.keeping;
        let Some(batch) = keeping.batches.iter_mut().find(|batch| batch.serial == serial) else { return };
        batch.open = batch.open.saturating_sub(1);
        match (what, result) {
            (KeepOp::Read, Ok(LocalResult::Hashes(hashes))) => {
                batch.fill(&hashes);
                batch.step = Step::Read;
                if early {
                    for run in &batch.runs {
                        keeping.kept.insert(run.first, run.count);
                    }
                    self.go_on();
                }
            }
            (KeepOp::Read, _) | (_, Err(_)) => batch.failed = true,
            (KeepOp::Write | KeepOp::Flush, Ok(_)) => {
                if batch.open == 0 {
                    batch.step = Step::Written;
                }
            }
        }
    }

    /// What was written when the flush began is durable: its blocks may be overwritten.
    fn batches_flushed(&mut self, good: bool) {
        let gaps = self.config.faults.keep_with_gaps;
        let keeping = &mut self.undo.keeping;
        keeping.flushing = false;
        let live = matches!(self.undo.stage, Stage::Keeping);
        for batch in keeping.batches.iter_mut().filter(|batch| batch.covered) {
            batch.failed |= !good;
            if gaps && good {
                for run in &batch.runs {
                    keeping.kept.insert(run.first, run.count);
                }
            }
        }
        let counts = |batch: &Batch| batch.covered && !batch.failed && batch.record == self.sb.record;
        let mut done = Vec::new();
        while live && keeping.batches.front().is_some_and(counts) {
            let Some(batch) = keeping.batches.pop_front() else { break };
            keeping.head += batch.units();
            keeping.number += 1;
            for run in &batch.runs {
                keeping.kept.insert(run.first, run.count);
            }
            done.push(batch.buffer);
        }
        for buffer in done {
            self.act(Action::Release { data: Data::Buffer(buffer) });
        }
        self.go_on();
    }

    /// Reads what the waiting work needs kept, and what is about to come.
    fn begin_batch(&mut self) {
        let keeping = &self.undo.keeping;
        let reads = keeping.batches.iter().filter(|batch| batch.step == Step::Reading).count();
        if !keeping.asked || reads >= READING_MAX || keeping.batches.len() >= UNSEALED_MAX {
            return;
        }
        let runs = self.next_runs();
        if runs.is_empty() {
            self.undo.keeping.asked = false;
            if self.undo.keeping.is_idle() && !self.undo.waiting.is_empty() {
                self.go_on();
            }
            return;
        }
        let keeping = &mut self.undo.keeping;
        let under_way: u64 = keeping.batches.iter().map(Batch::units).sum();
        let most: u64 = runs.iter().map(|(_, count)| count).sum();
        if keeping.head + under_way + 1 + most > self.sb.store / UNIT as u64 {
            // What is under way may turn out to be zeroes.
            if under_way == 0 {
                self.lose_record();
            }
            return;
        }
        let mut ranges = Vec::with_capacity(runs.len());
        for (first, count) in &runs {
            keeping.taken.insert(*first, *count);
            for block in *first..first + count {
                keeping.ahead.remove(&block);
            }
            let length = u32::try_from(count * BLOCK_BYTES).unwrap_or_default();
            ranges.push(Range { offset: first * BLOCK_BYTES, length });
        }
        keeping.serial += 1;
        let serial = keeping.serial;
        let buffer = self.begin(Op::Keep(KeepOp::Read, serial));
        let kept = |(first, count)| Kept { first, count, place: None, sum: 0 };
        let batch = Batch {
            serial,
            record: self.sb.record,
            session: self.sb.session,
            runs: runs.into_iter().map(kept).collect(),
            buffer,
            step: Step::Reading,
            open: 1,
            covered: false,
            failed: false,
        };
        self.undo.keeping.batches.push_back(batch);
        self.act(Action::GatherLocal { op: buffer, ranges });
        self.moved = true;
    }

    /// The blocks of the next batch: first what work waits for.
    fn next_runs(&mut self) -> Vec<(u64, u64)> {
        let (keeping, applied) = (&mut self.undo.keeping, &self.applied);
        self.undo.waiting.retain(|id| applied.contains_key(id));
        let mut wanted = BTreeSet::new();
        let mut looked = 0;
        for id in &self.undo.waiting {
            let Some(range) = applied.get(id).map(crate::applied::Applied::range) else { continue };
            let (first, count) = blocks(range.offset, u64::from(range.length));
            let missing = (first..first + count).filter(|block| !keeping.taken.has(*block));
            wanted.extend(missing.take((SEGMENT_BLOCKS_MAX as usize).saturating_sub(wanted.len())));
            looked += count;
            if wanted.len() as u64 >= SEGMENT_BLOCKS_MAX || looked >= LOOKED_AT_MAX {
                break;
            }
        }
        let mut room = RUNS_MAX.saturating_sub(runs_of(&wanted).len());
        let mut run = (0, 0);
        keeping.ahead.retain(|block| !keeping.taken.has(*block));
        for block in &keeping.ahead {
            if wanted.len() as u64 >= SEGMENT_BLOCKS_MAX {
                break;
            }
            if run.0 + run.1 == *block && run.1 > 0 && run.1 < RUN_BLOCKS_MAX {
                run.1 += 1;
            } else if room == 0 {
                break;
            } else {
                room -= 1;
                run = (*block, 1);
            }
            wanted.insert(*block);
        }
        runs_of(&wanted)
    }
}

/// Neighbouring blocks as runs, as many as a segment can name.
fn runs_of(blocks: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for block in blocks {
        let full = runs.len() == RUNS_MAX;
        match runs.last_mut() {
            Some((first, count)) if *first + *count == *block && *count < RUN_BLOCKS_MAX => *count += 1,
            Some(_) | None if full => break,
            Some(_) | None => runs.push((*block, 1)),
        }
    }
    runs
}
