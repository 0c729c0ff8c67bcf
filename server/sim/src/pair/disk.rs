//! The disk under one side: a volatile cache over the data, a control area whose stores may be torn, a few cells a device.
//!
//! The device has four extents, the last one short, but only some blocks at their edges are ever written by the front
//! end: those are modelled sector by sector (a *cell* each), everything else is zero on both sides for ever. So every
//! check of the whole device costs a few hundred nanoseconds, and overlaps are frequent.

use crate::rng::Rng;
use mirror::ControlArea;
use mirror::action::ControlWrite;
use mirror::input::Range;
use mirror::layout::{self, Format, FreshArea};
use mirror::sum_page::{Sum, sum_of};
use peer::block::{BLOCK_BYTES, SECTOR_BYTES};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use wire::{NodeId, SetId};

/// Bytes of the device: three extents of 1 MiB and a short one.
pub const SIZE: u64 = (3 << 20) + (64 << 10);
/// The cluster of every run.
pub const CLUSTER: [u8; 16] = *b"two mirror cores";
/// The set of every run.
pub const SET: SetId = SetId(1);
/// Blocks that are modelled, as first block and number: the device's ends and the edges between its extents.
pub const WINDOWS: [(u64, u64); 5] = [(0, 3), (254, 4), (510, 4), (766, 4), (781, 3)];
/// Sectors of a block.
pub const BLOCK_CELLS: usize = (BLOCK_BYTES / SECTOR_BYTES) as usize;
/// Blocks that are modelled.
pub const BLOCKS: usize = 18;
/// Sectors that are modelled.
pub const CELLS: usize = BLOCKS * BLOCK_CELLS;
/// Units of the store behind the data: one side's is soon full, the other's never.
const STORE_UNITS: [usize; 2] = [20, 400];

/// The unit of the control area's writes, as `mirror::layout` has it.
const UNIT: usize = layout::UNIT;

/// The cells within a range of bytes: first and one past the last.
#[must_use]
pub fn cells(range: Range) -> (usize, usize) {
    let (from, to) = (range.offset / SECTOR_BYTES, (range.offset + u64::from(range.length)) / SECTOR_BYTES);
    (cells_before(from), cells_before(to))
}

fn cells_before(sector: u64) -> usize {
    let mut before = 0;
    for (first, count) in WINDOWS {
        let (first, count) = (first * BLOCK_CELLS as u64, count * BLOCK_CELLS as u64);
        before += sector.saturating_sub(first).min(count);
    }
    before as usize
}

/// The block of the device that a modelled block is.
#[must_use]
pub fn device_block(block: usize) -> u64 {
    let mut left = block as u64;
    for (first, count) in WINDOWS {
        if left < count {
            return first + left;
        }
        left -= count;
    }
    SIZE / BLOCK_BYTES
}

/// A block of the store, or on its way there or back.
pub type Block = [u64; BLOCK_CELLS];

/// The modelled block that a block of the device is.
fn modelled(block: u64) -> Option<usize> {
    let mut before = 0;
    for (first, count) in WINDOWS {
        if let Some(at) = block.checked_sub(first).filter(|at| *at < count) {
            return Some((before + at) as usize);
        }
        before += count;
    }
    None
}

/// A unit of the control area that was written and not flushed.
#[derive(Clone, Debug)]
struct CachedUnit {
    order: u64,
    at: u64,
    /// What is on the platter.
    old: Arc<[u8]>,
    new: Arc<[u8]>,
}

/// One disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What no loss of power takes away.
    durable: [u64; CELLS],
    /// What a read gives.
    view: [u64; CELLS],
    /// Completed and not flushed: order, cell, value.
    cached: Vec<(u64, usize, u64)>,
    last: u64,
    /// The store behind the data, on the platter and as read, by sector, and what of it is not flushed.
    store: [Vec<u64>; 2],
    store_cached: Vec<(u64, usize, u64)>,
    /// The control area in units, those that are not zero.
    control: BTreeMap<u64, Arc<[u8]>>,
    /// Units written and not flushed.
    control_cached: Vec<CachedUnit>,
    /// What the stored sums say, until the next store.
    believed: Option<Arc<BTreeMap<u64, Sum>>>,
}

