//! The standby's part of a barrier (C4, asynchronous sets): what comes after it begins only when everything that came before is
//! written and flushed, whatever becomes of the connection.

use crate::action::{Action, LinkFault};
use crate::config::APPLIED_MAX;
use crate::input::LocalFault;
use crate::mirror::{Mirror, Op};
use peer::block::Body;
use peer::control::Role;
use std::collections::{BTreeSet, VecDeque};

/// One barrier.
#[derive(Clone, Copy, Debug)]
struct Barrier {
    /// Work with a lower number came before it.
    id: u64,
    /// The frame it answers and the connection it came by.
    of: u64,
    connection: u64,
    /// Its flush has begun.
    begun: bool,
}

/// Barriers not passed yet, and what waits behind them.
#[derive(Debug, Default)]
pub(crate) struct Barriers {
    queue: VecDeque<Barrier>,
    gated: BTreeSet<u64>,
}

impl Barriers {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether work of this number waits for a barrier; then it is noted.
    pub(crate) fn holds(&mut self, id: u64) -> bool {
        let holds = self.queue.front().is_some_and(|barrier| barrier.id < id);
        if holds {
            self.gated.insert(id);
        }
        holds
    }
}

impl Mirror {
    pub(crate) fn barrier_received(&mut self, of: u64) {
        let takes = self.role == Role::Standby && self.link.as_ref().is_some_and(|link| link.takes);
        if !takes || self.barriers.queue.len() >= APPLIED_MAX {
            self.close_link(LinkFault::Protocol);
            return;
        }
        let connection = self.link.as_ref().map_or(0, |link| link.number);
        let id = self.fresh();
        self.barriers.queue.push_back(Barrier { id, of, connection, begun: false });
        self.advance_barriers();
    }

    /// Begins the flush of the first barrier once everything before it is written.
    pub(crate) fn advance_barriers(&mut self) {
        let Some(first) = self.barriers.queue.front_mut().filter(|barrier| !barrier.begun) else { return };
        let id = first.id;
        if self.applied.range(..id).any(|(_, applied)| applied.changes()) {
            return;
        }
        first.begun = true;
        let op = self.begin(Op::Barrier);
        self.act(Action::FlushLocal { op });
    }

    pub(crate) fn barrier_flushed(&mut self, fault: Option<LocalFault>) {
        let Some(Barrier { of, connection, .. }) = self.barriers.queue.pop_front() else { return };
        self.moved = true;
        self.answer_twin(connection, of, Body::Flushed { of }, fault);
        let until = self.barriers.queue.front().map_or(u64::MAX, |barrier| barrier.id);
        let later = self.barriers.gated.split_off(&until);
        for id in std::mem::replace(&mut self.barriers.gated, later) {
            self.apply(id);
        }
        self.advance_barriers();
    }
}
