//! What the data must be: every write, whether it was acknowledged, and on which copies it was promised to be.
//!
//! A number is drawn from one clock when a write begins, and its end when it is acknowledged. A promise is a floor: "at least
//! write n". A write found meets it if it ended after n began: only then may it lie over n. What is not acknowledged has
//! no end until the device that it was given to is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::block::{BLOCK, SECTOR, SECTORS, number};

/// The end of a write that may still come to lie over others.
const OPEN: u64 = u64::MAX;
/// Violations told in words; the rest is only counted.
const TOLD_MAX: usize = 12;

/// The oracle of one mirror set.
pub struct Oracle {
    set: u64,
    /// Unflushed writes of a killed process are lost.
    volatile: bool,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    clock: u64,
    /// The side whose device is served.
    active: usize,
    /// Counts the changes of `both`, and of the device.
    version: u64,
    /// Acknowledgements need both sides.
    both: bool,
    /// Only the copy beside the one that serves counts.
    through: bool,
    /// Of each side: deaths so far, and whether one is under way.
    deaths: [u64; 2],
    dying: [bool; 2],
    /// Of each side, block by block: what it must hold while its host lives, and after a power loss.
    least: [Vec<u64>; 2],
    safe: [Vec<u64>; 2],
    /// Of each block: the writes that went there, and their ends.
    ends: Vec<BTreeMap<u64, u64>>,
    tally: Tally,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Flushes acknowledged.
    pub flushes: u64,
    /// Blocks read and judged.
    pub judged: u64,
    /// Sectors that are not what was promised.
    pub lost: u64,
    /// The first of them in words.
    pub told: Vec<String>,
}

/// An operation under way: what was true when it began.
#[derive(Clone)]
pub struct Begun {
    /// Of a write: its number.
    pub number: u64,
    first: u64,
    count: u64,
    version: u64,
    both: bool,
    through: bool,
    active: usize,
    deaths: [u64; 2],
    dying: [bool; 2],
    /// Of a read or flush: what was promised when it began.
    floors: Vec<u64>,
}

