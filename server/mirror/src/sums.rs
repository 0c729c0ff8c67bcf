//! What is known of each block's content on stable storage, and how a write takes it back.
//!
//! No stored sum ever names a content that its block does not have on stable storage, at any instant (invariant 14). An
//! extent's sums are believed while its bit of trust is set on disk, and the bit follows these rules:
//! * A write begins when the bit of its extent is cleared **on disk**. From then on the extent is *held* here: which blocks
//!   were written is remembered, the stored sums of the others stay true.
//! * A sum is learnt while its block is claimed, when both copies are known to have that content. So a known sum is what both
//!   had agreed on, whichever of them deviates later.
//! * When an extent is quiet (or known whole), its pages are written anew after a flush of the disk that began after the last
//!   sum was learnt; only when they are durable the bit is set again.
//!
//! A crash at any moment finds the bit cleared and knows nothing of the extent (DESIGN 5). Memory is bounded whatever the
//! size: a bit for each extent, and [`HELD_MAX`] extents held, of which [`LOADED_MAX`] with their sums; what does not fit is
//! forgotten, never guessed.

use crate::config::Faults;
use crate::layout::EXTENT_BLOCKS;
use crate::page_set::PageSet;
use crate::sum_page::{self, Known, Sum, TRUST_EXTENTS, WORDS, clear, has, set};
use std::collections::{BTreeMap, BTreeSet};
use wire::Time;
use wire::ids::MILLIS;

/// Extents held at most: as many as the activity log has.
const HELD_MAX: usize = 1024;
/// Of those, extents whose sums are in memory: 8 KiB each.
const LOADED_MAX: usize = 128;
/// Between two looks for extents that can be stored.
pub(crate) const LOOK_US: u64 = 20 * MILLIS;
/// Extents stored in one operation: their pages are 128 KiB.
pub(crate) const STORED_AT_ONCE: usize = 16;
/// Extents being loaded at once.
const LOADS_MAX: usize = 16;
/// Sums that the twin told of blocks it is about to send: the runs under way have no more.
const PROMISED_MAX: usize = 16 * 1024;

/// What is known of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Known(Sum),
    Unknown,
    /// On the disk: this extent's pages are to be loaded first.
    Stored(u32),
}

/// How far an extent's pages are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Idle,
    Loading,
    /// With the store of this mark; `again`: what was stored is out of date already.
    Storing {
        mark: u64,
        again: bool,
    },
}

/// An extent of which more is known than its stored pages say, or less.
#[derive(Clone, Debug)]
struct Held {
    known: Option<Known>,
    /// Blocks whose stored sum is of an older content.
    written: [u64; WORDS],
    /// What the stored pages say of the other blocks is in `known`.
    merged: bool,
    /// The stored pages are to be written anew.
    changed: bool,
    /// The flush that must be done before.
    flush: u64,
    way: Way,
    used: Time,
}

impl Held {
    /// `stored`: its pages were believed until this moment.
    fn new(stored: bool, now: Time) -> Held {
        Held {
            known: None,
            written: [0; WORDS],
            merged: !stored,
            changed: false,
            flush: 0,
            way: Way::Idle,
            used: now,
        }
    }

    fn is_whole(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.bits == [u64::MAX; WORDS])
    }

    /// Nothing is known of any block, here or on the disk.
    fn is_empty(&self) -> bool {
        let none = self.known.as_ref().is_none_or(|known| known.bits == [0; WORDS]);
        none && (self.merged || self.written == [u64::MAX; WORDS])
    }

    fn note(&mut self, faults: Faults) {
        self.changed = true;
        if let Way::Storing { again, .. } = &mut self.way {
            *again = !faults.believe_outdated_pages;
        }
    }
}

/// What the next look wants done.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    pub(crate) flush: bool,
    pub(crate) store: bool,
    pub(crate) load: Vec<u32>,
}

/// A page of trust to be stored: its number and its bits.
pub(crate) type TrustPage = (u32, Vec<u64>);

