//! Requests of the front end on the active side: claims, hot extents, both disks, the reply.

use crate::action::{Action, Data, OpId};
use crate::config::REQUESTS_MAX;
use crate::input::{LocalFault, Range, RequestId};
use crate::journal::Trailing;
use crate::log::{Heat, blocks};
use crate::mend::Mend;
use crate::mirror::{Mirror, Op};
use crate::pair::{Awaited, Pair};
use crate::resume::Ghost;
use crate::watch::HELD_US;
use peer::block::{Body, PAYLOAD_BYTES_MAX, SECTOR_BYTES, ZERO_BYTES_MAX};
use peer::control::Role;
use std::collections::{BTreeMap, VecDeque};
use wire::Time;
use wire::traffic::WriteMode;

/// errno of a failed request.
pub(crate) const EIO: i32 = 5;
/// errno of a request outside the device.
const EINVAL: i32 = 22;

/// Requests that wait or run.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Not begun: the lease has ended or the side is becoming active.
    pub(crate) held: VecDeque<(RequestId, Wanted)>,
    /// Done, but the lease has ended: answered when it runs again.
    pub(crate) held_replies: Vec<(RequestId, i32)>,
    pub(crate) writes: BTreeMap<u64, Writing>,
    pub(crate) reads: BTreeMap<u64, (RequestId, Range, Time)>,
    /// Reads, since when, of blocks that the twin may lack though it counts as in sync: what a crash left unanswered. Told of,
    /// it could not be taken back, and a promotion of the twin would: they wait until both have it, or the twin is put out.
    pub(crate) unsure: Vec<(RequestId, Range, Time)>,
    /// Reads that the local disk refused.
    pub(crate) mends: BTreeMap<u64, Mend>,
    /// Writes that wait for a slot of the activity log.
    pub(crate) no_room: VecDeque<u64>,
    /// Writes that wait for a store, with its mark.
    pub(crate) heating: Vec<(u64, u64)>,
    /// Writes that a process before this one did not answer, until they are asked again.
    pub(crate) ghosts: BTreeMap<u64, Ghost>,
}

/// What a held request wants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    Write(Range, Content),
    Read(Range),
    Flush,
}

/// What a write leaves in its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The request's payload.
    Payload,
    /// Zeroes; the disks may give the space back.
    Zeroes { unmap: bool },
}

/// What the twin has of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twin {
    /// Not begun, or the link is away: sent when it is back.
    NotSent,
    Sent,
    /// The twin has received it and will write it (semi-synchronous).
    Got,
    Done,
    /// The dirty map remembers instead.
    NotNeeded,
}

/// A write from its claim to its release.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing {
    pub(crate) request: RequestId,
    pub(crate) range: Range,
    pub(crate) content: Content,
    pub(crate) began: Time,
    /// Its extents were hot before it was asked again.
    pub(crate) pinned: bool,
    /// The extents are hot and the local disk has been asked.
    pub(crate) issued: bool,
    /// errno of the local disk, 0 if it was good.
    pub(crate) local: Option<i32>,
    pub(crate) twin: Twin,
    pub(crate) replied: bool,
}

impl Writing {
    /// The local disk failed it, and it is held for the engine to move the work.
    pub(crate) fn owed(&self) -> bool {
        !self.replied && self.local.is_some_and(|errno| errno != 0)
    }
}

impl Requests {
    fn count(&self) -> usize {
        let begun = self.writes.len() + self.reads.len() + self.mends.len();
        self.held.len() + self.unsure.len() + begun + self.held_replies.len()
    }

    pub(crate) fn idle(&self) -> bool {
        self.count() == 0 && self.ghosts.is_empty()
    }
}

impl Mirror {
    pub(crate) fn write_asked(&mut self, request: RequestId, range: Range) {
        self.asked(request, Wanted::Write(range, Content::Payload), Some((range, PAYLOAD_BYTES_MAX)));
    }

    pub(crate) fn zero_asked(&mut self, request: RequestId, range: Range, unmap: bool) {
        self.asked(request, Wanted::Write(range, Content::Zeroes { unmap }), Some((range, ZERO_BYTES_MAX)));
    }

