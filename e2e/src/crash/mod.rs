//! Random schedules of power losses, kills, cuts and bad disks on two real disk processes, judged by a block-level oracle.

mod block;
mod chance;
mod drive;
mod faults;
mod oracle;
mod standing;
mod writers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

pub use chance::Chance;
pub use drive::{Disks, Drive};
pub use oracle::{Oracle, Tally};

use crate::paths;
use crate::rig::{Plan, Rig};
use block::BLOCK;
use faults::{Fault, Reach};
use writers::Stage;

/// Bytes of the set: 48 extents of the activity log, of which the writers keep a few hot.
const SIZE: u64 = 48 << 20;
/// The set's number, as the rig formats it.
const SET: u64 = 5;
/// Writers on the device.
const WRITERS: u64 = 5;
/// What follows the last fault must be over within this on a loaded machine.
const HEAL: Duration = Duration::from_secs(90);
/// A schedule works so long undisturbed at its end before it is judged.
const AFTER: Duration = Duration::from_millis(150);
/// Tries to end in order: a weak disk may still fail.
const TRIES: u32 = 5;

/// What kind of schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// Anything at any moment.
    Any,
    /// The standby comes back to a survivor whose map is not empty, and something breaks into the rebuild, again and again. When
    /// a side says that the copies are equal, both are stopped and compared.
    Rejoin,
}

/// What a schedule came to.
#[derive(Debug)]
pub struct Ran {
    /// Its seed.
    pub seed: u64,
    /// What the oracle saw.
    pub tally: Tally,
    /// Rebuilds that ended.
    pub rebuilds: u64,
    /// Looks at both stopped copies when they were called equal.
    pub audits: u64,
    /// Changes of the active side.
    pub switches: u64,
    /// Comparisons of stopped copies.
    pub compared: u64,
    /// Failed disks of the active side that were left out while it went on to serve.
    pub left_out: u64,
    /// Why it did not come to its end; a violation of what the disks promise is in the tally.
    pub broken: Option<String>,
    /// What happened, in order.
    pub story: String,
    /// The logs of both disk processes.
    pub logs: [String; 2],
}

impl Ran {
    /// Nothing lost, nothing stuck.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.tally.lost == 0 && self.broken.is_none()
    }

    /// Keeps what it needs to be understood.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, name: &str) -> Result<std::path::PathBuf> {
        let folder = paths::out()?.join(name).join(self.seed.to_string());
        std::fs::create_dir_all(&folder).context("a folder for the records")?;
        let said = format!("{}\n\n{:?}\n{}\n", self.story, self.broken, self.tally.told.join("\n"));
        std::fs::write(folder.join("story"), said)?;
        for (side, log) in (1..).zip(&self.logs) {
            std::fs::write(folder.join(format!("disk-{side}.log")), log)?;
        }
        Ok(folder)
    }
}

/// Runs one schedule.
#[must_use]
pub fn run(seed: u64, disks: Disks, story: Story) -> Ran {
    let blocks = SIZE / BLOCK as u64;
    let oracle = Arc::new(Oracle::new(SET, blocks as usize, disks.volatile));
    let stage = Arc::new(Stage::default());
    let mut ran = Ran {
        seed,
        tally: Tally::default(),
        rebuilds: 0,
        audits: 0,
        switches: 0,
        compared: 0,
        left_out: 0,
        broken: None,
        story: String::new(),
        logs: Default::default(),
    };
    let extra = json!({ "volatile": disks.volatile, "no_flush": disks.no_flush });
    let plan = Plan { size: SIZE, cables: 2, extra, ..Plan::default() };
    let rig = match Rig::new(&plan) {
        Ok(rig) => rig,
        Err(error) => {
            ran.broken = Some(format!("no rig: {error:#}"));
            return ran;
        }
    };
    let reach = Arc::new(Reach::new(vec![rig.handle(1), rig.handle(2)], Arc::clone(&oracle)));
    let mut chance = Chance::new(seed);
    let made =
        Drive::start(rig, disks, chance.draw(), Arc::clone(&oracle), Arc::clone(&stage), Arc::clone(&reach));
    match made {
        Ok(mut drive) => {
            let harms = match story {
                Story::Any => faults::draw(&mut chance),
                Story::Rejoin => faults::draw_rejoin(&mut chance),
            };
            drive.audit = story == Story::Rejoin;
            let played = play(&mut drive, &mut chance, harms, &oracle, &stage, &reach);
            ran.audits = drive.audits;
            ran.broken = played.err().map(|error| format!("{error:#}"));
            (ran.rebuilds, ran.switches, ran.compared) = (drive.rebuilds, drive.switches, drive.compared);
            ran.left_out = drive.left_out;
            ran.logs = drive.logs();
            stage.withdraw();
        }
        Err(error) => ran.broken = Some(format!("not built: {error:#}")),
    }
    stage.end();
    ran.tally = oracle.tally();
    ran.story = reach.told();
    ran
}

fn play(
    drive: &mut Drive,
    chance: &mut Chance,
    harms: Vec<Fault>,
    oracle: &Arc<Oracle>,
    stage: &Arc<Stage>,
    reach: &Arc<Reach>,
) -> Result<()> {
    let blocks = SIZE / BLOCK as u64;
    let writers = writers::start(WRITERS, SET, blocks, chance.draw(), oracle, stage);
    let hand = faults::start(reach, harms);
    let mut result = Ok(());
    while !hand.is_finished() && result.is_ok() {
        result = drive.step().map(|_| ());
    }
    reach.end();
    let _ = hand.join();
    result?;
    drive.calm = true;
    drive.heal(HEAL)?;
    std::thread::sleep(AFTER);
    let mut tries = 0;
    let mut writers = Some(writers);
    loop {
        tries += 1;
        drive.heal(HEAL)?;
        if let Some(writers) = writers.take() {
            stage.end();
            for writer in writers {
                let _ = writer.join();
            }
            drive.heal(HEAL)?;
        }
        let judged = drive.device().and_then(|device| writers::judge_device(&device, blocks, oracle));
        match judged.and_then(|()| drive.end()) {
            Ok(()) => return Ok(()),
            Err(error) if tries >= TRIES => return Err(error),
            Err(error) => reach.say(format!("once more: {error:#}")),
        }
    }
}

/// Runs schedules from this seed on, so many at once; hands each over as it ends. Ends early where `seen` says so.
pub fn run_all(
    from: u64,
    count: u64,
    jobs: u64,
    disks: impl Fn(u64) -> Disks + Sync,
    story: Story,
    seen: impl FnMut(Ran) -> bool + Send,
) {
    let next = AtomicU64::new(0);
    let seen = Mutex::new(seen);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    if index >= count {
                        return;
                    }
                    let seed = from + index;
                    let began = Instant::now();
                    let ran = catch_unwind(AssertUnwindSafe(|| run(seed, disks(seed), story)));
                    let Ok(mut ran) = ran else {
                        next.store(count, Ordering::SeqCst);
                        return;
                    };
                    ran.story.push_str(&format!("\n{:.1} s", began.elapsed().as_secs_f32()));
                    let go_on = seen.lock().unwrap_or_else(PoisonError::into_inner)(ran);
                    if !go_on {
                        next.store(count, Ordering::SeqCst);
                    }
                }
            });
        }
    });
}
