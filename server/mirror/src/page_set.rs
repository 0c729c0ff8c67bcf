//! A set of pages of the dirty map: one bit each, 4 KiB for the 33,026 pages of 4 TiB.

/// Page numbers below a bound given at its making.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageSet {
    words: Vec<u64>,
    count: u32,
}

impl PageSet {
    pub(crate) fn new(pages: u64) -> PageSet {
        PageSet { words: vec![0; pages.div_ceil(64) as usize], count: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn contains(&self, page: u32) -> bool {
        self.words.get((page / 64) as usize).is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    pub(crate) fn insert(&mut self, page: u32) {
        if let Some(word) = self.words.get_mut((page / 64) as usize) {
            self.count += u32::from(*word >> (page % 64) & 1 == 0);
            *word |= 1 << (page % 64);
        }
    }

    /// Gives whether it was there.
    pub(crate) fn remove(&mut self, page: u32) -> bool {
        let Some(word) = self.words.get_mut((page / 64) as usize) else { return false };
        let there = *word >> (page % 64) & 1 == 1;
        *word &= !(1 << (page % 64));
        self.count -= u32::from(there);
        there
    }

    pub(crate) fn clear(&mut self) {
        if self.count > 0 {
            self.words.fill(0);
            self.count = 0;
        }
    }

    /// The first page from `from` on.
    pub(crate) fn next(&self, from: u32) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let mut index = (from / 64) as usize;
        let mut word = self.words.get(index)? & (u64::MAX << (from % 64));
        while word == 0 {
            index += 1;
            word = *self.words.get(index)?;
        }
        Some(index as u32 * 64 + word.trailing_zeros())
    }
}
