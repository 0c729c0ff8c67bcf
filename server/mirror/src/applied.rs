//! The standby's part: it applies what the active side sends, in order where ranges overlap, and answers.

use crate::action::{Action, Data, LinkFault, OpId};
use crate::config::APPLIED_MAX;
use crate::input::{LocalFault, LocalResult, PayloadId, Range};
use crate::link::Phase;
use crate::log::blocks;
use crate::mirror::{Mirror, Op};
use crate::sum_page::{Sum, hash_of, sum_of};
use crate::sums::Look;
use crate::table::Told;
use peer::block::{BLOCK_BYTES, Body, HASH_BYTES, KeepOld, Odd, PAYLOAD_BYTES_MAX};
use peer::control::{HISTORY_MAX, Role};
use wire::Generation;
use wire::traffic::WriteMode;

/// Work of the active side in progress.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The frame it answers and the connection it came by.
    of: u64,
    connection: u64,
    range: Range,
    work: Work,
    started: bool,
    /// The sums of its blocks were taken back once.
    prepared: bool,
    /// What the twin told of the blocks that it sends: theirs when they are here.
    promised: Vec<(u64, Sum)>,
    /// A write, which may be answered already: it is done even when the connection goes.
    owed: bool,
    /// A flush says that it is on stable storage: the set answers before the twin has written.
    early: bool,
}

#[derive(Debug)]
enum Work {
    Write(PayloadId),
    Copy(PayloadId),
    Zero {
        unmap: bool,
    },
    /// `told`: the hashes are what the sender's table says, not of what it is about to send. `read`: this side's table does not
    /// count.
    Check {
        hashes: Vec<[u8; HASH_BYTES]>,
        told: bool,
        read: bool,
    },
    /// These are the sender's hashes: which blocks are others here, read from the disk.
    Verify(Vec<[u8; HASH_BYTES]>),
    /// For a side whose own disk cannot.
    Read,
}

impl Applied {
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// It leaves something on the disk.
    pub(crate) fn changes(&self) -> bool {
        !matches!(self.work, Work::Check { .. } | Work::Verify(_) | Work::Read)
    }
}

/// A flush for the twin that waits for early writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlushWaits {
    of: u64,
    connection: u64,
    /// Work with a lower number came before it.
    before: u64,
}

/// An answer that must not be sent before a store is done.
#[derive(Debug)]
pub(crate) struct Promise {
    mark: u64,
    what: Promised,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promised {
    /// Marked inconsistent: map and log may be forgotten.
    Marked,
    /// They are.
    Ready,
    /// The rebuild's end is stored.
    Built,
}

impl Mirror {
    /// A write, copy or check came.
    pub(crate) fn work_received(&mut self, of: u64, body: Body, payload: Option<PayloadId>) {
        let takes = self.role == Role::Standby && self.link.as_ref().is_some_and(|link| link.takes);
        let work = match (body, payload) {
            (Body::Write { offset, length }, Some(payload)) => Some((offset, length, Work::Write(payload))),
            (Body::Copy { offset, length }, Some(payload)) => Some((offset, length, Work::Copy(payload))),
            (Body::Zero { offset, length, unmap }, None) => Some((offset, length, Work::Zero { unmap })),
            (Body::Check { offset, hashes, told, read }, None) => {
                let length = u32::try_from(hashes.len() as u64 * BLOCK_BYTES).unwrap_or(PAYLOAD_BYTES_MAX);
                Some((offset, length, Work::Check { hashes, told, read }))
            }
            (Body::Verify { offset, hashes }, None) => {
                let length = u32::try_from(hashes.len() as u64 * BLOCK_BYTES).unwrap_or(PAYLOAD_BYTES_MAX);
                Some((offset, length, Work::Verify(hashes)))
            }
            (Body::Read { offset, length }, None) => Some((offset, length, Work::Read)),
            _ => None,
        };
        let inside = |offset: u64, length: u32| offset.saturating_add(u64::from(length)) <= self.sb.size;
        let work = work.filter(|(offset, length, _)| takes && inside(*offset, *length));
        let Some((offset, length, work)) = work.filter(|_| self.applied.len() < APPLIED_MAX) else {
            self.drop_payload(payload);
            self.close_link(LinkFault::Protocol);
            return;
        };
        let connection = self.link.as_ref().map_or(0, |link| link.number);
        let owed = matches!(work, Work::Write(_) | Work::Zero { .. });
        let mode = self.mode.wanted;
        let early = owed && mode != WriteMode::Synchronous;
        if owed && mode == WriteMode::SemiSynchronous {
            self.send(Body::Got { of }, None);
        }
        let exclusive = !matches!(work, Work::Check { .. } | Work::Verify(_) | Work::Read);
        let id = self.fresh();
        let range = Range { offset, length };
        let (started, prepared, promised) = (false, false, Vec::new());
        let applied = Applied { of, connection, range, work, started, prepared, promised, owed, early };
        self.applied.insert(id, applied);
        let ordered = !self.config.faults.apply_without_order;
        if !ordered || self.ranges.claim(id, offset, u64::from(length), exclusive) {
            self.apply(id);
        }
    }

