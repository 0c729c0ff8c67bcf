//! What a front end is to the loop: it takes requests off whoever uses the set, keeps their bytes, answers them.
//!
//! All front ends of a set share one number space; the core does not know them apart. FUSE with a loop device (`fuse`) is
//! the default, the NBD export (`nbd`) stands beside it or in its place; ublk fits the same trait.

use crate::fuse::Front;
use crate::limits::NBD_DRAIN;
use crate::pools::Pools;
use crate::ring::memory::Buffer;
use crate::turn::Loop;
use mirror::action::OpId;
use mirror::input::{Input, LocalFault, LocalResult, Range, RequestId};
use peer::block::ZERO_BYTES_MAX;
use std::sync::Arc;
use std::time::Instant;

/// Numbers the requests of all front ends.
#[derive(Debug)]
pub(crate) struct Numbers(pub u64);

impl Numbers {
    /// A fresh number.
    pub(crate) fn next(&mut self) -> RequestId {
        self.0 += 1;
        RequestId(self.0)
    }
}

/// What came for the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Write(RequestId, Range),
    Zero(RequestId, Range, Unmap),
    Read(RequestId, Range),
    Flush(RequestId),
}

/// Whether zeroed space may be given back.
type Unmap = bool;

impl Wanted {
    pub(crate) fn request(self) -> RequestId {
        match self {
            Wanted::Write(request, _) | Wanted::Zero(request, ..) => request,
            Wanted::Read(request, _) | Wanted::Flush(request) => request,
        }
    }
}

impl From<Wanted> for Input {
    fn from(wanted: Wanted) -> Input {
        match wanted {
            Wanted::Write(request, range) => Input::Write { request, range },
            Wanted::Zero(request, range, unmap) => Input::Zero { request, range, unmap },
            Wanted::Read(request, range) => Input::Read { request, range },
            Wanted::Flush(request) => Input::Flush { request },
        }
    }
}

/// What one look for a request gave.
pub(crate) enum Taken {
    /// Something for the core.
    Wanted(Wanted),
    /// Answered here.
    Served,
    /// Nothing waits.
    Empty,
    /// No slot is free: look again when one is.
    Stalled,
    /// The front end has ended: unmounted or aborted.
    Ended,
}

/// A long range of zeroes, handed to the core piece by piece, so that one discard of a whole disk does not take up all that
/// may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    pub offset: u64,
    pub length: u64,
    pub unmap: bool,
}

impl Rest {
    /// The next piece, and what is left then.
    pub(crate) fn piece(self) -> (Range, Option<Rest>) {
        let part = self.length.min(u64::from(ZERO_BYTES_MAX));
        let rest = Rest { offset: self.offset + part, length: self.length - part, ..self };
        (Range { offset: self.offset, length: part as u32 }, Some(rest).filter(|rest| rest.length > 0))
    }
}

/// A front end.
pub(crate) trait FrontEnd {
    /// Takes one request in. `slots`: the process's own, for a front end without slots of its own.
    fn take(&mut self, numbers: &mut Numbers, slots: &Pools) -> Taken;
    /// Whether a request is one of its own.
    fn owns(&self, request: RequestId) -> bool;
    /// A write's bytes.
    fn data(&self, request: RequestId) -> Option<Arc<Buffer>>;
    /// The buffer for a read.
    fn room(&mut self, request: RequestId) -> Option<Buffer>;
    /// That buffer, filled.
    fn filled(&mut self, request: RequestId, data: Arc<Buffer>);
    /// Answers a request, or gives what it still needs before.
    fn answer(&mut self, request: RequestId, errno: i32, numbers: &mut Numbers) -> Option<Wanted>;
}

impl FrontEnd for Front {
    fn take(&mut self, numbers: &mut Numbers, slots: &Pools) -> Taken {
        self.count_from(numbers.0);
        let taken = self.take_one(slots);
        numbers.0 = self.counted();
        taken
    }

    fn owns(&self, request: RequestId) -> bool {
        self.pending.contains_key(&request)
    }

    fn data(&self, request: RequestId) -> Option<Arc<Buffer>> {
        self.pending.get(&request)?.data.clone()
    }

