//! Stores of the control area: one at a time, each carrying the newest of everything asked for since the one before.
//!
//! A caller asks for a store and gets its mark; what it waits for is safe when `done` has reached the mark. Blocks of
//! one store may reach the disk in any order before a crash, so nothing may depend on the order of two blocks in one
//! store: what must come second is changed in memory only after the first is done.

use crate::action::OpId;

/// What is asked for and what is done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    /// Mark of the store in flight or done last.
    issued: u64,
    /// Mark done last.
    done: u64,
    in_flight: Option<OpId>,
    superblock: bool,
    log: bool,
    pages: bool,
    sums: bool,
}

/// What the next store carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) superblock: bool,
    pub(crate) log: bool,
    pub(crate) pages: bool,
    pub(crate) sums: bool,
}

impl Store {
    /// The mark of the next store: what is asked for while one is in flight goes with the one after.
    pub(crate) fn next_mark(&self) -> u64 {
        self.issued + 1
    }

    pub(crate) fn superblock(&mut self) -> u64 {
        self.superblock = true;
        self.next_mark()
    }

    pub(crate) fn log(&mut self) -> u64 {
        self.log = true;
        self.next_mark()
    }

    pub(crate) fn pages(&mut self) -> u64 {
        self.pages = true;
        self.next_mark()
    }

    pub(crate) fn sums(&mut self) -> u64 {
        self.sums = true;
        self.next_mark()
    }

    /// Whether everything up to this mark is durable.
    pub(crate) fn reached(&self, mark: u64) -> bool {
        self.done >= mark
    }

    /// What to store, if the disk is free and anything is asked for.
    pub(crate) fn begin(&mut self, op: OpId) -> Option<Wanted> {
        let wanted = self.wanted();
        let any = wanted.superblock || wanted.log || wanted.pages || wanted.sums;
        if self.in_flight.is_some() || !any {
            return None;
        }
        (self.superblock, self.log, self.pages, self.sums) = (false, false, false, false);
        self.issued += 1;
        self.in_flight = Some(op);
        Some(wanted)
    }

    fn wanted(&self) -> Wanted {
        Wanted { superblock: self.superblock, log: self.log, pages: self.pages, sums: self.sums }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && !self.superblock && !self.log && !self.pages && !self.sums
    }

    /// The store in flight is durable. False if `op` is not it.
    pub(crate) fn finish(&mut self, op: OpId) -> bool {
        let ours = self.in_flight == Some(op);
        if ours {
            self.in_flight = None;
            self.done = self.issued;
        }
        ours
    }
}
