//! Every store of a recorded run, torn and lost at every write: what is read is the state before or after, and no block
//! that was written alone is ever called equal.
#![allow(clippy::wildcard_enum_match_arm, reason = "what needs no answer is passed over")]

use super::*;
use crate::action::{Action, ControlWrite};
use crate::config::{Faults, MirrorConfig, MirrorTiming};
use crate::input::{Input, LocalResult, Range, RequestId};
use crate::layout::{EXTENT_BLOCKS, EXTENT_BYTES, PAGE_BLOCKS};
use crate::mirror::Mirror;
use peer::control::{DiskOrder, Ticket, ToDisk};
use wire::ids::SECOND;
use wire::{Generation, NodeId, SetId, Time};

/// More extents than the activity log holds, in twelve pages.
const SIZE: u64 = 3000 << 20;
const EXTENTS: u64 = SIZE / EXTENT_BYTES;

/// One side that serves alone, on a disk that is its control area.
struct Alone {
    mirror: Mirror,
    now: u64,
    disk: Vec<u8>,
    /// Blocks whose writes have begun: the twin lacks them.
    written: Vec<u64>,
    requests: u64,
    stores: u64,
    /// Crashes looked at, and blocks that a crash would have called equal.
    crashes: u64,
    lost: u64,
}

fn config(faults: Faults) -> MirrorConfig {
    MirrorConfig {
        cluster: [3; 16],
        set: SetId(1),
        side: NodeId(1),
        incarnation: Incarnation([1; 16]),
        timing: MirrorTiming::default(),
        hot_max: peer::block::HOT_MAX,
        faults,
    }
}

impl Alone {
    fn new(faults: Faults) -> Alone {
        let disk = format(Format { cluster: [3; 16], set: SetId(1), side: NodeId(1), size: SIZE }).unwrap();
        let mirror = Mirror::new(config(faults), ControlArea::read(&disk).unwrap(), Time(0));
        let (written, requests, stores) = (Vec::new(), 0, 0);
        let mut it = Alone { mirror, now: 0, disk, written, requests, stores, crashes: 0, lost: 0 };
        let generation = Generation([1; 16]);
        it.order(DiskOrder::Activate { epoch: Epoch(1), alone: true, generation });
        it.order(DiskOrder::Lease { until: None, fence_after_us: 0 });
        it
    }

    fn order(&mut self, order: DiskOrder) {
        self.input(Input::Order(ToDisk { ticket: Ticket(1), order }));
    }