impl Disk {
    /// A disk fresh from `layout::format`, full of `junk`.
    #[must_use]
    pub fn new(side: usize, junk: u64) -> Disk {
        let control = formatted(side).iter().map(|(at, unit)| (*at, Arc::clone(unit))).collect();
        let store = vec![junk; STORE_UNITS[side] * BLOCK_CELLS];
        Disk {
            durable: [junk; CELLS],
            view: [junk; CELLS],
            cached: Vec::new(),
            last: 0,
            store: [store.clone(), store],
            store_cached: Vec::new(),
            control,
            control_cached: Vec::new(),
            believed: None,
        }
    }

    /// What a read of a cell gives.
    #[must_use]
    pub fn view(&self) -> &[u64; CELLS] {
        &self.view
    }

    /// What is on the platter.
    #[must_use]
    pub fn durable(&self) -> &[u64; CELLS] {
        &self.durable
    }

    /// Completes a write.
    pub fn write(&mut self, first: usize, values: &[u64]) {
        self.last += 1;
        for (cell, value) in (first..).zip(values) {
            self.view[cell] = *value;
            self.cached.push((self.last, cell, *value));
        }
    }

    /// The blocks of a range, whatever they are: of the store as they are, of the data zeroes where nothing is modelled.
    #[must_use]
    pub fn blocks(&self, range: Range) -> Vec<Block> {
        let first = range.offset / BLOCK_BYTES;
        let count = u64::from(range.length) / BLOCK_BYTES;
        let mut blocks = vec![[0; BLOCK_CELLS]; count as usize];
        for (i, block) in blocks.iter_mut().enumerate() {
            let at = first + i as u64;
            let from = match at.checked_sub(SIZE / BLOCK_BYTES) {
                Some(unit) => self.store[1].get(unit as usize * BLOCK_CELLS..),
                None => modelled(at).and_then(|place| self.view.get(place * BLOCK_CELLS..)),
            };
            if let Some(words) = from.and_then(|from| from.first_chunk()) {
                *block = *words;
            }
        }
        blocks
    }

    /// Completes a write of blocks to the store, or back to the data.
    pub fn write_blocks(&mut self, range: Range, blocks: &[Block]) {
        let first = range.offset / BLOCK_BYTES;
        for (i, block) in blocks.iter().enumerate() {
            let at = first + i as u64;
            match at.checked_sub(SIZE / BLOCK_BYTES) {
                Some(unit) => {
                    self.last += 1;
                    for (j, word) in block.iter().enumerate() {
                        let sector = unit as usize * BLOCK_CELLS + j;
                        self.store[1][sector] = *word;
                        self.store_cached.push((self.last, sector, *word));
                    }
                }
                None => {
                    if let Some(place) = modelled(at) {
                        self.write(place * BLOCK_CELLS, block);
                    }
                }
            }
        }
    }

    /// Completes some sectors of such a write.
    pub fn tear_blocks(&mut self, range: Range, blocks: &[Block], rng: &mut Rng) {
        let torn: Vec<Block> = self
            .blocks(range)
            .into_iter()
            .zip(blocks)
            .map(|(old, new)| std::array::from_fn(|i| if rng.percent(50) { new[i] } else { old[i] }))
            .collect();
        self.write_blocks(range, &torn);
    }

    /// Completes some sectors of a write.
    pub fn tear(&mut self, first: usize, values: &[u64], rng: &mut Rng) {
        for (cell, value) in (first..).zip(values) {
            if rng.percent(50) {
                self.write(cell, &[*value]);
            }
        }
    }

