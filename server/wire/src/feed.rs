//! The websocket between a server and a page: snapshot with a revision, then deltas; a gap means ask again (DESIGN 8).

use crate::alert::Event;
use crate::command::{Command, Reply};
use crate::ids::{Revision, WallClock};
use crate::limits::VIEW_EVENTS_MAX;
use crate::view::{
    ClusterView, Forecast, GroupView, Incident, LinkView, Possible, ServerView, SetView, WitnessView,
};
use serde::{Deserialize, Serialize};

/// Version of the feed; a page with another one reloads itself.
pub const FEED_VERSION: u16 = 1;
/// Seconds without data after which a page calls itself stale (VISUAL 5).
pub const STALE_AFTER_S: u64 = 3;

/// First message of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`FEED_VERSION`] of the page.
    pub version: u16,
}

/// From the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromPage {
    /// First.
    Hello(Hello),
    /// An operator's command.
    Command(Command),
    /// A gap was found: send a snapshot.
    Again,
}

/// From the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Feed {
    /// The whole view.
    Snapshot(Box<ClusterView>),
    /// What changed from `base` to `base` + 1.
    Delta(Box<Delta>),
    /// The one reply to a command.
    Reply(Reply),
    /// A sign of life when nothing changes, once a second.
    Pulse {
        /// The server's clock.
        at: WallClock,
        /// The revision the page should have.
        revision: Revision,
    },
    /// There is no cluster yet: the page offers to create one.
    NoCluster,
    /// The page is of another version: reload.
    Reload,
}

/// Changed rows by id; absent lists are unchanged. Order within a list is by id, so a page keeps its places.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Applies to this revision.
    pub base: Revision,
    /// The server's clock.
    pub at: WallClock,
    /// Cluster name and configuration version, if changed.
    pub cluster: Option<(String, u64)>,
    /// Changed servers.
    pub servers: Vec<ServerView>,
    /// Changed links.
    pub links: Vec<LinkView>,
    /// The witness, if changed (inner `None`: removed).
    pub witness: Option<Option<WitnessView>>,
    /// Changed groups.
    pub groups: Vec<GroupView>,
    /// Changed sets.
    pub sets: Vec<SetView>,
    /// New events, newest first.
    pub events: Vec<Event>,
    /// The incident, if changed.
    pub incident: Option<Option<Incident>>,
    /// All forecasts, if any changed.
    pub forecasts: Option<Vec<Forecast>>,
    /// All operations, if any changed.
    pub operations: Option<Vec<Possible>>,
    /// Halt notice, if changed.
    pub halted: Option<Option<String>>,
    /// Maintenance, if changed.
    #[serde(default)]
    pub maintenance: Option<bool>,
    /// A list lost or reordered rows: ask for a snapshot instead of applying.
    pub reshaped: bool,
}

/// A delta that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap;

impl Delta {
    /// What leads from `old` to `new`; `None` if nothing but the clock differs.
    #[must_use]
    pub fn between(old: &ClusterView, new: &ClusterView) -> Option<Delta> {
        let mut delta = Delta { base: old.revision, at: new.at, ..Delta::default() };
        delta.reshaped = !same_rows(&old.servers, &new.servers, |r| u64::from(r.id.0))
            || !same_rows(&old.links, &new.links, |r| u64::from(r.id.0))
            || !same_rows(&old.groups, &new.groups, |r| u64::from(r.id.0))
            || !same_rows(&old.sets, &new.sets, |r| u64::from(r.id.0));
        if (&old.cluster, old.config_version) != (&new.cluster, new.config_version) {
            delta.cluster = Some((new.cluster.clone(), new.config_version));
        }
        delta.servers = changed_rows(&old.servers, &new.servers);
        delta.links = changed_rows(&old.links, &new.links);
        delta.groups = changed_rows(&old.groups, &new.groups);
        delta.sets = changed_rows(&old.sets, &new.sets);
        delta.events = new.events.iter().filter(|e| !old.events.contains(e)).cloned().collect();
        delta.witness = (old.witness != new.witness).then(|| new.witness.clone());
        delta.incident = (old.incident != new.incident).then(|| new.incident.clone());
        delta.forecasts = (old.forecasts != new.forecasts).then(|| new.forecasts.clone());
        delta.operations = (old.operations != new.operations).then(|| new.operations.clone());
        delta.halted = (old.halted != new.halted).then(|| new.halted.clone());
        delta.maintenance = (old.maintenance != new.maintenance).then_some(new.maintenance);
        let empty = Delta { base: delta.base, at: delta.at, ..Delta::default() };
        (delta != empty).then_some(delta)
    }

    /// Applies itself to `view`, which then is of the next revision. A gap leaves the view as it was.
    pub fn apply(self, view: &mut ClusterView) -> Result<(), Gap> {
        if self.base != view.revision || self.reshaped {
            return Err(Gap);
        }
        view.revision = Revision(view.revision.0 + 1);
        view.at = self.at;
        if let Some((name, version)) = self.cluster {
            view.cluster = name;
            view.config_version = version;
        }
        replace_rows(&mut view.servers, self.servers, |r| u64::from(r.id.0));
        replace_rows(&mut view.links, self.links, |r| u64::from(r.id.0));
        replace_rows(&mut view.groups, self.groups, |r| u64::from(r.id.0));
        replace_rows(&mut view.sets, self.sets, |r| u64::from(r.id.0));
        if !self.events.is_empty() {
            view.events.splice(0..0, self.events);
            // An event of the other server may be older than the newest known: the same order as in a snapshot.
            view.events.sort_by_key(|e| std::cmp::Reverse((e.at, e.origin, e.number)));
            view.events.truncate(VIEW_EVENTS_MAX);
        }
        if let Some(witness) = self.witness {
            view.witness = witness;
        }
        if let Some(incident) = self.incident {
            view.incident = incident;
        }
        if let Some(forecasts) = self.forecasts {
            view.forecasts = forecasts;
        }
        if let Some(operations) = self.operations {
            view.operations = operations;
        }
        if let Some(halted) = self.halted {
            view.halted = halted;
        }
        if let Some(maintenance) = self.maintenance {
            view.maintenance = maintenance;
        }
        Ok(())
    }
}

fn same_rows<T>(old: &[T], new: &[T], id: impl Fn(&T) -> u64) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(a, b)| id(a) == id(b))
}

fn changed_rows<T: PartialEq + Clone>(old: &[T], new: &[T]) -> Vec<T> {
    new.iter().enumerate().filter(|(i, row)| old.get(*i) != Some(*row)).map(|(_, row)| row.clone()).collect()
}

fn replace_rows<T>(rows: &mut [T], changed: Vec<T>, id: impl Fn(&T) -> u64) {
    for row in changed {
        if let Some(place) = rows.iter_mut().find(|r| id(r) == id(&row)) {
            *place = row;
        }
    }
}
