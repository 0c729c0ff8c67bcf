//! A register that never errs, and for each side an engine that acts on it: correctly, and at the worst moments.
//!
//! The register is one value, changed in one step (its own protocol has `register_model`). What is adversarial is
//! everything around it: when a side learns of a change, whether the order that follows arrives, what the other side
//! does meanwhile, and that the lease of a deposed holder still runs.

use super::{Event, World};
use crate::oracle::Hosts;
use crate::queue::Instant;
use mirror::Input;
use peer::control::{DiskOrder, DiskStatus, Done, FromDisk, OrderFault, Role, Ticket, ToDisk, UndoAct};
use std::collections::BTreeMap;
use std::rc::Rc;
use wire::traffic::WriteMode;
use wire::{Epoch, Generation, Incarnation, NodeId, Time};

/// Microseconds between two looks of an engine.
const LOOK: (u64, u64) = (1_000, 12_000);
/// From the end of the lease to the fence.
const FENCE_AFTER: u64 = 40_000;
/// Room between a lease's certain end and a promotion.
const MARGIN: u64 = 2_000;

/// What the register says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Register {
    pub(super) epoch: u64,
    pub(super) holder: Option<usize>,
    pub(super) in_sync: [bool; 2],
    /// The latest end of a lease that any holder was given.
    lease_end: Instant,
}

impl Register {
    /// The sides in sync, as the oracle counts them.
    pub(super) fn copies(&self) -> Hosts {
        u8::from(self.in_sync[0]) | u8::from(self.in_sync[1]) << 1
    }

    pub(super) fn both(&self) -> bool {
        self.in_sync == [true; 2]
    }
}

/// A node process.
#[derive(Default)]
pub(super) struct Node {
    away_until: Instant,
    away: bool,
    status: Option<Rc<DiskStatus>>,
    waits: BTreeMap<Ticket, Waits>,
    /// Re-admission was begun and is not decided; who lived at that moment.
    pending: Option<Lives>,
    /// What this disk process was last told of the rebuild and of grants.
    allowed: bool,
    granting: bool,
    suspect: Option<Suspect>,
}

/// Both hosts' lives, the holder's disk process, and that of the twin where it counts.
type Lives = ([Incarnation; 2], u64, u64);

/// How far a standby is on its way to promote itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspect {
    /// The disk process is to stop renewing the lease.
    Stopping,
    /// Until the holder's lease has certainly ended.
    Waiting(Instant),
}

/// What an order was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    Activate { epoch: u64 },
    Deactivate,
    PutOut,
    Readmit,
    StopGrants,
    Undo,
    Shoulder,
    Other,
}

impl World {
    pub(super) fn node_present(&self, side: usize) -> bool {
        !self.sides[side].node.away
    }

    /// The node process goes away for a time.
    pub(super) fn node_goes(&mut self, side: usize, long: u64) {
        let until = self.queue.now() + long;
        let node = &mut self.sides[side].node;
        (node.away, node.away_until) = (true, node.away_until.max(until));
        self.node_lost(side);
        let kept = self.rng.below(3) as usize;
        if let Some(process) = &mut self.sides[side].process {
            process.orders.truncate(kept);
            process.told.clear();
        }
        self.input(side, Input::NodePresent(false));
    }

    /// What a node process knew in memory is gone.
    pub(super) fn node_lost(&mut self, side: usize) {
        let node = &mut self.sides[side].node;
        node.status = None;
        node.waits.clear();
        (node.allowed, node.granting, node.suspect) = (false, false, None);
    }

    /// The disk process of a side is gone.
    pub(super) fn process_gone(&mut self, side: usize) {
        self.node_lost(side);
        let pending = self.sides[side].node.pending.is_some() && self.register.holder == Some(side);
        if pending && self.rng.percent(40) {
            self.choose_both(side);
        }
    }