    pub(crate) fn read_asked(&mut self, request: RequestId, range: Range) {
        self.asked(request, Wanted::Read(range), Some((range, PAYLOAD_BYTES_MAX)));
    }

    pub(crate) fn flush_asked(&mut self, request: RequestId) {
        self.asked(request, Wanted::Flush, None);
    }

    fn asked(&mut self, request: RequestId, wanted: Wanted, range: Option<(Range, u32)>) {
        if range.is_some_and(|(range, most)| !self.fits(range, most)) {
            self.act(Action::Reply { request, errno: EINVAL });
            return;
        }
        let flushes = self.flushes.waiting() + self.journal.flushing();
        let room = self.requests.count() + flushes < REQUESTS_MAX;
        match self.role {
            Role::Standby | Role::Fenced => self.act(Action::Reply { request, errno: EIO }),
            Role::Activating | Role::Active | Role::Deactivating if !room => {
                self.act(Action::Reply { request, errno: EIO });
            }
            Role::Activating => self.requests.held.push_back((request, wanted)),
            Role::Active | Role::Deactivating => {
                if self.lease.runs {
                    self.start(request, wanted);
                } else {
                    self.requests.held.push_back((request, wanted));
                }
            }
        }
    }

    pub(crate) fn fits(&self, range: Range, most: u32) -> bool {
        let length = u64::from(range.length);
        range.length > 0
            && range.length <= most
            && range.offset.is_multiple_of(SECTOR_BYTES)
            && length.is_multiple_of(SECTOR_BYTES)
            && range.offset.checked_add(length).is_some_and(|end| end <= self.sb.size)
    }

    fn start(&mut self, request: RequestId, wanted: Wanted) {
        self.moved = true;
        if let Some(rebuild) = self.rebuild.as_mut().filter(|_| !matches!(wanted, Wanted::Flush)) {
            rebuild.pace.request_began(self.now);
        }
        if let Some(verify) = self.verify.as_mut().filter(|_| !matches!(wanted, Wanted::Flush)) {
            verify.pace.request_began(self.now);
        }
        match wanted {
            Wanted::Write(range, content) => {
                if self.adopt(request, range, content) {
                    return;
                }
                let id = self.fresh();
                let writing = Writing {
                    request,
                    range,
                    content,
                    began: self.now,
                    pinned: false,
                    issued: false,
                    local: None,
                    twin: Twin::NotSent,
                    replied: false,
                };
                self.requests.writes.insert(id, writing);
                if self.ranges.claim(id, range.offset, u64::from(range.length), true) {
                    self.write_granted(id);
                }
            }
            Wanted::Read(range) if self.is_unsure(range) => {
                self.requests.unsure.push((request, range, self.now));
            }
            Wanted::Read(range) => self.begin_read(request, range, self.now),
            Wanted::Flush => self.flush_wanted(request),
        }
    }

    /// Whether the twin may lack what this side has in a range, while a promotion of the twin would be right.
    fn is_unsure(&self, range: Range) -> bool {
        let (first, count) = blocks(range.offset, u64::from(range.length));
        let settled = self.through || self.asynchronous();
        self.needs_twin && !settled && (first..first + count).any(|block| self.map.is_set(block))
    }

    fn begin_read(&mut self, request: RequestId, range: Range, began: Time) {
        let id = self.fresh();
        self.requests.reads.insert(id, (request, range, began));
        if self.ranges.claim(id, range.offset, u64::from(range.length), false) {
            self.read_granted(id);
        }
    }

    /// The claim is granted: make the extents hot, then begin.
    pub(crate) fn write_granted(&mut self, id: u64) {
        let Some(writing) = self.requests.writes.get(&id).copied() else { return };
        if self.through {
            return self.issue_through(id);
        }
        let forgotten = self.sums_forget(writing.range);
        if writing.pinned {
            return self.issue_after(forgotten, id);
        }
        let (offset, length) = (writing.range.offset, u64::from(writing.range.length));
        let hot = self.log.is_hot(offset, length);
        match self.log.pin(offset, length, self.store.next_mark(), self.now) {
            Heat::Full => self.requests.no_room.push_back(id),
            Heat::After(mark) => {
                if !hot {
                    self.store.log();
                }
                let hot = self.store.reached(mark) || self.config.faults.write_before_hot;
                self.issue_after(if hot { forgotten } else { mark.max(forgotten) }, id);
            }
        }
    }

