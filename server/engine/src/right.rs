//! What a group asks of its register, and when: taking, promotion, putting the twin out, re-admission, hand-over.

use crate::action::StartCause;
use crate::core::Core;
use crate::group::{Group, Readmission, role};
use crate::input::Party;
use crate::plan::Target;
use crate::register::{Acks, Change, Effect, Proposal, Servers};
use crate::sets::{GrantStop, What};
use crate::timing::{self, step};
use peer::cluster::{ClusterMessage, RegisterMessage};
use peer::control::{DiskOrder, Role};
use peer::heartbeat::{Mode, Part, Wanted};
use wire::alert::EventKind;
use wire::view::ServerState;
use wire::{NodeId, Time};

impl Group {
    /// Proposes what is due, repeats what is unanswered, gives up what is no longer wanted.
    pub fn drive_register(&mut self, core: &mut Core, aim: Option<NodeId>) {
        let wanted = self.due_change(core, aim);
        let effects = match (self.register.proposing(), wanted) {
            (Some(under_way), Some(change)) if under_way == change => {
                if core.now < self.repeat_at {
                    return;
                }
                self.repeat_at = core.now.plus(timing::REPEAT);
                self.register.repeat()
            }
            (_, Some(change)) => {
                if core.now < self.retry_at {
                    return;
                }
                self.repeat_at = core.now.plus(timing::REPEAT);
                self.register.propose(change)
            }
            (Some(_), None) => {
                self.register.give_up();
                return;
            }
            (None, None) => return,
        };
        self.apply_effects(core, effects);
    }

    /// The change that the register should see next.
    fn due_change(&mut self, core: &mut Core, aim: Option<NodeId>) -> Option<Change> {
        let known = self.register.known();
        let (me, twin) = (core.me, core.twin_id);
        if let Some(force) = self.due_force(core) {
            return Some(force);
        }
        let handing_over = self.register.pending().iter().any(|p| p.value.holder == Some(twin));
        let mine = known.holder == Some(me);
        if !mine || handing_over {
            self.readmission = Readmission::Idle;
        }
        if known.holder.is_none() {
            let take = aim == Some(me) && known.in_sync.contains(me);
            return take.then_some(Change::Take);
        }
        if !mine || handing_over {
            if let Some(change) = self.due_leave_out(core).filter(|_| !mine) {
                return Some(change);
            }
            // A hand-over that was begun is finished, unless the twin is gone and this server takes the group back.
            let promotion = self.due_promotion(core, aim);
            return promotion.or(mine.then_some(Change::HandOver));
        }
        self.taking_over = false;
        if aim == Some(twin) && self.can_hand_over(core) {
            return Some(Change::HandOver);
        }
        if self.should_put_out(core) {
            self.readmission = Readmission::Idle;
            return Some(Change::PutOut);
        }
        self.due_readmission(core)
    }

    /// Rule 9: stopped, clean, both copies equal, and the twin able to go on.
    fn can_hand_over(&self, core: &Core) -> bool {
        let clean = self.clean || core.sets_of(self.id).is_empty();
        let down = self.target == Target::Down && !self.is_here(core) && self.running.is_none();
        let known = self.register.known();
        let in_sync = known.in_sync == Servers::BOTH && self.register.pending().is_empty();
        // Both must want the same, and the twin must have said so in this epoch: or it hands back what it gave away.
        let told = core.twin.groups.get(&self.id);
        let agreed = told.is_some_and(|t| t.epoch == known.epoch && t.wanted == self.wanted);
        agreed
            && down
            && clean
            && in_sync
            && self.fencing.is_none()
            && (core.takes_part(core.twin_id) || self.is_permitted())
            && core.twin_present()
    }