    pub(super) fn order(&mut self, side: usize, order: DiskOrder, waits: Waits) {
        let ticket = Ticket(self.fresh());
        let at = self.queue.now() + self.socket_delay();
        let Some(process) = &mut self.sides[side].process else { return };
        let at = process.orders.back().map_or(at, |(last, _)| at.max(*last));
        process.orders.push_back((at, ToDisk { ticket, order }));
        let number = process.number;
        self.sides[side].node.waits.insert(ticket, waits);
        self.queue.at(at, Event::Order { side, process: number });
    }

    /// An order comes out of the socket.
    pub(super) fn order_arrives(&mut self, side: usize, number: u64) {
        let now = self.queue.now();
        let Some(process) = self.process(side, number) else { return };
        if process.orders.front().is_none_or(|(at, _)| *at > now) {
            return;
        }
        let Some((_, order)) = process.orders.pop_front() else { return };
        self.input(side, Input::Order(order));
    }

    /// The disk process's word arrives at its node process.
    pub(super) fn told_arrives(&mut self, side: usize, number: u64) {
        let now = self.queue.now();
        let Some(process) = self.process(side, number) else { return };
        if process.told.front().is_none_or(|(at, _)| *at > now) {
            return;
        }
        let Some((_, told)) = process.told.pop_front() else { return };
        match told {
            FromDisk::Status(status) => {
                self.sides[side].node.status = Some(Rc::from(status));
            }
            FromDisk::Done { ticket, result } => self.done(side, ticket, result),
        }
    }

    fn done(&mut self, side: usize, ticket: Ticket, result: Result<Done, OrderFault>) {
        // An order of a node process that is no more: its result is nobody's.
        let Some(waits) = self.sides[side].node.waits.remove(&ticket) else { return };
        match (waits, result) {
            (Waits::Activate { .. }, Ok(_)) => self.switches += 1,
            (Waits::Activate { epoch }, Err(fault)) => {
                let ours = self.register.holder == Some(side) && self.register.epoch == epoch;
                let expected =
                    matches!(fault, OrderFault::Fenced | OrderFault::Io { .. } | OrderFault::WrongRole);
                if ours && !expected {
                    self.fail(format!("side {} holds and cannot be activated: {fault:?}", side + 1));
                }
            }
            (Waits::Readmit, Ok(_)) => {
                self.rebuilds += 1;
                self.take_for_truth(side);
                self.sides[side].node.pending = Some(self.lives(side));
            }
            (Waits::Deactivate, Ok(_)) => self.hand_over(side),
            (Waits::StopGrants, Ok(Done::GrantStopped { last })) => {
                let last = last.map_or(0, |last| last.0 + self.timing.lease_us);
                let until = self.register.lease_end.max(last) + FENCE_AFTER + MARGIN;
                self.sides[side].node.suspect = Some(Suspect::Waiting(until));
            }
            (Waits::Shoulder, Ok(_)) => self.leave_out(1 - side),
            (Waits::StopGrants, _) => self.sides[side].node.suspect = None,
            (
                Waits::PutOut
                | Waits::Readmit
                | Waits::Deactivate
                | Waits::Undo
                | Waits::Shoulder
                | Waits::Other,
                _,
            ) => {}
        }
    }

