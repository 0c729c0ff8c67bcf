//! The one picture of the cluster that every page, command line and script reads (DESIGN 8).

use crate::alert::{Event, RebuildKind, StepKind};
use crate::command::{Operation, RefusalKind};
use crate::config::LinkKind;
use crate::ids::{CommandId, Epoch, GroupId, LinkId, NodeId, Revision, SetId, WallClock};
use crate::traffic::WriteMode;
use serde::{Deserialize, Serialize};

/// The state of the cluster as one server sees it. The page shows it and never guesses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Grows with each change.
    pub revision: Revision,
    /// The server whose view this is.
    pub server: NodeId,
    /// Its clock when the view was made.
    pub at: WallClock,
    /// Cluster name.
    pub cluster: String,
    /// Version of the configuration in force.
    pub config_version: u64,
    /// By ascending id: server 1 is drawn left.
    pub servers: Vec<ServerView>,
    /// In the configured order.
    pub links: Vec<LinkView>,
    /// If one is configured.
    pub witness: Option<WitnessView>,
    /// By ascending id.
    pub groups: Vec<GroupView>,
    /// By ascending id.
    pub sets: Vec<SetView>,
    /// Newest first, at most [`crate::limits::VIEW_EVENTS_MAX`].
    pub events: Vec<Event>,
    /// The last failover until a person has read it or the pair is protected again for a day.
    pub incident: Option<Incident>,
    /// What would happen if a server failed now.
    pub forecasts: Vec<Forecast>,
    /// Which operations are possible now; those absent are unknown to this version.
    pub operations: Vec<Possible>,
    /// Set when the engine stopped itself.
    pub halted: Option<String>,
    /// Maintenance: nothing happens by itself.
    #[serde(default)]
    pub maintenance: bool,
}

/// A server's state (A4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ServerState {
    /// Takes part.
    Normal,
    /// Stopped by an operator.
    Stopped,
    /// Down by failure.
    Down,
    /// Up again, kept apart until recovered.
    RestartedAfterDown,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// 1 or 2.
    pub id: NodeId,
    /// Host name.
    pub name: String,
    /// Its state.
    pub state: ServerState,
    /// When it got into that state, as far as this server knows.
    pub since: WallClock,
    /// Coming back: its sets are being rebuilt.
    pub recovering: bool,
    /// Its node process does not answer, but its disk processes do: no failover within the grace.
    pub node_away: bool,
    /// Where a browser finds its page.
    pub page: String,
    /// Readings, absent while it does not answer.
    pub readings: Option<Readings>,
}

/// What a server measures of itself, once a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readings {
    /// Busy share of all processors in percent.
    pub cpu_percent: u8,
    /// Memory in use in percent.
    pub memory_percent: u8,
    /// Seconds since the host started.
    pub uptime_s: u64,
    /// The operating system's own name, such as `Debian 12`.
    pub system: String,
}

/// A link's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LinkState {
    /// Answers.
    Up,
    /// Answers slowly or loses packets.
    Slow,
    /// No answer.
    Lost,
    /// One server sees no carrier: a cable is out.
    NoCable,
    /// Cannot be judged from here.
    Unknown,
}

/// One heartbeat path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// Its id.
    pub id: LinkId,
    /// The name people see.
    pub name: String,
    /// What it carries.
    pub kind: LinkKind,
    /// Network in CIDR form.
    pub network: String,
    /// The first in the order of interconnects.
    pub primary: bool,
    /// Blocks of mirror sets travel here at present.
    pub carries_blocks: bool,
    /// Its state.
    pub state: LinkState,
    /// With `NoCable`: which server sees no carrier.
    pub no_cable_at: Option<NodeId>,
    /// Round trip in microseconds, when up.
    pub round_trip_us: Option<u64>,
    /// Lost packets in percent over the last ten seconds.
    pub loss_percent: u8,
}

/// The witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessView {
    /// The name people see.
    pub name: String,
    /// Answers this server.
    pub up: bool,
    /// Has a vote: it has heard both servers since it lost its memory.
    pub votes: bool,
    /// Round trip in microseconds.
    pub round_trip_us: Option<u64>,
}