/// The sums of one side.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    /// The control area has a table.
    present: bool,
    extents: u64,
    trust: Vec<u64>,
    /// Pages of trust to be stored.
    unsaved: PageSet,
    /// Extents whose trust is being taken back, with the store that does.
    clearing: BTreeMap<u32, u64>,
    held: BTreeMap<u32, Held>,
    /// Extents whose pages go with the next store.
    ready: BTreeSet<u32>,
    promised: BTreeMap<u64, Sum>,
    /// Flushes of the disk for the sums: begun, and done.
    flushes: (u64, u64),
    /// The next look.
    pub(crate) due: Option<Time>,
    /// How long an extent must be quiet.
    quiet_us: u64,
    faults: Faults,
}

fn place(block: u64) -> (u32, usize) {
    ((block / EXTENT_BLOCKS) as u32, (block % EXTENT_BLOCKS) as usize)
}

impl Sums {
    pub(crate) fn new(size: u64, present: bool) -> Sums {
        let extents = if present { sum_page::extents(size) } else { 0 };
        Sums {
            present,
            extents,
            trust: vec![0; extents.div_ceil(TRUST_EXTENTS) as usize * (TRUST_EXTENTS / 64) as usize],
            unsaved: PageSet::new(extents.div_ceil(TRUST_EXTENTS)),
            clearing: BTreeMap::new(),
            held: BTreeMap::new(),
            ready: BTreeSet::new(),
            promised: BTreeMap::new(),
            flushes: (0, 0),
            due: None,
            quiet_us: 0,
            faults: Faults::default(),
        }
    }

    /// An extent is stored again when nothing was written to it for `quiet_us`.
    pub(crate) fn configure(&mut self, quiet_us: u64, faults: Faults) {
        (self.quiet_us, self.faults) = (quiet_us, faults);
    }

    /// Takes over a stored page of trust.
    pub(crate) fn load_trust(&mut self, page: u32, words: &[u64]) {
        let first = page as usize * (TRUST_EXTENTS / 64) as usize;
        for (to, from) in self.trust.iter_mut().skip(first).zip(words) {
            *to = *from;
        }
    }

    pub(crate) fn is_trusted(&self, extent: u32) -> bool {
        let word = self.trust.get(extent as usize / 64);
        u64::from(extent) < self.extents && word.is_some_and(|word| word >> (extent % 64) & 1 == 1)
    }

    fn set_trust(&mut self, extent: u32, trusted: bool) {
        if let Some(word) = self.trust.get_mut(extent as usize / 64) {
            *word = *word & !(1 << (extent % 64)) | u64::from(trusted) << (extent % 64);
            self.unsaved.insert((u64::from(extent) / TRUST_EXTENTS) as u32);
        }
    }

    /// Takes back the trust in an extent, by the store of this mark; what its pages say stays known here.
    fn open(&mut self, extent: u32, mark: u64, now: Time) {
        if self.is_trusted(extent) {
            self.set_trust(extent, false);
            self.clearing.insert(extent, mark);
            self.held.entry(extent).or_insert_with(|| Held::new(true, now));
            self.make_room(extent);
        }
    }

    /// A write of these blocks is about to begin. Gives the mark that must be reached first, 0 if none; `mark`: that of the
    /// next store, which the caller asks for if it is the one given.
    pub(crate) fn write_begins(&mut self, first: u64, count: u64, mark: u64, now: Time) -> u64 {
        if !self.present {
            return 0;
        }
        let mut after = 0;
        for extent in place(first).0..=place(first + count.max(1) - 1).0 {
            self.open(extent, mark, now);
            let start = u64::from(extent) * EXTENT_BLOCKS;
            if let Some(held) = self.held.get_mut(&extent) {
                for block in first.max(start)..(first + count).min(start + EXTENT_BLOCKS) {
                    let block = (block - start) as usize;
                    set(&mut held.written, block);
                    if let Some(known) = &mut held.known {
                        clear(&mut known.bits, block);
                    }
                }
                held.used = now;
                held.note(self.faults);
                self.due.get_or_insert(now.plus(LOOK_US));
            }
            after = after.max(self.clearing.get(&extent).copied().unwrap_or_default());
        }
        if !self.promised.is_empty() {
            for block in first..first + count {
                self.promised.remove(&block);
            }
        }
        after
    }