    /// Applies an input and everything that follows at once.
    fn input(&mut self, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.now += 1;
            self.mirror.handle(input, Time(self.now));
            for action in self.mirror.take_actions() {
                let op = match action {
                    Action::WriteLocal { op, range, .. } => {
                        self.written.push(range.offset / BLOCK_BYTES);
                        op
                    }
                    Action::StoreControl { op, writes } => {
                        self.crash_during(&writes);
                        self.disk = landed(&self.disk, &writes, |_, _| true);
                        op
                    }
                    Action::FlushLocal { op }
                    | Action::OpenFrontEnd { op }
                    | Action::CloseFrontEnd { op, .. } => op,
                    _ => continue,
                };
                inputs.push_back(Input::LocalDone { op, result: Ok(LocalResult::Done) });
            }
        }
    }

    fn write(&mut self, block: u64) {
        self.requests += 1;
        let range = Range { offset: block * BLOCK_BYTES, length: BLOCK_BYTES as u32 };
        self.input(Input::Write { request: RequestId(self.requests), range });
    }

    /// Power is lost during a store: each write of it alone lost, alone landed, or torn at each sector while the others
    /// are there or not.
    fn crash_during(&mut self, writes: &[ControlWrite]) {
        self.stores += 1;
        // Most stores make one extent hot and are all alike.
        if writes.len() == 1 && writes[0].offset < MAP_OFFSET && !self.stores.is_multiple_of(64) {
            return;
        }
        let after = landed(&self.disk, writes, |_, _| true);
        let states = [&self.disk, &after].map(|disk| ControlArea::read(disk).unwrap());
        let units = writes.iter().enumerate();
        let units = units.flat_map(|(i, write)| (0..write.bytes.len() / UNIT).map(move |unit| (i, unit)));
        let units: Vec<(usize, usize)> = units.collect();
        // A store of many neighbouring pages has many units of one kind: the first and last of them are enough.
        let some = |at: usize| at < 2 || at + 2 > units.len();
        let torn: Vec<_> =
            units.iter().enumerate().filter(|(at, _)| some(*at)).map(|(_, unit)| *unit).collect();
        let map = MAP_OFFSET as usize / UNIT;
        let page = |(i, unit): &(usize, usize)| (writes[*i].offset as usize / UNIT + unit).checked_sub(map);
        let pages: Vec<u32> = torn.iter().filter_map(page).map(|page| page as u32).collect();
        for torn in torn {
            for others in [false, true] {
                for cut in (0..=UNIT).step_by(512) {
                    let there =
                        |unit: (usize, usize), byte: usize| if unit == torn { byte < cut } else { others };
                    self.crash(&states, &pages, &landed(&self.disk, writes, there));
                }
            }
        }
    }

    fn crash(&mut self, states: &[ControlArea; 2], pages: &[u32], disk: &[u8]) {
        self.crashes += 1;
        let found = ControlArea::read(disk).expect("a whole superblock, whatever was lost");
        assert!(states.iter().any(|state| state.superblock == found.superblock));
        let same_log =
            |state: &ControlArea| state.log_sequence == found.log_sequence && state.hot == found.hot;
        assert!(states.iter().any(same_log));
        for page in pages {
            let bits = found.map.page(*page);
            let blocks = PAGE_BLOCKS.min(SIZE / BLOCK_BYTES - u64::from(*page) * PAGE_BLOCKS);
            let full = || bits.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>() == blocks;
            let whole = states.iter().any(|state| state.map.page(*page) == bits);
            assert!(whole || full(), "page {page} is neither of the two nor all set");
        }
        let mirror = Mirror::new(config(Faults::default()), found, Time(0));
        self.lost += self.written.iter().filter(|block| !mirror.suspects_block(**block)).count() as u64;
    }
}

/// The disk after those bytes of the writes that are `there` have landed.
fn landed(disk: &[u8], writes: &[ControlWrite], there: impl Fn((usize, usize), usize) -> bool) -> Vec<u8> {
    let mut disk = disk.to_vec();
    for (i, write) in writes.iter().enumerate() {
        for (at, sector) in write.bytes.chunks(512).enumerate() {
            let (unit, byte) = (at * 512 / UNIT, at * 512 % UNIT);
            if there((i, unit), byte) {
                let to = write.offset as usize + at * 512;
                disk[to..to + 512].copy_from_slice(sector);
            }
        }
    }
    disk
}

/// Writes all over more extents than can be hot, so that extents cool and pages are stored, then an end in order.
fn run(faults: Faults) -> Alone {
    let mut it = Alone::new(faults);
    for round in 0..2 {
        for i in 0..EXTENTS {
            it.write((i * 7919 + round) % EXTENTS * EXTENT_BLOCKS + (i + round * 31) % EXTENT_BLOCKS);
        }
        it.now += 6 * SECOND;
        it.input(Input::DeadlineReached);
    }
    it.order(DiskOrder::Deactivate);
    it
}

#[test]
fn no_torn_or_lost_store_makes_a_written_block_look_equal() {
    let it = run(Faults::default());
    assert_eq!(it.lost, 0);
    assert!(
        it.crashes > 1_000 && it.written.len() as u64 == 2 * EXTENTS,
        "{} {}",
        it.crashes,
        it.written.len()
    );
}

/// The same check is red when extents cool before their bits are stored.
#[test]
fn the_check_finds_extents_that_cool_too_soon() {
    assert!(run(Faults { cool_before_bits: true, ..Faults::default() }).lost > 0);
}
