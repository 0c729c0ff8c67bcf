//! A local disk that does not answer, or answers with errors, while the twin's copy is as good: nothing is failed at once,
//! for the engine moves the work there (DESIGN 5, C5, C18).

use crate::action::OpId;
use crate::mirror::{Mirror, Op};
use crate::requests::EIO;
use peer::control::Role;
use wire::Time;

/// Requests that the failed disk owes are held so long: the engine has moved the group by then if it can.
pub(crate) const HELD_US: u64 = 10 * wire::ids::SECOND;
/// Looks within one limit: a process that stood still counts only one of them, so that a late look blames no disk.
const LOOKS: u64 = 6;

/// The operation on the local disk that has waited longest.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    oldest: Option<OpId>,
    waited_us: u64,
    looked: Time,
}

impl Mirror {
    /// Looks how long the oldest operation has been waiting.
    pub(crate) fn advance_watch(&mut self) {
        let disk = |op: &Op| !matches!(op, Op::FrontOpen | Op::FrontClose);
        let oldest = self.ops.iter().find(|(_, op)| disk(op)).map(|(id, _)| *id);
        let slice = self.slice();
        let watch = &mut self.watch;
        if oldest.is_none() || oldest != watch.oldest {
            *watch = Watch { oldest, waited_us: 0, looked: self.now };
            return;
        }
        watch.waited_us += self.now.since(watch.looked).min(slice);
        watch.looked = self.now;
        // Alone there is nobody else to serve: a slow answer is better than none.
        let replaceable = self.role == Role::Standby || self.serving() && self.needs_twin;
        if self.watch.waited_us >= self.config.timing.io_limit_us && replaceable && self.failed.is_none() {
            let seconds = self.config.timing.io_limit_us / wire::ids::SECOND;
            self.fail(format!("the local disk has not answered for {seconds} s"));
        }
    }

    fn slice(&self) -> u64 {
        self.config.timing.io_limit_us / LOOKS
    }

    /// An operation has been waiting for a good part of the limit.
    pub(crate) fn own_disk_hangs(&self) -> bool {
        self.watch.waited_us >= self.slice()
    }

    /// The local disk is slow to answer: a wait for both disks is not the twin's fault.
    pub(crate) fn own_disk_lags(&self) -> bool {
        !self.through && (self.failed.is_some() || self.own_disk_hangs())
    }

    /// Ends the hold of requests that the failed disk owes, when it has lasted too long or nobody else can serve them.
    pub(crate) fn advance_held(&mut self) {
        if self.failed.is_none() {
            return;
        }
        let due: Vec<u64> = self
            .requests
            .writes
            .iter()
            .filter(|(_, writing)| writing.owed() && self.hold_ended(writing.began))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.write_moved(id);
        }
    }

    /// Whether a request that came then is answered with the local disk's error.
    pub(crate) fn hold_ended(&self, began: Time) -> bool {
        !self.needs_twin || self.now.since(began) >= HELD_US
    }

    /// Gives an error to flushes that the failed disk owes.
    pub(crate) fn fail_held_flushes(&mut self) {
        let now = self.now;
        for (request, since) in std::mem::take(&mut self.flushes.asked) {
            let since = since.unwrap_or(now);
            if self.hold_ended(since) {
                self.reply(request, EIO);
                self.moved = true;
            } else {
                self.flushes.asked.push((request, Some(since)));
            }
        }
    }

    /// When the next look or the end of a hold is due.
    pub(crate) fn watch_deadline(&self) -> Option<Time> {
        if self.role == Role::Fenced {
            return None;
        }
        if self.failed.is_none() {
            return self.watch.oldest.map(|_| self.watch.looked.plus(self.slice()));
        }
        let writes = self.requests.writes.values().filter(|writing| writing.owed());
        let writes = writes.map(|writing| writing.began);
        let flushes = self.flushes.asked.iter().filter_map(|(_, since)| *since);
        writes.chain(flushes).min().map(|since| since.plus(HELD_US))
    }
}
