//! Node ⇄ disk process: orders from the engine and what the mirror answers. Engine and mirror meet only here.
//!
//! On the wire of the unix socket each message is one length-prefixed JSON document ([`MESSAGE_BYTES_MAX`]).

use serde::{Deserialize, Serialize};
use wire::alert::RebuildKind;
use wire::traffic::WriteMode;
use wire::{Epoch, Generation, Incarnation, NodeId, Session, Time};

/// Longest control message: a status with a full generation history is about 2 KiB.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Generations remembered in a copy's history: enough to recognise a copy that missed this many changes of holder.
pub const HISTORY_MAX: usize = 16;

/// Numbers an order; the one `Done` that answers it bears the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket(pub u64);

/// What the engine orders of a mirror set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum DiskOrder {
    /// The register says: `holder` holds this epoch. A standby stores it durably and refuses lower ones; an active
    /// side of a lower epoch ends its term first. Done when stored.
    LearnEpoch { epoch: Epoch, holder: NodeId },
    /// Become active in this epoch (this server holds it). `alone`: acknowledge without the twin, under `generation`,
    /// a fresh random id; otherwise every acknowledgement needs the twin's disk. Starts with no lease. Done when the
    /// block device can be mounted.
    Activate { epoch: Epoch, alone: bool, generation: Generation },
    /// Stop serving: the device must be unused. Drain, flush both disks, store clean. Done when all is stored.
    Deactivate,
    /// The right is lost: fail all I/O with an error at once; only a fresh process can be active again.
    Fence,
    /// The register chose this server alone: record what the twin lacks, change to `generation`, then acknowledge
    /// without the twin. Done when the change of generation is stored. Refused if the twin has become equal since.
    PutOut { generation: Generation },
    /// An operator's force, chosen by the register: this copy may be activated though it is not the newest. `replace`: it was
    /// declared good, so that a rebuild may overwrite a twin's copy that went on by itself. Until the process ends.
    Overrule { replace: bool },
    /// Whether a rebuild to the twin may run (its server is recovered, A4).
    AllowRebuild { allowed: bool },
    /// Whether rebuilds from this side stand still, and how many bytes a second they may take (none: no limit). Kept over
    /// restarts of the process; without effect on a standby until it is active.
    Rebuild { paused: bool, limit: Option<u64> },
    /// What is to become of the version that a rebuild overwrote (DESIGN 5). `Back`: refused while the link is there or this
    /// side serves; done when it is stored that the blocks go back, which the status tells the end of.
    Undo { act: UndoAct },
    /// Compare both copies in sync, block by block, and make good what deviates where it is known which is right (C10); `run`
    /// false: end it. `paused`: it stands still. `limit`: bytes a second; none: the disk process's own bound. Of an active side
    /// only; a verification ends with its process or its term.
    Verify { run: bool, paused: bool, limit: Option<u64> },
    /// As standby in sync: the active side's own disk refuses what it is asked, and this copy is about to be the only one
    /// that counts. From now on it may have what no other copy knows to lack: its map counts from nobody's state any more.
    /// Done when that is stored.
    Shoulder,
    /// As active: the register left this side's own copy out, and the twin's is the only one that counts. Serve through the
    /// twin: write to its disk alone, read from there; the own disk is used no more.
    Through,
    /// When writes are acknowledged from now on (C4). A looser mode is in force once it is stored, a stricter one when the twin has
    /// all that was acknowledged before; the status tells.
    Mode { mode: WriteMode },
    /// Begin re-admission: from this moment acknowledge only with the twin; done with `Ok` when every earlier write is
    /// on both disks, the map is empty and the twin has stored the same generation; with an error when it cannot be,
    /// and acknowledging alone goes on.
    Readmit,
    /// The register chose both: re-admission is complete.
    Admitted,
    /// Serve I/O until then; `None`: without limit (the twin is out, DESIGN 6). Past it I/O is held, resumable by a
    /// later lease; past it plus `fence_after_us` the set fences itself.
    Lease { until: Option<Time>, fence_after_us: u64 },
    /// As standby: whether this process may renew the twin's lease over the block link while a node process is away.
    /// Done carries the time of the last grant when stopped.
    Grant { allowed: bool },
    /// As active, while the node process is away: what to do at the end of the lease. Addresses are refreshed by the
    /// disk process while the lease lasts and removed at its end; processes are killed when the set fences itself.
    Guard { addresses: Vec<GuardedAddress>, processes: Vec<GuardedProcess>, mounts: Vec<String> },
    /// Send a status now.
    Report,
    /// End the process: refused while active.
    Quit,
}

