//! Bytes of the store of a preserved version, which lies behind the data on the backing.
//!
//! The store is a log of segments, written once from its beginning for each *record* (one preserved version) and never
//! rewritten. A segment is one header of 4096 bytes and behind it the old blocks it names:
//!
//! | offset | bytes    | what |
//! |--------|----------|------|
//! | 0      | 4        | `fUND` |
//! | 4      | 4        | CRC32C of everything else in the header |
//! | 8      | 8        | number of the record |
//! | 16     | 16       | cluster |
//! | 32     | 2, 1     | set, side |
//! | 40     | 8        | place of this header in the store, in units of 4096 bytes |
//! | 48     | 8        | number of the segment within its record, from 0 |
//! | 56     | 4        | runs |
//! | 60     | 4        | units of blocks behind the header |
//! | 64     | 8        | session of the block link in which it was written |
//! | 72     | 24 each  | first block (8), blocks (4), unit behind the header or `u32::MAX` for zeroes (4), checksum (4), 0 (4) |
//!
//! Why it is so:
//! * **A log, not a table.** An index that is rewritten in place can lose old entries with a torn write; a header that is
//!   written once cannot take another one's entries with it. And one batch is one sequential write, whatever blocks it holds,
//!   and one flush does for all that are written when it begins.
//! * **The index lies in the store.** It grows with it, costs the control area nothing, and memory holds only which blocks
//!   are kept (one bit or less each, `bits`), never where they are.
//! * **The end is found, not stored.** Headers follow each other; the first that is not of this record, place and number
//!   ends the log. At most [`UNSEALED_MAX`] segments are on their way at once, header and blocks in any order, and each counts
//!   as kept when a flush has succeeded that began after it and all before it were written. So only that many at the log's end
//!   can be such that did not reach the disk as a whole: at a start their blocks are checked against their headers'
//!   checksums, and the first that does not fit ends the log. Nothing that it or a later one names was overwritten then.
//! * **What such an end leaves behind counts no more.** Another segment takes the place of the first that is broken, and may
//!   be as long: the one behind it is then told by its session, which is lower. Every life of the process has higher ones.
//! * **Zeroes are a word.** A sparse image's old content mostly needs no room at all.

use crate::layout::{Superblock, UNIT};
use crate::layout::{bytes16, put, seal, sealed, u32_at, u64_at};
use wire::Session;

/// Runs a segment names at most: what fits its header.
pub const RUNS_MAX: usize = 160;
/// Blocks of a run at most: a buffer's worth, as in a rebuild.
pub const RUN_BLOCKS_MAX: u64 = crate::config::RUN_BLOCKS_LONG;
/// Blocks of a segment at most: 1 MiB, which a disk takes in one write.
pub const SEGMENT_BLOCKS_MAX: u64 = 256;
/// Segments that are being read, written and made durable at most: while one is read, one is written and one is flushed. Each has
/// its buffer (C14).
pub const UNSEALED_MAX: usize = 4;

const MAGIC: [u8; 4] = *b"fUND";
const HEADER: usize = 72;
const ENTRY: usize = 24;
const ZEROES: u32 = u32::MAX;

/// Neighbouring blocks of a preserved version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// First block.
    pub first: u64,
    /// Blocks.
    pub count: u64,
    /// Units behind the header where they lie; none: they were all zeroes.
    pub place: Option<u32>,
    /// CRC32C of the blocks' hashes, one after the other.
    pub sum: u32,
}

/// A segment's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Place of the header in the store, in units.
    pub at: u64,
    /// Number within the record.
    pub number: u64,
    /// Session in which it was written.
    pub session: Session,
    /// What it keeps.
    pub runs: Vec<Kept>,
}

impl Segment {
    /// Units of blocks behind the header.
    #[must_use]
    pub fn units(&self) -> u64 {
        self.runs.iter().filter(|run| run.place.is_some()).map(|run| run.count).sum()
    }

