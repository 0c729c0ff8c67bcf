//! Preserve (DESIGN 5): what a rebuild overwrites of an older whole copy is kept in a bounded store, and can be put back.
//!
//! A *record* is one preserved version: the copy as it was when the rebuild's target was marked inconsistent. It begins in
//! the very store that marks the copy, and from then on no block of this side is overwritten, by a copy, a write or zeroes,
//! before its old content and the header that names it are durable in the store ([`segment`]).
//!
//! ```text
//!  Off --marked--> Keeping --BuildDone--> Off            (kept until the copies are equal)
//!   ^                 |  \--split brain: goes on, in sync too, until dropped or full
//!   |    dropped,     |
//!   \-- full, serves -+-- order Undo, link away --> Returning --all blocks back, flushed, stored--> Off
//! ```
//! * **Batches.** Work that finds a block unkept waits; one batch at a time keeps what the waiting work needs, up to 2 MiB:
//!   read and hashed, written to the store, header and flush at once. What comes meanwhile makes the next batch, so that
//!   the price of a flush is shared by as much as the source has under way.
//! * **Only a standby keeps.** An activation ends the record, in the store that begins it: its own writes would have to
//!   wait for a flush each, and what it serves is the choice that counts from then on. The same for a store that is full.
//! * **A version kept after a split brain goes before** one of a later crash: such a rebuild begins no record of its own.
//! * **Undone.** The copy is whole again under its old history, but its twin has cleared bits for what it had copied: it
//!   says so in its greeting (`undone`) and is compared in full when it meets anyone. Its own map says nothing (no base).
//!   It is not in sync in the register, so that nothing but an operator's force makes it serve.

mod back;
mod block_set;
pub mod segment;

use crate::action::{Action, ControlWrite, Data, LinkFault, OpId};
use crate::config::BUFFERED_MAX;
use crate::input::{LocalFault, LocalResult, Range, ZERO_HASH};
use crate::layout::{Preserved, UNIT};
use crate::log::blocks;
use crate::mirror::{Mirror, Op};
use back::Back;
use block_set::BlockSet;
use peer::block::{BLOCK_BYTES, KeepOld};
use peer::control::{Done, OrderFault, Role, Ticket, UndoAct, UndoStatus};
use segment::{Kept, RUN_BLOCKS_MAX, RUNS_MAX, SEGMENT_BLOCKS_MAX, Segment, sum};
use std::collections::{BTreeSet, VecDeque};

const _: () =
    assert!(SEGMENT_BLOCKS_MAX * BLOCK_BYTES <= BUFFERED_MAX, "a batch has no more in memory than a rebuild");

/// Blocks that one batch looks at for what is unkept: the longest zero range twice.
const LOOKED_AT_MAX: u64 = 16 * 1024;

/// How far the record is.
#[derive(Debug, Default)]
enum Stage {
    /// There is none, or what there is has been given up.
    #[default]
    Off,
    /// Headers are being read after a start.
    Reading(Reading),
    /// Blocks are kept before they are overwritten.
    Keeping,
    /// The end of the record is being stored: until then nothing may be overwritten unkept.
    Ending { mark: u64 },
    /// Blocks go back.
    Returning(Back),
}

/// Finding the log's end.
#[derive(Debug, Default)]
struct Reading {
    op: Option<OpId>,
    /// The segment read last: it counts when another follows or its blocks are what it says.
    last: Option<Segment>,
    /// Its runs that are being checked.
    checks: Vec<(OpId, u32)>,
    wrong: bool,
}

impl Reading {
    /// Place and number of the header to come.
    fn next(&self) -> (u64, u64) {
        self.last.as_ref().map_or((0, 0), |last| (last.end(), last.number + 1))
    }
}

/// Blocks on their way into the store.
#[derive(Debug)]
struct Batch {
    record: u64,
    runs: Vec<Coming>,
    /// Reads and writes without an answer.
    open: usize,
    failed: bool,
    stage: Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Reading,
    Writing,
    /// Header and flush.
    Sealing,
}

