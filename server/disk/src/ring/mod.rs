//! The io_uring of the loop thread: operations own their buffers until they are complete.
#![allow(unsafe_code)] // the kernel is handed pointers; this module keeps what they point to alive until the kernel is done

pub(crate) mod memory;
pub(crate) mod signal;

use crate::limits::{RING_COMPLETIONS, RING_ENTRIES};
use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use memory::{Buffer, Pool};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is sent: a head of its own bytes, then part of a shared buffer.
pub(crate) struct Piece {
    /// Bytes sent first.
    pub head: Vec<u8>,
    /// Then these bytes of this buffer.
    pub data: Option<(Arc<Buffer>, std::ops::Range<usize>)>,
}

/// What an operation keeps alive.
enum Hold {
    Nothing,
    Owned(Buffer),
    Shared { _data: Arc<Buffer> },
    Batch(Box<Batch>),
}

/// A vectored send: the kernel reads `message`, which points to `vectors`, which point into `pieces`.
struct Batch {
    pieces: Vec<Piece>,
    vectors: Vec<libc::iovec>,
    message: libc::msghdr,
    /// Kept open until all is sent.
    socket: Arc<OwnedFd>,
    /// Vectors already sent in full.
    skip: usize,
}

struct Flight<T> {
    token: T,
    hold: Hold,
    /// A multishot poll stays.
    stays: bool,
}

/// A completed operation.
pub(crate) struct Completion<T> {
    /// As given with the operation.
    pub token: T,
    /// Bytes, or the errno.
    pub result: Result<usize, i32>,
    /// The buffer of a read or receive, back again.
    pub buffer: Option<Buffer>,
}

/// The ring. `T` names an operation.
pub(crate) struct Ring<T> {
    ring: IoUring,
    flights: Vec<Option<Flight<T>>>,
    free: Vec<usize>,
    /// Operations a full submission queue would not take.
    waiting: Vec<Entry>,
}