    /// Everything up to this mark is stored: trust is taken back, and given where the pages are.
    pub(crate) fn stored(&mut self, reached: impl Fn(u64) -> bool) -> bool {
        self.clearing.retain(|_, mark| !reached(*mark));
        let mut believed = Vec::new();
        for (extent, held) in &mut self.held {
            let Way::Storing { mark, again } = held.way else { continue };
            if reached(mark) {
                held.way = Way::Idle;
                if !again {
                    (held.changed, held.merged) = (false, true);
                    held.written = [0; WORDS];
                    believed.push(*extent);
                }
            }
        }
        for extent in &believed {
            self.set_trust(*extent, true);
        }
        !believed.is_empty()
    }

    /// Whether a store is to be looked at when it is done.
    pub(crate) fn is_idle(&self) -> bool {
        self.clearing.is_empty() && self.held.is_empty()
    }

    pub(crate) fn look(&mut self, block: u64) -> Look {
        let (extent, at) = place(block);
        match self.held.get(&extent) {
            Some(held) => match held.known.as_ref().and_then(|known| known.get(at)) {
                Some(sum) => Look::Known(sum),
                None if held.merged || has(&held.written, at) => Look::Unknown,
                None => Look::Stored(extent),
            },
            None if self.is_trusted(extent) => Look::Stored(extent),
            None => Look::Unknown,
        }
    }

    /// Begins to load an extent's pages: true if they are to be read.
    pub(crate) fn load(&mut self, extent: u32, now: Time) -> bool {
        if !self.held.contains_key(&extent) {
            if !self.is_trusted(extent) {
                return false;
            }
            self.held.insert(extent, Held::new(true, now));
            self.make_room(extent);
        }
        let Some(held) = self.held.get_mut(&extent) else { return false };
        held.used = now;
        let wanted = held.way == Way::Idle && !held.merged;
        if wanted {
            held.way = Way::Loading;
        }
        wanted
    }

    /// Whether an extent's pages are being read.
    pub(crate) fn is_loading(&self, extent: u32) -> bool {
        self.held.get(&extent).is_some_and(|held| held.way == Way::Loading)
    }

    /// The pages are here; none: they cannot be read.
    pub(crate) fn loaded(&mut self, extent: u32, found: Option<Known>, now: Time) {
        let Some(held) = self.held.get_mut(&extent) else { return };
        if held.way != Way::Loading {
            return;
        }
        held.way = Way::Idle;
        held.used = now;
        let known = held.known.get_or_insert_default();
        if let Some(found) = found {
            for block in 0..EXTENT_BLOCKS as usize {
                let fresh = !has(&held.written, block) && !has(&known.bits, block);
                if let Some(sum) = found.get(block).filter(|_| fresh) {
                    known.set(block, sum);
                }
            }
        }
        held.merged = true;
        self.make_room(extent);
    }

    /// Learns what a block holds, on both sides. `mark` as for a write; true if that store is to be asked for.
    pub(crate) fn learn(&mut self, block: u64, sum: Sum, mark: u64, now: Time) -> bool {
        let (extent, at) = place(block);
        if !self.present || u64::from(extent) >= self.extents {
            return false;
        }
        let known =
            self.held.get(&extent).and_then(|held| held.known.as_ref()).and_then(|known| known.get(at));
        if known == Some(sum) {
            return false;
        }
        let opens = self.is_trusted(extent);
        self.open(extent, mark, now);
        let flush = self.flushes.0 + 1;
        let held = self.held.entry(extent).or_insert_with(|| Held::new(false, now));
        let crowds = held.known.is_none();
        held.known.get_or_insert_default().set(at, sum);
        set(&mut held.written, at);
        held.used = now;
        held.flush = flush;
        held.note(self.faults);
        self.due.get_or_insert(now.plus(LOOK_US));
        if crowds {
            self.make_room(extent);
        }
        opens
    }

    /// The twin will send this block, and has this sum of it.
    pub(crate) fn promise(&mut self, block: u64, sum: Sum) {
        if self.present && self.promised.len() < PROMISED_MAX {
            self.promised.insert(block, sum);
        }
    }

    /// Takes what was promised of these blocks.
    pub(crate) fn take_promised(&mut self, first: u64, count: u64) -> Vec<(u64, Sum)> {
        let found: Vec<_> = self
            .promised
            .range(first..first.saturating_add(count))
            .map(|(block, sum)| (*block, *sum))
            .collect();
        for (block, _) in &found {
            self.promised.remove(block);
        }
        found
    }