    /// The claim is granted: what changes blocks waits until their sums are taken back.
    pub(crate) fn apply(&mut self, id: u64) {
        let Some(applied) = self.applied.get(&id) else { return };
        if matches!(applied.work, Work::Check { .. } | Work::Verify(_) | Work::Read) {
            return self.apply_now(id);
        }
        let ordered = matches!(applied.work, Work::Write(_) | Work::Zero { .. });
        if ordered && !self.config.faults.pass_barriers && self.barriers.holds(id) {
            return;
        }
        let (range, copy) = (applied.range, !matches!(applied.work, Work::Write(_)));
        let is_copy = matches!(applied.work, Work::Copy(_));
        if !applied.prepared {
            // While the old content is being kept, the sums are taken back.
            let (first, count) = blocks(range.offset, u64::from(range.length));
            let promised = if copy { self.sums.take_promised(first, count) } else { Vec::new() };
            self.sums_forget(range);
            if let Some(applied) = self.applied.get_mut(&id) {
                (applied.prepared, applied.promised) = (true, promised);
            }
        }
        if !self.may_overwrite(id, range, is_copy) {
            return;
        }
        let mark = self.sums_forget(range);
        if self.store.reached(mark) {
            self.apply_now(id);
        } else {
            self.sum_waits.push((mark, id));
        }
    }

    /// Asks the disk for it.
    pub(crate) fn apply_now(&mut self, id: u64) {
        let Some(applied) = self.applied.get(&id) else { return };
        let range = applied.range;
        if matches!(applied.work, Work::Check { read: false, .. }) {
            match self.sums_tell(range.offset / BLOCK_BYTES, u64::from(range.length) / BLOCK_BYTES) {
                Told::All(hashes) => return self.check_done(id, Ok(LocalResult::Hashes(hashes))),
                Told::Later => return self.sum_checks.push(id),
                Told::Not => {}
            }
        }
        let verify = matches!(self.applied.get(&id).map(|it| &it.work), Some(Work::Verify(_)));
        let (first, count) = (range.offset / BLOCK_BYTES, u64::from(range.length) / BLOCK_BYTES);
        if verify && !self.sums_ready(first, count) {
            return self.sum_checks.push(id);
        }
        let Some(applied) = self.applied.get_mut(&id) else { return };
        applied.started = true;
        let op = OpId(id);
        let (kind, action) = match applied.work {
            Work::Write(payload) | Work::Copy(payload) => {
                (Op::Apply, Action::WriteLocal { op, range, data: Data::Payload(payload) })
            }
            Work::Zero { unmap } => (Op::Apply, Action::ZeroLocal { op, range, unmap }),
            Work::Check { .. } | Work::Verify(_) => (Op::Check, Action::HashLocal { op, range, keep: false }),
            Work::Read => (Op::TwinRead, Action::ReadLocal { op, range, into: Data::Buffer(op) }),
        };
        self.ops.insert(op, kind);
        self.act(action);
    }

    pub(crate) fn applied_done(&mut self, id: u64, fault: Option<LocalFault>) {
        let Some(applied) = self.applied.remove(&id) else { return };
        if fault.is_none() {
            for (block, sum) in applied.promised {
                self.sum_learn(block, sum);
            }
        }
        self.release_claim(id);
        self.advance_flush_waits();
        self.advance_barriers();
        let of = applied.of;
        let body = match applied.work {
            Work::Write(payload) => {
                self.drop_payload(Some(payload));
                Body::Written { of }
            }
            Work::Copy(payload) => {
                self.drop_payload(Some(payload));
                Body::Copied { of }
            }
            Work::Zero { .. } => Body::Written { of },
            Work::Check { .. } | Work::Verify(_) | Work::Read => return,
        };
        self.answer_twin(applied.connection, of, body, fault);
    }

    /// What the twin could not read is here.
    pub(crate) fn twin_read_done(&mut self, id: u64, fault: Option<LocalFault>) {
        let data = Data::Buffer(OpId(id));
        if let Some(Applied { of, connection, range, .. }) = self.applied.remove(&id) {
            self.release_claim(id);
            let there = self.link.as_ref().is_some_and(|link| link.number == connection);
            let body = Body::ReadData { of, length: range.length };
            match fault {
                None if there => drop(self.send(body, Some(data))),
                None => {}
                Some(fault) => self.answer_twin(connection, of, body, Some(fault)),
            }
        }
        self.act(Action::Release { data });
    }

