//! What is believed of an extent, step by step, and how much is held.

use super::*;
use crate::layout::{Format, FreshArea, Superblock};
use crate::sum_page::{sums_read, sums_write, trust_read, trust_write};
use wire::{NodeId, SetId};

const SIZE: u64 = 8 << 30;

fn superblock() -> Superblock {
    let format = Format { cluster: [3; 16], set: SetId(4), side: NodeId(1), size: SIZE };
    FreshArea::new(format).unwrap().superblock_mut().clone()
}

fn sum(of: u64) -> Sum {
    let mut sum = [7; 15];
    sum[..8].copy_from_slice(&of.to_le_bytes());
    sum
}

fn at(us: u64) -> Time {
    Time(us)
}

/// Everything of an extent learnt, flushed, stored and believed; gives the next mark.
fn believed(sums: &mut Sums, extent: u32, mark: u64, now: Time) -> u64 {
    for block in u64::from(extent) * EXTENT_BLOCKS..u64::from(extent + 1) * EXTENT_BLOCKS {
        sums.learn(block, sum(block), mark, now);
    }
    let later = now.plus(LOOK_US);
    assert!(sums.wants(later).flush);
    sums.flush_begins();
    sums.flushed();
    assert!(sums.wants(later.plus(LOOK_US)).store);
    let (_, pages) = sums.take_stores(mark);
    assert_eq!(pages.len(), 1);
    assert!(!sums.is_trusted(extent), "believed before the pages are durable");
    assert!(sums.stored(|asked| asked <= mark) && sums.is_trusted(extent));
    let (trust, _) = sums.take_stores(mark + 1);
    assert_eq!(trust.len(), 1);
    mark + 2
}

#[test]
fn pages_come_back_and_damaged_or_foreign_ones_say_nothing() {
    let sb = superblock();
    let mut known = Known::default();
    for block in [0, 255, 256, 511] {
        known.set(block, sum(block as u64));
    }
    let (offset, mut bytes) = sums_write(&sb, 9, &known);
    assert_eq!(offset, sum_page::table_offset(SIZE) + 9 * 8192);
    let found = sums_read(&bytes, 9, &sb);
    assert!((0..512).all(|block| found.get(block) == known.get(block)));
    assert_eq!(sums_read(&bytes, 8, &sb).bits, [0; WORDS]);
    assert_eq!(sums_read(&bytes, 9, &Superblock { set: SetId(5), ..sb.clone() }).bits, [0; WORDS]);
    bytes[4096 + 77] ^= 1;
    let found = sums_read(&bytes, 9, &sb);
    assert_eq!((found.get(255), found.get(256)), (Some(sum(255)), None));
    let (_, mut page) = trust_write(&sb, 1, &[5, 0, 6]);
    assert_eq!(trust_read(&page, 1, &sb).unwrap()[..3], [5, 0, 6]);
    assert!(trust_read(&page, 0, &sb).is_none());
    page[40] ^= 1;
    assert!(trust_read(&page, 1, &sb).is_none());
}

#[test]
fn a_write_waits_until_the_trust_is_taken_back_on_disk_and_later_ones_do_not() {
    let mut sums = Sums::new(SIZE, true);
    assert_eq!(sums.write_begins(512, 1, 1, at(0)), 0, "nothing is believed");
    let mark = believed(&mut sums, 1, 1, at(0));
    assert_eq!(sums.write_begins(600, 2, mark, at(90_000)), mark);
    assert_eq!(sums.write_begins(700, 1, mark + 1, at(90_001)), mark, "the same store");
    assert!(!sums.is_trusted(1));
    let (trust, _) = sums.take_stores(mark);
    assert_eq!(trust, [(0, vec![0; 16])]);
    sums.stored(|asked| asked <= mark);
    assert_eq!(sums.write_begins(800, 1, mark + 1, at(90_002)), 0);
    assert_eq!((sums.look(600), sums.look(512)), (Look::Unknown, Look::Known(sum(512))));
}

#[test]
fn a_write_while_pages_are_stored_keeps_them_from_being_believed() {
    let mut sums = Sums::new(SIZE, true);
    for block in 0..EXTENT_BLOCKS {
        sums.learn(block, sum(block), 1, at(0));
    }
    sums.flush_begins();
    sums.flushed();
    assert!(sums.wants(at(LOOK_US)).store);
    assert_eq!(sums.take_stores(1).1.len(), 1);
    sums.write_begins(3, 1, 2, at(LOOK_US));
    assert!(!sums.stored(|_| true) && !sums.is_trusted(0));
    // A sum learnt after a flush began needs another one.
    sums.flush_begins();
    sums.learn(3, sum(99), 2, at(LOOK_US));
    sums.flushed();
    let wants = sums.wants(at(3 * LOOK_US));
    assert!(wants.flush && !wants.store);
}

#[test]
fn what_a_quiet_extent_keeps_is_loaded_and_stored_again_without_what_was_written() {
    let sb = superblock();
    let mut sums = Sums::new(SIZE, true);
    let mut stored = Known::default();
    (0..512).for_each(|block| stored.set(block, sum(block as u64)));
    sums.load_trust(0, &[0b1]);
    sums.configure(50_000, Faults::default());
    assert_eq!(sums.write_begins(5, 1, 1, at(0)), 1);
    sums.stored(|_| true);
    assert!(sums.wants(at(LOOK_US)).load.is_empty(), "not quiet yet");
    assert_eq!(sums.wants(at(3 * LOOK_US)).load, [0]);
    assert!(sums.load(0, at(60_000)));
    sums.write_begins(6, 1, 1, at(60_000));
    let pages = sums_write(&sb, 0, &stored).1;
    sums.loaded(0, Some(sums_read(&pages, 0, &sb)), at(60_000));
    assert!(sums.wants(at(120_000)).store);
    let (_, pages) = sums.take_stores(2);
    let known = &pages[0].1;
    assert_eq!((known.get(4), known.get(5), known.get(6)), (Some(sum(4)), None, None));
    assert!(sums.stored(|_| true) && sums.is_trusted(0));
}

#[test]
fn memory_is_bounded_whatever_is_written_and_learnt() {
    let mut sums = Sums::new(4 << 40, true);
    sums.load_trust(0, &[u64::MAX; 16]);
    sums.load_trust(1, &[u64::MAX; 16]);
    for extent in 0..2000 {
        assert_eq!(sums.write_begins(extent * EXTENT_BLOCKS, 1, 1, at(extent)), 1);
        sums.learn((extent + 4000) * EXTENT_BLOCKS, sum(1), 1, at(extent));
    }
    let loaded = sums.held.values().filter(|held| held.known.is_some()).count();
    assert!(sums.held.len() <= HELD_MAX && loaded <= LOADED_MAX, "{} {loaded}", sums.held.len());
    assert!((0..2000).all(|extent| !sums.is_trusted(extent)));
    (0..2 * PROMISED_MAX as u64).for_each(|block| sums.promise(block, sum(1)));
    assert_eq!(sums.promised.len(), PROMISED_MAX);
}
