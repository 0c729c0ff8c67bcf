//! What an asynchronous twin's copy must be when it takes over (C4): an earlier state of the other one.
//!
//! If a write is there, so is every one that was answered before it began. After the end of the twin's process or a loss of its
//! power, which may take what it had received: every one that was answered before a flush which was answered before it began.

use super::disk::CELLS;
use crate::oracle::WriteNumber;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Write {
    cells: (usize, usize),
    zeroes: bool,
    begun: u64,
    answered: Option<u64>,
}

/// The requests of a term.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    writes: BTreeMap<u64, Write>,
    /// When each began and was answered.
    flushes: Vec<(u64, u64)>,
    /// The copy of a side may lack anything it had not flushed.
    pub(super) shaken: [bool; 2],
    /// Who served last: what it lost itself, by its own loss of power, is no matter of order.
    pub(super) serves: Option<usize>,
}

impl Prefix {
    pub(super) fn begun(&mut self, number: WriteNumber, cells: (usize, usize), zeroes: bool, tick: u64) {
        self.writes.insert(number.0, Write { cells, zeroes, begun: tick, answered: None });
    }

    pub(super) fn answered(&mut self, number: WriteNumber, tick: u64) {
        if let Some(write) = self.writes.get_mut(&number.0) {
            write.answered = Some(tick);
        }
    }

    pub(super) fn flushed(&mut self, begun: u64, tick: u64) {
        self.flushes.push((begun, tick));
    }

    /// A side serves: what it holds is the truth.
    pub(super) fn restart(&mut self, side: usize) {
        self.shaken[side] = false;
        self.serves = Some(side);
        self.writes.clear();
        self.flushes.clear();
    }

    /// What is wrong with the copy of a side that takes over.
    pub(super) fn check(&self, side: usize, content: &[u64; CELLS]) -> Option<String> {
        let known = |value: u64| self.writes.get(&(value >> 20));
        let newest = content.iter().filter_map(|value| known(*value)).map(|write| write.begun).max()?;
        let until = if self.shaken[side] {
            let before = self.flushes.iter().filter(|(_, answered)| *answered < newest);
            before.map(|(begun, _)| *begun).max()?
        } else {
            newest
        };
        let older = |one: &Write, than: &Write| one.answered.is_some_and(|answered| answered < than.begun);
        self.writes.iter().find_map(|(number, write)| {
            write.answered.filter(|answered| *answered < until)?;
            let (from, to) = write.cells;
            (from..to).find_map(|cell| {
                let zeroes = |other: &&Write| other.zeroes && other.cells.0 <= cell && cell < other.cells.1;
                let there = match content[cell] {
                    0 => self.writes.values().filter(zeroes).any(|other| !older(other, write)),
                    value => known(value).is_some_and(|other| !older(other, write)),
                };
                let what = content[cell] >> 20;
                (!there)
                    .then(|| format!("cell {cell} holds {what} and lacks {number}, which came before others"))
            })
        })
    }
}
