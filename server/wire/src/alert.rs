//! Events: what happened, as typed data with a stable number; the sentences live in the texts (G4, G13).

use crate::command::RefusalKind;
use crate::ids::{GroupId, LinkId, NodeId, SetId, WallClock};
use crate::traffic::WriteMode;
use serde::{Deserialize, Serialize};

/// How much an event matters to the person who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Good news or plain record.
    Info,
    /// Works, but unprotected or waiting for a person.
    Warning,
    /// Something broke.
    Alarm,
}

/// One recorded event (E5). `origin` and `number` identify it on both servers after they meet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The server that recorded it.
    pub origin: NodeId,
    /// Grows by one on its origin.
    pub number: u64,
    /// When, for people.
    pub at: WallClock,
    /// What.
    pub kind: EventKind,
}

/// Why a server counts as down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DownCause {
    /// No heartbeat on any link for the detection time, and its block link is away too.
    Silent,
    /// It came back with a new host incarnation: it was down, however quickly it returned (DESIGN 6).
    Restarted,
    /// Its node process stayed away longer than its grace.
    NodeGone,
    /// It lost its right to run and fenced itself.
    Fenced,
}

/// Why a rebuild copies what it copies (C6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RebuildKind {
    /// Only recorded differences.
    Fast,
    /// Everything: the first build.
    FullFirst,
    /// Everything: the histories do not tell what differs.
    FullUnknown,
    /// Everything: a disk was exchanged or set back to an older state.
    FullExchanged,
}

/// Everything that is recorded. Each has a stable number (`code`), never reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum EventKind {
    /// A server started and joined.
    ServerUp { server: NodeId },
    /// A server counts as down.
    ServerDown { server: NodeId, cause: DownCause },
    /// A server that was down runs again and waits for recovery (A4).
    ServerRestarted { server: NodeId, automatic: bool },
    /// Recovery began.
    RecoverBegan { server: NodeId },
    /// Recovery is complete: the server is normal.
    ServerRecovered { server: NodeId },
    /// An operator stopped a server.
    ServerStopped { server: NodeId },
    /// A node process restarted and adopted what runs.
    NodeReturned { server: NodeId, away_ms: u64 },
    /// A heartbeat path is lost.
    LinkLost { link: LinkId, cable: Option<NodeId> },
    /// A heartbeat path answers again.
    LinkUp { link: LinkId },
    /// The witness does not answer.
    WitnessLost,
    /// The witness answers.
    WitnessUp,
    /// A group started.
    GroupStarted { group: GroupId, server: NodeId, took_ms: u64 },
    /// A group stopped.
    GroupStopped { group: GroupId, server: NodeId },
    /// A group was moved by an operator.
    GroupMoved { group: GroupId, from: NodeId, to: NodeId, took_ms: u64 },
    /// A group was taken over after a failure.
    GroupFailedOver { group: GroupId, from: NodeId, to: NodeId, took_ms: u64 },
    /// A step of a group failed.
    GroupFailed { group: GroupId, server: NodeId, step: StepKind, reason: String },
    /// A stop failed; a person must decide.
    GroupHeld { group: GroupId, server: NodeId, step: StepKind, reason: String },
    /// A server lost its right to a group and fenced itself.
    GroupFenced { group: GroupId, server: NodeId },
    /// A step of a start failed and is tried again (B6).
    GroupRetry { group: GroupId, server: NodeId, step: StepKind, reason: String },
    /// A group did not stop, and was killed and cut off from its data, as its rules say (B6).
    GroupCutOff { group: GroupId, server: NodeId, step: StepKind, reason: String },
    /// An operator keeps a group where it is: nothing happens to it by itself.
    GroupKept { group: GroupId },
    /// That was taken back.
    GroupFreed { group: GroupId },
    /// Maintenance: nothing happens by itself, everything is watched.
    MaintenanceBegan,
    /// Maintenance is over.
    MaintenanceEnded,
    /// A mirror set goes on alone; changes are recorded.
    MirrorAlone { set: SetId, server: NodeId },
    /// A rebuild began.
    RebuildBegan { set: SetId, to: NodeId, kind: RebuildKind, blocks: u64 },
    /// A rebuild is complete: both copies are equal.
    RebuildDone { set: SetId, to: NodeId, moved_bytes: u64, compared_bytes: u64, took_ms: u64 },
    /// A rebuild was broken off; it goes on when the twin is back.
    RebuildBroken { set: SetId, to: NodeId },
    /// Both sides changed: nothing is overwritten until a person chooses (E7).
    MirrorSplit { set: SetId },
    /// A mirror set's disk or process failed.
    MirrorFailed { set: SetId, server: NodeId, reason: String },
    /// Blocks that a disk could not read came from the twin and were written back; told as their number doubles (C5).
    MirrorMended { set: SetId, server: NodeId, blocks: u64 },
    /// A verification compared so many blocks and found no difference (C10).
    MirrorVerified { set: SetId, blocks: u64 },
    /// A verification found blocks that were not what both copies had, and set them right: on the server that serves, and on
    /// the other one.
    MirrorRepaired { set: SetId, server: NodeId, here: u64, there: u64 },
    /// A verification found blocks that differ of which nobody can tell which copy is right: how many, and the first of them.
    MirrorDiffers { set: SetId, count: u64, blocks: Vec<u64> },
    /// The older version of a copy is no longer kept: the store was full, or that server began to serve.
    OldVersionLost { set: SetId, server: NodeId },
    /// A copy was put back to what it was before a rebuild.
    OldVersionBack { set: SetId, server: NodeId },
    /// A rebuild after a split brain waits: what it would overwrite on that server cannot be kept.
    OldVersionTooLarge { set: SetId, server: NodeId },
    /// An administrator uses a group's mirror sets on a server, outside the group (C8).
    MirrorPermitted { group: GroupId, server: NodeId },
    /// That was taken back.
    MirrorRestricted { group: GroupId, server: NodeId },
    /// It could not be taken back: somebody still uses the block device.
    MirrorStillUsed { group: GroupId, server: NodeId },
    /// An operator's force: a server's copies count as the data.
    MirrorForced { group: GroupId, server: NodeId },
    /// An ordered build is complete.
    MirrorBuilt { group: GroupId, from: NodeId },
    /// A new disk was taken: it is built in full.
    DiskExchanged { set: SetId, server: NodeId },
    /// The new disk was not taken.
    DiskNotExchanged { set: SetId, server: NodeId, reason: String },
    /// A mirror set was registered; its name, for it may be released again.
    SetRegistered { set: SetId, name: String },
    /// A mirror set was released: its data is still on the disks.
    SetReleased { set: SetId, name: String },
    /// A mirror set was not released.
    SetNotReleased { set: SetId, reason: String },
    /// The write mode of a set was changed (C4).
    ModeChanged { set: SetId, mode: WriteMode },
    /// A server took over with the copy of an asynchronous set, which lacked so many acknowledged bytes of so many milliseconds
    /// when the other server was last heard.
    WritesLost { set: SetId, from: NodeId, bytes: u64, ms: u64 },
    /// A backing's size or partitions changed since it was registered: its copy is not opened [8.5].
    BackingChanged { set: SetId, server: NodeId },
    /// The floating IP is in use by a stranger (D1).
    AddressInUse { group: GroupId, address: std::net::IpAddr, by: String },
    /// A configuration version was applied.
    ConfigApplied { version: u64 },
    /// A command of an operator was refused.
    CommandRefused { kind: RefusalKind },
    /// The engine found one of its own invariants broken.
    InvariantBroken { name: String },
}