    /// Place of the header that follows.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.at + 1 + self.units()
    }

    /// The header's bytes.
    #[must_use]
    pub fn bytes(&self, sb: &Superblock) -> Vec<u8> {
        let mut block = vec![0; UNIT];
        put(&mut block, 0, &MAGIC);
        put(&mut block, 8, &sb.record.to_le_bytes());
        put(&mut block, 16, &sb.cluster);
        put(&mut block, 32, &sb.set.0.to_le_bytes());
        put(&mut block, 34, &[sb.side.0]);
        put(&mut block, 40, &self.at.to_le_bytes());
        put(&mut block, 48, &self.number.to_le_bytes());
        put(&mut block, 56, &(self.runs.len() as u32).to_le_bytes());
        put(&mut block, 60, &(self.units() as u32).to_le_bytes());
        put(&mut block, 64, &self.session.0.to_le_bytes());
        for (i, run) in self.runs.iter().take(RUNS_MAX).enumerate() {
            let at = (HEADER + i * ENTRY) as u64;
            put(&mut block, at, &run.first.to_le_bytes());
            put(&mut block, at + 8, &(run.count as u32).to_le_bytes());
            put(&mut block, at + 12, &run.place.unwrap_or(ZEROES).to_le_bytes());
            put(&mut block, at + 16, &run.sum.to_le_bytes());
        }
        seal(&mut block, 4);
        block
    }

    /// The header in these bytes, if it is the one that follows `last` (the first one: none) in this record.
    #[must_use]
    pub fn read(block: &[u8], sb: &Superblock, last: Option<&Segment>) -> Option<Segment> {
        let (at, number) = last.map_or((0, 0), |last| (last.end(), last.number + 1));
        let session = Session(u64_at(block, 64)?);
        let ours = block.get(..4)? == MAGIC
            && u64_at(block, 8)? == sb.record
            && bytes16(block, 16)? == sb.cluster
            && block.get(32..34)? == sb.set.0.to_le_bytes()
            && *block.get(34)? == sb.side.0
            && u64_at(block, 40)? == at
            && u64_at(block, 48)? == number
            && last.is_none_or(|last| session >= last.session)
            && sealed(block, 4);
        ours.then_some(())?;
        let count = u32_at(block, 56)? as usize;
        let blocks = sb.size / peer::block::BLOCK_BYTES;
        let mut segment = Segment { at, number, session, runs: Vec::new() };
        let mut units = 0;
        for i in 0..count.min(RUNS_MAX) {
            let entry = HEADER + i * ENTRY;
            let (first, count) = (u64_at(block, entry)?, u64::from(u32_at(block, entry + 8)?));
            let place = Some(u32_at(block, entry + 12)?).filter(|place| *place != ZEROES);
            let inside = (1..=RUN_BLOCKS_MAX).contains(&count) && first.checked_add(count)? <= blocks;
            let in_order = place.is_none_or(|place| u64::from(place) == units);
            (inside && in_order).then_some(())?;
            units += if place.is_some() { count } else { 0 };
            segment.runs.push(Kept { first, count, place, sum: u32_at(block, entry + 16)? });
        }
        (u64::from(u32_at(block, 60)?) == units && segment.end() <= sb.store / UNIT as u64).then_some(segment)
    }
}

/// What stands for a run's content in its header.
#[must_use]
pub fn sum(hashes: &[[u8; 16]]) -> u32 {
    hashes.iter().fold(0, |sum, hash| peer::block::checksum_append(sum, hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{ControlArea, Format, FreshArea};
    use wire::{NodeId, SetId};

    fn superblock() -> Superblock {
        let fresh =
            FreshArea::new(Format { cluster: [7; 16], set: SetId(1), side: NodeId(2), size: 8 << 20 });
        let bytes = fresh.unwrap().with_store(4 << 20).bytes();
        let mut sb = ControlArea::read(&bytes.unwrap()).unwrap().superblock;
        sb.record = 5;
        sb
    }

    fn kept(first: u64, count: u64, place: Option<u32>) -> Kept {
        Kept { first, count, place, sum: 9 }
    }

    #[test]
    fn a_header_is_read_back_and_nothing_damaged_older_or_out_of_place_is() {
        let sb = superblock();
        let before = Segment { at: 10, number: 2, session: Session(4), runs: vec![kept(0, 1, Some(0))] };
        let runs = vec![kept(7, 2, Some(0)), kept(100, 64, None), kept(2047, 1, Some(2))];
        let segment = Segment { at: 12, number: 3, session: Session(5), runs };
        assert_eq!((before.end(), segment.units(), segment.end()), (12, 3, 16));
        let good = segment.bytes(&sb);
        assert_eq!(Segment::read(&good, &sb, Some(&before)), Some(segment));
        for other in [
            Segment { at: 11, ..before.clone() },
            Segment { number: 3, ..before.clone() },
            // Left by a life that ended while both were on their way: what it followed was written anew.
            Segment { session: Session(6), ..before.clone() },
        ] {
            assert_eq!(Segment::read(&good, &sb, Some(&other)), None, "{other:?}");
        }
        assert_eq!(Segment::read(&good, &sb, None), None);
        let next = Superblock { record: 6, ..sb.clone() };
        assert_eq!(Segment::read(&good, &next, Some(&before)), None);
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 1;
            assert_eq!(Segment::read(&bad, &sb, Some(&before)), None, "byte {byte}");
        }
    }

    #[test]
    fn a_header_has_room_for_the_most_runs() {
        let sb = superblock();
        let runs = (0..RUNS_MAX as u64).map(|i| kept(2 * i, 1, Some(i as u32))).collect();
        let segment = Segment { runs, ..Segment::default() };
        assert_eq!(Segment::read(&segment.bytes(&sb), &sb, None), Some(segment));
    }

    #[test]
    fn a_run_outside_the_device_or_the_store_is_refused() {
        let sb = superblock();
        for run in [
            kept(2048, 1, Some(0)),
            kept(0, 0, Some(0)),
            kept(0, 65, Some(0)),
            kept(u64::MAX, 2, Some(0)),
            kept(0, 1, Some(1)),
        ] {
            let bytes = Segment { runs: vec![run], ..Segment::default() }.bytes(&sb);
            assert_eq!(Segment::read(&bytes, &sb, None), None, "{run:?}");
        }
        let zeroes = |at| Segment { at, number: 1, runs: vec![kept(0, 1, None)], ..Segment::default() };
        let last = Segment { at: 1023, number: 2, runs: vec![kept(0, 1, Some(0))], ..Segment::default() };
        assert_eq!(Segment::read(&last.bytes(&sb), &sb, Some(&zeroes(1022))), None);
    }
}