    pub(crate) fn check_done(&mut self, id: u64, result: Result<LocalResult, LocalFault>) {
        let Some(applied) = self.applied.remove(&id) else { return };
        self.release_claim(id);
        let (theirs, told) = match applied.work {
            Work::Check { hashes, told, .. } => (hashes, told),
            Work::Verify(theirs) => {
                let odd = self.odd(applied.range.offset / BLOCK_BYTES, &theirs, result.ok());
                self.answer_twin(
                    applied.connection,
                    applied.of,
                    Body::Verified { of: applied.of, odd },
                    None,
                );
                return;
            }
            Work::Write(_) | Work::Copy(_) | Work::Zero { .. } | Work::Read => return,
        };
        let (ours, fault) = match result {
            Ok(LocalResult::Hashes(hashes)) => (hashes, None),
            Ok(LocalResult::Done | LocalResult::Read { .. } | LocalResult::Bytes(_)) => (Vec::new(), None),
            Err(fault) => (Vec::new(), Some(fault)),
        };
        let mut different = vec![0u8; theirs.len().div_ceil(8)];
        let first = applied.range.offset / BLOCK_BYTES;
        // What an earlier connection was about to send comes no more.
        let comes = !told && self.link.as_ref().is_some_and(|link| link.number == applied.connection);
        for (i, theirs) in theirs.iter().enumerate() {
            let (block, theirs) = (first + i as u64, sum_of(theirs));
            if ours.get(i).map(sum_of) == Some(theirs) {
                self.sum_learn(block, theirs);
            } else if let Some(byte) = different.get_mut(i / 8) {
                *byte |= 1 << (i % 8);
                self.keep_ahead(block, 1);
                if comes {
                    self.sums.promise(block, theirs);
                }
            }
        }
        self.answer_twin(applied.connection, applied.of, Body::Checked { of: applied.of, different }, fault);
    }

    /// Which blocks are others than the twin's, and what is known of them; what cannot be read is another one too. The rest is
    /// learnt.
    fn odd(&mut self, first: u64, theirs: &[[u8; HASH_BYTES]], ours: Option<LocalResult>) -> Vec<Odd> {
        let ours = match ours {
            Some(LocalResult::Hashes(hashes)) => hashes,
            Some(LocalResult::Done | LocalResult::Read { .. } | LocalResult::Bytes(_)) | None => Vec::new(),
        };
        let mut odd = Vec::new();
        for (at, theirs) in (0..).zip(theirs) {
            let (block, found) = (first + u64::from(at), ours.get(usize::from(at)).copied());
            if found.as_ref().map(sum_of) == Some(sum_of(theirs)) {
                self.sum_learn(block, sum_of(theirs));
                continue;
            }
            let stored = match self.sums.look(block) {
                Look::Known(sum) => Some(hash_of(&sum)),
                Look::Unknown | Look::Stored(_) => None,
            };
            odd.push(Odd { block: at, found, stored });
        }
        odd
    }

    /// Answers on the connection the work came by, if it still stands.
    pub(crate) fn answer_twin(&mut self, connection: u64, of: u64, body: Body, fault: Option<LocalFault>) {
        if let Some(fault) = &fault {
            self.failed.get_or_insert(format!("the local disk failed: errno {}", fault.errno));
        }
        if self.link.as_ref().is_none_or(|link| link.number != connection) {
            return;
        }
        match fault {
            None => {
                self.send(body, None);
            }
            Some(fault) => {
                self.send(Body::Failed { of, errno: fault.errno }, None);
            }
        }
    }

    pub(crate) fn flush_received(&mut self, of: u64) {
        let connection = self.link.as_ref().map_or(0, |link| link.number);
        // The active side has one flush at a time under way.
        if self.role != Role::Standby || self.ops.len() > 2 * APPLIED_MAX {
            self.close_link(LinkFault::Protocol);
            return;
        }
        // What was promised before it was acknowledged before it, perhaps: it is flushed too.
        let before = self.next_id + 1;
        self.flush_waits = Some(FlushWaits { of, connection, before });
        self.advance_flush_waits();
    }

    /// Begins the flush for the twin once everything promised before it is written.
    fn advance_flush_waits(&mut self) {
        let applied = &self.applied;
        let written = |before| !applied.range(..before).any(|(_, applied)| applied.early);
        let Some(waits) = self.flush_waits.take_if(|waits| written(waits.before)) else { return };
        let op = self.begin(Op::ApplyFlush { of: waits.of, connection: waits.connection });
        self.act(Action::FlushLocal { op });
    }

