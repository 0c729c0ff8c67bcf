//! What the application was promised: every write by number, who holds it, and what each sector may therefore contain.
//!
//! A sector's content is one of its candidates. An acknowledged write is *guaranteed* while one host whose copy the
//! acknowledgement rests on has not lost power since, and for ever once a later flush was acknowledged. A candidate is
//! ruled out by a guaranteed write that was begun after it was answered. An unanswered write is unknown: it may be
//! there or not, until the next holder begins to serve; what that holder shows then is the truth.

use std::collections::{BTreeMap, BTreeSet};

/// Numbers the application's writes; 0 is the zeros of a blank disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteNumber(pub u64);

/// Low bits of a sector's value that tell which sector it was meant for: a misplaced copy is a difference.
const PLACE_BITS: u32 = 20;
/// A sector's candidates are looked through for those that are ruled out for ever when there are so many.
const CANDIDATES: usize = 4;
/// A set of hosts: bit 0 for server 1, bit 1 for server 2.
pub type Hosts = u8;
/// Both servers.
pub const BOTH: Hosts = 3;

/// The value of a sector as written by a write.
#[must_use]
pub fn token(write: WriteNumber, sector: u64) -> u64 {
    (write.0 << PLACE_BITS) | (sector & ((1 << PLACE_BITS) - 1))
}

/// The write whose payload this is; a zero is the blank disk's or of any write of zeroes.
fn write_of(sector: u64, value: u64) -> Option<WriteNumber> {
    let write = WriteNumber(value >> PLACE_BITS);
    (value == token(write, sector)).then_some(write)
}

#[derive(Clone, Copy, Debug)]
struct Write {
    begun: u64,
    answered: Option<u64>,
    /// It leaves zeroes, which cannot be told from another's.
    zeroes: bool,
    copies: Hosts,
    /// Hosts that lost power while it was not answered: what they had of it may be gone.
    lost: Hosts,
    durable: bool,
}

/// A content that no history allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where.
    pub sector: u64,
    /// What was there.
    pub found: u64,
    /// What was promised instead.
    pub promised: String,
}

/// The oracle of one mirror set.
#[derive(Debug)]
pub struct Oracle {
    /// The order of events: begun, answered, flush begun.
    tick: u64,
    next: u64,
    writes: Writes,
    /// Answered, not yet durable.
    volatile: BTreeSet<WriteNumber>,
    /// Candidates of each sector in the order of their issue.
    sectors: BTreeMap<u64, Vec<WriteNumber>>,
    acknowledged: u64,
    /// A durable write rules out for ever what came before it.
    prunes: bool,
    /// Unanswered writes that another copy may hold, and when a holder began to serve without them.
    revenants: BTreeMap<WriteNumber, u64>,
    /// Unanswered writes that a holder began to serve with, which another copy that counts may lack: none of them was read yet.
    unread: BTreeSet<WriteNumber>,
}

/// Every write of the run, by its number: they are given one after another, and none is dropped.
#[derive(Debug)]
struct Writes(Vec<Write>);

impl Writes {
    fn get(&self, number: &WriteNumber) -> Option<&Write> {
        self.0.get(usize::try_from(number.0).ok()?)
    }

    fn get_mut(&mut self, number: &WriteNumber) -> Option<&mut Write> {
        self.0.get_mut(usize::try_from(number.0).ok()?)
    }

    /// Drops candidates that a durable write rules out for ever.
    fn prune(&self, list: &mut Vec<WriteNumber>) {
        // What was answered before the last of them began.
        let durable = list.iter().filter_map(|w| self.get(w)).filter(|w| w.durable);
        let Some(last) = durable.map(|w| w.begun).max() else { return };
        let ruled_out = |x: &Write| x.answered.is_some_and(|answered| answered < last);
        list.retain(|x| !self.get(x).is_some_and(ruled_out));
    }
}

