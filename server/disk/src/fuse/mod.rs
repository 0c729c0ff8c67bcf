//! The front end: the kernel's FUSE requests for one file become the core's requests, its replies go back.

pub(crate) mod wire;

use crate::front::{Rest, Taken, Wanted};
use crate::limits::{BACKGROUND_MAX, LARGE_BYTES, SMALL_BYTES, UNANSWERED_MAX, WRITE_MAX};
use crate::pools::Pools;
use crate::ring::memory::Buffer;
use mirror::input::{Range, RequestId};
use peer::block::ZERO_BYTES_MAX;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use wire::{FILE, HEAD, HEAD_AND_ARGS, NAME, ROOT, Request};

/// A request of the kernel that the core works on.
pub(crate) struct Pending {
    unique: u64,
    /// Bytes of the request.
    pub length: usize,
    /// A write's payload, or a read's result.
    pub data: Option<Arc<Buffer>>,
    /// A read's buffer before it is filled.
    pub into: Option<Buffer>,
    read: bool,
    rest: Option<Rest>,
}

/// Has the kernel send again whatever was read from this connection and not answered.
fn ask_again(descriptor: impl AsFd) -> Result<(), Errno> {
    rustix::io::write(descriptor, &wire::resend()).map(drop)
}

/// The ranges of all writes that a dead process read from a connection and did not answer, and of those that wait to be read.
/// They come again at the next [`ask_again`].
///
/// # Errors
/// The kernel does not send again, or the connection has ended.
pub(crate) fn unanswered(descriptor: impl AsFd, pools: &Pools) -> Result<Vec<Range>, Errno> {
    ask_again(&descriptor)?;
    let mut slot = pools.take(LARGE_BYTES).ok_or(Errno::NOMEM)?;
    let mut ranges = Vec::new();
    // New ones come meanwhile, but no more than the kernel lets be under way: each is held back by its own wait.
    for _ in 0..UNANSWERED_MAX {
        let mut head = [0; HEAD_AND_ARGS];
        let read = rustix::io::readv(
            &descriptor,
            &mut [IoSliceMut::new(&mut head), IoSliceMut::new(slot.bytes_mut())],
        );
        match read {
            Ok(_) => {
                if let Ok((_, request)) = wire::parse(&head) {
                    note_range(request, &mut ranges);
                }
            }
            Err(Errno::AGAIN) => return Ok(ranges),
            Err(Errno::INTR | Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::OVERFLOW)
}

/// Notes what a request would have written, in the pieces in which it is handed to the core.
fn note_range(request: Request<'_>, ranges: &mut Vec<Range>) {
    if let Request::Write { offset, size } = request {
        ranges.push(Range { offset, length: size });
    }
    if let Request::Allocate { offset, length, .. } = request {
        let (mut at, end) = (offset, offset.saturating_add(length));
        while at < end && ranges.len() < UNANSWERED_MAX {
            let part = (end - at).min(u64::from(ZERO_BYTES_MAX));
            ranges.push(Range { offset: at, length: part as u32 });
            at += part;
        }
    }
}

/// A FUSE connection.
pub(crate) struct Front {
    descriptor: OwnedFd,
    /// Tells this connection's polls from those of an earlier one.
    serial: u32,
    size: u64,
    next: u64,
    pub(crate) pending: BTreeMap<RequestId, Pending>,
    /// The large slot that stands ready for the next request.
    ready: Option<Buffer>,
    /// Something was written through this connection.
    written: bool,
    /// A read that waits for a slot: (unique, offset, size).
    parked: Option<(u64, u64, u32)>,
    /// The kernel sends again what a dead process did not answer, and not all of it has come yet.
    again: bool,
}

impl Front {
    /// Serves a connection whose file has this size.
    pub(crate) fn new(descriptor: OwnedFd, serial: u32, size: u64) -> Self {
        Front {
            descriptor,
            serial,
            size,
            next: 1,
            pending: BTreeMap::new(),
            ready: None,
            written: false,
            parked: None,
            again: false,
        }
    }

    /// Takes a connection over from a dead process: all that it did not answer comes again.
    ///
    /// # Errors
    /// The kernel does not send again: it is older than Linux 6.9, or the connection has ended.
    pub(crate) fn over(descriptor: OwnedFd, serial: u32, size: u64) -> Result<Self, Errno> {
        ask_again(&descriptor)?;
        let mut front = Front::new(descriptor, serial, size);
        // What was written before this process is not known: every flush reaches the disks.
        (front.written, front.again) = (true, true);
        Ok(front)
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    /// The highest number that any front end has given.
    pub(crate) fn count_from(&mut self, given: u64) {
        self.next = given + 1;
    }

    /// The highest number given by now.
    pub(crate) fn counted(&self) -> u64 {
        self.next - 1
    }

    fn begin(&mut self, pending: Pending) -> RequestId {
        let request = RequestId(self.next);
        self.next += 1;
        self.pending.insert(request, pending);
        request
    }

    /// Takes one request off the descriptor. The iovec is head, then an aligned slot: a write's data lands where direct I/O
    /// wants it.
    pub(crate) fn take_one(&mut self, pools: &Pools) -> Taken {
        if let Some((unique, offset, size)) = self.parked.take() {
            return self.read(pools, unique, offset, size);
        }
        let slot = self.ready.take().or_else(|| pools.take(LARGE_BYTES));
        // What comes again may be waited for by all that holds the slots: memory beside them, as much as was under way.
        let slot = slot.or_else(|| self.again.then(|| Buffer::new(LARGE_BYTES)).flatten());
        let Some(mut slot) = slot else { return Taken::Stalled };
        let mut head = [0; HEAD_AND_ARGS];
        let read = rustix::io::readv(
            &self.descriptor,
            &mut [IoSliceMut::new(&mut head), IoSliceMut::new(slot.bytes_mut())],
        );
        let length = match read {
            Ok(length) => length,
            Err(error) => {
                self.ready = Some(slot);
                return match error {
                    // ENOENT: the request was interrupted before it could be read.
                    Errno::INTR | Errno::NOENT => Taken::Served,
                    Errno::AGAIN => {
                        self.again = false;
                        Taken::Empty
                    }
                    _ => Taken::Ended,
                };
            }
        };
        self.dispatch(pools, &head, slot, length)
    }

    fn dispatch(&mut self, pools: &Pools, head: &[u8; HEAD_AND_ARGS], slot: Buffer, length: usize) -> Taken {
        // All but WRITE are short: put together in one piece.
        let opcode_is_write = head.get(4..8) == Some(&16_u32.to_le_bytes());
        let mut whole = head.get(..length.min(HEAD_AND_ARGS)).unwrap_or_default().to_vec();
        if !opcode_is_write {
            whole.extend_from_slice(slot.first(length.saturating_sub(HEAD_AND_ARGS)));
        }
        let (about, request) = match wire::parse(&whole) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.ready = Some(slot);
                let unique =
                    whole.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
                tracing::warn!(%error, "a request of the kernel is not understood");
                self.reply(unique, libc::EINVAL, &[]);
                return Taken::Served;
            }
        };
        let unique = about.unique;
        if let Request::Write { offset, size } = request {
            return self.write(pools, unique, offset, size, slot, length);
        }
        self.ready = Some(slot);
        match request {
            Request::Read { offset, size } => return self.read(pools, unique, offset, size),
            // Attaching the loop device flushes before there is any right to serve: with nothing written there is nothing
            // to make durable.
            Request::Sync if about.node == FILE && self.written => {
                let pending = Pending { unique, length: 0, data: None, into: None, read: false, rest: None };
                return Taken::Wanted(Wanted::Flush(self.begin(pending)));
            }
            Request::Allocate { offset, length, mode } if about.node == FILE => {
                return self.zero(unique, offset, length, mode);
            }
            Request::Init { major, minor, read_ahead, flags } => {
                match wire::init((major, minor), read_ahead, flags, WRITE_MAX, BACKGROUND_MAX) {
                    Some(answer) => self.reply(unique, 0, &answer),
                    None => {
                        tracing::warn!(
                            major,
                            minor,
                            "this kernel's FUSE is too old: Linux 5.4 or newer is needed"
                        );
                        self.reply(unique, libc::EPROTO, &[]);
                    }
                }
            }
            Request::Lookup { name } if about.node == ROOT && name == NAME => {
                self.reply(unique, 0, &wire::entry(self.size));
            }
            Request::Lookup { .. } => self.reply(unique, libc::ENOENT, &[]),
            Request::Attributes => self.reply(unique, 0, &wire::attribute_reply(about.node, self.size)),
            Request::Open => self.reply(unique, 0, &wire::open(about.node)),
            Request::List { offset, size } => self.reply(unique, 0, &wire::list(offset, size)),
            Request::Statistics => self.reply(unique, 0, &wire::statistics(self.size)),
            Request::Nothing | Request::Sync => self.reply(unique, 0, &[]),
            Request::Forbidden | Request::Allocate { .. } => self.reply(unique, libc::EPERM, &[]),
            Request::Unknown => self.reply(unique, libc::ENOSYS, &[]),
            Request::Silent | Request::Write { .. } => {}
        }
        debug_assert!(HEAD <= length);
        Taken::Served
    }

    /// Whether a range is within the device and whole sectors.
    fn range(&self, offset: u64, size: u32) -> Option<Range> {
        let end = offset.checked_add(u64::from(size))?;
        let whole = offset.is_multiple_of(512) && size.is_multiple_of(512);
        (size > 0 && size <= WRITE_MAX && end <= self.size && whole).then_some(Range { offset, length: size })
    }

    fn write(
        &mut self,
        pools: &Pools,
        unique: u64,
        offset: u64,
        size: u32,
        slot: Buffer,
        got: usize,
    ) -> Taken {
        let length = size as usize;
        let Some(range) = self.range(offset, size).filter(|_| got == HEAD_AND_ARGS + length) else {
            self.ready = Some(slot);
            self.reply(unique, libc::EINVAL, &[]);
            return Taken::Served;
        };
        // A short write moves to a small slot, so that the large one stands ready again; without one it keeps the large.
        let small = if length <= SMALL_BYTES { pools.small.take() } else { None };
        let data = match small {
            Some(mut small) => {
                if let Some(to) = small.bytes_mut().get_mut(..length) {
                    to.copy_from_slice(slot.first(length));
                }
                self.ready = Some(slot);
                small
            }
            None => slot,
        };
        self.written = true;
        let data = Some(Arc::new(data));
        let pending = Pending { unique, length, data, into: None, read: false, rest: None };
        Taken::Wanted(Wanted::Write(self.begin(pending), range))
    }

    fn read(&mut self, pools: &Pools, unique: u64, offset: u64, size: u32) -> Taken {
        let Some(range) = self.range(offset, size) else {
            self.reply(unique, libc::EINVAL, &[]);
            return Taken::Served;
        };
        let Some(into) = pools.take(size as usize).or_else(|| self.spare(size as usize)) else {
            self.parked = Some((unique, offset, size));
            return Taken::Stalled;
        };
        let length = size as usize;
        let pending = Pending { unique, length, data: None, into: Some(into), read: true, rest: None };
        Taken::Wanted(Wanted::Read(self.begin(pending), range))
    }

    /// Discard and write-zeroes of the loop device. Space is not reserved: that is refused.
    fn zero(&mut self, unique: u64, offset: u64, length: u64, mode: i32) -> Taken {
        let unmap = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            libc::FALLOC_FL_PUNCH_HOLE => true,
            libc::FALLOC_FL_ZERO_RANGE => false,
            _ => {
                self.reply(unique, libc::EOPNOTSUPP, &[]);
                return Taken::Served;
            }
        };
        let whole = offset.is_multiple_of(512) && length.is_multiple_of(512) && length > 0;
        if !whole || offset.checked_add(length).is_none_or(|end| end > self.size) {
            self.reply(unique, libc::EINVAL, &[]);
            return Taken::Served;
        }
        self.written = true;
        Taken::Wanted(self.zero_piece(unique, Rest { offset, length, unmap }))
    }

    /// The next piece of a range.
    fn zero_piece(&mut self, unique: u64, whole: Rest) -> Wanted {
        let (range, rest) = whole.piece();
        let pending = Pending { unique, length: 0, data: None, into: None, read: false, rest };
        Wanted::Zero(self.begin(pending), range, whole.unmap)
    }

    /// With nothing else under way the slot that stands ready may be used, or a long read would wait for ever.
    fn spare(&mut self, length: usize) -> Option<Buffer> {
        if self.pending.is_empty() && length <= LARGE_BYTES { self.ready.take() } else { None }
    }

    /// Answers a request of the core's; gives the next piece if it was one of a long range.
    pub(crate) fn answer_one(&mut self, request: RequestId, errno: i32) -> Option<Wanted> {
        let pending = self.pending.remove(&request)?;
        if let Some(rest) = pending.rest.filter(|_| errno == 0) {
            return Some(self.zero_piece(pending.unique, rest));
        }
        if errno != 0 {
            self.reply(pending.unique, errno, &[]);
        } else if pending.read {
            match &pending.data {
                Some(data) => self.reply(pending.unique, 0, data.first(pending.length)),
                None => self.reply(pending.unique, libc::EIO, &[]),
            }
        } else if pending.length > 0 {
            self.reply(pending.unique, 0, &wire::written(pending.length as u32));
        } else {
            self.reply(pending.unique, 0, &[]);
        }
        None
    }

    fn reply(&self, unique: u64, errno: i32, body: &[u8]) {
        let head = wire::reply_head(unique, errno, body.len());
        let mut tries = 0;
        loop {
            match rustix::io::writev(&self.descriptor, &[IoSlice::new(&head), IoSlice::new(body)]) {
                Err(Errno::INTR) if tries < 16 => tries += 1,
                // ENOENT: the kernel no longer waits for it. ENODEV: the connection has ended.
                Ok(_) | Err(Errno::NOENT | Errno::NODEV) => return,
                Err(error) => {
                    tracing::warn!(%error, "a reply to the kernel was refused");
                    return;
                }
            }
        }
    }
}
