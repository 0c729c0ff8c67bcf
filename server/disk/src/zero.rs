//! Ranges that shall read as zeroes, in the cheapest way that the backing has: a hole, a mark, or zeroes written.
//!
//! Both copies read the same afterwards whatever each disk can do: a discard is a write of zeroes that may give space back.

use crate::backing::Bytes;
use crate::limits::LARGE_BYTES;
use crate::ring::memory::Buffer;
use crate::token::{DiskJob, ZeroJob, ZeroWay};
use crate::turn::Loop;
use mirror::action::OpId;
use mirror::input::{Input, LocalFault, LocalResult, Range};
use std::sync::Arc;

/// What this backing was found to be able to do.
pub(crate) struct Zeroing {
    /// The cheapest way that is not known to fail: first of a discard, then of a write of zeroes.
    best: [ZeroWay; 2],
    /// What is written where nothing else helps; there once it was needed.
    zeroes: Option<Arc<Buffer>>,
}

impl Default for Zeroing {
    fn default() -> Self {
        Zeroing { best: [ZeroWay::Punch, ZeroWay::Mark], zeroes: None }
    }
}

impl Zeroing {
    /// A way failed with this errno: the next one, if that says that the backing does not have it.
    fn next(&mut self, way: ZeroWay, errno: i32) -> Option<ZeroWay> {
        if !matches!(errno, libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS | libc::ENODEV) {
            return None;
        }
        let next = match way {
            ZeroWay::Punch => ZeroWay::Mark,
            ZeroWay::Mark => ZeroWay::Write,
            ZeroWay::Write => return None,
        };
        tracing::info!(?way, errno, ?next, "the backing cannot zero ranges in one way: the next is used");
        for best in self.best.iter_mut().filter(|best| **best == way) {
            *best = next;
        }
        Some(next)
    }

    fn zeroes(&mut self) -> Option<Arc<Buffer>> {
        if self.zeroes.is_none() {
            self.zeroes = Buffer::new(LARGE_BYTES).map(Arc::new);
        }
        self.zeroes.clone()
    }
}

impl Loop {
    pub(crate) fn zero_local(&mut self, op: OpId, range: Range, unmap: bool) {
        let [discard, write] = self.zeroing.best;
        let way = if unmap { discard } else { write };
        let (offset, length) = (self.data_at + range.offset, u64::from(range.length));
        self.zero(ZeroJob { op, offset, length, way, done: 0, part: 0 });
    }

    fn zero(&mut self, mut job: ZeroJob) {
        if job.way != ZeroWay::Write {
            self.parts.backing.zero(&mut self.parts.ring, job);
            return;
        }
        let Some(zeroes) = self.zeroing.zeroes() else {
            let result = Err(LocalFault { errno: libc::ENOMEM });
            self.inputs.push_back(Input::LocalDone { op: job.op, result });
            return;
        };
        job.part = (job.length - job.done).min(LARGE_BYTES as u64);
        let at = job.offset + job.done;
        let length = job.part as usize;
        let data = Bytes::first(zeroes, length);
        self.parts.backing.write(&mut self.parts.ring, DiskJob::Zero(job), at, data);
    }

    /// A step is done: the next one, or the answer.
    pub(crate) fn zeroed(&mut self, mut job: ZeroJob, result: Result<usize, i32>) {
        let op = job.op;
        let result = match (job.way, result) {
            (ZeroWay::Write, Ok(written)) if written as u64 == job.part => {
                job.done += job.part;
                if job.done < job.length {
                    return self.zero(job);
                }
                Ok(LocalResult::Done)
            }
            (ZeroWay::Write, Ok(_)) => Err(LocalFault { errno: libc::EIO }),
            (ZeroWay::Punch | ZeroWay::Mark, Ok(_)) => Ok(LocalResult::Done),
            (way, Err(errno)) => match self.zeroing.next(way, errno) {
                Some(way) => return self.zero(ZeroJob { way, ..job }),
                None => Err(LocalFault { errno }),
            },
        };
        self.feed(Input::LocalDone { op, result });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backing_cannot_do_is_not_tried_again_and_a_fault_is_a_fault() {
        let mut zeroing = Zeroing::default();
        assert_eq!(zeroing.next(ZeroWay::Punch, libc::EIO), None);
        assert_eq!(zeroing.best, [ZeroWay::Punch, ZeroWay::Mark]);
        assert_eq!(zeroing.next(ZeroWay::Mark, libc::EOPNOTSUPP), Some(ZeroWay::Write));
        assert_eq!(zeroing.best, [ZeroWay::Punch, ZeroWay::Write]);
        assert_eq!(zeroing.next(ZeroWay::Punch, libc::EOPNOTSUPP), Some(ZeroWay::Mark));
        assert_eq!(zeroing.best, [ZeroWay::Mark, ZeroWay::Write]);
        assert_eq!(zeroing.next(ZeroWay::Write, libc::EOPNOTSUPP), None);
    }
}
