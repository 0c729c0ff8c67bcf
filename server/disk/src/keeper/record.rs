//! The memory file that a disk process shares with its keeper: what must outlive the process, and need not outlive the host.
//!
//! 128 bytes, written by one `pwrite`, which a killed process completes or has not begun; a reader that meets a write reads
//! again. Little endian: 0 version (4), 4 flags (4), 8 twin's incarnation (16), 24 lease (8), 32 fence (8), 40 node away (8),
//! 112 the first half of the BLAKE3 hash of all before.

use mirror::Kept;
use rustix::fs::{MemfdFlags, memfd_create};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use wire::{Incarnation, Time};

/// Bytes of the record.
const BYTES: usize = 128;
/// Bytes that are hashed.
const HASHED: usize = 112;
/// Of this layout.
const VERSION: u32 = 1;
/// A reader meets a write at most so often in a row.
const TRIES: usize = 16;

const SERVING: u32 = 1;
const FENCED: u32 = 2;
const CERTAIN: u32 = 4;
const UNSTABLE: u32 = 8;
const LEASE: u32 = 16;
const LEASE_ENDS: u32 = 32;
const FENCES: u32 = 64;
const NODE_AWAY: u32 = 128;

/// A fresh one, gone with its last descriptor.
///
/// # Errors
/// The kernel has no memory files, or no memory.
pub(crate) fn create() -> io::Result<OwnedFd> {
    Ok(memfd_create("futago-kept", MemfdFlags::CLOEXEC)?)
}

/// Writes what is kept.
pub(crate) fn write(file: impl AsFd, kept: &Kept) -> io::Result<()> {
    rustix::io::pwrite(file, &encode(kept), 0)?;
    Ok(())
}

/// Reads what is kept; `None` if there is nothing whole.
pub(crate) fn read(file: impl AsFd) -> Option<Kept> {
    (0..TRIES).find_map(|_| {
        let mut bytes = [0; BYTES];
        let length = rustix::io::pread(&file, &mut bytes, 0).ok()?;
        decode(bytes.get(..length)?)
    })
}

fn encode(kept: &Kept) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let until = kept.lease.flatten();
    let flags = flag(kept.serving, SERVING)
        | flag(kept.fenced, FENCED)
        | flag(kept.certain, CERTAIN)
        | flag(kept.unstable_at.is_some(), UNSTABLE)
        | flag(kept.lease.is_some(), LEASE)
        | flag(until.is_some(), LEASE_ENDS)
        | flag(kept.fence_at.is_some(), FENCES)
        | flag(kept.node_away_since.is_some(), NODE_AWAY);
    let time = |time: Option<Time>| time.map_or(0, |time| time.0).to_le_bytes();
    bytes[0..4].copy_from_slice(&VERSION.to_le_bytes());
    bytes[4..8].copy_from_slice(&flags.to_le_bytes());
    bytes[8..24].copy_from_slice(&kept.unstable_at.unwrap_or(Incarnation([0; 16])).0);
    bytes[24..32].copy_from_slice(&time(until));
    bytes[32..40].copy_from_slice(&time(kept.fence_at));
    bytes[40..48].copy_from_slice(&time(kept.node_away_since));
    let hash = blake3::hash(&bytes[..HASHED]);
    bytes[HASHED..].copy_from_slice(&hash.as_bytes()[..BYTES - HASHED]);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let time = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(|t| Time(u64::from_le_bytes(t)));
    let whole = blake3::hash(&bytes[..HASHED]).as_bytes()[..BYTES - HASHED] == bytes[HASHED..];
    if !whole || number(0)? != VERSION {
        return None;
    }
    let flags = number(4)?;
    let has = |flag: u32| flags & flag != 0;
    Some(Kept {
        serving: has(SERVING),
        fenced: has(FENCED),
        certain: has(CERTAIN),
        unstable_at: has(UNSTABLE).then_some(Incarnation(*bytes[8..].first_chunk()?)),
        lease: has(LEASE).then_some(has(LEASE_ENDS).then_some(time(24)?)),
        fence_at: has(FENCES).then_some(time(32)?),
        node_away_since: has(NODE_AWAY).then_some(time(40)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_a_torn_record_is_none() {
        let file = create().unwrap();
        assert_eq!(read(&file), None);
        let all = [
            Kept::default(),
            Kept { serving: true, certain: true, lease: Some(None), ..Kept::default() },
            Kept {
                serving: true,
                fenced: true,
                certain: true,
                unstable_at: Some(Incarnation([9; 16])),
                lease: Some(Some(Time(7))),
                fence_at: Some(Time(u64::MAX)),
                node_away_since: Some(Time(1)),
            },
        ];
        for kept in all {
            write(&file, &kept).unwrap();
            assert_eq!(read(&file), Some(kept));
        }
        rustix::io::pwrite(&file, &[1], 30).unwrap();
        assert_eq!(read(&file), None);
    }
}
