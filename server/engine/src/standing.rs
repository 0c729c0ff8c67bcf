//! Standing orders: what every set of a group should be told, given again until it shows.

use crate::core::Core;
use crate::group::{Group, Readmission};
use crate::input::Party;
use crate::register::{Acks, RegisterMessage};
use crate::right::order_stop;
use crate::sets::{GrantStop, What};
use crate::timing::{self, step};
use peer::cluster::ClusterMessage;
use peer::control::{DiskOrder, Role};
use wire::ids::MILLIS;
use wire::{SetId, Time};

/// A lease is ordered again when it grew by so much: ten orders a second at the default heartbeat are enough.
const LEASE_STEP: u64 = 80 * MILLIS;

impl Group {
    /// Brings every set's orders in line with the register and the server states.
    pub fn standing_orders(&mut self, core: &mut Core) {
        for set in core.sets_of(self.id) {
            if core.sets.get(&set).is_some_and(|s| s.present && s.status.is_some()) {
                self.order_grant(core, set);
                self.order_learn(core, set);
                self.order_quit(core, set);
                self.order_overrule(core, set);
                let role = core.sets.get(&set).and_then(crate::sets::Set::role);
                if matches!(role, Some(Role::Activating | Role::Active | Role::Deactivating)) {
                    self.order_lease(core, set);
                }
                // A set that is being left needs a twin that died meanwhile no more than one that goes on.
                if matches!(role, Some(Role::Active | Role::Deactivating)) {
                    self.order_put_out(core, set);
                }
                self.order_through(core, set);
                order_mode(core, set);
                if role == Some(Role::Active) {
                    self.order_rebuild(core, set);
                    self.order_admitted(core, set);
                }
            }
        }
        self.tell_twin(core);
    }

    fn order_grant(&mut self, core: &mut Core, set: SetId) {
        let allowed = self.grants(core);
        let Some(entry) = core.sets.get(&set) else { return };
        if allowed && !entry.grant_allowed && entry.role() == Some(Role::Standby) {
            core.order(set, DiskOrder::Grant { allowed: true }, What::Standing, step::ORDER);
            if let Some(entry) = core.sets.get_mut(&set) {
                entry.grant_allowed = true;
                entry.grant_stop = GrantStop::No;
            }
        } else if !allowed && entry.grant_allowed {
            order_stop(core, set);
        }
    }

    fn order_learn(&mut self, core: &mut Core, set: SetId) {
        let known = self.register.known();
        let Some(holder) = known.holder.filter(|h| *h != core.me) else { return };
        let now = core.now;
        let Some(entry) = core.sets.get_mut(&set) else { return };
        let told = entry.status.as_ref().is_none_or(|s| (s.epoch, s.holder) == (known.epoch, Some(holder)));
        let recent = entry.learn_ordered.is_some_and(|(epoch, to, at)| {
            (epoch, to) == (known.epoch, holder) && now.since(at) < timing::ORDER_AGAIN
        });
        if told || recent || entry.role() == Some(Role::Fenced) {
            return;
        }
        entry.learn_ordered = Some((known.epoch, holder, now));
        let order = DiskOrder::LearnEpoch { epoch: known.epoch, holder };
        core.order(set, order, What::Standing, step::ORDER);
    }

    /// Tells a set until when it may serve.
    pub fn order_lease(&mut self, core: &mut Core, set: SetId) {
        let known = self.register.known();
        if known.holder != Some(core.me) || self.register.acks() == Acks::No || self.fencing.is_some() {
            return;
        }
        let until = self.lease_limit().map(|limit| limit.max(Time(0)));
        let Some(entry) = core.sets.get_mut(&set) else { return };
        let due = match (entry.lease_ordered, until) {
            (Some(Some(old)), Some(new)) => new.since(old) >= LEASE_STEP,
            (Some(old), new) => old != new,
            (None, _) => true,
        };
        if !due || until.is_some_and(|limit| limit <= core.now) {
            return;
        }
        entry.lease_ordered = Some(until);
        let order = DiskOrder::Lease { until, fence_after_us: core.timing.fence_bound };
        core.order(set, order, What::Lease, step::ORDER);
    }

    /// The register allows to acknowledge alone, and the set still needs the twin.
    fn order_put_out(&mut self, core: &mut Core, set: SetId) {
        if self.register.acks() != Acks::Alone || self.readmission != Readmission::Idle {
            return;
        }
        let now = core.now;
        let Some(entry) = core.sets.get_mut(&set) else { return };
        let needs = entry.status.as_ref().is_some_and(|s| s.needs_twin);
        let recent = entry.put_out_at.is_some_and(|at| now.since(at) < timing::ORDER_AGAIN);
        if !needs || recent || entry.awaits(What::Readmit) {
            return;
        }
        entry.put_out_at = Some(now);
        let generation = core.rng.generation();
        core.order(set, DiskOrder::PutOut { generation }, What::PutOut, step::ORDER);
    }

