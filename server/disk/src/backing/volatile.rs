//! A disk whose cache is lost with the process: unflushed writes stay in memory, so that `kill -9` is a power loss.
//!
//! A seeded coin applies parts of some writes early, torn at sectors, as a real cache writes back when it likes. The thread
//! that serves it does one thing after another; the loop is never held up.

use super::hasher::{hash_blocks, hashes};
use super::{Backing, Bytes, Durable};
use crate::inbox::{Outbox, Outcome};
use crate::limits::{JOBS_MAX, STACK_BYTES, VOLATILE_BYTES};
use crate::options::{DiskOptions, VolatileFault, VolatileOp};
use crate::ring::Ring;
use crate::ring::memory::Buffer;
use crate::token::{DiskJob, Token, ZeroJob};
use mirror::action::OpId;
use mirror::input::{LocalFault, LocalResult};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

const PAGE: usize = 4096;
const SECTOR: usize = 512;
/// One in so many writes is partly applied before its flush.
const EARLY_ONE_IN: u64 = 8;

enum Job {
    Write { job: DiskJob, offset: u64, data: Bytes },
    Zero(ZeroJob),
    Read { job: DiskJob, offset: u64, into: Buffer, length: usize },
    Flush { job: DiskJob, what: Durable },
    Hash { op: OpId, offset: u64, length: usize, keep: bool },
    Digest { op: OpId, read: Buffer, length: usize },
}

/// The volatile backing's handle; dropping it ends the thread, and what was not flushed is lost.
pub(crate) struct Volatile {
    jobs: SyncSender<Job>,
    outbox: Outbox,
}

impl Volatile {
    /// Over a file opened without O_DIRECT. `control`: bytes of the control area, which `no_flush` leaves honest.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn new(file: File, options: &DiskOptions, control: u64, outbox: Outbox) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let answers = outbox.clone();
        let (coin, no_flush) = (options.volatile_seed | 1, options.no_flush);
        let cache = Cache { file, pages: BTreeMap::new(), coin, no_flush, control };
        let weakness = Weakness {
            delay: Duration::from_micros(options.volatile_delay_us),
            fault: options.volatile_fault,
            seen: 0,
        };
        std::thread::Builder::new()
            .name("volatile".into())
            .stack_size(STACK_BYTES)
            .spawn(move || serve(cache, weakness, &queue, &answers))?;
        Ok(Volatile { jobs, outbox })
    }

    fn put(&self, job: Job) {
        let Err(refused) = self.jobs.try_send(job) else { return };
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        let result = Err(libc::EBUSY);
        match refused {
            Full(job) | Disconnected(job) => match job {
                Job::Write { job, .. } | Job::Flush { job, .. } => {
                    self.outbox.put(Outcome::Disk { job, result, buffer: None });
                }
                Job::Zero(job) => {
                    self.outbox.put(Outcome::Disk { job: DiskJob::Zero(job), result, buffer: None });
                }
                Job::Read { job, into, .. } => {
                    self.outbox.put(Outcome::Disk { job, result, buffer: Some(into) });
                }
                Job::Hash { op, .. } | Job::Digest { op, .. } => {
                    let result = Err(LocalFault { errno: libc::EBUSY });
                    self.outbox.put(Outcome::Hashed { op, result, buffer: None });
                }
            },
        }
    }
}

impl Backing for Volatile {
    fn write(&mut self, _: &mut Ring<Token>, job: DiskJob, offset: u64, data: Bytes) {
        self.put(Job::Write { job, offset, data });
    }

    fn zero(&mut self, _: &mut Ring<Token>, job: ZeroJob) {
        self.put(Job::Zero(job));
    }

    fn read(&mut self, _: &mut Ring<Token>, job: DiskJob, offset: u64, into: Buffer, length: usize) {
        self.put(Job::Read { job, offset, into, length });
    }

    fn flush(&mut self, _: &mut Ring<Token>, job: DiskJob, what: Durable) {
        self.put(Job::Flush { job, what });
    }