    /// The twin is gone, and so is what it was about to send.
    pub(crate) fn forget_promised(&mut self) {
        self.promised.clear();
    }

    /// Looks for extents that can be stored, at most every [`LOOK_US`].
    pub(crate) fn wants(&mut self, now: Time) -> Wants {
        let mut wants = Wants::default();
        if self.due.is_none_or(|due| now < due) {
            return wants;
        }
        self.due = None;
        let loading = self.held.values().filter(|held| held.way == Way::Loading).count();
        let (mut gone, mut later) = (Vec::new(), false);
        for (extent, held) in self.held.iter_mut().filter(|(_, held)| held.changed) {
            later = true;
            let due = held.is_whole() || now.since(held.used) >= self.quiet_us;
            let busy =
                held.way != Way::Idle || self.clearing.contains_key(extent) || self.ready.contains(extent);
            if !due || busy {
                continue;
            }
            if held.is_empty() {
                gone.push(*extent);
            } else if !held.merged && !held.is_whole() {
                if loading + wants.load.len() < LOADS_MAX {
                    wants.load.push(*extent);
                }
            } else if held.flush > self.flushes.1 && !self.faults.believe_before_flush {
                wants.flush = true;
            } else if self.ready.len() < STORED_AT_ONCE {
                self.ready.insert(*extent);
            }
        }
        for extent in gone {
            self.held.remove(&extent);
        }
        wants.flush &= self.flushes.0 == self.flushes.1;
        wants.store = !self.ready.is_empty();
        if later {
            self.due = Some(now.plus(LOOK_US));
        }
        wants
    }

    pub(crate) fn flush_begins(&mut self) {
        self.flushes.0 += 1;
    }

    pub(crate) fn flushed(&mut self) {
        self.flushes.1 = self.flushes.0;
    }

    /// Takes what goes with the store of this mark: pages of trust, and extents' pages.
    pub(crate) fn take_stores(&mut self, mark: u64) -> (Vec<TrustPage>, Vec<(u32, Known)>) {
        let mut pages = Vec::new();
        for extent in std::mem::take(&mut self.ready) {
            let trusted = self.is_trusted(extent) || self.clearing.contains_key(&extent);
            let Some(held) = self.held.get_mut(&extent) else { continue };
            // Of a write or a sum that came since it was chosen, the next look sees more.
            let flushed = held.flush <= self.flushes.1 || self.faults.believe_before_flush;
            let fit = !trusted && held.way == Way::Idle && flushed;
            if let Some(known) = held.known.clone().filter(|_| fit && (held.merged || held.is_whole())) {
                held.way = Way::Storing { mark, again: false };
                pages.push((extent, known));
                if self.faults.believe_with_pages {
                    self.set_trust(extent, true);
                }
            }
        }
        let mut trust = Vec::new();
        let words = (TRUST_EXTENTS / 64) as usize;
        while let Some(page) = self.unsaved.next(0) {
            self.unsaved.remove(page);
            trust.push((page, self.trust.iter().skip(page as usize * words).take(words).copied().collect()));
        }
        (trust, pages)
    }

    /// Bounds what is held, sparing one extent: first what the disk knows as well, then what is forgotten.
    fn make_room(&mut self, spared: u32) {
        let with_sums = self.held.values().filter(|held| held.known.is_some()).count();
        if self.held.len() <= HELD_MAX && with_sums <= LOADED_MAX {
            return;
        }
        let crowded = with_sums > LOADED_MAX;
        let idle = self.held.iter().filter(|(extent, held)| {
            **extent != spared && held.way == Way::Idle && (!crowded || held.known.is_some())
        });
        let oldest = idle.min_by_key(|(_, held)| (held.changed, held.used)).map(|(extent, _)| *extent);
        if let Some(extent) = oldest {
            self.held.remove(&extent);
            self.ready.remove(&extent);
        }
    }

    /// The sum in force of a block, for the checkers of invariant 14.
    #[doc(hidden)]
    pub(crate) fn known(&self, block: u64) -> Option<Sum> {
        let (extent, at) = place(block);
        self.held.get(&extent)?.known.as_ref()?.get(at)
    }
}

#[cfg(test)]
#[path = "sums_tests.rs"]
mod tests;
