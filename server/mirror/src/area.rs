//! The control area as a whole, a piece at a time: the map of 4 TiB takes 129 MiB on disk and must not take them in memory.

use crate::dirty::DirtyMap;
use crate::layout::{
    ControlArea, Format, LOG_BLOCKS, LOG_OFFSET, LayoutFault, MAP_OFFSET, Superblock, UNIT, control_bytes,
    log_read, log_write, page_read, page_write, pages, superblock_write,
};
use peer::block::{BLOCK_BYTES, MAP_PAGE_BYTES};
use std::collections::BTreeSet;
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
        self.superblock().map_or(SUPERBLOCKS_BYTES as u64, |superblock| control_bytes(superblock.size))
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
                        let (hot, log_sequence, torn_pages) = (BTreeSet::new(), 0, 0);
                        self.area = Some(ControlArea { superblock, hot, log_sequence, map, torn_pages });
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

    /// Takes one unit of the log or the map.
    fn take(&mut self, at: u64, unit: &[u8]) {
        let (log, map) = (LOG_OFFSET / UNIT as u64, MAP_OFFSET / UNIT as u64);
        if (log..log + LOG_BLOCKS).contains(&at) {
            if let Some((sequence, hot)) = log_read(unit, &self.superblock)
                && sequence >= self.log_sequence
            {
                (self.log_sequence, self.hot) = (sequence, hot);
            }
        } else if (map..map + pages(self.superblock.size)).contains(&at) {
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

    /// Its bytes in all.
    #[must_use]
    pub fn length(&self) -> u64 {
        control_bytes(self.superblock.size)
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
        let end = map + pages(self.superblock.size);
        match at {
            // The lowest bit of the counter chooses the place.
            0 | 1 => Some(superblock_write(&Superblock { counter: 2 - at, ..self.superblock.clone() }).1),
            at if at == log + 1 => Some(log_write(&self.superblock, 1, std::iter::empty()).1),
            at if (map..end).contains(&at) => {
                Some(page_write(&self.superblock, (at - map) as u32, &[0; MAP_PAGE_BYTES]).1)
            }
            _ => None,
        }
    }
}

/// A fresh control area in one piece.
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
        let mut bytes = vec![0; usize::try_from(fresh.length()).map_err(|_| LayoutFault::Size)?];
        fresh.fill(0, &mut bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
#[path = "area_tests.rs"]
mod tests;
