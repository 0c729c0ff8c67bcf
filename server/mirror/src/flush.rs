//! Flush rounds: one at a time, for everything that asked before it began.
//!
//! A round flushes the local disk and, while every write goes to both, the twin's. Requests that come meanwhile share the
//! next round. When a joint round has succeeded, what was unstable at its beginning is stable, and the bits of blocks
//! copied before its beginning are cleared.
//!
//! A request joins the round in progress if that began when every write answered by now was answered: so does one that was
//! anticipated (see [`Habit`]), and one that comes when such a round has just succeeded is answered at once.

use crate::action::Action;
use crate::habit::Habit;
use crate::input::{LocalFault, RequestId};
use crate::mirror::{Mirror, Op};
use crate::pair::{Awaited, Pair};
use crate::requests::EIO;
use peer::block::Body;
use wire::Time;
use wire::traffic::WriteMode;

/// A round in progress.
#[derive(Debug)]
struct Round {
    number: u64,
    /// Both disks.
    joint: bool,
    /// errno of the local disk, 0 if good.
    local: Option<i32>,
    twin: bool,
    /// Writes answered at its beginning: it makes these durable.
    covers: u64,
    requests: Vec<(RequestId, Time)>,
}

/// Flushes that wait or run.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    pub(crate) asked: Vec<(RequestId, Option<Time>)>,
    /// A round is wanted for the sake of the log or the rebuild.
    pub(crate) wanted: bool,
    round: Option<Round>,
    /// Number of the round begun last.
    begun: u64,
    /// Highest number of a joint round that succeeded.
    pub(crate) joint_done: u64,
    /// Highest number of any round that succeeded.
    pub(crate) done: u64,
    /// When flushes come.
    pub(crate) habit: Habit,
    /// A round is begun before anybody asks.
    early: bool,
    /// The last round succeeded on both disks (or not), and made so many answered writes durable.
    durable: Option<(bool, u64)>,
}

impl Flushes {
    /// A write is answered.
    pub(crate) fn write_answered(&mut self) {
        self.habit.write_answered();
        self.early = self.habit.flush_is_next();
    }

    /// Requests that wait or run.
    pub(crate) fn waiting(&self) -> usize {
        self.asked.len() + self.round.as_ref().map_or(0, |round| round.requests.len())
    }

    pub(crate) fn idle(&self) -> bool {
        self.asked.is_empty() && self.round.is_none()
    }

    /// Asks for a round that begins after now; gives its number.
    pub(crate) fn want_next(&mut self) -> u64 {
        self.wanted = true;
        self.begun + 1
    }

    /// The oldest request in a round whose local part is done, or that waits for the twin to return.
    pub(crate) fn waiting_since(&self) -> Option<Time> {
        let round = self.round.as_ref().filter(|round| round.local.is_some() && !round.twin);
        let running = round.and_then(|round| round.requests.first().map(|(_, since)| *since));
        let blocked = self.asked.first().and_then(|(_, since)| *since);
        running.into_iter().chain(blocked).min()
    }

    /// Every request, to be answered with an error.
    pub(crate) fn take_all(&mut self) -> Vec<RequestId> {
        let running = self.round.take().map(|round| round.requests).unwrap_or_default();
        let running = running.into_iter().map(|(request, _)| request);
        (self.wanted, self.early, self.durable) = (false, false, None);
        running.chain(std::mem::take(&mut self.asked).into_iter().map(|(request, _)| request)).collect()
    }

    /// What earlier rounds made durable counts no more.
    pub(crate) fn count_anew(&mut self) {
        (self.early, self.durable) = (false, None);
    }

    /// The twin is gone: a joint round is broken off and its requests share the next one.
    pub(crate) fn twin_lost(&mut self) {
        (self.wanted, self.early, self.durable) = (false, false, None);
        if self.round.as_ref().is_some_and(|round| round.joint)
            && let Some(round) = self.round.take()
        {
            let again = round.requests.into_iter().map(|(request, since)| (request, Some(since)));
            self.asked.splice(0..0, again);
        }
    }
}

