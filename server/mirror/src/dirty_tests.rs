//! The map against a plain set of blocks: every form of a page, ranges over pages, the way to the disk and back.

use super::*;
use std::collections::BTreeSet;

/// Three pages and a bit.
const SIZE: u64 = (3 * PAGE_BLOCKS + 500) * BLOCK_BYTES;

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn compare(map: &DirtyMap, model: &BTreeSet<u64>, chance: &mut Chance) {
    assert_eq!(map.count(), model.len() as u64);
    for _ in 0..50 {
        let at = chance.below(map.blocks() + 10);
        assert_eq!(map.is_set(at), model.contains(&at), "{at}");
        assert_eq!(map.next_set(at), model.range(at..).next().copied(), "{at}");
        let page = (at / PAGE_BLOCKS) as u32;
        assert_eq!(
            map.next_page(page),
            model.range(u64::from(page) * PAGE_BLOCKS..).next().map(|b| (b / PAGE_BLOCKS) as u32)
        );
    }
}

#[test]
fn any_order_of_setting_and_clearing_agrees_with_a_plain_set() {
    for seed in 1..40 {
        let mut chance = Chance(seed);
        let (mut map, mut model) = (DirtyMap::new(SIZE), BTreeSet::new());
        for _ in 0..300 {
            let length = match chance.below(6) {
                0 => chance.below(40_000),
                1 => chance.below(3_000),
                2 => chance.below(300),
                _ => 1,
            };
            let first = chance.below(map.blocks());
            let last = (first + length).min(map.blocks());
            if chance.below(3) == 0 {
                map.clear(first, length);
                model.retain(|block| !(first..last).contains(block));
            } else {
                map.set(first, length);
                model.extend(first..last);
            }
            assert_eq!(map.count(), model.len() as u64);
        }
        compare(&map, &model, &mut chance);
        // To the twin, merged with what is known there, and to the disk and back.
        let mut other = DirtyMap::new(SIZE);
        other.set(7, 40_000);
        let mut loaded = DirtyMap::new(SIZE);
        for page in 0..4 {
            other.merge(page, &map.page(page));
            loaded.load(page, &map.page(page));
        }
        compare(&loaded, &model, &mut chance);
        assert!(!loaded.has_stale());
        model.extend(7..40_007);
        compare(&other, &model, &mut chance);
        map.set_all();
        assert_eq!((map.count(), map.next_set(map.blocks() - 1)), (map.blocks(), Some(map.blocks() - 1)));
        assert!(!map.is_set(map.blocks()));
        map.clear_all();
        assert_eq!((map.count(), map.next_set(0)), (0, None));
    }
}

#[test]
fn bits_past_the_end_of_the_last_page_mean_nothing() {
    let mut map = DirtyMap::new(SIZE);
    map.merge(3, &[0xff; 4064]);
    assert_eq!((map.count(), map.page(3).iter().map(|byte| byte.count_ones()).sum()), (500, 500));
    map.merge(4, &[0xff; 4064]);
    assert_eq!(map.count(), 500);
}

#[test]
fn pages_somebody_waits_for_go_first_and_each_is_stored_once() {
    let mut map = DirtyMap::new(40 * PAGE_BLOCKS * BLOCK_BYTES);
    map.set(30 * PAGE_BLOCKS, 1);
    map.must_save();
    map.set(0, 25 * PAGE_BLOCKS);
    assert!(!map.must_saved() && !map.saved((30 * PAGE_BLOCKS / EXTENT_BLOCKS) as u32));
    let taken = map.take_pages(3);
    assert_eq!(taken.iter().map(|(page, _)| *page).collect::<Vec<_>>(), [30, 0, 1]);
    // Set while it is on its way: it must go again.
    map.set(5, 0);
    map.set(30 * PAGE_BLOCKS + 4, 1);
    map.pages_stored();
    assert!(map.must_saved() && !map.saved((30 * PAGE_BLOCKS / EXTENT_BLOCKS) as u32) && map.saved(0));
    let mut rest = 0;
    while map.has_pages_left() {
        rest += map.take_pages(32).len();
        map.pages_stored();
    }
    assert_eq!((rest, map.has_stale()), (24, false));
    map.clear(0, 1);
    assert!(map.has_stale() && !map.has_unsaved());
}

/// What one page of 32,512 blocks takes when one block in a hundred is set, and when all are.
#[test]
fn a_scattered_page_is_small_and_a_full_one_takes_nothing() {
    let mut bits = Bits::Empty;
    let mut chance = Chance(9);
    let mut count = 0;
    while count < 325 {
        let bit = chance.below(PAGE_BLOCKS) as u32;
        count += bits.set(bit, bit + 1, PAGE_BLOCKS as u32);
    }
    assert!(matches!(&bits, Bits::List(list) if list.capacity() <= 380), "{bits:?}");
    bits.set(0, 30_000, PAGE_BLOCKS as u32);
    assert!(matches!(bits, Bits::Bitmap(_)));
    bits.set(0, PAGE_BLOCKS as u32, PAGE_BLOCKS as u32);
    assert!(matches!(bits, Bits::Full));
    bits.clear(5, 6, PAGE_BLOCKS as u32);
    bits.clear(100, PAGE_BLOCKS as u32, PAGE_BLOCKS as u32);
    assert!(matches!(&bits, Bits::List(list) if list.len() == 99));
    bits.clear(0, 100, PAGE_BLOCKS as u32);
    assert!(bits.is_empty());
}