impl Default for Oracle {
    fn default() -> Self {
        let zeros = Write { begun: 0, answered: Some(0), zeroes: true, copies: BOTH, lost: 0, durable: true };
        Oracle {
            tick: 0,
            next: 1,
            writes: Writes(vec![zeros]),
            volatile: BTreeSet::new(),
            sectors: BTreeMap::new(),
            acknowledged: 0,
            prunes: true,
            revenants: BTreeMap::new(),
            unread: BTreeSet::new(),
        }
    }
}

impl Oracle {
    /// `lasting`: what was flushed is on every copy, so that nothing older is ever seen again.
    #[must_use]
    pub fn new(lasting: bool) -> Oracle {
        Oracle { prunes: lasting, ..Oracle::default() }
    }

    /// A copy takes over that may lack anything by its user's choice: nothing is guaranteed until it shows what it has.
    pub fn forgive(&mut self) {
        for write in self.writes.0.iter_mut().skip(1) {
            (write.copies, write.durable) = (0, false);
        }
        if let Some(zeros) = self.writes.get_mut(&WriteNumber(0)) {
            (zeros.copies, zeros.durable) = (BOTH, false);
        }
    }

    fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// The application begins a write, of zeroes or of a payload; returns its number.
    pub fn write_begun(&mut self, sector: u64, sectors: u64, zeroes: bool) -> WriteNumber {
        let number = WriteNumber(self.next);
        self.next += 1;
        let begun = self.tick();
        let write = Write { begun, answered: None, zeroes, copies: 0, lost: 0, durable: false };
        self.writes.0.push(write);
        for s in sector..sector + sectors {
            let list = self.sectors.entry(s).or_insert_with(|| vec![WriteNumber(0)]);
            if self.prunes && list.len() >= CANDIDATES {
                self.writes.prune(list);
            }
            list.push(number);
        }
        number
    }

    fn is_guaranteed(&self, write: WriteNumber) -> bool {
        self.writes.get(&write).is_some_and(|w| w.answered.is_some() && (w.durable || w.copies != 0))
    }

    /// Whether `later` was begun after `earlier` had been answered.
    fn supersedes(&self, later: WriteNumber, earlier: WriteNumber) -> bool {
        match (self.writes.get(&later), self.writes.get(&earlier)) {
            (Some(l), Some(e)) => e.answered.is_some_and(|answered| answered < l.begun),
            _ => false,
        }
    }

    /// A write was acknowledged; `copies`: the hosts in sync at this moment, by the register.
    pub fn write_acknowledged(&mut self, number: WriteNumber, copies: Hosts) {
        let tick = self.tick();
        self.acknowledged += 1;
        if let Some(write) = self.writes.get_mut(&number) {
            write.answered = Some(tick);
            write.copies = copies & !write.lost;
            self.volatile.insert(number);
        }
    }

    /// How many writes were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The order of a request that begins at this moment, for `flushed` and `check_read`.
    pub fn begun(&mut self) -> u64 {
        self.tick()
    }

    /// A flush begun at `begun` was acknowledged: all answered before it is durable.
    pub fn flushed(&mut self, begun: u64) {
        let writes = &mut self.writes;
        self.volatile.retain(|number| match writes.get_mut(number) {
            Some(write) if write.answered.is_some_and(|answered| answered < begun) => {
                write.durable = true;
                false
            }
            _ => true,
        });
    }

    /// A host lost power: what was not flushed is no longer guaranteed by its copy.
    pub fn power_lost(&mut self, host: Hosts) {
        for number in &self.volatile {
            if let Some(write) = self.writes.get_mut(number) {
                write.copies &= !host;
            }
        }
        for write in self.writes.0.iter_mut().filter(|write| write.answered.is_none()) {
            write.lost |= host;
        }
    }

    /// The register chose these servers as in sync: the other copy counts no more, unless it is the only one that has a
    /// write; then that write must not be lost by the choice. It is no fault of the choice if one of them lost power when
    /// it was proposed already (`lost_since`): that is the loss of a copy gone alone.
    pub fn restricted(&mut self, in_sync: Hosts, lost_since: Hosts) {
        for number in &self.volatile {
            if let Some(write) = self.writes.get_mut(number)
                && write.copies & in_sync | in_sync & lost_since != 0
            {
                write.copies &= in_sync;
            }
        }
    }

