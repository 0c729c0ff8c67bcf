//! Every act of an operator, and every reason for which one can be refused.

use crate::ids::{CommandId, GroupId, NodeId, Revision, SetId};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;

/// An operator's command. It carries the revision of the view it was given for; the engine refuses it if what it
/// concerns has changed since (DESIGN 6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Chosen by the client, echoed in the one reply.
    pub id: CommandId,
    /// The revision the operator was looking at.
    pub revision: Revision,
    /// What to do.
    pub what: Operation,
}

/// What an operator can order (A5, B4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Operation {
    /// Start a stopped group on a server.
    StartGroup { group: GroupId, on: NodeId },
    /// Stop a running group.
    StopGroup { group: GroupId },
    /// Move a running group to a server.
    MoveGroup { group: GroupId, to: NodeId },
    /// Leave a group where and as it is, whatever happens: no failover, no failback, no start by itself.
    KeepGroup { group: GroupId },
    /// Take that back.
    FreeGroup { group: GroupId },
    /// The same for all groups, and no recovery by itself; everything is still watched.
    Maintain { on: bool },
    /// Stop every group while it is mirrored, then both servers' parts in the cluster.
    StopCluster,
    /// Start both servers' parts again.
    StartCluster,
    /// Stop a server's part in the cluster: its groups move or stop, its copies leave in order.
    StopServer { server: NodeId },
    /// Start a server that was stopped by an operator.
    StartServer { server: NodeId },
    /// Bring a restarted-after-down server back (A4).
    RecoverServer { server: NodeId },
    /// Copy a set's good side to this server (C8).
    BuildSet { set: SetId, to: NodeId },
    /// Declare a server's copy good: the other one is overwritten at the next build.
    ForceRecovery { set: SetId, good: NodeId },
    /// Use a set on a server outside its group.
    PermitSet { set: SetId, on: NodeId },
    /// Take that back.
    RestrictSet { set: SetId, on: NodeId },
    /// Use a set on a server whose copy is not known to be the newest.
    ForcePermit { set: SetId, on: NodeId },
    /// Take the new disk at the backing's place: it is formatted, then built in full.
    ExchangeDisk { set: SetId, server: NodeId },
    /// What becomes of the older version of a copy that a rebuild overwrites, on the server `on`: its own (`PutBack`, `Drop`),
    /// or as the one that serves (`Waive`).
    OldVersion { set: SetId, on: NodeId, choice: OldChoice },
    /// Take a set out of its stopped group and of the cluster, on both servers: its data stays on the disks.
    ReleaseSet { set: SetId },
    /// Compare both copies of a set that is in sync, and repair what deviates where it is known which is right (C10).
    VerifySet { set: SetId, turn: VerifyTurn },
    /// How the rebuilds of a set go (C7).
    PaceRebuild { set: SetId, turn: RebuildTurn },
}

/// What a verification does next. A `limit` is bytes a second; none: the disk process's own bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum VerifyTurn {
    /// Begin.
    Start { limit: Option<NonZeroU64> },
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Take so much from now on.
    Limit { limit: Option<NonZeroU64> },
    /// End before all is compared.
    End,
}

/// How rebuilds of a set go from now on. A `limit` is bytes a second; none: as much as the application leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum RebuildTurn {
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Take so much from now on.
    Limit { limit: Option<NonZeroU64> },
}

/// A choice about an older version that is kept (DESIGN 5, E7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OldChoice {
    /// The copy is to be what it was before the rebuild; only where the other server does not serve it.
    PutBack,
    /// It is of no more use.
    Drop,
    /// The rebuild after a split brain may begin though the other side's version cannot be kept.
    Waive,
}

/// The one answer to a command. Accepted means: begun; the view shows its effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Of the command.
    pub id: CommandId,
    /// Begun, or why not.
    pub result: Result<(), Refusal>,
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The reason.
    pub kind: RefusalKind,
}

