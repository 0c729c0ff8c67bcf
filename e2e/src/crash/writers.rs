//! The application: several writers on the device with direct I/O, which read, flush and move on to the next device.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::block::{Aligned, BLOCK, fill};
use super::chance::Chance;
use super::oracle::Oracle;

/// `O_DIRECT` of this platform; the crate of constants is not worth a dependency.
const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits() as i32;
/// Blocks of the longest write.
const LENGTH_MAX: u64 = 16;
/// Blocks that all writers of a phase share: overlaps are wanted.
const WINDOW: u64 = 3 * 256;
/// Operations of a writer before it moves to another window: what lies behind grows cold.
const WINDOW_OPERATIONS: u64 = 120;

/// The device that is served, and who works on it.
#[derive(Default)]
pub struct Stage {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    device: Option<Arc<File>>,
    /// Operations under way.
    busy: u64,
    ended: bool,
}

impl Stage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the writers work on this device.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn publish(&self, device: &Path) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(O_DIRECT).open(device);
        let file = file.with_context(|| format!("open {}", device.display()))?;
        self.state().device = Some(Arc::new(file));
        self.changed.notify_all();
        Ok(())
    }

    /// Takes the device away; operations under way go on.
    pub fn withdraw(&self) {
        self.state().device = None;
    }

    /// Whether there is a device.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.state().device.is_some()
    }

    /// Waits until nothing is under way.
    ///
    /// # Errors
    /// Something still is at the limit: requests hang.
    pub fn drained(&self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        let mut state = self.state();
        while state.busy > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} operations hang on a device that is gone", state.busy);
            }
            let waited = self.changed.wait_timeout(state, left.min(Duration::from_millis(50)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Ends the writers.
    pub fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// The device, once there is one; nothing at the end.
    fn enter(&self) -> Option<Arc<File>> {
        let mut state = self.state();
        loop {
            if state.ended {
                return None;
            }
            if let Some(device) = &state.device {
                let device = Arc::clone(device);
                state.busy += 1;
                return Some(device);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// An operation has ended. The descriptor is closed first: whoever waits may want the device unused.
    fn leave(&self, device: Arc<File>) {
        drop(device);
        self.state().busy -= 1;
        self.changed.notify_all();
    }
}

/// Starts so many writers.
pub fn start(
    count: u64,
    set: u64,
    blocks: u64,
    seed: u64,
    oracle: &Arc<Oracle>,
    stage: &Arc<Stage>,
) -> Vec<JoinHandle<()>> {
    (0..count)
        .map(|number| {
            let (oracle, stage) = (Arc::clone(oracle), Arc::clone(stage));
            // One seed for the windows of all, one for what each does in them.
            let writer = Writer {
                set,
                blocks,
                oracle,
                windows: Chance::new(seed),
                chance: Chance::new(seed ^ (number + 1) << 32),
                buffer: Aligned::new(LENGTH_MAX as usize * BLOCK),
                window: 0,
            };
            std::thread::spawn(move || writer.run(&stage))
        })
        .collect()
}

struct Writer {
    set: u64,
    blocks: u64,
    oracle: Arc<Oracle>,
    windows: Chance,
    chance: Chance,
    buffer: Aligned,
    window: u64,
}

impl Writer {
    fn run(mut self, stage: &Stage) {
        for turn in 0.. {
            if turn % WINDOW_OPERATIONS == 0 {
                self.window = self.windows.below(self.blocks - WINDOW);
            }
            let Some(device) = stage.enter() else { return };
            let failed = self.operate(&device).is_err();
            stage.leave(device);
            let pause = if failed { 2_000 } else { self.chance.below(1_500) };
            std::thread::sleep(Duration::from_micros(pause));
        }
    }

    fn operate(&mut self, device: &File) -> std::io::Result<()> {
        let kind = self.chance.below(20);
        if kind == 0 {
            let begun = self.oracle.flush_begins();
            device.sync_data()?;
            self.oracle.flush_ends(&begun);
            return Ok(());
        }
        let count = if self.chance.one_in(4) { 1 + self.chance.below(LENGTH_MAX) } else { 1 };
        let window = if self.chance.one_in(16) { self.blocks } else { WINDOW };
        let base = if window == WINDOW { self.window } else { 0 };
        let first = base + self.chance.below(window - count + 1);
        let bytes = &mut self.buffer.bytes()[..count as usize * BLOCK];
        if kind < 5 {
            let begun = self.oracle.read_begins(first, count);
            device.read_exact_at(bytes, first * BLOCK as u64)?;
            self.oracle.read_ends(&begun, bytes);
        } else {
            let begun = self.oracle.write_begins(first, count);
            for (index, block) in bytes.chunks_exact_mut(BLOCK).enumerate() {
                fill(block, self.set, first + index as u64, begun.number);
            }
            device.write_all_at(bytes, first * BLOCK as u64)?;
            self.oracle.write_ends(&begun);
        }
        Ok(())
    }
}

/// Reads the whole device and judges it.
///
/// # Errors
/// It cannot be read.
pub fn judge_device(device: &Path, blocks: u64, oracle: &Oracle) -> Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(device);
    let file = file.with_context(|| format!("open {}", device.display()))?;
    let mut buffer = Aligned::new(256 * BLOCK);
    let mut first = 0;
    while first < blocks {
        let count = (blocks - first).min(256);
        let bytes = &mut buffer.bytes()[..count as usize * BLOCK];
        let begun = oracle.read_begins(first, count);
        file.read_exact_at(bytes, first * BLOCK as u64).with_context(|| format!("read block {first}"))?;
        oracle.read_ends(&begun, bytes);
        first += count;
    }
    Ok(())
}
