//! How a group reacts by itself (B2, B6): exclusive groups, failback, takeovers that are too many, what an operator keeps.

use crate::core::Core;
use crate::group::Group;
use crate::plan::Target;
use peer::cluster::Servers;
use peer::heartbeat::{Mode, Part, Wanted};
use wire::alert::{EventKind, StepKind};
use wire::ids::SECOND;
use wire::rules::{Failover, GroupRules};
use wire::{GroupId, NodeId, WallClock};

/// Before a failed step is tried again: what it waits for, such as a device or a port, appears within that or not at all.
pub const RETRY_PAUSE: u64 = SECOND;
/// Milliseconds of a minute of the wall clock.
const MINUTE_MS: u64 = 60_000;

impl Core {
    /// The rules of a group.
    #[must_use]
    pub fn rules(&self, group: GroupId) -> GroupRules {
        self.config.group(group).map_or_else(GroupRules::default, |config| config.rules)
    }

    /// Another group is active on a server.
    #[must_use]
    pub fn is_occupied(&self, server: NodeId, besides: GroupId) -> bool {
        self.active.iter().any(|(group, at)| *group != besides && *at == server)
    }

    /// An operator switches maintenance; both servers will agree on it.
    pub fn set_upkeep(&mut self, on: bool) {
        self.upkeep.version += 1;
        self.upkeep.author = self.me;
        self.upkeep.on = on;
        self.urgent = true;
        let event = if on { EventKind::MaintenanceBegan } else { EventKind::MaintenanceEnded };
        self.record_event(event);
    }
}

impl Group {
    /// Nothing happens to it by itself: an operator keeps it where it is, or the cluster is under maintenance.
    #[must_use]
    pub fn is_kept(&self, core: &Core) -> bool {
        self.wanted.kept || core.upkeep.on
    }

    /// Where a kept group belongs: where an operator's order leads, otherwise only where it is already.
    #[must_use]
    pub(crate) fn kept_aim(&self, core: &Core, can: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let on = self.wanted.on;
        if self.wanted.asked {
            return can(on).then_some(on);
        }
        let holder = self.register.known().holder;
        let here = holder == Some(core.me) && self.target == Target::Up && self.is_here(core);
        let there =
            holder == Some(core.twin_id) && matches!(core.twin.part(self.id), Part::Running | Part::Starting);
        let at = if here {
            core.me
        } else if there {
            core.twin_id
        } else {
            return None;
        };
        (!core.entry(at).leaving).then_some(at)
    }

    /// An exclusive group goes only where no other one is (B2); where it is already, another one's coming or going moves it not.
    #[must_use]
    pub fn is_shut_out(&self, core: &Core, server: NodeId) -> bool {
        core.active.get(&self.id) != Some(&server)
            && core.rules(self.id).failover == Failover::Exclusive
            && core.is_occupied(server, self.id)
    }

    /// Home is normal again and its copy equal: the group that a failover brought here goes home (B2). Whoever runs it decides.
    pub(crate) fn fail_back(&mut self, core: &mut Core) {
        let Some(config) = core.config.group(self.id) else { return };
        let Some(home) = config.policy.first().copied() else { return };
        let brought = self.serving && self.wanted.failed_over && self.wanted.run && self.wanted.on == core.me;
        let due = config.rules.failback
            && brought
            && home == core.twin_id
            && self.wanted.mode == Mode::Serve
            && self.target == Target::Up
            && !self.is_kept(core)
            && !self.wanted.failed.contains(home)
            && !self.is_shut_out(core, home);
        let sets = core.sets_of(self.id);
        let equal =
            |id: &wire::SetId| core.sets.get(id).is_some_and(|set| set.is_equal(core.twin.stored_host));
        let ready = core.takes_part(home)
            && core.twin_present()
            && self.in_sync() == Servers::BOTH
            && self.register.pending().is_empty()
            && sets.iter().all(equal);
        if due && ready {
            let wanted = Wanted { on: home, failed_over: false, ..self.wanted };
            self.want(core, wanted);
        }
    }

