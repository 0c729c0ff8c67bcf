//! Preserve on real disks: what a rebuild overwrites comes back, bit for bit, on the operator's word.

use crate::host::{Host, Pair, SIZE, admit};
use crate::scenarios::{bytes, open, read};
use peer::control::{DiskOrder, OrderFault, Role, UndoAct};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use wire::{Epoch, Generation, NodeId};

/// Every story.
pub const ALL: &[(&str, fn())] = &[
    ("a_target_whose_source_dies_goes_back_to_what_it_was_and_is_built_again", source_dies),
    ("the_loser_of_a_split_brain_is_kept_through_later_writes_and_comes_back", split_brain),
    ("a_split_brain_is_not_overwritten_where_the_store_is_too_small_unless_waived", too_small),
];

fn back(host: &mut Host) {
    host.wait("apart", |status| !status.linked);
    host.order(DiskOrder::Undo { act: UndoAct::Back }).unwrap();
}

/// Server 1 goes on alone and changes much of what server 2 has.
fn go_on(pair: &mut Pair, file: &File) {
    pair.two.kill();
    pair.one.wait("waiting for the twin", |status| !status.linked);
    pair.one.order(DiskOrder::PutOut { generation: Generation([2; 16]) }).unwrap();
    file.write_all_at(&bytes(2, 24 << 20), 4 << 20).unwrap();
    file.write_all_at(&vec![0; 2 << 20], 36 << 20).unwrap();
    for place in 0..500 {
        file.write_all_at(&bytes(3, 4096), (40 << 20) + place * 9 * 4096).unwrap();
    }
    file.sync_all().unwrap();
}

fn source_dies() {
    let mut pair = Pair::with_store(Some(64 << 20), |_| {});
    pair.build();
    let device = pair.one.device();
    let file = open(&device);
    file.write_all_at(&bytes(1, 48 << 20), 0).unwrap();
    file.sync_all().unwrap();
    go_on(&mut pair, &file);
    let before = pair.two.data();

    pair.two.start();
    pair.one.order(DiskOrder::Rebuild { paused: false, limit: Some(8 << 20) }).unwrap();
    pair.one.order(DiskOrder::AllowRebuild { allowed: true }).unwrap();
    pair.two.wait("a target that keeps", |status| status.undo.is_some_and(|undo| undo.blocks > 500));
    // The application goes on meanwhile: within a block, over what the rebuild has not reached, and where it has been.
    for (seed, place) in [(4, (62 << 20) + 512), (5, (30 << 20) + 1024), (6, 4 << 20)] {
        file.write_all_at(&bytes(seed, 20 << 10), place).unwrap();
    }
    let status = pair.two.wait("further", |status| status.undo.is_some_and(|undo| undo.blocks > 2_000));
    assert!(!status.consistent && status.undo.is_some_and(|undo| !undo.split), "{status:?}");
    assert_eq!(pair.two.order(DiskOrder::Undo { act: UndoAct::Back }), Err(OrderFault::InUse));
    assert!(pair.two.data() != before, "nothing was overwritten yet");
    drop(file);
    pair.one.kill();

    // Its own process is killed too, before and while the blocks go back.
    pair.two.kill();
    pair.two.start();
    // Header by header: what is told grows until all are read.
    pair.two.wait("found again", |status| status.undo.is_some_and(|undo| undo.blocks >= 2_000));
    assert_eq!(
        pair.two.order(DiskOrder::Activate { epoch: Epoch(2), alone: true, generation: Generation([9; 16]) }),
        Err(OrderFault::Inconsistent)
    );
    back(&mut pair.two);
    pair.two.kill();
    pair.two.start();
    let status = pair.two.wait("back", |status| status.undone && status.undo.is_none());
    assert!(status.consistent && status.role == Role::Standby, "{status:?}");
    assert!(pair.two.data() == before, "the copy is not what it was");
    assert_eq!(pair.two.order(DiskOrder::Undo { act: UndoAct::Back }), Err(OrderFault::NothingKept));

    // The source comes back: its map does not know what the target has lost, all is compared.
    pair.one.start();
    pair.one.activate(Epoch(1), Generation([3; 16]));
    pair.one.order(DiskOrder::Rebuild { paused: false, limit: None }).unwrap();
    admit(&mut pair.one, &mut pair.two);
    let result = pair.one.status().last_rebuild.expect("no rebuild was told");
    assert!(result.compared_bytes > SIZE / 2, "{result:?}");
    let status = pair.two.status();
    assert!(!status.undone && status.undo.is_none(), "{status:?}");
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(pair.one.data() == pair.two.data(), "the images differ");
}

