//! What one side of a mirror set is told at its start, and the bugs that can be put back for the simulator's checkers.

use wire::ids::{MILLIS, SECOND};
use wire::traffic::WriteMode;
use wire::{Incarnation, NodeId, SetId};

/// Fixed for the life of a disk process.
#[derive(Clone, Debug)]
pub struct MirrorConfig {
    /// Cluster.
    pub cluster: [u8; 16],
    /// Mirror set.
    pub set: SetId,
    /// This side.
    pub side: NodeId,
    /// Host incarnation: a new one means that what was not flushed is lost.
    pub incarnation: Incarnation,
    /// Intervals.
    pub timing: MirrorTiming,
    /// Extents the activity log holds at most: `peer::block::HOT_MAX`, less only where its edges are to be met.
    pub hot_max: usize,
    /// Bugs put back; all false in the product.
    #[doc(hidden)]
    pub faults: Faults,
}

/// Intervals in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorTiming {
    /// How long a grant of the lease lasts from the sending of its nonce (`lease_ms`).
    pub lease_us: u64,
    /// How long the lease is renewed over the block link while this node process is away (`node_grace_ms`).
    pub node_grace_us: u64,
    /// Between two keep-alives on the block link.
    pub alive_us: u64,
    /// Silence after which the block link is closed: several keep-alives, about `reconnect_grace`, shorter than the lease.
    pub silent_us: u64,
    /// Between two statuses that tell of mere progress (at most 10 a second).
    pub status_us: u64,
    /// How long a deactivation may wait for the twin.
    pub deactivate_us: u64,
    /// An extent unused for this long leaves the activity log: what a crash makes suspect stays small.
    pub cool_us: u64,
    /// A local operation without an answer for so long is a failed disk (C18).
    pub io_limit_us: u64,
    /// When a write is acknowledged in sync (C4), until ordered otherwise.
    pub mode: WriteMode,
    /// Bytes an asynchronous twin may be behind: [`JOURNAL_BYTES_MAX`], less only where its edges are to be met.
    pub journal_bytes: u64,
}

impl Default for MirrorTiming {
    fn default() -> Self {
        MirrorTiming {
            lease_us: 1_300 * MILLIS,
            node_grace_us: 10 * SECOND,
            alive_us: 100 * MILLIS,
            silent_us: 600 * MILLIS,
            status_us: 100 * MILLIS,
            deactivate_us: 10 * SECOND,
            cool_us: 5 * SECOND,
            io_limit_us: 3 * SECOND,
            mode: WriteMode::Synchronous,
            journal_bytes: JOURNAL_BYTES_MAX,
        }
    }
}

/// Known bugs of mirrored disks, put back one at a time to prove that the simulator finds them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Bits are cleared when the twin answers, before the flush of both disks.
    pub clear_bits_before_flush: bool,
    /// Putting the twin out forgets what it may have lost from its cache.
    pub forget_unstable_on_put_out: bool,
    /// Going on alone keeps the generation.
    pub skip_generation_on_alone: bool,
    /// A write is acknowledged when it is on the local disk, in sync or not.
    pub ack_before_twin: bool,
    /// A start forgets what was hot.
    pub skip_hot_extents_after_crash: bool,
    /// Frames of older sessions are applied.
    pub accept_lower_session: bool,
    /// A flush is answered by a round that began before the last write was answered.
    pub flush_covered_by_any: bool,
    /// A flush in sync flushes the local disk only.
    pub flush_local_only: bool,
    /// Rebuild runs do not wait for overlapping writes, nor writes for them.
    pub rebuild_without_order: bool,
    /// An extent leaves the activity log before its bits are on disk.
    pub cool_before_bits: bool,
    /// A run of a rebuild counts as copied when the twin has the first of its parts.
    pub end_run_early: bool,
    /// The successor of a killed process takes what was acknowledged for stable.
    pub resume_without_unstable: bool,
    /// The successor of a killed process forgets what will be asked again.
    pub resume_without_ghosts: bool,
    /// The successor of a killed process takes what was answered before the twin had written it for written there.
    pub resume_without_trailing: bool,
    /// What was answered and may not have arrived at the twin is forgotten when the link breaks.
    pub forget_trailing: bool,
    /// A standby drops what it promised to write when the link breaks.
    pub drop_promised: bool,
    /// A standby does not wait at barriers.
    pub pass_barriers: bool,
    /// A twin that is behind is rebuilt while it counts as in sync.
    pub rebuild_async_in_sync: bool,
    /// A stricter mode is in force before the twin has what was answered by the one before.
    pub tighten_at_once: bool,
    /// A flush is no barrier for the twin.
    pub skip_barriers: bool,
    /// A write begins before its extent is hot on disk.
    pub write_before_hot: bool,
    /// The twin's map is not merged.
    pub ignore_twin_map: bool,
    /// A rebuild begins, and the twin forgets, before what differs is on disk.
    pub join_before_saved: bool,
    /// A rebuild's target takes writes before it is marked inconsistent on disk.
    pub ready_before_mark: bool,
    /// A rebuild's target says that it is whole before that is on disk.
    pub built_before_stored: bool,
    /// A standby is declared up to date while the survivor's map is not empty.
    pub finish_with_map: bool,
    /// A new life of the twin's host is taken for in sync without the register.
    pub reborn_in_sync: bool,
    /// Going alone does not wait for the new generation's store.
    pub alone_before_stored: bool,
    /// A session or term begins before what was submitted under an older one has ended.
    pub session_without_drain: bool,
    /// The standby does not order overlapping writes.
    pub apply_without_order: bool,
    /// Writes without an answer are not sent again on the next connection.
    pub forget_resend: bool,
    /// A twin whose disk was set back to an older state is taken as it comes.
    pub ignore_set_back: bool,
    /// That it was is forgotten at the next meeting.
    pub forget_set_back: bool,
    /// What is to be overwritten is overwritten when it is read, before it is kept on disk.
    pub overwrite_before_kept: bool,
    /// What is kept counts when it is flushed itself, whatever is with what lies before it in the store.
    pub keep_with_gaps: bool,
    /// A start checks the blocks of the store's last segment only, whatever was on its way at the end.
    pub check_last_segment_only: bool,
    /// Only what a rebuild overwrites is kept, not what the application writes meanwhile.
    pub keep_copies_only: bool,
    /// A copy that was put back to an older version is taken for the one it was made.
    pub ignore_undone: bool,
    /// A write begins before the sums of its extent are taken back on disk.
    pub write_before_distrust: bool,
    /// Sums are believed before a flush made the blocks durable that they are of.
    pub believe_before_flush: bool,
    /// Sums are believed by the same store that brings them.
    pub believe_with_pages: bool,
    /// Sums are believed though a write came while they were stored.
    pub believe_outdated_pages: bool,
    /// A write that the own disk refused is acknowledged when the twin has it, without the register's word.
    pub through_unasked: bool,
    /// The copy that is to be the only one that counts goes on counting from the one that failed.
    pub shoulder_keeps_base: bool,
    /// Answers are given after the end of the lease.
    pub reply_without_lease: bool,
}

