//! Makes a failing run smaller: fewer faults, an earlier end, shorter faults, as long as it fails in the same way.

use crate::faults::Plan;
use crate::runner::{self, Ended};
use crate::world::{Failure, Options, World};
use serde::{Deserialize, Serialize};

/// A run as a file: what is needed to have it again, step by step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The seed: delays, the application, the configuration.
    pub seed: u64,
    /// [`Options::engine`].
    pub engine: bool,
    /// The bug that was put back, by its name in [`crate::bugs::all`].
    pub bug: Option<String>,
    /// What goes wrong, and until when.
    pub plan: Plan,
    /// How it ended.
    pub ended: String,
}

/// What a shrink came to.
#[derive(Clone, Debug)]
pub struct Small {
    /// The smaller plan.
    pub plan: Plan,
    /// How the smaller run ends.
    pub ended: Ended,
    /// Runs tried.
    pub runs: u64,
}

/// The plan that a seed draws.
#[must_use]
pub fn plan_of(seed: u64, options: &Options) -> Plan {
    World::new(seed, options.clone()).plan
}

fn same(one: Option<&Failure>, two: &Failure) -> bool {
    match (one, two) {
        (Some(Failure::Correctness(a, _)), Failure::Correctness(b, _)) => a == b,
        (Some(Failure::Crash(_)), Failure::Crash(_)) | (Some(Failure::Liveness(_)), Failure::Liveness(_)) => {
            true
        }
        _ => false,
    }
}

/// Shrinks a seed that fails with these options; none if it does not.
#[must_use]
pub fn shrink(seed: u64, options: &Options) -> Option<Small> {
    let first = runner::run(seed, options.clone());
    let failure = first.failure.clone()?;
    let plan = options.plan.clone().unwrap_or_else(|| plan_of(seed, options));
    let mut small = Small { plan, ended: first, runs: 1 };
    loop {
        let before = small.plan.clone();
        for place in (0..small.plan.faults.len()).rev() {
            let mut less = small.plan.clone();
            less.faults.remove(place);
            small.try_plan(seed, options, &failure, less);
        }
        for share in [2, 4, 8] {
            let last = small.plan.faults.last().map_or(0, |(at, _)| *at);
            let mut less = small.plan.clone();
            less.until -= (less.until - last.min(less.until)) / share;
            small.try_plan(seed, options, &failure, less);
        }
        for place in 0..small.plan.faults.len() {
            let mut less = small.plan.clone();
            let (at, fault) = less.faults[place];
            less.faults[place] = (at, fault.shorter());
            small.try_plan(seed, options, &failure, less);
        }
        if small.plan == before {
            return Some(small);
        }
    }
}

impl Small {
    fn try_plan(&mut self, seed: u64, options: &Options, failure: &Failure, plan: Plan) {
        if plan == self.plan {
            return;
        }
        self.runs += 1;
        let ended = runner::run(seed, Options { plan: Some(plan.clone()), ..options.clone() });
        if same(ended.failure.as_ref(), failure) {
            (self.plan, self.ended) = (plan, ended);
        }
    }
}