impl<T: Copy> Ring<T> {
    /// Sets the ring up for the calling thread, which alone may use it.
    ///
    /// # Errors
    /// The kernel has no io_uring, or it is forbidden (`kernel.io_uring_disabled`).
    pub(crate) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(RING_COMPLETIONS)
            .build(RING_ENTRIES)?;
        Ok(Ring { ring, flights: Vec::new(), free: Vec::new(), waiting: Vec::new() })
    }

    /// Registers the buffers of these pools, all of which must be free: the kernel then needs not pin them each time.
    ///
    /// # Errors
    /// The kernel refused, most likely by RLIMIT_MEMLOCK: everything works without, slower.
    pub(crate) fn register(&mut self, pools: &[&Pool]) -> io::Result<()> {
        let mut list = Vec::new();
        for pool in pools {
            pool.enlist(u16::try_from(list.len()).unwrap_or(u16::MAX), &mut list);
        }
        // SAFETY: a pooled buffer's memory is freed only with its pool's shelf, which the buffers in flight keep alive; a
        // registered page stays pinned by the kernel in any case.
        let done = unsafe { self.ring.submitter().register_buffers(&list) };
        if done.is_err() {
            pools.iter().for_each(|pool| pool.delist());
        }
        done
    }

    fn push(&mut self, token: T, hold: Hold, stays: bool, entry: Entry) {
        let flight = Flight { token, hold, stays };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.flights.push(None);
                self.flights.len() - 1
            }
        };
        self.flights[index] = Some(flight);
        self.enqueue(entry.user_data(index as u64));
    }

    fn enqueue(&mut self, entry: Entry) {
        // SAFETY: whatever the entry points to is held by its flight until its completion.
        if !self.waiting.is_empty() || unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.waiting.push(entry);
        }
    }

    /// Writes bytes of a buffer (the first one, and how many) at `offset` of a file.
    pub(crate) fn write(
        &mut self,
        token: T,
        file: BorrowedFd<'_>,
        offset: u64,
        data: Arc<Buffer>,
        (from, length): (usize, usize),
    ) {
        let from = from.min(data.len());
        let length = length.min(data.len() - from) as u32;
        let (fd, pointer) = (types::Fd(file.as_raw_fd()), data.pointer().wrapping_add(from).cast_const());
        let entry = match data.fixed() {
            Some(number) => opcode::WriteFixed::new(fd, pointer, length, number).offset(offset).build(),
            None => opcode::Write::new(fd, pointer, length).offset(offset).build(),
        };
        self.push(token, Hold::Shared { _data: data }, false, entry);
    }

    /// Reads `length` bytes at `offset` of a file; the buffer comes back with the completion.
    pub(crate) fn read(&mut self, token: T, file: BorrowedFd<'_>, offset: u64, into: Buffer, length: usize) {
        let length = length.min(into.len()) as u32;
        let (fd, pointer) = (types::Fd(file.as_raw_fd()), into.pointer());
        let entry = match into.fixed() {
            Some(number) => opcode::ReadFixed::new(fd, pointer, length, number).offset(offset).build(),
            None => opcode::Read::new(fd, pointer, length).offset(offset).build(),
        };
        self.push(token, Hold::Owned(into), false, entry);
    }

    /// Makes a file's data durable.
    pub(crate) fn datasync(&mut self, token: T, file: BorrowedFd<'_>) {
        let entry =
            opcode::Fsync::new(types::Fd(file.as_raw_fd())).flags(types::FsyncFlags::DATASYNC).build();
        self.push(token, Hold::Nothing, false, entry);
    }

    /// `fallocate` of a range with this mode.
    pub(crate) fn allocate(&mut self, token: T, file: BorrowedFd<'_>, offset: u64, length: u64, mode: i32) {
        let fd = types::Fd(file.as_raw_fd());
        let entry = opcode::Fallocate::new(fd, length).offset(offset).mode(mode).build();
        self.push(token, Hold::Nothing, false, entry);
    }

    /// Completes at once, like an operation that does nothing.
    pub(crate) fn nothing(&mut self, token: T) {
        self.push(token, Hold::Nothing, false, opcode::Nop::new().build());
    }

    /// Receives into the bytes `from..to` of a buffer; `all`: complete only when every byte has come.
    pub(crate) fn receive(
        &mut self,
        token: T,
        socket: BorrowedFd<'_>,
        into: Buffer,
        (from, to): (usize, usize),
        all: bool,
    ) {
        let to = to.min(into.len());
        let from = from.min(to);
        let flags = if all { libc::MSG_WAITALL } else { 0 };
        let pointer = into.pointer().wrapping_add(from);
        let entry = opcode::Recv::new(types::Fd(socket.as_raw_fd()), pointer, (to - from) as u32)
            .flags(flags)
            .build();
        self.push(token, Hold::Owned(into), false, entry);
    }

    /// Sends the pieces in order; complete when every byte is with the kernel.
    pub(crate) fn send(&mut self, token: T, socket: Arc<OwnedFd>, pieces: Vec<Piece>) {
        let mut vectors = Vec::with_capacity(pieces.len() * 2);
        for piece in &pieces {
            vectors.push(vector(piece.head.as_ptr().cast_mut(), piece.head.len()));
            if let Some((data, bytes)) = &piece.data {
                let (from, to) = (bytes.start.min(data.len()), bytes.end.min(data.len()));
                vectors.push(vector(data.pointer().wrapping_add(from), to.saturating_sub(from)));
            }
        }
        // SAFETY: all zeroes is a valid msghdr: no name, no vectors, no control data.
        let message: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut batch = Box::new(Batch { pieces, vectors, message, socket, skip: 0 });
        let entry = batch.entry();
        self.push(token, Hold::Batch(batch), false, entry);
    }

    /// Reports each time a descriptor becomes readable, until [`Completion::result`] is an error.
    pub(crate) fn poll(&mut self, token: T, descriptor: BorrowedFd<'_>) {
        let entry =
            opcode::PollAdd::new(types::Fd(descriptor.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        self.push(token, Hold::Nothing, true, entry);
    }

    /// Submits what is queued and waits for a completion, at most until `limit` has passed; spins for `spin` first, leaving
    /// the processor to whoever else wants it. Gives how long it waited.
    ///
    /// # Errors
    /// The ring is broken; nothing can go on.
    pub(crate) fn wait(&mut self, limit: Option<Duration>, spin: Duration) -> io::Result<Duration> {
        self.refill();
        let began = Instant::now();
        if !spin.is_zero() {
            self.ring.submit()?;
            let end = began + limit.map_or(spin, |limit| limit.min(spin));
            loop {
                let queue = self.ring.submission();
                if queue.taskrun() {
                    break;
                }
                drop(queue);
                if !self.ring.completion().is_empty() {
                    return Ok(began.elapsed());
                }
                if Instant::now() >= end {
                    break;
                }
                std::thread::yield_now();
            }
        }
        let time = limit.map(types::Timespec::from);
        let submitted = match &time {
            Some(time) => self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(time)),
            None => self.ring.submit_and_wait(1),
        };
        match submitted.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {
                Ok(began.elapsed())
            }
            Err((_, error)) => Err(error),
        }
    }

    /// Moves entries that found the queue full into it, submitting as often as needed.
    fn refill(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting).into_iter();
        while let Some(entry) = waiting.next() {
            // SAFETY: as in `enqueue`.
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                if self.ring.submit().is_err() {
                    self.waiting = std::iter::once(entry).chain(waiting).collect();
                    return;
                }
                // SAFETY: as in `enqueue`; the queue is empty after a submit.
                let _ = unsafe { self.ring.submission().push(&entry) };
            }
        }
    }

    /// The next completed operation.
    pub(crate) fn next(&mut self) -> Option<Completion<T>> {
        loop {
            let done = self.ring.completion().next()?;
            let index = usize::try_from(done.user_data()).ok()?;
            let Some(mut flight) = self.flights.get_mut(index).and_then(Option::take) else { continue };
            let result = if done.result() < 0 { Err(-done.result()) } else { Ok(done.result() as usize) };
            if flight.stays && io_uring::cqueue::more(done.flags()) {
                let token = flight.token;
                self.flights[index] = Some(flight);
                return Some(Completion { token, result, buffer: None });
            }
            if let (Hold::Batch(batch), Ok(sent)) = (&mut flight.hold, result)
                && sent > 0
                && !batch.advance(sent)
            {
                // A short send in spite of MSG_WAITALL: the rest follows, in place of the old operation.
                let entry = batch.entry();
                self.flights[index] = Some(flight);
                self.enqueue(entry.user_data(index as u64));
                continue;
            }
            self.free.push(index);
            let result = if flight.stays && result.is_ok() { Err(0) } else { result };
            let buffer = match flight.hold {
                Hold::Owned(buffer) => Some(buffer),
                Hold::Nothing | Hold::Shared { .. } | Hold::Batch(_) => None,
            };
            return Some(Completion { token: flight.token, result, buffer });
        }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // The kernel may still use what unfinished operations point to: it stays allocated until the process ends.
        self.flights.drain(..).for_each(std::mem::forget);
    }
}

fn vector(start: *mut u8, length: usize) -> libc::iovec {
    libc::iovec { iov_base: start.cast(), iov_len: length }
}

impl Batch {
    fn entry(&mut self) -> Entry {
        self.message.msg_iov = self.vectors.as_mut_ptr().wrapping_add(self.skip);
        self.message.msg_iovlen = self.vectors.len() - self.skip;
        let flags = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32;
        opcode::SendMsg::new(types::Fd(self.socket.as_raw_fd()), &raw const self.message).flags(flags).build()
    }

    /// Takes `sent` bytes off the front; `true` when nothing is left.
    fn advance(&mut self, mut sent: usize) -> bool {
        debug_assert!(!self.pieces.is_empty());
        while let Some(vector) = self.vectors.get_mut(self.skip) {
            if sent < vector.iov_len {
                vector.iov_base = vector.iov_base.wrapping_byte_add(sent);
                vector.iov_len -= sent;
                return false;
            }
            sent -= vector.iov_len;
            self.skip += 1;
        }
        true
    }
}