    /// How far a flush that begins reaches.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.last
    }

    /// A flush is done.
    pub fn flush(&mut self, mark: u64) {
        let durable = &mut self.durable;
        self.cached.retain(|(order, cell, value)| {
            if *order <= mark {
                durable[*cell] = *value;
            }
            *order > mark
        });
        let [durable, _] = &mut self.store;
        self.store_cached.retain(|(order, sector, value)| {
            if *order <= mark {
                durable[*sector] = *value;
            }
            *order > mark
        });
        self.control_cached.retain(|unit| unit.order > mark);
    }

    /// Power is lost: all of the cache is lost, or kept, or each sector falls back to any value it had.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        let style = rng.below(4);
        let mut stopped = [false; CELLS];
        for (_, cell, value) in std::mem::take(&mut self.cached) {
            stopped[cell] |= style == 0 || (style > 1 && rng.percent(50));
            if !stopped[cell] {
                self.durable[cell] = value;
            }
        }
        self.view = self.durable;
        let mut stopped = vec![false; self.store[0].len()];
        for (_, sector, value) in std::mem::take(&mut self.store_cached) {
            stopped[sector] |= style == 0 || (style > 1 && rng.percent(50));
            if !stopped[sector] {
                self.store[0][sector] = value;
            }
        }
        self.store[1] = self.store[0].clone();
        let sector = SECTOR_BYTES as usize;
        for CachedUnit { at, old, new, .. } in std::mem::take(&mut self.control_cached) {
            let sectors = old.chunks(sector).zip(new.chunks(sector));
            let unit: Vec<u8> = sectors
                .flat_map(|(old, new)| if style == 0 || (style > 1 && rng.percent(30)) { old } else { new })
                .copied()
                .collect();
            self.control.insert(at, unit.into());
        }
    }

    /// Completes a write of the control area that is not flushed.
    pub fn write_control(&mut self, write: &ControlWrite) {
        self.last += 1;
        let zero: Arc<[u8]> = vec![0; UNIT].into();
        let old = Arc::clone(self.control.get(&write.offset).unwrap_or(&zero));
        let new = write.bytes.as_slice().into();
        self.control_cached.push(CachedUnit { order: self.last, at: write.offset, old, new });
        self.put(write.offset, &write.bytes);
    }

    /// Some sectors of it.
    pub fn tear_control(&mut self, write: &ControlWrite, rng: &mut Rng) {
        let sector = SECTOR_BYTES as usize;
        let old = self.load(write.offset, write.bytes.len());
        let sectors = old.chunks(sector).zip(write.bytes.chunks(sector));
        let bytes = sectors.flat_map(|(old, new)| if rng.percent(50) { new } else { old }).copied().collect();
        self.write_control(&ControlWrite { offset: write.offset, bytes });
    }

    /// Completes a store of the control area.
    pub fn store(&mut self, writes: &[ControlWrite]) {
        for write in writes {
            self.put(write.offset, &write.bytes);
        }
    }

    /// A store that a dead process had submitted: each unit of it is there or not.
    pub fn store_some(&mut self, writes: &[ControlWrite], rng: &mut Rng) {
        for write in writes.iter().filter(|_| rng.percent(50)) {
            self.put(write.offset, &write.bytes);
        }
    }

    /// A store caught by a loss of power: each unit is old, new or torn sector by sector.
    pub fn store_torn(&mut self, writes: &[ControlWrite], rng: &mut Rng) {
        let sector = SECTOR_BYTES as usize;
        for write in writes {
            match rng.below(3) {
                0 => {}
                1 => self.put(write.offset, &write.bytes),
                _ => {
                    let mut bytes = write.bytes.clone();
                    for (i, chunk) in bytes.chunks_mut(sector).enumerate() {
                        let at = write.offset + (i * sector) as u64;
                        if rng.percent(50) {
                            let unit = self.control.get(&(at / UNIT as u64 * UNIT as u64));
                            let from = (at % UNIT as u64) as usize;
                            match unit {
                                Some(unit) => chunk.copy_from_slice(&unit[from..from + sector]),
                                None => chunk.fill(0),
                            }
                        }
                    }
                    self.put(write.offset, &bytes);
                }
            }
        }
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        self.believed = None;
        for (i, unit) in bytes.chunks(UNIT).enumerate() {
            self.control.insert(offset + (i * UNIT) as u64, unit.into());
        }
    }

    /// The control area as a start finds it.
    ///
    /// # Errors
    /// Whatever `mirror::layout` says of it.
    pub fn read_control(&self) -> Result<ControlArea, String> {
        thread_local! {
            static AREA: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        AREA.with_borrow_mut(|area| {
            let head = layout::head_bytes(SIZE);
            area.resize(usize::try_from(head).unwrap_or_default(), 0);
            for (at, unit) in self.control.range(..head) {
                area[*at as usize..*at as usize + UNIT].copy_from_slice(unit);
            }
            let found = ControlArea::read(area).map_err(|fault| fault.to_string());
            for (at, _) in self.control.range(..head) {
                area[*at as usize..*at as usize + UNIT].fill(0);
            }
            found
        })
    }

    /// Bytes of the control area.
    #[must_use]
    pub fn load(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for (i, unit) in bytes.chunks_mut(UNIT).enumerate() {
            if let Some(found) = self.control.get(&(offset + (i * UNIT) as u64)) {
                unit.copy_from_slice(found);
            }
        }
        bytes
    }

    /// A block whose stored sum names something else than what a loss of power, now, would certainly leave in it.
    pub fn wrong_sum(&mut self) -> Option<u64> {
        let known = match self.believed.take() {
            Some(known) => known,
            None => {
                let format = Format { cluster: CLUSTER, set: SET, side: NodeId(0), size: SIZE };
                let fresh = FreshArea::new(format).ok()?;
                let blocks = (0..BLOCKS).map(device_block);
                Arc::new(fresh.believed(blocks, |offset, length| self.load(offset, length)))
            }
        };
        self.believed = Some(Arc::clone(&known));
        let mut blocks = (0..BLOCKS).filter_map(|block| Some((block, known.get(&device_block(block))?)));
        let wrong = blocks.find(|(block, sum)| {
            let span = block * BLOCK_CELLS..(block + 1) * BLOCK_CELLS;
            let words = &self.durable[span.clone()];
            let unsure = self
                .cached
                .iter()
                .any(|(_, cell, value)| span.contains(cell) && self.durable[*cell] != *value);
            unsure || sum_of(&hash_of(words)) != **sum
        });
        wrong.map(|(block, _)| device_block(block))
    }

    /// The sum of what a read of a block gives.
    #[must_use]
    pub fn sum(&self, block: usize) -> Sum {
        sum_of(&hash_of(&self.view[block * BLOCK_CELLS..(block + 1) * BLOCK_CELLS]))
    }

    /// The highest session it has stored, 0 if it cannot be read.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.read_control().map_or(0, |area| area.superblock.session.0)
    }

    /// Sixteen bytes for each block of a range, equal if and (but for chance) only if the blocks are.
    #[must_use]
    pub fn hashes(&self, range: Range) -> Vec<[u8; 16]> {
        self.blocks(range).iter().map(|block| hash_of(block)).collect()
    }

    /// One bit for each block of a range, set where it is all zeroes.
    #[must_use]
    pub fn zeroes(&self, range: Range) -> Vec<u8> {
        let zero = self.hashes(range);
        let bits = |hashes: &[[u8; 16]]| {
            let set = hashes.iter().map(|hash| *hash == mirror::input::ZERO_HASH);
            set.enumerate().fold(0, |byte, (i, zero)| byte | u8::from(zero) << i)
        };
        zero.chunks(8).map(bits).collect()
    }

    /// Blocks that a loss of power, now, could leave different from the other disk's, as a set of bits.
    #[must_use]
    pub fn uncertain(&self, other: &Disk) -> u32 {
        let mut blocks = 0;
        for block in 0..BLOCKS {
            let span = block * BLOCK_CELLS..(block + 1) * BLOCK_CELLS;
            if self.durable[span.clone()] != other.durable[span] {
                blocks |= 1 << block;
            }
        }
        for (disk, twin) in [(self, other), (other, self)] {
            for (_, cell, value) in &disk.cached {
                if twin.durable[*cell] != *value {
                    blocks |= 1 << (*cell / BLOCK_CELLS);
                }
            }
        }
        blocks
    }
}