impl Book {
    /// The side whose copy is read.
    fn serving(&self) -> usize {
        if self.through { 1 - self.active } else { self.active }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn begun(&mut self, first: u64, count: u64) -> Begun {
        Begun {
            number: self.tick(),
            first,
            count,
            version: self.version,
            both: self.both,
            through: self.through,
            active: self.active,
            deaths: self.deaths,
            dying: self.dying,
            floors: Vec::new(),
        }
    }

    /// The sides on which what was acknowledged just now is promised to be. One that died meanwhile promises nothing: whether
    /// it was there before or after is not known.
    fn keepers(&self, begun: &Begun) -> Vec<usize> {
        let lives = |side: &usize| {
            !begun.dying[*side] && !self.dying[*side] && begun.deaths[*side] == self.deaths[*side]
        };
        let mut keepers = vec![begun.active];
        if begun.through || self.through {
            keepers = vec![1 - begun.active];
        } else if begun.both && begun.version == self.version {
            keepers.push(1 - begun.active);
        }
        if begun.active != self.active {
            // Acknowledged by a side that had been deposed: only right if its successor has it.
            keepers.push(self.active);
        }
        keepers.retain(lives);
        keepers
    }

    fn wrong(&mut self, what: String) {
        self.tally.lost += 1;
        if self.tally.told.len() < TOLD_MAX {
            self.tally.told.push(what);
        }
    }
}

impl Oracle {
    /// Of a set of so many blocks.
    #[must_use]
    pub fn new(set: u64, blocks: usize, volatile: bool) -> Self {
        let floors = || [vec![0; blocks], vec![0; blocks]];
        let book = Book {
            least: floors(),
            safe: floors(),
            ends: vec![BTreeMap::from([(0, 0)]); blocks],
            ..Book::default()
        };
        Oracle { set, volatile, book: Mutex::new(book) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write of these blocks begins.
    pub fn write_begins(&self, first: u64, count: u64) -> Begun {
        let mut book = self.book();
        let begun = book.begun(first, count);
        for block in first..first + count {
            let before = book.ends[block as usize].insert(begun.number, OPEN);
            assert!(before.is_none(), "numbers are drawn once");
        }
        begun
    }

    /// It was acknowledged.
    pub fn write_ends(&self, begun: &Begun) {
        let mut book = self.book();
        let end = book.tick();
        book.tally.acknowledged += 1;
        let keepers = book.keepers(begun);
        for block in begun.first..begun.first + begun.count {
            let at = block as usize;
            if let Some(known) = book.ends[at].get_mut(&begun.number) {
                // A read may have seen it earlier.
                *known = (*known).min(end);
            }
            for side in &keepers {
                let floor = &mut book.least[*side][at];
                *floor = (*floor).max(begun.number);
            }
        }
    }

    /// A flush begins.
    pub fn flush_begins(&self) -> Begun {
        let mut book = self.book();
        let mut begun = book.begun(0, 0);
        begun.floors = book.least[book.serving()].clone();
        begun
    }

    /// It was acknowledged: what was promised when it began survives a power loss.
    pub fn flush_ends(&self, begun: &Begun) {
        let mut book = self.book();
        book.tally.flushes += 1;
        for side in book.keepers(begun) {
            for (at, floor) in begun.floors.iter().enumerate() {
                let (least, safe) = (book.least[side][at], book.safe[side][at]);
                book.least[side][at] = least.max(*floor);
                book.safe[side][at] = safe.max(*floor);
            }
        }
    }

    /// A read begins.
    pub fn read_begins(&self, first: u64, count: u64) -> Begun {
        let mut book = self.book();
        let mut begun = book.begun(first, count);
        let serving = book.serving();
        begun.floors = book.least[serving][first as usize..(first + count) as usize].to_vec();
        begun
    }

    /// These bytes came. A read block that is of one write is from then on in place, as a disk's is.
    pub fn read_ends(&self, begun: &Begun, bytes: &[u8]) {
        let mut book = self.book();
        let end = book.tick();
        let same = begun.version == book.version && begun.deaths == book.deaths && book.dying == [false; 2];
        for (index, block) in (begun.first..begun.first + begun.count).enumerate() {
            let found =
                self.judge(&mut book, block, &bytes[index * BLOCK..][..BLOCK], begun.floors[index], "read");
            if let Some(found) = found.filter(|found| *found > 0 && same) {
                let at = block as usize;
                if let Some(known) = book.ends[at].get_mut(&found) {
                    *known = (*known).min(end);
                }
                let serving = book.serving();
                let floor = &mut book.least[serving][at];
                *floor = (*floor).max(found);
            }
        }
    }

    /// Judges a block as one copy has it; where it is of one write, its number.
    fn judge(&self, book: &mut Book, block: u64, bytes: &[u8], floor: u64, how: &str) -> Option<u64> {
        book.tally.judged += 1;
        let mut numbers = [0; SECTORS];
        for (sector, number_of) in numbers.iter_mut().enumerate() {
            let found = number(&bytes[sector * SECTOR..][..SECTOR], self.set, block, sector);
            let known = found.as_ref().ok().and_then(|found| book.ends[block as usize].get(found).copied());
            match (found, known) {
                (Ok(found), Some(end)) if end > floor || floor == 0 => *number_of = found,
                (Ok(found), Some(end)) => {
                    book.wrong(format!(
                        "{how}: block {block} sector {sector} has write {found} (ended {end}), promised {floor}"
                    ));
                    return None;
                }
                (Ok(found), None) => {
                    book.wrong(format!("{how}: block {block} sector {sector}: nobody wrote {found}"));
                    return None;
                }
                (Err(what), _) => {
                    book.wrong(format!("{how}: block {block} sector {sector}: {what}"));
                    return None;
                }
            }
        }
        numbers.iter().all(|found| *found == numbers[0]).then_some(numbers[0])
    }

    /// Judges all blocks of one copy while its host lives.
    pub fn judge_copy(&self, side: usize, bytes: &[u8], first: u64, how: &str) {
        let mut book = self.book();
        for (index, bytes) in bytes.chunks_exact(BLOCK).enumerate() {
            let block = first + index as u64;
            let floor = book.least[side][block as usize];
            self.judge(&mut book, block, bytes, floor, how);
        }
    }

    /// A side is about to be killed.
    pub fn death_begins(&self, side: usize) {
        self.book().dying[side] = true;
    }

    /// It is dead. What it had not flushed is gone if its disk is volatile.
    pub fn death_ends(&self, side: usize) {
        let mut book = self.book();
        book.dying[side] = false;
        book.deaths[side] += 1;
        if self.volatile {
            book.least[side] = book.safe[side].clone();
        }
    }

    /// From now on acknowledgements may be given without the twin.
    pub fn alone(&self) {
        let mut book = self.book();
        book.both = false;
        book.version += 1;
    }

    /// From now on only the other side's copy counts, which has all that was acknowledged; the active side serves it.
    pub fn through(&self) {
        let mut book = self.book();
        (book.both, book.through) = (false, true);
        book.version += 1;
    }

    /// The twin was taken in again: it has all that the active side has, flushed what that has flushed.
    pub fn together(&self) {
        let mut book = self.book();
        let (mine, twin) = (book.active, 1 - book.active);
        for at in 0..book.ends.len() {
            book.least[twin][at] = book.least[twin][at].max(book.least[mine][at]);
            book.safe[twin][at] = book.safe[twin][at].max(book.safe[mine][at]);
        }
        book.both = true;
        book.version += 1;
    }

    /// This side was activated.
    pub fn activated(&self, side: usize) {
        let mut book = self.book();
        book.active = side;
        book.through = false;
        book.version += 1;
    }

    /// Every operation given to the earlier device has come to its end: what was not acknowledged is there or not, and comes
    /// no more.
    pub fn device_gone(&self) {
        let mut book = self.book();
        let end = book.tick();
        for ends in &mut book.ends {
            for open in ends.values_mut() {
                if *open == OPEN {
                    *open = end;
                }
            }
        }
    }

    /// Something that no block tells: counted as a loss.
    pub fn wrong(&self, what: String) {
        self.book().wrong(what);
    }

    /// What happened so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.book().tally.clone()
    }
}