    fn hash(&mut self, op: OpId, offset: u64, length: usize, keep: bool) {
        self.put(Job::Hash { op, offset, length, keep });
    }

    fn digest(&mut self, op: OpId, read: Buffer, length: usize) {
        self.put(Job::Digest { op, read, length });
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// How the disk is worse than a good one.
struct Weakness {
    delay: Duration,
    fault: Option<VolatileFault>,
    /// Operations of the kind that fails.
    seen: u64,
}

impl Weakness {
    /// Waits as long as an operation takes longer here, and fails it if it is one that fails.
    fn suffer(&mut self, job: &Job) -> io::Result<()> {
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        let Some(fault) = self.fault else { return Ok(()) };
        let kind = match job {
            Job::Write { .. } | Job::Zero(_) => VolatileOp::Write,
            Job::Read { .. } | Job::Hash { .. } => VolatileOp::Read,
            Job::Flush { .. } => VolatileOp::Flush,
            Job::Digest { .. } => return Ok(()),
        };
        if kind != fault.what {
            return Ok(());
        }
        self.seen += 1;
        let failing = self.seen > fault.after && (fault.times == 0 || self.seen <= fault.after + fault.times);
        if failing { Err(io::Error::from_raw_os_error(fault.errno)) } else { Ok(()) }
    }
}

fn serve(mut cache: Cache, mut weakness: Weakness, queue: &Receiver<Job>, answers: &Outbox) {
    for job in queue {
        let able = weakness.suffer(&job);
        match job {
            Job::Write { job, offset, data } => {
                let done = able.and_then(|()| cache.write(offset, data.bytes()));
                let length = data.length;
                drop(data);
                let result = done.map(|()| length).map_err(|error| errno(&error));
                answers.put(Outcome::Disk { job, result, buffer: None });
            }
            Job::Zero(job) => {
                let done = able.and_then(|()| cache.zero(job.offset, job.length));
                let result = done.map(|()| 0).map_err(|error| errno(&error));
                answers.put(Outcome::Disk { job: DiskJob::Zero(job), result, buffer: None });
            }
            Job::Read { job, offset, mut into, length } => {
                let bytes = into.bytes_mut();
                let length = length.min(bytes.len());
                let done = able.and_then(|()| cache.read(offset, &mut bytes[..length]));
                let result = done.map(|()| length).map_err(|error| errno(&error));
                answers.put(Outcome::Disk { job, result, buffer: Some(into) });
            }
            Job::Flush { job, what } => {
                let done = able.and_then(|()| cache.flush(what));
                let result = done.map(|()| 0).map_err(|error| errno(&error));
                answers.put(Outcome::Disk { job, result, buffer: None });
            }
            Job::Digest { op, read, length } => {
                let result = Ok(LocalResult::Hashes(hashes(read.first(length))));
                answers.put(Outcome::Hashed { op, result, buffer: Some(read) });
            }
            Job::Hash { op, offset, length, keep } => {
                let Some(mut buffer) = Buffer::new(length) else {
                    let result = Err(LocalFault { errno: libc::ENOMEM });
                    answers.put(Outcome::Hashed { op, result, buffer: None });
                    continue;
                };
                let bytes = &mut buffer.bytes_mut()[..length];
                let mut hashes = Vec::new();
                let done = able.and_then(|()| cache.read(offset, bytes));
                let done = done.map(|()| hash_blocks(bytes, &mut hashes));
                let result = done.map(|()| LocalResult::Hashes(hashes));
                let result = result.map_err(|error| LocalFault { errno: errno(&error) });
                answers.put(Outcome::Hashed { op, result, buffer: Some(buffer).filter(|_| keep) });
            }
        }
    }
}

struct Page {
    /// Bit n: sector n was written and is not on the disk.
    sectors: u8,
    bytes: Box<[u8; PAGE]>,
}

struct Cache {
    file: File,
    pages: BTreeMap<u64, Page>,
    coin: u64,
    no_flush: bool,
    control: u64,
}

impl Cache {
    /// xorshift64: enough for a coin, and the same from the same seed.
    fn toss(&mut self) -> u64 {
        self.coin ^= self.coin << 13;
        self.coin ^= self.coin >> 7;
        self.coin ^= self.coin << 17;
        self.coin
    }

    /// Splits a range at pages: (number of the page, first byte in it, first byte in the range, length).
    fn split(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let inside = (at % PAGE as u64) as usize;
            let part = (PAGE - inside).min(length - done);
            let found = (part > 0).then_some((at / PAGE as u64, inside, done, part));
            done += part;
            found
        })
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        for (number, inside, done, part) in Self::split(offset, data.len()) {
            let empty = || Page { sectors: 0, bytes: Box::new([0; PAGE]) };
            let page = self.pages.entry(number).or_insert_with(empty);
            page.bytes[inside..inside + part].copy_from_slice(&data[done..done + part]);
            for sector in inside / SECTOR..(inside + part).div_ceil(SECTOR) {
                page.sectors |= 1 << sector;
            }
            if self.toss().is_multiple_of(EARLY_ONE_IN) {
                let torn = self.toss() as u8;
                self.apply(number, torn)?;
            }
        }
        if self.pages.len() * PAGE > VOLATILE_BYTES {
            self.apply_all(u64::MAX)?;
        }
        Ok(())
    }