fn hash_of(words: &[u64]) -> [u8; 16] {
    if words.iter().all(|word| *word == 0) {
        return mirror::input::ZERO_HASH;
    }
    let mut halves = [0xcbf2_9ce4_8422_2325_u64, 0x9ae1_6a3b_2f90_404f];
    for word in words {
        for (i, half) in halves.iter_mut().enumerate() {
            *half =
                (*half ^ word.rotate_left(17 * i as u32)).wrapping_mul(0x0000_0100_0000_01b3 + 2 * i as u64);
            *half ^= *half >> 29;
        }
    }
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&halves[0].to_le_bytes());
    hash[8..].copy_from_slice(&halves[1].to_le_bytes());
    hash
}

type Units = Vec<(u64, Arc<[u8]>)>;

/// The units of a fresh control area that are not zero, made once.
fn formatted(side: usize) -> &'static Units {
    static SIDES: OnceLock<[Units; 2]> = OnceLock::new();
    let sides = SIDES.get_or_init(|| [0, 1].map(|side| format_units(NodeId(side + 1))));
    &sides[side]
}

fn format_units(side: NodeId) -> Units {
    let store = STORE_UNITS[usize::from(side.0) - 1] * UNIT;
    let fresh = FreshArea::new(Format { cluster: CLUSTER, set: SET, side, size: SIZE });
    let bytes = fresh.and_then(|fresh| fresh.with_store(store as u64).bytes()).unwrap_or_default();
    let units = bytes.chunks(UNIT).enumerate().filter(|(_, unit)| unit.iter().any(|byte| *byte != 0));
    units.map(|(i, unit)| ((i * UNIT) as u64, unit.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_the_sectors_of_the_windows() {
        assert_eq!(cells(Range { offset: 0, length: 4096 }), (0, 8));
        assert_eq!(cells(Range { offset: 253 * 4096, length: 8192 }), (24, 32));
        assert_eq!(cells(Range { offset: 255 * 4096 + 512, length: 1024 }), (33, 35));
        assert_eq!(cells(Range { offset: 0, length: SIZE as u32 }), (0, CELLS));
        assert_eq!(WINDOWS.iter().map(|(_, count)| count).sum::<u64>(), BLOCKS as u64);
        assert_eq!((device_block(0), device_block(3), device_block(17)), (0, 254, 783));
    }

    #[test]
    fn a_loss_of_power_keeps_what_was_flushed_and_any_part_of_the_rest() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut disk = Disk::new(0, 0);
            disk.write(0, &[1, 1]);
            let mark = disk.mark();
            disk.write(1, &[2]);
            disk.flush(mark);
            disk.lose_power(&mut Rng::new(seed));
            assert_eq!(disk.view()[0], 1);
            seen.insert(disk.view()[1]);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn unflushed_or_different_blocks_are_uncertain() {
        let (mut a, mut b) = (Disk::new(0, 0), Disk::new(1, 0));
        assert_eq!(a.uncertain(&b), 0);
        a.write(0, &[5]);
        b.write(0, &[5]);
        assert_eq!(a.uncertain(&b), 1);
        a.flush(a.mark());
        assert_eq!(a.uncertain(&b), 1);
        b.flush(b.mark());
        assert_eq!(a.uncertain(&b), 0);
    }

    #[test]
    fn a_fresh_control_area_is_read_back() {
        for side in 0..2 {
            assert_eq!(Disk::new(side, 7).read_control().map(|area| area.size()), Ok(SIZE));
        }
    }
}
