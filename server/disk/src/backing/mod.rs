//! The local disk: where the copy's bytes are. The real one is a file or device with direct I/O; the volatile one behaves
//! like a disk with a cache that a power loss empties.

mod direct;
mod hasher;
mod volatile;

pub(crate) use direct::Direct;
pub(crate) use hasher::{hashes, zero_bits};
pub(crate) use volatile::Volatile;

use crate::limits::LOCK;
use crate::ring::Ring;
use crate::ring::memory::Buffer;
use crate::token::{DiskJob, Token, ZeroJob};
use anyhow::Context as _;
use mirror::action::OpId;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a flush must make durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Everything written so far.
    Data,
    /// At least the control area.
    Control,
}

/// The local disk. Offsets are those of the backing, control area included. Each call is answered by exactly one
/// completion of `Token::Disk` in the ring or one `Outcome::Disk` in the inbox.
pub(crate) trait Backing {
    /// Writes these bytes at `offset`.
    fn write(&mut self, ring: &mut Ring<Token>, job: DiskJob, offset: u64, data: Bytes);
    /// Makes a range read as zeroes, in the job's way; a way it has not gives EOPNOTSUPP or EINVAL. Not for
    /// [`ZeroWay::Write`], which is a `write`.
    fn zero(&mut self, ring: &mut Ring<Token>, job: ZeroJob);
    /// Reads `length` bytes; the buffer comes back with the answer.
    fn read(&mut self, ring: &mut Ring<Token>, job: DiskJob, offset: u64, into: Buffer, length: usize);
    /// Makes completed writes durable.
    fn flush(&mut self, ring: &mut Ring<Token>, job: DiskJob, what: Durable);
    /// Hashes each block of a range; answered by `Outcome::Hashed`, with the bytes if they are to be kept.
    fn hash(&mut self, op: OpId, offset: u64, length: usize, keep: bool);
    /// Hashes each block of what was read; answered by `Outcome::Hashed`, with the bytes.
    fn digest(&mut self, op: OpId, read: Buffer, length: usize);
}

/// Bytes of a shared buffer.
pub(crate) struct Bytes {
    /// The buffer.
    pub data: Arc<Buffer>,
    /// The first of them.
    pub from: usize,
    /// How many.
    pub length: usize,
}

impl Bytes {
    /// The first `length` bytes.
    pub(crate) fn first(data: Arc<Buffer>, length: usize) -> Bytes {
        Bytes { data, from: 0, length }
    }

    /// Those that there are.
    pub(crate) fn bytes(&self) -> &[u8] {
        let all = self.data.bytes();
        all.get(self.from..).map_or(&[], |rest| rest.get(..self.length).unwrap_or(rest))
    }
}

/// Opens a backing for the data path, locked against every other disk process: the lock of a killed one is only gone when
/// its last write has landed (DATA-PATH).
///
/// # Errors
/// It cannot be opened, or another process keeps it.
pub(crate) fn open(path: &Path, direct: bool) -> anyhow::Result<File> {
    let flags = if direct { libc::O_DIRECT } else { 0 } | exclusive(path);
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).with_context(|| {
            format!("open the backing {}: does it exist, is it mounted, has it direct I/O?", path.display())
        })?;
    lock(&file).with_context(|| {
        format!("{} is locked by another process: end the other disk process of this set", path.display())
    })?;
    Ok(file)
}

/// A device that is mounted, or otherwise claimed, must not be written to under its owner.
pub(crate) fn exclusive(path: &Path) -> libc::c_int {
    let device = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
    if device { libc::O_EXCL } else { 0 }
}

fn lock(file: &File) -> Result<(), rustix::io::Errno> {
    let end = Instant::now() + LOCK;
    loop {
        match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}

/// Alignment that direct I/O on this file needs, in bytes; 4096 when the file system does not tell.
pub(crate) fn alignment(file: &File) -> u32 {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let known = statx(file.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    known.ok().map(|found| found.stx_dio_offset_align).filter(|align| *align >= 512).unwrap_or(4096)
}
