//! How fast a rebuild may go: all that the application leaves (C7, C17), found by comparing short pauses with the time between.
//!
//! While the application is idle there is no bound. While it works the rebuild has a rate. Every [`CYCLE_US`] the rebuild
//! stands still for [`PAUSE_US`]; latencies and completions of those pauses are what the application has "without rebuild",
//! those between are "with". Once both have enough requests the rate is lowered or raised. So a change of the application's
//! own behaviour is not taken for the rebuild's doing: both samples see it.

use crate::config::BUFFERED_MAX;
use wire::Time;
use wire::ids::{MILLIS, SECOND};

/// p99 with a rebuild is at most so many percent of p99 without (C7 allows 150; the control keeps a distance).
const P99_PERCENT: u64 = 135;
/// Requests completed in the same time with a rebuild are at least so many percent (C17 allows a loss of 15).
const COMPLETED_PERCENT: u64 = 91;
/// One pause and one stretch of copying.
const CYCLE_US: u64 = 250 * MILLIS;
/// The pause: long enough for some requests, a tenth of the time.
const PAUSE_US: u64 = 25 * MILLIS;
/// Nothing is counted so long after a change between the two: what was under way belongs to neither.
const SETTLE_US: u64 = 4 * MILLIS;
/// Without a request or an answer for so long the application is idle.
const IDLE_US: u64 = 200 * MILLIS;
/// Requests in each sample before the rate is changed: a p99 of fewer is the slowest one's luck.
const SAMPLES_MIN: u64 = 100;
/// Samples are also judged after this time, with at least a tenth of that: a slow application is heard too.
const JUDGE_US: u64 = 2 * SECOND;
/// Bytes a second at first and at least: a rebuild always ends.
const RATE_FIRST: u64 = 64 << 20;
const RATE_MIN: u64 = 4 << 20;
/// More is no bound at all.
const RATE_MAX: u64 = 8 << 30;
/// How much of the rate may be saved up while nothing could be begun.
const BURST_US: u64 = 10 * MILLIS;
/// Blocks of one run while the application works: a longer one would hold up its requests by more than their own time.
const RUN_BLOCKS_BUSY: u64 = 16;

/// Buckets for each doubling of a latency, and doublings: up to half a minute.
const FINE: usize = 8;
const OCTAVES: usize = 25;

/// Latencies of one kind of time.
#[derive(Clone, Debug)]
struct Sample {
    counts: [u32; FINE * OCTAVES],
    completed: u64,
    /// How long it was collected.
    time_us: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Sample { counts: [0; FINE * OCTAVES], completed: 0, time_us: 0 }
    }
}

impl Sample {
    fn add(&mut self, latency_us: u64) {
        if let Some(count) = self.counts.get_mut(bucket(latency_us)) {
            *count += 1;
        }
        self.completed += 1;
    }

    /// The bucket below which 99 of 100 lie, as a latency.
    fn p99_us(&self) -> u64 {
        let mut beyond = self.completed / 100;
        for (index, count) in self.counts.iter().enumerate().rev() {
            if u64::from(*count) > beyond {
                return bound(index);
            }
            beyond -= u64::from(*count);
        }
        0
    }
}

/// Eight buckets for each doubling: within 9 %.
fn bucket(latency_us: u64) -> usize {
    let value = latency_us.max(FINE as u64);
    let octave = value.ilog2() as usize - FINE.ilog2() as usize;
    let fine = (value >> octave) as usize - FINE;
    (octave * FINE + fine).min(FINE * OCTAVES - 1)
}

fn bound(index: usize) -> u64 {
    ((FINE + index % FINE + 1) as u64) << (index / FINE)
}

/// What one cycle is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The application is idle.
    Free,
    /// The rebuild stands still.
    Pause,
    /// The rebuild copies.
    Copy,
}

/// The control of one rebuild.
#[derive(Debug)]
pub(crate) struct Pace {
    phase: Phase,
    since: Time,
    /// When the application last asked or was answered.
    asked: Option<Time>,
    without: Sample,
    with: Sample,
    judged: Time,
    /// Bytes a second while the application works.
    rate: u64,
    /// Set by an operator.
    limit: Option<u64>,
    /// Millionths of a byte that may be begun; below zero: owed.
    budget: i128,
    filled: Time,
}

impl Pace {
    pub(crate) fn new(now: Time, limit: Option<u64>) -> Pace {
        Pace {
            phase: Phase::Free,
            since: now,
            asked: None,
            without: Sample::default(),
            with: Sample::default(),
            judged: now,
            rate: RATE_FIRST,
            limit,
            budget: 0,
            filled: now,
        }
    }

