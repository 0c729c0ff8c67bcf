//! The application: writes, reads and flushes with overlaps, and what it was promised.

use super::disk::{BLOCK_CELLS, SIZE, WINDOWS, cells};
use super::{Event, Values, World};
use crate::oracle::{WriteNumber, token};
use mirror::Input;
use mirror::input::{Range, RequestId};
use peer::block::{HOT_MAX, SECTOR_BYTES};
use std::rc::Rc;

/// Requests in flight at a side: enough for chains of overlaps, few enough to be followed.
const IN_FLIGHT: usize = 10;
/// Writes of a side that has no right to serve: no reader may ever see one.
pub(super) const ALIEN: u64 = 1 << 40;

/// A request of the front end.
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) values: Values,
}

/// What it asks and what must hold at its answer.
pub(super) enum Kind {
    Write(WriteNumber),
    Read { first: usize, begun: u64 },
    Flush { begun: u64 },
}

impl World {
    pub(super) fn client(&mut self) {
        let most = self.options.requests.unwrap_or(u64::MAX).min(self.plan.requests);
        if self.calm_since.is_some() || self.requests >= most {
            return;
        }
        let delay = self.plan.pace(&mut self.rng);
        self.queue.after(delay, Event::Client);
        let serves = |side: &usize| {
            let process = self.sides[*side].process.as_ref();
            process.is_some_and(|process| process.front && process.requests.len() < IN_FLIGHT)
        };
        let sides: Vec<usize> = (0..2).filter(serves).collect();
        if sides.is_empty() {
            return;
        }
        let side = self.rng.pick(&sides);
        if self.plan.commits && self.rng.percent(95) {
            return self.commit(side);
        }
        match self.rng.below(20) {
            0..=2 => self.flush(side),
            3..=5 => {
                let range = self.range();
                self.read(side, range);
            }
            6 if self.register.holder == Some(side) => self.zero(side),
            _ => self.write(side),
        }
    }

    /// The next step of a commit, if the one before is answered.
    fn commit(&mut self, side: usize) {
        let Some(process) = self.sides[side].process.as_mut().filter(|process| process.requests.is_empty())
        else {
            return;
        };
        process.written = !process.written;
        if process.written {
            self.write(side);
        } else {
            self.flush(side);
        }
    }

    /// A run of sectors within one window, often whole blocks, often the same ones.
    fn range(&mut self) -> Range {
        let windows = self.plan.windows;
        let (first, count) = WINDOWS[self.rng.below(windows) as usize];
        let (first, count) = (first * BLOCK_CELLS as u64, count * BLOCK_CELLS as u64);
        let (at, length) = if self.rng.percent(50) {
            let block = BLOCK_CELLS as u64;
            let at = self.rng.below(count / block);
            (at * block, (1 + self.rng.below(count / block - at)) * block)
        } else {
            let at = self.rng.below(count);
            (at, 1 + self.rng.below(count - at))
        };
        Range { offset: (first + at) * SECTOR_BYTES, length: (length * SECTOR_BYTES) as u32 }
    }

    fn write(&mut self, side: usize) {
        let range = self.range();
        let (from, to) = cells(range);
        let number = if self.register.holder == Some(side) {
            self.oracle.write_begun(from as u64, (to - from) as u64, false)
        } else {
            WriteNumber(ALIEN + self.requests)
        };
        self.note_begun(number, (from, to), false);
        let values: Values = (from..to).map(|cell| token(number, cell as u64)).collect();
        let request = self.ask(side, Request { kind: Kind::Write(number), values });
        self.input(side, Input::Write { request, range });
    }

    /// Zeroes, now and then over much more than any other request.
    fn zero(&mut self, side: usize) {
        let mut range = self.range();
        if self.plan.hot_max == HOT_MAX && self.rng.percent(40) {
            let sectors = SIZE / SECTOR_BYTES;
            let at = self.rng.below(sectors);
            let length = 1 + self.rng.below(sectors - at);
            range = Range { offset: at * SECTOR_BYTES, length: (length * SECTOR_BYTES) as u32 };
        }
        let (from, to) = cells(range);
        let number = self.oracle.write_begun(from as u64, (to - from) as u64, true);
        self.note_begun(number, (from, to), true);
        let unmap = self.rng.percent(50);
        let request = self.ask(side, Request { kind: Kind::Write(number), values: Rc::from([]) });
        self.input(side, Input::Zero { request, range, unmap });
    }

    pub(super) fn read(&mut self, side: usize, range: Range) {
        let begun = self.oracle.begun();
        let kind = Kind::Read { first: cells(range).0, begun };
        let request = self.ask(side, Request { kind, values: Rc::from([]) });
        self.input(side, Input::Read { request, range });
    }

    pub(super) fn flush(&mut self, side: usize) {
        let begun = self.oracle.begun();
        let request = self.ask(side, Request { kind: Kind::Flush { begun }, values: Rc::from([]) });
        self.input(side, Input::Flush { request });
    }

    fn note_begun(&mut self, number: WriteNumber, cells: (usize, usize), zeroes: bool) {
        if self.may_lag() && number.0 < ALIEN {
            let tick = self.oracle.begun();
            self.prefix.begun(number, cells, zeroes, tick);
        }
    }

    fn ask(&mut self, side: usize, request: Request) -> RequestId {
        self.requests += 1;
        let number = RequestId(self.fresh());
        if let Some(process) = &mut self.sides[side].process {
            process.requests.insert(number, request);
        }
        number
    }

    /// A request is answered.
    pub(super) fn replied(&mut self, side: usize, number: RequestId, errno: i32) {
        let Some(process) = &mut self.sides[side].process else { return };
        let Some(request) = process.requests.remove(&number) else {
            self.fail(format!("side {}: {number:?} is answered twice", side + 1));
            return;
        };
        if errno != 0 {
            if !process.has_failed()
                && !matches!(
                    process.mirror.role(),
                    peer::control::Role::Fenced | peer::control::Role::Standby
                )
            {
                self.fail(format!("side {}: {number:?} fails with errno {errno} without a cause", side + 1));
            }
            return;
        }
        if self.register.holder != Some(side) {
            self.fail(format!("invariant 1: side {} answers {number:?} and does not hold", side + 1));
            return;
        }
        self.check_first_answer(side);
        // A copy that is to be made equal yet is no second one: it may lack what the first had before.
        let whole = u8::from(self.sides[0].whole) | u8::from(self.sides[1].whole) << 1;
        let asynchronous = self.asynchronous();
        let in_sync = if asynchronous { 1 << side } else { self.register.copies() & whole };
        if self.may_lag() {
            let tick = self.oracle.begun();
            match request.kind {
                Kind::Write(number) => self.prefix.answered(number, tick),
                Kind::Flush { begun } => self.prefix.flushed(begun, tick),
                Kind::Read { .. } => {}
            }
        }
        let wrong = match request.kind {
            Kind::Write(number) if number.0 >= ALIEN => Some("a write begun without the right".into()),
            Kind::Write(number) => {
                self.oracle.write_acknowledged(number, in_sync);
                None
            }
            Kind::Flush { begun } => {
                self.oracle.flushed(begun);
                None
            }
            Kind::Read { first, begun } => {
                let shown = self.oracle.check_read(first as u64, &request.values, begun);
                self.oracle.read(first as u64, &request.values, in_sync);
                shown.err().map(|wrong| format!("{wrong:?}"))
            }
        };
        if let Some(wrong) = wrong {
            self.fail(format!("invariant 3: side {} answers {number:?}: {wrong}", side + 1));
        }
    }
}
