//! What would happen if a server failed now (A10, G11).

use crate::core::Core;
use crate::group::Group;
use peer::heartbeat::Part;
use std::collections::BTreeMap;
use wire::ids::MILLIS;
use wire::view::{Forecast, Outcome};
use wire::{GroupId, NodeId};

/// Steps of a start that was never measured, in milliseconds: a mount with its journal and a script.
const START_UNMEASURED_MS: u64 = 1_000;
/// A decision of the register with two fsyncs and two round trips, in milliseconds.
const DECISION_MS: u64 = 60;

impl Group {
    /// How long a failover of this group would take, in milliseconds.
    #[must_use]
    pub fn forecast_ms(&self, core: &Core) -> u64 {
        let measured: u64 = self.start_ms.iter().map(|(_, ms)| *ms).sum();
        let steps = if self.start_ms.is_empty() { START_UNMEASURED_MS } else { measured };
        core.timing.detect / MILLIS + DECISION_MS + steps
    }

    /// Where it serves, starts or stops at present, as far as this server knows.
    #[must_use]
    pub fn active_on(&self, core: &Core) -> Option<NodeId> {
        let busy = |part: Part| matches!(part, Part::Running | Part::Starting | Part::Stopping | Part::Held);
        if busy(self.part(core)) {
            return Some(core.me);
        }
        busy(core.twin.part(self.id)).then_some(core.twin_id)
    }
}

/// The outcome of each server's failure.
pub fn forecasts(core: &Core, groups: &BTreeMap<GroupId, Group>) -> Vec<Forecast> {
    NodeId::BOTH.into_iter().map(|server| forecast(core, groups, server)).collect()
}

fn forecast(core: &Core, groups: &BTreeMap<GroupId, Group>, server: NodeId) -> Forecast {
    let there: Vec<&Group> = groups.values().filter(|g| g.active_on(core) == Some(server)).collect();
    let ids = there.iter().map(|g| g.id).collect();
    let other = server.twin();
    let ready = |group: &&Group| {
        let policy = core.config.group(group.id).is_some_and(|g| g.policy.contains(&other));
        policy && core.takes_part(other) && group.in_sync().contains(other)
    };
    let vote = |group: &&Group| {
        if other == core.me { core.witness_votes(group.id) } else { core.twin.witness }
    };
    let outcome = if there.is_empty() {
        Outcome::NothingStops
    } else if !there.iter().all(ready) {
        Outcome::Stops
    } else if !there.iter().all(vote) {
        Outcome::StopsWithoutVote
    } else {
        let about_ms = there.iter().map(|g| g.forecast_ms(core)).max().unwrap_or(0);
        // Rounded to a twentieth of a second: it is a forecast.
        Outcome::Moves { about_ms: about_ms.div_ceil(50) * 50 }
    };
    Forecast { server, outcome, groups: ids }
}
