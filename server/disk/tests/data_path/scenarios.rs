//! What the data path must do, told as one story each.

use crate::host::{Host, PATIENCE, Pair, SIZE, admit};
use crate::wire::{Cable, MARK};
use os::clock::{BootClock, Clock as _};
use peer::control::{DiskOrder, GuardedAddress, GuardedProcess, OrderFault, Role};
use rustix::process::Signal;
use std::fs::{File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wire::traffic::WriteMode;
use wire::{Epoch, Generation, NodeId};

/// Every story.
pub const ALL: &[(&str, fn())] = &[
    ("alone_it_serves_what_was_written_and_withdraws_only_when_unused", alone),
    ("the_twin_is_built_kept_in_sync_lost_and_brought_back_by_fast_copy", twins),
    ("discarded_and_zeroed_ranges_read_as_zeroes_on_both_copies_whatever_the_disks_can_do", zeroes),
    ("two_interconnects_are_used_together_and_either_may_die_within_the_session", two_lanes),
    ("the_block_link_is_encrypted_and_packed_where_either_side_wants_it", traffic),
    ("what_the_disk_cannot_read_comes_from_the_twin_and_is_written_back", read_error),
    ("what_was_flushed_survives_a_power_loss_of_the_active_side", power_loss),
    ("a_standbys_power_loss_costs_nothing_that_was_flushed_and_a_lying_flush_is_seen", standby_loss),
    ("at_the_end_of_the_lease_addresses_go_and_requests_are_held", lease_end),
    ("a_higher_epoch_fences_the_holder_with_all_that_depends_on_it", fence),
    ("the_block_link_keeps_the_lease_while_the_node_process_is_away", node_away),
    ("closing_the_front_ends_file_waits_for_nobody", closing),
    ("a_terminal_cannot_end_it_and_sigterm_only_a_standby", signals),
];

/// A seeded stream of bytes: two devices written with the same seed are equal.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut out = vec![0; length];
    hasher.finalize_xof().fill(&mut out);
    out
}

/// Opens the device so that every write reaches the disk process before it returns, without needing aligned memory.
pub fn open(device: &Path) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DSYNC).open(device).unwrap()
}

/// Forgets what the kernel has cached of the device, so that reads come from the disk process.
pub fn read(device: &Path, offset: u64, length: usize) -> Vec<u8> {
    let file = File::open(device).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut out = vec![0; length];
    file.read_exact_at(&mut out, offset).unwrap();
    out
}

fn alone() {
    let mut pair = Pair::new(|_| {});
    let one = &mut pair.one;
    one.start();
    one.order(DiskOrder::LearnEpoch { epoch: Epoch(1), holder: NodeId(1) }).unwrap();
    one.activate(Epoch(1), Generation([1; 16]));
    let device = one.device();
    let file = open(&device);
    // Of every size that takes another way: sector, block, small slot, large slot, several requests.
    let mut offset = 0;
    let lengths = [512, 4096, 16 << 10, 20 << 10, 256 << 10, 1 << 20, 5 << 20];
    for (seed, length) in (1..).zip(lengths) {
        file.write_all_at(&bytes(seed, length), offset).unwrap();
        assert_eq!(read(&device, offset, length), bytes(seed, length), "{length} bytes at {offset}");
        offset += length as u64;
    }
    file.sync_all().unwrap();
    // Open, though claimed by nobody.
    assert_eq!(one.order(DiskOrder::Deactivate), Err(OrderFault::InUse));
    drop(file);
    let claimed = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&device).unwrap();
    assert_eq!(one.order(DiskOrder::Deactivate), Err(OrderFault::InUse));
    assert_eq!(one.status().role, Role::Active);
    assert_eq!(read(&device, 512, 4096), bytes(2, 4096));
    assert_eq!(one.order(DiskOrder::Quit), Err(OrderFault::WrongRole));
    drop(claimed);
    one.order(DiskOrder::Deactivate).unwrap();
    let status = one.status();
    assert_eq!((status.role, status.device), (Role::Standby, None));
    assert!(one.data().starts_with(&bytes(1, 512)));
    // The quitting process may close the socket before its answer is read.
    one.order(DiskOrder::Quit).unwrap();
    assert!(one.ended().success());
}

