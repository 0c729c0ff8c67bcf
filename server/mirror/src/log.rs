//! The activity log: which extents are hot, that is written to and not known to be equal on both disks.
//!
//! An extent is made hot, durably, before the first write to it begins, and may cool when nothing in it is in flight,
//! nothing in it is unstable (acknowledged by both disks but not flushed on both), and its bits in the dirty map are on
//! disk. After a crash every hot extent is suspect: its copies are compared.

use crate::layout::{EXTENT_BLOCKS, EXTENT_BYTES};
use peer::block::{BLOCK_BYTES, HOT_MAX};
use std::collections::{BTreeMap, BTreeSet};
use wire::Time;

/// Extents cooled at once when the log is full: the price of the transaction is shared by as many later ones.
const COOL_BATCH: usize = 64;
const WORDS: usize = (EXTENT_BLOCKS / 64) as usize;

/// One hot extent.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// Writes in flight.
    in_flight: u32,
    /// Unstable blocks written before the flush round in progress began.
    before: [u64; WORDS],
    /// Unstable blocks written since.
    since: [u64; WORDS],
    used: Time,
    /// The store that makes it durable.
    mark: u64,
}

impl Slot {
    fn stable(&self) -> bool {
        self.before == [0; WORDS] && self.since == [0; WORDS]
    }
}

/// The hot extents of one side.
#[derive(Clone, Debug)]
pub(crate) struct ActivityLog {
    slots: BTreeMap<u32, Slot>,
    /// Extents with unstable blocks.
    unstable: BTreeSet<u32>,
    sequence: u64,
    /// Most extents.
    most: usize,
}

/// What making a range hot gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heat {
    /// Pinned; hot on disk once this store is done.
    After(u64),
    /// No room: nothing was changed.
    Full,
}

/// The extents of a range of bytes.
pub(crate) fn extents(offset: u64, length: u64) -> std::ops::RangeInclusive<u32> {
    let last = (offset + length.max(1) - 1) / EXTENT_BYTES;
    (offset / EXTENT_BYTES) as u32..=last as u32
}

/// The blocks of a range of bytes: first and count.
pub(crate) fn blocks(offset: u64, length: u64) -> (u64, u64) {
    let first = offset / BLOCK_BYTES;
    (first, (offset + length).div_ceil(BLOCK_BYTES) - first)
}

