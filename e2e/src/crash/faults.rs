//! The hand that does harm: it kills, stops and cuts at moments that chance or the pair's own progress names.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::chance::Chance;
use super::oracle::Oracle;
use crate::rig;

/// How long a fault waits for its moment before it comes anyway.
const MOMENT: Duration = Duration::from_millis(700);

/// Where the pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A rebuild runs.
    Rebuilding,
    /// A re-admission was ordered.
    Readmitting,
    /// A side becomes active.
    Activating,
    /// The twin is being put out.
    PuttingOut,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// `kill -9` of the active side's process.
    KillActive,
    /// Of the other's.
    KillStandby,
    /// Of both, one right after the other.
    KillBoth,
    /// Every cable is cut for so long.
    Cut(Duration),
    /// The first cable is cut for so long.
    CutOne(Duration),
    /// The process of the active side stands still for so long.
    StopActive(Duration),
    /// That of the other.
    StopStandby(Duration),
}

/// One fault: at a moment of the pair's or after a pause, and then a little later.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    moment: Option<Moment>,
    pause: Duration,
    harm: Harm,
}

/// Draws the faults of a schedule.
pub fn draw(chance: &mut Chance) -> Vec<Fault> {
    let count = 2 + chance.below(5);
    (0..count).map(|_| one(chance)).collect()
}

/// Draws a schedule of the rejoin pattern: the standby goes, the other side writes alone, and when it comes back something
/// breaks into its rebuild, again and again.
pub fn draw_rejoin(chance: &mut Chance) -> Vec<Fault> {
    let first = Fault {
        moment: None,
        pause: Duration::from_millis(200 + chance.below(500)),
        harm: Harm::KillStandby,
    };
    let mut all = vec![first];
    for _ in 0..2 + chance.below(4) {
        let late = chance.one_in(4);
        let moment = Some(if late { Moment::Readmitting } else { Moment::Rebuilding });
        // Most rebuilds here take some tens of milliseconds.
        let pause = Duration::from_micros(chance.below(25_000));
        let short = Duration::from_millis(20 + chance.below(900));
        let harm = match chance.below(10) {
            0..=4 => Harm::KillStandby,
            5 | 6 => Harm::Cut(short),
            7 => Harm::KillActive,
            8 => Harm::KillBoth,
            _ => Harm::StopStandby(short),
        };
        all.push(Fault { moment, pause, harm });
    }
    all
}

fn one(chance: &mut Chance) -> Fault {
    let moment = match chance.below(10) {
        0..=3 => Some(Moment::Rebuilding),
        4 => Some(Moment::Readmitting),
        5 => Some(Moment::Activating),
        6 => Some(Moment::PuttingOut),
        _ => None,
    };
    let pause = match moment {
        Some(_) => Duration::from_micros(chance.below(30_000)),
        None => Duration::from_millis(30 + chance.below(700)),
    };
    let away = |chance: &mut Chance| Duration::from_millis(50 + chance.below(1_200));
    let harm = match chance.below(20) {
        0..=5 => Harm::KillActive,
        6..=10 => Harm::KillStandby,
        11..=13 => Harm::KillBoth,
        14..=16 => Harm::Cut(away(chance)),
        17 => Harm::CutOne(away(chance)),
        18 => Harm::StopActive(away(chance)),
        _ => Harm::StopStandby(away(chance)),
    };
    Fault { moment, pause, harm }
}

/// What the hand can reach, kept by whoever drives the pair.
pub struct Reach {
    pids: Mutex<[Option<Pid>; 2]>,
    active: AtomicUsize,
    moment: Mutex<Option<Moment>>,
    moved: Condvar,
    cables: Vec<rig::Cable>,
    ended: AtomicBool,
    oracle: Arc<Oracle>,
    told: Mutex<Vec<String>>,
    began: Instant,
}

impl Reach {
    /// Nothing yet but these cables.
    #[must_use]
    pub fn new(cables: Vec<rig::Cable>, oracle: Arc<Oracle>) -> Self {
        Reach {
            pids: Mutex::default(),
            active: AtomicUsize::new(0),
            moment: Mutex::default(),
            moved: Condvar::new(),
            cables,
            ended: AtomicBool::new(false),
            oracle,
            told: Mutex::default(),
            began: Instant::now(),
        }
    }

    fn pids(&self) -> MutexGuard<'_, [Option<Pid>; 2]> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process of this side runs; or none that may still be killed.
    pub fn process(&self, side: usize, pid: Option<u32>) {
        self.pids()[side] = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    }

    /// This side is the one that serves, or is to.
    pub fn active(&self, side: usize) {
        self.active.store(side, Ordering::SeqCst);
    }

    /// The pair has come to this moment.
    pub fn moment(&self, moment: Option<Moment>) {
        *self.moment.lock().unwrap_or_else(PoisonError::into_inner) = moment;
        self.moved.notify_all();
    }

    /// Something worth telling when the schedule fails.
    pub fn say(&self, what: String) {
        let at = self.began.elapsed().as_secs_f64();
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{at:9.4} {what}"));
    }

    /// All that was told.
    #[must_use]
    pub fn told(&self) -> String {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// No more harm.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.moved.notify_all();
    }

    fn await_moment(&self, wanted: Moment) {
        let end = Instant::now() + MOMENT;
        let mut moment = self.moment.lock().unwrap_or_else(PoisonError::into_inner);
        while *moment != Some(wanted) && !self.ended.load(Ordering::SeqCst) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            moment = self.moved.wait_timeout(moment, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn signal(&self, side: usize, signal: Signal) {
        let pids = self.pids();
        let Some(pid) = pids[side] else { return };
        if signal == Signal::KILL {
            self.oracle.death_begins(side);
        }
        let _ = kill_process(pid, signal);
    }

    fn harm(&self, harm: Harm) {
        let active = self.active.load(Ordering::SeqCst);
        match harm {
            Harm::KillActive => self.signal(active, Signal::KILL),
            Harm::KillStandby => self.signal(1 - active, Signal::KILL),
            Harm::KillBoth => {
                self.signal(active, Signal::KILL);
                self.signal(1 - active, Signal::KILL);
            }
            Harm::Cut(time) => self.cut(self.cables.len(), time),
            Harm::CutOne(time) => self.cut(1, time),
            Harm::StopActive(time) => self.stop(active, time),
            Harm::StopStandby(time) => self.stop(1 - active, time),
        }
    }

    fn cut(&self, count: usize, time: Duration) {
        for up in [false, true] {
            for cable in &self.cables[..count] {
                if let Err(error) = cable.set(up) {
                    self.say(format!("cable: {error:#}"));
                }
            }
            if !up {
                std::thread::sleep(time);
            }
        }
    }

    fn stop(&self, side: usize, time: Duration) {
        self.signal(side, Signal::STOP);
        std::thread::sleep(time);
        self.signal(side, Signal::CONT);
    }
}

/// Does the faults one after another on a thread of its own.
pub fn start(reach: &Arc<Reach>, faults: Vec<Fault>) -> JoinHandle<()> {
    let reach = Arc::clone(reach);
    std::thread::spawn(move || {
        for fault in faults {
            if let Some(moment) = fault.moment {
                reach.await_moment(moment);
            }
            std::thread::sleep(fault.pause);
            if reach.ended.load(Ordering::SeqCst) {
                return;
            }
            reach.say(format!("{fault:?}"));
            reach.harm(fault.harm);
        }
    })
}