    /// Both copies are equal and count as in sync: all that is there is on both.
    pub fn in_sync(&mut self) {
        self.revenants.clear();
        self.unread.clear();
        for number in &self.volatile {
            if let Some(write) = self.writes.get_mut(number) {
                write.copies = BOTH;
            }
        }
    }

    /// A read begun at `begun` gave these sectors.
    pub fn check_read(&self, sector: u64, values: &[u64], begun: u64) -> Result<(), Wrong> {
        for (s, value) in (sector..).zip(values) {
            let list = self.candidates(s);
            let settled = |w: &WriteNumber| {
                self.writes.get(w).is_some_and(|w| w.answered.is_some_and(|answered| answered < begun))
            };
            self.check(s, *value, &list, settled)?;
        }
        Ok(())
    }

    fn candidates(&self, sector: u64) -> Vec<WriteNumber> {
        self.sectors.get(&sector).cloned().unwrap_or_else(|| vec![WriteNumber(0)])
    }

    /// As `check_candidates`, or the value is of a write that may come back.
    fn check(
        &self,
        sector: u64,
        value: u64,
        list: &[WriteNumber],
        binding: impl Fn(&WriteNumber) -> bool,
    ) -> Result<WriteNumber, Wrong> {
        let found = self.check_candidates(sector, value, list, &binding);
        found.or_else(|wrong| self.comes_back(sector, value, list, &binding).ok_or(wrong))
    }

    /// The value is a candidate that none of the `binding` ones supersedes.
    fn check_candidates(
        &self,
        sector: u64,
        value: u64,
        list: &[WriteNumber],
        binding: impl Fn(&WriteNumber) -> bool,
    ) -> Result<WriteNumber, Wrong> {
        let wrong = |promised: String| Wrong { sector, found: value, promised };
        // Zeroes may be of any write of zeroes that is not ruled out.
        let zeroes = |w: &&WriteNumber| self.writes.get(w).is_some_and(|w| w.zeroes);
        let lives =
            |w: &&WriteNumber| !list.iter().any(|later| binding(later) && self.supersedes(*later, **w));
        let all = || list.iter().rev().filter(zeroes);
        let zero = || all().find(lives).or_else(|| all().next()).copied();
        let found = if value == 0 { zero() } else { write_of(sector, value) };
        let Some(found) = found.filter(|w| list.contains(w)) else {
            return Err(wrong(format!(
                "one of {list:?}, found a value of none of them ({})",
                value >> PLACE_BITS
            )));
        };
        match list.iter().find(|w| binding(w) && self.supersedes(**w, found)) {
            Some(later) => Err(wrong(format!("{later:?} or later, found {found:?}"))),
            None => Ok(found),
        }
    }

    /// A holder serves for the first time, with this content when its device was opened at `opened`: every guaranteed
    /// write must be there; what is there is the truth from then on, held by `copies`.
    pub fn activated(
        &mut self,
        copies: Hosts,
        opened: u64,
        content: impl Fn(u64) -> u64,
    ) -> Result<(), Wrong> {
        let mut seen: Vec<(u64, WriteNumber)> = Vec::new();
        for (sector, list) in &self.sectors {
            let old: Vec<WriteNumber> =
                list.iter().copied().filter(|w| self.begun_before(*w, opened)).collect();
            let found = self.check(*sector, content(*sector), &old, |w| self.is_guaranteed(*w))?;
            seen.push((*sector, found));
        }
        for (sector, found) in seen {
            self.settle(sector, found, copies, opened);
        }
        Ok(())
    }

