//! Bytes of the table of sums: what each block holds on stable storage, and of which extents that is to be believed.
//!
//! Between dirty map and data, in two parts:
//!
//! | part  | one page of 4096 bytes for | what |
//! |-------|----------------------------|------|
//! | trust | 1024 extents (2 GiB)       | one bit for each extent: its pages of the table are true |
//! | table | 256 blocks (1 MiB)         | which blocks are known, and 15 bytes of BLAKE3 for each |
//!
//! Why it is so:
//! * **The trust apart from the sums.** A write must take back what is known of its block before it begins, on either side. It
//!   does so by one bit for the whole extent, without reading anything, together with the activity log's block where that is
//!   stored anyway; later writes to the extent cost nothing. When the extent is quiet its pages are written again, less what was
//!   written meanwhile, and then believed again (`table`).
//! * **15 bytes.** 256 sums, the bits that say which are known, and a header fit one page: an extent is exactly two pages, and
//!   no page belongs to two extents. 120 bits make an accidental match as impossible as 128 do.
//! * **Nothing of the table is made when an area is.** What is not trusted is never read: a page is written before the bit that
//!   trusts it. 16 GiB of table for 4 TiB would take minutes to make. The pages of trust are small and made, with no bit set;
//!   one that is damaged, or all zeroes, trusts nothing: sums of 2 GiB are forgotten, never one is believed too many.

use crate::layout::{
    EXTENT_BLOCKS, EXTENT_BYTES, MAP_OFFSET, Superblock, UNIT, bytes16, pages, put, seal, sealed, u32_at,
};
use peer::block::HASH_BYTES;

/// Bytes of a stored sum: the first of a block's hash.
pub const SUM_BYTES: usize = 15;
/// A stored sum.
pub type Sum = [u8; SUM_BYTES];

/// Blocks of one page of the table.
const PAGE_SUMS: usize = 256;
/// Pages of an extent.
const EXTENT_PAGES: usize = EXTENT_BLOCKS as usize / PAGE_SUMS;
/// Bytes of an extent's pages.
pub(crate) const EXTENT_SUM_BYTES: usize = EXTENT_PAGES * UNIT;
/// Extents of one page of trust.
pub(crate) const TRUST_EXTENTS: u64 = 1024;
/// Words of bits, one for each block of an extent.
pub(crate) const WORDS: usize = EXTENT_BLOCKS as usize / 64;

const SUMS_MAGIC: [u8; 4] = *b"fSUM";
const TRUST_MAGIC: [u8; 4] = *b"fTRU";
const TRUST_AT: usize = 32;
const KNOWN_AT: usize = 32;
const SUMS_AT: usize = KNOWN_AT + PAGE_SUMS / 8;

/// The sum of a block's hash.
#[must_use]
pub fn sum_of(hash: &[u8; HASH_BYTES]) -> Sum {
    let mut sum = [0; SUM_BYTES];
    for (to, from) in sum.iter_mut().zip(hash) {
        *to = *from;
    }
    sum
}

/// A sum as it goes over the wire among hashes, which are compared by what a sum has of them.
#[must_use]
pub fn hash_of(sum: &Sum) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    for (to, from) in hash.iter_mut().zip(sum) {
        *to = *from;
    }
    hash
}

/// What is known of an extent's blocks.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// One bit for each block.
    pub(crate) bits: [u64; WORDS],
    sums: Vec<Sum>,
}

impl Default for Known {
    fn default() -> Known {
        Known { bits: [0; WORDS], sums: vec![[0; SUM_BYTES]; EXTENT_BLOCKS as usize] }
    }
}

impl Known {
    pub(crate) fn get(&self, block: usize) -> Option<Sum> {
        has(&self.bits, block).then(|| self.sums.get(block).copied())?
    }

    pub(crate) fn set(&mut self, block: usize, sum: Sum) {
        if let Some(place) = self.sums.get_mut(block) {
            *place = sum;
            set(&mut self.bits, block);
        }
    }
}

/// Whether a block's bit is set.
pub(crate) fn has(bits: &[u64; WORDS], block: usize) -> bool {
    bits.get(block / 64).is_some_and(|word| word >> (block % 64) & 1 == 1)
}

/// Sets a block's bit.
pub(crate) fn set(bits: &mut [u64; WORDS], block: usize) {
    if let Some(word) = bits.get_mut(block / 64) {
        *word |= 1 << (block % 64);
    }
}

/// Clears a block's bit.
pub(crate) fn clear(bits: &mut [u64; WORDS], block: usize) {
    if let Some(word) = bits.get_mut(block / 64) {
        *word &= !(1 << (block % 64));
    }
}

