//! Bytes of the control area at the start of a backing: superblock twice, activity log, dirty map, table of sums.
//!
//! | offset          | bytes            | what |
//! |-----------------|------------------|------|
//! | 0               | 4096             | superblock with an even counter |
//! | 4096            | 4096             | superblock with an odd counter |
//! | 8192            | 64 x 4096        | ring of the activity log |
//! | 512 KiB         | pages x 4096     | dirty map, one bit for each 4096-byte block of data |
//! | behind the map  | 0.4 % of data    | sums of the blocks, and which are to be believed (`sum_page`); not in version 1 |
//! | `data_at`       |                  | the data, aligned to 1 MiB |
//! | behind the data | `store`          | what a rebuild overwrote (`undo::segment`); 0: no store |
//!
//! All integers are little endian. Why it is so:
//! * **Superblock twice.** A new one overwrites the older, so a torn write leaves the one before it, which is still true:
//!   nobody acts on a superblock before it is durable.
//! * **Activity log as whole snapshots.** 1008 extents fit one 4096-byte block, so each transaction writes the whole set
//!   of hot extents to the next block of the ring: nothing to replay, no compaction, and a torn one leaves its
//!   predecessor, which is true for the same reason. An extent is 2 MiB and 1008 of them make about 2 GiB: after a crash
//!   comparing them takes about two seconds, and a writer that is at home in 2 GiB never pays for a transaction. The ring
//!   spreads the wear and keeps a damaged sector from taking the log with it.
//! * **Dirty map in checksummed pages.** 4064 bytes of bits cover 127 MiB. A torn or damaged page counts as all set:
//!   127 MiB copied for nothing, never one block too few. A page of zeros is damage too (see [`FreshArea`]).
//! * **Version in the superblock.** An area of an older version is read; one whose superblocks name a newer version, even
//!   one of them, is refused: the other may be out of date.

pub use crate::area::{AreaReader, FreshArea, SUPERBLOCKS_BYTES, format};
use crate::dirty::DirtyMap;
use crate::sum_page;
use crate::sums::Sums;
pub use crate::undo::segment;
use peer::block::{BLOCK_BYTES, HOT_MAX, MAP_PAGE_BYTES};
use peer::control::HISTORY_MAX;
use std::collections::BTreeSet;
use wire::traffic::WriteMode;
use wire::{Epoch, Generation, Incarnation, NodeId, Session, SetId};

/// Everything in the control area is written in units of this: a sector of every disk divides it.
pub const UNIT: usize = 4096;
/// The log's ring.
pub(crate) const LOG_OFFSET: u64 = 2 * UNIT as u64;
/// Blocks in the ring.
pub(crate) const LOG_BLOCKS: u64 = 64;
/// The dirty map.
pub(crate) const MAP_OFFSET: u64 = 512 * 1024;
/// Data begins on a multiple of this: the longest request stays aligned.
const DATA_ALIGN: u64 = 1024 * 1024;
/// Bytes of an extent of the activity log.
pub const EXTENT_BYTES: u64 = 2 * 1024 * 1024;
/// Blocks of an extent.
pub const EXTENT_BLOCKS: u64 = EXTENT_BYTES / BLOCK_BYTES;
/// Blocks one page of the map covers.
pub const PAGE_BLOCKS: u64 = MAP_PAGE_BYTES as u64 * 8;

/// First bytes of a superblock of any version; the byte after it is the version.
const SUPER_MAGIC: [u8; 7] = *b"futago\0";
/// The same of a set that was released.
const RELEASED_MAGIC: [u8; 7] = *b"futagoR";
/// Version of the layout that is written. Every version keeps the magic, the version and the checksum of a superblock where
/// they are, so that an older program can tell a newer area from damage.
///
/// 2 adds the table of sums, in areas that are made by it: one that version 1 made has none, its data begins where it did, and
/// nothing is known of its blocks. It also adds the store of a preserved version behind the data and what the superblock says of
/// it; to an area of version 1 it has none.
pub const VERSION: u8 = 2;
const LOG_MAGIC: [u8; 4] = *b"fLOG";
const PAGE_MAGIC: [u8; 4] = *b"fMAP";
const PAGE_HEADER: usize = 32;
const LOG_HEADER: usize = 64;
const HISTORY_AT: usize = 160;
/// Store and preserved version in a superblock: bytes of the store, number of the record, flags, length of the history.
const STORE_AT: usize = 1024;
const PRESERVED_AT: usize = 1056;
/// Of version 2: flags (a table of sums, everything is read), then the mode.
const SUMS_AT: usize = 512;

