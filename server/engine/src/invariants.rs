//! What must hold after every turn, in production too. A broken one stops this engine before anything leaves it.

use crate::core::Core;
use crate::group::{Group, role};
use crate::persist::Record;
use crate::register::Acks;
use peer::control::Role;
use std::collections::BTreeMap;
use wire::GroupId;

/// Bytes of the outbox in actions: 64 groups with a few orders each, 16 links.
const ACTIONS_MAX: usize = 8_192;

/// Checks; the name of the first broken one.
pub fn check(core: &Core, groups: &BTreeMap<GroupId, Group>, last: &Record) -> Result<(), &'static str> {
    if core.out.len() > ACTIONS_MAX {
        return Err("a turn's actions are bounded");
    }
    for (id, group) in groups {
        let known = group.register.known();
        let before = last.groups.get(id);
        if let Some(before) = before.and_then(|g| g.register.known) {
            if group.register.known_ballot() < Some(before.ballot) {
                return Err("the known ballot never goes back");
            }
            if known.epoch < before.value.epoch {
                return Err("epochs never go back");
            }
        }
        if before.is_some_and(|g| group.register.record().acceptor.promised < g.register.acceptor.promised) {
            return Err("promises never go back");
        }
        if known.in_sync.is_empty() {
            return Err("somebody is always in sync");
        }
        if group.register.acks() == Acks::Alone && known.in_sync.contains(core.twin_id) {
            return Err("alone only when the twin is out");
        }
        let active = core.sets_of(*id).iter().any(|set| role(core, *set) == Some(Role::Active));
        let elsewhere = known.holder.is_some_and(|holder| holder != core.me);
        if active && elsewhere && group.fencing.is_none() && group.is_settled() && !core.faults.never_fence {
            return Err("active only as holder");
        }
    }
    Ok(())
}