/// Extents of `size` bytes of data.
pub(crate) fn extents(size: u64) -> u64 {
    size.div_ceil(EXTENT_BYTES)
}

/// Pages of trust.
pub(crate) fn trust_pages(size: u64) -> u64 {
    extents(size).div_ceil(TRUST_EXTENTS)
}

/// Where the pages of trust begin.
pub(crate) fn trust_offset(size: u64) -> u64 {
    MAP_OFFSET + pages(size) * UNIT as u64
}

/// Where the table begins: all before it is read at a start.
pub(crate) fn table_offset(size: u64) -> u64 {
    trust_offset(size) + trust_pages(size) * UNIT as u64
}

/// Bytes of the table.
pub(crate) fn table_bytes(size: u64) -> u64 {
    extents(size) * EXTENT_SUM_BYTES as u64
}

/// Where an extent's pages of the table are.
pub(crate) fn extent_offset(size: u64, extent: u32) -> u64 {
    table_offset(size) + u64::from(extent) * EXTENT_SUM_BYTES as u64
}

/// Place and bytes of a page of trust.
pub(crate) fn trust_write(superblock: &Superblock, page: u32, words: &[u64]) -> (u64, Vec<u8>) {
    let mut block = vec![0; UNIT];
    put(&mut block, 0, &TRUST_MAGIC);
    put(&mut block, 8, &page.to_le_bytes());
    put(&mut block, 12, &superblock.set.0.to_le_bytes());
    put(&mut block, 16, &superblock.cluster);
    for (i, word) in words.iter().take(TRUST_EXTENTS as usize / 64).enumerate() {
        put(&mut block, (TRUST_AT + i * 8) as u64, &word.to_le_bytes());
    }
    seal(&mut block, 4);
    (trust_offset(superblock.size) + u64::from(page) * UNIT as u64, block)
}

/// The bits of a page of trust, if it is ours and whole.
pub(crate) fn trust_read(block: &[u8], page: u32, superblock: &Superblock) -> Option<Vec<u64>> {
    ours(block, TRUST_MAGIC, page, superblock).then_some(())?;
    let words = block.get(TRUST_AT..TRUST_AT + TRUST_EXTENTS as usize / 8)?;
    Some(words.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

/// Place and bytes of an extent's pages.
pub(crate) fn sums_write(superblock: &Superblock, extent: u32, known: &Known) -> (u64, Vec<u8>) {
    let mut bytes = vec![0; EXTENT_SUM_BYTES];
    for (half, block) in bytes.chunks_mut(UNIT).enumerate() {
        put(block, 0, &SUMS_MAGIC);
        put(block, 8, &extent.to_le_bytes());
        put(block, 12, &superblock.set.0.to_le_bytes());
        put(block, 14, &[half as u8]);
        put(block, 16, &superblock.cluster);
        for i in 0..PAGE_SUMS / 64 {
            let word = known.bits.get(half * PAGE_SUMS / 64 + i).copied().unwrap_or_default();
            put(block, (KNOWN_AT + i * 8) as u64, &word.to_le_bytes());
        }
        for (i, sum) in known.sums.iter().skip(half * PAGE_SUMS).take(PAGE_SUMS).enumerate() {
            put(block, (SUMS_AT + i * SUM_BYTES) as u64, sum);
        }
        seal(block, 4);
    }
    (extent_offset(superblock.size, extent), bytes)
}

/// What an extent's pages say; of one that is damaged or not ours, nothing.
pub(crate) fn sums_read(bytes: &[u8], extent: u32, superblock: &Superblock) -> Known {
    let mut known = Known::default();
    for (half, block) in bytes.chunks(UNIT).take(EXTENT_PAGES).enumerate() {
        if !ours(block, SUMS_MAGIC, extent, superblock) || block.get(14) != Some(&(half as u8)) {
            continue;
        }
        for i in 0..PAGE_SUMS {
            let bit = block.get(KNOWN_AT + i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1);
            let sum = block.get(SUMS_AT + i * SUM_BYTES..).and_then(|rest| rest.first_chunk::<SUM_BYTES>());
            if let Some(sum) = sum.filter(|_| bit) {
                known.set(half * PAGE_SUMS + i, *sum);
            }
        }
    }
    known
}

fn ours(block: &[u8], magic: [u8; 4], number: u32, superblock: &Superblock) -> bool {
    block.get(..4) == Some(&magic)
        && u32_at(block, 8) == Some(number)
        && block.get(12..14) == Some(&superblock.set.0.to_le_bytes())
        && bytes16(block, 16) == Some(superblock.cluster)
        && sealed(block, 4)
}

const _: () = assert!(SUMS_AT + PAGE_SUMS * SUM_BYTES <= UNIT);