fn twins() {
    let mut pair = Pair::new(|_| {});
    pair.build();
    let device = pair.one.device();
    let file = open(&device);
    for (seed, offset) in [(1, 0), (2, 7 << 20), (3, 30 << 20)] {
        file.write_all_at(&bytes(seed, 300 << 10), offset).unwrap();
    }
    file.sync_all().unwrap();
    // Flushed in sync: it is in the twin's image.
    assert!(pair.two.data()[7 << 20..].starts_with(&bytes(2, 300 << 10)));

    pair.two.kill();
    let writer = std::thread::spawn({
        let file = file.try_clone().unwrap();
        move || file.write_all_at(&bytes(4, 4096), 50 << 20).unwrap()
    });
    pair.one.wait("waiting for the twin", |status| !status.linked);
    pair.one.order(DiskOrder::PutOut { generation: Generation([2; 16]) }).unwrap();
    writer.join().unwrap();
    file.write_all_at(&bytes(5, 1 << 20), 40 << 20).unwrap();
    file.sync_all().unwrap();
    let status = pair.one.status();
    assert!(!status.needs_twin && !status.equal && status.dirty_blocks >= 257, "{status:?}");

    pair.two.start();
    admit(&mut pair.one, &mut pair.two);
    let result = pair.one.status().last_rebuild.expect("no rebuild was told");
    assert!(result.moved_bytes >= (1 << 20) + 4096, "{result:?}");
    assert!(result.moved_bytes < SIZE / 4, "a full copy instead of a fast one: {result:?}");
    file.write_all_at(&bytes(6, 8192), 60 << 20).unwrap();
    drop(file);
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(pair.one.data() == pair.two.data(), "the images differ");
    assert!(pair.one.data()[40 << 20..].starts_with(&bytes(5, 1 << 20)));
}

/// `blkdiscard` of a range of the device, or with `-z` a write of zeroes.
fn discard(device: &Path, zero: bool, offset: u64, length: u64) {
    let mut tool = Command::new("blkdiscard");
    tool.args(zero.then_some("-z")).arg("-o").arg(offset.to_string()).arg("-l").arg(length.to_string());
    assert!(tool.arg(device).status().unwrap().success(), "{offset} {length}");
}

fn zeroes() {
    // Image files with holes on one side, a disk that knows nothing of them on the other; then the other way round.
    // The one with holes is in memory once: that file system has no ZERO_RANGE, so zeroes are written.
    for volatile in [1, 2] {
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut pair = Pair::new(|options| {
            options.volatile = options.side == NodeId(volatile);
            if volatile == 1 && !options.volatile {
                options.backing = memory.path().join("image");
            }
        });
        pair.build();
        let device = pair.one.device();
        let file = open(&device);
        let mut wanted = bytes(1, SIZE as usize);
        file.write_all_at(&wanted, 0).unwrap();
        // Longer than one piece, with a piece that ends in the middle; then what is smaller than a block.
        let ranges = [(false, 1 << 20, 41 << 20), (true, 44 << 20, 9 << 20), (true, (60 << 20) + 512, 1024)];
        for (zero, offset, length) in ranges {
            discard(&device, zero, offset, length);
            wanted[offset as usize..(offset + length) as usize].fill(0);
        }
        // Behind them in order: what is written into them stays.
        file.write_all_at(&bytes(2, 300 << 10), 20 << 20).unwrap();
        wanted[20 << 20..(20 << 20) + (300 << 10)].copy_from_slice(&bytes(2, 300 << 10));
        file.sync_all().unwrap();
        assert!(read(&device, 0, SIZE as usize) == wanted, "the device reads something else");
        for host in [&pair.one, &pair.two] {
            assert!(host.data() == wanted, "the copy of server {} is something else", host.options.side.0);
        }
        // Where the file system can, a discard gives space back.
        let direct = if volatile == 1 { &pair.two } else { &pair.one };
        let used =
            std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&direct.options.backing).unwrap());
        assert!(used * 512 < SIZE - (30 << 20), "{used} sectors are still in use");
        drop(file);
        // Alone: recorded as different, and copied like other writes.
        pair.two.kill();
        pair.one.order(DiskOrder::PutOut { generation: Generation([2; 16]) }).unwrap();
        discard(&device, false, 8 << 20, 4 << 20);
        discard(&device, true, 20 << 20, 1 << 20);
        let dirty = pair.one.status().dirty_blocks;
        assert!(dirty >= (5 << 20) / 4096, "{dirty} blocks");
        pair.two.start();
        admit(&mut pair.one, &mut pair.two);
        pair.one.order(DiskOrder::Deactivate).unwrap();
        assert!(pair.one.data() == pair.two.data(), "the images differ");
        assert!(pair.one.data()[20 << 20..21 << 20].iter().all(|byte| *byte == 0));
    }
}

