//! Names of everything the loop waits for.

use mirror::action::{Data, OpId};

/// An operation of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// On the backing.
    Disk(DiskJob),
    /// The kernel has requests for the front end of this number.
    Front(u32),
    /// A thread has put something into the inbox.
    Inbox,
    /// SIGTERM.
    Signal,
    /// A node process connects.
    Listener,
    /// The node process of this number sent something.
    Node(u32),
    /// A send on the block link of this number.
    Send(u32),
    /// A receive on the block link of this number.
    Receive(u32),
    /// A client of the export knocks at this listener of this opening.
    NbdListener { term: u32, index: u32 },
    /// A send to the export's client of this number.
    NbdSend(u32),
    /// A receive from the export's client of this number.
    NbdReceive(u32),
}

/// A range on its way to reading as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ZeroJob {
    pub op: OpId,
    /// On the backing.
    pub offset: u64,
    pub length: u64,
    pub way: ZeroWay,
    /// Of [`ZeroWay::Write`]: bytes written before, and in the write under way.
    pub done: u64,
    pub part: u64,
}

/// How a range comes to read as zeroes, the cheapest first. Whatever a backing can do, the content is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ZeroWay {
    /// The space is given back: `fallocate` punches a hole (a device: discards what then reads as zeroes).
    Punch,
    /// The space is kept: `fallocate` marks it (a device: writes zeroes by its own command).
    Mark,
    /// Zeroes are written.
    Write,
}

/// An operation on the backing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskJob {
    /// Data written for the core.
    Write { op: OpId, length: usize },
    /// A range of the data zeroed for the core.
    Zero(ZeroJob),
    /// Data read for the core.
    Read { op: OpId, length: usize, into: Data },
    /// Data read for the core, to lie in a buffer from `from` on.
    Gather { op: OpId, from: usize, length: usize },
    /// Bytes of the control area, or of the store, read for the core.
    Load { op: OpId, length: usize },
    /// Data made durable for the core.
    Flush { op: OpId },
    /// One write of the control area.
    ControlWrite { length: usize },
    /// The control area made durable.
    ControlFlush,
}