    /// Begins a write when this mark is reached.
    fn issue_after(&mut self, mark: u64, id: u64) {
        if self.store.reached(mark) {
            self.issue_write(id);
        } else {
            self.requests.heating.push((mark, id));
        }
    }

    /// A store is done: writes into extents that are hot by it begin.
    pub(crate) fn stored_requests(&mut self) {
        if self.requests.heating.is_empty() {
            return;
        }
        let heating = std::mem::take(&mut self.requests.heating);
        let (ready, rest) = heating.into_iter().partition(|(mark, _)| self.store.reached(*mark));
        self.requests.heating = rest;
        let ready: Vec<(u64, u64)> = ready;
        for (_, id) in ready {
            self.issue_write(id);
        }
    }

    fn issue_write(&mut self, id: u64) {
        let joined = self.pair == Pair::Joined;
        let needs_twin = self.needs_twin;
        let Some(writing) = self.requests.writes.get_mut(&id) else { return };
        writing.issued = true;
        let (request, range, content) = (writing.request, writing.range, writing.content);
        if !joined && !needs_twin {
            writing.twin = Twin::NotNeeded;
            let (first, count) = blocks(range.offset, u64::from(range.length));
            self.map.set(first, count);
        }
        if joined {
            self.send_write(id);
        }
        let op = OpId(id);
        self.ops.insert(op, Op::Write);
        self.act(match content {
            Content::Payload => Action::WriteLocal { op, range, data: Data::Request(request) },
            Content::Zeroes { unmap } => Action::ZeroLocal { op, range, unmap },
        });
    }

    /// Sends a write to the twin.
    pub(crate) fn send_write(&mut self, id: u64) {
        let Some(writing) = self.requests.writes.get(&id) else { return };
        let Range { offset, length } = writing.range;
        let (body, data) = match writing.content {
            Content::Payload => (Body::Write { offset, length }, Some(Data::Request(writing.request))),
            Content::Zeroes { unmap } => (Body::Zero { offset, length, unmap }, None),
        };
        let sequence = self.send(body, data);
        self.journal.sent();
        if let Some(link) = &mut self.link {
            link.awaited.insert(sequence, Awaited::Write(id));
        }
        if let Some(writing) = self.requests.writes.get_mut(&id) {
            writing.twin = Twin::Sent;
        }
    }

    pub(crate) fn write_done(&mut self, id: u64, fault: Option<LocalFault>) {
        let Some(writing) = self.requests.writes.get_mut(&id) else { return };
        let through = self.through;
        writing.local = Some(fault.filter(|_| !through).map_or(0, |_| EIO));
        if let Some(fault) = fault {
            // The twin may have it, this disk may not: different until copied.
            let (first, count) = blocks(writing.range.offset, u64::from(writing.range.length));
            self.map.set(first, count);
            self.fail(format!("a write to the local disk failed: errno {}", fault.errno));
        }
        self.write_moved(id);
    }

