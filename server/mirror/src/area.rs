//! The control area as a whole, a piece at a time: the map of 4 TiB takes 129 MiB on disk and must not take them in memory.

use crate::dirty::DirtyMap;
use crate::layout::{
    ControlArea, EXTENT_BLOCKS, Format, LOG_BLOCKS, LOG_OFFSET, LayoutFault, MAP_OFFSET, Superblock, UNIT,
    log_read, log_write, page_read, page_write, pages, superblock_write,
};
use crate::sum_page::{
    EXTENT_SUM_BYTES, Sum, extent_offset, sums_read, trust_offset, trust_pages, trust_read, trust_write,
};
use crate::sums::Sums;
use peer::block::{BLOCK_BYTES, MAP_PAGE_BYTES};
use std::collections::{BTreeMap, BTreeSet};
use wire::traffic::WriteMode;
use wire::{Epoch, Incarnation, Session};

/// Bytes of both superblocks.
pub const SUPERBLOCKS_BYTES: usize = 2 * UNIT;

/// Reads a control area from pieces given in order, from its first byte on.
#[derive(Debug, Default)]
pub struct AreaReader {
    /// The superblocks, until both are there.
    head: Vec<u8>,
    /// Units taken.
    taken: u64,
    area: Option<ControlArea>,
}

impl AreaReader {
    /// A reader that has read nothing.
    #[must_use]
    pub fn new() -> AreaReader {
        AreaReader::default()
    }

    /// Bytes it needs in all, as far as it knows: those of the superblocks until it has read them.
    #[must_use]
    pub fn needed(&self) -> u64 {
        self.superblock().map_or(SUPERBLOCKS_BYTES as u64, Superblock::head_bytes)
    }

    /// Bytes it has taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken * UNIT as u64
    }

    /// The superblock in force, once read.
    #[must_use]
    pub fn superblock(&self) -> Option<&Superblock> {
        self.area.as_ref().map(|area| &area.superblock)
    }

    /// Takes the next piece, a multiple of [`UNIT`] bytes; what goes beyond the area is passed over.
    ///
    /// # Errors
    /// No whole superblock, or one of a newer version.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), LayoutFault> {
        for unit in piece.chunks_exact(UNIT) {
            let at = self.taken;
            self.taken += 1;
            match &mut self.area {
                Some(area) => area.take(at, unit),
                None => {
                    self.head.extend_from_slice(unit);
                    if self.head.len() == SUPERBLOCKS_BYTES {
                        let superblock = crate::layout::superblock(&self.head)?;
                        self.head = Vec::new();
                        let map = DirtyMap::new(superblock.size);
                        let sums = Sums::new(superblock.size, superblock.sums);
                        let (hot, log_sequence, torn_pages) = (BTreeSet::new(), 0, 0);
                        self.area =
                            Some(ControlArea { superblock, hot, log_sequence, map, sums, torn_pages });
                    }
                }
            }
        }
        Ok(())
    }

    /// The area.
    ///
    /// # Errors
    /// Not all of it was given.
    pub fn finish(self) -> Result<ControlArea, LayoutFault> {
        let (needed, found) = (self.needed(), self.taken());
        match self.area {
            Some(area) if found >= needed => Ok(area),
            Some(_) => Err(LayoutFault::Short { needed, found }),
            None => Err(LayoutFault::Foreign),
        }
    }
}

impl ControlArea {
    /// Reads a control area that is in memory as a whole.
    ///
    /// # Errors
    /// No whole superblock, one of a newer version, or fewer bytes than it says.
    pub fn read(bytes: &[u8]) -> Result<ControlArea, LayoutFault> {
        let mut reader = AreaReader::new();
        reader.feed(bytes)?;
        reader.finish()
    }

    /// Takes one unit of the log, the map or the trust.
    fn take(&mut self, at: u64, unit: &[u8]) {
        let (log, map) = (LOG_OFFSET / UNIT as u64, MAP_OFFSET / UNIT as u64);
        let trust = map + pages(self.superblock.size);
        if (log..log + LOG_BLOCKS).contains(&at) {
            if let Some((sequence, hot)) = log_read(unit, &self.superblock)
                && sequence >= self.log_sequence
            {
                (self.log_sequence, self.hot) = (sequence, hot);
            }
        } else if self.superblock.sums && (trust..trust + trust_pages(self.superblock.size)).contains(&at) {
            let page = (at - trust) as u32;
            if let Some(words) = trust_read(unit, page, &self.superblock) {
                self.sums.load_trust(page, &words);
            }
        } else if (map..trust).contains(&at) {
            let page = (at - map) as u32;
            match page_read(unit, page, &self.superblock) {
                Some(bits) => self.map.load(page, bits),
                None => {
                    self.torn_pages += 1;
                    self.map.fill_page(page);
                }
            }
        }
    }

    /// Bytes the data takes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.superblock.size
    }
}

/// A fresh control area: no history, nothing hot, nothing known.
///
/// Every page of its map is really written. A page of zeros would be shorter, but zeros are also what a thin disk, a
/// discarded or a lost sector gives: they must read as damage, that is as all different, never as clean. For 4 TiB that is
/// 129 MiB in one run, once. The order on disk: the old superblocks and everything else first, made durable, then the
/// superblocks: an area that is half written has none.
#[derive(Clone, Debug)]
pub struct FreshArea {
    superblock: Superblock,
}

