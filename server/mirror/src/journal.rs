//! The active side's answered writes that the twin has not said to have written (C4): none in a synchronous set.
//!
//! Each was sent when it began, so the frames on their way *are* the journal: the twin takes them in that order, writes all
//! that it received whatever becomes of the link, and begins nothing that follows a barrier before what came earlier is on
//! stable storage. So an asynchronous twin's copy is at every moment what a local disk could hold after a loss of power at an
//! earlier moment. Of what the link loses only the ranges are known: the dirty map takes them.

use crate::action::{Action, OpId};
use crate::config::{JOURNAL_BARRIERS_MAX, JOURNAL_WRITES_MAX, JOURNAL_ZEROES_MAX};
use crate::input::{LocalFault, Range, RequestId};
use crate::log::blocks;
use crate::mirror::{Mirror, Op};
use crate::pair::Awaited;
use peer::block::Body;
use peer::control::Behind;
use std::collections::{BTreeMap, BTreeSet};
use wire::Time;

/// A write that was answered and that the twin may lack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trailing {
    pub(crate) range: Range,
    pub(crate) began: Time,
    pub(crate) zeroes: bool,
}

/// A flush of the local disk alone, for everything that asked before it began.
#[derive(Debug)]
struct LocalRound {
    op: OpId,
    requests: Vec<(RequestId, Time)>,
}

/// What the twin is behind.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    writes: BTreeMap<u64, Trailing>,
    /// Bytes of their ranges.
    bytes: u64,
    zeroes: usize,
    /// Bytes answered, and since when, that no connection carries any more: the map has them.
    lost: u64,
    lost_since: Option<Time>,
    /// Writes done here that wait for room.
    pub(crate) waiting: BTreeSet<u64>,
    /// Barriers the twin has not passed.
    barriers: usize,
    /// Something may have been sent since the last barrier.
    open: bool,
    round: Option<LocalRound>,
}

impl Journal {
    /// Nothing answered is missing on the twin, as far as the connection tells.
    pub(crate) fn idle(&self) -> bool {
        self.writes.is_empty() && self.round.is_none()
    }

    /// And the twin has flushed as far as this side.
    pub(crate) fn is_passed(&self) -> bool {
        self.idle() && self.barriers == 0
    }

    /// The twin has written everything that was asked before this number, as far as the connection tells.
    pub(crate) fn has_passed(&self, number: u64) -> bool {
        let older = self.oldest().is_some_and(|oldest| oldest < number);
        !older && self.round.is_none() && self.barriers == 0 && self.lost == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.writes.len()
    }

    /// Number of the oldest.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.writes.keys().next().copied()
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        self.writes.values().map(|trailing| trailing.range)
    }

    /// When the oldest was asked.
    pub(crate) fn since(&self) -> Option<Time> {
        self.writes.values().next().map(|trailing| trailing.began)
    }

    /// Whether a write of so many bytes may be answered before the twin has it. One is let in however long it is.
    pub(crate) fn has_room(&self, length: u32, zeroes: bool, most: u64) -> bool {
        let behind = self.bytes + self.lost;
        let fits = behind == 0 || behind + u64::from(length) <= most;
        fits && self.writes.len() < JOURNAL_WRITES_MAX && (!zeroes || self.zeroes < JOURNAL_ZEROES_MAX)
    }

    pub(crate) fn add(&mut self, id: u64, trailing: Trailing) {
        self.bytes += u64::from(trailing.range.length);
        self.zeroes += usize::from(trailing.zeroes);
        self.writes.insert(id, trailing);
    }

    fn remove(&mut self, id: u64) -> Option<Trailing> {
        let trailing = self.writes.remove(&id)?;
        self.bytes -= u64::from(trailing.range.length);
        self.zeroes -= usize::from(trailing.zeroes);
        Some(trailing)
    }

    /// A frame of a write goes out.
    pub(crate) fn sent(&mut self) {
        self.open = true;
    }

    /// Flush requests under way.
    pub(crate) fn flushing(&self) -> usize {
        self.round.as_ref().map_or(0, |round| round.requests.len())
    }

    /// Every flush under way, to be answered with an error.
    pub(crate) fn take_flushes(&mut self) -> Vec<RequestId> {
        let requests = self.round.take().map(|round| round.requests).unwrap_or_default();
        requests.into_iter().map(|(request, _)| request).collect()
    }

    /// The twin counts no more, or has everything: nothing is owed to it.
    pub(crate) fn settled(&mut self) {
        (self.lost, self.lost_since) = (0, None);
        self.waiting.clear();
    }

    /// A dead process had answered nobody knows how much.
    pub(crate) fn unknown(&mut self, most: u64, now: Time) {
        (self.lost, self.lost_since) = (most, Some(now));
    }
}

