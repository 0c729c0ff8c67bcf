//! Many runs: seeds in order, on one or two threads, each caught if a core panics.

use crate::trace::Detail;
use crate::world::{Failure, Options, World};
use std::panic::AssertUnwindSafe;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its seed.
    pub seed: u64,
    /// Events handled.
    pub events: u64,
    /// Simulated microseconds.
    pub simulated: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// What was wrong, if anything.
    pub failure: Option<Failure>,
}

/// Runs a seed to its end.
#[must_use]
pub fn run(seed: u64, options: Options) -> Ended {
    let mut world = World::new(seed, options);
    let caught = std::panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = caught {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_string()))
            .unwrap_or_else(|| "a panic".into());
        world.failure = Some(Failure::Crash(text));
    }
    Ended {
        seed,
        events: world.events,
        simulated: world.queue.now(),
        acknowledged: world.oracles.values().map(|o| o.borrow().acknowledged()).sum(),
        failure: world.failure,
    }
}

/// Runs seeds from `from` on, on so many threads, and tells of each as it ends; stops early when `seen` says so.
pub fn run_many(from: u64, seeds: u64, jobs: u64, options: &Options, mut seen: impl FnMut(Ended) -> bool) {
    let options = Options { detail: Detail::Off, print: false, ..options.clone() };
    let (sender, receiver) = std::sync::mpsc::sync_channel(64);
    let next = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next, options) = (sender.clone(), &next, &options);
            scope.spawn(move || {
                loop {
                    let place = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if place >= seeds || sender.send(run(from + place, options.clone())).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        while let Ok(ended) = receiver.recv() {
            if !seen(ended) {
                break;
            }
        }
        drop(receiver);
    });
}
