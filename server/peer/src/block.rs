//! Frames of the block link between the two disk processes of one mirror set: what they say, their limits and version.
//!
//! A frame is a fixed header, a bounded body and, for `Write`, `Copy` and `ReadData`, a payload that only the shell touches
//! (`block_codec` has the byte layout). Every frame carries the sender's epoch and session; a side refuses lower ones.
//! `sequence` numbers the frames of one direction within one connection from 1 without a gap; answers name the
//! sequence they answer as `of`. The receiver orders overlapping writes by it.

pub use crate::block_codec::{
    FrameFault, HEADER_BYTES, Header, Payload, checksum, checksum_append, decode_body, decode_header, encode,
    encode_with,
};

use crate::control::HISTORY_MAX;
use serde::{Deserialize, Serialize};
use wire::{Epoch, Generation, Incarnation, NodeId, Session, SetId};

/// Version of the frames; the other side must speak the same one until a second exists.
pub const VERSION: u8 = 1;
/// Bytes of one block: the unit of the dirty map and of checksums.
pub const BLOCK_BYTES: u64 = 4096;
/// Smallest unit a file system addresses on the block device.
pub const SECTOR_BYTES: u64 = 512;
/// Longest payload: the largest request of the front end (max_write 1 MiB, DATA-PATH) and of a rebuild run.
pub const PAYLOAD_BYTES_MAX: u32 = 1024 * 1024;
/// Longest range of one `Zero`: long enough that a whole terabyte is discarded in a few ten thousand frames, short enough that a
/// disk that must write the zeroes does so well within the time a write may take.
pub const ZERO_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// Blocks of the longest run, and so the most hashes of one `Check`.
pub const RUN_BLOCKS_MAX: usize = (PAYLOAD_BYTES_MAX as u64 / BLOCK_BYTES) as usize;
/// Most runs of one `Ahead`: their numbers take less than half of the longest body.
pub const AHEAD_RUNS_MAX: usize = 512;
/// Bytes of bits in one page of the dirty map: a 4096-byte page less its 32-byte header.
pub const MAP_PAGE_BYTES: usize = 4064;
/// Most hot extents one side can report: the capacity of its activity log.
pub const HOT_MAX: usize = 1008;
/// Longest body: a `Hello` with all hot extents as varints of 5 bytes takes about 6 KiB.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a block's checksum: the first half of its BLAKE3 hash; 128 bits make an accidental match impossible.
pub const HASH_BYTES: usize = 16;

