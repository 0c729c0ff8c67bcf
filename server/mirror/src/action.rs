//! Everything one side of a mirror set wants done. The shell performs actions in order; those with an `OpId` are answered
//! by exactly one `Input::LocalDone`.

use crate::input::{PayloadId, Range, RequestId};
use peer::block::Frame;
use peer::control::FromDisk;
use serde::{Deserialize, Serialize};

/// Numbers a local operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub u64);

/// Where the bytes of an operation are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Data {
    /// The front end's request: its payload (write) or its buffer (read).
    Request(RequestId),
    /// A received frame's payload.
    Payload(PayloadId),
    /// A buffer the shell allocates at `ReadLocal { into: Buffer(op) }`, `HashLocal { keep: true }` or `GatherLocal` and keeps
    /// until `Release`.
    Buffer(OpId),
    /// Bytes of such a buffer from `from` on: sent, or written.
    Part { op: OpId, from: u32 },
}

/// An action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Action {
    /// Write data to the local disk.
    WriteLocal { op: OpId, range: Range, data: Data },
    /// Make the range of the local disk read as zeroes. `unmap`: the space may be given back; the content is the same.
    ZeroLocal { op: OpId, range: Range, unmap: bool },
    /// Read the local disk into a request's buffer or a fresh buffer.
    ReadLocal { op: OpId, range: Range, into: Data },
    /// Read the local disk and hash each 4096-byte block. `keep`: the bytes stay as `Data::Buffer(op)` until released.
    HashLocal { op: OpId, range: Range, keep: bool },
    /// Read these ranges of the local disk into one buffer, one behind the other, and hash each 4096-byte block; the bytes stay as
    /// `Data::Buffer(op)` until released.
    GatherLocal { op: OpId, ranges: Vec<Range> },
    /// Write these bytes of the backing, counted as `StoreControl` does; durable with a `FlushLocal` that begins after it is done.
    WriteControl { op: OpId, write: ControlWrite },
    /// Make all completed local writes durable, those of `WriteControl` too.
    FlushLocal { op: OpId },
    /// Write these bytes of the control area, in order, then make them durable (one flush); never overtaken by a later
    /// `StoreControl`.
    StoreControl { op: OpId, writes: Vec<ControlWrite> },
    /// Read bytes of the backing, counted from the start of the control area as `StoreControl` does; answered by
    /// `LocalResult::Bytes`.
    LoadControl { op: OpId, offset: u64, length: u32 },
    /// Send a frame, with data if any; frames are sent in order. The shell keeps the data until it is on the wire and
    /// released.
    Send { frame: Frame, data: Option<Data> },
    /// The data may be dropped once its last send is on the wire.
    Release { data: Data },
    /// What a payload holds is what a read gives: its request keeps it until the reply. The payload itself stays.
    Fill { request: RequestId, payload: PayloadId },
    /// Answer a request of the front end: 0 or an errno. Ends the life of its payload.
    Reply { request: RequestId, errno: i32 },
    /// Close the block link (and connect again by the shell's own schedule).
    CloseLink { reason: LinkFault },
    /// Offer the block device: front end up. Answered by `LocalDone` when it can be used.
    OpenFrontEnd { op: OpId },
    /// Withdraw the block device: refused (fault) while in use. `abort`: end it with errors for all requests.
    CloseFrontEnd { op: OpId, abort: bool },
    /// The lease has ended, I/O is held: the shell drops the guarded addresses.
    LeaseEnded,
    /// The lease runs (again): the shell may refresh the guarded addresses. Told once, not at each renewal.
    LeaseRuns,
    /// The set has fenced itself: the shell kills the guarded processes, aborts the front end, unmounts lazily.
    Fenced,
    /// Tell the node process.
    Tell(FromDisk),
    /// End the process.
    Exit,
}

/// Bytes for the control area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlWrite {
    /// From the start of the control area, a multiple of 4096; the store's headers lie behind the data.
    pub offset: u64,
    /// A multiple of 4096 bytes.
    pub bytes: Vec<u8>,
}

/// Why a link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkFault {
    /// A frame of a lower epoch or session.
    Stale,
    /// A frame that does not fit the protocol's state.
    Protocol,
    /// Another set, cluster or version.
    Stranger,
    /// The twin did not answer in time.
    Silent,
    /// This side begins a new session.
    Restart,
}