/// Why bytes are not a control area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutFault {
    /// Shorter than its size demands.
    #[error("the backing is too small: the control area needs {needed} bytes, {found} were read")]
    Short {
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        found: u64,
    },
    /// Neither superblock is ours and whole.
    #[error("the backing has no control area of futago: format it, or name the right device")]
    Foreign,
    /// Written by a newer version.
    #[error(
        "the control area has version {found}, this program knows up to {VERSION}: upgrade futago on this server"
    )]
    Newer {
        /// Version found.
        found: u8,
    },
    /// A size outside its limit.
    #[error("the size of a mirror set must be a multiple of 4096 bytes, at least 1 MiB and at most 4 PiB")]
    Size,
}

/// What a side knows of itself: stored before anything depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Grows with each store; its lowest bit chooses the place.
    pub counter: u64,
    /// Cluster.
    pub cluster: [u8; 16],
    /// Mirror set.
    pub set: SetId,
    /// This side.
    pub side: NodeId,
    /// Bytes of data.
    pub size: u64,
    /// Highest epoch known.
    pub epoch: Epoch,
    /// Its holder.
    pub holder: Option<NodeId>,
    /// Highest session.
    pub session: Session,
    /// Highest session the twin said it has stored.
    pub twin_session: Session,
    /// Host incarnation that wrote this.
    pub incarnation: Incarnation,
    /// Current generation first; empty before the first build.
    pub history: Vec<Generation>,
    /// The generation the map counts from; none: the map says nothing.
    pub base: Option<Generation>,
    /// Not an unfinished rebuild target.
    pub consistent: bool,
    /// Has acknowledged without the twin under the current generation.
    pub alone: bool,
    /// Serves the block device; found set at a start: it ended without deactivation.
    pub active: bool,
    /// A rebuild compares every block by checksum: the map was filled because nothing was known.
    pub compare_all: bool,
    /// The twin made this copy equal in the host life `incarnation`.
    pub made_equal: bool,
    /// Rebuilds from this side stand still by an operator's order.
    pub rebuild_paused: bool,
    /// Bytes a second a rebuild from this side may take by an operator's order; 0: no limit.
    pub rebuild_limit: u64,
    /// Bytes of the store behind the data.
    pub store: u64,
    /// Number of the newest record begun in it.
    pub record: u64,
    /// The version it holds.
    pub preserved: Option<Preserved>,
    /// This copy was put back to an older version: what the twin believes to have copied since is not here.
    pub undone: bool,
    /// The area has a table of sums: it was made by version 2 or later.
    pub sums: bool,
    /// When writes are answered, or were before what the twin then had was whole (C4).
    pub mode: WriteMode,
    /// The rebuild that `compare_all` is of reads both copies, whatever their sums say.
    pub read_all: bool,
}

/// A version of this copy that can be put back (`undo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preserved {
    /// Its history, current generation first.
    pub history: Vec<Generation>,
    /// It had acknowledged alone under that generation.
    pub alone: bool,
    /// Of a split brain: kept until an operator drops it.
    pub split: bool,
    /// It is being put back.
    pub returning: bool,
}

impl Superblock {
    /// Where the data begins on the backing.
    #[must_use]
    pub fn data_at(&self) -> u64 {
        if self.sums { control_bytes(self.size) } else { control_bytes_1(self.size) }
    }

    /// Bytes of the area that a start reads: all but the table of sums.
    #[must_use]
    pub fn head_bytes(&self) -> u64 {
        if self.sums { sum_page::table_offset(self.size) } else { sum_page::trust_offset(self.size) }
    }
}

/// A control area as read from a backing.
#[derive(Clone, Debug)]
pub struct ControlArea {
    /// The newer whole superblock.
    pub superblock: Superblock,
    /// Extents that were hot.
    pub(crate) hot: BTreeSet<u32>,
    /// Sequence of the newest log block.
    pub(crate) log_sequence: u64,
    /// The map, damaged pages all set.
    pub(crate) map: DirtyMap,
    /// Which extents' sums are to be believed.
    pub(crate) sums: Sums,
    /// How many pages were damaged.
    pub torn_pages: usize,
}

/// What a fresh control area is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Cluster.
    pub cluster: [u8; 16],
    /// Mirror set.
    pub set: SetId,
    /// This side.
    pub side: NodeId,
    /// Bytes of data.
    pub size: u64,
}

/// The store for `size` bytes of data where nobody says otherwise: a quarter, so that a rebuild of nearly that much can be undone;
/// at most 32 GiB, so that knowing what is kept costs 16 MiB of memory at most (C14).
#[must_use]
pub fn store_bytes(size: u64) -> u64 {
    (size / 4 / DATA_ALIGN * DATA_ALIGN).clamp(DATA_ALIGN, 32 << 30)
}

