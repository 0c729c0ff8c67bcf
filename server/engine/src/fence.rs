//! Losing the right to a group: what is dropped at the end of the lease, and what is ended at its bound or at once.

use crate::action::Step;
use crate::core::Core;
use crate::group::{FenceCause, Fencing, Group, Readmission, Thing, role, set_is};
use crate::plan::{Is, Target};
use crate::sets::What;
use crate::timing;
use peer::control::{DiskOrder, Role};
use std::collections::BTreeMap;
use wire::alert::{EventKind, StepKind};
use wire::view::ServerState;
use wire::{SetId, Time};

impl Group {
    /// Loses the right: addresses go at the end of the lease, everything at its bound, or at once when another holds.
    pub(crate) fn judge_right(&mut self, core: &mut Core) {
        if self.fencing.is_some() || core.faults.never_fence {
            return;
        }
        let fenced_itself = core.sets_of(self.id).iter().any(|s| role(core, *s) == Some(Role::Fenced));
        let here = self.is_here(core);
        if fenced_itself && !self.given_up && (here || self.target == Target::Up) {
            return self.fence(core, FenceCause::RightLost);
        }
        if !here {
            self.suspended = false;
            return;
        }
        let known = self.register.known();
        let elsewhere = known.holder != Some(core.me);
        let limit = if elsewhere { Some(Time(0)) } else { self.lease_limit() };
        // Going down in order before a lease was ever needed: only an active set or an address needs the right.
        match limit {
            Some(limit)
                if core.now >= limit.plus(core.timing.fence_bound) && (elsewhere || self.lease.is_some()) =>
            {
                self.fence(core, FenceCause::RightLost);
            }
            Some(limit) if core.now >= limit && self.lease.is_some() => self.suspend(core),
            Some(_) | None => self.suspended = false,
        }
        let failed = self.disk_failed(core);
        if !failed {
            self.asks_out = None;
        }
        if self.fencing.is_none() && (self.disk_lost(core) || failed && !self.goes_through(core)) {
            self.fence(core, FenceCause::DiskLost);
        }
    }

    /// A set that was active under a mount no longer is.
    fn disk_lost(&self, core: &Core) -> bool {
        let used = self.target == Target::Up || self.running.is_some();
        let mounted = |set: &SetId| self.mounts.iter().any(|(m, is)| m == set && *is == Is::Present);
        used && core.sets_of(self.id).iter().any(|set| mounted(set) && set_is(core, *set) == Is::Absent)
    }

    /// The local disk failed, and the twin's copy is as good: it serves from there (DESIGN 5).
    fn disk_failed(&self, core: &Core) -> bool {
        let twin = core.twin_id;
        let twin_can = core.takes_part(twin) && core.twin_present() && self.in_sync().contains(twin);
        let failed = |id: &SetId| {
            let status = core.sets.get(id).filter(|s| s.present).and_then(|s| s.status.as_ref());
            status.is_some_and(|s| s.failed.is_some())
        };
        let policy = core.config.group(self.id).is_some_and(|c| self.may_run_on(c, twin));
        self.target == Target::Up && twin_can && policy && core.sets_of(self.id).iter().any(failed)
    }

    fn suspend(&mut self, core: &mut Core) {
        if self.suspended {
            return;
        }
        self.suspended = true;
        for address in &mut self.addresses {
            if address.is != Is::Absent {
                address.is = Is::Unknown;
                let step = Step::RemoveAddress { group: self.id, address: address.ip };
                let id = core.perform(step, timing::step::ADDRESS);
                self.background.insert(id, Thing::Address(address.ip));
            }
        }
    }

    /// Ends everything of it here at once.
    pub fn fence(&mut self, core: &mut Core, cause: FenceCause) {
        self.running = None;
        self.given_up = true;
        self.clean = false;
        self.suspended = false;
        self.readmission = Readmission::Idle;
        self.fence_sets(core);
        let mut waits = BTreeMap::new();
        for address in self.addresses.iter().filter(|a| a.is != Is::Absent) {
            let step = Step::RemoveAddress { group: self.id, address: address.ip };
            waits.insert(core.perform(step, timing::step::ADDRESS), Thing::Address(address.ip));
        }
        if self.script != Is::Absent {
            waits.insert(core.perform(Step::Kill { group: self.id }, timing::step::KILL), Thing::Processes);
        }
        for (set, _) in self.mounts.iter().rev().filter(|(_, is)| *is != Is::Absent) {
            let step = Step::Unmount { group: self.id, set: *set, force: true };
            waits.insert(core.perform(step, timing::step::FORCE), Thing::Mount(*set));
        }
        let again_at = core.now.plus(timing::step::FORCE + timing::step::SLACK);
        let first = self.fencing.is_none();
        self.fencing = Some(Fencing { cause, waits, again_at });
        if !first {
            return;
        }
        self.held = None;
        self.serving = false;
        self.turn_to(core, Target::Down);
        match cause {
            FenceCause::RightLost => {
                core.record_event(EventKind::GroupFenced { group: self.id, server: core.me });
                let own = core.entry(core.me).state;
                if own == ServerState::Normal {
                    core.set_entry(core.me, ServerState::RestartedAfterDown, false, false);
                }
            }
            FenceCause::WillNotStop => {
                let (step, reason) = self.failure.clone().unwrap_or((StepKind::Script, String::new()));
                let (group, server) = (self.id, core.me);
                core.record_event(EventKind::GroupCutOff { group, server, step, reason });
            }
            FenceCause::DiskLost => {
                let reason = self.disk_reason(core);
                let (group, server) = (self.id, core.me);
                core.record_event(EventKind::GroupFailed { group, server, step: StepKind::Disk, reason });
            }
        }
    }

    fn fence_sets(&mut self, core: &mut Core) {
        for set in core.sets_of(self.id) {
            let active =
                matches!(role(core, set), Some(Role::Active | Role::Activating | Role::Deactivating));
            if active && !core.sets.get(&set).is_some_and(|s| s.awaits(What::Fence)) {
                core.order(set, DiskOrder::Fence, What::Fence, timing::step::ORDER);
            }
        }
    }

    /// Fencing has been answered as far as it will be: done, or once more.
    pub fn judge_fencing(&mut self, core: &mut Core) {
        let Some(fencing) = &self.fencing else { return };
        let (cause, again_at) = (fencing.cause, fencing.again_at);
        let answered = fencing.waits.is_empty();
        self.fence_sets(core);
        if !answered && core.now < again_at {
            return;
        }
        if self.is_here(core) {
            if core.now >= again_at {
                self.fence(core, cause);
            }
            return;
        }
        self.fencing = None;
        self.lease = None;
        if cause == FenceCause::DiskLost {
            self.after_disk_lost(core);
        }
    }

    /// The twin takes over if it can; otherwise the group starts here again, but not for ever (B6). See [`Group::aim`].
    fn after_disk_lost(&mut self, core: &mut Core) {
        while self.restarts.front().is_some_and(|at| core.now.since(*at) > timing::RESTART_PERIOD) {
            self.restarts.pop_front();
        }
        self.restarts.push_back(core.now);
        if self.restarts.len() > timing::RESTARTS_MAX {
            self.failure = Some((StepKind::Disk, self.disk_reason(core)));
            self.note_failed(core);
        }
    }

    fn disk_reason(&self, core: &Core) -> String {
        let sets = core.sets_of(self.id);
        let failed = sets.iter().find_map(|id| core.sets.get(id)?.status.as_ref()?.failed.clone());
        failed.unwrap_or_else(|| "the disk process ended".to_string())
    }
}