/// What an operator wants done with a preserved version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UndoAct {
    /// Put it back: this copy is whole again as it was.
    Back,
    /// Forget it.
    Drop,
    /// Do without: a rebuild over a copy that went on by itself may begin though the store cannot hold what it overwrites.
    Waive,
}

/// A floating IP the disk process keeps alive and drops at the end of the lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardedAddress {
    /// The address.
    pub address: std::net::IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// Interface index.
    pub interface: u32,
    /// Kernel lifetime in seconds given at each refresh.
    pub lifetime_s: u32,
}

/// A process group the disk process kills when it fences itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardedProcess {
    /// Process group leader.
    pub pid: u32,
    /// Its start time from /proc/PID/stat, so that a reused pid is not hit.
    pub started: u64,
}

/// Node to disk process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToDisk {
    /// Number of the order.
    pub ticket: Ticket,
    /// The order.
    pub order: DiskOrder,
}

/// Disk process to node. A status is sent at connection, at each change (at most 10 a second for mere progress) and on
/// request; it tells everything a restarted node must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum FromDisk {
    /// The one result of an order.
    Done { ticket: Ticket, result: Result<Done, OrderFault> },
    /// Where the set stands.
    Status(Box<DiskStatus>),
}

/// A successful order's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Done {
    /// Nothing to add.
    Done,
    /// Of `Grant { allowed: false }`: when the nonce came from which the lease that was granted last counts, at the latest.
    GrantStopped { last: Option<Time> },
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum OrderFault {
    /// A higher epoch is stored.
    StaleEpoch { stored: Epoch },
    /// Not possible in this role.
    WrongRole,
    /// This copy is inconsistent: an unfinished rebuild target (C6), never to be activated.
    Inconsistent,
    /// The twin cannot be made equal now: link away, rebuild not complete.
    NotEqual,
    /// The set has fenced itself.
    Fenced,
    /// The block device is in use.
    InUse,
    /// No older version is kept here.
    NothingKept,
    /// The local disk or front end failed.
    Io { reason: String },
}

/// A mirror set's role on this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Takes the active side's writes.
    Standby,
    /// Becoming active.
    Activating,
    /// Serves the block device.
    Active,
    /// Draining.
    Deactivating,
    /// Lost its right; ends.
    Fenced,
}

/// Everything the engine and the view need to know of one side of a mirror set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Role.
    pub role: Role,
    /// Highest epoch stored.
    pub epoch: Epoch,
    /// Its holder, if any.
    pub holder: Option<NodeId>,
    /// Highest session stored.
    pub session: Session,
    /// Whether this copy is whole (not an unfinished rebuild target).
    pub consistent: bool,
    /// Current generation first, then the one the map counts from, then older ones; empty before the first build.
    pub history: Vec<Generation>,
    /// As active: acknowledgements need the twin.
    pub needs_twin: bool,
    /// As standby: in this life of the host the twin has made this copy equal, and it was stored so.
    pub made_equal: bool,
    /// The block link is established and both sides have stored its session.
    pub linked: bool,
    /// As active and linked: every write goes to both and no block is recorded as different.
    pub equal: bool,
    /// Host incarnation of the twin as its disk process last said.
    pub twin_incarnation: Option<Incarnation>,
    /// When the twin's disk process last said anything (keep-alives flow every 100 ms).
    pub twin_heard: Option<Time>,
    /// The oldest request that waits for the twin's disk, since when (for `io_limit`).
    pub waiting_since: Option<Time>,
    /// Comparing the copies told that both went on: nothing is overwritten (E7).
    pub split: bool,
    /// Blocks of 4096 bytes recorded as different.
    pub dirty_blocks: u64,
    /// A rebuild that runs or waits.
    pub rebuild: Option<RebuildStatus>,
    /// The last rebuild that ended, for the event.
    pub last_rebuild: Option<RebuildResult>,
    /// End of the lease as this process knows it, renewals over the block link included.
    pub lease: Option<Time>,
    /// Local address of the block link, to show which link carries blocks.
    pub link_address: Option<std::net::IpAddr>,
    /// Bytes sent to the twin since start, rebuild included.
    pub sent_bytes: u64,
    /// Path of the block device while active.
    pub device: Option<String>,
    /// Where the NBD export is served while active, as URIs.
    #[serde(default)]
    pub exports: Vec<String>,
    /// The local disk failed.
    pub failed: Option<String>,
    /// As active in sync: the local disk refuses what it is asked, the twin's disk could serve alone, and nothing but the
    /// register's word is missing.
    #[serde(default)]
    pub asks_out: bool,
    /// As active: everything is served through the twin's disk.
    #[serde(default)]
    pub through: bool,
    /// Blocks that the local disk could not read, served from the twin and written back here since start (C5).
    pub mended_blocks: u64,
    /// The older version that is kept here and can be put back.
    #[serde(default)]
    pub undo: Option<UndoStatus>,
    /// Since start a version was lost that was kept here: the store was full, or this side began to serve.
    #[serde(default)]
    pub undo_lost: bool,
    /// As active: the rebuild waits because the twin's store cannot hold what it would overwrite for good.
    #[serde(default)]
    pub undo_short: bool,
    /// This copy was put back to an older version, and nothing came after.
    #[serde(default)]
    pub undone: bool,
    /// A verification that runs or waits.
    #[serde(default)]
    pub verify: Option<VerifyStatus>,
    /// The last verification that ended in the life of this process, for the event.
    #[serde(default)]
    pub last_verify: Option<VerifyResult>,
    /// As active side of an asynchronous set in sync: what was acknowledged and the twin has not said to have written.
    #[serde(default)]
    pub behind: Option<Behind>,
    /// The mode that was ordered, or that the process was started with.
    #[serde(default)]
    pub mode: WriteMode,
    /// The one in force here as active side.
    #[serde(default)]
    pub mode_in_force: WriteMode,
}