/// Bytes of a control area that is made for `size` bytes of data.
#[must_use]
pub fn control_bytes(size: u64) -> u64 {
    (sum_page::table_offset(size) + sum_page::table_bytes(size)).next_multiple_of(DATA_ALIGN)
}

/// Of those, the bytes that a start reads: all but the table of sums.
#[must_use]
pub fn head_bytes(size: u64) -> u64 {
    sum_page::table_offset(size)
}

/// Bytes of one that version 1 made.
fn control_bytes_1(size: u64) -> u64 {
    sum_page::trust_offset(size).next_multiple_of(DATA_ALIGN)
}

/// The largest size of data (a multiple of 1 MiB) that a backing of `backing` bytes can take; 0 if none.
#[must_use]
pub fn data_bytes(backing: u64) -> u64 {
    // An area takes a little more than 0.4 %: the rest is found step by step.
    let mut size = backing.saturating_sub(DATA_ALIGN.max(backing / 257)) / DATA_ALIGN * DATA_ALIGN;
    while size > 0 && control_bytes(size) + size > backing {
        size -= DATA_ALIGN;
    }
    size
}

/// Pages of the map for `size` bytes of data.
#[must_use]
pub fn pages(size: u64) -> u64 {
    (size / BLOCK_BYTES).div_ceil(PAGE_BLOCKS)
}

/// Place and bytes of a superblock.
#[must_use]
pub(crate) fn superblock_write(from: &Superblock) -> (u64, Vec<u8>) {
    let mut block = vec![0; UNIT];
    put(&mut block, 0, &SUPER_MAGIC);
    put(&mut block, 7, &[VERSION]);
    put(&mut block, 16, &from.counter.to_le_bytes());
    put(&mut block, 24, &from.cluster);
    put(&mut block, 40, &from.set.0.to_le_bytes());
    put(&mut block, 42, &[from.side.0, from.holder.map_or(0, |holder| holder.0)]);
    let (based, equal, paused) = (from.base.is_some(), from.made_equal, from.rebuild_paused);
    let flags = [from.consistent, from.alone, from.active, from.compare_all, based, equal, paused];
    let flags = flags.iter().enumerate().fold(0u8, |all, (i, set)| all | u8::from(*set) << i);
    put(&mut block, 44, &[flags, u8::try_from(from.history.len().min(HISTORY_MAX)).unwrap_or_default()]);
    put(&mut block, 48, &from.size.to_le_bytes());
    put(&mut block, 56, &from.epoch.0.to_le_bytes());
    put(&mut block, 64, &from.session.0.to_le_bytes());
    put(&mut block, 72, &from.twin_session.0.to_le_bytes());
    put(&mut block, 80, &from.incarnation.0);
    put(&mut block, 96, &from.base.unwrap_or_default().0);
    put(&mut block, 112, &from.rebuild_limit.to_le_bytes());
    for (i, generation) in from.history.iter().take(HISTORY_MAX).enumerate() {
        put(&mut block, (HISTORY_AT + i * 16) as u64, &generation.0);
    }
    put_preserved(&mut block, from);
    let mode = match from.mode {
        WriteMode::Synchronous => 0,
        WriteMode::SemiSynchronous => 1,
        WriteMode::Asynchronous => 2,
    };
    put(&mut block, SUMS_AT as u64, &[u8::from(from.sums) | u8::from(from.read_all) << 1, mode]);
    seal(&mut block, 8);
    ((from.counter % 2) * UNIT as u64, block)
}

/// The newer whole superblock in the first bytes of a backing, whoever's it is.
///
/// # Errors
/// It is no backing of ours, or one of a newer version.
pub fn superblock(bytes: &[u8]) -> Result<Superblock, LayoutFault> {
    let blocks = || bytes.chunks_exact(UNIT).take(2);
    // Where one is of a newer version the other may be out of date, whatever it says.
    if let Some(found) = blocks().filter_map(version).find(|found| *found > VERSION) {
        return Err(LayoutFault::Newer { found });
    }
    blocks().filter_map(superblock_read).max_by_key(|found| found.counter).ok_or(LayoutFault::Foreign)
}

