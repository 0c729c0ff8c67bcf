//! Hashes ranges of the backing on threads of their own, so that the loop never computes for long.

use crate::inbox::{Outbox, Outcome};
use crate::limits::{HASHERS, JOBS_MAX, STACK_BYTES};
use crate::ring::memory::{Buffer, Spare};
use mirror::action::OpId;
use mirror::input::{LocalFault, LocalResult};
use peer::block::{BLOCK_BYTES, HASH_BYTES};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

struct Job {
    op: OpId,
    length: usize,
    what: What,
}

enum What {
    /// To be read from there first.
    Range { offset: u64, keep: bool },
    /// As it is.
    Read(Buffer),
}

/// The hashing threads' handle; dropping it ends them.
pub(super) struct Hasher {
    jobs: SyncSender<Job>,
    outbox: Outbox,
}

impl Hasher {
    pub(super) fn new(file: &Arc<File>, spare: &Spare, outbox: &Outbox) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(JOBS_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..HASHERS {
            let (file, spare, outbox, queue) = (file.clone(), spare.clone(), outbox.clone(), queue.clone());
            let work = move || serve(&file, &spare, &outbox, &queue);
            std::thread::Builder::new().name("hash".into()).stack_size(STACK_BYTES).spawn(work)?;
        }
        Ok(Hasher { jobs, outbox: outbox.clone() })
    }

    pub(super) fn hash(&self, op: OpId, offset: u64, length: usize, keep: bool) {
        self.put(Job { op, length, what: What::Range { offset, keep } });
    }

    pub(super) fn digest(&self, op: OpId, read: Buffer, length: usize) {
        self.put(Job { op, length, what: What::Read(read) });
    }

    fn put(&self, job: Job) {
        let op = job.op;
        if self.jobs.try_send(job).is_err() {
            let result = Err(LocalFault { errno: libc::EBUSY });
            self.outbox.put(Outcome::Hashed { op, result, buffer: None });
        }
    }
}

fn serve(file: &File, spare: &Spare, outbox: &Outbox, queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { op, length, what }) = next else { return };
        let (offset, keep) = match what {
            What::Range { offset, keep } => (offset, keep),
            What::Read(buffer) => {
                let result = Ok(LocalResult::Hashes(hashes(buffer.first(length))));
                outbox.put(Outcome::Hashed { op, result, buffer: Some(buffer) });
                continue;
            }
        };
        let mut buffer = spare.take(length);
        let result = match &mut buffer {
            Some(buffer) => read_and_hash(file, offset, length, buffer, keep),
            None => Err(LocalFault { errno: libc::ENOMEM }),
        };
        let buffer = buffer.filter(|_| keep && result.is_ok());
        outbox.put(Outcome::Hashed { op, result: result.map(LocalResult::Hashes), buffer });
    }
}

fn read_and_hash(
    file: &File,
    offset: u64,
    length: usize,
    buffer: &mut Buffer,
    keep: bool,
) -> Result<Vec<[u8; HASH_BYTES]>, LocalFault> {
    let bytes = buffer.bytes_mut().get_mut(..length).ok_or(LocalFault { errno: libc::EINVAL })?;
    if is_hole(file, offset, length) {
        if keep {
            bytes.fill(0);
        }
        return Ok(vec![ZERO_HASH; length / BLOCK_BYTES as usize]);
    }
    file.read_exact_at(bytes, offset)
        .map_err(|error| LocalFault { errno: error.raw_os_error().unwrap_or(libc::EIO) })?;
    let mut hashes = Vec::with_capacity(length / BLOCK_BYTES as usize);
    hash_blocks(bytes, &mut hashes);
    Ok(hashes)
}

/// Whether the file system says that nothing was ever written there, so that it reads as zeroes. A device never says so.
fn is_hole(file: &File, offset: u64, length: usize) -> bool {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => data >= offset + length as u64,
        Err(error) => error == Errno::NXIO,
    }
}

/// What a block of zeroes has in place of a hash: it is told without hashing, and seen at a glance.
pub(super) const ZERO_HASH: [u8; HASH_BYTES] = mirror::input::ZERO_HASH;

/// The hash of each block.
pub(crate) fn hashes(bytes: &[u8]) -> Vec<[u8; HASH_BYTES]> {
    let mut hashes = Vec::with_capacity(bytes.len() / BLOCK_BYTES as usize);
    hash_blocks(bytes, &mut hashes);
    hashes
}

/// Appends the hash of each block.
pub(super) fn hash_blocks(bytes: &[u8], hashes: &mut Vec<[u8; HASH_BYTES]>) {
    for block in bytes.chunks(BLOCK_BYTES as usize) {
        if is_zero(block) {
            hashes.push(ZERO_HASH);
        } else {
            let whole = blake3::hash(block);
            hashes.extend(whole.as_bytes().first_chunk::<HASH_BYTES>());
        }
    }
}

/// One bit for each block, set where it is all zeroes; empty where none is.
pub(crate) fn zero_bits(bytes: &[u8]) -> Vec<u8> {
    let mut bits = Vec::new();
    for (i, _) in bytes.chunks(BLOCK_BYTES as usize).enumerate().filter(|(_, block)| is_zero(block)) {
        bits.resize(i / 8 + 1, 0);
        if let Some(last) = bits.last_mut() {
            *last |= 1 << (i % 8);
        }
    }
    bits
}

/// Whether all bytes are zero; other blocks mostly say so with their first line.
fn is_zero(block: &[u8]) -> bool {
    block.chunks(64).all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::inbox;

    #[test]
    fn holes_zeroes_and_data_are_told_apart_and_kept_as_they_are() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let file = Arc::new(place.reopen().unwrap());
        file.set_len(3 << 16).unwrap();
        file.write_all_at(&[0; 4096], 1 << 16).unwrap();
        file.write_all_at(&[9; 4096], (1 << 16) + 4096).unwrap();
        let (inbox, outbox) = inbox().unwrap();
        let hasher = Hasher::new(&file, &Spare::new(1 << 16), &outbox).unwrap();
        for (number, offset) in [(1, 0), (2, 1 << 16), (3, 2 << 16)] {
            hasher.hash(OpId(number), offset, 1 << 16, true);
        }
        let mut found = std::collections::BTreeMap::new();
        while found.len() < 3 {
            for outcome in inbox.take() {
                let Outcome::Hashed { op, result: Ok(LocalResult::Hashes(hashes)), buffer } = outcome else {
                    panic!("{outcome:?}");
                };
                found.insert(op, (hashes, buffer.unwrap()));
            }
            std::thread::yield_now();
        }
        for hole in [OpId(1), OpId(3)] {
            let (hashes, buffer) = &found[&hole];
            assert_eq!(*hashes, [ZERO_HASH; 16]);
            assert!(is_zero(buffer.bytes()));
        }
        let (hashes, buffer) = &found[&OpId(2)];
        assert_eq!(hashes[0], ZERO_HASH);
        assert_eq!(hashes[1][..], blake3::hash(&[9; 4096]).as_bytes()[..16]);
        assert_eq!(hashes[2], ZERO_HASH);
        assert_eq!(buffer.bytes()[4096..8192], [9; 4096]);
        assert_eq!(zero_bits(buffer.bytes()), [0b1111_1101, 0xff]);
        assert!(zero_bits(&[1; 8192]).is_empty());
    }
}