#[derive(Debug)]
struct Coming {
    kept: Kept,
    buffer: OpId,
    /// The buffer is there.
    filled: bool,
}

/// What this side knows of its preserved version.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    stage: Stage,
    /// Place of the next header, in units.
    head: u64,
    /// Its number.
    number: u64,
    kept: BlockSet,
    /// Work of the twin that needs blocks kept first.
    waiting: VecDeque<u64>,
    batch: Option<Batch>,
    /// The record ended for want of room, or because this side served; for the alert.
    pub(crate) lost: bool,
    /// An operator does without: a rebuild after a split brain may begin whatever the store holds.
    pub(crate) waived: bool,
    /// Blocks may go back when this is stored.
    after: u64,
    /// Orders answered when the superblock is stored.
    answers: Vec<(u64, Ticket)>,
}

impl Undo {
    /// As the superblock says at a start.
    pub(crate) fn at_start(preserved: Option<&Preserved>, size: u64) -> Undo {
        match preserved {
            Some(_) => Undo {
                stage: Stage::Reading(Reading::default()),
                kept: BlockSet::new(size / BLOCK_BYTES),
                ..Undo::default()
            },
            None => Undo::default(),
        }
    }

    /// Nothing is under way that a new session would have to wait for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.batch.is_none() && !matches!(self.stage, Stage::Reading(_))
    }
}

impl Mirror {
    /// Bytes of the backing's control area before the store begins: `StoreControl` and `LoadControl` count from its start.
    fn store_offset(&self, unit: u64) -> u64 {
        self.sb.data_at() + self.sb.size + unit * UNIT as u64
    }

    /// The store as the data's continuation: `WriteLocal` and `HashLocal` count from the data's start.
    fn store_range(&self, unit: u64, units: u64) -> Range {
        let length = u32::try_from(units * UNIT as u64).unwrap_or_default();
        Range { offset: self.sb.size + unit * UNIT as u64, length }
    }

    /// Units of the store.
    fn store_units(&self) -> u64 {
        self.sb.store / UNIT as u64
    }

    /// Blocks of a new record that the store holds: seven eighths of it, the rest for headers. A header is shared by all that
    /// is under way, dozens of runs in a rebuild. None: there is no store, whoever made the set does without undo.
    pub(crate) fn undo_room(&self) -> Option<u64> {
        let units = self.store_units();
        let taken = self.sb.preserved.as_ref().is_some_and(|preserved| preserved.split);
        (units > 0).then_some(if taken { 0 } else { units - units.div_ceil(8) })
    }

    /// Blocks go back at this moment, or are about to.
    pub(crate) fn returning(&self) -> bool {
        self.sb.preserved.as_ref().is_some_and(|preserved| preserved.returning)
    }

    pub(crate) fn undo_status(&self) -> Option<UndoStatus> {
        let preserved = self.sb.preserved.as_ref()?;
        Some(UndoStatus {
            split: preserved.split,
            returning: preserved.returning,
            blocks: self.undo.kept.count(),
            used: self.undo.head * UNIT as u64,
            room: self.sb.store,
        })
    }

    /// The number of the record, for checkers.
    #[doc(hidden)]
    #[must_use]
    pub fn record(&self) -> Option<u64> {
        self.sb.preserved.as_ref().map(|_| self.sb.record)
    }

    /// Whether this copy was put back to an older version and nothing came after, for checkers.
    #[doc(hidden)]
    #[must_use]
    pub fn is_undone(&self) -> bool {
        self.sb.undone
    }