/// A group's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum GroupState {
    /// Runs nowhere.
    Stopped,
    /// Coming up on `active`.
    Starting,
    /// Serves.
    Running,
    /// Going down.
    Stopping,
    /// Changing servers.
    Moving { to: NodeId },
    /// A start failed.
    Failed { step: StepKind, reason: String },
    /// A stop failed; a person must decide.
    Held { step: StepKind, reason: String },
    /// This server cannot know.
    Unknown,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Its id.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// Servers in order of preference.
    pub policy: Vec<NodeId>,
    /// Its state.
    pub state: GroupState,
    /// Where it runs, starts or stops.
    pub active: Option<NodeId>,
    /// Since when it is there.
    pub since: WallClock,
    /// It came there by a failover, not by an operator.
    pub failed_over: bool,
    /// Addresses clients use.
    pub addresses: Vec<std::net::IpAddr>,
    /// Mount points, in order.
    pub mounts: Vec<String>,
    /// Its mirror sets.
    pub sets: Vec<SetId>,
    /// Term of its holder.
    pub epoch: Epoch,
    /// Steps of the plan under way, with their times; empty when none is.
    pub steps: Vec<StepView>,
    /// What the other server could do with it.
    pub standby: Standby,
    /// The command under way, if an operator's.
    pub command: Option<CommandId>,
    /// An operator keeps it where it is: nothing happens to it by itself.
    #[serde(default)]
    pub kept: bool,
}

/// What the server without the group could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Standby {
    /// Take over at once.
    Ready,
    /// Its copy is being rebuilt.
    Rebuilding,
    /// Its copy is out of date.
    OutOfDate { since: WallClock },
    /// It is away.
    Away,
    /// This server cannot know.
    Unknown,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// Which.
    pub kind: StepKind,
    /// Whether it stops (reverse order) or starts.
    pub stopping: bool,
    /// Where it stands.
    pub progress: StepProgress,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum StepProgress {
    /// To come.
    Waiting,
    /// Runs since.
    Running { since: WallClock },
    /// Took so many milliseconds.
    Done { ms: u64 },
    /// Failed.
    Failed,
}

/// A mirror set's state as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum SetState {
    /// Both copies are equal and every write goes to both.
    InSync,
    /// One good copy, which records its changes.
    Alone { good: NodeId },
    /// Being made equal.
    Rebuilding { progress: Rebuild },
    /// Both sides changed (E7).
    Split,
    /// Cannot be used.
    Broken { reason: String },
    /// Not active anywhere, equal by record.
    Idle,
    /// This server cannot know.
    Unknown,
}

/// Progress of a rebuild: measured, monotonic while one rebuild lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// The target.
    pub to: NodeId,
    /// Fast or full, and why.
    pub kind: RebuildKind,
    /// Blocks of 4096 bytes done.
    pub done: u64,
    /// Blocks in all.
    pub total: u64,
    /// Bytes a second over the last seconds; 0 while measuring.
    pub bytes_per_s: u64,
    /// Seconds left; absent before five seconds of measured speed.
    pub left_s: Option<u64>,
    /// Seconds without progress; 0 while it moves.
    pub stalled_s: u64,
    /// It stands still by an operator's order.
    #[serde(default)]
    pub paused: bool,
    /// Bytes a second that it may take by an operator's order.
    #[serde(default)]
    pub limit: Option<u64>,
}

/// A verification under way (C10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Blocks of 4096 bytes compared.
    pub done: u64,
    /// Blocks in all.
    pub total: u64,
    /// It goes on at present: in sync, nothing to copy, not paused.
    pub running: bool,
    /// It stands still by an operator's order.
    pub paused: bool,
    /// Bytes a second that it may take by an operator's order; none: the disk process's own bound.
    pub limit: Option<u64>,
    /// Seconds left; absent before five seconds of measured speed, and while it stands still.
    pub left_s: Option<u64>,
    /// Blocks found different.
    pub different: u64,
    /// Of those, blocks of which nobody can tell which side is right.
    pub unresolved: u64,
}

/// The last verification that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// When it ended.
    pub ended: WallClock,
    /// Before all was compared.
    pub stopped: bool,
    /// Blocks compared.
    pub checked: u64,
    /// Blocks found different.
    pub different: u64,
    /// Of those, blocks set right.
    pub repaired: u64,
    /// Of those, blocks of which nobody can tell which side is right: they stay as they are.
    pub unresolved: u64,
}

