//! The dirty map in memory: one bit for each 4096-byte block that is, or may be, different on the twin.
//!
//! A bit is set in memory before the write it stands for begins; it must be on disk before its extent leaves the
//! activity log. A cleared bit may reach the disk at any later time: a stale set bit costs a copy, nothing else.

use crate::layout::{EXTENT_BLOCKS, PAGE_BLOCKS, pages};
use peer::block::{BLOCK_BYTES, MAP_PAGE_BYTES};
use std::collections::BTreeSet;

const WORDS_PER_PAGE: usize = MAP_PAGE_BYTES / 8;

/// The map and which of its pages differ from their stored form.
#[derive(Clone, Debug)]
pub(crate) struct DirtyMap {
    words: Vec<u64>,
    blocks: u64,
    count: u64,
    /// Pages with bits set since they were last handed out for storing: not safe on disk.
    unsaved: BTreeSet<u32>,
    /// Pages on their way to the disk.
    saving: BTreeSet<u32>,
    /// Of those, pages that `must_save` waits for.
    must: BTreeSet<u32>,
    must_saving: BTreeSet<u32>,
    /// Pages with bits cleared since: stored when convenient.
    stale: BTreeSet<u32>,
}

impl DirtyMap {
    pub(crate) fn new(size: u64) -> DirtyMap {
        let words = pages(size) as usize * WORDS_PER_PAGE;
        DirtyMap {
            words: vec![0; words],
            blocks: size / BLOCK_BYTES,
            count: 0,
            unsaved: BTreeSet::new(),
            saving: BTreeSet::new(),
            must: BTreeSet::new(),
            must_saving: BTreeSet::new(),
            stale: BTreeSet::new(),
        }
    }

    /// Bits set.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Blocks in all.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(crate) fn is_set(&self, block: u64) -> bool {
        self.words.get((block / 64) as usize).is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    /// Sets `count` bits from `first` on.
    pub(crate) fn set(&mut self, first: u64, count: u64) {
        for (index, mask) in masks(first, count, self.blocks) {
            let Some(word) = self.words.get_mut(index) else { continue };
            let fresh = mask & !*word;
            if fresh != 0 {
                *word |= fresh;
                self.count += u64::from(fresh.count_ones());
                self.unsaved.insert((index / WORDS_PER_PAGE) as u32);
            }
        }
    }

    /// Clears `count` bits from `first` on.
    pub(crate) fn clear(&mut self, first: u64, count: u64) {
        for (index, mask) in masks(first, count, self.blocks) {
            let Some(word) = self.words.get_mut(index) else { continue };
            let gone = mask & *word;
            if gone != 0 {
                *word &= !gone;
                self.count -= u64::from(gone.count_ones());
                self.stale.insert((index / WORDS_PER_PAGE) as u32);
            }
        }
    }

    pub(crate) fn set_all(&mut self) {
        self.set(0, self.blocks);
    }

    pub(crate) fn clear_all(&mut self) {
        self.clear(0, self.blocks);
    }

    pub(crate) fn set_extent(&mut self, extent: u32) {
        self.set(u64::from(extent) * EXTENT_BLOCKS, EXTENT_BLOCKS);
    }

    /// The first set bit from `from` on.
    pub(crate) fn next_set(&self, from: u64) -> Option<u64> {
        let mut index = (from / 64) as usize;
        let mut word = self.words.get(index)? & (u64::MAX << (from % 64));
        loop {
            if word != 0 {
                return Some(index as u64 * 64 + u64::from(word.trailing_zeros()));
            }
            index += 1;
            word = *self.words.get(index)?;
        }
    }

    /// Whether every set bit of this extent is on disk.
    pub(crate) fn saved(&self, extent: u32) -> bool {
        let page = (u64::from(extent) * EXTENT_BLOCKS / PAGE_BLOCKS) as u32;
        !self.unsaved.contains(&page) && !self.saving.contains(&page)
    }

    /// Whether any page waits for the disk because bits were set in it.
    pub(crate) fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty() || !self.saving.is_empty()
    }

    /// Whether any page differs from its stored form.
    pub(crate) fn has_stale(&self) -> bool {
        self.has_unsaved() || !self.stale.is_empty()
    }

    /// Begins to wait until every bit set so far is on disk, whatever is set meanwhile.
    pub(crate) fn must_save(&mut self) {
        self.must = self.unsaved.clone();
        self.must_saving = self.saving.clone();
    }

    /// Whether that is so.
    pub(crate) fn must_saved(&self) -> bool {
        self.must.is_empty() && self.must_saving.is_empty()
    }

    /// Takes up to `most` pages to be stored, those somebody waits for first.
    pub(crate) fn take_pages(&mut self, most: usize) -> Vec<(u32, Vec<u8>)> {
        let mut chosen: BTreeSet<u32> = self.must.iter().copied().take(most).collect();
        for page in self.unsaved.iter().chain(self.stale.iter()) {
            if chosen.len() >= most {
                break;
            }
            chosen.insert(*page);
        }
        for page in &chosen {
            self.unsaved.remove(page);
            self.stale.remove(page);
            self.saving.insert(*page);
            if self.must.remove(page) {
                self.must_saving.insert(*page);
            }
        }
        chosen.into_iter().map(|page| (page, self.page(page))).collect()
    }

    /// Whether pages are left that differ from their stored form and are not on their way.
    pub(crate) fn has_pages_left(&self) -> bool {
        !self.unsaved.is_empty() || !self.stale.is_empty()
    }

    /// The pages taken last are durable.
    pub(crate) fn pages_stored(&mut self) {
        self.saving.clear();
        self.must_saving.clear();
    }

    /// The bits of a page as stored and sent.
    pub(crate) fn page(&self, page: u32) -> Vec<u8> {
        let start = page as usize * WORDS_PER_PAGE;
        let words = self.words.get(start..start + WORDS_PER_PAGE).unwrap_or_default();
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The first page from `from` on with a bit set.
    pub(crate) fn next_page(&self, from: u32) -> Option<u32> {
        self.next_set(u64::from(from) * PAGE_BLOCKS).map(|block| (block / PAGE_BLOCKS) as u32)
    }

    /// Takes over the stored bits of a page at a start.
    pub(crate) fn load(&mut self, page: u32, bits: &[u8]) {
        self.merge(page, bits);
        self.unsaved.remove(&page);
    }

    /// Adds the twin's bits of a page.
    pub(crate) fn merge(&mut self, page: u32, bits: &[u8]) {
        let first = u64::from(page) * PAGE_BLOCKS;
        for (i, byte) in bits.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                self.set(first + i as u64 * 8 + bit, 1);
            }
        }
    }

    /// Sets every bit of a damaged page.
    pub(crate) fn fill_page(&mut self, page: u32) {
        self.set(u64::from(page) * PAGE_BLOCKS, PAGE_BLOCKS);
    }
}

/// The words a run of bits touches and the bits in each; `end` is the number of bits there are.
fn masks(first: u64, count: u64, end: u64) -> impl Iterator<Item = (usize, u64)> {
    let last = first.saturating_add(count).min(end);
    let words = if first < last { first / 64..last.div_ceil(64) } else { 0..0 };
    words.map(move |index| {
        let (from, to) = (first.max(index * 64) - index * 64, last.min(index * 64 + 64) - index * 64);
        let high = if to == 64 { u64::MAX } else { (1 << to) - 1 };
        (index as usize, high & (u64::MAX << from))
    })
}