    /// One look of a side's engine.
    pub(super) fn engine(&mut self, side: usize) {
        let delay = self.rng.range(LOOK.0, LOOK.1);
        self.queue.after(delay, Event::Engine { side });
        let now = self.queue.now();
        let node = &mut self.sides[side].node;
        if node.away {
            if now < node.away_until {
                return;
            }
            node.away = false;
            self.input(side, Input::NodePresent(true));
            return;
        }
        let Some(process) = &self.sides[side].process else { return };
        let left_out = self.register.holder == Some(side) && !self.register.in_sync[side];
        if process.has_failed() && !(left_out && process.mirror.role() == Role::Active) {
            if process.mirror.would_go_through() && self.asks_out(side) {
                return;
            }
            // A host whose disk fails is taken out of service and comes back with a good one of the same content.
            if self.rng.percent(15) {
                self.power_lost(side);
            }
            return;
        }
        if process.fenced || process.mirror.role() == Role::Fenced {
            if self.rng.percent(30) {
                self.process_ends(side, "ends, fenced");
            }
            return;
        }
        let Some(status) = self.sides[side].node.status.clone() else { return };
        self.order_mode(side, &status);
        if self.sides[side]
            .node
            .waits
            .values()
            .any(|waits| !matches!(waits, Waits::Other | Waits::StopGrants))
        {
            return;
        }
        match self.register.holder {
            None if side == 0 => {
                self.register.epoch = 1;
                self.register.holder = Some(0);
                self.register.in_sync = [true, false];
                self.note_register();
            }
            None => {}
            Some(holder) if holder == side => {
                if status.role == Role::Active && self.rng.percent(10) {
                    let paused = self.rng.percent(10);
                    let order =
                        DiskOrder::Verify { run: !self.rng.percent(10), paused, limit: Some(1 << 30) };
                    self.order(side, order, Waits::Other);
                }
                self.holder_looks(side, &status);
            }
            Some(_) => self.standby_looks(side, &status),
        }
    }

    fn note_register(&mut self) {
        let register = self.register;
        let name = |side: usize| side + 1;
        self.say(|| {
            let in_sync: Vec<usize> = (0..2).filter(|side| register.in_sync[*side]).map(name).collect();
            format!(
                "register: epoch {} holder {:?} in sync {in_sync:?}",
                register.epoch,
                register.holder.map(name)
            )
        });
    }

    /// The twin has made this copy equal: it has everything that was acknowledged, whatever its host lost before. Its node
    /// process would say so in its heartbeats; one that is away (ARCHITECTURE, "open") is no matter of the mirror.
    pub(super) fn made_equal(&mut self, side: usize) {
        (self.sides[side].whole, self.sides[side].behind) = (true, false);
        self.prefix.shaken[side] = false;
        let held = self.register.both() && self.register.holder == Some(1 - side);
        if held && self.sides[1 - side].process.is_some() {
            self.take_for_truth(1 - side);
            self.both_have_all();
        }
    }

    /// Both copies are equal: each has everything that was acknowledged, an asynchronous one but for what comes since.
    pub(super) fn both_have_all(&mut self) {
        if !self.asynchronous() {
            self.oracle.in_sync();
        }
    }

    /// It may lack what the other one, which counts as in sync too, has; or that one has served since both lost power, and
    /// what was shown then is not here yet.
    fn is_worse(&self, side: usize) -> bool {
        let (here, there) = (&self.sides[side], &self.sides[1 - side]);
        self.register.both() && (!here.whole && there.whole || here.behind)
    }

    fn generation(&mut self) -> Generation {
        Generation(self.rng.id())
    }

    fn activate(&mut self, side: usize) {
        let generation = self.generation();
        let alone = !self.register.in_sync[1 - side] && self.sides[side].node.pending.is_none();
        let epoch = self.register.epoch;
        self.order(
            side,
            DiskOrder::Activate { epoch: Epoch(epoch), alone, generation },
            Waits::Activate { epoch },
        );
    }

    /// The holder's lease: without limit while it is alone, else as long as its twin grants.
    fn lease(&mut self, side: usize) {
        let alone = !self.register.in_sync[1 - side] && self.sides[side].node.pending.is_none();
        if alone {
            self.order(side, DiskOrder::Lease { until: None, fence_after_us: FENCE_AFTER }, Waits::Other);
        } else {
            self.limited_lease(side);
        }
    }

    fn limited_lease(&mut self, side: usize) {
        let twin = &self.sides[1 - side].node;
        if !self.register.in_sync[1 - side] || (twin.suspect.is_none() && !twin.away) {
            let until = self.queue.now() + self.timing.lease_us;
            self.register.lease_end = self.register.lease_end.max(until);
            let until = Some(Time(until));
            self.order(side, DiskOrder::Lease { until, fence_after_us: FENCE_AFTER }, Waits::Other);
        }
    }