fn two_lanes() {
    let address = |last: u8| Ipv4Addr::new(127, 0, 0, last);
    let mut pair = Pair::new(|options| {
        options.listen = vec![address(1).into(), address(2).into()];
        options.twin = vec![address(11).into(), address(12).into()];
    });
    let port = pair.one.options.port;
    let cables = [1, 2].map(|last| Cable::new(address(10 + last), address(last), port));
    pair.build();
    let session = pair.one.status().session;
    let device = pair.one.device();
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..4)
        .map(|place| {
            let (file, stop, written) = (open(&device), stop.clone(), written.clone());
            std::thread::spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    file.write_all_at(&bytes(round, 1 << 20), (place * 8 + round % 8) << 20).unwrap();
                    written.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let goes_on = |mebibytes: u64, more: &dyn Fn() -> bool| {
        let (began, before) = (Instant::now(), written.load(Ordering::SeqCst));
        while written.load(Ordering::SeqCst) < before + mebibytes || !more() {
            assert!(began.elapsed() < PATIENCE, "it does not go on");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let used = |cable: &Cable| {
        let before = cable.bytes();
        move |cable: &Cable| cable.bytes() > before + (4 << 20)
    };
    let both = [used(&cables[0]), used(&cables[1])];
    goes_on(16, &|| both[0](&cables[0]) && both[1](&cables[1]));
    for cable in &cables {
        cable.cut();
        let began = Instant::now();
        goes_on(16, &|| began.elapsed() > Duration::from_secs(1));
        let status = pair.one.status();
        assert!(status.linked && status.needs_twin && status.session == session, "{status:?}");
        cable.mend();
        let again = used(cable);
        goes_on(16, &|| again(cable));
    }
    stop.store(true, Ordering::SeqCst);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(pair.one.status().session, session, "the session was the same throughout");
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(pair.one.data() == pair.two.data(), "the images differ");
}

/// Writes 16 MiB of the same text in sync; gives whether it was seen on the wire, and how many bytes went over it.
fn text_in_sync(encrypt: bool, pack: bool) -> (bool, u64) {
    let (near, far) = (Ipv4Addr::new(127, 0, 0, 21), Ipv4Addr::LOCALHOST);
    let mut pair = Pair::new(|options| {
        options.twin = vec![near.into()];
        // One wants the one, the other the other: either is enough.
        options.encrypt = encrypt && options.side == NodeId(1);
        options.pack = pack && options.side == NodeId(2);
        // Semi-synchronous in half of the runs: what is flushed is on both all the same.
        options.mode = if pack { WriteMode::SemiSynchronous } else { WriteMode::Synchronous };
    });
    let cable = Cable::new(near, far, pair.one.options.port);
    pair.build();
    let text = MARK.repeat((4 << 20) / MARK.len());
    let device = pair.one.device();
    let file = open(&device);
    let before = cable.bytes();
    for place in 0..4 {
        file.write_all_at(&text, place * (8 << 20) + 512).unwrap();
    }
    // What cannot be packed, and frames without a payload.
    file.write_all_at(&bytes(9, 1 << 20), 40 << 20).unwrap();
    file.sync_all().unwrap();
    let sent = cable.bytes() - before;
    drop(file);
    // Both ways: the other side sends too.
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(pair.one.data() == pair.two.data(), "the images differ");
    assert!(pair.two.data()[512..].starts_with(&text));
    assert!(pair.two.data()[40 << 20..].starts_with(&bytes(9, 1 << 20)));
    (cable.seen(), sent)
}

fn traffic() {
    let mib = 1 << 20;
    let (seen, sent) = text_in_sync(false, false);
    assert!(seen && sent > 17 * mib, "{seen} {sent}");
    let (seen, sent) = text_in_sync(true, false);
    assert!(!seen && sent > 17 * mib, "{seen} {sent}");
    let (_, sent) = text_in_sync(false, true);
    assert!(sent > mib && sent < 3 * mib, "{sent}");
    let (seen, sent) = text_in_sync(true, true);
    assert!(!seen && sent > mib && sent < 3 * mib, "{seen} {sent}");
}

fn read_error() {
    // Nothing behind the data: the image is cut where it ends.
    let mut pair = Pair::with_store(Some(0), |_| {});
    pair.build();
    let device = pair.one.device();
    let file = open(&device);
    let (last, whole) = (SIZE - 4096, std::fs::metadata(&pair.one.options.backing).unwrap().len());
    file.write_all_at(&bytes(1, 4096), last).unwrap();
    file.sync_all().unwrap();
    // The image ends one block early: a read of that block is short, as an error of the disk is for the mirror.
    let image = OpenOptions::new().write(true).open(&pair.one.options.backing).unwrap();
    image.set_len(whole - 4096).unwrap();
    assert_eq!(read(&device, last, 4096), bytes(1, 4096), "the twin's copy serves");
    let status = pair.one.wait("mended", |status| status.mended_blocks == 1);
    assert!(status.failed.is_none() && status.equal, "{status:?}");
    assert!(pair.one.data()[last as usize..] == bytes(1, 4096), "not written back");
    // Without the twin there is nobody to ask: the application is told, and so is the engine.
    pair.two.kill();
    pair.one.wait("waiting for the twin", |status| !status.linked);
    pair.one.order(DiskOrder::PutOut { generation: Generation([2; 16]) }).unwrap();
    image.set_len(whole - 4096).unwrap();
    let file = File::open(&device).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert!(file.read_exact_at(&mut [0; 4096], last).is_err());
    assert!(pair.one.status().failed.is_some());
}

fn power_loss() {
    let mut pair = Pair::new(|options| options.volatile = true);
    pair.build();
    let device = pair.one.device();
    let file = open(&device);
    let writes: Vec<(u64, u64)> = (0..64).map(|n| (n + 1, n * 777 * 4096 % SIZE)).collect();
    for (seed, offset) in &writes {
        file.write_all_at(&bytes(*seed, 4096), *offset).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    pair.one.kill();
    promote(&mut pair.two, 2);
    check(&mut pair.two, &writes);
    // The killed side returns, is rebuilt, and holds everything too: all lost with the other one's cache.
    pair.one.start();
    pair.one.order(DiskOrder::LearnEpoch { epoch: Epoch(2), holder: NodeId(2) }).unwrap();
    admit(&mut pair.two, &mut pair.one);
    pair.two.kill();
    promote(&mut pair.one, 3);
    check(&mut pair.one, &writes);
}

/// The standby loses power, comes back by fast copy and is promoted; gives how many flushed writes are missing then.
fn lost_by_standby(no_flush: bool) -> usize {
    let mut pair = Pair::new(|options| {
        options.volatile = true;
        options.no_flush = no_flush;
    });
    pair.build();
    let device = pair.one.device();
    let file = open(&device);
    let writes: Vec<(u64, u64)> = (0..64).map(|n| (n + 1, n * 777 * 4096 % SIZE)).collect();
    for (seed, offset) in &writes {
        file.write_all_at(&bytes(*seed, 4096), *offset).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    pair.two.kill();
    pair.one.order(DiskOrder::PutOut { generation: Generation([2; 16]) }).unwrap();
    pair.two.start();
    admit(&mut pair.one, &mut pair.two);
    pair.one.kill();
    promote(&mut pair.two, 2);
    let device = pair.two.device();
    writes.iter().filter(|(seed, offset)| read(&device, *offset, 4096) != bytes(*seed, 4096)).count()
}

fn standby_loss() {
    assert_eq!(lost_by_standby(false), 0);
    // The story must be able to fail: with a flush that does nothing it does.
    assert!(lost_by_standby(true) > 0, "nothing was lost although nothing was flushed");
}

fn lease_end() {
    let mut pair = Pair::new(|_| {});
    let one = &mut pair.one;
    one.start();
    one.order(DiskOrder::LearnEpoch { epoch: Epoch(1), holder: NodeId(1) }).unwrap();
    one.activate(Epoch(1), Generation([1; 16]));
    let device = one.device();
    let address = GuardedAddress {
        address: IpAddr::V4(Ipv4Addr::new(127, 5, 0, std::process::id() as u8)),
        prefix: 32,
        interface: 1,
        lifetime_s: 30,
    };
    let held = |address: IpAddr| {
        let all = os::link::Network::open().and_then(|mut network| network.addresses()).unwrap();
        all.iter().any(|local| local.address == address)
    };
    let addresses = vec![address.clone()];
    one.order(DiskOrder::Guard { addresses, processes: Vec::new(), mounts: Vec::new() }).unwrap();
    let until = BootClock.now().plus(1_500_000);
    // The fence is far away: only the lease ends.
    one.order(DiskOrder::Lease { until: Some(until), fence_after_us: 600_000_000 }).unwrap();
    one.leave();
    let began = Instant::now();
    while !held(address.address) {
        assert!(began.elapsed() < PATIENCE, "never refreshed");
    }
    while held(address.address) {
        assert!(began.elapsed() < PATIENCE, "never dropped");
    }
    assert!(BootClock.now() >= until, "dropped before the end of the lease");
    let (done, written) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        open(&device).write_all_at(&bytes(1, 4096), 0).unwrap();
        done.send(()).unwrap();
    });
    one.connect();
    one.wait("without a lease", |status| status.lease == Some(until));
    assert!(written.recv_timeout(Duration::from_millis(300)).is_err(), "served without a lease");
    one.order(DiskOrder::Lease { until: None, fence_after_us: 500_000 }).unwrap();
    writer.join().unwrap();
    assert!(one.data().starts_with(&bytes(1, 4096)));
}

pub fn promote(host: &mut Host, epoch: u64) {
    let side = host.options.side;
    host.order(DiskOrder::LearnEpoch { epoch: Epoch(epoch), holder: side }).unwrap();
    host.activate(Epoch(epoch), Generation([epoch as u8; 16]));
}

fn check(host: &mut Host, writes: &[(u64, u64)]) {
    let device = host.device();
    for (seed, offset) in writes {
        assert_eq!(read(&device, *offset, 4096), bytes(*seed, 4096), "acknowledged and flushed, but lost");
    }
}

fn fence() {
    let mut pair = Pair::new(|_| {});
    let one = &mut pair.one;
    one.start();
    one.order(DiskOrder::LearnEpoch { epoch: Epoch(1), holder: NodeId(1) }).unwrap();
    one.activate(Epoch(1), Generation([1; 16]));
    let device = one.device();
    let file = open(&device);
    file.write_all_at(&bytes(1, 4096), 0).unwrap();
    let mut application = Command::new("setsid").args(["sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
    let pid = application.id();
    let began = Instant::now();
    while os::proc::stat(pid).is_none_or(|stat| stat.session != pid) {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    let started = os::proc::stat(pid).unwrap().started;
    let processes = vec![GuardedProcess { pid, started }];
    one.order(DiskOrder::Guard { addresses: Vec::new(), processes, mounts: Vec::new() }).unwrap();
    // A higher epoch of the other holder.
    let _ = one.order(DiskOrder::LearnEpoch { epoch: Epoch(2), holder: NodeId(2) });
    assert_eq!(application.wait().unwrap().code(), None, "not killed");
    let refused = file.write_all_at(&bytes(2, 4096), 0);
    assert!(refused.is_err(), "a fenced device still writes");
    drop(file);
    let image = one.data();
    assert!(image.starts_with(&bytes(1, 4096)), "written after the fence");
}

fn node_away() {
    let mut pair = Pair::new(|_| {});
    pair.build();
    pair.two.order(DiskOrder::Grant { allowed: true }).unwrap();
    let until = BootClock.now().plus(1_300_000);
    pair.one.order(DiskOrder::Lease { until: Some(until), fence_after_us: 500_000 }).unwrap();
    let device = pair.one.device();
    let file = open(&device);
    pair.one.leave();
    let began = Instant::now();
    // Twice as long as the lease that node had: the twin's disk process renews it.
    while began.elapsed() < Duration::from_millis(2_600) {
        file.write_all_at(&bytes(1, 4096), 0).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    pair.one.connect();
    let status = pair.one.status();
    assert_eq!(status.role, Role::Active);
    assert!(status.lease > Some(until), "{status:?}");
}

fn signals() {
    let mut pair = Pair::new(|_| {});
    pair.start();
    pair.one.order(DiskOrder::LearnEpoch { epoch: Epoch(1), holder: NodeId(1) }).unwrap();
    pair.one.activate(Epoch(1), Generation([1; 16]));
    for signal in [Signal::INT, Signal::HUP, Signal::TERM] {
        pair.one.signal(signal);
    }
    for signal in [Signal::INT, Signal::HUP] {
        pair.two.signal(signal);
    }
    let device = pair.one.device();
    let file = open(&device);
    file.write_all_at(&bytes(1, 4096), 0).unwrap();
    assert_eq!(pair.two.status().role, Role::Standby);
    pair.two.signal(Signal::TERM);
    assert!(pair.two.ended().success());
    assert_eq!(pair.one.status().role, Role::Active);
}

/// A killed disk process closes the file of its own front end while nobody serves it any more: were the kernel to ask for a
/// flush, the process would wait for itself for ever, with the lock on its backing.
fn closing() {
    let mut pair = Pair::new(|_| {});
    let one = &mut pair.one;
    one.start();
    one.order(DiskOrder::LearnEpoch { epoch: Epoch(1), holder: NodeId(1) }).unwrap();
    one.activate(Epoch(1), Generation([1; 16]));
    let file = File::open(one.options.mount.join("data")).unwrap();
    one.signal(Signal::STOP);
    let (done, closed) = std::sync::mpsc::channel();
    let closing = std::thread::spawn(move || {
        drop(file);
        done.send(()).unwrap();
    });
    let waited = closed.recv_timeout(Duration::from_secs(10));
    one.signal(Signal::CONT);
    closing.join().unwrap();
    assert!(waited.is_ok(), "closing the file waits for the disk process");
}