    /// As `activated`, while a second copy counts as well that has everything answered. It may hold unanswered writes that this
    /// one lacks: should that copy be the next to serve, they may come back. And it may lack unanswered ones that are here: those
    /// bind nobody until they are read, which they may not be before both have them.
    ///
    /// # Errors
    /// The first sector with a content that no history allows.
    pub fn activated_beside(
        &mut self,
        copies: Hosts,
        opened: u64,
        content: impl Fn(u64) -> u64,
    ) -> Result<(), Wrong> {
        let open = (0..).zip(&self.writes.0).filter(|(_, w)| w.answered.is_none() && w.begun <= opened);
        let open: Vec<WriteNumber> = open.map(|(number, _)| WriteNumber(number)).collect();
        self.activated(copies, opened, content)?;
        for number in open {
            self.revenants.insert(number, opened);
            if let Some(write) = self.writes.get_mut(&number).filter(|write| write.answered.is_some()) {
                write.copies = 0;
                self.unread.insert(number);
            }
        }
        Ok(())
    }

    /// A read gave these sectors, from copies that count: what was open is the truth from here on.
    pub fn read(&mut self, sector: u64, values: &[u64], copies: Hosts) {
        for (sector, value) in (sector..).zip(values) {
            if let Some(number) = write_of(sector, *value).filter(|number| self.unread.remove(number))
                && let Some(write) = self.writes.get_mut(&number)
            {
                write.copies = copies;
            }
        }
    }

    /// Whether a value is of a write that may come back, and nothing binding was begun since it was passed over.
    fn comes_back(
        &self,
        sector: u64,
        value: u64,
        list: &[WriteNumber],
        binding: &impl Fn(&WriteNumber) -> bool,
    ) -> Option<WriteNumber> {
        let begun_since = |w: &WriteNumber, passed: u64| self.writes.get(w).is_some_and(|w| w.begun > passed);
        let of = |number: &WriteNumber| {
            let zeroes = self.writes.get(number).is_some_and(|w| w.zeroes);
            if value == 0 { zeroes } else { write_of(sector, value) == Some(*number) }
        };
        let fits = |(number, passed): &(&WriteNumber, &u64)| {
            of(number) && !list.iter().any(|w| binding(w) && begun_since(w, **passed))
        };
        self.revenants.iter().find(fits).map(|(number, _)| *number)
    }

    fn begun_before(&self, write: WriteNumber, opened: u64) -> bool {
        self.writes.get(&write).is_some_and(|w| w.begun <= opened)
    }

