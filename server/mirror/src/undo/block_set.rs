//! Which blocks are kept: a bit each in the forms of [`crate::bits`], so that a few of terabytes cost little.

use crate::bits::Bits;
use crate::layout::PAGE_BLOCKS;

/// A set of blocks of the device.
#[derive(Debug, Default)]
pub(crate) struct BlockSet {
    pages: Vec<Bits>,
    count: u64,
}

impl BlockSet {
    /// None of so many.
    pub(crate) fn new(blocks: u64) -> BlockSet {
        BlockSet { pages: vec![Bits::Empty; blocks.div_ceil(PAGE_BLOCKS) as usize], count: 0 }
    }

    pub(crate) fn has(&self, block: u64) -> bool {
        let page = self.pages.get((block / PAGE_BLOCKS) as usize);
        page.is_some_and(|bits| bits.is_set((block % PAGE_BLOCKS) as u32))
    }

    pub(crate) fn insert(&mut self, first: u64, count: u64) {
        for block in first..first + count {
            let bit = (block % PAGE_BLOCKS) as u32;
            if let Some(bits) = self.pages.get_mut((block / PAGE_BLOCKS) as usize) {
                self.count += u64::from(bits.set(bit, bit + 1, PAGE_BLOCKS as u32));
            }
        }
    }

    /// Blocks in it.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}