    /// A rebuild overwrites this copy from here on; asked before the copy is marked, and stored with the mark.
    pub(crate) fn record_begins(&mut self, old: KeepOld) {
        let split = old == KeepOld::UntilDropped;
        if !self.sb.consistent || self.sb.history.is_empty() {
            // An unfinished target: the version before it began is the one to keep.
            if let Some(preserved) = self.sb.preserved.as_mut().filter(|_| split) {
                preserved.split = true;
            }
            return;
        }
        if self.sb.preserved.as_ref().is_some_and(|preserved| preserved.split) && old != KeepOld::Not {
            return;
        }
        self.undo = Undo { waived: self.undo.waived, ..Undo::default() };
        self.sb.preserved = None;
        self.sb.undone = false;
        if old == KeepOld::Not || self.store_units() < 2 {
            return;
        }
        self.sb.record += 1;
        self.sb.preserved = Some(Preserved {
            history: self.sb.history.clone(),
            alone: self.sb.alone,
            split,
            returning: false,
        });
        self.undo.stage = Stage::Keeping;
        self.undo.kept = BlockSet::new(self.sb.size / BLOCK_BYTES);
    }

    /// The copies are equal: what was kept for a crash in between is of no more use. Stored with that.
    pub(crate) fn record_ends_equal(&mut self) {
        self.sb.undone = false;
        if self.sb.preserved.as_ref().is_some_and(|preserved| !preserved.split) {
            self.end_record();
        }
    }

    /// This side is about to serve: what it writes is kept nowhere.
    pub(crate) fn record_ends_active(&mut self) {
        if self.sb.preserved.is_some() {
            self.undo.lost = true;
            self.end_record();
        }
    }

    /// Gives the record up; the caller's store of the superblock, or the one asked for here, ends it.
    fn end_record(&mut self) -> u64 {
        self.sb.preserved = None;
        let mark = self.store.superblock();
        self.undo.stage = Stage::Ending { mark };
        self.moved = true;
        mark
    }

    fn lose_record(&mut self) {
        if matches!(self.undo.stage, Stage::Keeping) {
            self.undo.lost = true;
            self.end_record();
        }
    }

    /// Whether this range may be overwritten; otherwise the work is applied when its blocks are kept.
    pub(crate) fn may_overwrite(&mut self, id: u64, range: Range, is_copy: bool) -> bool {
        if matches!(self.undo.stage, Stage::Off) || (self.config.faults.keep_copies_only && !is_copy) {
            return true;
        }
        let (first, count) = blocks(range.offset, u64::from(range.length));
        let settled = matches!(self.undo.stage, Stage::Keeping);
        if settled && (first..first + count).all(|block| self.undo.kept.has(block)) {
            return true;
        }
        self.undo.waiting.push_back(id);
        self.moved = true;
        false
    }

    pub(crate) fn advance_undo(&mut self) {
        let answered = self.undo.answers.iter().position(|(mark, _)| self.store.reached(*mark));
        if let Some(at) = answered {
            let (_, ticket) = self.undo.answers.remove(at);
            self.moved = true;
            self.answer(ticket, Ok(Done::Done));
        }
        match &self.undo.stage {
            Stage::Off => {}
            Stage::Reading(_) => self.advance_reading(),
            Stage::Keeping => {
                if self.undo.batch.is_none() && !self.undo.waiting.is_empty() {
                    self.begin_batch();
                }
            }
            Stage::Ending { mark } => {
                if self.store.reached(*mark) && self.undo.batch.is_none() {
                    self.undo.stage = Stage::Off;
                    self.undo.kept = BlockSet::default();
                    self.go_on();
                }
            }
            Stage::Returning(_) => self.advance_returning(),
        }
    }

    /// Lets the work that waits be looked at again.
    fn go_on(&mut self) {
        self.moved = true;
        for id in std::mem::take(&mut self.undo.waiting) {
            self.apply(id);
        }
    }

