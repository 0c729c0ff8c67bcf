//! Which way of acknowledging is in force (C4), and how it changes while the set serves.
//!
//! The superblock tells the mode in force, for whoever goes on after a crash: what the twin may lack depends on it. A looser mode is
//! stored before the first write is answered by it. A stricter one rules what is answered from the order on, and is in force when
//! the twin has everything that was answered before, on stable storage, or counts no more. A standby's part is the same in every mode but for `Got`,
//! which nobody needs who does not get it: so the two sides may learn of a change at different moments.

use crate::mirror::Mirror;
use peer::control::{Done, Role, Ticket};
use wire::traffic::WriteMode;

/// Ordered and in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub(crate) wanted: WriteMode,
    pub(crate) in_force: WriteMode,
    /// A looser one is on its way to the disk, with its mark.
    storing: Option<u64>,
    /// Requests from this number on were answered by the mode that is wanted.
    since: u64,
    /// The flush of both disks that ends the mode before.
    round: Option<u64>,
}

impl Mode {
    pub(crate) fn new(wanted: WriteMode, stored: WriteMode) -> Mode {
        Mode { wanted, in_force: stored, storing: None, since: 0, round: None }
    }
}

impl Mirror {
    /// By which mode writes and flushes are answered.
    pub(crate) fn answers_by(&self) -> WriteMode {
        // Through the twin, its disk is the only one that counts.
        if self.through { WriteMode::Synchronous } else { self.mode.wanted.min(self.mode.in_force) }
    }

    /// What the twin has may be an earlier state: writes are, or were, answered before they left.
    pub(crate) fn asynchronous(&self) -> bool {
        self.mode.in_force == WriteMode::Asynchronous && !self.through
    }

    /// Frames may be on their way long after their writes are answered.
    #[must_use]
    pub fn keeps_frames(&self) -> bool {
        self.asynchronous()
    }

    /// The mode in force, without the rest of a status.
    #[must_use]
    pub fn mode_in_force(&self) -> WriteMode {
        self.mode.in_force
    }

    pub(crate) fn mode_ordered(&mut self, ticket: Ticket, wanted: WriteMode) {
        if self.mode.wanted != wanted {
            self.mode.wanted = wanted;
            (self.mode.since, self.mode.round) = (self.next_id + 1, None);
        }
        self.told.report = true;
        self.answer(ticket, Ok(Done::Done));
    }

    /// A term begins: what it may answer by is stored with it.
    pub(crate) fn store_mode(&mut self) {
        self.sb.mode = self.mode.in_force.max(self.mode.wanted);
    }

    pub(crate) fn mode_stored(&mut self) {
        (self.mode.in_force, self.mode.storing) = (self.sb.mode, None);
        self.mode.since = self.next_id + 1;
    }

    pub(crate) fn advance_mode(&mut self) {
        if self.role != Role::Active || self.unstored {
            return;
        }
        if let Some(mark) = self.mode.storing {
            if self.store.reached(mark) {
                self.mode_stored();
                self.moved = true;
            }
        } else if self.mode.wanted > self.mode.in_force && self.may_lag() {
            self.store_mode();
            self.mode.storing = Some(self.store.superblock());
            self.moved = true;
        } else if self.mode.wanted < self.mode.in_force && self.has_caught_up() {
            (self.mode.in_force, self.mode.round) = (self.mode.wanted, None);
            self.sb.mode = self.mode.wanted;
            self.store.superblock();
            // What a round covered was counted by another mode's answers.
            self.flushes.count_anew();
            self.moved = true;
        }
    }

    /// From an equal copy the twin can follow in order; while one is made equal in no order it cannot.
    fn may_lag(&self) -> bool {
        !self.needs_twin || self.joined() && self.finish.is_none() && self.map.count() == 0
    }

    /// Everything that was answered by the mode before is on the twin's stable storage, or the twin counts no more.
    fn has_caught_up(&mut self) -> bool {
        if self.config.faults.tighten_at_once || !self.needs_twin {
            return true;
        }
        if !self.journal.has_passed(self.mode.since) || !self.may_lag() {
            self.mode.round = None;
            return false;
        }
        let round = *self.mode.round.get_or_insert_with(|| {
            self.moved = true;
            self.flushes.want_next()
        });
        self.flushes.joint_done >= round
    }
}
