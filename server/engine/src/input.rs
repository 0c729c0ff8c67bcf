//! Everything that can happen to the engine.

use crate::action::{ActionId, StoreToken};
use peer::cluster::ClusterMessage;
use peer::control::FromDisk;
use peer::heartbeat::Heartbeat;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use wire::view::Readings;
use wire::{ClusterConfig, Command, Event, GroupId, LinkId, SetId};

/// Somebody at the other end of a cluster channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Party {
    /// The other server's node process.
    Twin,
    /// The witness.
    Witness,
}

/// An input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Input {
    /// An authenticated heartbeat of the twin came over a link.
    HeartbeatReceived { link: LinkId, beat: Heartbeat },
    /// Carrier of this server's end of a link, when it changes.
    CarrierChanged { link: LinkId, present: bool },
    /// A cluster channel opened or closed.
    ChannelChanged { party: Party, open: bool },
    /// A message came over a cluster channel.
    MessageReceived { from: Party, message: ClusterMessage },
    /// A record is durable.
    Stored { token: StoreToken },
    /// The store refused: the engine must not go on as if stored.
    StoreFailed { token: StoreToken },
    /// The result of a `Perform`.
    Performed { id: ActionId, outcome: Outcome },
    /// A mirror set's process connected to, or went away from, this node.
    DiskPresent { set: SetId, present: bool },
    /// A mirror set's process spoke.
    DiskSaid { set: SetId, said: FromDisk },
    /// An operator's command, from a page or command line at this server.
    CommandGiven { command: Command },
    /// A set's backing here is not what was registered: its process is not started [8.5].
    BackingChanged { set: SetId },
    /// A new configuration was stored (by this server's API or from the twin).
    ConfigChanged { config: ClusterConfig },
    /// A change of the configuration began that takes sets of these groups, or adds some; empty: none is under way any more.
    ChangeBegan { groups: BTreeSet<GroupId> },
    /// This server's readings, once a second.
    ReadingsTaken { readings: Readings },
    /// An event is in the store, this server's or the twin's: shown in the view. At start the shell hands in the latest
    /// [`wire::limits::VIEW_EVENTS_MAX`], oldest first.
    EventRecorded { event: Event },
    /// The deadline named by `next_deadline` has come.
    DeadlineReached,
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Outcome {
    /// Done.
    Done,
    /// Failed; nothing of it remains.
    Failed { reason: String },
    /// Not known whether it happened: only observation or fencing tells (DESIGN 6).
    Unknown { reason: String },
    /// Of `ProbeAddress`: somebody answers.
    AddressInUse { by: String },
    /// Of `Observe`.
    Observed { mounted: bool, addressed: bool, processes: bool },
}