    /// Replies to and releases a write as far as both disks have come.
    pub(crate) fn write_moved(&mut self, id: u64) {
        let acknowledges_alone = !self.needs_twin || self.config.faults.ack_before_twin;
        let (mode, most) = (self.answers_by(), self.config.timing.journal_bytes);
        let (needs_twin, now) = (self.needs_twin, self.now);
        let Some(writing) = self.requests.writes.get_mut(&id) else { return };
        let Some(errno) = writing.local else { return };
        let twin_has = matches!(writing.twin, Twin::Done | Twin::NotNeeded);
        let zeroes = writing.content != Content::Payload;
        let synchronous = mode == WriteMode::Synchronous;
        let room = !synchronous && self.journal.has_room(writing.range.length, zeroes, most);
        let early = match mode {
            WriteMode::Synchronous => false,
            WriteMode::SemiSynchronous => room && writing.twin == Twin::Got,
            WriteMode::Asynchronous => room,
        };
        let on_its_way = matches!(writing.twin, Twin::Sent | Twin::Got);
        let acknowledges_alone = acknowledges_alone && (synchronous || room || !on_its_way);
        // In sync an error is not told while the engine may move the work to the twin, which has the write (C5).
        let hold_ended = !needs_twin || now.since(writing.began) >= HELD_US;
        let errno = if self.config.faults.through_unasked && twin_has { 0 } else { errno };
        let due = if errno == 0 { twin_has || early || acknowledges_alone } else { hold_ended };
        let first = !writing.replied && due;
        writing.replied |= due;
        let (request, began, ends) = (writing.request, writing.began, twin_has && writing.replied);
        let trails = writing.replied && errno == 0 && !synchronous;
        if !writing.replied && errno == 0 && !synchronous && !room {
            self.journal.waiting.insert(id);
        }
        if first {
            self.paced(began);
            self.flushes.write_answered();
            // A write that the twin still lacks keeps its payload only until here; see `journal_lost`.
            self.reply(request, errno);
        }
        if ends || trails {
            let Some(done) = self.requests.writes.remove(&id) else { return };
            self.write_ended(id, &done);
        }
    }

    /// A write is answered and has ended here: others may follow in its range. The twin takes them in the order of sending.
    fn write_ended(&mut self, id: u64, done: &Writing) {
        let (range, began) = (done.range, done.began);
        match done.twin {
            Twin::Sent | Twin::Got => {
                let zeroes = done.content != Content::Payload;
                self.journal.add(id, Trailing { range, began, zeroes });
            }
            Twin::NotSent => {
                self.record_lost(range, began);
                self.log.unpin(range.offset, u64::from(range.length), false);
            }
            Twin::Done | Twin::NotNeeded if self.through => {}
            Twin::Done | Twin::NotNeeded => {
                self.log.unpin(range.offset, u64::from(range.length), done.twin == Twin::Done);
            }
        }
        self.release_claim(id);
    }

    pub(crate) fn read_granted(&mut self, id: u64) {
        let Some((request, range, _)) = self.requests.reads.get(&id).copied() else { return };
        if self.through {
            self.requests.reads.remove(&id);
            self.mend(id, request, range);
            return;
        }
        let op = OpId(id);
        self.ops.insert(op, Op::Read);
        self.act(Action::ReadLocal { op, range, into: Data::Request(request) });
    }

    pub(crate) fn read_done(&mut self, id: u64, fault: Option<LocalFault>) {
        let Some((request, range, began)) = self.requests.reads.remove(&id) else { return };
        if fault.is_some() && self.mend(id, request, range) {
            return;
        }
        self.release_claim(id);
        if let Some(fault) = fault {
            self.fail(format!("a read from the local disk failed: errno {}", fault.errno));
        }
        self.paced(began);
        self.reply(request, fault.map_or(0, |_| EIO));
    }