    fn holder_looks(&mut self, side: usize, status: &Rc<DiskStatus>) {
        let calm = self.calm_since.is_some();
        match status.role {
            // Its copy was left out: only the twin may go on.
            Role::Standby if !self.register.in_sync[side] => {}
            Role::Standby => {
                if !self.sides[side].whole {
                    // What it began to propose it finishes, unless its copy has become the worse one.
                    self.sides[side].node.pending = None;
                }
                let hesitates = !calm && self.register.both() && self.rng.percent(50);
                if !self.is_worse(side) && status.failed.is_none() && !hesitates {
                    self.activate(side);
                    self.lease(side);
                }
            }
            Role::Active => {
                if self.rng.percent(if status.lease.is_some() { 40 } else { 8 }) {
                    self.lease(side);
                }
                if !calm && self.rng.per_mille(2) {
                    self.order(side, DiskOrder::Fence, Waits::Other);
                } else if !self.register.in_sync[side] {
                    self.holder_through(side, status);
                } else if self.register.both() {
                    self.holder_in_sync(side, status);
                } else {
                    self.holder_alone(side, status);
                }
            }
            Role::Activating | Role::Deactivating => {
                if self.rng.percent(40) {
                    self.lease(side);
                }
            }
            Role::Fenced => {}
        }
    }

    /// The holder's disk refuses what it is asked: it asks its twin to be left out, and goes on through it.
    fn asks_out(&mut self, side: usize) -> bool {
        let (here, there) = (&self.sides[side], &self.sides[1 - side]);
        let sound = there.whole && !there.behind && there.node.suspect.is_none() && !there.node.away;
        let healthy = there.process.as_ref().is_some_and(|process| !process.has_failed() && !process.fenced);
        let served = here.process.as_ref().is_some_and(|process| process.opened.is_none());
        let able = self.register.holder == Some(side) && self.register.both() && here.node.pending.is_none();
        if !able || !sound || !healthy || !served || !self.rng.percent(80) {
            return false;
        }
        let asked = there.node.waits.values().any(|waits| *waits == Waits::Shoulder);
        if !asked {
            self.order(1 - side, DiskOrder::Shoulder, Waits::Shoulder);
        }
        true
    }

    /// The twin has stored that it may be the only copy: the register leaves the holder's out, while it goes on to hold.
    fn leave_out(&mut self, holder: usize) {
        let twin = 1 - holder;
        if self.register.holder != Some(holder)
            || !self.register.both()
            || self.sides[twin].node.suspect.is_some()
        {
            return;
        }
        self.register.in_sync[holder] = false;
        self.oracle.restricted(1 << twin, 0);
        self.note_register();
    }

    /// The holder's copy is out: it serves through its twin, until it lets go.
    fn holder_through(&mut self, side: usize, status: &DiskStatus) {
        let calm = self.calm_since.is_some();
        let twin = self.sides[1 - side].process.as_ref();
        let apart = twin.is_none_or(super::Process::has_failed) || !status.linked;
        if !status.through {
            self.order(side, DiskOrder::Through, Waits::Other);
        } else if apart && self.rng.percent(20) {
            self.order(side, DiskOrder::Fence, Waits::Other);
        } else if self.rng.per_mille(if calm { 200 } else { 10 }) {
            self.order(side, DiskOrder::Deactivate, Waits::Deactivate);
        }
    }

    fn holder_in_sync(&mut self, side: usize, status: &DiskStatus) {
        let calm = self.calm_since.is_some();
        let twin = 1 - side;
        let reborn = status.linked
            && status
                .twin_incarnation
                .is_some_and(|known| !self.sides[twin].whole && known == self.sides[twin].incarnation);
        let down = self.sides[twin].process.is_none();
        let stuck = !status.linked || status.waiting_since.is_some();
        let unequal = status.linked
            && !status.equal
            && (status.dirty_blocks == 0 || self.asynchronous())
            && !status.rebuild.is_some_and(|r| r.running);
        let percent = match (down, stuck, calm) {
            _ if reborn => 20,
            (true, _, _) => 30,
            (false, true, false) => 6,
            (false, true, true) => 1,
            (false, false, _) if unequal => 3,
            (false, false, _) => 0,
        };
        let any = !calm && self.rng.per_mille(4);
        if self.rng.percent(percent) || any {
            self.put_out(side);
        } else if !calm && self.rng.per_mille(8) {
            self.order(side, DiskOrder::Deactivate, Waits::Deactivate);
        }
    }

