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
}

/// An operation on the backing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskJob {
    /// Data written for the core.
    Write { op: OpId, length: usize },
    /// Data read for the core.
    Read { op: OpId, length: usize, into: Data },
    /// Data made durable for the core.
    Flush { op: OpId },
    /// One write of the control area.
    ControlWrite { length: usize },
    /// The control area made durable.
    ControlFlush,
}
