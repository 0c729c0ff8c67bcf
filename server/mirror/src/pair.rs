//! The active side and its twin's copy: judging it, merging what both know, beginning to send every write, re-admission.
//!
//! ```text
//! Apart --session, judged--> Barred (split, or ahead)
//!                        \-> Waiting (for permission) --> Asking (for its map) --> Merging (storing what it told)
//!                              --> Beginning (it marks itself inconsistent) --> Joined (every write goes to both)
//! ```
//! A twin in sync skips the permission and the mark: all that can differ is what was never flushed.

use crate::action::{Action, LinkFault};
use crate::compare::{Standing, Verdict, compare};
use crate::log::blocks;
use crate::mirror::Mirror;
use crate::pace::Pace;
use crate::progress::Progress;
use crate::rebuild::Rebuild;
use crate::requests::Twin;
use peer::block::{Body, KeepOld};
use peer::control::{Done, OrderFault, Role, Ticket};
use wire::Session;
use wire::alert::RebuildKind;

/// What the active side does with its twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    /// No session, or this side is not active.
    Apart,
    /// Nothing may be copied.
    Barred,
    /// Until the engine allows the rebuild, or the twin is put out.
    Waiting(Verdict),
    /// The twin's map is being fetched.
    Asking(Verdict),
    /// What is known to differ is being stored.
    Merging(Verdict),
    /// The base is being stored.
    Basing(u64),
    /// The twin marks itself.
    Beginning,
    /// Every write goes to both.
    Joined,
}

/// What an answer of the twin is awaited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Write(u64),
    Flush(u64),
    Barrier,
    /// A part of a rebuild's run, of so many blocks.
    Copy {
        run: u64,
        count: u64,
        zero: bool,
    },
    Check(u64),
    Read(u64),
    Verify(u64),
}

/// The end of a rebuild: both copies become equal and say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finish {
    /// The order to answer; none at the end of a resumption in sync.
    ticket: Option<Ticket>,
    stage: FinishStage,
}

impl Finish {
    /// The engine asked for it.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ticket.is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinishStage {
    /// Writes begun before the switch come to their end on both sides, and the last blocks are copied.
    Draining { before: u64 },
    /// A flush of both begun after that.
    Flushing { round: u64 },
    /// The map counts from the current generation.
    Basing { mark: u64 },
    /// The twin stores the generation.
    Offered,
    /// This side stores that it does not acknowledge alone.
    Storing { mark: u64 },
}