    /// The register chooses the holder alone; the order follows, if this process lives to send it.
    fn put_out(&mut self, side: usize) {
        self.register.in_sync[1 - side] = false;
        self.sides[side].node.pending = None;
        self.oracle.restricted(1 << side, 0);
        self.note_register();
        self.order_put_out(side);
    }

    fn order_put_out(&mut self, side: usize) {
        let generation = self.generation();
        self.order(side, DiskOrder::PutOut { generation }, Waits::PutOut);
    }

    fn holder_alone(&mut self, side: usize, status: &DiskStatus) {
        let calm = self.calm_since.is_some();
        if self.sides[side].node.pending.is_some() {
            if self.rng.percent(40) {
                self.choose_both(side);
            } else if !calm && self.rng.percent(10) {
                self.put_out(side);
            }
            return;
        }
        let there = self.sides[1 - side].process.is_some();
        let allowed = self.sides[side].node.allowed;
        if status.needs_twin {
            self.order_put_out(side);
        } else if there && status.linked && !allowed && self.rng.percent(30) {
            self.allow(side, true);
        } else if allowed && (!there || !calm && self.rng.percent(2)) {
            self.allow(side, false);
        } else if status.equal && self.rng.percent(60) {
            // From its accept phase on the holder's right is bounded: so is its lease, before it begins.
            self.limited_lease(side);
            self.order(side, DiskOrder::Readmit, Waits::Readmit);
        }
    }

    fn allow(&mut self, side: usize, allowed: bool) {
        self.sides[side].node.allowed = allowed;
        self.order(side, DiskOrder::AllowRebuild { allowed }, Waits::Other);
    }

    /// Re-admission is chosen.
    fn choose_both(&mut self, side: usize) {
        let Some(then) = self.sides[side].node.pending.take() else { return };
        self.register.in_sync = [true; 2];
        if then == self.lives(side) && self.sides[1 - side].whole {
            self.take_for_truth(side);
            self.both_have_all();
        }
        self.note_register();
        self.order(side, DiskOrder::Admitted, Waits::Other);
    }

    fn lives(&self, holder: usize) -> Lives {
        let process = |side: usize| self.sides[side].process.as_ref().map_or(0, |process| process.number);
        // What a standby's process promised ends with it.
        let promises = self.options.mode == WriteMode::SemiSynchronous || self.options.changing;
        let twin = if promises { process(1 - holder) } else { 0 };
        ([self.sides[0].incarnation, self.sides[1].incarnation], process(holder), twin)
    }

    /// A deactivation is done: in sync, the other side takes the group; alone, this one may begin again.
    fn hand_over(&mut self, side: usize) {
        if self.register.holder != Some(side) {
            return;
        }
        self.register.epoch += 1;
        if !self.register.in_sync[side] || self.register.both() && self.rng.percent(80) {
            self.register.holder = Some(1 - side);
        }
        self.note_register();
    }

