//! The control area survives the way to the disk and back; torn and foreign blocks are told from whole ones.

use super::*;
use std::collections::BTreeSet;

const SIZE: u64 = 2 << 30;

fn area() -> Vec<u8> {
    format(Format { cluster: [9; 16], set: SetId(3), side: NodeId(2), size: SIZE }).unwrap()
}

fn superblock(counter: u64) -> Superblock {
    Superblock {
        counter,
        cluster: [9; 16],
        set: SetId(3),
        side: NodeId(2),
        size: SIZE,
        epoch: Epoch(7),
        holder: Some(NodeId(1)),
        session: Session(12),
        twin_session: Session(11),
        incarnation: Incarnation([4; 16]),
        history: (0..HISTORY_MAX as u8).map(|i| Generation([i; 16])).collect(),
        base: Some(Generation([1; 16])),
        consistent: false,
        alone: true,
        active: true,
        compare_all: true,
        made_equal: true,
        rebuild_paused: true,
        rebuild_limit: 77,
        store: 5 << 20,
        record: 6,
        preserved: Some(Preserved {
            history: (0..HISTORY_MAX as u8).map(|i| Generation([0x80 | i; 16])).collect(),
            alone: true,
            split: false,
            returning: true,
        }),
        undone: true,
        sums: true,
        mode: WriteMode::SemiSynchronous,
        read_all: true,
    }
}

fn write(area: &mut [u8], (offset, block): (u64, Vec<u8>)) {
    area[offset as usize..offset as usize + block.len()].copy_from_slice(&block);
}

#[test]
fn a_fresh_area_knows_nothing() {
    let read = ControlArea::read(&area()).unwrap();
    assert_eq!((read.superblock.counter, read.superblock.history.len(), read.hot.len()), (2, 0, 0));
    assert_eq!((read.map.count(), read.torn_pages), (0, 0));
    assert!(read.superblock.consistent && !read.superblock.active && read.superblock.base.is_none());
}

#[test]
fn every_field_of_a_superblock_comes_back() {
    let mut bytes = area();
    write(&mut bytes, superblock_write(&superblock(3)));
    assert_eq!(ControlArea::read(&bytes).unwrap().superblock, superblock(3));
    let other = Superblock {
        holder: None,
        base: None,
        history: Vec::new(),
        consistent: true,
        undone: false,
        ..superblock(4)
    };
    write(&mut bytes, superblock_write(&other));
    assert_eq!(ControlArea::read(&bytes).unwrap().superblock, other);
    let kept = Preserved { history: vec![Generation([1; 16])], alone: false, split: true, returning: false };
    for preserved in [None, Some(kept)] {
        let other = Superblock { preserved, ..superblock(5) };
        write(&mut bytes, superblock_write(&other));
        assert_eq!(superblock_read(&superblock_write(&other).1).unwrap(), other);
    }
}

/// Torn at every sector: the one before it is found, for it lies elsewhere.
#[test]
fn a_torn_superblock_leaves_its_predecessor() {
    let mut bytes = area();
    write(&mut bytes, superblock_write(&superblock(3)));
    let (offset, block) = superblock_write(&Superblock { session: Session(99), ..superblock(4) });
    for cut in (512..UNIT).step_by(512) {
        let mut torn = bytes.clone();
        torn[offset as usize..offset as usize + cut].copy_from_slice(&block[..cut]);
        let found = ControlArea::read(&torn).unwrap().superblock;
        // What differs between the two lies in the first sector.
        assert!(found == superblock(3) || found.session == Session(99), "{found:?}");
        torn[offset as usize + 60] ^= 1;
        assert_eq!(ControlArea::read(&torn).unwrap().superblock, superblock(3));
    }
}

#[test]
fn every_flipped_bit_of_a_superblock_is_seen() {
    let (_, block) = superblock_write(&superblock(3));
    for bit in 0..block.len() * 8 {
        let mut bad = block.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // Bytes 12 to 16 are covered too: only the checksum's own bytes decide by themselves.
        assert_eq!(superblock_read(&bad), None, "bit {bit}");
    }
}