/// The superblocks in the first bytes of a backing, marked as released (C8): no program takes them for a copy's any more, and
/// what they tell can still be read ([`released`]). None where there is no whole superblock.
#[must_use]
pub fn release(bytes: &[u8]) -> Option<Vec<u8>> {
    let newest = superblock(bytes).ok()?;
    let mut both = vec![0; 2 * UNIT];
    for counter in [newest.counter, newest.counter + 1] {
        let (offset, mut block) = superblock_write(&Superblock { counter, ..newest.clone() });
        put(&mut block, 0, &RELEASED_MAGIC);
        seal(&mut block, 8);
        put(&mut both, offset, &block);
    }
    Some(both)
}

/// What a released backing held, if it is one.
#[must_use]
pub fn released(bytes: &[u8]) -> Option<Superblock> {
    // A whole superblock beside it: the release was cut off before its first write was complete.
    if superblock(bytes).is_ok() {
        return None;
    }
    let marked = |block: &&[u8]| block.get(..7) == Some(&RELEASED_MAGIC) && sealed(block, 8);
    let read = |block: &[u8]| {
        let mut block = block.to_vec();
        put(&mut block, 0, &SUPER_MAGIC);
        seal(&mut block, 8);
        superblock_read(&block)
    };
    bytes.chunks_exact(UNIT).take(2).filter(marked).filter_map(read).max_by_key(|found| found.counter)
}

/// Version of a whole superblock.
fn version(block: &[u8]) -> Option<u8> {
    let whole = block.get(..7)? == SUPER_MAGIC && sealed(block, 8);
    block.get(7).copied().filter(|_| whole)
}

fn superblock_read(block: &[u8]) -> Option<Superblock> {
    if !(1..=VERSION).contains(&version(block)?) {
        return None;
    }
    let flags = *block.get(44)?;
    let count = usize::from(*block.get(45)?).min(HISTORY_MAX);
    let history =
        (0..count).map(|i| bytes16(block, HISTORY_AT + i * 16).map(Generation)).collect::<Option<_>>()?;
    let size = u64_at(block, 48)?;
    let holder = *block.get(43)?;
    ((1 << 20..=1 << 52).contains(&size) && size.is_multiple_of(BLOCK_BYTES)).then_some(())?;
    Some(Superblock {
        counter: u64_at(block, 16)?,
        cluster: bytes16(block, 24)?,
        set: SetId(u16::from_le_bytes(block.get(40..42)?.try_into().ok()?)),
        side: NodeId(*block.get(42)?),
        size,
        epoch: Epoch(u64_at(block, 56)?),
        holder: (holder != 0).then_some(NodeId(holder)),
        session: Session(u64_at(block, 64)?),
        twin_session: Session(u64_at(block, 72)?),
        incarnation: Incarnation(bytes16(block, 80)?),
        history,
        base: (flags & 16 != 0).then_some(Generation(bytes16(block, 96)?)),
        consistent: flags & 1 != 0,
        alone: flags & 2 != 0,
        active: flags & 4 != 0,
        compare_all: flags & 8 != 0,
        made_equal: flags & 32 != 0,
        rebuild_paused: flags & 64 != 0,
        rebuild_limit: u64_at(block, 112)?,
        store: u64_at(block, STORE_AT)?.min(1 << 52) / UNIT as u64 * UNIT as u64,
        record: u64_at(block, STORE_AT + 8)?,
        preserved: preserved(block)?,
        undone: *block.get(STORE_AT + 16)? & 16 != 0,
        sums: block.get(SUMS_AT)? & 1 != 0,
        mode: match *block.get(SUMS_AT + 1)? {
            0 => WriteMode::Synchronous,
            1 => WriteMode::SemiSynchronous,
            // Whatever it is, the twin may lack more by it.
            _ => WriteMode::Asynchronous,
        },
        read_all: block.get(SUMS_AT)? & 2 != 0,
    })
}

fn put_preserved(block: &mut [u8], from: &Superblock) {
    put(block, STORE_AT as u64, &from.store.to_le_bytes());
    put(block, STORE_AT as u64 + 8, &from.record.to_le_bytes());
    let flag = |set: Option<bool>| set.unwrap_or_default();
    let of = from.preserved.as_ref();
    let flags = [
        of.is_some(),
        flag(of.map(|it| it.alone)),
        flag(of.map(|it| it.split)),
        flag(of.map(|it| it.returning)),
        from.undone,
    ];
    let flags = flags.iter().enumerate().fold(0u8, |all, (i, set)| all | u8::from(*set) << i);
    let history = of.map_or(&[][..], |it| &it.history);
    let count = history.len().min(HISTORY_MAX);
    put(block, STORE_AT as u64 + 16, &[flags, u8::try_from(count).unwrap_or_default()]);
    for (i, generation) in history.iter().take(HISTORY_MAX).enumerate() {
        put(block, (PRESERVED_AT + i * 16) as u64, &generation.0);
    }
}

