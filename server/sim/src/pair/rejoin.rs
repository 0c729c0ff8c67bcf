//! The pattern of a known defect elsewhere: the standby comes back while the survivor's map is not empty.
//!
//! The pair is in sync; the standby goes, the survivor is put alone and writes; the standby comes back. From that moment
//! each turn of either core is a step, and a fault may hit after any of them: every fault after every step, and every
//! second one after each of the next steps.

use super::{Ended, Fault, Options, Who, World, run, run_many};

/// Writes of the survivor alone before the standby comes back.
const WRITES: u64 = 3;
/// The faults that are tried after each step.
const FAULTS: [Fault; 8] = [
    Fault::Break,
    Fault::Cut { long: 150_000 },
    Fault::Kill(Who::Holder),
    Fault::Kill(Who::Standby),
    Fault::Power(Who::Holder),
    Fault::Power(Who::Standby),
    Fault::KillBoth,
    Fault::Blackout,
];

/// How far the pattern is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Until the pair is in sync.
    Building,
    /// The standby is away, since so many acknowledged writes.
    Alone { acknowledged: u64 },
    /// It is back, since so many turns.
    Back { turns: u64 },
}

/// What an exploration came to.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// Runs.
    pub runs: u64,
    /// Steps of all undisturbed runs.
    pub steps: u64,
    /// The runs that failed.
    pub failures: Vec<Failing>,
}

/// A run that failed and how to see it again.
#[derive(Clone, Debug)]
pub struct Failing {
    /// Its schedule.
    pub seed: u64,
    /// After which step which fault.
    pub faults: Vec<(u64, Fault)>,
    /// What was wrong.
    pub failure: String,
}

impl World {
    /// After each event: the pattern goes on.
    pub(super) fn rejoin_step(&mut self) {
        let Some(stage) = self.plan.pattern else { return };
        if self.calm_since.is_some() {
            return;
        }
        let Some(holder) = self.register.holder else { return };
        let settled = self.sides[holder].process.as_ref().is_some_and(|process| process.mirror.is_settled());
        match stage {
            Stage::Building if self.register.both() && settled => {
                let who = Who::Standby;
                self.plan.pattern = Some(Stage::Alone { acknowledged: u64::MAX });
                let fault = if self.rng.percent(50) { Fault::Power(who) } else { Fault::Kill(who) };
                self.fault(fault);
            }
            Stage::Alone { acknowledged: u64::MAX } if !self.register.both() => {
                self.plan.pattern = Some(Stage::Alone { acknowledged: self.oracle.acknowledged() });
            }
            Stage::Alone { acknowledged }
                if self.oracle.acknowledged() >= acknowledged.saturating_add(WRITES) =>
            {
                self.say(|| "the standby may come back".into());
                self.plan.pattern = Some(Stage::Back { turns: self.turns });
                self.start(1 - holder);
            }
            Stage::Back { turns } => {
                let step = self.turns - turns;
                while let Some((at, fault)) = self.plan.steps.first().copied() {
                    if step < at {
                        break;
                    }
                    self.plan.steps.remove(0);
                    self.say(|| format!("after step {at}: {fault:?}"));
                    self.fault(fault);
                }
                if self.plan.steps.is_empty() && self.register.both() && settled {
                    self.calm();
                }
            }
            Stage::Building | Stage::Alone { .. } => {}
        }
    }

    /// Whether the standby is kept away.
    pub(super) fn is_kept_away(&self, side: usize) -> bool {
        matches!(self.plan.pattern, Some(Stage::Alone { .. })) && self.register.holder == Some(1 - side)
    }

    /// Turns since the standby came back.
    pub(super) fn pattern_turns(&self) -> u64 {
        match self.plan.pattern {
            Some(Stage::Back { turns }) => self.turns - turns,
            Some(Stage::Building | Stage::Alone { .. }) | None => 0,
        }
    }
}

fn with(seed: u64, faults: Vec<(u64, Fault)>) -> Ended {
    run(seed, Options { rejoin: Some(faults), ..Options::default() })
}

/// Tries every fault after every step of so many schedules (seeds from `from` on), and after each of them every second
/// fault after each of the `near` next steps.
#[must_use]
pub fn explore(from: u64, schedules: u64, near: u64, jobs: u64) -> Explored {
    let mut all = Explored::default();
    for seed in from..from + schedules {
        let plain = with(seed, Vec::new());
        let steps = plain.turns;
        all.runs += 1;
        all.steps += steps;
        note(&mut all, seed, Vec::new(), plain.failure);
        let kinds = FAULTS.len() as u64;
        let one = |place: u64| {
            let first = (place / kinds, FAULTS[(place % kinds) as usize]);
            let mut ended = vec![(vec![first], with(seed, vec![first]).failure)];
            for second in 0..near * kinds {
                let second = (first.0 + 1 + second / kinds, FAULTS[(second % kinds) as usize]);
                ended.push((vec![first, second], with(seed, vec![first, second]).failure));
            }
            ended
        };
        run_many(steps * kinds, jobs, one, |ended| {
            for (faults, failure) in ended {
                all.runs += 1;
                note(&mut all, seed, faults, failure);
            }
            all.failures.is_empty()
        });
        if !all.failures.is_empty() {
            break;
        }
    }
    all
}

fn note(all: &mut Explored, seed: u64, faults: Vec<(u64, Fault)>, failure: Option<String>) {
    if let Some(failure) = failure {
        all.failures.push(Failing { seed, faults, failure });
    }
}
