//! Hashes ranges of the backing on a thread of its own, so that the loop never computes for long.

use crate::inbox::{Outbox, Outcome};
use crate::limits::{JOBS_MAX, LARGE_BYTES, STACK_BYTES};
use crate::ring::memory::Buffer;
use mirror::action::OpId;
use mirror::input::{LocalFault, LocalResult};
use peer::block::{BLOCK_BYTES, HASH_BYTES};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

struct Job {
    op: OpId,
    offset: u64,
    length: usize,
}

/// The hashing thread's handle; dropping it ends the thread.
pub(super) struct Hasher {
    jobs: SyncSender<Job>,
    outbox: Outbox,
}

impl Hasher {
    pub(super) fn new(file: Arc<File>, outbox: Outbox) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(JOBS_MAX);
        let answers = outbox.clone();
        let work = move || {
            let mut buffer = Buffer::new(LARGE_BYTES);
            for Job { op, offset, length } in queue {
                let result = match &mut buffer {
                    Some(buffer) => read_and_hash(&file, offset, length, buffer),
                    None => Err(LocalFault { errno: libc::ENOMEM }),
                };
                answers.put(Outcome::Hashed { op, result: result.map(LocalResult::Hashes) });
            }
        };
        std::thread::Builder::new().name("hash".into()).stack_size(STACK_BYTES).spawn(work)?;
        Ok(Hasher { jobs, outbox })
    }

    pub(super) fn hash(&self, op: OpId, offset: u64, length: usize) {
        if self.jobs.try_send(Job { op, offset, length }).is_err() {
            let result = Err(LocalFault { errno: libc::EBUSY });
            self.outbox.put(Outcome::Hashed { op, result });
        }
    }
}

fn read_and_hash(
    file: &File,
    offset: u64,
    length: usize,
    buffer: &mut Buffer,
) -> Result<Vec<[u8; HASH_BYTES]>, LocalFault> {
    let mut hashes = Vec::with_capacity(length / BLOCK_BYTES as usize);
    let mut done = 0;
    while done < length {
        let part = (length - done).min(buffer.len());
        let Some(bytes) = buffer.bytes_mut().get_mut(..part) else { break };
        file.read_exact_at(bytes, offset + done as u64)
            .map_err(|error| LocalFault { errno: error.raw_os_error().unwrap_or(libc::EIO) })?;
        hash_blocks(bytes, &mut hashes);
        done += part;
    }
    Ok(hashes)
}

/// Appends the hash of each block.
pub(super) fn hash_blocks(bytes: &[u8], hashes: &mut Vec<[u8; HASH_BYTES]>) {
    for block in bytes.chunks(BLOCK_BYTES as usize) {
        let whole = blake3::hash(block);
        hashes.extend(whole.as_bytes().first_chunk::<HASH_BYTES>());
    }
}
