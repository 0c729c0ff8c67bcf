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
//! * **Batches** ([`keeping`]). Work that finds a block unkept waits; batches of up to 1 MiB keep what the waiting work needs,
//!   several under way at once, and one flush serves all that are written when it begins. The source tells what it is about to
//!   send (`Ahead`), so that most of it is kept by the time it comes.
//! * **Only a standby keeps.** An activation ends the record, in the store that begins it: its own writes would have to
//!   wait for a flush each, and what it serves is the choice that counts from then on. The same for a store that is full.
//! * **A version kept after a split brain goes before** one of a later crash: such a rebuild begins no record of its own.
//! * **Undone.** The copy is whole again under its old history, but its twin has cleared bits for what it had copied: it
//!   says so in its greeting (`undone`) and is compared in full when it meets anyone. Its own map says nothing (no base).
//!   It is not in sync in the register, so that nothing but an operator's force makes it serve.

mod back;
mod block_set;
mod keeping;
mod orders;
pub mod segment;
mod start;

pub(crate) use keeping::KeepOp;

use crate::input::Range;
use crate::layout::{Preserved, UNIT};
use crate::log::blocks;
use crate::mirror::Mirror;
use back::Back;
use keeping::Keeping;
use peer::block::{BLOCK_BYTES, KeepOld};
use peer::control::{Done, Ticket, UndoStatus};
use start::Reading;
use std::collections::VecDeque;

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

/// What this side knows of its preserved version.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    stage: Stage,
    pub(crate) keeping: Keeping,
    /// Work of the twin that needs blocks kept first.
    waiting: VecDeque<u64>,
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
                keeping: Keeping::new(size / BLOCK_BYTES),
                ..Undo::default()
            },
            None => Undo::default(),
        }
    }

    /// Nothing is under way that a new session would have to wait for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.keeping.is_idle() && !matches!(self.stage, Stage::Reading(_))
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
            blocks: self.undo.keeping.count(),
            used: self.undo.keeping.head * UNIT as u64,
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
        let mut keeping = std::mem::take(&mut self.undo.keeping);
        keeping.begin(0);
        self.undo = Undo { waived: self.undo.waived, keeping, ..Undo::default() };
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
        self.undo.keeping.begin(self.sb.size / BLOCK_BYTES);
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
        if settled && (first..first + count).all(|block| self.undo.keeping.has(block)) {
            return true;
        }
        self.undo.waiting.push_back(id);
        self.undo.keeping.ask();
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
        self.advance_keeping();
        match &self.undo.stage {
            Stage::Off => {}
            Stage::Reading(_) => self.advance_reading(),
            Stage::Keeping => {}
            Stage::Ending { mark } => {
                if self.store.reached(*mark) && self.undo.keeping.is_idle() {
                    self.undo.stage = Stage::Off;
                    self.undo.keeping.begin(0);
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
}
