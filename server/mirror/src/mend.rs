//! Reads that the local disk refuses: served from the twin's equal copy, then written back here (C5). So are blocks that a
//! verification found wrong here: nobody asks for those, and their claim is waited for.
//!
//! ```text
//! Claiming --> Asking --the twin's data, the request is answered--> Heating --its extents are hot--> Writing --> done
//! ```
//! The read's claim is kept until the end, so that no write comes between the twin's answer and the writing back.

use crate::action::{Action, Data, LinkFault, OpId};
use crate::input::{LocalFault, PayloadId, Range, RequestId};
use crate::log::{Heat, blocks};
use crate::mirror::{Mirror, Op};
use crate::pair::Awaited;
use crate::requests::EIO;
use peer::block::Body;
use wire::Time;

/// One such read; its number is that of its claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mend {
    /// Until it is answered.
    pub(crate) request: Option<RequestId>,
    range: Range,
    pub(crate) began: Time,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Writes to the range come to their end.
    Claiming,
    /// The twin is asked, or will be when the link is back.
    Asking { sent: bool },
    /// The store that makes the extents hot is on its way.
    Heating { payload: PayloadId, mark: u64 },
    /// Being written back.
    Writing { payload: PayloadId },
}

impl Mend {
    /// The payload it holds.
    pub(crate) fn payload(&self) -> Option<PayloadId> {
        match self.stage {
            Stage::Claiming | Stage::Asking { .. } => None,
            Stage::Heating { payload, .. } | Stage::Writing { payload } => Some(payload),
        }
    }
}

impl Mirror {
    /// The local disk refused a read whose claim is held: true if the twin is asked instead.
    pub(crate) fn mend(&mut self, id: u64, request: RequestId, range: Range) -> bool {
        if !self.twin_has_equal(range) {
            return false;
        }
        let stage = Stage::Asking { sent: false };
        let mend = Mend { request: Some(request), range, began: self.now, stage };
        self.requests.mends.insert(id, mend);
        self.moved = true;
        true
    }

    /// What this side has in a range is wrong, and the twin's is right.
    pub(crate) fn mend_range(&mut self, range: Range) {
        let id = self.fresh();
        let mend = Mend { request: None, range, began: self.now, stage: Stage::Claiming };
        self.requests.mends.insert(id, mend);
        if self.ranges.claim(id, range.offset, u64::from(range.length), true) {
            self.mend_granted(id);
        }
    }

    pub(crate) fn mend_granted(&mut self, id: u64) {
        self.mend_stage(id, Stage::Asking { sent: false });
    }

    /// Whether the twin's copy of a range is equal, and will say so as soon as the link allows.
    fn twin_has_equal(&self, range: Range) -> bool {
        let (first, count) = blocks(range.offset, u64::from(range.length));
        if self.through {
            return self.serving();
        }
        let paired = self.needs_twin || self.joined();
        self.serving() && paired && (first..first + count).all(|block| !self.map.is_set(block))
    }

    pub(crate) fn advance_mends(&mut self) {
        if self.requests.mends.is_empty() {
            return;
        }
        let all: Vec<(u64, Mend)> = self.requests.mends.iter().map(|(id, mend)| (*id, *mend)).collect();
        for (id, mend) in all {
            match mend.stage {
                Stage::Asking { sent: false }
                    if mend.request.is_none() && !self.twin_has_equal(mend.range) =>
                {
                    // Found again by the next verification.
                    self.end_mend(id);
                }
                Stage::Asking { sent: false } if !self.twin_has_equal(mend.range) => {
                    self.fail("a read from the local disk failed, and the twin is not there to ask".into());
                    self.end_mend(id);
                }
                Stage::Asking { sent: false } if self.joined() => self.ask_twin(id, mend.range),
                Stage::Heating { payload, mark } if self.store.reached(mark) => {
                    self.write_back(id, mend.range, payload);
                }
                Stage::Claiming | Stage::Asking { .. } | Stage::Heating { .. } | Stage::Writing { .. } => {}
            }
        }
    }