/// A step of a group's plan, in the order of starting (invariant 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StepKind {
    /// The register gives this server the right.
    Right,
    /// The mirror set becomes active.
    Disk,
    /// The file system is mounted.
    Mount,
    /// The floating IP is probed, added and announced.
    Address,
    /// The start or stop script runs.
    Script,
}

impl EventKind {
    /// The stable number of the message, shown as `M-1101` (G13).
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            EventKind::ServerUp { .. } => 1100,
            EventKind::ServerDown { .. } => 1101,
            EventKind::ServerRestarted { .. } => 1105,
            EventKind::RecoverBegan { .. } => 1106,
            EventKind::ServerRecovered { .. } => 1107,
            EventKind::ServerStopped { .. } => 1108,
            EventKind::NodeReturned { .. } => 1109,
            EventKind::LinkLost { .. } => 1202,
            EventKind::LinkUp { .. } => 1203,
            EventKind::WitnessLost => 1204,
            EventKind::WitnessUp => 1205,
            EventKind::GroupStarted { .. } => 2001,
            EventKind::GroupStopped { .. } => 2002,
            EventKind::GroupFailedOver { .. } => 2003,
            EventKind::GroupFailed { .. } => 2004,
            EventKind::GroupHeld { .. } => 2005,
            EventKind::GroupFenced { .. } => 2006,
            EventKind::GroupMoved { .. } => 2011,
            EventKind::GroupRetry { .. } => 2012,
            EventKind::GroupCutOff { .. } => 2015,
            EventKind::GroupKept { .. } => 2013,
            EventKind::GroupFreed { .. } => 2014,
            EventKind::MaintenanceBegan => 1110,
            EventKind::MaintenanceEnded => 1111,
            EventKind::RebuildBegan { .. } => 3102,
            EventKind::RebuildDone { .. } => 3103,
            EventKind::MirrorAlone { .. } => 3104,
            EventKind::RebuildBroken { .. } => 3105,
            EventKind::MirrorSplit { .. } => 3106,
            EventKind::MirrorFailed { .. } => 3108,
            EventKind::MirrorMended { .. } => 3110,
            EventKind::MirrorVerified { .. } => 3111,
            EventKind::MirrorRepaired { .. } => 3112,
            EventKind::MirrorDiffers { .. } => 3113,
            EventKind::OldVersionLost { .. } => 3114,
            EventKind::OldVersionBack { .. } => 3115,
            EventKind::OldVersionTooLarge { .. } => 3116,
            EventKind::MirrorPermitted { .. } => 3120,
            EventKind::MirrorRestricted { .. } => 3121,
            EventKind::MirrorStillUsed { .. } => 3122,
            EventKind::MirrorForced { .. } => 3123,
            EventKind::MirrorBuilt { .. } => 3124,
            EventKind::DiskExchanged { .. } => 3125,
            EventKind::DiskNotExchanged { .. } => 3126,
            EventKind::SetRegistered { .. } => 3130,
            EventKind::SetReleased { .. } => 3131,
            EventKind::SetNotReleased { .. } => 3132,
            EventKind::BackingChanged { .. } => 3133,
            EventKind::ModeChanged { .. } => 3134,
            EventKind::WritesLost { .. } => 3117,
            EventKind::AddressInUse { .. } => 4101,
            EventKind::ConfigApplied { .. } => 5004,
            EventKind::CommandRefused { .. } => 5010,
            EventKind::InvariantBroken { .. } => 9001,
        }
    }

    /// How much it matters.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            EventKind::ServerDown { .. }
            | EventKind::LinkLost { .. }
            | EventKind::GroupFailed { .. }
            | EventKind::GroupHeld { .. }
            | EventKind::GroupFenced { .. }
            | EventKind::GroupCutOff { .. }
            | EventKind::MirrorSplit { .. }
            | EventKind::MirrorFailed { .. }
            | EventKind::MirrorDiffers { .. }
            | EventKind::WritesLost { .. }
            | EventKind::BackingChanged { .. }
            | EventKind::AddressInUse { .. }
            | EventKind::InvariantBroken { .. } => Severity::Alarm,
            EventKind::ServerRestarted { .. }
            | EventKind::GroupRetry { .. }
            | EventKind::GroupKept { .. }
            | EventKind::MaintenanceBegan
            | EventKind::WitnessLost
            | EventKind::MirrorAlone { .. }
            | EventKind::MirrorPermitted { .. }
            | EventKind::MirrorStillUsed { .. }
            | EventKind::MirrorForced { .. }
            | EventKind::DiskNotExchanged { .. }
            | EventKind::SetNotReleased { .. }
            | EventKind::RebuildBroken { .. }
            | EventKind::MirrorMended { .. }
            | EventKind::MirrorRepaired { .. }
            | EventKind::OldVersionLost { .. }
            | EventKind::OldVersionBack { .. }
            | EventKind::OldVersionTooLarge { .. }
            | EventKind::CommandRefused { .. } => Severity::Warning,
            EventKind::ServerUp { .. }
            | EventKind::RecoverBegan { .. }
            | EventKind::MirrorVerified { .. }
            | EventKind::ServerRecovered { .. }
            | EventKind::ServerStopped { .. }
            | EventKind::NodeReturned { .. }
            | EventKind::LinkUp { .. }
            | EventKind::WitnessUp
            | EventKind::GroupStarted { .. }
            | EventKind::GroupStopped { .. }
            | EventKind::GroupMoved { .. }
            | EventKind::GroupFreed { .. }
            | EventKind::MaintenanceEnded
            | EventKind::GroupFailedOver { .. }
            | EventKind::RebuildBegan { .. }
            | EventKind::RebuildDone { .. }
            | EventKind::MirrorRestricted { .. }
            | EventKind::MirrorBuilt { .. }
            | EventKind::DiskExchanged { .. }
            | EventKind::SetRegistered { .. }
            | EventKind::SetReleased { .. }
            | EventKind::ModeChanged { .. }
            | EventKind::ConfigApplied { .. } => Severity::Info,
        }
    }
}