    /// A request that began then is about to be answered: a rebuild and a verification take notice.
    fn paced(&mut self, began: Time) {
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.pace.request_ended(began, self.now);
        }
        if let Some(verify) = &mut self.verify {
            verify.pace.request_ended(began, self.now);
        }
    }

    /// Answers a request, or holds the answer while the lease does not run: it might tell of what another side serves.
    pub(crate) fn reply(&mut self, request: RequestId, errno: i32) {
        if self.lease.runs || self.config.faults.reply_without_lease {
            self.act(Action::Reply { request, errno });
        } else {
            self.requests.held_replies.push((request, errno));
        }
    }

    /// Lets requests go on: granted claims, held ones, those without room in the log.
    pub(crate) fn advance_requests(&mut self) {
        while let Some(id) = self.granted.pop_front() {
            self.moved = true;
            self.claim_granted(id);
        }
        let serving = self.serving() && self.lease.runs;
        if serving && !self.requests.held.is_empty() {
            for (request, wanted) in std::mem::take(&mut self.requests.held) {
                self.start(request, wanted);
            }
        }
        if serving && !self.requests.unsure.is_empty() {
            for (request, range, since) in std::mem::take(&mut self.requests.unsure) {
                if self.is_unsure(range) {
                    self.requests.unsure.push((request, range, since));
                } else {
                    self.begin_read(request, range, since);
                }
            }
        }
        if serving && !self.requests.held_replies.is_empty() {
            for (request, errno) in std::mem::take(&mut self.requests.held_replies) {
                self.act(Action::Reply { request, errno });
            }
        }
        if !self.requests.no_room.is_empty() {
            self.make_room();
        }
        self.cool();
    }

    fn claim_granted(&mut self, id: u64) {
        if self.ghost_granted(id) {
            return;
        }
        if self.requests.writes.contains_key(&id) {
            self.write_granted(id);
        } else if self.requests.reads.contains_key(&id) {
            self.read_granted(id);
        } else if self.applied.contains_key(&id) {
            self.apply(id);
        } else if self.requests.mends.contains_key(&id) {
            self.mend_granted(id);
        } else if !self.verify_granted(id) {
            self.run_granted(id);
        }
    }

    /// Cools extents for writes that found the log full; asks for what keeps extents from cooling.
    fn make_room(&mut self) {
        let (map, hasty) = (&self.map, self.config.faults.cool_before_bits);
        if self.log.make_room(|extent| hasty || map.saved(extent)) {
            self.moved = true;
            self.store.log();
            for id in std::mem::take(&mut self.requests.no_room) {
                self.write_granted(id);
            }
            return;
        }
        if self.map.has_unsaved() && self.store.is_idle() {
            self.store.pages();
            self.moved = true;
        }
        if !self.log.stable() {
            self.flushes.wanted = true;
        }
    }

    /// Cools what has been quiet for long, and asks for the stores and flushes it needs.
    fn cool(&mut self) {
        if self.now < self.next_cool {
            return;
        }
        self.next_cool = self.now.plus(self.config.timing.cool_us);
        let serving = matches!(self.role, Role::Active) && !self.through;
        let quiet = Time(self.now.0.saturating_sub(self.config.timing.cool_us));
        if !serving || !self.log.has_quiet(quiet) {
            return;
        }
        let (map, hasty) = (&self.map, self.config.faults.cool_before_bits);
        if self.log.cool(quiet, |extent| hasty || map.saved(extent)) {
            self.store.log();
        }
        if self.map.has_stale() && !hasty {
            self.store.pages();
        }
        if !self.log.stable() {
            self.flushes.wanted = true;
        }
        self.moved = true;
    }

    /// The oldest request that only the twin's disk keeps from its reply.
    pub(crate) fn waiting_since(&self) -> Option<Time> {
        if self.own_disk_lags() {
            return None;
        }
        let writes = &self.requests.writes;
        let waits = |writing: &&Writing| match writing.twin {
            Twin::NotSent | Twin::Sent | Twin::Got => !writing.replied,
            Twin::Done | Twin::NotNeeded => false,
        };
        let issued = writes.values().filter(|writing| writing.issued).filter(waits);
        // Without room in the log only a flush of both disks helps.
        let no_room =
            self.requests.no_room.iter().filter_map(|id| writes.get(id)).filter(|_| self.needs_twin);
        let oldest = issued.chain(no_room).map(|writing| writing.began).min();
        // An asynchronous twin may be as far behind as there is room: only those who wait for room wait for it.
        let promised = self.journal.since().filter(|_| !self.asynchronous());
        let asked = self.requests.mends.values().filter(|mend| mend.request.is_some());
        let asked = asked.map(|mend| mend.began).min();
        let unsure = self.requests.unsure.iter().map(|(_, _, since)| *since).min();
        oldest
            .into_iter()
            .chain(promised)
            .chain(asked)
            .chain(unsure)
            .chain(self.flushes.waiting_since())
            .min()
    }
}
