//! The connection to the twin: greeting, session, keep-alives, and what each frame is for.
//!
//! ```text
//! Fresh --may greet: Hello--> Greeted --Hello of the twin--> Storing --both have stored the session--> Open
//! ```
//! Both compute the session as the higher of both plus one, and the higher epoch. Each stores them, after everything
//! submitted under an older session is complete and flushed, before it says so; nothing is applied earlier.

use crate::action::{Action, Data, LinkFault};
use crate::input::PayloadId;
use crate::mirror::Mirror;
use crate::pair::{Awaited, Pair};
use crate::settle::Purpose;
use peer::block::{Body, Frame, Hello, Odd, Refused};
use peer::control::Role;
use std::collections::{BTreeMap, VecDeque};
use wire::{Epoch, Generation, NodeId, Session, Time};

/// Nonces remembered: keep-alives of one lease, with room; an echo of an older one grants nothing worth having.
const NONCES_MAX: usize = 64;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Fresh,
    Greeted,
    Storing,
    Open,
}

/// What the twin did.
enum Answer {
    Written,
    Flushed,
    Copied,
    /// One bit for each block: set = different.
    Checked(Vec<u8>),
    Verified(Vec<Odd>),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    pub(crate) phase: Phase,
    /// The session of the greeting sent.
    offered: Session,
    /// The highest session known of the twin before it.
    known_twin: Session,
    pub(crate) epoch: Epoch,
    pub(crate) session: Session,
    /// The twin's greeting and the session in its header.
    pub(crate) hello: Option<(Box<Hello>, Session)>,
    /// It came before this side may greet.
    early: Option<(Box<Hello>, Epoch, Session)>,
    pub(crate) stored_here: bool,
    stored_there: bool,
    sent: u64,
    received: u64,
    heard: Time,
    next_alive: Time,
    nonce: u64,
    nonces: VecDeque<(u64, Time)>,
    twin_nonce: Option<(u64, Time)>,
    /// As standby: writes may be applied.
    pub(crate) takes: bool,
    /// Answers awaited, by the sequence they will name.
    pub(crate) awaited: BTreeMap<u64, Awaited>,
}

impl Connection {
    /// This side's session and what it knew of its twin's when they met.
    pub(crate) fn met_at(&self) -> (Session, Session) {
        (self.offered, self.known_twin)
    }

    /// Both copies have become equal in this session: the twin's greeting says so from now on.
    pub(crate) fn made_equal(&mut self, history: &[Generation]) {
        let Some((hello, session)) = &mut self.hello else { return };
        hello.history = history.to_vec();
        (hello.base, hello.alone) = (history.first().copied(), false);
        hello.twin_session = hello.twin_session.min(self.offered);
        *session = (*session).max(self.known_twin);
    }
}

impl Mirror {
    /// `dialled` makes no difference: both sides greet.
    pub(crate) fn link_connected(&mut self, _dialled: bool) {
        if self.link.is_some() {
            self.close_link(LinkFault::Restart);
        }
        if self.role == Role::Fenced || self.failed.is_some() || self.leaving || self.returning() {
            self.act(Action::CloseLink { reason: LinkFault::Restart });
            return;
        }
        self.links += 1;
        self.moved = true;
        self.link = Some(Connection {
            number: self.links,
            phase: Phase::Fresh,
            offered: Session(0),
            known_twin: Session(0),
            epoch: Epoch(0),
            session: Session(0),
            hello: None,
            early: None,
            stored_here: false,
            stored_there: false,
            sent: 0,
            received: 0,
            heard: self.now,
            next_alive: self.now,
            nonce: 0,
            nonces: VecDeque::new(),
            twin_nonce: None,
            takes: false,
            awaited: BTreeMap::new(),
        });
    }

    pub(crate) fn link_lost(&mut self) {
        if self.link.take().is_some() {
            self.unlinked();
        }
    }

    /// Closes the connection, telling the twin nothing: it sees the end of the stream.
    pub(crate) fn close_link(&mut self, reason: LinkFault) {
        if self.link.take().is_some() {
            self.act(Action::CloseLink { reason });
            self.unlinked();
        }
    }

    fn refuse(&mut self, refused: Refused, reason: LinkFault) {
        self.send(Body::Refused { reason: refused }, None);
        self.close_link(reason);
    }

    fn unlinked(&mut self) {
        self.moved = true;
        self.drop_unapplied();
        self.sums.forget_promised();
        self.undo.keeping.forget_ahead();
        self.promises.clear();
        self.settle.forget_sessions();
        self.twin_lost();
    }