    fn order_rebuild(&mut self, core: &mut Core, set: SetId) {
        // A silent server may have been down: its copy waits until its state is known. Its node process alone may be away.
        let heard = core.twin_present() || core.twin.away_since.is_some();
        let allowed = (core.may_be_rebuilt(core.twin_id) || self.builds_from(core.me)) && heard;
        let Some(entry) = core.sets.get_mut(&set) else { return };
        if entry.allow_ordered == Some(allowed) {
            return;
        }
        entry.allow_ordered = Some(allowed);
        core.order(set, DiskOrder::AllowRebuild { allowed }, What::Standing, step::ORDER);
    }

    /// A fenced process serves nobody again: once nothing uses it, it ends, and node starts a fresh one.
    fn order_quit(&mut self, core: &mut Core, set: SetId) {
        let mounted = self.mounts.iter().any(|(id, is)| *id == set && *is != crate::plan::Is::Absent);
        let now = core.now;
        let Some(entry) = core.sets.get_mut(&set).filter(|s| s.role() == Some(Role::Fenced)) else { return };
        let recent = entry.quit_at.is_some_and(|at| now.since(at) < timing::ORDER_AGAIN);
        if mounted || recent || self.fencing.is_some() {
            return;
        }
        entry.quit_at = Some(now);
        core.order(set, DiskOrder::Quit, What::Standing, step::ORDER);
    }

    fn order_admitted(&mut self, core: &mut Core, set: SetId) {
        let both = self.register.known().in_sync.count() > 1;
        let Some(entry) = core.sets.get_mut(&set) else { return };
        if !both {
            entry.admitted = false;
        } else if !entry.admitted && entry.status.as_ref().is_some_and(|s| s.needs_twin) {
            entry.admitted = true;
            core.order(set, DiskOrder::Admitted, What::Standing, step::ORDER);
        }
    }

    /// The block link's renewals count too: the disk processes know them, and say so.
    pub fn take_block_lease(&mut self, core: &Core) {
        let known = self.register.known();
        if known.holder != Some(core.me) {
            return;
        }
        let sets = core.sets_of(self.id);
        let lease = |id: &SetId| {
            let set = core.sets.get(id).filter(|s| s.present)?;
            let status = set.status.as_ref().filter(|s| s.epoch == known.epoch && s.role == Role::Active)?;
            status.lease
        };
        let leases: Option<Vec<Time>> = sets.iter().map(lease).collect();
        if let Some(until) = leases.and_then(|all| all.into_iter().min()) {
            self.raise_lease(until);
        }
    }

    /// The twin knows less than this server: it is told the chosen value. And as long as nobody confirmed what is known here,
    /// the other acceptors are asked.
    fn tell_twin(&mut self, core: &mut Core) {
        if let Some(proposal) = self.register.record().known {
            let value = proposal.value;
            let told = core.twin.groups.get(&self.id);
            let differs = told.is_some_and(|t| {
                (t.epoch, t.holder, t.in_sync) != (value.epoch, value.holder, value.in_sync)
                    && t.epoch <= value.epoch
            });
            if differs && core.now.since(self.told_at) >= timing::REPEAT * 3 {
                self.told_at = core.now;
                let message = RegisterMessage::Chosen { proposal };
                core.send(Party::Twin, ClusterMessage::Register { group: self.id, message });
            }
        }
        if !self.confirmed && core.now.since(self.asked_at) >= timing::ORDER_AGAIN {
            self.asked_at = core.now;
            let effects = self.register.ask();
            self.apply_effects(core, effects);
        }
    }
}

/// When a set acknowledges: as configured, on both sides.
fn order_mode(core: &mut Core, set: SetId) {
    let Some(mode) = core.config.set(set).map(|config| config.traffic.mode) else { return };
    let now = core.now;
    let Some(entry) = core.sets.get_mut(&set) else { return };
    let told = entry.status.as_ref().is_none_or(|s| s.mode == mode);
    let recent = entry.mode_ordered.is_some_and(|at| now.since(at) < timing::ORDER_AGAIN);
    if told || recent || entry.role() == Some(Role::Fenced) {
        return;
    }
    entry.mode_ordered = Some(now);
    core.order(set, DiskOrder::Mode { mode }, What::Standing, step::ORDER);
}
