//! A file or device with O_DIRECT, through the ring.

use super::{Backing, Bytes, Durable, hasher::Hasher};
use crate::inbox::Outbox;
use crate::ring::Ring;
use crate::ring::memory::{Buffer, Spare};
use crate::token::{DiskJob, Token, ZeroJob, ZeroWay};
use mirror::action::OpId;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::Arc;

/// The real backing.
pub(crate) struct Direct {
    file: Arc<File>,
    hasher: Hasher,
    no_flush: bool,
}

impl Direct {
    /// Over a file opened with O_DIRECT.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn new(file: File, no_flush: bool, spare: Spare, outbox: Outbox) -> std::io::Result<Self> {
        let file = Arc::new(file);
        let hasher = Hasher::new(&file, &spare, &outbox)?;
        Ok(Direct { file, hasher, no_flush })
    }
}

impl Backing for Direct {
    fn write(&mut self, ring: &mut Ring<Token>, job: DiskJob, offset: u64, data: Bytes) {
        let Bytes { data, from, length } = data;
        ring.write(Token::Disk(job), self.file.as_fd(), offset, data, (from, length));
    }

    fn zero(&mut self, ring: &mut Ring<Token>, job: ZeroJob) {
        let how = match job.way {
            ZeroWay::Punch => libc::FALLOC_FL_PUNCH_HOLE,
            ZeroWay::Mark | ZeroWay::Write => libc::FALLOC_FL_ZERO_RANGE,
        };
        // The size of an image file is the set's: a range at its end must not change it.
        let mode = how | libc::FALLOC_FL_KEEP_SIZE;
        ring.allocate(Token::Disk(DiskJob::Zero(job)), self.file.as_fd(), job.offset, job.length, mode);
    }

    fn read(&mut self, ring: &mut Ring<Token>, job: DiskJob, offset: u64, into: Buffer, length: usize) {
        ring.read(Token::Disk(job), self.file.as_fd(), offset, into, length);
    }

    fn flush(&mut self, ring: &mut Ring<Token>, job: DiskJob, what: Durable) {
        if self.no_flush && what == Durable::Data {
            ring.nothing(Token::Disk(job));
        } else {
            ring.datasync(Token::Disk(job), self.file.as_fd());
        }
    }

    fn hash(&mut self, op: OpId, offset: u64, length: usize, keep: bool) {
        self.hasher.hash(op, offset, length, keep);
    }

    fn digest(&mut self, op: OpId, read: Buffer, length: usize) {
        self.hasher.digest(op, read, length);
    }
}