/// One mirror set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetView {
    /// Its id.
    pub id: SetId,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: GroupId,
    /// Bytes.
    pub size: u64,
    /// Backing on server 1 and 2.
    pub backing: [String; 2],
    /// Its state.
    pub state: SetState,
    /// The server on which an administrator uses it outside its group (C8).
    #[serde(default)]
    pub permitted: Option<NodeId>,
    /// Blocks recorded as different.
    pub dirty_blocks: u64,
    /// Bytes a second that travel to the twin.
    pub bytes_per_s: u64,
    /// Whether the next rebuild would be a fast copy.
    pub next_fast: bool,
    /// Where its data is reached on the server where it is active: the block device, then NBD exports as URIs.
    #[serde(default)]
    pub fronts: Vec<String>,
    /// The older version of the copy on the server whose view this is, kept since a rebuild began to overwrite it.
    #[serde(default)]
    pub old: Option<OldVersion>,
    /// That copy was put back to an older version: not the newest, whoever serves it.
    #[serde(default)]
    pub put_back: bool,
    /// The verification that is under way.
    #[serde(default)]
    pub verify: Option<Verification>,
    /// How the last one ended, in the life of the disk process.
    #[serde(default)]
    pub verified: Option<Verified>,
    /// When its writes are acknowledged (C4), as configured.
    #[serde(default)]
    pub mode: WriteMode,
    /// What is in force where it is active; another one while a change waits for the other copy.
    #[serde(default)]
    pub mode_in_force: WriteMode,
    /// Of an asynchronous set: what the other copy lacks of what was acknowledged.
    #[serde(default)]
    pub behind: Option<BehindView>,
    /// Why the mode cannot be changed now.
    #[serde(default)]
    pub mode_refused: Option<RefusalKind>,
}

/// How far behind the other copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindView {
    /// Bytes of acknowledged writes, two digits exact.
    pub bytes: u64,
    /// Writes, two digits exact; 0: not known.
    pub writes: u64,
    /// Age of the oldest of them in milliseconds, to a tenth of a second.
    pub ms: u64,
}

/// An older version of a copy that can be put back (DESIGN 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldVersion {
    /// Of a split brain: kept until dropped; otherwise until the copies are equal.
    pub split: bool,
    /// It is being put back.
    pub returning: bool,
    /// Bytes of it that were overwritten since.
    pub bytes: u64,
}

/// What would happen if a server failed now (G11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// The server that would fail.
    pub server: NodeId,
    /// What would become of users.
    pub outcome: Outcome,
    /// Groups that would move or stop.
    pub groups: Vec<GroupId>,
}

/// The outcome of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Outcome {
    /// Nothing runs there.
    NothingStops,
    /// The groups move; nothing is lost; back in about so many milliseconds.
    Moves { about_ms: u64 },
    /// The groups stop: nothing could take over.
    Stops,
    /// The groups stop until a third vote or the server is back.
    StopsWithoutVote,
}

/// One failover: what was seen and done, and how long each took (A10, G10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Counts the failovers of this cluster.
    pub number: u64,
    /// The server that failed.
    pub server: NodeId,
    /// The group.
    pub group: GroupId,
    /// When the server was last heard.
    pub began: WallClock,
    /// The parts in order; empty while it is under way only in those to come.
    pub parts: Vec<IncidentPart>,
    /// Total in milliseconds, when the service is back.
    pub total_ms: Option<u64>,
    /// What had been forecast, in milliseconds.
    pub forecast_ms: Option<u64>,
}

/// A part of a failover's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentPart {
    /// What took the time.
    pub kind: PartKind,
    /// Milliseconds.
    pub ms: u64,
}

/// What a part of a failover was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartKind {
    /// From the last sign of life to the verdict.
    Detection,
    /// From the verdict to the register's decision.
    Decision,
    /// A step of the group's plan.
    Step(StepKind),
}

/// Whether an operation is possible, and if not, why (G12). The page greys by this, never by its own thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Possible {
    /// The operation.
    pub what: Operation,
    /// Absent: possible.
    pub refused: Option<RefusalKind>,
}
