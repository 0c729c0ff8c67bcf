//! The first line of every page: do users have service, is the data safe, must a person act (G2, VISUAL 1 and 5).
//!
//! Pure: one view in, one verdict out. The colour asks about people, not parts: a dead server with everything failed
//! over is a warning around a bad server.

#[cfg(test)]
pub(crate) mod fixture;
mod judge;
#[cfg(test)]
mod tests;

pub use judge::verdict;

use crate::alert::StepKind;
use crate::ids::{GroupId, LinkId, NodeId, SetId};
use crate::view::Forecast;

/// The colour of the verdict band (VISUAL 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    /// Service runs and is protected, or nothing is asked of the pair.
    Ok,
    /// Planned work runs and protection holds.
    Move,
    /// Stopped on purpose; a stale page too.
    Un,
    /// Service runs, but the next failure would hurt.
    Warn,
    /// A wanted group does not serve, or data is at risk.
    Bad,
}

impl Tone {
    /// Its name in the page's style sheet and in tests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Tone::Ok => "ok",
            Tone::Move => "move",
            Tone::Un => "un",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
        }
    }
}

/// What the verdict says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Kind {
    /// All wanted groups serve, all data is on both disks, a failure is survived.
    Protected,
    /// Nothing is configured to run.
    NoGroups,
    /// Every group was stopped by an operator.
    AllStopped,
    /// One server carries everything.
    OnlyOn { server: NodeId },
    /// Both servers take part, but a copy is being built.
    Building,
    /// Both servers take part, but a mirror set has one good copy only.
    NotProtected,
    /// A network path between the servers is out.
    LinkOut { link: LinkId },
    /// The witness does not answer or has no vote.
    WitnessOut,
    /// A server's manager does not answer; what it runs goes on.
    ManagerAway { server: NodeId },
    /// The manager of this server stopped itself.
    Halted { server: NodeId },
    /// A group changes servers as planned.
    Moving { group: GroupId, to: NodeId },
    /// A group starts as planned.
    Starting { group: GroupId },
    /// A group stops as planned.
    Stopping { group: GroupId },
    /// A group is away and being taken over.
    FailingOver { group: GroupId },
    /// A group that should run does not.
    GroupFailed { group: GroupId },
    /// A stop failed: a person must decide.
    GroupHeld { group: GroupId },
    /// This server cannot know whether a group serves.
    GroupUnknown { group: GroupId },
    /// Both sides of a set changed.
    Split { set: SetId },
    /// A set cannot be used.
    MirrorBroken { set: SetId },
    /// No server takes part.
    NoService,
    /// This server reaches neither its twin nor the witness.
    CutOff { server: NodeId },
}

impl Kind {
    /// A stable name, for tests and scripts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Protected => "protected",
            Kind::NoGroups => "no-groups",
            Kind::AllStopped => "all-stopped",
            Kind::OnlyOn { .. } => "only-on",
            Kind::Building => "building",
            Kind::NotProtected => "not-protected",
            Kind::LinkOut { .. } => "link-out",
            Kind::WitnessOut => "witness-out",
            Kind::ManagerAway { .. } => "manager-away",
            Kind::Halted { .. } => "halted",
            Kind::Moving { .. } => "moving",
            Kind::Starting { .. } => "starting",
            Kind::Stopping { .. } => "stopping",
            Kind::FailingOver { .. } => "failing-over",
            Kind::GroupFailed { .. } => "group-failed",
            Kind::GroupHeld { .. } => "group-held",
            Kind::GroupUnknown { .. } => "group-unknown",
            Kind::Split { .. } => "split",
            Kind::MirrorBroken { .. } => "mirror-broken",
            Kind::NoService => "no-service",
            Kind::CutOff { .. } => "cut-off",
        }
    }
}

/// One sentence of the explanation under the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Fact {
    /// Both servers take part.
    BothUp,
    /// A server is down.
    Down { server: NodeId },
    /// A server was stopped by an operator.
    ServerStopped { server: NodeId },
    /// A server is up again and waits to be recovered.
    WaitsForRecovery { server: NodeId },
    /// A server is being recovered.
    Recovering { server: NodeId },
    /// Every wanted group serves.
    AllServe { groups: Vec<GroupId> },
    /// These do not serve although they should.
    NotServing { groups: Vec<GroupId> },
    /// These are stopped on purpose.
    StoppedOnPurpose { groups: Vec<GroupId> },
    /// All data is on both disks.
    DataOnBoth,
    /// The other copy of some data follows: the newest writes may be on one disk only.
    CopyFollows,
    /// The data is on one disk only.
    DataOnOne { server: NodeId },
    /// The failover lost nothing.
    NothingLost,
    /// Without protection for so many seconds.
    UnprotectedFor { seconds: u64 },
    /// A link is out, perhaps for a cable at one end.
    LinkLost { link: LinkId, cable: Option<NodeId> },
    /// A link is slow or loses packets.
    LinkSlow { link: LinkId },
    /// The servers still reach each other.
    OtherPaths { count: u64 },
    /// No path between the servers is left.
    NoPath,
    /// The witness does not answer.
    WitnessSilent,
    /// The witness answers but lost its memory: no vote until both servers introduced themselves.
    WitnessWithoutVote,
    /// The node process is away; what it started runs on.
    ManagerSilent { server: NodeId },
    /// The engine stopped itself for this reason.
    HaltedBecause { reason: String },
    /// A step of a group failed.
    StepFailed { group: GroupId, step: StepKind, reason: String },
    /// A stop step failed; the group may be half there.
    StopFailed { group: GroupId, step: StepKind, reason: String },
    /// Nothing is overwritten until a person chose.
    NothingOverwritten,
    /// Why a set cannot be used.
    BrokenBecause { set: SetId, reason: String },
    /// Nothing may be started here: the other side may run.
    MayRunElsewhere,
}

/// What a person should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Todo {
    /// Power, console.
    LookAtServer { server: NodeId },
    /// Press Recover.
    Recover { server: NodeId },
    /// Press Start.
    StartServer { server: NodeId },
    /// Look at the cable or the switch.
    CheckLink { link: LinkId },
    /// Look at the witness's machine.
    CheckWitness,
    /// Look at the group's step, then start it again.
    LookAtGroup { group: GroupId },
    /// Choose the side that is kept.
    Choose { set: SetId },
    /// Look at the disk.
    CheckDisk { set: SetId },
    /// Look at the manager's log and start it again.
    RestartManager { server: NodeId },
    /// The other server knows more.
    AskTwin { server: NodeId },
    /// Start the stopped groups when wanted.
    StartGroups,
    /// Let the rebuild that an operator paused go on.
    Resume { set: SetId },
    /// Nothing: wait.
    Wait,
}

/// A row at the right of the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Row {
    /// What would happen if a server failed.
    Forecast(Forecast),
    /// When the pair is protected again: seconds, absent while nothing is measured.
    ProtectedAgain { about_s: Option<u64> },
    /// What to do.
    Todo(Todo),
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its colour.
    pub tone: Tone,
    /// Its sentence.
    pub kind: Kind,
    /// Its explanation, sentence by sentence.
    pub facts: Vec<Fact>,
    /// The rows at its right, at most three.
    pub rows: Vec<Row>,
}