    /// Whether the connection is established and both sides have stored its session.
    pub(crate) fn linked(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.phase == Phase::Open)
    }

    /// Sends a frame; gives its sequence (0 without a connection).
    pub(crate) fn send(&mut self, body: Body, data: Option<Data>) -> u64 {
        let before_session = matches!(body, Body::Hello(_) | Body::Refused { .. } | Body::Alive { .. });
        let Some(link) = &mut self.link else { return 0 };
        link.sent += 1;
        let (epoch, session) = if link.phase == Phase::Open || !before_session {
            (link.epoch, link.session)
        } else {
            (self.sb.epoch, link.offered)
        };
        let frame = Frame { epoch, session, sequence: link.sent, body };
        self.sent_bytes += u64::from(frame.payload_length());
        let sequence = link.sent;
        self.act(Action::Send { frame, data });
        sequence
    }

    pub(crate) fn advance_link(&mut self) {
        let Some(link) = &self.link else { return };
        if link.phase == Phase::Fresh && self.settle.is_idle() && self.may_greet() {
            self.greet();
            if let Some((hello, epoch, session)) = self.link.as_mut().and_then(|link| link.early.take()) {
                self.hello(hello, epoch, session);
            }
        }
        let Some(link) = &mut self.link else { return };
        if link.phase == Phase::Storing && link.stored_here && link.stored_there {
            link.phase = Phase::Open;
            self.moved = true;
            self.opened();
        }
    }

    fn may_greet(&self) -> bool {
        match self.role {
            Role::Standby | Role::Active | Role::Deactivating => true,
            Role::Activating | Role::Fenced => false,
        }
    }

    fn greet(&mut self) {
        let hello = Hello {
            cluster: self.sb.cluster,
            set: self.sb.set,
            side: self.sb.side,
            size: self.sb.size,
            incarnation: self.config.incarnation,
            holder: self.sb.holder,
            active: self.serving(),
            twin_session: self.sb.twin_session,
            history: self.sb.history.clone(),
            base: self.sb.base,
            consistent: self.sb.consistent,
            alone: self.sb.alone,
            dirty: self.map.count(),
            hot: self.log.hot().collect(),
            undone: self.sb.undone,
            room: self.undo_room(),
        };
        let (session, known_twin) = (self.sb.session, self.sb.twin_session);
        if let Some(link) = &mut self.link {
            link.phase = Phase::Greeted;
            link.offered = session;
            link.known_twin = known_twin;
        }
        self.send(Body::Hello(Box::new(hello)), None);
        self.moved = true;
    }

    /// Part of a frame came.
    pub(crate) fn link_heard(&mut self) {
        if let Some(link) = &mut self.link {
            link.heard = self.now;
            self.twin_heard = Some(self.now);
        }
    }

    /// A frame came.
    pub(crate) fn received(&mut self, frame: Frame, payload: Option<PayloadId>) {
        let Some(link) = &mut self.link else {
            self.drop_payload(payload);
            return;
        };
        let in_order = frame.sequence == link.received + 1;
        link.received = frame.sequence;
        link.heard = self.now;
        self.twin_heard = Some(self.now);
        let open = link.phase == Phase::Open;
        let stale = frame.epoch < link.epoch || frame.session < link.session;
        let ahead = frame.epoch > link.epoch || frame.session > link.session;
        if !in_order || frame.check().is_err() || payload.is_some() != (frame.payload_length() > 0) {
            self.drop_payload(payload);
            self.close_link(LinkFault::Protocol);
        } else if open && (stale && !self.config.faults.accept_lower_session || ahead) {
            self.drop_payload(payload);
            let reason = if stale { LinkFault::Stale } else { LinkFault::Protocol };
            self.close_link(reason);
        } else if open {
            self.received_open(frame, payload);
        } else {
            self.drop_payload(payload);
            self.received_early(frame);
        }
    }

    pub(crate) fn drop_payload(&mut self, payload: Option<PayloadId>) {
        if let Some(payload) = payload {
            self.act(Action::Release { data: Data::Payload(payload) });
        }
    }

    /// Before the session: only what makes one.
    fn received_early(&mut self, frame: Frame) {
        self.moved = true;
        match frame.body {
            Body::Hello(hello) => self.hello(hello, frame.epoch, frame.session),
            Body::SessionStored => self.session_stored(frame.epoch, frame.session),
            Body::Alive { .. } => {}
            Body::Refused { .. } | Body::Leaving => self.close_link(LinkFault::Restart),
            Body::Write { .. }
            | Body::Written { .. }
            | Body::Flush
            | Body::Flushed { .. }
            | Body::Copy { .. }
            | Body::Copied { .. }
            | Body::Check { .. }
            | Body::Checked { .. }
            | Body::MapAsk { .. }
            | Body::Map { .. }
            | Body::BuildBegin { .. }
            | Body::BuildReady
            | Body::BuildDone { .. }
            | Body::BuildStored
            | Body::Failed { .. }
            | Body::Zero { .. }
            | Body::Read { .. }
            | Body::ReadData { .. }
            | Body::Verify { .. }
            | Body::Verified { .. }
            | Body::Barrier
            | Body::Got { .. }
            | Body::Ahead { .. } => self.close_link(LinkFault::Protocol),
        }
    }

    fn hello(&mut self, hello: Box<Hello>, epoch: Epoch, session: Session) {
        let ours = hello.cluster == self.sb.cluster
            && hello.set == self.sb.set
            && hello.side == self.sb.side.twin()
            && hello.size == self.sb.size;
        if !ours {
            self.refuse(Refused::Stranger, LinkFault::Stranger);
            return;
        }
        self.twin_incarnation = Some(hello.incarnation);
        if let Some(link) = &mut self.link
            && link.phase == Phase::Fresh
        {
            let again = link.early.replace((hello, epoch, session)).is_some();
            if again {
                self.close_link(LinkFault::Protocol);
            }
            return;
        }
        if epoch > self.sb.epoch && self.role != Role::Standby {
            // The register gave the right to another term; this one is over.
            self.fence();
            return;
        }
        let contradicts = epoch == self.sb.epoch && conflict(hello.holder, self.sb.holder);
        if contradicts || (epoch == self.sb.epoch && hello.active && self.serving()) {
            self.split = true;
            self.refuse(Refused::Protocol, LinkFault::Protocol);
            return;
        }
        let (mine, own_epoch, own_holder) = (self.sb.session, self.sb.epoch, self.sb.holder);
        let set_back = hello.twin_session > mine && self.role == Role::Standby;
        let Some(link) = &mut self.link else { return };
        if link.hello.is_some() || link.offered != mine {
            self.close_link(LinkFault::Protocol);
            return;
        }
        let holder = if epoch > own_epoch { hello.holder } else { own_holder.or(hello.holder) };
        link.epoch = epoch.max(own_epoch);
        link.session = Session(session.max(mine).0 + 1);
        link.hello = Some((hello, session));
        let purpose =
            Purpose::Session { connection: link.number, epoch: link.epoch, holder, session: link.session };
        if let Some(link) = &mut self.link {
            link.phase = Phase::Storing;
        }
        if set_back && !self.config.faults.forget_set_back {
            // This disk once held a higher session: it was set back to an older state. The session to come hides that from
            // every later meeting, so in the same store this copy forgets what it was: all of it will be compared.
            self.sb.history.clear();
            self.sb.base = None;
        }
        self.settle.ask(purpose);
    }

    fn session_stored(&mut self, epoch: Epoch, session: Session) {
        let Some(link) = &mut self.link else { return };
        if link.phase != Phase::Storing || link.session != session || link.epoch != epoch {
            self.close_link(LinkFault::Protocol);
            return;
        }
        link.stored_there = true;
        self.sb.twin_session = session;
        self.store.superblock();
    }

    /// This side has stored the session of that connection.
    pub(crate) fn session_kept(&mut self, connection: u64) {
        if let Some(link) = self.link.as_mut().filter(|link| link.number == connection) {
            link.stored_here = true;
            self.send(Body::SessionStored, None);
        }
    }

    fn received_open(&mut self, frame: Frame, payload: Option<PayloadId>) {
        self.moved = true;
        let sequence = frame.sequence;
        match frame.body {
            Body::Alive { nonce, grant } => self.alive_heard(nonce, grant),
            Body::Leaving => self.close_link(LinkFault::Restart),
            Body::Refused { .. } => self.close_link(LinkFault::Restart),
            Body::Hello(_) | Body::SessionStored => self.close_link(LinkFault::Protocol),
            // To the standby.
            Body::Write { .. }
            | Body::Zero { .. }
            | Body::Copy { .. }
            | Body::Check { .. }
            | Body::Verify { .. }
            | Body::Read { .. } => {
                self.work_received(sequence, frame.body, payload);
            }
            Body::Ahead { runs } => self.ahead_received(&runs),
            Body::Flush => self.flush_received(sequence),
            Body::Barrier => self.barrier_received(sequence),
            Body::MapAsk { from } => self.map_asked(from),
            Body::BuildBegin { generation, old } => self.build_begins(generation, old),
            Body::BuildDone { history } => self.build_done(history),
            // To the active side.
            Body::Written { of } => self.answered(of, &Answer::Written),
            Body::Flushed { of } => self.answered(of, &Answer::Flushed),
            Body::Copied { of } => self.answered(of, &Answer::Copied),
            Body::ReadData { of, length } => self.read_data(of, length, payload),
            Body::Got { of } => self.write_got(of),
            Body::Checked { of, different } => self.answered(of, &Answer::Checked(different)),
            Body::Verified { of, odd } => self.answered(of, &Answer::Verified(odd)),
            Body::Failed { of, errno } => self.twin_failed(of, errno),
            Body::Map { page, bits, more } => self.map_received(page, &bits, more),
            Body::BuildReady => self.build_ready(),
            Body::BuildStored => self.build_stored(),
        }
    }

    fn answered(&mut self, of: u64, answer: &Answer) {
        let awaited = self.link.as_mut().and_then(|link| link.awaited.remove(&of));
        match (awaited, answer) {
            (Some(Awaited::Write(id)), Answer::Written) => self.write_twin_done(id),
            (Some(Awaited::Flush(number)), Answer::Flushed) => self.round_twin_done(number),
            (Some(Awaited::Barrier), Answer::Flushed) => self.barrier_passed(),
            (Some(Awaited::Copy { run, count, zero: false }), Answer::Copied) => {
                self.run_copied(run, count, false);
            }
            (Some(Awaited::Copy { run, count, zero: true }), Answer::Written) => {
                self.run_copied(run, count, true);
            }
            (Some(Awaited::Check(run)), Answer::Checked(different)) => self.run_checked(run, different),
            (Some(Awaited::Verify(run)), Answer::Verified(odd)) => self.verified(run, odd),
            _ => self.close_link(LinkFault::Protocol),
        }
    }

    /// The twin's disk failed: it is worth nothing until its process starts afresh.
    fn twin_failed(&mut self, _of: u64, _errno: i32) {
        self.close_link(LinkFault::Restart);
    }

    fn alive_heard(&mut self, nonce: u64, grant: Option<u64>) {
        let Some(link) = &mut self.link else { return };
        link.twin_nonce = Some((nonce, self.now));
        let granted = grant.and_then(|grant| link.nonces.iter().find(|(sent, _)| *sent == grant));
        if let Some((_, at)) = granted.copied()
            && self.serving()
        {
            self.lease.granted_over_link(at.plus(self.config.timing.lease_us));
        }
    }

    /// Keep-alives and silence.
    pub(crate) fn advance_link_time(&mut self) {
        let now = self.now;
        let timing = self.config.timing;
        let Some(link) = &mut self.link else { return };
        if now.since(link.heard) >= timing.silent_us {
            self.close_link(LinkFault::Silent);
            return;
        }
        if now < link.next_alive || link.phase == Phase::Fresh {
            return;
        }
        link.next_alive = now.plus(timing.alive_us);
        link.nonce += 1;
        let nonce = link.nonce;
        let open = link.phase == Phase::Open;
        if open {
            link.nonces.push_back((nonce, now));
            if link.nonces.len() > NONCES_MAX {
                link.nonces.pop_front();
            }
        }
        let grant = link.twin_nonce.filter(|_| open && self.lease.granting && self.role == Role::Standby);
        if let Some((_, came)) = grant {
            self.lease.last_grant = self.lease.last_grant.max(Some(came));
        }
        self.send(Body::Alive { nonce, grant: grant.map(|(nonce, _)| nonce) }, None);
    }

    /// When the connection wants attention next.
    pub(crate) fn link_deadline(&self) -> Option<Time> {
        let link = self.link.as_ref()?;
        let silent = link.heard.plus(self.config.timing.silent_us);
        let alive = if link.phase == Phase::Fresh { silent } else { link.next_alive };
        Some(silent.min(alive))
    }

    /// Tells the twin that nothing more will come, and closes.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
        if self.linked() {
            self.send(Body::Leaving, None);
        }
        self.close_link(LinkFault::Restart);
    }

    /// Serves the block device.
    pub(crate) fn serving(&self) -> bool {
        matches!(self.role, Role::Active | Role::Deactivating)
    }

    pub(crate) fn joined(&self) -> bool {
        self.pair == Pair::Joined
    }
}

fn conflict(theirs: Option<NodeId>, ours: Option<NodeId>) -> bool {
    matches!((theirs, ours), (Some(theirs), Some(ours)) if theirs != ours)
}