impl Mirror {
    /// A flush is asked for: it joins a round that covers it, or waits for the next.
    pub(crate) fn flush_wanted(&mut self, request: RequestId) {
        if self.answers_by() == WriteMode::Asynchronous {
            // The own disk's alone: `journal`.
            self.flushes.asked.push((request, None));
            return;
        }
        self.flushes.habit.flush_asked();
        self.flushes.early = false;
        let joint = self.pair == Pair::Joined;
        let answered = self.flushes.habit.answered();
        let covered = |at: bool, covers: u64| {
            at == joint && (covers == answered || self.config.faults.flush_covered_by_any)
        };
        let sure = self.failed.is_none() && !self.flush_is_blocked();
        match &mut self.flushes.round {
            Some(round) if sure && covered(round.joint, round.covers) => {
                round.requests.push((request, self.now));
            }
            None if sure && self.flushes.durable.is_some_and(|(at, covers)| covered(at, covers)) => {
                self.reply(request, 0);
            }
            Some(_) | None => self.flushes.asked.push((request, None)),
        }
    }

    /// In sync, a flush says that both disks have everything: it waits until the twin is there and lacks nothing.
    fn flush_is_blocked(&self) -> bool {
        let lacks = self.map.count() > 0 && !self.through;
        self.needs_twin && (self.pair != Pair::Joined || lacks)
    }

    pub(crate) fn advance_flushes(&mut self) {
        let asynchronous = self.answers_by() == WriteMode::Asynchronous;
        if asynchronous {
            self.advance_local_round();
        }
        if self.flushes.round.is_some() {
            return;
        }
        if self.failed.is_some() && !self.through && !self.flushes.asked.is_empty() {
            self.fail_held_flushes();
        }
        let joint = self.pair == Pair::Joined;
        let blocked = self.flush_is_blocked();
        if blocked && !asynchronous {
            for (_, since) in &mut self.flushes.asked {
                since.get_or_insert(self.now);
            }
        }
        let sound = self.failed.is_none() || self.through;
        let serves = !asynchronous && !blocked && sound && !self.flushes.asked.is_empty();
        let own = self.flushes.wanted && (joint || !self.needs_twin);
        let early = std::mem::take(&mut self.flushes.early);
        let early =
            early && !asynchronous && !blocked && self.failed.is_none() && self.requests.writes.is_empty();
        if serves || own || early {
            self.begin_round(joint, serves);
        }
    }

    fn begin_round(&mut self, joint: bool, serves: bool) {
        let now = self.now;
        let requests = if serves { std::mem::take(&mut self.flushes.asked) } else { Vec::new() };
        let requests = requests.into_iter().map(|(request, since)| (request, since.unwrap_or(now))).collect();
        self.flushes.wanted = false;
        self.flushes.begun += 1;
        self.flushes.durable = None;
        let covers = self.flushes.habit.answered();
        let number = self.flushes.begun;
        let local_only = !joint || self.config.faults.flush_local_only;
        let local = self.through.then_some(0);
        self.flushes.round = Some(Round { number, joint, local, twin: local_only, covers, requests });
        if joint {
            self.log.round_begins();
            if let Some(rebuild) = &mut self.rebuild {
                rebuild.round_begins();
            }
        }
        if !local_only {
            let sequence = self.send(Body::Flush, None);
            if let Some(link) = &mut self.link {
                link.awaited.insert(sequence, Awaited::Flush(number));
            }
        }
        if !self.through {
            let op = self.begin(Op::Round(number));
            self.act(Action::FlushLocal { op });
        }
        self.moved = true;
    }

    pub(crate) fn round_local_done(&mut self, number: u64, fault: Option<LocalFault>) {
        if let Some(round) = self.flushes.round.as_mut().filter(|round| round.number == number) {
            round.local = Some(fault.map_or(0, |_| EIO));
        }
        if let Some(fault) = fault {
            self.fail(format!("flushing the local disk failed: errno {}", fault.errno));
        }
        self.round_moved();
    }

    pub(crate) fn round_twin_done(&mut self, number: u64) {
        if let Some(round) = self.flushes.round.as_mut().filter(|round| round.number == number) {
            round.twin = true;
        }
        self.round_moved();
    }

    fn round_moved(&mut self) {
        let Some(round) = self.flushes.round.take_if(|round| round.twin && round.local.is_some()) else {
            return;
        };
        self.moved = true;
        let errno = round.local.unwrap_or(EIO);
        if errno == 0 {
            self.flushes.done = round.number;
            self.flushes.durable = Some((round.joint, round.covers));
            if round.joint {
                self.flushes.joint_done = round.number;
                self.log.round_succeeded();
                self.clear_copied();
            }
        }
        if errno != 0 {
            // Held, as writes are, until the engine has moved the work or cannot.
            let again = round.requests.into_iter().map(|(request, since)| (request, Some(since)));
            self.flushes.asked.splice(0..0, again);
            return;
        }
        for (request, _) in round.requests {
            self.reply(request, errno);
        }
    }
}
