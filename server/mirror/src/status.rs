//! What the engine and the view are told, and when: changes of state at once, progress at most ten times a second.

use crate::action::Action;
use crate::mirror::Mirror;
use peer::control::{DiskStatus, FromDisk, Role};
use std::collections::VecDeque;
use wire::Time;

/// What was told last.
#[derive(Debug)]
pub(crate) struct Told {
    last: Option<DiskStatus>,
    at: Time,
    /// Told whatever has changed.
    pub(crate) report: bool,
    /// The node process is there.
    pub(crate) present: bool,
}

impl Default for Told {
    fn default() -> Self {
        Told { last: None, at: Time(0), report: true, present: true }
    }
}

/// A waiting write is worth a word to the engine only after this: most are answered long before.
const WAITING_US: u64 = 100 * wire::ids::MILLIS;

impl Mirror {
    /// Where the set stands. `device` and `link_address` are the shell's to fill in.
    #[must_use]
    pub fn status(&self) -> DiskStatus {
        let mut history: VecDeque<_> = self.sb.history.iter().copied().collect();
        if let Some(base) = self.sb.base
            && history.front().is_some_and(|current| *current != base)
        {
            history.retain(|known| *known != base);
            history.insert(1, base);
        }
        let waiting = self.waiting_since().filter(|since| self.now.since(*since) >= WAITING_US);
        DiskStatus {
            role: self.role,
            epoch: self.sb.epoch,
            holder: self.sb.holder,
            session: self.sb.session,
            consistent: self.sb.consistent,
            history: history.into(),
            needs_twin: self.needs_twin,
            made_equal: self.made_equal,
            linked: self.linked(),
            equal: self.equal(),
            twin_incarnation: self.twin_incarnation,
            twin_heard: self.twin_heard,
            waiting_since: waiting,
            split: self.split,
            dirty_blocks: self.map.count(),
            rebuild: self.rebuild_status(),
            last_rebuild: self.last_rebuild,
            lease: self.lease_end(),
            link_address: None,
            sent_bytes: self.sent_bytes,
            device: None,
            exports: Vec::new(),
            failed: self.failed.clone(),
            asks_out: self.asks_out(),
            through: self.through,
            mended_blocks: self.mended_blocks,
            undo: self.undo_status(),
            undo_lost: self.undo.lost,
            undo_short: self.undo_is_short(),
            undone: self.sb.undone,
            verify: self.verify_status(),
            last_verify: self.last_verify.clone(),
            behind: self.behind(),
            mode: self.mode.wanted,
            mode_in_force: self.mode.in_force,
        }
    }

    /// Whether this side knows, or must suppose, that a block differs from the twin's: its bit is set or its extent hot.
    /// For the checkers of invariant 13.
    #[doc(hidden)]
    #[must_use]
    pub fn suspects_block(&self, block: u64) -> bool {
        self.map.is_set(block) || self.log.is_hot(block * peer::block::BLOCK_BYTES, 1)
    }

    /// The generation the map counts from, for the same checkers.
    #[doc(hidden)]
    #[must_use]
    pub fn base(&self) -> Option<wire::Generation> {
        self.sb.base
    }

    /// The current generation, for the same checkers.
    #[doc(hidden)]
    #[must_use]
    pub fn generation(&self) -> Option<wire::Generation> {
        self.sb.history.first().copied()
    }

    /// The role, without the rest of a status.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The local disk failed, without the words of a status.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Every write goes to both and the twin's map has been merged, for the same checkers.
    #[doc(hidden)]
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.joined()
    }

    /// Everything is served through the twin's disk, without the rest of a status.
    #[must_use]
    pub fn is_through(&self) -> bool {
        self.through
    }

    /// [`peer::control::DiskStatus::asks_out`], without the rest of a status.
    #[must_use]
    pub fn would_go_through(&self) -> bool {
        self.asks_out()
    }

    /// The map counts from nobody's state, for the same checkers: see [`peer::control::DiskOrder::Shoulder`].
    #[doc(hidden)]
    #[must_use]
    pub fn counts_from_nothing(&self) -> bool {
        self.standing().is_alone_to_count()
    }

    /// Whether a block's bit is set, for the same checkers.
    #[doc(hidden)]
    #[must_use]
    pub fn is_dirty(&self, block: u64) -> bool {
        self.map.is_set(block)
    }

    /// In sync, equal and with nothing left to do for it, for the same checkers.
    #[doc(hidden)]
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.role == Role::Active
            && self.equal()
            && self.rebuild.is_none()
            && self.finish.is_none()
            && self.journal.is_passed()
    }

    /// Tells the node process if there is something to tell.
    pub(crate) fn tell_status(&mut self) {
        if !self.told.present {
            return;
        }
        let due = self.now.since(self.told.at) >= self.config.timing.status_us || self.told.last.is_none();
        if !self.told.report && !due && !self.state_changed() {
            return;
        }
        let status = self.status();
        if self.told.report || self.told.last.as_ref() != Some(&status) {
            self.told.report = false;
            self.told.at = self.now;
            self.told.last = Some(status.clone());
            self.act(Action::Tell(FromDisk::Status(Box::new(status))));
        } else {
            self.told.at = self.now;
        }
    }

    /// Whether something changed that must not wait: cheap, for it is asked at each turn.
    fn state_changed(&self) -> bool {
        let Some(last) = &self.told.last else { return true };
        last.role != self.role
            || last.epoch != self.sb.epoch
            || last.session != self.sb.session
            || last.consistent != self.sb.consistent
            || last.needs_twin != self.needs_twin
            || last.made_equal != self.made_equal
            || last.undone != self.sb.undone
            || last.undo.is_some() != self.sb.preserved.is_some()
            || last.undo_lost != self.undo.lost
            || last.linked != self.linked()
            || last.equal != self.equal()
            || last.split != self.split
            || last.failed != self.failed
            || last.asks_out != self.asks_out()
            || last.through != self.through
            || last.twin_incarnation != self.twin_incarnation
            || last.last_rebuild != self.last_rebuild
            || last.history.first() != self.sb.history.first()
    }

    /// When the next status may be due: while progress is made, and when what was told last is out of date.
    fn status_deadline(&self) -> Option<Time> {
        let old = self.told.last.as_ref().is_some_and(|last| {
            last.dirty_blocks != self.map.count()
                || last.mended_blocks != self.mended_blocks
                || last.behind != self.behind()
        });
        let works = self.rebuild.is_some() || self.verify.is_some();
        let busy = self.told.present && (old || works || self.waiting_since().is_some());
        busy.then(|| self.told.at.plus(self.config.timing.status_us))
    }

    /// When `DeadlineReached` is wanted, whatever else happens. None: never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let serving = matches!(self.role, Role::Activating | Role::Active | Role::Deactivating);
        let lease = self.lease_end().filter(|end| serving && *end > self.now);
        let fence = self.fence_time().filter(|_| serving);
        let cool = (self.role == Role::Active && self.log.len() > 0).then_some(self.next_cool);
        let copy = self.rebuild.as_ref().filter(|_| !self.needs_twin && self.rebuild_runs());
        let copy = copy.and_then(|rebuild| rebuild.pace.deadline()).map(|at| at.max(self.now.plus(1)));
        let (ending, status) = (self.deactivation_deadline(), self.status_deadline());
        let verify = self.verify_deadline();
        let sums = self.sums.due.filter(|_| self.failed.is_none());
        let all = [
            self.link_deadline(),
            sums,
            verify,
            lease,
            fence,
            cool,
            copy,
            ending,
            status,
            self.watch_deadline(),
        ];
        all.into_iter().flatten().min()
    }
}