    fn standby_looks(&mut self, side: usize, status: &Rc<DiskStatus>) {
        let calm = self.calm_since.is_some();
        let holder = 1 - side;
        let epoch = Epoch(self.register.epoch);
        if status.role != Role::Standby || self.rng.percent(3) {
            self.order(side, DiskOrder::LearnEpoch { epoch, holder: NodeId(holder as u8 + 1) }, Waits::Other);
            return;
        }
        if !calm && self.rng.per_mille(2) {
            self.order(side, DiskOrder::Quit, Waits::Other);
            return;
        }
        if !calm && self.wants_undo(side, status) {
            return;
        }
        if !self.sides[side].node.granting && self.sides[side].node.suspect.is_none() {
            self.sides[side].node.granting = true;
            self.order(side, DiskOrder::Grant { allowed: true }, Waits::Other);
        }
        let able = self.register.in_sync[side] && !self.is_worse(side) && status.failed.is_none();
        let suspect = self.sides[side].node.suspect;
        match suspect {
            None if able && self.wants_promotion(side, status) => {
                self.sides[side].node.suspect = Some(Suspect::Stopping);
                self.sides[side].node.granting = false;
                self.order(side, DiskOrder::Grant { allowed: false }, Waits::StopGrants);
            }
            Some(Suspect::Waiting(until)) if self.queue.now() >= until => {
                self.sides[side].node.suspect = None;
                let again = !self.is_worse(holder) && self.rng.percent(if calm { 50 } else { 15 });
                if able && !again {
                    self.promote(side);
                }
            }
            Some(_) if !able => self.sides[side].node.suspect = None,
            None | Some(_) => {}
        }
    }

    /// An operator's word, now and then where the source is gone: the copy is to be what it was, or never that again.
    fn wants_undo(&mut self, side: usize, status: &DiskStatus) -> bool {
        let out = !self.register.in_sync[side] && status.undo.is_some_and(|undo| !undo.returning);
        let gone = self.sides[1 - side].process.is_none();
        let percent = if gone { 50 } else { 15 };
        if !out || status.linked || !self.rng.percent(percent) {
            return false;
        }
        let act = if self.rng.percent(90) { UndoAct::Back } else { UndoAct::Drop };
        self.order(side, DiskOrder::Undo { act }, Waits::Undo);
        true
    }

    fn wants_promotion(&mut self, side: usize, status: &DiskStatus) -> bool {
        let holder = 1 - side;
        let calm = self.calm_since.is_some();
        let frozen = self.sides[holder].frozen_until > self.queue.now();
        let failed = self.sides[holder].process.as_ref().is_some_and(super::Process::has_failed);
        let per_mille = match self.sides[holder].process.is_none() {
            _ if self.is_worse(holder) => 500,
            true => 200,
            false if failed && self.register.both() => 200,
            false if !self.register.in_sync[holder] && self.role(holder) != Role::Active => 200,
            false if frozen || self.sides[holder].node.away => 60,
            false if calm => 0,
            false if !status.linked => 15,
            false => 2,
        };
        self.rng.per_mille(per_mille)
    }

    /// The register chooses this side alone, in a new epoch.
    fn promote(&mut self, side: usize) {
        self.register.epoch += 1;
        self.register.holder = Some(side);
        self.register.in_sync[1 - side] = false;
        self.sides[0].node.pending = None;
        self.sides[1].node.pending = None;
        if self.asynchronous() {
            self.oracle.forgive();
        } else {
            self.oracle.restricted(1 << side, 0);
        }
        self.note_register();
        self.activate(side);
        self.lease(side);
    }

    /// Which order a ticket was for, for the check at its end.
    pub(super) fn is_activation(&self, side: usize, ticket: Ticket) -> bool {
        matches!(self.sides[side].node.waits.get(&ticket), Some(Waits::Activate { .. }))
    }

    pub(super) fn is_put_out(&self, side: usize, ticket: Ticket) -> bool {
        self.sides[side].node.waits.get(&ticket) == Some(&Waits::PutOut)
    }

    pub(super) fn is_deactivation(&self, side: usize, ticket: Ticket) -> bool {
        self.sides[side].node.waits.get(&ticket) == Some(&Waits::Deactivate)
    }
}

impl Node {
    /// The node process comes back at the next look.
    pub(super) fn ends_away(&mut self) {
        self.away_until = 0;
    }
}

impl super::Side {
    /// Re-admission of the twin is begun and not decided.
    pub(super) fn node_pending(&self) -> bool {
        self.node.pending.is_some() || self.node.waits.values().any(|waits| *waits == Waits::Readmit)
    }
}