/// Reasons of refusal; each has a stable number, and a sentence with what to do first in the texts (G12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RefusalKind {
    /// What the command concerns has changed since the revision it was given for.
    Changed,
    /// No such group.
    UnknownGroup,
    /// No such server.
    UnknownServer,
    /// The group runs already.
    AlreadyRunning,
    /// The group does not run.
    NotRunning,
    /// The group runs on that server already.
    AlreadyThere,
    /// The group is on its way: starting, stopping or moving.
    Busy,
    /// The group's policy does not name that server.
    NotInPolicy,
    /// That server is down.
    ServerDown,
    /// That server was down and is not recovered.
    ServerNotRecovered,
    /// That server is stopped.
    ServerStopped,
    /// That server works normally: nothing to recover or start.
    ServerNormal,
    /// That server is being recovered already.
    RecoveryRuns,
    /// The copy on that server is out of date.
    CopyOutOfDate,
    /// The copy on that server is being rebuilt.
    CopyRebuilding,
    /// The copy on that server may lack what it had not flushed when its host went down; the other one does not.
    CopyMayLack,
    /// Both sides changed; a person must choose first.
    CopySplit,
    /// No majority of the register's acceptors answers (servers and witness).
    NoQuorum,
    /// No right to run: the lease is lost.
    NoRight,
    /// The group is held; resolve that first.
    Held,
    /// The other server, which must take part, cannot be reached.
    TwinAway,
    /// The server that should obey cannot be reached from here.
    Unreachable,
    /// There is no cluster yet.
    NoCluster,
    /// The engine has stopped itself after a broken invariant.
    EngineHalted,
    /// Too many commands wait for an answer.
    TooMany,
    /// No such mirror set.
    UnknownSet,
    /// The group of the mirror set is active.
    SetActive,
    /// The group of the mirror set is stopped, but its server works normally.
    SetInactive,
    /// The mirror set works normally: there is nothing to build.
    SetWorks,
    /// The other server works normally: recovery builds.
    OtherNormal,
    /// The mirror set is in use by permission.
    SetPermitted,
    /// The mirror set is not in use by permission there.
    NotPermitted,
    /// The copy still counts as equal, or nobody has confirmed that it does not.
    CopyCounts,
    /// Done on that server only.
    OnlyThere,
    /// No older version is kept there.
    NothingKept,
    /// The store there cannot hold the version that the rebuild would overwrite.
    CannotKeep,
    /// The group of the mirror set is active: nothing is taken from it.
    SetInUse,
    /// Another copy of the group counts as equal: a fresh disk must not count with it.
    OtherCounts,
    /// The group is exclusive, and another one is active on that server.
    Occupied,
    /// It is so already.
    AlreadySo,
    /// The mirror set is not active: its group does not run.
    SetNotActive,
    /// Done where the mirror set is active, on the other server.
    ActiveElsewhere,
    /// The copies of the mirror set are not in sync.
    NotInSync,
    /// What is ordered goes on already.
    GoesOn,
    /// What is ordered stands still already.
    StandsStill,
    /// No such work is under way.
    NoWork,
    /// The other server's copy of an asynchronous set is far behind.
    TwinBehind,
}

impl RefusalKind {
    /// The stable number, shown as `M-2040` (G13).
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            RefusalKind::Changed => 2030,
            RefusalKind::UnknownGroup => 2031,
            RefusalKind::UnknownServer => 2032,
            RefusalKind::AlreadyRunning => 2033,
            RefusalKind::NotRunning => 2034,
            RefusalKind::AlreadyThere => 2035,
            RefusalKind::Busy => 2036,
            RefusalKind::NotInPolicy => 2037,
            RefusalKind::ServerDown => 2038,
            RefusalKind::ServerNotRecovered => 2039,
            RefusalKind::CopyRebuilding => 2040,
            RefusalKind::CopyOutOfDate => 2041,
            RefusalKind::CopySplit => 2042,
            RefusalKind::ServerStopped => 2043,
            RefusalKind::ServerNormal => 2044,
            RefusalKind::RecoveryRuns => 2045,
            RefusalKind::NoQuorum => 2046,
            RefusalKind::NoRight => 2047,
            RefusalKind::Held => 2048,
            RefusalKind::TwinAway => 2049,
            RefusalKind::Unreachable => 2050,
            RefusalKind::NoCluster => 2051,
            RefusalKind::EngineHalted => 2052,
            RefusalKind::TooMany => 2053,
            RefusalKind::CopyMayLack => 2054,
            RefusalKind::Occupied => 2055,
            RefusalKind::AlreadySo => 2056,
            RefusalKind::UnknownSet => 2060,
            RefusalKind::SetActive => 2063,
            RefusalKind::SetInactive => 2064,
            RefusalKind::SetWorks => 2065,
            RefusalKind::OtherNormal => 2066,
            RefusalKind::SetPermitted => 2067,
            RefusalKind::NotPermitted => 2068,
            RefusalKind::CopyCounts => 2069,
            RefusalKind::OnlyThere => 2070,
            RefusalKind::NothingKept => 2075,
            RefusalKind::CannotKeep => 2076,
            RefusalKind::SetInUse => 2071,
            RefusalKind::OtherCounts => 2072,
            RefusalKind::SetNotActive => 2077,
            RefusalKind::ActiveElsewhere => 2078,
            RefusalKind::NotInSync => 2079,
            RefusalKind::GoesOn => 2080,
            RefusalKind::StandsStill => 2081,
            RefusalKind::NoWork => 2082,
            RefusalKind::TwinBehind => 2083,
        }
    }
}