impl Mirror {
    /// How far behind the twin of a set that counts it as in sync may be.
    pub(crate) fn behind(&self) -> Option<Behind> {
        let journal = &self.journal;
        let bytes = journal.bytes + journal.lost;
        let since = journal.since().into_iter().chain(journal.lost_since).min();
        let since = since.filter(|_| self.asynchronous() && self.serving() && self.needs_twin)?;
        Some(Behind { bytes, writes: journal.writes.len() as u64, since })
    }

    /// An asynchronous twin in sync is an earlier state of this copy, or it is to be put out before anything is copied to it:
    /// a rebuild copies in no order, and until its end the copy there would be no state at all.
    pub(crate) fn lags(&self) -> bool {
        let hello = self.link.as_ref().and_then(|link| link.hello.as_ref());
        let news = hello.is_some_and(|(hello, _)| hello.dirty > 0 || !hello.hot.is_empty());
        self.asynchronous() && (self.map.count() > 0 || news) && !self.config.faults.rebuild_async_in_sync
    }

    /// The range of a write that the twin may lack, that nobody has the payload of, and that counts as in sync.
    pub(crate) fn record_lost(&mut self, range: Range, since: Time) {
        let (first, count) = blocks(range.offset, u64::from(range.length));
        if !self.config.faults.forget_trailing {
            self.map.set(first, count);
        }
        if self.needs_twin {
            self.journal.lost += u64::from(range.length);
            self.journal.lost_since.get_or_insert(since);
        }
    }

    /// The connection is gone: the map remembers what was answered and may not have arrived.
    pub(crate) fn journal_lost(&mut self) {
        while let Some(id) = self.journal.oldest() {
            let Some(Trailing { range, began, .. }) = self.journal.remove(id) else { return };
            self.record_lost(range, began);
            self.log.unpin(range.offset, u64::from(range.length), false);
        }
        (self.journal.barriers, self.journal.open) = (0, true);
    }

    /// The twin has written what was answered before. `false`: it is no write of the journal.
    pub(crate) fn journal_written(&mut self, id: u64) -> bool {
        let Some(Trailing { range, .. }) = self.journal.remove(id) else { return false };
        self.log.unpin(range.offset, u64::from(range.length), true);
        // An orderly end waits for all of it, as long as it gets less.
        self.put_off_deactivation();
        self.moved = true;
        true
    }

    /// Answers writes for which there is room.
    pub(crate) fn advance_journal(&mut self) {
        while let Some(id) = self.journal.waiting.pop_first() {
            self.write_moved(id);
            if self.journal.waiting.contains(&id) {
                return;
            }
            self.moved = true;
        }
    }

    /// Flushes of an asynchronous set: the local disk, and a barrier for the twin.
    pub(crate) fn advance_local_round(&mut self) {
        let room = self.journal.barriers < JOURNAL_BARRIERS_MAX;
        if !room {
            for (_, since) in &mut self.flushes.asked {
                since.get_or_insert(self.now);
            }
        }
        if self.journal.round.is_some() || self.failed.is_some() || self.flushes.asked.is_empty() || !room {
            return;
        }
        self.send_barrier();
        let now = self.now;
        let requests = std::mem::take(&mut self.flushes.asked);
        let requests = requests.into_iter().map(|(request, since)| (request, since.unwrap_or(now))).collect();
        let op = self.begin(Op::LocalRound);
        self.journal.round = Some(LocalRound { op, requests });
        self.act(Action::FlushLocal { op });
        self.moved = true;
    }

    /// What is sent from now on is not to overtake what was sent before, on the twin's stable storage.
    pub(crate) fn send_barrier(&mut self) {
        if !self.joined() || self.config.faults.skip_barriers || !std::mem::take(&mut self.journal.open) {
            return;
        }
        let sequence = self.send(Body::Barrier, None);
        if let Some(link) = &mut self.link {
            link.awaited.insert(sequence, Awaited::Barrier);
            self.journal.barriers += 1;
        }
    }

    pub(crate) fn barrier_passed(&mut self) {
        self.journal.barriers = self.journal.barriers.saturating_sub(1);
        self.moved = true;
    }

    pub(crate) fn local_round_done(&mut self, op: OpId, fault: Option<LocalFault>) {
        let Some(round) = self.journal.round.take_if(|round| round.op == op) else { return };
        if let Some(fault) = fault {
            self.fail(format!("flushing the local disk failed: errno {}", fault.errno));
            // Held, as writes are, until the engine has moved the work or cannot.
            let again = round.requests.into_iter().map(|(request, since)| (request, Some(since)));
            self.flushes.asked.splice(0..0, again);
            return;
        }
        for (request, _) in round.requests {
            self.reply(request, 0);
        }
    }
}
