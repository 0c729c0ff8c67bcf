//! A failed disk under a group that serves (C5, rule 12): its copy is left out of the register, and the group goes on where it
//! is through the twin's disk. What does not come to that in time is moved, as for any other lost disk.

use crate::core::Core;
use crate::group::{Group, Readmission};
use crate::plan::Target;
use crate::register::{Change, Servers};
use crate::sets::{Set, What};
use crate::timing::{self, step};
use peer::control::{DiskOrder, DiskStatus, Role};
use wire::SetId;

fn status(core: &Core, set: SetId) -> Option<&DiskStatus> {
    core.sets.get(&set).filter(|s| s.present)?.status.as_ref()
}

impl Group {
    /// As holder with a failed disk and the twin in sync: whether to wait for the register, or to go on through the twin.
    pub(crate) fn goes_through(&mut self, core: &Core) -> bool {
        if self.is_left_out(core) {
            return !self.is_stuck(core);
        }
        let since = *self.asks_out.get_or_insert(core.now);
        self.wants_out(core) && core.now.since(since) < timing::LEAVE_OUT
    }

    /// The twin's disk does not answer either.
    fn is_stuck(&self, core: &Core) -> bool {
        let long = |at: Option<wire::Time>, limit: u64| at.is_some_and(|at| core.now.since(at) >= limit);
        core.sets_of(self.id).iter().filter_map(|id| core.sets.get(id)).any(|set| {
            let waiting = set.status.as_ref().and_then(|s| s.waiting_since);
            long(set.unlinked_since, core.timing.reconnect_grace) || long(waiting, core.timing.io_limit)
        })
    }

    /// Told to the twin: [`peer::heartbeat::Says::asks_out`].
    pub(crate) fn wants_out(&self, core: &Core) -> bool {
        let known = self.register.known();
        let sets = core.sets_of(self.id);
        let serves = |id: &SetId| {
            let active = |s: &DiskStatus| s.role == Role::Active && s.linked && (s.asks_out || s.equal);
            status(core, *id).is_some_and(active)
        };
        let asks = |id: &SetId| status(core, *id).is_some_and(|s| s.asks_out);
        known.holder == Some(core.me)
            && known.in_sync == Servers::BOTH
            && self.register.pending().is_empty()
            && self.register.proposing().is_none()
            && self.target == Target::Up
            && self.is_up(core)
            && sets.iter().any(asks)
            && sets.iter().all(serves)
    }

    /// As standby: the holder asked for it, and the copies here are as good and say so on their disks.
    pub(crate) fn due_leave_out(&mut self, core: &mut Core) -> Option<Change> {
        let known = self.register.known();
        let told = core.twin.groups.get(&self.id);
        let asked =
            told.is_some_and(|t| t.says.asks_out && (t.epoch, t.holder) == (known.epoch, known.holder));
        let begun = self.register.pending().iter().any(|p| p.value.holder == Some(core.twin_id));
        let sets = core.sets_of(self.id);
        let able = known.holder == Some(core.twin_id)
            && known.in_sync == Servers::BOTH
            && !self.taking_over
            && core.twin_present()
            && core.takes_part(core.me)
            && !core.crashed_in.contains(&self.id)
            && !sets.is_empty()
            && sets.iter().all(|id| core.sets.get(id).is_some_and(Set::is_promotable));
        if !able || !asked && !begun {
            self.shouldering = Readmission::Idle;
            return None;
        }
        match self.shouldering {
            Readmission::Switched => Some(Change::LeaveOut),
            Readmission::Switching { .. } => None,
            Readmission::Idle if core.now < self.retry_at => None,
            Readmission::Idle => {
                self.shouldering = Readmission::Switching { left: sets.len() };
                for set in sets {
                    if let Some(entry) = core.sets.get_mut(&set) {
                        entry.shouldered = true;
                    }
                    core.order(set, DiskOrder::Shoulder, What::Shoulder, step::ORDER);
                }
                None
            }
        }
    }

    /// A set answered that it is ready to be the only copy.
    pub(crate) fn shoulder_answered(&mut self, core: &mut Core, ok: bool) {
        let Readmission::Switching { left } = self.shouldering else { return };
        core.urgent = true;
        if !ok {
            self.retry_at = core.now.plus(timing::ORDER_AGAIN);
        }
        self.shouldering = match left.saturating_sub(1) {
            _ if !ok => Readmission::Idle,
            0 => Readmission::Switched,
            left => Readmission::Switching { left },
        };
    }

    /// What the register says of the only copy that counts, told to the sets until it shows.
    pub(crate) fn order_through(&mut self, core: &mut Core, set: SetId) {
        let known = self.register.known();
        let (me, twin, now) = (core.me, core.twin_id, core.now);
        let left_out = self.is_left_out(core);
        let only = known.holder == Some(twin) && known.in_sync == Servers::only(me);
        let Some(entry) = core.sets.get_mut(&set) else { return };
        // Asked to count alone, by a heartbeat that came late perhaps, and put out instead: such a process takes no rebuild for the
        // end. A fresh one does (seed 1377).
        let put_out = known.holder == Some(twin)
            && known.in_sync == Servers::only(twin)
            && self.register.pending().is_empty()
            && self.register.proposing().is_none();
        let order = match entry.role() {
            Some(Role::Standby) if put_out && entry.shouldered => DiskOrder::Fence,
            Some(Role::Active) if left_out && !entry.status.as_ref().is_some_and(|s| s.through) => {
                DiskOrder::Through
            }
            // A fresh process of the standby's: it must not take itself for the holder's equal.
            Some(Role::Standby) if only && entry.through_ordered.is_none() => DiskOrder::Shoulder,
            Some(_) | None => return,
        };
        if entry.through_ordered.is_some_and(|at| now.since(at) < timing::ORDER_AGAIN) {
            return;
        }
        entry.through_ordered = Some(now);
        entry.shouldered |= order == DiskOrder::Shoulder;
        core.order(set, order, What::Standing, step::ORDER);
    }
}