impl ActivityLog {
    /// The log as a start finds it; every extent in it is suspect.
    pub(crate) fn new(hot: &BTreeSet<u32>, sequence: u64, most: usize) -> ActivityLog {
        let slots = hot.iter().map(|extent| (*extent, Slot::default())).collect();
        ActivityLog { slots, unstable: BTreeSet::new(), sequence, most: most.min(HOT_MAX) }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn hot(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.keys().copied()
    }

    /// The sequence for the next block of the ring.
    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Whether making the range hot needs a new slot.
    pub(crate) fn is_hot(&self, offset: u64, length: u64) -> bool {
        extents(offset, length).all(|extent| self.slots.contains_key(&extent))
    }

    /// As `pin`, unless the range is not to be written to.
    pub(crate) fn pin_if(&mut self, wanted: bool, offset: u64, length: u64, mark: u64, now: Time) -> Heat {
        if wanted { self.pin(offset, length, mark, now) } else { Heat::Full }
    }

    /// Pins the range's extents, taking slots for those not hot; `mark` is the store that will carry them.
    pub(crate) fn pin(&mut self, offset: u64, length: u64, mark: u64, now: Time) -> Heat {
        let missing = extents(offset, length).filter(|extent| !self.slots.contains_key(extent)).count();
        if self.slots.len() + missing > self.most {
            return Heat::Full;
        }
        let mut after = 0;
        for extent in extents(offset, length) {
            let slot = self.slots.entry(extent).or_insert_with(|| Slot { mark, ..Slot::default() });
            slot.in_flight += 1;
            slot.used = now;
            after = after.max(slot.mark);
        }
        Heat::After(after)
    }

    /// A write is complete: `unstable` if both disks have it in their caches.
    pub(crate) fn unpin(&mut self, offset: u64, length: u64, unstable: bool) {
        let (first, count) = blocks(offset, length);
        for extent in extents(offset, length) {
            if let Some(slot) = self.slots.get_mut(&extent) {
                slot.in_flight = slot.in_flight.saturating_sub(1);
            }
        }
        if unstable {
            for block in first..first + count {
                let (extent, bit) = ((block / EXTENT_BLOCKS) as u32, block % EXTENT_BLOCKS);
                if let Some(slot) = self.slots.get_mut(&extent)
                    && let Some(word) = slot.since.get_mut((bit / 64) as usize)
                {
                    *word |= 1 << (bit % 64);
                    self.unstable.insert(extent);
                }
            }
        }
    }

    /// A flush of both disks begins: what is unstable so far will be stable when it has succeeded.
    pub(crate) fn round_begins(&mut self) {
        for extent in &self.unstable {
            if let Some(slot) = self.slots.get_mut(extent) {
                for (before, since) in slot.before.iter_mut().zip(&mut slot.since) {
                    *before |= std::mem::take(since);
                }
            }
        }
    }

    /// It succeeded on both.
    pub(crate) fn round_succeeded(&mut self) {
        let slots = &mut self.slots;
        self.unstable.retain(|extent| {
            slots.get_mut(extent).is_some_and(|slot| {
                slot.before = [0; WORDS];
                !slot.stable()
            })
        });
    }

    /// Every block of every hot extent counts as unstable: which ones are is not known.
    pub(crate) fn all_unstable(&mut self) {
        for slot in self.slots.values_mut() {
            slot.since = [u64::MAX; WORDS];
        }
        self.unstable = self.slots.keys().copied().collect();
    }

    /// Whether nothing is unstable.
    pub(crate) fn stable(&self) -> bool {
        self.unstable.is_empty()
    }

    /// Takes the whole unstable set as blocks: the twin's cache is lost, or it was put out.
    pub(crate) fn take_unstable(&mut self) -> Vec<u64> {
        let mut all = Vec::new();
        for extent in std::mem::take(&mut self.unstable) {
            let Some(slot) = self.slots.get_mut(&extent) else { continue };
            let words = std::mem::take(&mut slot.before).into_iter().zip(std::mem::take(&mut slot.since));
            for (i, (before, since)) in words.enumerate() {
                let word = before | since;
                let first = u64::from(extent) * EXTENT_BLOCKS + i as u64 * 64;
                all.extend((0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| first + bit));
            }
        }
        all
    }

    /// Cools idle extents whose bits are safe (`saved`), the longest unused first. Gives whether any cooled.
    pub(crate) fn make_room(&mut self, saved: impl Fn(u32) -> bool) -> bool {
        let mut idle: Vec<(Time, u32)> = self.idle().filter(|(_, extent)| saved(*extent)).collect();
        idle.sort_unstable();
        idle.truncate(COOL_BATCH);
        self.remove(idle.into_iter().map(|(_, extent)| extent))
    }

    /// Cools every idle extent not used since `before` whose bits are safe. Gives whether any cooled.
    pub(crate) fn cool(&mut self, before: Time, saved: impl Fn(u32) -> bool) -> bool {
        let old: Vec<u32> = self
            .idle()
            .filter(|(used, extent)| *used < before && saved(*extent))
            .map(|(_, extent)| extent)
            .collect();
        self.remove(old.into_iter())
    }

    fn idle(&self) -> impl Iterator<Item = (Time, u32)> + '_ {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.in_flight == 0 && slot.stable())
            .map(|(extent, slot)| (slot.used, *extent))
    }

    fn remove(&mut self, extents: impl Iterator<Item = u32>) -> bool {
        let before = self.slots.len();
        for extent in extents {
            self.slots.remove(&extent);
        }
        before != self.slots.len()
    }

    /// Whether an extent is hot and quiet since `before`.
    pub(crate) fn has_quiet(&self, before: Time) -> bool {
        self.slots.values().any(|slot| slot.in_flight == 0 && slot.used < before)
    }

    /// Forgets everything: the twin has taken it over, or both copies are equal and flushed.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.unstable.clear();
    }
}
