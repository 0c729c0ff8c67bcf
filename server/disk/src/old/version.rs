//! Reading a preserved version from its backing while the disk process goes on.

use crate::backing::hashes;
use crate::ring::memory::Buffer;
use anyhow::{Context as _, bail, ensure};
use mirror::layout::segment::{Segment, sum};
use mirror::layout::{SUPERBLOCKS_BYTES, Superblock, UNIT, superblock};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

const BLOCK: u64 = UNIT as u64;

/// Where a run of kept blocks lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    count: u64,
    /// Its first unit in the store; none: zeroes.
    unit: Option<u64>,
}

/// A preserved version.
pub(super) struct Version {
    file: File,
    sb: Superblock,
    /// Kept runs by first block; they never overlap.
    kept: BTreeMap<u64, Place>,
    /// The segment taken in last.
    last: Option<Segment>,
}

impl Version {
    /// The one that this backing keeps.
    pub(super) fn open(backing: &Path) -> anyhow::Result<Version> {
        let name = backing.display();
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(backing);
        // Past the page cache, as the disk process does; a file system without direct I/O has one for both.
        let file =
            open(libc::O_DIRECT).or_else(|_| open(0)).with_context(|| format!("open the backing {name}"))?;
        let sb = head(&file).with_context(|| format!("read the control area of {name}"))?;
        ensure!(sb.preserved.is_some(), "{name} keeps no older version");
        let mut version = Version { file, sb, kept: BTreeMap::new(), last: None };
        version.catch_up()?;
        Ok(version)
    }

    /// Bytes of the data.
    pub(super) fn size(&self) -> u64 {
        self.sb.size
    }

    /// Reads a range as it was.
    pub(super) fn read(&mut self, offset: u64, into: &mut [u8]) -> anyhow::Result<()> {
        let first = offset / BLOCK;
        let count = (offset + into.len() as u64).div_ceil(BLOCK) - first;
        let data_at = self.sb.data_at();
        let mut whole = Buffer::new((count * BLOCK) as usize).context("no memory")?;
        let bytes = whole.bytes_mut().get_mut(..(count * BLOCK) as usize).unwrap_or_default();
        self.file.read_exact_at(bytes, data_at + first * BLOCK)?;
        // In this order: see `super`.
        self.catch_up()?;
        let now = head(&self.file)?;
        let still =
            now.record == self.sb.record && now.preserved.as_ref().is_some_and(|kept| !kept.returning);
        if !still {
            bail!("it is no longer kept");
        }
        for (i, block) in (first..).zip(bytes.chunks_exact_mut(UNIT)) {
            self.replace(i, block)?;
        }
        let from = (offset - first * BLOCK) as usize;
        if let Some(wanted) = bytes.get(from..from + into.len()) {
            into.copy_from_slice(wanted);
        }
        Ok(())
    }

    /// A block as the store has it, if it does.
    fn replace(&self, block: u64, bytes: &mut [u8]) -> anyhow::Result<()> {
        let found = self.kept.range(..=block).next_back();
        let Some((first, place)) = found.filter(|(first, place)| block < **first + place.count) else {
            return Ok(());
        };
        match place.unit {
            Some(unit) => self.file.read_exact_at(bytes, self.store_at(unit + block - first))?,
            None => bytes.fill(0),
        }
        Ok(())
    }

    fn store_at(&self, unit: u64) -> u64 {
        self.sb.data_at() + self.sb.size + unit * BLOCK
    }

    /// Takes in the headers written since.
    fn catch_up(&mut self) -> anyhow::Result<()> {
        loop {
            let at = self.last.as_ref().map_or(0, Segment::end);
            if at >= self.sb.store / BLOCK {
                return Ok(());
            }
            let mut header = Buffer::new(UNIT).context("no memory")?;
            let bytes = header.bytes_mut().get_mut(..UNIT).unwrap_or_default();
            self.file.read_exact_at(bytes, self.store_at(at))?;
            let Some(segment) = Segment::read(bytes, &self.sb, self.last.as_ref()) else { return Ok(()) };
            if !self.is_whole(&segment)? {
                // On its way, or left by a power loss: nothing it names was overwritten; another one may take its place.
                return Ok(());
            }
            for run in &segment.runs {
                let unit = run.place.map(|place| at + 1 + u64::from(place));
                self.kept.insert(run.first, Place { count: run.count, unit });
            }
            self.last = Some(segment);
        }
    }

    /// Whether its blocks are what its header says.
    fn is_whole(&self, segment: &Segment) -> anyhow::Result<bool> {
        for run in &segment.runs {
            let Some(place) = run.place else { continue };
            let length = (run.count * BLOCK) as usize;
            let mut buffer = Buffer::new(length).context("no memory")?;
            let bytes = buffer.bytes_mut().get_mut(..length).unwrap_or_default();
            self.file.read_exact_at(bytes, self.store_at(segment.at + 1 + u64::from(place)))?;
            if sum(&hashes(bytes)) != run.sum {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn head(file: &File) -> anyhow::Result<Superblock> {
    let mut buffer = Buffer::new(SUPERBLOCKS_BYTES).context("no memory")?;
    let bytes = buffer.bytes_mut().get_mut(..SUPERBLOCKS_BYTES).unwrap_or_default();
    file.read_exact_at(bytes, 0)?;
    Ok(superblock(bytes)?)
}