    /// As holder with both in sync (or not known otherwise): whether to go on without the twin.
    fn should_put_out(&self, core: &Core) -> bool {
        let known = self.register.known();
        if self.is_left_out(core) {
            return false;
        }
        let shared = known.in_sync.count() > 1 || self.register.acks() == Acks::WithTwin;
        if !shared {
            // A finished change that is still pending: proposed again until a quorum decides.
            return !self.register.pending().is_empty();
        }
        let unfinished = self.register.pending().iter().any(|p| p.value.in_sync.count() == 1);
        // A server that was down itself does not judge the other one.
        let needed = self.should_run(core) || core.twin.crashed_in.contains(&self.id);
        let ordered = self.is_permitted() && self.wanted.on == core.me;
        let sound = core.entry(core.me).state == ServerState::Normal || ordered;
        // Nor does one whose own copy is the worse: that would make it the truth.
        let used = self.is_here(core) || needed && sound && !self.is_worse(core, core.me);
        used && (unfinished || self.twin_must_go(core))
    }

    fn twin_must_go(&self, core: &Core) -> bool {
        let twin = core.entry(core.twin_id);
        let out = twin.state != ServerState::Normal && !twin.recovering && !self.has_built(core.me);
        // Where both leave, the cluster stops as a whole: both copies stay equal.
        let leaves = twin.leaving && !core.entry(core.me).leaving;
        let apart = out || leaves || core.twin.gone;
        let silent = core.twin_silent() >= core.timing.suspect && !core.blocks_heard(core.timing.suspect);
        let stuck = |id: &wire::SetId| {
            let Some(set) = core.sets.get(id).filter(|s| s.present) else {
                return false;
            };
            // A failed disk here makes the copies unequal and requests wait: no reason to give up the good one.
            let own_failed = set.status.as_ref().is_some_and(|s| s.failed.is_some());
            let unequal = !own_failed
                && set.unequal_since.is_some_and(|at| core.now.since(at) >= core.timing.reconnect_grace);
            let unlinked =
                set.unlinked_since.is_some_and(|at| core.now.since(at) >= core.timing.reconnect_grace);
            let waiting = set.status.as_ref().and_then(|s| s.waiting_since);
            unlinked || unequal || waiting.is_some_and(|at| core.now.since(at) >= core.timing.io_limit)
        };
        apart || silent || core.sets_of(self.id).iter().any(stuck)
    }

    /// Rule 6: when the twin's copies are equal, every set switches to needing the twin; then both are proposed.
    fn due_readmission(&mut self, core: &mut Core) -> Option<Change> {
        let known = self.register.known();
        let twin = core.twin_id;
        let open = self.register.pending().iter().any(|p| p.value.in_sync.count() > 1);
        if known.in_sync.contains(twin) {
            self.readmission = Readmission::Idle;
            return None;
        }
        let sets = core.sets_of(self.id);
        let equal =
            |id: &wire::SetId| core.sets.get(id).is_some_and(|set| set.is_equal(core.twin.stored_host));
        match self.readmission {
            // The twin failed between switch and proposal: the standing orders put the sets back.
            Readmission::Switched if !open && self.twin_must_go(core) => {
                self.readmission = Readmission::Idle;
                return None;
            }
            Readmission::Switched => return Some(Change::Readmit),
            Readmission::Switching { .. } => return None,
            // Proposed before this process started, undecided: the sets have needed the twin ever since.
            Readmission::Idle if open => {
                let needs = |id: &wire::SetId| {
                    core.sets.get(id).and_then(|s| s.status.as_ref()).is_some_and(|s| s.needs_twin)
                };
                if sets.iter().all(|id| equal(id) && needs(id)) {
                    self.readmission = Readmission::Switched;
                }
                return None;
            }
            Readmission::Idle => {}
        }
        let serves = self.target == Target::Up && self.running.is_none() || sets.is_empty();
        let lease = self.lease.is_some_and(|until| until > core.now.plus(core.timing.readmit_lease));
        let there = (core.may_be_rebuilt(twin) || self.builds_from(core.me)) && core.twin_present();
        if !serves || !there || !lease || !sets.iter().all(equal) || core.now < self.retry_at {
            return None;
        }
        if core.faults.readmit_without_switch || sets.is_empty() {
            self.readmission = Readmission::Switched;
            return Some(Change::Readmit);
        }
        self.readmission = Readmission::Switching { left: sets.len() };
        for set in sets {
            core.order(set, DiskOrder::Readmit, What::Readmit, step::READMIT);
        }
        None
    }