    pub(crate) fn set_limit(&mut self, limit: Option<u64>) {
        self.limit = limit;
    }

    /// The application asks for something.
    pub(crate) fn request_began(&mut self, now: Time) {
        self.asked = Some(now);
    }

    /// It was answered.
    pub(crate) fn request_ended(&mut self, began: Time, now: Time) {
        self.asked = Some(now);
        let settled = self.since.plus(SETTLE_US);
        match self.phase {
            Phase::Pause if now >= settled => self.without.add(now.since(began)),
            Phase::Copy if now >= settled => self.with.add(now.since(began)),
            Phase::Free | Phase::Pause | Phase::Copy => {}
        }
    }

    /// Goes on in time: phases, samples, budget.
    pub(crate) fn advance(&mut self, now: Time) {
        let idle = self.asked.is_none_or(|asked| now.since(asked) >= IDLE_US);
        let length = match self.phase {
            Phase::Free => 0,
            Phase::Pause => PAUSE_US,
            Phase::Copy => CYCLE_US - PAUSE_US,
        };
        if idle {
            self.enter(Phase::Free, now);
        } else if self.phase == Phase::Free {
            self.enter(Phase::Copy, now);
        } else if now.since(self.since) >= length {
            let next = if self.phase == Phase::Pause { Phase::Copy } else { Phase::Pause };
            self.enter(next, now);
            self.judge(now);
        }
        self.fill(now);
    }

    fn enter(&mut self, phase: Phase, now: Time) {
        if self.phase == phase {
            return;
        }
        let counted = now.since(self.since).saturating_sub(SETTLE_US);
        match self.phase {
            Phase::Free => {}
            Phase::Pause => self.without.time_us += counted,
            Phase::Copy => self.with.time_us += counted,
        }
        self.phase = phase;
        self.since = now;
        self.budget = self.budget.min(0);
    }

    /// Changes the rate once both samples tell enough.
    fn judge(&mut self, now: Time) {
        let least = if now.since(self.judged) >= JUDGE_US { SAMPLES_MIN / 10 } else { SAMPLES_MIN };
        if self.without.completed < least || self.with.completed < least {
            return;
        }
        let p99 = self.with.p99_us() * 100 <= self.without.p99_us() * P99_PERCENT;
        let done = |sample: &Sample| sample.completed * SECOND / sample.time_us.max(1);
        let completed = done(&self.with) * 100 >= done(&self.without) * COMPLETED_PERCENT;
        self.rate = if p99 && completed { self.rate + self.rate / 5 } else { self.rate / 4 * 3 };
        self.rate = self.rate.clamp(RATE_MIN, RATE_MAX);
        (self.without, self.with, self.judged) = (Sample::default(), Sample::default(), now);
    }

    /// Bytes a second at present; none: no bound.
    fn bound(&self) -> Option<u64> {
        let own = (self.phase != Phase::Free).then_some(self.rate);
        own.into_iter().chain(self.limit).min()
    }

    fn fill(&mut self, now: Time) {
        let passed = now.since(self.filled);
        self.filled = now;
        let Some(bound) = self.bound() else {
            self.budget = 0;
            return;
        };
        let most = i128::from(bound) * i128::from(BURST_US);
        self.budget = (self.budget + i128::from(bound) * i128::from(passed)).min(most);
    }

    /// How many blocks the next run may have; 0: none may begin before [`Pace::deadline`].
    pub(crate) fn next_run(&self, most: u64) -> u64 {
        match self.phase {
            Phase::Pause => 0,
            Phase::Free | Phase::Copy if self.bound().is_some() && self.budget < 0 => 0,
            Phase::Free => most,
            Phase::Copy => most.min(RUN_BLOCKS_BUSY),
        }
    }

    /// A run of so many bytes begins.
    pub(crate) fn spend(&mut self, bytes: u64) {
        if self.bound().is_some() {
            self.budget -= i128::from(bytes) * i128::from(SECOND);
        }
    }

    /// When the next run may begin or the phase changes, if time alone decides.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let phase = match self.phase {
            Phase::Free => None,
            Phase::Pause => Some(self.since.plus(PAUSE_US)),
            Phase::Copy => Some(self.since.plus(CYCLE_US - PAUSE_US)),
        };
        let owed = self.bound().filter(|_| self.budget < 0).map(|bound| {
            let wait = (-self.budget).div_euclid(i128::from(bound.max(1))) + 1;
            self.filled.plus(u64::try_from(wait).unwrap_or(SECOND).min(SECOND))
        });
        phase.into_iter().chain(owed).min()
    }
}

const _: () = assert!(RUN_BLOCKS_BUSY * peer::block::BLOCK_BYTES <= BUFFERED_MAX);

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
