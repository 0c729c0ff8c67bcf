//! Slots for payloads, in two sizes, a fixed number of each.

use crate::limits::{LARGE_BYTES, LARGE_SLOTS, SMALL_BYTES, SMALL_SLOTS};
use crate::ring::memory::{Buffer, Pool};

/// All slots of the process.
pub(crate) struct Pools {
    /// For what file systems write in blocks.
    pub small: Pool,
    /// For everything up to the longest request.
    pub large: Pool,
}

impl Pools {
    /// All slots; `None` without memory.
    pub(crate) fn new() -> Option<Self> {
        Pools::sized(SMALL_SLOTS, LARGE_SLOTS)
    }

    /// So many slots of each size.
    pub(crate) fn sized(small: usize, large: usize) -> Option<Self> {
        Some(Pools { small: Pool::new(small, SMALL_BYTES)?, large: Pool::new(large, LARGE_BYTES)? })
    }

    /// A slot for so many bytes; `None` when none is free: take nothing in until one is.
    pub(crate) fn take(&self, length: usize) -> Option<Buffer> {
        if length <= self.small.length() { self.small.take() } else { self.large.take() }
    }
}
