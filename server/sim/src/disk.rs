//! A host's disk under one mirror set: a volatile cache that a loss of power empties, tears or keeps, as it pleases.
//!
//! Data is kept as one number a sector (the write that made it and the sector it was meant for); the control area as
//! bytes, since the core reads its own layout back. Both lie under the same cache.

use crate::rng::Rng;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a disk writes at once or not at all.
pub const SECTOR_BYTES: u64 = 512;
/// Sectors of a block, the grain of the dirty map and of hashes.
pub const BLOCK_SECTORS: u64 = 8;

/// A sector of the control area.
pub type Bytes = Rc<[u8]>;

/// Sectors under a volatile cache.
#[derive(Clone, Debug)]
pub struct Medium<T> {
    durable: Vec<Option<T>>,
    /// Completed and not flushed: for each sector its values in order, each with its place in the order of all.
    cache: BTreeMap<u64, Vec<(u64, T)>>,
    last: u64,
}

impl<T: Clone> Medium<T> {
    fn new() -> Self {
        Medium { durable: Vec::new(), cache: BTreeMap::new(), last: 0 }
    }

    fn write(&mut self, sector: u64, value: T) {
        self.last += 1;
        self.cache.entry(sector).or_default().push((self.last, value));
    }

    /// What a read gives.
    pub fn read(&self, sector: u64) -> Option<&T> {
        self.cache
            .get(&sector)
            .and_then(|values| values.last())
            .map(|(_, v)| v)
            .or_else(|| self.durable(sector))
    }

    /// What is on the platter.
    pub fn durable(&self, sector: u64) -> Option<&T> {
        self.durable.get(sector as usize).and_then(Option::as_ref)
    }

    /// What may yet replace it.
    pub fn cached(&self, sector: u64) -> impl Iterator<Item = &T> {
        self.cache.get(&sector).into_iter().flatten().map(|(_, value)| value)
    }

    /// Every unflushed value with its sector.
    pub fn all_cached(&self) -> impl Iterator<Item = (u64, T)> {
        self.cache
            .iter()
            .flat_map(|(sector, values)| values.iter().map(|(_, value)| (*sector, value.clone())))
    }

    /// The platter, by sector; what was never written is absent.
    #[must_use]
    pub fn all_durable(&self) -> &[Option<T>] {
        &self.durable
    }

    fn settle(durable: &mut Vec<Option<T>>, sector: u64, value: T) {
        let place = sector as usize;
        if durable.len() <= place {
            durable.resize(place + 1, None);
        }
        durable[place] = Some(value);
    }

    fn flush(&mut self, upto: u64) {
        let durable = &mut self.durable;
        self.cache.retain(|sector, values| {
            let done = values.partition_point(|(order, _)| *order <= upto);
            if let Some((_, value)) = values.drain(..done).last() {
                Self::settle(durable, *sector, value);
            }
            !values.is_empty()
        });
    }

    fn lose_power(&mut self, rng: &mut Rng) {
        let mode = rng.below(4);
        for (sector, values) in std::mem::take(&mut self.cache) {
            let kept = match mode {
                0 => 0,
                1 => values.len(),
                _ => rng.below(values.len() as u64 + 1) as usize,
            };
            if let Some((_, value)) = values.into_iter().take(kept).last() {
                Self::settle(&mut self.durable, sector, value);
            }
        }
    }
}

/// How far a flush that begins reaches: exactly what had completed.
#[derive(Clone, Copy, Debug)]
pub struct FlushMark {
    data: u64,
    control: u64,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The mirrored data: a number a sector.
    pub data: Medium<u64>,
    /// The control area.
    pub control: Medium<Bytes>,
}

impl Default for Disk {
    fn default() -> Self {
        Disk { data: Medium::new(), control: Medium::new() }
    }
}

impl Disk {
    /// Completes a write of data.
    pub fn write(&mut self, sector: u64, values: &[u64]) {
        for (i, value) in values.iter().enumerate() {
            self.data.write(sector + i as u64, *value);
        }
    }

    /// A write of data caught by a loss of power: some sectors of it are there.
    pub fn tear(&mut self, sector: u64, values: &[u64], rng: &mut Rng) {
        for (i, value) in values.iter().enumerate() {
            if rng.percent(50) {
                self.data.write(sector + i as u64, *value);
            }
        }
    }

    /// Reads data; sectors never written hold 0.
    #[must_use]
    pub fn read(&self, sector: u64, sectors: u64) -> Vec<u64> {
        (sector..sector + sectors).map(|s| self.data.read(s).copied().unwrap_or(0)).collect()
    }

    /// Sixteen bytes for each block, equal if and (but for chance) only if the blocks are.
    #[must_use]
    pub fn hashes(&self, sector: u64, sectors: u64) -> Vec<[u8; 16]> {
        self.read(sector, sectors).chunks(BLOCK_SECTORS as usize).map(hash).collect()
    }