/// A program that knows only this version must not go on from the older superblock beside a newer one.
#[test]
fn a_newer_version_is_refused_whatever_lies_beside_it() {
    let mut bytes = area();
    let (offset, mut block) = superblock_write(&superblock(3));
    block[7] = VERSION + 1;
    write(&mut bytes, (offset, block.clone()));
    // Not whole: damage, so the other one counts.
    assert_eq!(ControlArea::read(&bytes).unwrap().superblock.counter, 2);
    seal(&mut block, 8);
    write(&mut bytes, (offset, block));
    let fault = ControlArea::read(&bytes).unwrap_err();
    assert_eq!(fault, LayoutFault::Newer { found: VERSION + 1 });
    assert!(fault.to_string().contains("upgrade futago"));
}

/// Zeros are what a lost or discarded sector gives.
#[test]
fn a_page_of_zeros_is_damage_and_not_clean() {
    let mut bytes = area();
    let at = MAP_OFFSET as usize + 2 * UNIT;
    bytes[at..at + UNIT].fill(0);
    let read = ControlArea::read(&bytes).unwrap();
    assert_eq!((read.map.count(), read.torn_pages), (PAGE_BLOCKS, 1));
}

#[test]
fn pieces_of_any_length_give_the_same_area() {
    let mut bytes = area();
    let mut map = DirtyMap::new(SIZE);
    map.set(70_000, 9_000);
    for (page, bits) in map.take_pages(10) {
        write(&mut bytes, page_write(&superblock(3), page, &bits));
    }
    for piece in [UNIT, 3 * UNIT, 64 * UNIT] {
        let mut reader = AreaReader::new();
        for bytes in bytes.chunks(piece) {
            assert!(reader.taken() < reader.needed());
            reader.feed(bytes).unwrap();
        }
        let read = reader.finish().unwrap();
        assert_eq!((read.map.count(), read.log_sequence, read.torn_pages), (9_000, 1, 0));
        let mut whole = vec![1; bytes.len()];
        let fresh = FreshArea::new(Format { cluster: [9; 16], set: SetId(3), side: NodeId(2), size: SIZE });
        let fresh = fresh.unwrap();
        for (i, bytes) in whole.chunks_mut(piece).enumerate() {
            fresh.fill((i * piece) as u64, bytes);
        }
        assert_eq!(whole, area());
    }
}

#[test]
fn the_newest_whole_log_block_counts() {
    let mut bytes = area();
    let hot = |from: u32| (from..from + 100).collect::<BTreeSet<u32>>();
    for sequence in 2..200u32 {
        let snapshot = log_write(&superblock(3), u64::from(sequence), hot(sequence).into_iter());
        write(&mut bytes, snapshot);
        let read = ControlArea::read(&bytes).unwrap();
        assert_eq!((read.log_sequence, &read.hot), (u64::from(sequence), &hot(sequence)));
    }
    let (offset, block) = log_write(&superblock(3), 200, 500..1000);
    bytes[offset as usize..offset as usize + 512].copy_from_slice(&block[..512]);
    assert_eq!(ControlArea::read(&bytes).unwrap().hot, hot(199));
}

#[test]
fn a_full_log_fits_and_foreign_extents_do_not() {
    let mut bytes = area();
    write(&mut bytes, log_write(&superblock(3), 9, 16..2000));
    let read = ControlArea::read(&bytes).unwrap();
    assert_eq!(read.hot, (16..1024).collect());
    assert_eq!(read.hot.len(), HOT_MAX);
}

#[test]
fn a_torn_page_of_the_map_counts_as_all_different() {
    let mut bytes = area();
    let mut map = DirtyMap::new(SIZE);
    map.set(5, 3);
    map.set(PAGE_BLOCKS + 7, 100);
    for (page, bits) in map.take_pages(10) {
        write(&mut bytes, page_write(&superblock(3), page, &bits));
    }
    let read = ControlArea::read(&bytes).unwrap();
    assert_eq!((read.map.count(), read.torn_pages), (103, 0));
    assert!(read.map.is_set(7) && !read.map.is_set(8) && read.map.is_set(PAGE_BLOCKS + 106));

    map.set(100, 1);
    let (offset, block) = page_write(&superblock(3), 0, &map.page(0));
    let half = 2048;
    let mut torn = bytes.clone();
    torn[offset as usize..offset as usize + half].copy_from_slice(&block[..half]);
    torn[offset as usize + 3000] ^= 0x10;
    let read = ControlArea::read(&torn).unwrap();
    assert_eq!((read.map.count(), read.torn_pages), (PAGE_BLOCKS + 100, 1));
    assert!(read.map.has_unsaved(), "the damaged page is stored again");
}