    fn begin_batch(&mut self) {
        let mut taken = BTreeSet::new();
        let mut looked = 0;
        for id in &self.undo.waiting {
            let Some(range) = self.applied.get(id).map(crate::applied::Applied::range) else { continue };
            let (first, count) = blocks(range.offset, u64::from(range.length));
            for block in first..first + count {
                if taken.len() as u64 >= SEGMENT_BLOCKS_MAX {
                    break;
                }
                if !self.undo.kept.has(block) {
                    taken.insert(block);
                }
            }
            looked += count;
            if taken.len() as u64 >= SEGMENT_BLOCKS_MAX || looked >= LOOKED_AT_MAX {
                break;
            }
        }
        if taken.is_empty() {
            self.go_on();
            return;
        }
        let runs = runs_of(&taken);
        let most: u64 = runs.iter().map(|(_, count)| count).sum();
        if self.undo.head + 1 + most > self.store_units() {
            self.lose_record();
            return;
        }
        self.moved = true;
        let mut coming = Vec::with_capacity(runs.len());
        for (i, (first, count)) in runs.into_iter().enumerate() {
            let buffer = self.begin(Op::Keep(i));
            let kept = Kept { first, count, place: None, sum: 0 };
            coming.push(Coming { kept, buffer, filled: false });
            let length = u32::try_from(count * BLOCK_BYTES).unwrap_or_default();
            let range = Range { offset: first * BLOCK_BYTES, length };
            self.act(Action::HashLocal { op: buffer, range, keep: true });
        }
        let (record, open) = (self.sb.record, coming.len());
        self.undo.batch = Some(Batch { record, runs: coming, open, failed: false, stage: Keep::Reading });
    }

    /// A run of the batch was read, written, or sealed.
    pub(crate) fn keep_done(&mut self, run: usize, op: OpId, result: Result<LocalResult, LocalFault>) {
        let Some(batch) = &mut self.undo.batch else { return };
        batch.open = batch.open.saturating_sub(1);
        let coming = batch.runs.get_mut(run).filter(|coming| coming.buffer == op);
        match (coming, result) {
            (Some(coming), Ok(LocalResult::Hashes(hashes))) if hashes.len() as u64 == coming.kept.count => {
                coming.filled = true;
                let zero = hashes.iter().all(|hash| *hash == ZERO_HASH);
                coming.kept.sum = sum(&hashes);
                coming.kept.place = (!zero).then_some(0);
            }
            (Some(coming), _) => {
                coming.filled = true;
                batch.failed = true;
            }
            (None, Err(_)) => batch.failed = true,
            (None, Ok(_)) => {}
        }
        if batch.open == 0 {
            self.batch_goes_on();
        }
    }

    fn batch_goes_on(&mut self) {
        self.moved = true;
        let Some(batch) = &mut self.undo.batch else { return };
        let live = matches!(self.undo.stage, Stage::Keeping) && batch.record == self.sb.record;
        if batch.failed || !live {
            // A disk that cannot read what is to be kept, or write it, costs the undo, not the rebuild.
            self.drop_batch();
            self.lose_record();
            return;
        }
        match batch.stage {
            Keep::Reading => self.write_batch(),
            Keep::Writing => self.seal_batch(),
            Keep::Sealing => self.batch_kept(),
        }
    }

    /// Everything is read: what is not zero goes behind the header to come.
    fn write_batch(&mut self) {
        let head = self.undo.head;
        let Some(batch) = &mut self.undo.batch else { return };
        batch.stage = Keep::Writing;
        let mut place = 0;
        let mut writes = Vec::new();
        for coming in &mut batch.runs {
            if coming.kept.place.is_some() {
                coming.kept.place = u32::try_from(place).ok();
                writes.push((head + 1 + place, coming.kept.count, coming.buffer));
                place += coming.kept.count;
            }
        }
        batch.open = writes.len();
        let none = writes.is_empty();
        for (unit, count, buffer) in writes {
            let (op, range) = (self.begin(Op::Keep(usize::MAX)), self.store_range(unit, count));
            self.act(Action::WriteLocal { op, range, data: Data::Buffer(buffer) });
        }
        if none {
            self.batch_goes_on();
        }
    }