    /// Completes a write of control bytes and its own flush: control only, as a forced-unit-access write would.
    pub fn store_control(&mut self, writes: &[(u64, Vec<u8>)]) {
        self.write_control(writes, |_| true);
        self.control.flush(u64::MAX);
    }

    /// A write of control bytes caught by a loss of power.
    pub fn tear_control(&mut self, writes: &[(u64, Vec<u8>)], rng: &mut Rng) {
        self.write_control(writes, |_| rng.percent(50));
    }

    fn write_control(&mut self, writes: &[(u64, Vec<u8>)], mut lands: impl FnMut(u64) -> bool) {
        for (offset, bytes) in writes {
            for (i, chunk) in bytes.chunks(SECTOR_BYTES as usize).enumerate() {
                let sector = offset / SECTOR_BYTES + i as u64;
                if lands(sector) {
                    self.control.write(sector, chunk.into());
                }
            }
        }
    }

    /// The control area as read; what was never written is zero.
    #[must_use]
    pub fn read_control(&self, bytes: u64) -> Vec<u8> {
        assemble(bytes, |sector| self.control.read(sector))
    }

    /// The control area as a loss of power now could leave it at the least.
    #[must_use]
    pub fn durable_control(&self, bytes: u64) -> Vec<u8> {
        assemble(bytes, |sector| self.control.durable(sector))
    }

    /// Control bytes as read.
    #[must_use]
    pub fn load_control(&self, offset: u64, length: usize) -> Vec<u8> {
        let first = offset / SECTOR_BYTES;
        let mut bytes = vec![0; length];
        for (i, chunk) in bytes.chunks_exact_mut(SECTOR_BYTES as usize).enumerate() {
            if let Some(value) = self.control.read(first + i as u64) {
                chunk.copy_from_slice(value);
            }
        }
        bytes
    }

    /// A flush begins.
    #[must_use]
    pub fn begin_flush(&self) -> FlushMark {
        FlushMark { data: self.data.last, control: self.control.last }
    }

    /// A flush is done: all that had completed when it began is durable.
    pub fn flush(&mut self, mark: FlushMark) {
        self.data.flush(mark.data);
        self.control.flush(mark.control);
    }

    /// Power is lost: each unflushed sector falls back to any of its earlier values.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        self.data.lose_power(rng);
        self.control.lose_power(rng);
    }
}

fn assemble<'a>(bytes: u64, sector: impl Fn(u64) -> Option<&'a Bytes>) -> Vec<u8> {
    let mut area = vec![0; bytes as usize];
    for (i, chunk) in area.chunks_exact_mut(SECTOR_BYTES as usize).enumerate() {
        if let Some(value) = sector(i as u64) {
            chunk.copy_from_slice(value);
        }
    }
    area
}

fn hash(block: &[u64]) -> [u8; 16] {
    if block.iter().all(|value| *value == 0) {
        return mirror::input::ZERO_HASH;
    }
    let mut halves = [0xcbf2_9ce4_8422_2325_u64, 0x9ae1_6a3b_2f90_404f];
    for value in block {
        for (i, half) in halves.iter_mut().enumerate() {
            *half =
                (*half ^ value.rotate_left(17 * i as u32)).wrapping_mul(0x0000_0100_0000_01b3 + 2 * i as u64);
            *half ^= *half >> 29;
        }
    }
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&halves[0].to_le_bytes());
    bytes[8..].copy_from_slice(&halves[1].to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_covers_what_had_completed_when_it_began() {
        for seed in 0..50 {
            let mut disk = Disk::default();
            disk.write(0, &[1, 2]);
            let mark = disk.begin_flush();
            disk.write(1, &[3]);
            disk.flush(mark);
            assert_eq!(disk.read(0, 3), [1, 3, 0]);
            disk.lose_power(&mut Rng::new(seed));
            assert_eq!(disk.read(0, 1), [1]);
            assert!([2, 3].contains(&disk.read(1, 1)[0]));
        }
    }

    #[test]
    fn unflushed_sectors_are_lost_torn_or_kept() {
        let outcomes: std::collections::BTreeSet<Vec<u64>> = (0..200)
            .map(|seed| {
                let mut disk = Disk::default();
                disk.write(0, &[1, 1]);
                disk.lose_power(&mut Rng::new(seed));
                disk.read(0, 2)
            })
            .collect();
        assert_eq!(outcomes.len(), 4, "{outcomes:?}");
    }

    #[test]
    fn control_bytes_are_durable_once_stored_and_torn_before() {
        let mut disk = Disk::default();
        let page = |byte: u8| vec![(4096, vec![byte; 4096])];
        disk.store_control(&page(1));
        disk.tear_control(&page(2), &mut Rng::new(1));
        disk.lose_power(&mut Rng::new(2));
        let area = disk.read_control(8192);
        assert!(area[..4096].iter().all(|b| *b == 0));
        assert!(area[4096..].iter().all(|b| [1, 2].contains(b)));
    }
}
