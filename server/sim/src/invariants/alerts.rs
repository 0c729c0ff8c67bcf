//! Invariant 10: one alert for one incident, and its end told once.

use crate::world::World;
use std::collections::BTreeMap;
use wire::{EventKind, LinkId, NodeId};

/// What can be lost and come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Witness,
    Link(LinkId),
    Server(NodeId),
    Maintenance,
}

/// What each node process told last of each thing: lost, or not.
#[derive(Debug, Default)]
pub struct Alerts(BTreeMap<(u64, Thing), bool>);

/// What an event says: of what, and whether it is an alert.
#[allow(clippy::wildcard_enum_match_arm, reason = "most events are no alerts that end")]
fn said(kind: &EventKind) -> Option<(Thing, bool)> {
    Some(match kind {
        EventKind::WitnessLost => (Thing::Witness, true),
        EventKind::WitnessUp => (Thing::Witness, false),
        EventKind::LinkLost { link, .. } => (Thing::Link(*link), true),
        EventKind::LinkUp { link } => (Thing::Link(*link), false),
        EventKind::ServerDown { server, .. } => (Thing::Server(*server), true),
        EventKind::ServerUp { server }
        | EventKind::ServerRestarted { server, .. }
        | EventKind::ServerRecovered { server }
        | EventKind::ServerStopped { server } => (Thing::Server(*server), false),
        EventKind::MaintenanceBegan => (Thing::Maintenance, true),
        EventKind::MaintenanceEnded => (Thing::Maintenance, false),
        _ => return None,
    })
}

impl World {
    /// A node process records an event.
    pub fn check_alert(&mut self, host: usize, kind: &EventKind) {
        let Some(process) = self.hosts[host].node.as_ref().map(|n| n.process) else { return };
        let Some((thing, lost)) = said(kind) else { return };
        let before = self.checks.alerts.0.insert((process, thing), lost);
        // That something is there may be told of what was never missed; that maintenance begins, twice by two operators at once.
        if lost && before == Some(true) && thing != Thing::Maintenance {
            self.fail(10, format!("server{} tells of {thing:?} twice: {kind:?}", host + 1));
        }
    }
}