    fn ask_twin(&mut self, id: u64, range: Range) {
        let sequence = self.send(Body::Read { offset: range.offset, length: range.length }, None);
        if let Some(link) = &mut self.link {
            link.awaited.insert(sequence, Awaited::Read(id));
        }
        self.mend_stage(id, Stage::Asking { sent: true });
    }

    fn mend_stage(&mut self, id: u64, stage: Stage) {
        if let Some(mend) = self.requests.mends.get_mut(&id) {
            mend.stage = stage;
            self.moved = true;
        }
    }

    /// The twin's answer: the request has what it wants; the block is made good.
    pub(crate) fn read_data(&mut self, of: u64, length: u32, payload: Option<PayloadId>) {
        let awaited = self.link.as_mut().and_then(|link| link.awaited.remove(&of));
        let (Some(Awaited::Read(id)), Some(payload)) = (awaited, payload) else {
            self.drop_payload(payload);
            self.close_link(LinkFault::Protocol);
            return;
        };
        let Some(mend) = self.requests.mends.get_mut(&id) else {
            self.drop_payload(Some(payload));
            return;
        };
        let range = mend.range;
        if range.length != length {
            self.drop_payload(Some(payload));
            self.close_link(LinkFault::Protocol);
            return;
        }
        if let Some(request) = mend.request.take() {
            self.act(Action::Fill { request, payload });
            self.reply(request, 0);
        }
        let (offset, bytes) = (range.offset, u64::from(range.length));
        let hot = self.log.is_hot(offset, bytes);
        let sound = self.failed.is_none() && !self.through;
        let forgotten = if sound { self.sums_forget(range) } else { 0 };
        match self.log.pin_if(sound, offset, bytes, self.store.next_mark(), self.now) {
            // A disk that failed is not written to; without room in the log the next read tries again.
            Heat::Full => {
                self.drop_payload(Some(payload));
                self.end_mend(id);
            }
            Heat::After(mark) => {
                if !hot {
                    self.store.log();
                }
                self.mend_stage(id, Stage::Heating { payload, mark: mark.max(forgotten) });
            }
        }
    }

    fn write_back(&mut self, id: u64, range: Range, payload: PayloadId) {
        let op = OpId(id);
        self.ops.insert(op, Op::Mend);
        self.mend_stage(id, Stage::Writing { payload });
        self.act(Action::WriteLocal { op, range, data: Data::Payload(payload) });
    }

    pub(crate) fn mend_done(&mut self, id: u64, fault: Option<LocalFault>) {
        let Some(mend) = self.requests.mends.get(&id) else { return };
        let range = mend.range;
        let (first, count) = blocks(range.offset, u64::from(range.length));
        self.drop_payload(mend.payload());
        // Like a write that both have: not durable here before a flush of both, or known to differ without the twin.
        let unstable = self.needs_twin || self.joined();
        if !unstable || fault.is_some() {
            self.map.set(first, count);
        }
        if !self.through {
            self.log.unpin(range.offset, u64::from(range.length), unstable);
        }
        match fault {
            Some(fault) => self.fail(format!(
                "a block that could not be read could not be written either: errno {}",
                fault.errno
            )),
            None => self.mended_blocks += count,
        }
        self.end_mend(id);
    }

    /// Nothing more is written back to the own disk.
    pub(crate) fn end_heating_mends(&mut self) {
        let heating =
            self.requests.mends.iter().filter(|(_, mend)| matches!(mend.stage, Stage::Heating { .. }));
        let heating: Vec<(u64, Option<PayloadId>)> =
            heating.map(|(id, mend)| (*id, mend.payload())).collect();
        for (id, payload) in heating {
            self.drop_payload(payload);
            self.end_mend(id);
        }
    }

    fn end_mend(&mut self, id: u64) {
        if let Some(mend) = self.requests.mends.remove(&id)
            && let Some(request) = mend.request
        {
            self.reply(request, EIO);
        }
        self.release_claim(id);
    }

    /// The connection is gone: what it did not answer is asked again over the next one.
    pub(crate) fn forget_asked(&mut self) {
        for mend in self.requests.mends.values_mut() {
            if let Stage::Asking { sent } = &mut mend.stage {
                *sent = false;
            }
        }
    }
}
