//! Reading many ranges into one buffer, and writing what is made durable later: for the store of an older version.

use crate::backing::Bytes;
use crate::ring::memory::Buffer;
use crate::token::DiskJob;
use crate::turn::Loop;
use mirror::action::OpId;
use mirror::input::Range;
use std::sync::Arc;

/// Ranges on their way into one buffer.
pub(crate) struct Gathering {
    into: Buffer,
    length: usize,
    /// Reads without an answer.
    open: usize,
    /// errno of one that failed.
    failed: Option<i32>,
}

impl Loop {
    /// Reads all ranges at once; when they are there, they are hashed.
    pub(crate) fn gather(&mut self, op: OpId, ranges: &[Range]) {
        let length = ranges.iter().map(|range| range.length as usize).sum();
        let Some(into) = self.segments.take(length) else { return self.fail(op, libc::ENOMEM) };
        let mut reads = Vec::with_capacity(ranges.len());
        let mut from = 0;
        for range in ranges {
            let length = range.length as usize;
            let Some(buffer) = self.parts.spare.take(length) else { return self.fail(op, libc::ENOMEM) };
            reads.push((range.offset, DiskJob::Gather { op, from, length }, buffer, length));
            from += length;
        }
        self.gathering.insert(op, Gathering { into, length, open: reads.len(), failed: None });
        for (offset, job, buffer, length) in reads {
            self.parts.backing.read(&mut self.parts.ring, job, self.data_at + offset, buffer, length);
        }
    }

    /// One of the ranges was read.
    pub(crate) fn gathered(
        &mut self,
        (op, from, length): (OpId, usize, usize),
        result: Result<usize, i32>,
        buffer: Option<Buffer>,
    ) {
        let Some(gathering) = self.gathering.get_mut(&op) else { return };
        let place = gathering.into.bytes_mut().get_mut(from..from + length);
        match (result, place, buffer) {
            (Ok(found), Some(place), Some(buffer)) if found == length && buffer.len() >= length => {
                place.copy_from_slice(buffer.first(length));
            }
            (Err(errno), ..) => gathering.failed = Some(errno),
            (Ok(_), ..) => gathering.failed = Some(libc::EIO),
        }
        gathering.open = gathering.open.saturating_sub(1);
        if gathering.open > 0 {
            return;
        }
        let Some(Gathering { into, length, failed, .. }) = self.gathering.remove(&op) else { return };
        match failed {
            Some(errno) => {
                self.fail(op, errno);
                self.drain_inputs();
            }
            None => self.parts.backing.digest(op, into, length),
        }
    }

    /// Writes bytes that a later flush makes durable.
    pub(crate) fn write_control(&mut self, op: OpId, bytes: &[u8], offset: u64) {
        let length = bytes.len();
        let Some(mut buffer) = Buffer::new(length) else { return self.fail(op, libc::ENOMEM) };
        if let Some(place) = buffer.bytes_mut().get_mut(..length) {
            place.copy_from_slice(bytes);
        }
        let (job, data) = (DiskJob::Write { op, length }, Bytes::first(Arc::new(buffer), length));
        self.parts.backing.write(&mut self.parts.ring, job, offset, data);
    }
}
