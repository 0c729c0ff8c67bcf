//! Orders of the engine: each is answered exactly once.

use crate::action::{Action, LinkFault};
use crate::compare::Verdict;
use crate::input::LocalFault;
use crate::mirror::{Mirror, Op};
use crate::requests::EIO;
use crate::settle::Purpose;
use peer::control::{DiskOrder, Done, OrderFault, Role, Ticket, ToDisk};
use wire::{Epoch, Generation, NodeId, Time};

/// The twin is being put out: the new generation is on its way to the disk.
#[derive(Debug)]
pub(crate) struct PuttingOut {
    ticket: Ticket,
    mark: u64,
}

/// An orderly end of service.
#[derive(Debug)]
pub(crate) struct Deactivation {
    ticket: Ticket,
    deadline: Time,
    stage: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The front end is going down.
    Closing,
    /// Requests come to their end.
    Draining,
    /// A flush begun after that.
    Flushing { round: u64, joint: bool },
    /// The map reaches the disk.
    Saving,
    /// Log and superblock reach the disk.
    Storing { mark: u64 },
    /// It failed: the front end goes up again.
    Reopening,
}

impl Mirror {
    pub(crate) fn order(&mut self, order: ToDisk) {
        self.moved = true;
        let ticket = order.ticket;
        let fenced = self.role == Role::Fenced;
        match order.order {
            DiskOrder::LearnEpoch { epoch, holder } => self.learn(ticket, epoch, holder),
            DiskOrder::Fence => {
                self.fence();
                self.answer(ticket, Ok(Done::Done));
            }
            DiskOrder::Report | DiskOrder::Guard { .. } => {
                self.told.report = true;
                self.answer(ticket, Ok(Done::Done));
            }
            DiskOrder::Quit => self.quit(ticket),
            DiskOrder::Grant { allowed } => self.grant(ticket, allowed),
            DiskOrder::Activate { .. }
            | DiskOrder::Deactivate
            | DiskOrder::PutOut { .. }
            | DiskOrder::AllowRebuild { .. }
            | DiskOrder::Overrule { .. }
            | DiskOrder::Rebuild { .. }
            | DiskOrder::Undo { .. }
            | DiskOrder::Verify { .. }
            | DiskOrder::Readmit
            | DiskOrder::Shoulder
            | DiskOrder::Through
            | DiskOrder::Admitted
            | DiskOrder::Mode { .. }
            | DiskOrder::Lease { .. }
                if fenced =>
            {
                self.answer(ticket, Err(OrderFault::Fenced));
            }
            DiskOrder::Activate { epoch, alone, generation } => {
                self.activate(ticket, epoch, alone, generation)
            }
            DiskOrder::Deactivate => self.deactivate(ticket),
            DiskOrder::PutOut { generation } => self.put_out(ticket, generation),
            DiskOrder::AllowRebuild { allowed } => {
                self.allow_rebuild = allowed;
                self.answer(ticket, Ok(Done::Done));
            }
            DiskOrder::Overrule { replace } => self.overrule(ticket, replace),
            DiskOrder::Undo { act } => self.undo_ordered(ticket, act),
            DiskOrder::Rebuild { paused, limit } => self.pace_rebuild(ticket, paused, limit),
            DiskOrder::Verify { run, paused, limit } => self.verify_ordered(ticket, run, paused, limit),
            DiskOrder::Mode { mode } => self.mode_ordered(ticket, mode),
            DiskOrder::Readmit => self.readmit(ticket),
            DiskOrder::Shoulder => self.shoulder(ticket),
            DiskOrder::Through => self.go_through(ticket),
            DiskOrder::Admitted => self.answer(ticket, Ok(Done::Done)),
            DiskOrder::Lease { until, fence_after_us } => {
                let fits = matches!(self.role, Role::Activating | Role::Active | Role::Deactivating);
                if fits {
                    self.lease.ordered(until, fence_after_us);
                    self.advance_time();
                }
                self.answer(ticket, if fits { Ok(Done::Done) } else { Err(OrderFault::WrongRole) });
            }
        }
    }