impl FreshArea {
    /// For this set and side.
    ///
    /// # Errors
    /// A size outside its limit.
    pub fn new(format: Format) -> Result<FreshArea, LayoutFault> {
        let Format { cluster, set, side, size } = format;
        if !(1 << 20..=1 << 52).contains(&size) || !size.is_multiple_of(BLOCK_BYTES) {
            return Err(LayoutFault::Size);
        }
        let superblock = Superblock {
            counter: 1,
            cluster,
            set,
            side,
            size,
            epoch: Epoch(0),
            holder: None,
            session: Session(0),
            twin_session: Session(0),
            incarnation: Incarnation::default(),
            history: Vec::new(),
            base: None,
            consistent: true,
            alone: false,
            active: false,
            compare_all: false,
            made_equal: false,
            rebuild_paused: false,
            rebuild_limit: 0,
            store: 0,
            record: 0,
            preserved: None,
            undone: false,
            sums: true,
            mode: WriteMode::Synchronous,
            read_all: false,
        };
        Ok(FreshArea { superblock })
    }

    /// With a store of so many bytes behind the data; 0: none, and nothing a rebuild overwrites can be put back.
    #[must_use]
    pub fn with_store(mut self, bytes: u64) -> FreshArea {
        self.superblock.store = bytes / UNIT as u64 * UNIT as u64;
        self
    }

    /// What its superblocks say: for images made by hand.
    #[doc(hidden)]
    pub fn superblock_mut(&mut self) -> &mut Superblock {
        &mut self.superblock
    }

    /// Place and bytes of a page of its map with these bits, for the same.
    #[doc(hidden)]
    #[must_use]
    pub fn page(&self, page: u32, bits: &[u8]) -> (u64, Vec<u8>) {
        page_write(&self.superblock, page, bits)
    }

    /// What the stored sums of an area of this set say of some blocks, as a start would believe them: for the checkers of
    /// invariant 14. `read` gives bytes of the area.
    #[doc(hidden)]
    pub fn believed(
        &self,
        blocks: impl Iterator<Item = u64>,
        read: impl Fn(u64, usize) -> Vec<u8>,
    ) -> BTreeMap<u64, Sum> {
        let sb = &self.superblock;
        let mut trusted = Sums::new(sb.size, sb.sums);
        for page in 0..trust_pages(sb.size) {
            let unit = read(trust_offset(sb.size) + page * UNIT as u64, UNIT);
            if let Some(words) = trust_read(&unit, page as u32, sb) {
                trusted.load_trust(page as u32, &words);
            }
        }
        let known = |block: u64| {
            let extent = (block / EXTENT_BLOCKS) as u32;
            let believed = trusted.is_trusted(extent);
            let known = believed
                .then(|| sums_read(&read(extent_offset(sb.size, extent), EXTENT_SUM_BYTES), extent, sb))?;
            known.get((block % EXTENT_BLOCKS) as usize)
        };
        blocks.filter_map(|block| Some((block, known(block)?))).collect()
    }

    /// Its bytes in all: the data begins there.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.superblock.data_at()
    }

    /// Its bytes that must be written; what lies behind them means nothing yet.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.superblock.head_bytes()
    }

    /// Its bytes from `offset` on, as many as there is room for; both multiples of [`UNIT`].
    pub fn fill(&self, offset: u64, into: &mut [u8]) {
        for (i, unit) in into.chunks_exact_mut(UNIT).enumerate() {
            unit.fill(0);
            if let Some(bytes) = self.unit(offset / UNIT as u64 + i as u64) {
                unit.copy_from_slice(&bytes);
            }
        }
    }

    /// Bytes of a unit; none where all are zero.
    fn unit(&self, at: u64) -> Option<Vec<u8>> {
        let (log, map) = (LOG_OFFSET / UNIT as u64, MAP_OFFSET / UNIT as u64);
        let trust = map + pages(self.superblock.size);
        let end = trust + if self.superblock.sums { trust_pages(self.superblock.size) } else { 0 };
        match at {
            // The lowest bit of the counter chooses the place.
            0 | 1 => Some(superblock_write(&Superblock { counter: 2 - at, ..self.superblock.clone() }).1),
            at if at == log + 1 => Some(log_write(&self.superblock, 1, std::iter::empty()).1),
            at if (trust..end).contains(&at) => {
                Some(trust_write(&self.superblock, (at - trust) as u32, &[]).1)
            }
            at if (map..trust).contains(&at) => {
                Some(page_write(&self.superblock, (at - map) as u32, &[0; MAP_PAGE_BYTES]).1)
            }
            _ => None,
        }
    }
}

/// A fresh control area in one piece, as far as it must be written.
///
/// # Errors
/// A size outside its limit.
pub fn format(format: Format) -> Result<Vec<u8>, LayoutFault> {
    FreshArea::new(format)?.bytes()
}

impl FreshArea {
    /// All of it in one piece.
    ///
    /// # Errors
    /// It does not fit into memory.
    pub fn bytes(&self) -> Result<Vec<u8>, LayoutFault> {
        let fresh = self;
        let mut bytes = vec![0; usize::try_from(fresh.head()).map_err(|_| LayoutFault::Size)?];
        fresh.fill(0, &mut bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
#[path = "area_tests.rs"]
mod tests;