/// Bytes that an asynchronous twin may be behind: the most that the loss of the active server can take with it (C4), and memory
/// of the disk process, which keeps the payloads on their way. Some seconds of a busy line of 100 Mbit/s. Past it writers wait.
pub const JOURNAL_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Writes on their way: as many blocks of 4 KiB as the bytes allow.
pub const JOURNAL_WRITES_MAX: usize = 8192;
/// Of those, ranges of zeroes: the twin has no slots that bound how many of them it holds.
pub const JOURNAL_ZEROES_MAX: usize = 512;
/// Barriers on their way: a flush after each write at full speed for as long as the link may be slow.
pub const JOURNAL_BARRIERS_MAX: usize = 512;
/// Requests of the front end that may wait or run: more than its own limit of 256 in the background (DATA-PATH).
pub const REQUESTS_MAX: usize = 1024;
/// Frames a standby holds at once: the active side's requests and runs, with room.
pub const APPLIED_MAX: usize = 2048;
/// Rebuild runs in flight: single blocks at this depth come near to what a disk can do, and the twin still has half of its
/// 256 small slots for the application.
pub const RUNS_MAX: usize = 128;
/// Bytes of all runs in flight, each of which has a buffer here: part of the 18 MiB of a set (C14).
pub const BUFFERED_MAX: u64 = 4 * 1024 * 1024;
/// Frames of runs that the twin has not answered: as many as runs, however finely a comparison cuts them.
pub const FRAMES_MAX: u32 = 128;
/// Blocks that a target is told of before they are sent: while as many are on their way, the next are kept (`undo`). A disk that
/// takes 2 GiB a second has some milliseconds for each.
pub const AHEAD_BLOCKS_MAX: u64 = 2048;
/// So many are told at once: where the application holds the rebuild back, what is kept comes evenly too.
pub const AHEAD_BLOCKS_STEP: u64 = 256;
/// A frame with more than this takes one of the twin's few large slots.
pub const LARGE_FRAME_BYTES: u64 = 16 * 1024;
/// Of those under way: one less than the twin has, so that a large write of the application is never stuck behind them.
pub const LARGE_FRAMES_MAX: u32 = 4;
/// Blocks of the longest run: sixteen of them, as many as there is room for, are as fast as fewer longer ones and less in the
/// way of a write.
pub const RUN_BLOCKS_LONG: u64 = 64;
/// After so many compared runs of a full copy without a block in common, most of those that follow are sent uncompared.
pub const FOREIGN_RUNS: u32 = 16;
/// Of those, one in so many is compared all the same: the first block in common ends it. So little that is equal is moved.
pub const FOREIGN_PROBE: u32 = 8;
/// Runs of a verification in flight: each holds up the writes to its blocks, and has a hash's worth of work on both sides.
pub const VERIFY_RUNS_MAX: usize = 8;
/// Bytes a second of a verification for which nobody named a limit: a terabyte in little more than two hours, and a disk that
/// reads ten times as fast hardly feels it.
pub const VERIFY_BYTES_S: u64 = 128 << 20;
/// Blocks of a run that fits a small slot.
pub const RUN_BLOCKS_SHORT: u64 = LARGE_FRAME_BYTES / peer::block::BLOCK_BYTES;
/// Copied blocks after which a rebuild flushes both disks and clears their bits: 64 MiB lost at most to a break.
pub const COPIED_BLOCKS_MAX: u64 = 64 * 256;
/// Blocks that may still be different when re-admission begins: more would hold flushes for too long.
pub const READMIT_BLOCKS_MAX: u64 = 4096;
/// Map pages stored in one operation.
pub const PAGES_PER_STORE: usize = 32;