    /// The blocks are in the store or its cache: the header goes there too, and both are made durable.
    fn seal_batch(&mut self) {
        let (at, number) = (self.undo.head, self.undo.number);
        let Some(batch) = &mut self.undo.batch else { return };
        (batch.stage, batch.open) = (Keep::Sealing, 2);
        let runs = batch.runs.iter().map(|coming| coming.kept).collect();
        let segment = Segment { at, number, runs };
        let writes = vec![ControlWrite { offset: self.store_offset(at), bytes: segment.bytes(&self.sb) }];
        let op = self.begin(Op::Keep(usize::MAX));
        self.act(Action::StoreControl { op, writes });
        let op = self.begin(Op::Keep(usize::MAX));
        self.act(Action::FlushLocal { op });
        if self.config.faults.overwrite_before_kept {
            self.take_batch();
        }
    }

    fn batch_kept(&mut self) {
        let Some(batch) = &self.undo.batch else { return };
        let units: u64 =
            batch.runs.iter().filter(|run| run.kept.place.is_some()).map(|run| run.kept.count).sum();
        self.undo.head += 1 + units;
        self.undo.number += 1;
        self.take_batch();
        self.drop_batch();
    }

    /// The batch's blocks may be overwritten.
    fn take_batch(&mut self) {
        let Some(batch) = &self.undo.batch else { return };
        for coming in &batch.runs {
            self.undo.kept.insert(coming.kept.first, coming.kept.count);
        }
        self.go_on();
    }

    fn drop_batch(&mut self) {
        let Some(batch) = self.undo.batch.take() else { return };
        for coming in batch.runs.into_iter().filter(|coming| coming.filled) {
            self.act(Action::Release { data: Data::Buffer(coming.buffer) });
        }
    }

    // ---- after a start

    fn advance_reading(&mut self) {
        let Stage::Reading(reading) = &mut self.undo.stage else { return };
        if reading.op.is_some() || !reading.checks.is_empty() {
            return;
        }
        let (at, _) = reading.next();
        if at < self.sb.store / UNIT as u64 {
            let op = self.begin(Op::KeepRead);
            if let Stage::Reading(reading) = &mut self.undo.stage {
                reading.op = Some(op);
            }
            let offset = self.store_offset(at);
            self.act(Action::LoadControl { op, offset, length: UNIT as u32 });
        } else {
            self.header_read(None);
        }
    }

    /// A header was read, or a run of the last segment hashed.
    pub(crate) fn keep_read_done(&mut self, op: OpId, result: Result<LocalResult, LocalFault>) {
        match &mut self.undo.stage {
            Stage::Reading(reading) => {
                let result = match result {
                    Ok(result) => result,
                    Err(fault) => {
                        self.fail(format!("reading the preserved version failed: errno {}", fault.errno));
                        return;
                    }
                };
                match result {
                    LocalResult::Bytes(bytes) if reading.op == Some(op) => {
                        reading.op = None;
                        let (at, number) = reading.next();
                        let found = Segment::read(&bytes, &self.sb, at, number);
                        self.header_read(found);
                    }
                    LocalResult::Hashes(hashes) => {
                        let Some(place) = reading.checks.iter().position(|(check, _)| *check == op) else {
                            return;
                        };
                        let (_, wanted) = reading.checks.remove(place);
                        reading.wrong |= sum(&hashes) != wanted;
                        if reading.checks.is_empty() {
                            self.end_found();
                        }
                    }
                    LocalResult::Bytes(_) | LocalResult::Done | LocalResult::Read { .. } => {}
                }
            }
            Stage::Returning(_) => self.returned(op, result),
            Stage::Off | Stage::Keeping | Stage::Ending { .. } => {}
        }
    }