    /// Its newest copies are here, where it may not run, and the other server may run it: its sets are brought up here until the
    /// other one's copies are equal, then it starts there. So no single failure stops a group for good.
    pub(crate) fn rebuild_for_twin(&mut self, core: &mut Core) {
        let (me, twin) = (core.me, core.twin_id);
        let Some(policy) = core.config.group(self.id).map(|config| config.policy.clone()) else { return };
        if self.wanted.mode == Mode::Rebuild {
            let equal =
                |id: &wire::SetId| core.sets.get(id).is_some_and(|s| s.is_equal(core.twin.stored_host));
            let whole = self.in_sync() == Servers::BOTH
                && self.register.pending().is_empty()
                && !self.is_worse(core, twin)
                && core.sets_of(self.id).iter().all(equal);
            let over = core.twin.gone || !core.takes_part(me) || self.is_kept(core);
            if self.wanted.on == me && (whole || over) {
                let wanted = Wanted { mode: Mode::Serve, on: if whole { twin } else { me }, ..self.wanted };
                self.want(core, wanted);
                self.serving = false;
            }
            return;
        }
        let barred = !policy.contains(&me) || self.is_shut_out(core, me);
        let open = policy.contains(&twin)
            && !self.wanted.failed.contains(twin)
            && core.may_be_rebuilt(twin)
            && core.twin_present()
            && core.twin.part(self.id) == Part::Down;
        let idle = !self.is_here(core) && self.running.is_none() && self.fencing.is_none();
        let alone = self.in_sync() == Servers::only(me) && self.register.pending().is_empty();
        let due = self.wanted.mode == Mode::Serve && self.should_run(core) && !self.is_kept(core);
        if due && barred && open && idle && alone && core.takes_part(me) && !core.sets_of(self.id).is_empty()
        {
            let wanted = Wanted { mode: Mode::Rebuild, on: me, run: true, ..self.wanted };
            self.want(core, wanted);
        }
    }

    /// A takeover by this server begins: whether it is one too many within the period (B6). Then a person must look, and says so
    /// by starting it.
    pub(crate) fn takes_over_too_often(&mut self, core: &mut Core) -> bool {
        let rules = core.rules(self.id);
        let now = core.wall();
        let since = now.0.saturating_sub(u64::from(rules.period_minutes) * MINUTE_MS);
        self.takeovers.retain(|at| at.0 > since && *at <= now);
        if self.takeovers.len() < usize::from(rules.takeovers) {
            return false;
        }
        let (count, minutes) = (rules.takeovers, rules.period_minutes);
        let reason = format!("taken over {count} times within {minutes} minutes: it is not taken over again");
        let (group, server, step) = (self.id, core.me, StepKind::Right);
        core.record_event(EventKind::GroupFailed { group, server, step, reason: reason.clone() });
        self.failure = Some((step, reason));
        self.note_failed(core);
        true
    }

    /// The cluster stops as a whole: at the next start the group is at home again if home has the newest data [6.2.3, "offline
    /// failback"].
    pub(crate) fn home_again(&mut self, core: &mut Core) {
        let home = core.config.group(self.id).and_then(|config| config.policy.first().copied());
        if let Some(home) =
            home.filter(|_| self.wanted.run && !self.is_kept(core) && core.entry(core.me).leaving)
        {
            let wanted = Wanted { on: home, failed_over: false, ..self.wanted };
            self.want(core, wanted);
        }
    }
}

/// Takeovers remembered of a group: the rules count no more.
pub(crate) fn bounded(takeovers: &[WallClock]) -> Vec<WallClock> {
    let most = usize::from(wire::rules::TAKEOVERS_MAX);
    takeovers.iter().rev().take(most).rev().copied().collect()
}