/// One frame without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The session both agreed on; in `Hello` the highest the sender has stored.
    pub session: Session,
    /// Numbers the frames of one direction of a connection from 1.
    pub sequence: u64,
    /// What it says.
    pub body: Body,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Body {
    /// First frame of each side: who it is and where its copy stands.
    Hello(Box<Hello>),
    /// The session `max(both) + 1` and the higher epoch are stored; everything submitted before is complete.
    SessionStored,
    /// Apply the payload at `offset`.
    Write { offset: u64, length: u32 },
    /// The write is on the disk or in its cache.
    Written { of: u64 },
    /// Make everything answered so far durable.
    Flush,
    /// Done.
    Flushed { of: u64 },
    /// A rebuild's run: like `Write`, counted apart.
    Copy { offset: u64, length: u32 },
    /// The run is on the disk or in its cache.
    Copied { of: u64 },
    /// Checksums of the blocks from `offset` on, one for each; compared by their first 15 bytes, for more is not stored. `told`:
    /// they are what the sender's table says, not of what was just read. `read`: the receiver is to read, whatever its table says.
    Check { offset: u64, hashes: Vec<[u8; HASH_BYTES]>, told: bool, read: bool },
    /// One bit for each block asked about (bit 0 of byte 0 first): set = different.
    Checked { of: u64, different: Vec<u8> },
    /// The active side asks for the first page of the twin's dirty map with a bit set, from page `from` on.
    MapAsk { from: u32 },
    /// That page (`bits` is empty when there is none) and whether to ask on.
    Map { page: u32, bits: Vec<u8>, more: bool },
    /// A rebuild begins: mark the copy inconsistent, remember `generation` as where it stands, forget map and log. `old`:
    /// what to do with the version it overwrites, if that is whole.
    BuildBegin { generation: Generation, old: KeepOld },
    /// That is stored: every write may be sent from now on.
    BuildReady,
    /// Both copies are equal and flushed: store this history (current first) and "consistent".
    BuildDone { history: Vec<Generation> },
    /// Stored.
    BuildStored,
    /// Keep-alive. `nonce` counts up; `grant` echoes the latest nonce of the twin as far as the engine allows (DESIGN 6).
    Alive { nonce: u64, grant: Option<u64> },
    /// What frame `of` asked for failed on the sender's disk.
    Failed { of: u64, errno: i32 },
    /// The sender ends or has lost its right: nothing more will come.
    Leaving,
    /// The sender takes nothing on this connection.
    Refused { reason: Refused },
    /// The range reads as zeroes from here on; no payload, at most [`ZERO_BYTES_MAX`]. `unmap`: the disk may give the space
    /// back. Ordered among writes as they are, answered by `Written`.
    Zero { offset: u64, length: u32, unmap: bool },
    /// The sender's own disk cannot read this; the twin's copy of it is equal (C5).
    Read { offset: u64, length: u32 },
    /// What `Read` asked for is the payload.
    ReadData { of: u64, length: u32 },
    /// Checksums of the blocks from `offset` on, as just read: read yours, and tell what is other.
    Verify { offset: u64, hashes: Vec<[u8; HASH_BYTES]> },
    /// The blocks that are.
    Verified { of: u64, odd: Vec<Odd> },
    /// The write has come whole and will be written, whatever becomes of the link (semi-synchronous sets, C4).
    Got { of: u64 },
    /// Nothing that follows is written before everything that came earlier is on stable storage; answered by `Flushed`
    /// (asynchronous sets, C4).
    Barrier,
    /// Runs of neighbouring blocks (first, how many) that copies are about to overwrite: what is there may be kept meanwhile. No
    /// answer; a side that keeps nothing does nothing.
    Ahead { runs: Vec<(u64, u32)> },
}

/// A block that is not what the sender of `Verify` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Odd {
    /// Counted from the run's first.
    pub block: u16,
    /// What was read; none: it could not be.
    pub found: Option<[u8; HASH_BYTES]>,
    /// What this side's table says of it, if anything.
    pub stored: Option<[u8; HASH_BYTES]>,
}

/// Who a side is and where its copy stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Cluster, drawn at its creation.
    pub cluster: [u8; 16],
    /// Mirror set.
    pub set: SetId,
    /// Sender.
    pub side: NodeId,
    /// Bytes of the mirrored data.
    pub size: u64,
    /// The sender's host incarnation: a new one means that unflushed writes are lost.
    pub incarnation: Incarnation,
    /// Who holds the epoch of the header, as the sender has stored it.
    pub holder: Option<NodeId>,
    /// The sender serves the block device.
    pub active: bool,
    /// The highest session the sender knows its twin to have stored: a lower one means its disk was set back.
    pub twin_session: Session,
    /// Current generation first, then older ones; empty before the first build.
    pub history: Vec<Generation>,
    /// The generation the sender's map counts from; none: its map says nothing.
    pub base: Option<Generation>,
    /// The sender's copy is whole.
    pub consistent: bool,
    /// The sender has acknowledged without its twin under its current generation.
    pub alone: bool,
    /// Blocks in the sender's dirty map.
    pub dirty: u64,
    /// Extents of 1 MiB in the sender's activity log: written to, not known to be equal.
    pub hot: Vec<u32>,
    /// The sender's copy was put back to an older version: it lacks what a rebuild had brought.
    pub undone: bool,
    /// Blocks of an older version that the sender can keep while they are overwritten; none: it has no store.
    pub room: Option<u64>,
}

/// How long the version that a rebuild overwrites is kept (DESIGN 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeepOld {
    /// Until the copies are equal: an older copy, of use only if its source dies before.
    UntilEqual,
    /// The loser of a split brain: until an operator drops it.
    UntilDropped,
    /// An operator does without.
    Not,
}

/// Why a side takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refused {
    /// Another cluster, set, side or size.
    Stranger,
    /// A lower epoch or session.
    Stale,
    /// The sender's disk failed or it has fenced itself.
    Unfit,
    /// The frame does not fit the state of the connection.
    Protocol,
}