/// How far behind an asynchronous twin may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Bytes of acknowledged writes.
    pub bytes: u64,
    /// Those of them that are on their way.
    #[serde(default)]
    pub writes: u64,
    /// When the oldest of them was asked.
    pub since: Time,
}

/// A version of a copy that is kept while, and after, a rebuild overwrites it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoStatus {
    /// Of a split brain: kept until dropped. Otherwise until the copies are equal.
    pub split: bool,
    /// It is being put back.
    pub returning: bool,
    /// Blocks of it that were overwritten since.
    pub blocks: u64,
    /// Bytes of the store used.
    pub used: u64,
    /// Bytes of the store.
    pub room: u64,
}

/// Blocks named at most that deviate and cannot be set right.
pub const UNRESOLVED_MAX: usize = 64;

/// Progress of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyStatus {
    /// When it began.
    pub began: Time,
    /// Blocks compared.
    pub done: u64,
    /// In all.
    pub total: u64,
    /// Runs at present (in sync, nothing to copy, not paused).
    pub running: bool,
    /// Stands still by an operator's order.
    pub paused: bool,
    /// Bytes a second it may take by an operator's order.
    pub limit: Option<u64>,
    /// Milliseconds it will take at this speed; none: nobody knows.
    pub left_ms: Option<u64>,
    /// Blocks found different.
    pub different: u64,
    /// Of those, blocks of which nobody can tell which is right.
    pub unresolved: u64,
}

/// A verification that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyResult {
    /// When it began.
    pub began: Time,
    /// When it ended.
    pub ended: Time,
    /// By an order or the end of a term, before all was compared.
    pub stopped: bool,
    /// Blocks compared.
    pub checked: u64,
    /// Blocks found different.
    pub different: u64,
    /// Of those, blocks set right on the side that serves.
    pub repaired_here: u64,
    /// On the twin.
    pub repaired_there: u64,
    /// Blocks of which nobody can tell which is right: they stay as they are.
    pub unresolved: u64,
    /// The first of those, at most [`UNRESOLVED_MAX`].
    pub blocks: Vec<u64>,
}

/// Progress of a rebuild, on the side that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildStatus {
    /// The target.
    pub to: NodeId,
    /// Fast or full, and why.
    pub kind: RebuildKind,
    /// Blocks done and in all.
    pub done: u64,
    /// In all.
    pub total: u64,
    /// Runs at present (allowed, linked and not paused).
    pub running: bool,
    /// When it began.
    pub began: Time,
    /// Stands still by an operator's order.
    #[serde(default)]
    pub paused: bool,
    /// Bytes a second it may take by an operator's order.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Bytes a second of late, compared ones included; 0 while it stands still or is not measured yet.
    #[serde(default)]
    pub speed: u64,
    /// Milliseconds it will take at this speed; none: nobody knows.
    #[serde(default)]
    pub left_ms: Option<u64>,
}

/// A rebuild that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildResult {
    /// The target.
    pub to: NodeId,
    /// Bytes sent because the map called them different.
    pub moved_bytes: u64,
    /// Bytes compared by checksum (hot extents, full copies).
    pub compared_bytes: u64,
    /// Bytes sent because that comparison differed.
    pub compared_moved_bytes: u64,
    /// When it began.
    pub began: Time,
    /// When it ended.
    pub ended: Time,
}