    /// A cache holds zeroes like other data: they are lost and torn like it.
    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let zeroes = [0; PAGE];
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let part = (end - at).min((PAGE - at as usize % PAGE) as u64);
            self.write(at, &zeroes[..part as usize])?;
            at += part;
        }
        Ok(())
    }

    /// Writes those sectors of a page that are in `chosen` to the disk; they stay in the cache.
    fn apply(&self, number: u64, chosen: u8) -> io::Result<()> {
        let Some(page) = self.pages.get(&number) else { return Ok(()) };
        let all = page.sectors & chosen;
        if all == u8::MAX {
            return self.file.write_all_at(&page.bytes[..], number * PAGE as u64);
        }
        for (sector, bytes) in
            page.bytes.chunks(SECTOR).enumerate().filter(|(sector, _)| all & 1 << sector != 0)
        {
            self.file.write_all_at(bytes, number * PAGE as u64 + (sector * SECTOR) as u64)?;
        }
        Ok(())
    }

    /// Applies and forgets all pages below this byte of the backing.
    fn apply_all(&mut self, below: u64) -> io::Result<()> {
        let numbers: Vec<u64> =
            self.pages.range(..below.div_ceil(PAGE as u64)).map(|(number, _)| *number).collect();
        for number in numbers {
            self.apply(number, u8::MAX)?;
            self.pages.remove(&number);
        }
        Ok(())
    }

    fn flush(&mut self, what: Durable) -> io::Result<()> {
        match (self.no_flush, what) {
            (true, Durable::Data) => return Ok(()),
            (true, Durable::Control) => self.apply_all(self.control)?,
            (false, Durable::Data | Durable::Control) => self.apply_all(u64::MAX)?,
        }
        self.file.sync_data()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)?;
        for (number, inside, done, part) in Self::split(offset, into.len()) {
            let Some(page) = self.pages.get(&number) else { continue };
            for at in (inside..inside + part).step_by(SECTOR) {
                if page.sectors & 1 << (at / SECTOR) != 0 {
                    let to = done + at - inside;
                    into[to..to + SECTOR].copy_from_slice(&page.bytes[at..at + SECTOR]);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64 * PAGE;

    fn cache(no_flush: bool, seed: u64) -> (tempfile::NamedTempFile, Cache) {
        let place = tempfile::NamedTempFile::new().unwrap();
        place.as_file().set_len(SIZE as u64).unwrap();
        let file = place.reopen().unwrap();
        (place, Cache { file, pages: BTreeMap::new(), coin: seed | 1, no_flush, control: 4 * PAGE as u64 })
    }

    fn on_disk(place: &tempfile::NamedTempFile) -> Vec<u8> {
        std::fs::read(place.path()).unwrap()
    }

    #[test]
    fn reads_see_what_was_written_across_pages_and_a_kill_loses_it_whole_or_in_part() {
        let mut partly = 0;
        for seed in 0..32 {
            let (place, mut cache) = cache(false, seed);
            cache.write(3 * 512, &[7; 2 * PAGE]).unwrap();
            let mut found = vec![0; SIZE];
            cache.read(0, &mut found).unwrap();
            assert!(found[..1536].iter().all(|byte| *byte == 0));
            assert!(found[1536..1536 + 2 * PAGE].iter().all(|byte| *byte == 7));
            assert!(found[1536 + 2 * PAGE..].iter().all(|byte| *byte == 0));
            drop(cache);
            let applied = on_disk(&place).iter().filter(|byte| **byte == 7).count();
            assert!(applied < 2 * PAGE, "a whole unflushed write reached the disk with seed {seed}");
            assert_eq!(applied % SECTOR, 0);
            partly += usize::from(applied > 0);
        }
        assert!(partly > 0, "no write was ever torn");
    }

    #[test]
    fn zeroes_are_lost_torn_and_kept_like_other_data() {
        let partly = (0..32).filter(|seed| {
            let (place, mut cache) = cache(false, *seed);
            cache.write(0, &[7; 8 * PAGE]).unwrap();
            cache.flush(Durable::Data).unwrap();
            cache.zero(512, 4 * PAGE as u64 + 512).unwrap();
            let mut found = vec![0; 8 * PAGE];
            cache.read(0, &mut found).unwrap();
            let (before, rest) = found.split_at(512);
            let (zeroed, after) = rest.split_at(4 * PAGE + 512);
            assert!(
                before.iter().chain(after).all(|byte| *byte == 7) && zeroed.iter().all(|byte| *byte == 0)
            );
            drop(cache);
            let kept = on_disk(&place)[512..4 * PAGE + 1024].iter().filter(|byte| **byte == 0).count();
            assert!(kept < 4 * PAGE + 512 && kept % SECTOR == 0);
            kept > 0
        });
        assert!(partly.count() > 0, "no write of zeroes was ever torn");
    }

    #[test]
    fn the_operations_named_fail_and_no_others() {
        let fault = VolatileFault { what: VolatileOp::Flush, after: 2, times: 1, errno: libc::EIO };
        let mut weakness = Weakness { delay: Duration::ZERO, fault: Some(fault), seen: 0 };
        let flush = || Job::Flush { job: DiskJob::Flush { op: OpId(1) }, what: Durable::Data };
        let hash = || Job::Hash { op: OpId(2), offset: 0, length: PAGE, keep: false };
        let failed: Vec<bool> = (0..4).map(|_| weakness.suffer(&flush()).is_err()).collect();
        assert_eq!(failed, [false, false, true, false]);
        assert!(weakness.suffer(&hash()).is_ok());
    }

    #[test]
    fn what_was_flushed_survives() {
        let (place, mut cache) = cache(false, 5);
        cache.write(8192, &[9; PAGE]).unwrap();
        cache.flush(Durable::Data).unwrap();
        drop(cache);
        assert!(on_disk(&place)[8192..8192 + PAGE].iter().all(|byte| *byte == 9));
    }

    #[test]
    fn a_lying_flush_loses_data_but_keeps_the_control_area() {
        let (place, mut cache) = cache(true, 6);
        cache.write(0, &[1; PAGE]).unwrap();
        cache.write(16 * PAGE as u64, &[2; 8 * PAGE]).unwrap();
        cache.flush(Durable::Data).unwrap();
        cache.flush(Durable::Control).unwrap();
        drop(cache);
        let found = on_disk(&place);
        assert!(found[..PAGE].iter().all(|byte| *byte == 1));
        assert!(found[16 * PAGE..24 * PAGE].contains(&0));
    }
}
