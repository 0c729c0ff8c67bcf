//! Two stopped copies: what their control areas say of each other, against what is in the images.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use mirror::config::{Faults, MirrorConfig, MirrorTiming};
use mirror::{ControlArea, Mirror};
use wire::Time;

use super::block::BLOCK;
use super::oracle::Oracle;
use crate::rig::{Rig, Side};

/// Blocks read at once.
const PIECE: usize = 256;
/// Differences told in words.
const TOLD_MAX: usize = 4;

/// One stopped copy.
struct Copy {
    core: Mirror,
    current: Option<wire::Generation>,
    image: File,
    data_at: u64,
}

impl Copy {
    fn open(side: &Side) -> Result<Self> {
        let image = File::open(side.image()).context("open an image")?;
        let data_at = side.data_at()?;
        let mut control = vec![0; usize::try_from(data_at)?];
        image.read_exact_at(&mut control, 0).context("read a control area")?;
        let area =
            ControlArea::read(&control).with_context(|| format!("the control area of side {}", side.id))?;
        let current = area.superblock.history.first().copied();
        let config = MirrorConfig {
            cluster: area.superblock.cluster,
            set: area.superblock.set,
            side: area.superblock.side,
            incarnation: area.superblock.incarnation,
            timing: MirrorTiming::default(),
            hot_max: mirror::HOT_MAX,
            faults: Faults::default(),
        };
        Ok(Copy { core: Mirror::new(config, area, Time(0)), current, image, data_at })
    }

    fn read(&self, block: u64, into: &mut [u8]) -> Result<()> {
        self.image.read_exact_at(into, self.data_at + block * BLOCK as u64).context("read an image")
    }
}

/// What is wrong between two stopped copies: blocks that differ and that neither map nor log calls different, where the
/// map of the holder counts from where its twin stands.
///
/// # Errors
/// An image or a control area cannot be read.
pub fn compare(rig: &Rig, holder: usize) -> Result<Vec<String>> {
    let (one, two) = (Copy::open(&rig.one)?, Copy::open(&rig.two)?);
    let (mine, twin) = if holder == 0 { (&one, &two) } else { (&two, &one) };
    if mine.core.base().is_none() || twin.current != mine.core.base() || twin.core.counts_from_nothing() {
        return Ok(Vec::new());
    }
    let mut wrong = Vec::new();
    let (mut left, mut right) = (vec![0; PIECE * BLOCK], vec![0; PIECE * BLOCK]);
    let blocks = rig.size() / BLOCK as u64;
    let mut first = 0;
    while first < blocks {
        let count = (blocks - first).min(PIECE as u64);
        let length = count as usize * BLOCK;
        mine.read(first, &mut left[..length])?;
        twin.read(first, &mut right[..length])?;
        if left[..length] != right[..length] {
            for block in first..first + count {
                let at = (block - first) as usize * BLOCK;
                let differs = left[at..at + BLOCK] != right[at..at + BLOCK];
                if differs && !mine.core.suspects_block(block) && !twin.core.suspects_block(block) {
                    wrong.push(format!("stopped: block {block} differs and neither copy knows"));
                }
            }
        }
        first += count;
    }
    if wrong.len() > TOLD_MAX {
        let more = wrong.len();
        wrong.truncate(TOLD_MAX);
        wrong.push(format!("stopped: {more} blocks differ and neither copy knows"));
    }
    Ok(wrong)
}

/// Judges both images block by block as the oracle's copies.
///
/// # Errors
/// An image cannot be read.
pub fn judge_images(rig: &Rig, oracle: &Oracle) -> Result<()> {
    let blocks = rig.size() / BLOCK as u64;
    for (number, side) in [&rig.one, &rig.two].into_iter().enumerate() {
        let copy = Copy::open(side)?;
        let mut bytes = vec![0; PIECE * BLOCK];
        let mut first = 0;
        while first < blocks {
            let length = (blocks - first).min(PIECE as u64) as usize * BLOCK;
            copy.read(first, &mut bytes[..length])?;
            oracle.judge_copy(number, &bytes[..length], first, &format!("image of side {}", number + 1));
            first += PIECE as u64;
        }
    }
    Ok(())
}
