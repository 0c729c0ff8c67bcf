//! Everything the engine wants done.

use crate::input::Party;
use crate::persist::Record;
use peer::cluster::ClusterMessage;
use peer::control::ToDisk;
use peer::heartbeat::Heartbeat;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use wire::alert::EventKind;
use wire::{Event, GroupId, LinkId, Reply, SetId};

/// Numbers a `Perform`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionId(pub u64);

/// Numbers a `Store`; grows by one, so that "stored up to" is one comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreToken(pub u64);

/// An action. The shell performs them in order. `after`: not before that record is stored, the whole of invariant 8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Action {
    /// Make the record durable, then answer `Stored`. A later one supersedes an earlier one not yet begun.
    Store { token: StoreToken, record: Record },
    /// Send a heartbeat over a link; lost ones are not repeated.
    SendHeartbeat { link: LinkId, beat: Heartbeat },
    /// Send over a cluster channel; dropped if it is closed.
    Send { to: Party, message: ClusterMessage, after: Option<StoreToken> },
    /// Order a mirror set's process.
    OrderDisk { set: SetId, order: ToDisk, after: Option<StoreToken> },
    /// Do something on this host; answered by one `Performed`, at the latest when `timeout_us` is over.
    Perform { id: ActionId, step: Step, timeout_us: u64, after: Option<StoreToken> },
    /// Record an event of this server under its next number, notify, and answer `EventRecorded`.
    Record { event: EventKind },
    /// Keep an event of the twin as it is, if it is not known yet; answered by `EventRecorded` if it was new.
    Keep { event: Event },
    /// Answer an operator's command given at this server.
    Answer { reply: Reply },
}

/// What a `Perform` does on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Step {
    /// Mount a set's device at its mount point (formatting a blank set if configured).
    Mount { group: GroupId, set: SetId, device: String },
    /// Unmount; `force`: kill who holds it first, then lazily.
    Unmount { group: GroupId, set: SetId, force: bool },
    /// Ask whether a stranger has the address.
    ProbeAddress { group: GroupId, address: IpAddr },
    /// Add the address with a kernel lifetime and announce it; repeated to refresh.
    AddAddress { group: GroupId, address: IpAddr },
    /// Announce the address again.
    Announce { group: GroupId, address: IpAddr },
    /// Remove the address; done if absent.
    RemoveAddress { group: GroupId, address: IpAddr },
    /// Run the start script and leave what it started running.
    StartScript { group: GroupId, cause: StartCause },
    /// Run the stop script, then end what is left of the group's processes.
    StopScript { group: GroupId },
    /// Kill every process of the group at once.
    Kill { group: GroupId },
    /// Tell what of the group is here: mounts, addresses, processes.
    Observe { group: GroupId },
    /// End the set's process, make a control area on the disk that is now at its backing's place, and start it again: what was on
    /// that disk is lost.
    ExchangeDisk { set: SetId },
    /// Take the set out of the configuration of both servers, end its processes, and mark its control areas as released.
    ReleaseSet { set: SetId },
}

/// Why a start script runs: `ARMS_EVENT` (F1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartCause {
    /// Started or moved by an operator or with the cluster.
    Start,
    /// Taken over after a failure.
    Failover,
}