    fn room(&mut self, request: RequestId) -> Option<Buffer> {
        self.pending.get_mut(&request)?.into.take()
    }

    fn filled(&mut self, request: RequestId, data: Arc<Buffer>) {
        if let Some(pending) = self.pending.get_mut(&request) {
            pending.data = Some(data);
        }
    }

    fn answer(&mut self, request: RequestId, errno: i32, numbers: &mut Numbers) -> Option<Wanted> {
        self.count_from(numbers.0);
        let next = self.answer_one(request, errno);
        numbers.0 = self.counted();
        next
    }
}

impl Loop {
    /// Whose request that is.
    pub(crate) fn owner(&mut self, request: RequestId) -> Option<&mut dyn FrontEnd> {
        if self.front.as_ref().is_some_and(|front| front.owns(request)) {
            return self.front.as_mut().map(|front| front as &mut dyn FrontEnd);
        }
        let nbd = self.parts.nbd.as_mut().filter(|nbd| nbd.owns(request));
        nbd.map(|nbd| nbd as &mut dyn FrontEnd)
    }

    /// Answers a request of any front end.
    pub(crate) fn reply(&mut self, request: RequestId, errno: i32) {
        let mut numbers = Numbers(self.numbers.0);
        let next = self.owner(request).and_then(|front| front.answer(request, errno, &mut numbers));
        self.numbers = numbers;
        self.inputs.extend(next.map(Input::from));
    }

    /// Opens every front end of the set: the export first, which fails at once or not at all.
    pub(crate) fn open_fronts(&mut self, op: OpId) {
        self.withdrawing = None;
        if let Some(nbd) = &mut self.parts.nbd
            && let Err(error) = nbd.open(&mut self.parts.ring)
        {
            tracing::warn!(%error, "the export cannot be offered: is its address or path taken?");
            nbd.close();
            let fault = LocalFault { errno: error.raw_os_error().unwrap_or(libc::EADDRINUSE) };
            self.inputs.push_back(Input::LocalDone { op, result: Err(fault) });
            return;
        }
        if self.with_device {
            self.parts.worker.open(op);
        } else {
            self.inputs.push_back(Input::LocalDone { op, result: Ok(LocalResult::Done) });
        }
    }

    /// Withdraws every front end: the device first, which may be in use; clients of the export are disconnected.
    pub(crate) fn close_fronts(&mut self, op: OpId, abort: bool) {
        if abort {
            self.end_export();
        }
        if self.with_device {
            self.parts.worker.close(op, abort);
        } else {
            self.device_closed(op);
        }
    }

    /// The device is withdrawn: so is the export, once what it has taken is answered, or has had its time.
    pub(crate) fn device_closed(&mut self, op: OpId) {
        match &mut self.parts.nbd {
            Some(nbd) => {
                nbd.drain();
                self.withdrawing = Some((op, Instant::now() + NBD_DRAIN));
            }
            None => self.inputs.push_back(Input::LocalDone { op, result: Ok(LocalResult::Done) }),
        }
    }

    /// Ends the export, if it is withdrawn and has come to rest.
    pub(crate) fn withdraw_export(&mut self) {
        let Some((op, end)) = self.withdrawing else { return };
        if self.parts.nbd.as_ref().is_none_or(crate::nbd::Nbd::idle) || Instant::now() >= end {
            self.end_export();
            self.feed(Input::LocalDone { op, result: Ok(LocalResult::Done) });
        }
    }

    /// Ends the export at once.
    pub(crate) fn end_export(&mut self) {
        self.withdrawing = None;
        if let Some(nbd) = &mut self.parts.nbd {
            nbd.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_range_comes_in_pieces_without_gap_or_overlap() {
        let whole = Rest { offset: 512, length: 5 << 30, unmap: true };
        let (mut at, mut rest, mut count) = (512, Some(whole), 0);
        while let Some(piece) = rest {
            let (range, left) = piece.piece();
            assert!(range.offset == at && range.length <= ZERO_BYTES_MAX && range.length > 0);
            at += u64::from(range.length);
            rest = left;
            count += 1;
        }
        assert_eq!((at, count), (512 + (5 << 30), 160));
    }
}
