//! Verification (C10): damage done to one image behind the set's back is found and set right from the side that is right.

use crate::host::{Host, Pair, SIZE};
use crate::scenarios::{bytes, open, read};
use disk::control_bytes;
use peer::control::{DiskOrder, OrderFault, VerifyResult};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub const ALL: &[(&str, fn())] = &[
    ("a_damaged_block_is_set_right_from_the_side_that_is_known_to_be_right", damage),
    ("a_verification_under_load_finds_nothing", under_load),
];

const BLOCK: u64 = 4096;
/// As fast as the disks are.
const UNBOUND: Option<u64> = Some(8 << 30);

fn verify(host: &mut Host) -> VerifyResult {
    let before = host.status().last_verify;
    host.order(DiskOrder::Verify { run: true, paused: false, limit: UNBOUND }).unwrap();
    let status = host
        .wait("verified", |status| status.verify.is_none() && status.last_verify != before && status.equal);
    let result = status.last_verify.unwrap();
    assert!(!result.stopped, "{result:?}");
    assert_eq!(result.checked, SIZE / BLOCK);
    result
}

/// Writes to an image as a failing disk, or a careless hand, does.
fn spoil(host: &Host, block: u64, length: usize) {
    let image = OpenOptions::new().write(true).open(&host.options.backing).unwrap();
    image.write_all_at(&bytes(999 + block, length), control_bytes(SIZE) + block * BLOCK).unwrap();
    image.sync_all().unwrap();
}

fn damage() {
    let mut pair = Pair::new(|_| {});
    pair.build();
    let device = pair.one.device();
    let file = open(&device);
    file.write_all_at(&bytes(1, 8 << 20), 4 << 20).unwrap();
    file.sync_all().unwrap();
    assert_eq!(
        pair.two.order(DiskOrder::Verify { run: true, paused: false, limit: None }),
        Err(OrderFault::WrongRole)
    );
    let clean = verify(&mut pair.one);
    assert_eq!((clean.different, clean.unresolved), (0, 0), "{clean:?}");

    // The twin's, this side's, and the same block of both.
    spoil(&pair.two, 1100, 3 * BLOCK as usize);
    spoil(&pair.one, 2000, BLOCK as usize);
    spoil(&pair.one, 9000, 100);
    let found = verify(&mut pair.one);
    assert_eq!((found.repaired_there, found.repaired_here, found.unresolved), (3, 2, 0), "{found:?}");
    pair.one.wait("written back", |status| status.mended_blocks == 2 && status.equal);
    assert_eq!(read(&device, 4 << 20, 8 << 20), bytes(1, 8 << 20));
    let again = verify(&mut pair.one);
    assert_eq!(again.different, 0, "{again:?}");

    // Written since, so that nothing is known of it: nobody can tell, and nothing is touched.
    file.write_all_at(&bytes(2, BLOCK as usize), 3000 * BLOCK).unwrap();
    file.sync_all().unwrap();
    spoil(&pair.two, 3000, BLOCK as usize);
    let unclear = verify(&mut pair.one);
    assert_eq!((unclear.different, unclear.unresolved, unclear.blocks), (1, 1, vec![3000]));
    assert_eq!(read(&device, 3000 * BLOCK, BLOCK as usize), bytes(2, BLOCK as usize));
    // Written again, it is the same on both.
    file.write_all_at(&bytes(3, BLOCK as usize), 3000 * BLOCK).unwrap();
    file.sync_all().unwrap();
    assert_eq!(verify(&mut pair.one).different, 0);
    drop(file);
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(pair.one.data() == pair.two.data(), "the images differ after all");
}

fn under_load() {
    let mut pair = Pair::new(|_| {});
    pair.build();
    let device = pair.one.device();
    let ends = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4_u64)
        .map(|writer| {
            let (device, ends) = (device.clone(), ends.clone());
            std::thread::spawn(move || {
                let file = open(&device);
                let mut place = writer + 1;
                while !ends.load(Ordering::Relaxed) {
                    place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(writer + 1);
                    let block = (place >> 33) % (SIZE / BLOCK);
                    file.write_all_at(&bytes(place, BLOCK as usize), block * BLOCK).unwrap();
                }
                file.sync_all().unwrap();
            })
        })
        .collect();
    for _ in 0..3 {
        let found = verify(&mut pair.one);
        assert_eq!(found.different, 0, "{found:?}");
    }
    ends.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(verify(&mut pair.one).different, 0);
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(pair.one.data() == pair.two.data());
}
