//! What the other threads hand to the loop: a queue and a descriptor that wakes the ring.

use crate::device::Opened;
use crate::link::handshake::Line;
use crate::nbd::listen::Entered;
use crate::ring::memory::Buffer;
use crate::tls::Tls;
use crate::token::DiskJob;
use mirror::action::OpId;
use mirror::input::{LocalFault, LocalResult};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What a thread has done.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The twin is connected and has proved itself.
    Linked { stream: TcpStream, dialled: bool, line: Line, tls: Option<Tls> },
    /// The FUSE file system is mounted: its requests come from this descriptor, and must be served for the rest to go on.
    FrontMounted { descriptor: OwnedFd },
    /// The block device can be used, or not.
    FrontOpened { op: OpId, result: Result<Opened, LocalFault> },
    /// The block device is withdrawn, or not.
    FrontClosed { op: OpId, result: Result<(), LocalFault> },
    /// A client of the export has finished its handshake, or not.
    NbdEntered(Entered),
    /// An operation on a backing that has its own thread.
    Disk { job: DiskJob, result: Result<usize, i32>, buffer: Option<Buffer> },
    /// Blocks are hashed; the buffer with their bytes if it was wanted.
    Hashed { op: OpId, result: Result<LocalResult, LocalFault>, buffer: Option<Buffer> },
}

/// The loop's end. Unbounded by itself: each entry answers something the loop has asked for and counted.
pub(crate) struct Inbox {
    queue: Receiver<Outcome>,
    wake: Arc<OwnedFd>,
}

/// A thread's end.
#[derive(Clone)]
pub(crate) struct Outbox {
    queue: Sender<Outcome>,
    wake: Arc<OwnedFd>,
}

/// A queue and its two ends.
pub(crate) fn inbox() -> io::Result<(Inbox, Outbox)> {
    let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (sender, queue) = channel();
    Ok((Inbox { queue, wake: wake.clone() }, Outbox { queue: sender, wake }))
}

impl Inbox {
    /// Becomes readable when something is in the queue.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Takes all there is.
    pub(crate) fn take(&self) -> Vec<Outcome> {
        let _ = rustix::io::read(&*self.wake, &mut [0_u8; 8]);
        self.queue.try_iter().collect()
    }
}

impl Outbox {
    /// Hands something to the loop. A loop that has ended takes nothing more.
    pub(crate) fn put(&self, outcome: Outcome) {
        if self.queue.send(outcome).is_ok() {
            let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        }
    }
}