    /// A set answered the switch of re-admission.
    pub fn readmit_answered(&mut self, core: &mut Core, ok: bool) {
        let Readmission::Switching { left } = self.readmission else {
            return;
        };
        if !ok {
            // Sets that did switch are put back to acknowledging alone by the standing orders.
            self.readmission = Readmission::Idle;
            self.retry_at = core.now.plus(timing::ORDER_AGAIN);
            return;
        }
        let left = left.saturating_sub(1);
        self.readmission = if left == 0 { Readmission::Switched } else { Readmission::Switching { left } };
    }

    /// As standby: promotion, once the old holder cannot run any more (or gave the group up) and its lease is out.
    fn due_promotion(&mut self, core: &mut Core, aim: Option<NodeId>) -> Option<Change> {
        let known = self.register.known();
        let (me, twin) = (core.me, core.twin_id);
        let tried =
            self.register.pending().iter().any(|p| p.value.holder == Some(me) && p.value.epoch > known.epoch);
        // One that leaves in order hands over; its stop may take long, and may have to wait for a person.
        let leaves = core.entry(twin).leaving && core.twin_present();
        let apart = !core.takes_part(twin) && !leaves;
        let given_up = core.twin.part(self.id) == Part::GivenUp && core.twin_present();
        // It does not run, but the holder's copy went down with it: this one is the better.
        let keeps = aim.is_none() && self.is_worse(core, twin) && known.holder == Some(twin);
        let meant = aim == Some(me) || keeps;
        let possible = known.in_sync.contains(me) && meant && (apart || given_up);
        // What was begun is finished: while it is pending nothing is granted to the holder, and only this server can end it.
        if !(possible || tried && !self.is_worse(core, me)) {
            if std::mem::take(&mut self.taking_over) {
                self.cancel_incident(core);
            }
            return None;
        }
        let sets = core.sets_of(self.id);
        // Every set is checked before anything is changed.
        if !sets.iter().all(|id| core.sets.get(id).is_some_and(crate::sets::Set::is_promotable)) {
            return None;
        }
        if !self.taking_over {
            let state = core.entry(twin).state;
            let failover = aim == Some(me)
                && self.wanted.mode == Mode::Serve
                && (given_up || matches!(state, ServerState::Down | ServerState::RestartedAfterDown));
            if failover && !tried && !self.wanted.asked && self.takes_over_too_often(core) {
                return None;
            }
            self.taking_over = true;
            if failover {
                self.begin_incident(core);
            }
            core.urgent = true;
            self.probe_ahead(core);
        }
        let (stopped, by_blocks) = stop_grants(core, &sets);
        let out = core.now >= self.lease_out_at(core, by_blocks);
        let ready = stopped && out || core.faults.promote_without_waiting_lease;
        ready.then_some(Change::Promote)
    }

    /// When the wait of a promotion ends, for the timer.
    #[must_use]
    pub fn promotion_at(&self, core: &Core) -> Option<Time> {
        let last = |id: &wire::SetId| match core.sets.get(id).map(|s| s.grant_stop) {
            Some(GrantStop::Stopped(last)) => last,
            Some(GrantStop::No | GrantStop::Ordered(_)) | None => None,
        };
        let by_blocks = core.sets_of(self.id).iter().filter_map(last).max();
        self.taking_over.then(|| self.lease_out_at(core, by_blocks))
    }

