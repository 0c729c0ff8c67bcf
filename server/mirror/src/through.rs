//! Serving through the twin (C5): the own disk refuses writes or flushes, the application sees nothing of it.
//!
//! ```text
//! in sync --a write, flush or store is refused--> asks out (what it owes is held)
//!    --the twin stores `Shoulder`, the register leaves this copy out, `Through`--> through the twin's disk alone
//! ```
//! Only the register's word lets a write be acknowledged that this disk lacks: from then on the twin's copy is the only one
//! that counts, so that nothing here can be taken for good again, whatever becomes of this disk. If the word does not come,
//! the engine moves the group as it does for any other failed disk.

use crate::link::Phase;
use crate::mirror::Mirror;
use crate::pair::Pair;
use peer::control::{Done, OrderFault, Role, Ticket};

impl Mirror {
    /// Every write goes to a twin in sync, what a crash had left open is equal again, and nothing is being changed about that:
    /// its disk has all that was acknowledged or shown.
    pub(crate) fn twin_could_serve(&self) -> bool {
        let idle = self.putting_out.is_none()
            && self.deactivation.is_none()
            && self.settle.is_idle()
            && self.rebuild.is_none()
            && self.finish.is_none();
        self.role == Role::Active && self.needs_twin && self.joined() && idle
    }

    /// [`peer::control::DiskStatus::asks_out`].
    pub(crate) fn asks_out(&self) -> bool {
        self.failed.is_some() && !self.through && self.twin_could_serve() && !self.own_disk_hangs()
    }

    /// [`peer::control::DiskOrder::Shoulder`].
    pub(crate) fn shoulder(&mut self, ticket: Ticket) {
        let able = self.role == Role::Standby && self.sb.consistent && !self.sb.alone;
        let able = able && self.failed.is_none() && !self.sb.history.is_empty();
        if !able {
            self.answer(ticket, Err(OrderFault::WrongRole));
            return;
        }
        if !self.config.faults.shoulder_keeps_base {
            self.sb.base = None;
        }
        self.shouldered = true;
        let mark = self.store.superblock();
        self.shouldering.push((ticket, mark));
        self.moved = true;
    }

    pub(crate) fn advance_shouldering(&mut self) {
        while let Some(at) = self.shouldering.iter().position(|(_, mark)| self.store.reached(*mark)) {
            let (ticket, _) = self.shouldering.remove(at);
            self.moved = true;
            let stands = self.role == Role::Standby && self.failed.is_none();
            self.answer(ticket, if stands { Ok(Done::Done) } else { Err(OrderFault::WrongRole) });
        }
    }

    /// [`peer::control::DiskOrder::Through`].
    pub(crate) fn go_through(&mut self, ticket: Ticket) {
        if self.through {
            self.answer(ticket, Ok(Done::Done));
            return;
        }
        if self.role != Role::Active || !self.needs_twin || self.putting_out.is_some() {
            self.answer(ticket, Err(OrderFault::WrongRole));
            return;
        }
        self.break_finish(&OrderFault::NotEqual);
        self.flushes.count_anew();
        self.end_verify(true);
        self.break_rebuild();
        self.broken_off = None;
        self.through = true;
        // No start takes this copy for good again, if its disk still takes the word.
        self.sb.consistent = false;
        self.sb.base = None;
        self.store.superblock();
        self.moved = true;
        self.answer(ticket, Ok(Done::Done));
        self.hand_to_twin();
    }

    /// What the own disk owes, or was to be asked for, the twin's answer settles.
    fn hand_to_twin(&mut self) {
        let mut waiting: Vec<u64> = std::mem::take(&mut self.requests.no_room).into();
        waiting.extend(std::mem::take(&mut self.requests.heating).into_iter().map(|(_, id)| id));
        for id in waiting {
            self.issue_through(id);
        }
        let owed = self.requests.writes.iter_mut().filter(|(_, writing)| writing.owed());
        let owed: Vec<u64> = owed
            .map(|(id, writing)| {
                writing.local = Some(0);
                *id
            })
            .collect();
        for id in owed {
            self.write_moved(id);
        }
        self.end_heating_mends();
    }

    /// A write goes to the twin's disk alone.
    pub(crate) fn issue_through(&mut self, id: u64) {
        let Some(writing) = self.requests.writes.get_mut(&id) else { return };
        (writing.issued, writing.local) = (true, Some(0));
        self.moved = true;
        if self.joined() {
            self.send_write(id);
        }
    }

    /// The twin is back, in the same life of its host: it goes on as before.
    pub(crate) fn rejoin_through(&mut self) {
        let open = self.link.as_ref().is_some_and(|link| link.phase == Phase::Open);
        if open && matches!(self.pair, Pair::Waiting(_)) && !self.twin_reborn() {
            self.join();
        }
    }
}