    fn settle(&mut self, sector: u64, found: WriteNumber, copies: Hosts, opened: u64) {
        let Some(mut list) = self.sectors.remove(&sector) else { return };
        // What came after the content shown is gone; what came before may be uncovered by another loss of power.
        if !list.contains(&found) {
            list.retain(|w| !self.supersedes(*w, found));
            list.push(found);
        }
        let place = list.iter().position(|w| *w == found).unwrap_or(0);
        let fresh: Vec<WriteNumber> =
            list.iter().copied().skip(place + 1).filter(|w| !self.begun_before(*w, opened)).collect();
        list.truncate(place + 1);
        let tick = opened;
        for number in list.iter() {
            let Some(write) = self.writes.get_mut(number) else { continue };
            write.answered.get_or_insert(tick);
            if *number == found && !write.durable {
                write.copies |= copies;
                self.volatile.insert(*number);
            }
        }
        list.extend(fresh);
        self.sectors.insert(sector, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(oracle: &mut Oracle, copies: Hosts) -> WriteNumber {
        let number = oracle.write_begun(0, 1, false);
        oracle.write_acknowledged(number, copies);
        number
    }

    fn activate(oracle: &mut Oracle, copies: Hosts, content: impl Fn(u64) -> u64) -> Result<(), Wrong> {
        let opened = oracle.begun();
        oracle.activated(copies, opened, content)
    }

    #[test]
    fn an_acknowledged_write_survives_one_loss_of_power_and_not_two() {
        let mut oracle = Oracle::default();
        let _ = written(&mut oracle, BOTH);
        oracle.power_lost(1);
        assert!(activate(&mut oracle, 2, |_| 0).is_err());
        oracle.power_lost(2);
        assert_eq!(activate(&mut oracle, 2, |_| 0), Ok(()));
    }

    #[test]
    fn a_copy_left_out_counts_no_more_unless_it_is_the_only_one() {
        let mut oracle = Oracle::default();
        let _ = written(&mut oracle, BOTH);
        oracle.restricted(2, 0);
        oracle.power_lost(2);
        assert_eq!(activate(&mut oracle, 2, |_| 0), Ok(()));
        let _ = written(&mut oracle, BOTH);
        oracle.power_lost(2);
        oracle.restricted(2, 0);
        assert!(activate(&mut oracle, 2, |_| 0).is_err());
        oracle.restricted(2, 2);
        assert_eq!(activate(&mut oracle, 2, |_| 0), Ok(()));
    }

    #[test]
    fn a_flushed_write_survives_everything() {
        let mut oracle = Oracle::default();
        let number = written(&mut oracle, 1);
        let begun = oracle.begun();
        oracle.flushed(begun);
        oracle.power_lost(BOTH);
        assert!(activate(&mut oracle, 1, |_| 0).is_err());
        assert_eq!(activate(&mut oracle, 1, |s| token(number, s)), Ok(()));
    }

    #[test]
    fn an_unanswered_write_may_be_there_until_a_holder_shows() {
        let mut oracle = Oracle::default();
        let first = written(&mut oracle, BOTH);
        let unknown = oracle.write_begun(0, 1, false);
        assert_eq!(activate(&mut oracle, 2, |s| token(unknown, s)), Ok(()));
        let begun = oracle.begun();
        assert!(oracle.check_read(0, &[token(first, 0)], begun).is_err());
        assert_eq!(oracle.check_read(0, &[token(unknown, 0)], begun), Ok(()));
    }

    #[test]
    fn an_unanswered_write_that_another_copy_may_lack_binds_when_it_is_read() {
        for read in [false, true] {
            let mut oracle = Oracle::default();
            let _ = written(&mut oracle, BOTH);
            let unknown = oracle.write_begun(0, 1, false);
            let opened = oracle.begun();
            assert_eq!(oracle.activated_beside(1, opened, |s| token(unknown, s)), Ok(()));
            if read {
                oracle.read(0, &[token(unknown, 0)], BOTH);
            }
            oracle.restricted(2, 0);
            assert_eq!(activate(&mut oracle, 2, |s| token(WriteNumber(1), s)).is_err(), read);
        }
    }

    #[test]
    fn a_flush_covers_only_what_was_answered_before_it_began() {
        let mut oracle = Oracle::default();
        let begun = oracle.begun();
        let _ = written(&mut oracle, 1);
        oracle.flushed(begun);
        oracle.power_lost(1);
        assert_eq!(activate(&mut oracle, 1, |_| 0), Ok(()));
    }

    #[test]
    fn zeroes_are_those_of_the_newest_write_of_zeroes_and_nothing_older_comes_back() {
        let mut oracle = Oracle::default();
        let old = written(&mut oracle, BOTH);
        let zeroes = oracle.write_begun(0, 1, true);
        oracle.write_acknowledged(zeroes, BOTH);
        let begun = oracle.begun();
        assert_eq!(oracle.check_read(0, &[0], begun), Ok(()));
        assert!(oracle.check_read(0, &[token(old, 0)], begun).is_err());
        let _ = written(&mut oracle, BOTH);
        let begun = oracle.begun();
        assert!(oracle.check_read(0, &[0], begun).is_err(), "a lost write behind them is seen");
        oracle.flushed(begun);
        assert!(activate(&mut oracle, 1, |_| 0).is_err());
    }

    #[test]
    fn a_value_in_the_wrong_place_is_wrong() {
        let mut oracle = Oracle::default();
        let number = oracle.write_begun(0, 2, false);
        oracle.write_acknowledged(number, BOTH);
        let begun = oracle.begun();
        assert!(oracle.check_read(0, &[token(number, 1), token(number, 1)], begun).is_err());
    }
}
