//! Everything that can happen to one side of a mirror set.

use crate::action::OpId;
use peer::block::Frame;
use peer::control::ToDisk;
use serde::{Deserialize, Serialize};

/// A request of the front end; the shell keeps its payload under this number until the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// A payload that came with a frame; the shell keeps it until `Action::Release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PayloadId(pub u64);

/// Bytes of the mirrored data (not of the backing): `offset` and `length` in bytes, multiples of 512.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
}

/// An input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Input {
    /// The front end wants to write; the payload is parked.
    Write { request: RequestId, range: Range },
    /// The front end wants the range to read as zeroes (discard, write-zeroes); longer than a payload may be, at most
    /// `peer::block::ZERO_BYTES_MAX`. `unmap`: both disks may give the space back.
    Zero { request: RequestId, range: Range, unmap: bool },
    /// The front end wants to read.
    Read { request: RequestId, range: Range },
    /// The front end wants everything acknowledged so far made durable.
    Flush { request: RequestId },
    /// An operation on the local disk or control area ended.
    LocalDone { op: OpId, result: Result<LocalResult, LocalFault> },
    /// The block link is connected (no session yet). `dialled`: this side dialled.
    LinkConnected { dialled: bool },
    /// The block link is gone.
    LinkLost,
    /// Bytes came of a frame that is not whole yet: a slow line is not a silent one.
    LinkHeard,
    /// A frame came; its payload, if any, is parked.
    Received { frame: Frame, payload: Option<PayloadId> },
    /// An order of the engine.
    Order(ToDisk),
    /// The node process connected to, or went away from, this disk process.
    NodePresent(bool),
    /// The deadline named by `next_deadline` has come.
    DeadlineReached,
}

/// What an operation gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum LocalResult {
    /// Written, flushed or stored.
    Done,
    /// Of `ReadLocal` into a fresh buffer: one bit for each 4096-byte block (bit 0 of byte 0 first), set where it is all
    /// zeroes; empty: nowhere.
    Read { zero: Vec<u8> },
    /// Of `HashLocal`: one 16-byte BLAKE3 prefix for each 4096-byte block of the range, in order; [`ZERO_HASH`] for zeroes.
    Hashes(Vec<[u8; 16]>),
    /// Of `LoadControl`.
    Bytes(Vec<u8>),
}

/// In place of the hash of a block of zeroes.
pub const ZERO_HASH: [u8; 16] = [0; 16];

/// A local operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalFault {
    /// errno, or 5 (EIO).
    pub errno: i32,
}
