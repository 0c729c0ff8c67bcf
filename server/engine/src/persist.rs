//! What must survive every crash of this server. Stored whole: one JSON document, small, written only when it changes.
//!
//! The rule of invariant 8: whatever leaves this server and depends on a change of the record waits for that record
//! (`after` of the actions), and heartbeats tell only of what is stored.

use crate::register::RegisterRecord;
use peer::cluster::Servers;
use peer::heartbeat::{Mode, ServerEntry, Upkeep, Wanted};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use wire::view::{Incident, ServerState};
use wire::{GroupId, Incarnation, NodeId, WallClock};

/// Version of the document; a program that does not know it refuses to start.
pub const RECORD_VERSION: u32 = 1;

/// The engine's durable record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The life of this host in which the record was written; another one at start means: it was down.
    pub host: Option<Incarnation>,
    /// The last life of the twin's host that was heard.
    pub twin_host: Option<Incarnation>,
    /// The server was stopped in order: a new life of its host is a start, not a failure.
    pub clean: bool,
    /// Groups whose copy here may lack what it had acknowledged but not flushed: this host went down without an orderly end,
    /// and the copy was not made equal since.
    #[serde(default)]
    pub crashed_in: BTreeSet<GroupId>,
    /// Server states, by server.
    pub servers: BTreeMap<NodeId, ServerEntry>,
    /// One record for each group.
    pub groups: BTreeMap<GroupId, GroupRecord>,
    /// Failovers counted so far in this cluster.
    pub incidents: u64,
    /// The last failover, for the page.
    pub incident: Option<Incident>,
    /// Maintenance.
    #[serde(default)]
    pub upkeep: Upkeep,
}

/// What is durable of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Acceptor, pending proposals, known value.
    pub register: RegisterRecord,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// What its last start here took, by step, in milliseconds: the forecast's source.
    pub start_ms: Vec<(wire::alert::StepKind, u64)>,
    /// When this server took it over of late: B6 counts them.
    #[serde(default)]
    pub takeovers: Vec<WallClock>,
    /// An operator's force that the register chose.
    #[serde(default)]
    pub forced: Option<Forced>,
}

/// An operator's force (C8): what the mirror may do by it while this term lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// The term that it began.
    pub epoch: wire::Epoch,
    /// This side was declared good: the other one's copy may be overwritten, whatever it did by itself.
    pub replace: bool,
}

impl Default for Record {
    fn default() -> Self {
        Record {
            version: RECORD_VERSION,
            host: None,
            twin_host: None,
            clean: false,
            crashed_in: BTreeSet::new(),
            servers: NodeId::BOTH.into_iter().map(|server| (server, first_entry(server))).collect(),
            groups: BTreeMap::new(),
            incidents: 0,
            incident: None,
            upkeep: Upkeep::default(),
        }
    }
}

impl Default for GroupRecord {
    fn default() -> Self {
        GroupRecord {
            register: RegisterRecord::default(),
            wanted: UNDECIDED,
            start_ms: Vec::new(),
            takeovers: Vec::new(),
            forced: None,
        }
    }
}

/// Nothing was decided about a group.
pub const UNDECIDED: Wanted = Wanted {
    version: 0,
    author: NodeId(0),
    run: false,
    on: NodeId(0),
    failed_over: false,
    failed: Servers::NONE,
    mode: Mode::Serve,
    kept: false,
    asked: false,
};

fn first_entry(server: NodeId) -> ServerEntry {
    ServerEntry {
        version: 0,
        author: NodeId(0),
        server,
        state: ServerState::Normal,
        recovering: false,
        leaving: false,
        since: WallClock(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_survives_json() {
        let mut record = Record { host: Some(Incarnation([5; 16])), ..Record::default() };
        record.groups.insert(GroupId(3), GroupRecord::default());
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
