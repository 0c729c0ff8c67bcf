//! The content of a heartbeat: only what is stored (invariant 8), and what this server does at present.

use crate::core::Core;
use crate::group::Group;
use crate::persist::Record;
use crate::register::RegisterValue;
use peer::heartbeat::{Grant, GroupBeat, Heartbeat, Says};
use std::collections::BTreeMap;
use wire::GroupId;

/// A heartbeat without the parts that differ by link.
pub fn compose(
    core: &Core,
    groups: &BTreeMap<GroupId, Group>,
    durable: &Record,
    nonce: u64,
    grant: Option<Grant>,
) -> Heartbeat {
    Heartbeat {
        from: core.me,
        host: core.host,
        node: core.node,
        sequence: 0,
        nonce,
        echo: None,
        grant,
        servers: durable.servers.values().copied().collect(),
        groups: groups.values().map(|group| group_beat(core, group, durable)).collect(),
        no_carrier: core.links.iter().filter(|l| !l.carrier).map(|l| l.id).collect(),
        witness: !groups.is_empty() && groups.keys().all(|id| core.witness_votes(*id)),
        config_version: core.config.version,
        upkeep: core.upkeep,
    }
}

fn group_beat(core: &Core, group: &Group, durable: &Record) -> GroupBeat {
    let stored = durable.groups.get(&group.id);
    let chosen = stored.and_then(|s| s.register.known);
    let in_sync = Core::first_in_sync(&core.config, group.id);
    let initial = RegisterValue { epoch: wire::Epoch(0), holder: None, in_sync };
    let value = chosen.map_or(initial, |p| p.value);
    GroupBeat {
        group: group.id,
        epoch: value.epoch,
        holder: value.holder,
        in_sync: value.in_sync,
        says: Says {
            // A grant is for the value named here.
            granted: group.grants(core) && value == group.register.known(),
            // Not before it is stored that the copy was made equal; that it crashed needs no store, a restart finds it again.
            whole: !durable.crashed_in.contains(&group.id) && !core.crashed_in.contains(&group.id),
            twin_whole: group.keeps_twin_whole(core),
            asks_out: group.wants_out(core),
        },
        part: group.part(core),
        wanted: stored.map_or(crate::persist::UNDECIDED, |s| s.wanted),
    }
}
