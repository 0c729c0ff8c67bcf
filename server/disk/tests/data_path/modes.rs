//! What the other ways to acknowledge promise (C4), as stories: numbered blocks, the active side killed, the twin's copy read.

use crate::host::{Host, PATIENCE, Pair, admit};
use crate::scenarios::{bytes, open, promote, read};
use crate::wire::Cable;
use peer::control::DiskOrder;
use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::Generation;
use wire::traffic::WriteMode;

/// Every story of the write modes.
pub const ALL: &[(&str, fn())] = &[
    ("semi_synchronous_what_was_acknowledged_survives_the_active_side", semi_synchronous),
    ("asynchronous_the_twin_of_a_killed_side_is_an_earlier_state", asynchronous),
    ("asynchronous_nobody_waits_while_the_link_is_held_and_the_twin_comes_back", held),
    ("asynchronous_the_loss_of_the_side_with_a_held_link_loses_what_was_behind", held_and_lost),
];

const BLOCK: u64 = 4096;
/// Writes that are answered before the side is killed: hundreds of them under way in turn.
const WRITES: u64 = 400;

fn pair(mode: WriteMode, twin: Option<Ipv4Addr>) -> Pair {
    Pair::new(|options| {
        options.mode = mode;
        if let Some(twin) = twin {
            options.twin = vec![twin.into()];
        }
    })
}

/// Writes block after block, each with its number, none flushed, until it fails; counts the answered ones.
fn writer(device: PathBuf, answered: Arc<AtomicU64>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(device).unwrap();
        let mut room = vec![0; 2 * BLOCK as usize];
        let start = room.as_ptr().align_offset(BLOCK as usize);
        for number in 0..10 * WRITES {
            let block = &mut room[start..start + BLOCK as usize];
            block.copy_from_slice(&bytes(number, BLOCK as usize));
            if file.write_all_at(block, number * BLOCK).is_err() {
                return;
            }
            answered.store(number + 1, Ordering::SeqCst);
        }
    })
}

/// How many of the numbered blocks are there from the first on; none is there behind the first that is not.
fn prefix(host: &mut Host, most: u64) -> u64 {
    let device = host.device();
    let there: Vec<bool> = (0..most)
        .map(|number| read(&device, number * BLOCK, BLOCK as usize) == bytes(number, BLOCK as usize))
        .collect();
    let count = there.iter().take_while(|there| **there).count();
    assert!(!there[count..].contains(&true), "not an earlier state: {count} blocks, then later ones");
    count as u64
}

/// Kills the active side in the middle of many writes and promotes the other; gives what was answered and what is there.
fn killed(mode: WriteMode) -> (u64, u64) {
    let mut pair = pair(mode, None);
    pair.build();
    let answered = Arc::new(AtomicU64::new(0));
    let writer = writer(pair.one.device(), Arc::clone(&answered));
    let began = Instant::now();
    while answered.load(Ordering::SeqCst) < WRITES {
        assert!(began.elapsed() < PATIENCE, "too few writes are answered");
        std::thread::sleep(Duration::from_millis(1));
    }
    pair.one.kill();
    writer.join().unwrap();
    promote(&mut pair.two, 2);
    let answered = answered.load(Ordering::SeqCst);
    (answered, prefix(&mut pair.two, answered + 8))
}

fn semi_synchronous() {
    let (answered, there) = killed(WriteMode::SemiSynchronous);
    assert!(there >= answered, "{answered} were answered, {there} are there");
}

fn asynchronous() {
    let (answered, there) = killed(WriteMode::Asynchronous);
    assert!(there > 0, "{answered} were answered, {there} are there");
}

/// An asynchronous pair with so many flushed blocks, of which the twin has the first half; its cable is cut.
fn behind() -> (Pair, Cable) {
    let (near, far) = (Ipv4Addr::new(127, 0, 0, 22), Ipv4Addr::LOCALHOST);
    let mut pair = pair(WriteMode::Asynchronous, Some(near));
    let cable = Cable::new(near, far, pair.one.options.port);
    pair.build();
    let file = open(&pair.one.device());
    for number in 0..WRITES / 2 {
        file.write_all_at(&bytes(number, BLOCK as usize), number * BLOCK).unwrap();
    }
    pair.one.wait("caught up", |status| status.behind.is_none());
    cable.cut();
    for number in WRITES / 2..WRITES {
        // Each is answered and flushed here while nothing at all gets through.
        file.write_all_at(&bytes(number, BLOCK as usize), number * BLOCK).unwrap();
    }
    let status = pair.one.status();
    let bytes = status.behind.map_or(0, |behind| behind.bytes);
    assert!(status.needs_twin && bytes >= WRITES / 2 * BLOCK, "{status:?}");
    (pair, cable)
}

fn held() {
    let (mut pair, cable) = behind();
    // What the engine does when a link is away for long, or when it is back and the twin lacks something.
    cable.mend();
    pair.one.order(DiskOrder::PutOut { generation: Generation([2; 16]) }).unwrap();
    let status = pair.one.status();
    assert!(status.behind.is_none() && status.dirty_blocks >= WRITES / 2, "{status:?}");
    admit(&mut pair.one, &mut pair.two);
    let file = open(&pair.one.device());
    file.write_all_at(&bytes(WRITES, BLOCK as usize), WRITES * BLOCK).unwrap();
    drop(file);
    // An orderly end waits for the twin.
    pair.one.order(DiskOrder::Deactivate).unwrap();
    assert!(pair.one.data() == pair.two.data(), "the images differ");
}

fn held_and_lost() {
    let (mut pair, _cable) = behind();
    pair.one.kill();
    promote(&mut pair.two, 2);
    assert_eq!(prefix(&mut pair.two, WRITES + 8), WRITES / 2);
}