/// Both served without each other; an operator declares server 1's copy good.
fn both_went_on(pair: &mut Pair) -> Vec<u8> {
    pair.build();
    let file = open(&pair.one.device());
    file.write_all_at(&bytes(1, 40 << 20), 0).unwrap();
    file.sync_all().unwrap();
    go_on(pair, &file);
    drop(file);
    pair.one.order(DiskOrder::Deactivate).unwrap();
    pair.one.kill();

    pair.two.start();
    pair.two.activate(Epoch(2), Generation([7; 16]));
    let file = open(&pair.two.device());
    file.write_all_at(&bytes(8, 3 << 20), 10 << 20).unwrap();
    file.sync_all().unwrap();
    drop(file);
    pair.two.order(DiskOrder::Deactivate).unwrap();
    let loser = pair.two.data();

    pair.one.start();
    for host in [&mut pair.one, &mut pair.two] {
        host.order(DiskOrder::LearnEpoch { epoch: Epoch(3), holder: NodeId(1) }).unwrap();
    }
    pair.one.order(DiskOrder::Overrule { replace: true }).unwrap();
    pair.one.activate(Epoch(3), Generation([4; 16]));
    pair.one.order(DiskOrder::AllowRebuild { allowed: true }).unwrap();
    loser
}

/// A process that ends with the story, whatever becomes of it.
struct Shown(std::process::Child);

impl Drop for Shown {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let pid = rustix::process::Pid::from_child(&self.0);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.0.wait();
        }
    }
}

/// The loser's version as a read-only device, while the application overwrites more of it.
fn look(pair: &mut Pair, device: &Path, loser: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("old");
    let child = Command::new(std::env::current_exe().unwrap())
        .arg("show-old")
        .args([&pair.two.options.backing, &mount])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Shown(child);
    let mut shown = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut shown).unwrap();
    let shown = PathBuf::from(shown.trim());
    assert!(read(&shown, 0, SIZE as usize) == loser, "the device shows something else");
    let writer = {
        let file = open(device);
        std::thread::spawn(move || {
            for place in 0..40 {
                file.write_all_at(&bytes(place, 64 << 10), (20 << 20) + place * (1 << 20)).unwrap();
            }
        })
    };
    while !writer.is_finished() {
        assert!(read(&shown, 0, SIZE as usize) == loser, "it changes under the reader");
    }
    writer.join().unwrap();
    assert!(read(&shown, 0, SIZE as usize) == loser, "the device shows something else in the end");
    let writable =
        std::fs::OpenOptions::new().write(true).open(&shown).and_then(|file| file.write_at(&[1; 512], 0));
    assert!(writable.is_err(), "it can be written to");
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.0.wait().unwrap().success());
}

fn split_brain() {
    let mut pair = Pair::with_store(Some(160 << 20), |_| {});
    let loser = both_went_on(&mut pair);
    admit(&mut pair.one, &mut pair.two);
    let status = pair.two.status();
    assert!(status.undo.is_some_and(|undo| undo.split && undo.blocks > 6_000), "{status:?}");
    // What the application writes from here on is kept from the loser's version too.
    let device = pair.one.device();
    let file = open(&device);
    file.write_all_at(&bytes(9, 1 << 20), 50 << 20).unwrap();
    file.write_all_at(&bytes(9, 1 << 20), 10 << 20).unwrap();
    file.sync_all().unwrap();
    assert!(read(&device, 50 << 20, 1 << 20) == bytes(9, 1 << 20));
    drop(file);
    assert!(pair.two.data() != loser);
    look(&mut pair, &device, &loser);

    pair.one.order(DiskOrder::Deactivate).unwrap();
    pair.one.kill();
    back(&mut pair.two);
    pair.two.wait("back", |status| status.undone && status.undo.is_none());
    assert!(pair.two.data() == loser, "the loser's version is not what it was");
    // The operator has chosen again: it may serve.
    pair.two.order(DiskOrder::LearnEpoch { epoch: Epoch(4), holder: NodeId(2) }).unwrap();
    pair.two.activate(Epoch(4), Generation([5; 16]));
    assert!(read(&pair.two.device(), 10 << 20, 3 << 20) == bytes(8, 3 << 20));
}

fn too_small() {
    let mut pair = Pair::with_store(Some(4 << 20), |_| {});
    let loser = both_went_on(&mut pair);
    pair.one.wait("waiting for an operator", |status| status.linked && status.undo_short);
    assert!(pair.two.status().consistent && pair.two.data() == loser, "it was begun");
    pair.one.order(DiskOrder::Undo { act: UndoAct::Waive }).unwrap();
    admit(&mut pair.one, &mut pair.two);
    let status = pair.two.status();
    assert!(status.undo.is_none() && !status.undone, "{status:?}");
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(pair.one.data() == pair.two.data(), "the images differ");

    // After a crash a store that is too small costs the undo, not the rebuild.
    pair.one.activate(Epoch(3), Generation([6; 16]));
    let file = open(&pair.one.device());
    go_on(&mut pair, &file);
    drop(file);
    pair.two.start();
    pair.two.wait("linked", |status| status.linked);
    admit(&mut pair.one, &mut pair.two);
    let status = pair.two.status();
    assert!(status.undo.is_none() && status.undo_lost, "{status:?}");
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(pair.one.data() == pair.two.data(), "the images differ");
}