    fn header_read(&mut self, found: Option<Segment>) {
        self.moved = true;
        let Stage::Reading(reading) = &mut self.undo.stage else { return };
        if let Some(found) = found {
            if let Some(last) = reading.last.replace(found) {
                for run in last.runs {
                    self.undo.kept.insert(run.first, run.count);
                }
            }
            return;
        }
        let runs: Vec<Kept> = reading.last.iter().flat_map(|last| last.runs.clone()).collect();
        let at = reading.last.as_ref().map_or(0, |last| last.at);
        let mut checks = Vec::new();
        for run in runs {
            if let Some(place) = run.place {
                let op = self.begin(Op::KeepRead);
                let range = self.store_range(at + 1 + u64::from(place), run.count);
                checks.push((op, run.sum));
                self.act(Action::HashLocal { op, range, keep: false });
            }
        }
        let none = checks.is_empty();
        if let Stage::Reading(reading) = &mut self.undo.stage {
            reading.checks = checks;
        }
        if none {
            self.end_found();
        }
    }

    /// The log's end is known.
    fn end_found(&mut self) {
        self.moved = true;
        let Stage::Reading(reading) = std::mem::take(&mut self.undo.stage) else { return };
        if let Some(last) = reading.last {
            if reading.wrong {
                (self.undo.head, self.undo.number) = (last.at, last.number);
            } else {
                (self.undo.head, self.undo.number) = (last.end(), last.number + 1);
                for run in last.runs {
                    self.undo.kept.insert(run.first, run.count);
                }
            }
        }
        self.undo.stage = if self.returning() { Stage::Returning(Back::default()) } else { Stage::Keeping };
        if matches!(self.undo.stage, Stage::Keeping) {
            self.go_on();
        }
    }

    // ---- orders

    pub(crate) fn undo_ordered(&mut self, ticket: Ticket, act: UndoAct) {
        let fault = match act {
            UndoAct::Waive => {
                self.undo.waived = true;
                None
            }
            UndoAct::Back | UndoAct::Drop if self.sb.preserved.is_none() => Some(OrderFault::NothingKept),
            UndoAct::Back | UndoAct::Drop if self.returning() => {
                (act == UndoAct::Drop).then_some(OrderFault::WrongRole)
            }
            UndoAct::Back if self.role != Role::Standby || !self.settle.is_idle() => {
                Some(OrderFault::WrongRole)
            }
            // The source is there: it would overwrite again what goes back.
            UndoAct::Back if self.linked() => Some(OrderFault::InUse),
            UndoAct::Back => {
                self.begin_returning();
                None
            }
            UndoAct::Drop => {
                self.end_record();
                None
            }
        };
        match fault {
            Some(fault) => self.answer(ticket, Err(fault)),
            None => {
                let mark = self.store.superblock();
                self.undo.answers.push((mark, ticket));
            }
        }
    }

    fn begin_returning(&mut self) {
        if let Some(preserved) = &mut self.sb.preserved {
            preserved.returning = true;
        }
        self.sb.consistent = false;
        self.sb.undone = true;
        self.sb.made_equal = false;
        self.made_equal = false;
        self.undo.after = self.store.superblock();
        self.close_link(LinkFault::Restart);
        if matches!(self.undo.stage, Stage::Keeping) {
            self.undo.stage = Stage::Returning(Back::default());
        }
    }

    /// A rebuild over a copy that went on by itself waits: its store cannot hold what would be lost, and nobody waived it.
    pub(crate) fn undo_is_short(&self) -> bool {
        self.declared && !self.undo.waived && !self.undo_fits()
    }

    /// Whether the store of the twin, if it has one, holds what a rebuild over a copy that went on by itself overwrites.
    fn undo_fits(&self) -> bool {
        let Some((hello, _)) = self.link.as_ref().and_then(|link| link.hello.as_ref()) else { return false };
        let all = self.sb.size / BLOCK_BYTES;
        let common = self.sb.base.is_some() && self.sb.base == hello.base && !self.sb.compare_all;
        let hot = hello.hot.len() as u64 * crate::layout::EXTENT_BLOCKS;
        let known = if common { (self.map.count() + hello.dirty + hot).min(all) } else { all };
        hello.room.is_none_or(|room| room >= known)
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
