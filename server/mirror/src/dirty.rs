//! The dirty map in memory: one bit for each 4096-byte block that is, or may be, different on the twin.
//!
//! A bit is set in memory before the write it stands for begins; it must be on disk before its extent leaves the
//! activity log. A cleared bit may reach the disk at any later time: a stale set bit costs a copy, nothing else.

use crate::bits::Bits;
use crate::layout::{EXTENT_BLOCKS, PAGE_BLOCKS, pages};
use crate::page_set::PageSet;
use peer::block::BLOCK_BYTES;

/// The map and which of its pages differ from their stored form.
#[derive(Clone, Debug)]
pub(crate) struct DirtyMap {
    pages: Vec<Bits>,
    blocks: u64,
    count: u64,
    /// Pages with a bit set: a search passes over millions of clean blocks at once.
    used: PageSet,
    /// Pages with bits set since they were last handed out for storing: not safe on disk.
    unsaved: PageSet,
    /// Pages on their way to the disk.
    saving: PageSet,
    /// Of those, pages that `must_save` waits for.
    must: PageSet,
    must_saving: PageSet,
    /// Pages with bits cleared since: stored when convenient.
    stale: PageSet,
}

impl DirtyMap {
    pub(crate) fn new(size: u64) -> DirtyMap {
        let pages = pages(size);
        let none = PageSet::new(pages);
        DirtyMap {
            pages: vec![Bits::Empty; pages as usize],
            blocks: size / BLOCK_BYTES,
            count: 0,
            used: none.clone(),
            unsaved: none.clone(),
            saving: none.clone(),
            must: none.clone(),
            must_saving: none.clone(),
            stale: none,
        }
    }

    /// Bits of a page.
    fn end(&self, page: u32) -> u32 {
        let left = self.blocks.saturating_sub(u64::from(page) * PAGE_BLOCKS);
        left.min(PAGE_BLOCKS) as u32
    }

    /// The pages a run of blocks touches and the bits in each.
    fn parts(&self, first: u64, count: u64) -> impl Iterator<Item = (u32, u32, u32)> + use<> {
        let last = first.saturating_add(count).min(self.blocks);
        let pages = if first < last { first / PAGE_BLOCKS..last.div_ceil(PAGE_BLOCKS) } else { 0..0 };
        pages.map(move |page| {
            let start = page * PAGE_BLOCKS;
            let (from, to) = (first.max(start) - start, last.min(start + PAGE_BLOCKS) - start);
            (page as u32, from as u32, to as u32)
        })
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
        let bits = self.pages.get((block / PAGE_BLOCKS) as usize);
        block < self.blocks && bits.is_some_and(|bits| bits.is_set((block % PAGE_BLOCKS) as u32))
    }

    /// Sets `count` bits from `first` on.
    pub(crate) fn set(&mut self, first: u64, count: u64) {
        for (page, from, to) in self.parts(first, count) {
            let end = self.end(page);
            let Some(bits) = self.pages.get_mut(page as usize) else { continue };
            let fresh = bits.set(from, to, end);
            if fresh > 0 {
                self.count += u64::from(fresh);
                self.used.insert(page);
                self.unsaved.insert(page);
            }
        }
    }

    /// Clears `count` bits from `first` on.
    pub(crate) fn clear(&mut self, first: u64, count: u64) {
        for (page, from, to) in self.parts(first, count) {
            let end = self.end(page);
            let Some(bits) = self.pages.get_mut(page as usize) else { continue };
            let gone = bits.clear(from, to, end);
            if gone > 0 {
                self.count -= u64::from(gone);
                if bits.is_empty() {
                    self.used.remove(page);
                }
                self.stale.insert(page);
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
        let first = u32::try_from(from / PAGE_BLOCKS).ok()?;
        let mut page = self.used.next(first)?;
        loop {
            let start = if page == first { (from % PAGE_BLOCKS) as u32 } else { 0 };
            if let Some(bit) = self.pages.get(page as usize)?.next(start, self.end(page)) {
                return Some(u64::from(page) * PAGE_BLOCKS + u64::from(bit));
            }
            page = self.used.next(page + 1)?;
        }
    }

    /// Whether every set bit of this extent is on disk.
    pub(crate) fn saved(&self, extent: u32) -> bool {
        let first = u64::from(extent) * EXTENT_BLOCKS;
        let pages = first / PAGE_BLOCKS..=(first + EXTENT_BLOCKS - 1) / PAGE_BLOCKS;
        pages.map(|page| page as u32).all(|page| !self.unsaved.contains(page) && !self.saving.contains(page))
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
        let mut chosen = Vec::with_capacity(most);
        while chosen.len() < most {
            let waited = self.must.next(0);
            let Some(page) = waited.or_else(|| self.unsaved.next(0)).or_else(|| self.stale.next(0)) else {
                break;
            };
            self.unsaved.remove(page);
            self.stale.remove(page);
            self.saving.insert(page);
            if self.must.remove(page) {
                self.must_saving.insert(page);
            }
            chosen.push(page);
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
        self.pages.get(page as usize).map(|bits| bits.bytes(self.end(page))).unwrap_or_default()
    }

    /// The first page from `from` on with a bit set.
    pub(crate) fn next_page(&self, from: u32) -> Option<u32> {
        self.used.next(from)
    }

    /// Takes over the stored bits of a page at a start.
    pub(crate) fn load(&mut self, page: u32, bits: &[u8]) {
        self.add(page, bits);
    }

    /// Adds the twin's bits of a page.
    pub(crate) fn merge(&mut self, page: u32, bits: &[u8]) {
        if self.add(page, bits) {
            self.unsaved.insert(page);
        }
    }

    /// Gives whether a bit was fresh.
    fn add(&mut self, page: u32, bits: &[u8]) -> bool {
        let end = self.end(page);
        let Some(known) = self.pages.get_mut(page as usize) else { return false };
        let fresh = known.merge(bits, end);
        if fresh > 0 {
            self.count += u64::from(fresh);
            self.used.insert(page);
        }
        fresh > 0
    }

    /// Sets every bit of a damaged page.
    pub(crate) fn fill_page(&mut self, page: u32) {
        self.set(u64::from(page) * PAGE_BLOCKS, PAGE_BLOCKS);
    }
}

#[cfg(test)]
#[path = "dirty_tests.rs"]
mod tests;
