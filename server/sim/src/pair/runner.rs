//! One run, many runs: seeds in order, on one or more threads, each caught if a core panics.

use super::{Options, World};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Its seed.
    pub seed: u64,
    /// Events handled.
    pub events: u64,
    /// Simulated microseconds.
    pub simulated: u64,
    /// Requests begun.
    pub requests: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Changes of the active side.
    pub switches: u64,
    /// Rebuilds that ended.
    pub rebuilds: u64,
    /// Faults of the plan.
    pub planned: usize,
    /// Turns of the cores since the standby came back, where the run is of that pattern.
    pub turns: u64,
    /// What was wrong, if anything.
    pub failure: Option<String>,
    /// The lines, if they were asked for.
    pub lines: Vec<String>,
}

/// Runs a seed to its end.
#[must_use]
pub fn run(seed: u64, options: Options) -> Ended {
    let mut world = World::new(seed, options);
    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| world.run())) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
        world.failure = Some(format!("panic: {}", text.unwrap_or_default()));
    }
    Ended {
        seed,
        events: world.events,
        simulated: world.simulated(),
        requests: world.requests,
        acknowledged: world.acknowledged(),
        switches: world.switches,
        rebuilds: world.rebuilds,
        planned: world.planned(),
        turns: world.pattern_turns(),
        failure: world.failure.take(),
        lines: world.lines().to_vec(),
    }
}

/// Does so many pieces of work on so many threads and tells of each as it ends; stops early when `seen` says so.
pub fn run_many<T: Send>(
    pieces: u64,
    jobs: u64,
    work: impl Fn(u64) -> T + Sync,
    mut seen: impl FnMut(T) -> bool,
) {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1024);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= pieces || sender.send(work(place)).is_err() {
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