    /// A register message of another acceptor came.
    pub fn register_message(&mut self, core: &mut Core, from: Party, message: RegisterMessage) {
        let accepted = match message {
            RegisterMessage::Promise { accepted, .. } | RegisterMessage::State { accepted, .. } => {
                Some(accepted)
            }
            RegisterMessage::Prepare { .. }
            | RegisterMessage::Accept { .. }
            | RegisterMessage::Accepted { .. }
            | RegisterMessage::Refused { .. }
            | RegisterMessage::Chosen { .. }
            | RegisterMessage::Ask => None,
        };
        let effects = self.register.handle(from, message);
        self.apply_effects(core, effects);
        if let Some(accepted) = accepted {
            // With this server's own acceptor that is a quorum: nothing later than the known value was chosen before.
            let known = self.register.known_ballot();
            let own = self.register.record().acceptor.accepted.map(|p| p.ballot);
            self.confirmed |= accepted.map(|p| p.ballot) <= known && own <= known;
        }
    }

    /// Does what the register asks for.
    pub fn apply_effects(&mut self, core: &mut Core, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    core.send(to, ClusterMessage::Register { group: self.id, message });
                }
                Effect::Learned(proposal) => self.learned(core, proposal),
                Effect::NotApplicable { .. } => {
                    self.retry_at = core.now.plus(timing::NOT_APPLICABLE_PAUSE);
                }
                Effect::Outrun => {
                    let pause = core.pause(timing::OUTRUN_PAUSE);
                    self.retry_at = core.now.plus(pause);
                }
            }
        }
    }

    /// A value is known to be chosen.
    fn learned(&mut self, core: &mut Core, chosen: Proposal) {
        let value = chosen.value;
        let (me, twin) = (core.me, core.twin_id);
        core.urgent = true;
        self.told_at = core.now;
        self.confirmed = true;
        self.retry_at = core.now;
        self.force_chosen(core, chosen);
        if value.in_sync.count() > 1 {
            self.out_since = None;
        } else if self.out_since.is_none() {
            self.out_since = Some(core.wall());
        }
        if value.holder != Some(me) {
            return;
        }
        let epoch = self.held_epoch.replace(value.epoch);
        let fresh = epoch != Some(value.epoch);
        if fresh {
            self.lease = None;
            self.given_up = false;
            self.turned = core.now;
            if std::mem::take(&mut self.taking_over)
                && chosen.ballot.proposer == me
                && self.incident.is_some()
            {
                self.cause = StartCause::Failover;
                self.moving = false;
                self.from = Some(twin);
                // It is wanted here from now on: the twin's return during a long start does not call it back.
                let wanted = Wanted { on: me, ..self.wanted };
                self.want(core, wanted);
                self.takeovers.push(core.wall());
                self.decided_incident(core);
            } else {
                self.cause = StartCause::Start;
                self.from = (chosen.ballot.proposer == twin).then_some(twin);
                self.moving = self.from.is_some();
            }
        }
        if !value.in_sync.contains(twin) {
            self.readmission = Readmission::Idle;
            for set in core.sets_of(self.id) {
                if role(core, set) == Some(Role::Active) {
                    core.record_event(EventKind::MirrorAlone { set, server: me });
                }
            }
        }
    }
}

/// Ends granting over the block links. Returns whether every set confirmed it, and the latest grant.
fn stop_grants(core: &mut Core, sets: &[wire::SetId]) -> (bool, Option<Time>) {
    let mut all = true;
    let mut latest = None;
    for id in sets {
        let Some(set) = core.sets.get(id) else { continue };
        match set.grant_stop {
            GrantStop::Stopped(last) => latest = latest.max(last),
            GrantStop::Ordered(at) if core.now.since(at) < timing::ORDER_AGAIN => all = false,
            GrantStop::No | GrantStop::Ordered(_) => {
                all = false;
                order_stop(core, *id);
            }
        }
    }
    (all, latest)
}

/// Orders a set's process to grant no more.
pub fn order_stop(core: &mut Core, set: wire::SetId) {
    let now = core.now;
    if core.order(set, DiskOrder::Grant { allowed: false }, What::StopGrant, step::ORDER).is_some()
        && let Some(entry) = core.sets.get_mut(&set)
    {
        entry.grant_stop = GrantStop::Ordered(now);
        entry.grant_allowed = false;
    }
}