    pub(crate) fn applied_flush_done(&mut self, of: u64, connection: u64, fault: Option<LocalFault>) {
        self.answer_twin(connection, of, Body::Flushed { of }, fault);
    }

    /// The connection is gone: what was neither begun nor promised is dropped, the rest comes to its end unanswered.
    pub(crate) fn drop_unapplied(&mut self) {
        self.flush_waits = None;
        // A rebuild's target is nobody's second copy: what it lacks is copied, or it is put back to what it was.
        let keeps = self.sb.consistent && !self.config.faults.drop_promised;
        let idle = |applied: &Applied| !(applied.started || applied.owed && keeps);
        let idle: Vec<u64> =
            self.applied.iter().filter(|(_, applied)| idle(applied)).map(|(id, _)| *id).collect();
        for id in idle {
            if let Some(applied) = self.applied.remove(&id)
                && let Work::Write(payload) | Work::Copy(payload) = applied.work
            {
                self.drop_payload(Some(payload));
            }
            self.release_claim(id);
        }
        self.advance_barriers();
    }

    pub(crate) fn map_asked(&mut self, from: u32) {
        if self.role != Role::Standby {
            self.close_link(LinkFault::Protocol);
            return;
        }
        let body = match self.map.next_page(from) {
            Some(page) => Body::Map { page, bits: self.map.page(page), more: true },
            None => Body::Map { page: from, bits: Vec::new(), more: false },
        };
        self.send(body, None);
    }

    /// This copy becomes a rebuild's target: inconsistent until its end (C6).
    pub(crate) fn build_begins(&mut self, generation: Generation, old: KeepOld) {
        if self.role != Role::Standby || !self.settle.is_idle() {
            self.close_link(LinkFault::Protocol);
            return;
        }
        self.record_begins(old);
        // Asked to count alone, and put out instead: the register chose one of the two, and nobody builds but a holder alone.
        self.shouldered = false;
        self.sb.consistent = false;
        self.sb.alone = false;
        self.sb.active = false;
        self.sb.history.retain(|known| *known != generation);
        self.sb.history.insert(0, generation);
        self.sb.history.truncate(HISTORY_MAX);
        self.sb.base = None;
        let mark = self.store.superblock();
        let hasty = self.config.faults.ready_before_mark;
        self.promises.push(Promise { mark: if hasty { 0 } else { mark }, what: Promised::Marked });
    }

    /// The rebuild is complete: every block is here and flushed.
    pub(crate) fn build_done(&mut self, history: Vec<Generation>) {
        let takes = self.link.as_ref().is_some_and(|link| link.takes);
        if self.role != Role::Standby || !takes || self.shouldered {
            self.close_link(LinkFault::Protocol);
            return;
        }
        self.sb.base = history.first().copied();
        // The greetings told of what was different then: judged by them, an activation after this would be refused.
        if let Some(link) = &mut self.link {
            link.made_equal(&history);
        }
        self.sb.history = history;
        self.sb.consistent = true;
        self.sb.alone = false;
        self.sb.active = false;
        self.sb.made_equal = true;
        self.record_ends_equal();
        self.forget_differences();
        let mark = self.store.superblock();
        let hasty = self.config.faults.built_before_stored;
        self.promises.push(Promise { mark: if hasty { 0 } else { mark }, what: Promised::Built });
    }

    /// Map and log of this side are of no more use: the twin has merged them or the copies are equal.
    pub(crate) fn forget_differences(&mut self) {
        if self.log.len() > 0 {
            self.log.clear();
            self.store.log();
        }
        if self.map.count() > 0 {
            self.map.clear_all();
        }
        if self.map.has_stale() {
            self.store.pages();
        }
        self.suspects.clear();
    }

    pub(crate) fn advance_promises(&mut self) {
        while let Some(at) = self.promises.iter().position(|promise| self.store.reached(promise.mark)) {
            let promise = self.promises.remove(at);
            self.moved = true;
            if !self.link.as_ref().is_some_and(|link| link.phase == Phase::Open) {
                continue;
            }
            match promise.what {
                Promised::Marked => {
                    self.forget_differences();
                    let mark = self.store.superblock();
                    let hasty = self.config.faults.ready_before_mark;
                    self.promises.push(Promise { mark: if hasty { 0 } else { mark }, what: Promised::Ready });
                }
                Promised::Ready => {
                    if let Some(link) = &mut self.link {
                        link.takes = true;
                    }
                    self.send(Body::BuildReady, None);
                }
                Promised::Built => {
                    self.made_equal = true;
                    self.send(Body::BuildStored, None);
                }
            }
        }
    }
}