    /// An operator pauses, resumes or limits rebuilds from this side (C7); kept in the superblock.
    fn pace_rebuild(&mut self, ticket: Ticket, paused: bool, limit: Option<u64>) {
        (self.sb.rebuild_paused, self.sb.rebuild_limit) = (paused, limit.unwrap_or_default());
        self.store.superblock();
        let limit = self.rebuild_limit();
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.pace.set_limit(limit);
        }
        self.told.report = true;
        self.answer(ticket, Ok(Done::Done));
    }

    fn stored_epoch_refuses(&self, epoch: Epoch, holder: NodeId) -> bool {
        epoch < self.sb.epoch
            || (epoch == self.sb.epoch && self.sb.holder.is_some_and(|known| known != holder))
    }

    fn learn(&mut self, ticket: Ticket, epoch: Epoch, holder: NodeId) {
        if self.stored_epoch_refuses(epoch, holder) {
            self.answer(ticket, Err(OrderFault::StaleEpoch { stored: self.sb.epoch }));
            return;
        }
        if epoch == self.sb.epoch && self.sb.holder == Some(holder) && self.settle.is_idle() {
            self.answer(ticket, Ok(Done::Done));
            return;
        }
        let own_next = self.role == Role::Activating && holder == self.sb.side;
        if epoch > self.sb.epoch && !own_next {
            if self.role != Role::Standby {
                // Another term has begun: this one ends before anything is answered.
                self.fence();
            }
            self.close_link(LinkFault::Stale);
        }
        self.settle.ask(Purpose::Learn { ticket, epoch, holder });
    }

    fn activate(&mut self, ticket: Ticket, epoch: Epoch, alone: bool, generation: Generation) {
        let me = self.sb.side;
        let refused = if self.stored_epoch_refuses(epoch, me) {
            Some(OrderFault::StaleEpoch { stored: self.sb.epoch })
        } else if self.role == Role::Active && epoch == self.sb.epoch && alone != self.needs_twin {
            self.answer(ticket, Ok(Done::Done));
            return;
        } else if self.role != Role::Standby || self.leaving {
            Some(OrderFault::WrongRole)
        } else if !self.sb.consistent {
            Some(OrderFault::Inconsistent)
        } else if let Some(reason) = &self.failed {
            Some(OrderFault::Io { reason: reason.clone() })
        } else if (!alone && self.sb.history.is_empty())
            || self.overruled.is_none() && self.verdict() == Some(Verdict::Ahead)
        {
            // Without a first generation nothing can be in sync; and an out-of-date copy is never activated without force.
            Some(OrderFault::NotEqual)
        } else {
            None
        };
        if let Some(fault) = refused {
            self.answer(ticket, Err(fault));
            return;
        }
        self.role = Role::Activating;
        self.shouldered = false;
        self.needs_twin = !alone;
        self.lease = self.lease.fresh();
        self.close_link(LinkFault::Restart);
        self.settle.ask(Purpose::Activate { ticket, epoch, alone, generation });
    }

    /// Epoch, session and generation are stored: the front end may go up.
    pub(crate) fn activation_stored(&mut self, ticket: Ticket, alone: bool) {
        self.needs_twin = !alone;
        self.mode_stored();
        self.alone_at = self.now;
        self.activation = Some(ticket);
        let op = self.begin(Op::FrontOpen);
        self.act(Action::OpenFrontEnd { op });
    }

    pub(crate) fn front_opened(&mut self, fault: Option<LocalFault>) {
        let reopening = self.deactivation.take_if(|ending| ending.stage == Ending::Reopening);
        if let Some(ending) = reopening {
            if self.role == Role::Deactivating {
                self.role = Role::Active;
            }
            let disk = self.failed.clone().map(|reason| OrderFault::Io { reason });
            self.answer(ending.ticket, Err(disk.unwrap_or(OrderFault::NotEqual)));
            return;
        }
        let Some(ticket) = self.activation.take() else { return };
        if self.role != Role::Activating {
            self.answer(ticket, Err(OrderFault::Fenced));
            return;
        }
        if let Some(fault) = fault {
            self.role = Role::Standby;
            self.needs_twin = true;
            self.sb.active = false;
            self.store.superblock();
            for (request, _) in std::mem::take(&mut self.requests.held) {
                self.act(Action::Reply { request, errno: EIO });
            }
            let reason = format!("the block device did not come up: errno {}", fault.errno);
            self.answer(ticket, Err(OrderFault::Io { reason }));
            return;
        }
        self.role = Role::Active;
        self.next_cool = self.now.plus(self.config.timing.cool_us);
        self.answer(ticket, Ok(Done::Done));
    }

    fn put_out(&mut self, ticket: Ticket, generation: Generation) {
        // Both copies are flushed and equal by then: the twin is needed for nothing more.
        let left =
            self.deactivation.as_ref().is_some_and(|ending| matches!(ending.stage, Ending::Storing { .. }));
        if !self.serving() || self.putting_out.is_some() || left || self.through {
            self.answer(ticket, Err(OrderFault::WrongRole));
            return;
        }
        if !self.needs_twin {
            self.answer(ticket, Ok(Done::Done));
            return;
        }
        self.break_finish(&OrderFault::NotEqual);
        self.new_generation(generation);
        let mark = self.store.superblock();
        self.putting_out = Some(PuttingOut { ticket, mark });
        self.close_link(LinkFault::Restart);
    }

    pub(crate) fn advance_putting_out(&mut self) {
        let (store, hasty) = (&self.store, self.config.faults.alone_before_stored);
        let Some(done) = self.putting_out.take_if(|putting| hasty || store.reached(putting.mark)) else {
            return;
        };
        self.moved = true;
        self.alone_at = self.now;
        self.go_alone();
        self.answer(done.ticket, Ok(Done::Done));
    }

    fn deactivate(&mut self, ticket: Ticket) {
        let fault = match self.role {
            Role::Standby => {
                self.answer(ticket, Ok(Done::Done));
                return;
            }
            Role::Activating | Role::Deactivating | Role::Fenced => Some(OrderFault::WrongRole),
            Role::Active if self.putting_out.is_some() => Some(OrderFault::WrongRole),
            Role::Active => None,
        };
        if let Some(fault) = fault {
            self.answer(ticket, Err(fault));
            return;
        }
        self.role = Role::Deactivating;
        let deadline = self.now.plus(self.config.timing.deactivate_us);
        self.deactivation = Some(Deactivation { ticket, deadline, stage: Ending::Closing });
        let op = self.begin(Op::FrontClose);
        self.act(Action::CloseFrontEnd { op, abort: false });
    }

    pub(crate) fn front_closed(&mut self, fault: Option<LocalFault>) {
        if fault.is_none() {
            if let Some(ending) = &mut self.deactivation {
                ending.stage = Ending::Draining;
            }
            return;
        }
        if let Some(ending) = self.deactivation.take() {
            self.role = Role::Active;
            self.answer(ending.ticket, Err(OrderFault::InUse));
        }
    }

    pub(crate) fn advance_deactivation(&mut self) {
        let Some(ending) = &self.deactivation else { return };
        let (stage, ticket, late) = (ending.stage, ending.ticket, self.now >= ending.deadline);
        let joint = self.joined();
        let next = match stage {
            Ending::Closing | Ending::Reopening => None,
            Ending::Draining => {
                let in_sync = !self.needs_twin || (joint && self.map.count() == 0 && self.finish.is_none());
                let in_sync = in_sync || joint && self.through;
                // A new generation is stored before anything counts from it.
                let in_sync = in_sync && self.putting_out.is_none();
                let owes = !self.journal.idle();
                let drained = self.requests.idle() && self.flushes.idle() && !owes && in_sync;
                drained.then(|| Ending::Flushing { round: self.flushes.want_next(), joint })
            }
            // The link came or went meanwhile, or the twin is being put out: again.
            Ending::Flushing { joint: was, .. } if was != joint => Some(Ending::Draining),
            Ending::Flushing { .. } | Ending::Saving if self.putting_out.is_some() => Some(Ending::Draining),
            Ending::Flushing { round, .. } if self.through && self.flushes.done >= round => {
                // The twin has it all. Nothing of this copy is to be kept: only a fresh process is a standby again.
                self.deactivation = None;
                self.answer(ticket, Ok(Done::Done));
                self.fence();
                return;
            }
            Ending::Flushing { round, .. } => (self.flushes.done >= round).then_some(Ending::Saving),
            Ending::Saving if self.map.has_stale() => {
                if self.store.is_idle() {
                    self.store.pages();
                    self.moved = true;
                }
                None
            }
            Ending::Saving if self.log.stable() => {
                self.log.clear();
                self.store.log();
                self.sb.active = false;
                Some(Ending::Storing { mark: self.store.superblock() })
            }
            Ending::Saving => Some(Ending::Draining),
            Ending::Storing { mark } if self.store.reached(mark) => {
                self.deactivation = None;
                self.deactivated();
                self.answer(ticket, Ok(Done::Done));
                return;
            }
            Ending::Storing { .. } => None,
        };
        let early = matches!(stage, Ending::Draining | Ending::Flushing { .. });
        let failed = early && (late || self.failed.is_some() && !self.through);
        let next = if failed { Some(Ending::Reopening) } else { next };
        if let (Some(next), Some(ending)) = (next, &mut self.deactivation) {
            ending.stage = next;
            self.moved = true;
        }
        if failed {
            let op = self.begin(Op::FrontOpen);
            self.act(Action::OpenFrontEnd { op });
        }
    }

    fn deactivated(&mut self) {
        self.role = Role::Standby;
        self.needs_twin = true;
        // Runs in flight give their claims back: the next term of this process would wait for them for ever.
        self.break_rebuild();
        self.broken_off = None;
        self.suspects.clear();
        // Left in order, nothing is unstable anywhere: whichever life of the twin comes next has it all.
        self.unstable_at = None;
        self.journal.settled();
        self.lease = self.lease.fresh();
        self.close_link(LinkFault::Restart);
        self.moved = true;
    }

    pub(crate) fn put_off_deactivation(&mut self) {
        let deadline = self.now.plus(self.config.timing.deactivate_us);
        if let Some(ending) = self.deactivation.as_mut().filter(|ending| ending.stage == Ending::Draining) {
            ending.deadline = deadline;
        }
    }

    pub(crate) fn deactivation_deadline(&self) -> Option<Time> {
        let ending = self.deactivation.as_ref()?;
        matches!(ending.stage, Ending::Draining | Ending::Flushing { .. }).then_some(ending.deadline)
    }

    fn grant(&mut self, ticket: Ticket, allowed: bool) {
        self.lease.granting = allowed;
        let done = if allowed { Done::Done } else { Done::GrantStopped { last: self.lease.last_grant } };
        self.answer(ticket, Ok(done));
    }

    fn quit(&mut self, ticket: Ticket) {
        match self.role {
            Role::Activating | Role::Active | Role::Deactivating => {
                self.answer(ticket, Err(OrderFault::WrongRole));
            }
            Role::Standby | Role::Fenced => {
                self.leave();
                self.answer(ticket, Ok(Done::Done));
                self.act(Action::Exit);
            }
        }
    }

    /// The right is lost: every request fails, nothing is served or sent any more.
    pub(crate) fn fence(&mut self) {
        if self.role == Role::Fenced {
            return;
        }
        let serving = self.role != Role::Standby;
        self.role = Role::Fenced;
        self.moved = true;
        if self.linked() {
            self.send(peer::block::Body::Leaving, None);
        }
        self.break_finish(&OrderFault::Fenced);
        self.close_link(LinkFault::Restart);
        let mut tickets = self.settle.forget_activations();
        tickets.extend(self.activation.take());
        tickets.extend(self.putting_out.take().map(|putting| putting.ticket));
        tickets.extend(std::mem::take(&mut self.shouldering).into_iter().map(|(ticket, _)| ticket));
        tickets.extend(self.deactivation.take().map(|ending| ending.ticket));
        for ticket in tickets {
            self.answer(ticket, Err(OrderFault::Fenced));
        }
        self.fail_requests();
        if serving {
            self.act(Action::Fenced);
        }
    }

    /// Answers every request with an error; local operations come to their end unseen.
    fn fail_requests(&mut self) {
        let requests = std::mem::take(&mut self.requests);
        let writes = requests.writes.into_values().filter(|writing| !writing.replied);
        let mut all: Vec<_> = writes.map(|writing| writing.request).collect();
        all.extend(requests.reads.into_values().map(|(request, _, _)| request));
        for mend in requests.mends.into_values() {
            all.extend(mend.request);
            self.drop_payload(mend.payload());
        }
        all.extend(requests.held.into_iter().map(|(request, _)| request));
        all.extend(requests.unsure.into_iter().map(|(request, _, _)| request));
        all.extend(requests.held_replies.into_iter().map(|(request, _)| request));
        all.extend(self.flushes.take_all());
        all.extend(self.journal.take_flushes());
        self.journal.settled();
        for request in all {
            self.act(Action::Reply { request, errno: EIO });
        }
        self.ops
            .retain(|_, op| !matches!(op, Op::Write | Op::Read | Op::Mend | Op::Round(_) | Op::LocalRound));
        self.granted.clear();
    }
}