#[test]
fn foreign_and_short_areas_are_refused() {
    assert_eq!(ControlArea::read(&[0; 8192]).unwrap_err(), LayoutFault::Foreign);
    assert_eq!(ControlArea::read(&[]).unwrap_err(), LayoutFault::Foreign);
    let bytes = area();
    let fault = ControlArea::read(&bytes[..73 * UNIT]).unwrap_err();
    assert_eq!(fault, LayoutFault::Short { needed: head_bytes(SIZE), found: 73 * UNIT as u64 });
    let bad = |size| format(Format { cluster: [0; 16], set: SetId(1), side: NodeId(1), size });
    assert_eq!(bad(0), Err(LayoutFault::Size));
    assert_eq!(bad((1 << 20) + 512), Err(LayoutFault::Size));
}

#[test]
fn sizes_fit_their_backing() {
    for backing in [0, 1 << 20, (2 << 20) - 1, 2 << 20, 3 << 20, 1 << 30, (1 << 40) + 12_345] {
        let size = data_bytes(backing);
        if size > 0 {
            assert!(control_bytes(size) + size <= backing);
            assert!(control_bytes(size + (1 << 20)) + size + (1 << 20) > backing);
        } else {
            assert!(backing < 2 << 20);
        }
    }
    assert_eq!((control_bytes(1 << 30), control_bytes_1(1 << 30)), (5 << 20, 1 << 20));
    assert_eq!(head_bytes(1 << 30), MAP_OFFSET + 10 * UNIT as u64);
}

/// Bytes that a program of version 1 wrote for 8 MiB: number and content of each unit that is not zero.
const VERSION_1: &[u8] = include_bytes!("../tests/data/area_version_1");

/// Its data begins where it did, nothing is known of its blocks, and a new superblock leaves it so.
#[test]
fn an_area_of_version_1_is_read_and_stays_where_it_is() {
    let mut bytes = vec![0; 1 << 20];
    for unit in VERSION_1.chunks_exact(UNIT + 4) {
        let at = u32_at(unit, 0).unwrap() as usize * UNIT;
        bytes[at..at + UNIT].copy_from_slice(&unit[4..]);
    }
    let wanted = Superblock {
        size: 8 << 20,
        store: 0,
        record: 0,
        preserved: None,
        undone: false,
        sums: false,
        mode: WriteMode::Synchronous,
        read_all: false,
        ..superblock(7)
    };
    let read = ControlArea::read(&bytes).unwrap();
    assert_eq!(read.superblock, wanted);
    assert_eq!((read.hot.into_iter().collect::<Vec<_>>(), read.log_sequence), (vec![1, 3], 5));
    assert_eq!((read.map.count(), read.torn_pages), (2, 0));
    assert!(read.map.is_set(0) && read.map.is_set(2));
    assert_eq!(wanted.data_at(), 1 << 20);
    assert!((0..4).all(|extent| !read.sums.is_trusted(extent)));
    write(&mut bytes, superblock_write(&Superblock { counter: 8, ..wanted }));
    let again = ControlArea::read(&bytes).unwrap();
    assert_eq!((again.superblock.data_at(), again.superblock.sums), (1 << 20, false));
}

/// A release that is cut off leaves either the copy or a released one; what was released still tells whose it was.
#[test]
fn a_released_area_is_nobodys_copy_and_tells_whose_it_was() {
    let fresh = format(Format { cluster: [7; 16], set: SetId(3), side: NodeId(2), size: 4 << 20 });
    let mut bytes = fresh.unwrap();
    assert!(released(&bytes).is_none());
    let marked = release(&bytes).unwrap();
    for cut in [0, 1] {
        let mut half = bytes.clone();
        half[cut * UNIT..][..UNIT].copy_from_slice(&marked[cut * UNIT..][..UNIT]);
        assert!(super::superblock(&half).is_ok() != released(&half).is_some(), "one of the two");
    }
    bytes[..2 * UNIT].copy_from_slice(&marked);
    assert_eq!(super::superblock(&bytes).unwrap_err(), LayoutFault::Foreign);
    let was = released(&bytes).unwrap();
    assert_eq!((was.set, was.side, was.size), (SetId(3), NodeId(2), 4 << 20));
    assert!(release(&bytes).is_none(), "released once");
    bytes[100] ^= 1;
    bytes[UNIT + 100] ^= 1;
    assert!(released(&bytes).is_none(), "damaged");
}