/// None: the bytes are no superblock's.
fn preserved(block: &[u8]) -> Option<Option<Preserved>> {
    let flags = *block.get(STORE_AT + 16)?;
    if flags & 1 == 0 {
        return Some(None);
    }
    let count = usize::from(*block.get(STORE_AT + 17)?).min(HISTORY_MAX);
    let history = (0..count).map(|i| bytes16(block, PRESERVED_AT + i * 16).map(Generation));
    Some(Some(Preserved {
        history: history.collect::<Option<_>>()?,
        alone: flags & 2 != 0,
        split: flags & 4 != 0,
        returning: flags & 8 != 0,
    }))
}

/// Place and bytes of a log block with this set of hot extents.
#[must_use]
pub(crate) fn log_write(
    superblock: &Superblock,
    sequence: u64,
    hot: impl Iterator<Item = u32>,
) -> (u64, Vec<u8>) {
    let mut block = vec![0; UNIT];
    put(&mut block, 0, &LOG_MAGIC);
    put(&mut block, 8, &sequence.to_le_bytes());
    put(&mut block, 24, &superblock.cluster);
    put(&mut block, 40, &superblock.set.0.to_le_bytes());
    let mut count = 0u32;
    for extent in hot.take(HOT_MAX) {
        put(&mut block, LOG_HEADER as u64 + 4 * u64::from(count), &extent.to_le_bytes());
        count += 1;
    }
    put(&mut block, 16, &count.to_le_bytes());
    seal(&mut block, 4);
    (LOG_OFFSET + sequence % LOG_BLOCKS * UNIT as u64, block)
}

pub(crate) fn log_read(block: &[u8], superblock: &Superblock) -> Option<(u64, BTreeSet<u32>)> {
    let ours = block.get(..4)? == LOG_MAGIC
        && bytes16(block, 24)? == superblock.cluster
        && block.get(40..42)? == superblock.set.0.to_le_bytes()
        && sealed(block, 4);
    ours.then_some(())?;
    let count = (u32_at(block, 16)? as usize).min(HOT_MAX);
    let extents = superblock.size.div_ceil(EXTENT_BYTES);
    let hot = (0..count).filter_map(|i| u32_at(block, LOG_HEADER + 4 * i));
    Some((u64_at(block, 8)?, hot.filter(|extent| u64::from(*extent) < extents).collect()))
}

/// Place and bytes of a page of the map.
#[must_use]
pub(crate) fn page_write(superblock: &Superblock, page: u32, bits: &[u8]) -> (u64, Vec<u8>) {
    let mut block = vec![0; UNIT];
    put(&mut block, 0, &PAGE_MAGIC);
    put(&mut block, 8, &page.to_le_bytes());
    put(&mut block, 12, &superblock.set.0.to_le_bytes());
    put(&mut block, 16, &superblock.cluster);
    put(&mut block, PAGE_HEADER as u64, bits);
    seal(&mut block, 4);
    (MAP_OFFSET + u64::from(page) * UNIT as u64, block)
}

pub(crate) fn page_read<'a>(block: &'a [u8], page: u32, superblock: &Superblock) -> Option<&'a [u8]> {
    let ours = block.get(..4)? == PAGE_MAGIC
        && u32_at(block, 8)? == page
        && block.get(12..14)? == superblock.set.0.to_le_bytes()
        && bytes16(block, 16)? == superblock.cluster
        && sealed(block, 4);
    ours.then(|| block.get(PAGE_HEADER..))?
}

/// Writes the checksum of everything but its own four bytes at `at`.
pub(crate) fn seal(block: &mut [u8], at: usize) {
    let sum = sum_without(block, at);
    put(block, at as u64, &sum.to_le_bytes());
}

pub(crate) fn sealed(block: &[u8], at: usize) -> bool {
    u32_at(block, at) == Some(sum_without(block, at))
}

fn sum_without(block: &[u8], at: usize) -> u32 {
    let before = peer::block::checksum(block.get(..at).unwrap_or_default());
    peer::block::checksum_append(before, block.get(at + 4..).unwrap_or_default())
}

pub(crate) fn put(target: &mut [u8], at: u64, bytes: &[u8]) {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    if let Some(place) = at.checked_add(bytes.len()).and_then(|end| target.get_mut(at..end)) {
        place.copy_from_slice(bytes);
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

pub(crate) fn bytes16(bytes: &[u8], at: usize) -> Option<[u8; 16]> {
    bytes.get(at..at + 16)?.try_into().ok()
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