impl Frame {
    /// Bytes of the payload that follows this frame on the wire.
    #[must_use]
    pub fn payload_length(&self) -> u32 {
        match self.body {
            Body::Write { length, .. } | Body::Copy { length, .. } | Body::ReadData { length, .. } => length,
            Body::Hello(_)
            | Body::SessionStored
            | Body::Written { .. }
            | Body::Flush
            | Body::Flushed { .. }
            | Body::Copied { .. }
            | Body::Check { .. }
            | Body::Checked { .. }
            | Body::MapAsk { .. }
            | Body::Map { .. }
            | Body::BuildBegin { .. }
            | Body::BuildReady
            | Body::BuildDone { .. }
            | Body::BuildStored
            | Body::Alive { .. }
            | Body::Failed { .. }
            | Body::Leaving
            | Body::Refused { .. }
            | Body::Zero { .. }
            | Body::Verify { .. }
            | Body::Verified { .. }
            | Body::Ahead { .. }
            | Body::Read { .. }
            | Body::Barrier
            | Body::Got { .. } => 0,
        }
    }

    /// Checks the limits that hold whatever the state of the connection.
    ///
    /// # Errors
    /// The first field outside its limit.
    pub fn check(&self) -> Result<(), FrameFault> {
        match &self.body {
            Body::Hello(hello) => hello.check(),
            Body::Write { offset, length } | Body::Read { offset, length } => {
                check_run(*offset, *length, SECTOR_BYTES, PAYLOAD_BYTES_MAX)
            }
            Body::ReadData { length, .. } => check_run(0, *length, SECTOR_BYTES, PAYLOAD_BYTES_MAX),
            Body::Copy { offset, length } => check_run(*offset, *length, BLOCK_BYTES, PAYLOAD_BYTES_MAX),
            Body::Zero { offset, length, .. } => check_run(*offset, *length, SECTOR_BYTES, ZERO_BYTES_MAX),
            Body::Verified { odd, .. } => limit("odd", odd.len() > RUN_BLOCKS_MAX),
            Body::Check { offset, hashes, .. } | Body::Verify { offset, hashes } => {
                limit("hashes", hashes.is_empty() || hashes.len() > RUN_BLOCKS_MAX)?;
                limit("offset", !offset.is_multiple_of(BLOCK_BYTES) || offset.checked_add(1 << 20).is_none())
            }
            Body::Checked { different, .. } => limit("different", different.len() > RUN_BLOCKS_MAX / 8),
            Body::Ahead { runs } => limit("runs", runs.is_empty() || runs.len() > AHEAD_RUNS_MAX),
            Body::Map { bits, .. } => limit("bits", !bits.is_empty() && bits.len() != MAP_PAGE_BYTES),
            Body::BuildDone { history } => {
                limit("history", history.is_empty() || history.len() > HISTORY_MAX)
            }
            Body::SessionStored
            | Body::Written { .. }
            | Body::Got { .. }
            | Body::Barrier
            | Body::Flush
            | Body::Flushed { .. }
            | Body::Copied { .. }
            | Body::MapAsk { .. }
            | Body::BuildBegin { .. }
            | Body::BuildReady
            | Body::BuildStored
            | Body::Alive { .. }
            | Body::Failed { .. }
            | Body::Leaving
            | Body::Refused { .. } => Ok(()),
        }
    }
}

impl Hello {
    fn check(&self) -> Result<(), FrameFault> {
        limit("history", self.history.len() > HISTORY_MAX)?;
        limit("hot", self.hot.len() > HOT_MAX)?;
        limit("size", self.size == 0 || !self.size.is_multiple_of(BLOCK_BYTES))
    }
}

fn limit(field: &'static str, broken: bool) -> Result<(), FrameFault> {
    if broken { Err(FrameFault::Limit { field }) } else { Ok(()) }
}

fn check_run(offset: u64, length: u32, unit: u64, most: u32) -> Result<(), FrameFault> {
    limit("length", length == 0 || length > most || !u64::from(length).is_multiple_of(unit))?;
    limit("offset", !offset.is_multiple_of(unit) || offset.checked_add(u64::from(length)).is_none())
}
