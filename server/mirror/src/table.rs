//! The table of sums in the course of a turn: taken back before a write, learnt from comparisons, stored when quiet.

use crate::action::Action;
use crate::input::{LocalFault, LocalResult, Range};
use crate::log::blocks;
use crate::mirror::{Mirror, Op};
use crate::sum_page::{EXTENT_SUM_BYTES, Sum, extent_offset, hash_of, sum_of, sums_read};
use crate::sums::Look;
use peer::block::HASH_BYTES;

/// What the table gives for a run of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A hash for each, of which only a sum's bytes count.
    All(Vec<[u8; HASH_BYTES]>),
    /// Not all are known: the blocks must be read.
    Not,
    /// Pages of the table are on their way; asked again when they are here.
    Later,
}

impl Mirror {
    /// A write to this range of the local disk is about to begin: its blocks' sums are taken back. It may begin when this mark
    /// is reached.
    pub(crate) fn sums_forget(&mut self, range: Range) -> u64 {
        let (first, count) = blocks(range.offset, u64::from(range.length));
        let next = self.store.next_mark();
        let mark = self.sums.write_begins(first, count, next, self.now);
        if mark == next {
            self.store.sums();
        }
        if self.config.faults.write_before_distrust { 0 } else { mark }
    }

    /// Both copies are known to hold blocks with these hashes from `first` on, which are claimed.
    pub(crate) fn sums_learn(&mut self, first: u64, hashes: &[[u8; HASH_BYTES]]) {
        for (block, hash) in (first..).zip(hashes) {
            self.sum_learn(block, sum_of(hash));
        }
    }

    pub(crate) fn sum_learn(&mut self, block: u64, sum: Sum) {
        if self.sums.learn(block, sum, self.store.next_mark(), self.now) {
            self.store.sums();
        }
    }

    /// What the table knows of a run of blocks, all or nothing; loads what it needs.
    pub(crate) fn sums_tell(&mut self, first: u64, count: u64) -> Told {
        let (mut hashes, mut later) = (Vec::with_capacity(count as usize), false);
        for block in first..first + count {
            match self.sums.look(block) {
                Look::Known(sum) => hashes.push(hash_of(&sum)),
                Look::Unknown => return Told::Not,
                Look::Stored(extent) => {
                    self.load_sums(extent);
                    if !self.sums.is_loading(extent) {
                        return Told::Not;
                    }
                    later = true;
                }
            }
        }
        if later { Told::Later } else { Told::All(hashes) }
    }

    /// Whether what the table knows of a run of blocks is in memory; loads it otherwise, and says so when it is there.
    pub(crate) fn sums_ready(&mut self, first: u64, count: u64) -> bool {
        let mut ready = true;
        for block in first..first + count {
            if let Look::Stored(extent) = self.sums.look(block) {
                self.load_sums(extent);
                ready &= !self.sums.is_loading(extent);
            }
        }
        ready
    }

    fn load_sums(&mut self, extent: u32) {
        if self.sums.load(extent, self.now) {
            let op = self.begin(Op::LoadSums(extent));
            let offset = extent_offset(self.sb.size, extent);
            self.act(Action::LoadControl { op, offset, length: EXTENT_SUM_BYTES as u32 });
        }
    }

    pub(crate) fn sums_loaded(&mut self, extent: u32, result: Result<LocalResult, LocalFault>) {
        // A page that cannot be read says nothing.
        let found = match result {
            Ok(LocalResult::Bytes(bytes)) => Some(sums_read(&bytes, extent, &self.sb)),
            Ok(_) | Err(_) => None,
        };
        self.sums.loaded(extent, found, self.now);
        self.runs_look_again();
        self.verify_looks_again();
        for id in std::mem::take(&mut self.sum_checks) {
            self.apply_now(id);
        }
    }

    /// Stores what is quiet, flushes before it, loads what is to be merged.
    pub(crate) fn advance_sums(&mut self) {
        if self.failed.is_some() || self.through {
            return;
        }
        let wants = self.sums.wants(self.now);
        for extent in wants.load {
            self.load_sums(extent);
        }
        if wants.flush {
            self.sums.flush_begins();
            let op = self.begin(Op::SumsFlush);
            self.act(Action::FlushLocal { op });
        }
        if wants.store {
            self.store.sums();
        }
    }

    pub(crate) fn sums_flushed(&mut self, fault: Option<LocalFault>) {
        match fault {
            None => self.sums.flushed(),
            Some(fault) => self.fail(format!("flushing the local disk failed: errno {}", fault.errno)),
        }
    }

    /// A store is done: what waited for it goes on.
    pub(crate) fn sums_stored(&mut self) {
        if !self.sums.is_idle() && self.sums.stored(|mark| self.store.reached(mark)) {
            self.store.sums();
        }
        if self.sum_waits.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.sum_waits);
        let (ready, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(mark, _)| self.store.reached(*mark));
        self.sum_waits = rest;
        for (_, id) in ready {
            self.apply_now(id);
        }
    }

    /// What this side believes that a block holds, for the checkers of invariant 14.
    #[doc(hidden)]
    #[must_use]
    pub fn known_sum(&self, block: u64) -> Option<Sum> {
        self.sums.known(block)
    }
}