impl Mirror {
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            history: self.sb.history.clone(),
            base: self.sb.base,
            consistent: self.sb.consistent,
            alone: self.sb.alone,
            undone: self.sb.undone,
            session: self.sb.session,
            twin_session: self.sb.twin_session,
        }
    }

    /// What the twin's copy is, as far as its greeting tells.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        let (hello, session) = self.link.as_ref()?.hello.as_ref()?;
        let mut mine = self.standing();
        // Both stood at the sessions of their greetings when they met.
        (mine.session, mine.twin_session) = self.link.as_ref()?.met_at();
        if self.config.faults.ignore_set_back {
            mine.twin_session = Session(0);
        }
        let mut twin = Standing::of(hello, *session);
        twin.undone &= !self.config.faults.ignore_undone;
        Some(compare(&mine, &twin))
    }

    /// The session is open.
    pub(crate) fn opened(&mut self) {
        let serving = self.serving();
        let sb = (&self.sb.history, self.sb.consistent);
        if let Some(link) = &mut self.link
            && let Some((hello, _)) = &link.hello
        {
            link.takes =
                !serving && hello.active && sb.1 && !sb.0.is_empty() && sb.0.first() == hello.history.first();
        }
        if serving {
            self.pair = Pair::Apart;
            self.judge();
        }
    }

    /// Judges the twin's copy; the way goes on in `advance_pair`.
    fn judge(&mut self) {
        let Some(verdict) = self.verdict() else { return };
        self.moved = true;
        let apart = matches!(verdict, Verdict::Split | Verdict::Ahead);
        // What the twin did by itself does not count: an operator declared this side good.
        let declared = apart && self.overruled == Some(true);
        self.declared = declared;
        let verdict = if declared { Verdict::Unknown(RebuildKind::FullUnknown) } else { verdict };
        self.split = apart && !declared;
        self.pair = if self.split { Pair::Barred } else { Pair::Waiting(verdict) };
    }

    /// An operator's force: see [`peer::control::DiskOrder::Overrule`].
    pub(crate) fn overrule(&mut self, ticket: Ticket, replace: bool) {
        self.overruled = Some(replace || self.overruled == Some(true));
        if self.pair == Pair::Barred {
            self.judge();
        }
        self.answer(ticket, Ok(Done::Done));
    }

    pub(crate) fn advance_pair(&mut self) {
        match self.pair {
            Pair::Apart | Pair::Barred | Pair::Asking(_) | Pair::Beginning | Pair::Joined => {}
            Pair::Waiting(_) if self.through => self.rejoin_through(),
            Pair::Waiting(verdict) => {
                let in_sync =
                    self.needs_twin && verdict == Verdict::Equal && !self.twin_reborn() && !self.lags();
                let allowed = !self.needs_twin && self.allow_rebuild;
                let able = self.serving() && self.putting_out.is_none() && self.failed.is_none();
                let able = able && !self.undo_is_short();
                if able && (in_sync || allowed) {
                    self.learn_differences(verdict);
                }
            }
            Pair::Merging(verdict) => {
                if self.map.must_saved() || self.config.faults.join_before_saved {
                    self.moved = true;
                    self.merged(verdict);
                }
            }
            Pair::Basing(mark) => {
                if self.store.reached(mark)
                    && let Some(generation) = self.sb.base
                {
                    self.moved = true;
                    self.pair = Pair::Beginning;
                    let old = if !self.declared {
                        KeepOld::UntilEqual
                    } else if self.undo.waived {
                        KeepOld::Not
                    } else {
                        KeepOld::UntilDropped
                    };
                    self.send(Body::BuildBegin { generation, old }, None);
                }
            }
        }
    }

    /// The twin's host has a new life since every write went to both. What it had not flushed is lost there, and only the
    /// register can say so to a later holder: such a twin is put out first, never taken for in sync again by the disk
    /// processes alone (DESIGN 5: "a new host incarnation does not" keep its writes).
    pub(crate) fn twin_reborn(&self) -> bool {
        let hello = self.link.as_ref().and_then(|link| link.hello.as_ref());
        let hello = hello.filter(|_| !self.config.faults.reborn_in_sync);
        hello.is_some_and(|(hello, _)| self.unstable_at.is_some_and(|known| known != hello.incarnation))
    }

    fn learn_differences(&mut self, verdict: Verdict) {
        self.moved = true;
        let Some((hello, _)) = self.link.as_ref().and_then(|link| link.hello.as_ref()) else { return };
        let dirty = if self.config.faults.ignore_twin_map { 0 } else { hello.dirty };
        let hot = hello.hot.clone();
        self.rebuild_kind = match verdict {
            Verdict::Unknown(kind) => kind,
            _ if self.sb.compare_all => self.full_kind(),
            Verdict::Equal | Verdict::Behind | Verdict::Ahead | Verdict::Split => RebuildKind::Fast,
        };
        if let Verdict::Unknown(_) = verdict {
            self.broken_off = None;
            self.map.set_all();
            self.pair = Pair::Merging(verdict);
        } else {
            for extent in hot {
                self.map.set_extent(extent);
                self.suspects.insert(extent);
            }
            if dirty > 0 {
                self.pair = Pair::Asking(verdict);
                self.send(Body::MapAsk { from: 0 }, None);
            } else {
                self.pair = Pair::Merging(verdict);
            }
        }
        self.save_differences();
    }

    /// Stores all that is known to differ; `Merging` waits for it.
    fn save_differences(&mut self) {
        self.map.must_save();
        if self.map.has_pages_left() {
            self.store.pages();
        }
    }

    pub(crate) fn map_received(&mut self, page: u32, bits: &[u8], more: bool) {
        let Pair::Asking(verdict) = self.pair else {
            self.close_link(LinkFault::Protocol);
            return;
        };
        self.map.merge(page, bits);
        self.save_differences();
        if more {
            self.send(Body::MapAsk { from: page.saturating_add(1) }, None);
        } else {
            self.pair = Pair::Merging(verdict);
        }
    }

    /// What differs is stored here; the twin may forget it.
    fn merged(&mut self, verdict: Verdict) {
        if self.needs_twin {
            self.join();
            return;
        }
        if let Verdict::Unknown(_) = verdict {
            self.sb.base = self.sb.history.first().copied();
            self.sb.compare_all = true;
            self.sb.read_all = verdict == Verdict::Unknown(RebuildKind::FullExchanged);
        }
        let mark = self.store.superblock();
        self.pair = Pair::Basing(mark);
    }

    pub(crate) fn build_ready(&mut self) {
        if self.pair == Pair::Beginning {
            self.join();
        } else {
            self.close_link(LinkFault::Protocol);
        }
    }

    /// From now on every write goes to both sides.
    pub(crate) fn join(&mut self) {
        let Some((hello, _)) = self.link.as_ref().and_then(|link| link.hello.as_ref()) else { return };
        let (incarnation, news) = (hello.incarnation, !hello.hot.is_empty() || hello.dirty > 0);
        let first = self.unstable_at.replace(incarnation).is_none();
        self.pair = Pair::Joined;
        self.moved = true;
        let again = self.requests.writes.iter();
        let again = again.filter(|(_, writing)| writing.issued && writing.twin == Twin::NotSent);
        // One that the local disk failed is answered, and its payload gone.
        let again = again.filter(|(_, writing)| !writing.replied);
        let again = again.filter(|_| !self.config.faults.forget_resend);
        let again: Vec<u64> = again.map(|(id, _)| *id).collect();
        if self.asynchronous() {
            self.send_barrier();
        }
        for id in again {
            self.send_write(id);
        }
        if self.through {
            return;
        }
        if !self.needs_twin || news || self.map.count() > 0 {
            self.begin_rebuild();
        } else if first {
            // Nothing to copy: the twin is told all the same that its copy is equal, so that it knows (`made_equal`).
            self.finish = Some(Finish { ticket: None, stage: FinishStage::Draining { before: 0 } });
        }
    }

    /// Why a full copy that was broken off was begun, as far as this process knows.
    pub(crate) fn full_kind(&self) -> RebuildKind {
        let known = self.broken_off.map(|(kind, _)| kind).filter(|kind| *kind != RebuildKind::Fast);
        known.unwrap_or(RebuildKind::FullUnknown)
    }

    /// Begins to make the twin's copy equal, or goes on with what a break of the link ended.
    pub(crate) fn begin_rebuild(&mut self) {
        let (kind, left) = (self.rebuild_kind, self.map.count());
        let broken_off = self.broken_off.take().filter(|(was, _)| *was == kind);
        let progress = match broken_off {
            Some((_, progress)) => progress.resumed(left, self.now),
            None => Progress::new(left, self.now),
        };
        let pace = Pace::new(self.now, self.rebuild_limit());
        self.rebuild = Some(Rebuild::new(kind, progress, pace));
    }

    fn lost_unstable(&mut self) {
        let lost = self.log.take_unstable();
        if !self.config.faults.forget_unstable_on_put_out {
            for block in lost {
                self.map.set(block, 1);
            }
        }
    }

    /// The connection is gone, or this side gives it up.
    pub(crate) fn twin_lost(&mut self) {
        let was_joined = self.pair == Pair::Joined;
        self.pair = Pair::Apart;
        self.break_rebuild();
        self.break_verify();
        self.flushes.twin_lost();
        self.forget_asked();
        self.journal_lost();
        for writing in self.requests.writes.values_mut() {
            if matches!(writing.twin, Twin::Sent | Twin::Got) {
                writing.twin = Twin::NotSent;
            }
        }
        match self.finish {
            // The twin has stored it: all that is left is this side's own store.
            Some(Finish { stage: FinishStage::Storing { .. }, .. }) => {}
            Some(Finish { ticket: Some(ticket), .. }) => {
                self.finish = None;
                self.go_alone();
                self.answer(ticket, Err(OrderFault::NotEqual));
            }
            Some(Finish { ticket: None, .. }) => self.finish = None,
            None => {}
        }
        if was_joined && !self.needs_twin {
            self.go_alone();
        }
    }

    /// The twin has received a write and will write it.
    pub(crate) fn write_got(&mut self, of: u64) {
        let awaited = self.link.as_ref().and_then(|link| link.awaited.get(&of));
        let id = match awaited.copied() {
            Some(Awaited::Write(id)) => id,
            // Zeroes of a rebuild.
            Some(Awaited::Copy { zero: true, .. }) => return,
            Some(_) | None => {
                self.close_link(LinkFault::Protocol);
                return;
            }
        };
        if let Some(writing) = self.requests.writes.get_mut(&id).filter(|writing| writing.twin == Twin::Sent)
        {
            writing.twin = Twin::Got;
        }
        self.write_moved(id);
    }

    /// Acknowledges without the twin: the map remembers all that the twin may lack.
    pub(crate) fn go_alone(&mut self) {
        self.needs_twin = false;
        self.moved = true;
        self.lost_unstable();
        self.unstable_at = None;
        self.journal_lost();
        self.journal.settled();
        self.ghosts_dirty();
        let forget = self.config.faults.forget_unstable_on_put_out;
        let mut open = Vec::new();
        for (id, writing) in self.requests.writes.iter_mut().filter(|(_, writing)| writing.issued) {
            if !(forget && writing.twin == Twin::Done) {
                let (first, count) = blocks(writing.range.offset, u64::from(writing.range.length));
                self.map.set(first, count);
            }
            writing.twin = Twin::NotNeeded;
            open.push(*id);
        }
        for id in open {
            self.write_moved(id);
        }
    }

    pub(crate) fn write_twin_done(&mut self, id: u64) {
        if self.journal_written(id) {
            return;
        }
        if let Some(writing) = self.requests.writes.get_mut(&id) {
            writing.twin = Twin::Done;
        }
        self.write_moved(id);
    }

    /// `Readmit`: acknowledgements need the twin from now on.
    pub(crate) fn readmit(&mut self, ticket: Ticket) {
        if self.role != Role::Active {
            self.answer(ticket, Err(OrderFault::WrongRole));
        } else if self.needs_twin && self.equal() && self.finish.is_none() {
            self.answer(ticket, Ok(Done::Done));
        } else if self.needs_twin
            || self.finish.is_some()
            || !self.joined()
            || self.map.count() > crate::config::READMIT_BLOCKS_MAX
        {
            self.answer(ticket, Err(OrderFault::NotEqual));
        } else {
            self.needs_twin = true;
            let stage = FinishStage::Draining { before: self.next_id + 1 };
            self.finish = Some(Finish { ticket: Some(ticket), stage });
            self.moved = true;
        }
    }

    pub(crate) fn advance_finish(&mut self) {
        let Some(finish) = &mut self.finish else {
            let resumed = self.needs_twin && self.joined() && self.role == Role::Active;
            if resumed && self.rebuild.as_ref().is_some_and(|rebuild| rebuild.is_done(&self.map)) {
                let stage = FinishStage::Draining { before: 0 };
                self.finish = Some(Finish { ticket: None, stage });
                self.moved = true;
            }
            return;
        };
        // What a failed disk holds is nobody's equal.
        if self.failed.is_some()
            && !finish.is_ordered()
            && !matches!(finish.stage, FinishStage::Storing { .. })
        {
            return;
        }
        let rebuilt =
            self.rebuild.as_ref().is_none_or(|rebuild| rebuild.is_done(&self.map)) && self.map.count() == 0;
        let rebuilt = rebuilt || self.config.faults.finish_with_map;
        let next = match finish.stage {
            FinishStage::Draining { before } => {
                let oldest = self
                    .requests
                    .writes
                    .keys()
                    .next()
                    .copied()
                    .into_iter()
                    .chain(self.journal.oldest())
                    .min();
                let drained = oldest.is_none_or(|oldest| oldest >= before);
                (drained && rebuilt).then(|| FinishStage::Flushing { round: self.flushes.want_next() })
            }
            FinishStage::Flushing { round } if self.flushes.joint_done >= round && rebuilt => {
                self.sb.base = self.sb.history.first().copied();
                (self.sb.compare_all, self.sb.read_all) = (false, false);
                self.suspects.clear();
                if self.map.has_stale() {
                    self.store.pages();
                }
                Some(FinishStage::Basing { mark: self.store.superblock() })
            }
            FinishStage::Basing { mark } if self.store.reached(mark) => Some(FinishStage::Offered),
            FinishStage::Storing { mark } if self.store.reached(mark) => {
                self.finished();
                return;
            }
            FinishStage::Flushing { .. }
            | FinishStage::Basing { .. }
            | FinishStage::Offered
            | FinishStage::Storing { .. } => None,
        };
        let Some(next) = next else { return };
        finish.stage = next;
        self.moved = true;
        if next == FinishStage::Offered {
            self.send(Body::BuildDone { history: self.sb.history.clone() }, None);
        }
    }

    pub(crate) fn build_stored(&mut self) {
        match &mut self.finish {
            Some(finish) if finish.stage == FinishStage::Offered => {
                self.sb.alone = false;
                finish.stage = FinishStage::Storing { mark: self.store.superblock() };
                self.moved = true;
            }
            Some(_) | None => self.close_link(LinkFault::Protocol),
        }
    }

    fn finished(&mut self) {
        let Some(finish) = self.finish.take() else { return };
        self.moved = true;
        self.broken_off = None;
        if let Some(rebuild) = self.rebuild.take() {
            self.last_rebuild = Some(rebuild.result(self.sb.side.twin(), self.now));
        }
        if let Some(ticket) = finish.ticket {
            self.answer(ticket, Ok(Done::Done));
        }
    }

    /// Breaks off a re-admission for another order: acknowledging alone goes on if it had not ended.
    pub(crate) fn break_finish(&mut self, fault: &OrderFault) {
        if let Some(finish) = self.finish.take()
            && let Some(ticket) = finish.ticket
        {
            self.act(Action::Tell(peer::control::FromDisk::Done { ticket, result: Err(fault.clone()) }));
        }
    }

    /// Every write goes to both and no block is recorded as different.
    pub(crate) fn equal(&self) -> bool {
        if self.config.faults.finish_with_map {
            return self.joined();
        }
        self.joined()
            && !self.through
            && self.map.count() == 0
            && self.rebuild.as_ref().is_none_or(|rebuild| rebuild.is_done(&self.map))
    }
}
