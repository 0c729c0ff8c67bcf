//! Makes a failing run smaller: takes out every fault, and as many of the last requests, as it still fails without.

use super::{Ended, Options, run};

/// A failing run with no more in it than it needs.
#[derive(Clone, Debug)]
pub struct Small {
    /// Faults of the plan that are left out, and the requests that are made.
    pub options: Options,
    /// How it ends, with its lines.
    pub ended: Ended,
}

/// Shrinks a seed that fails with these options; none if it does not.
#[must_use]
pub fn shrink(seed: u64, options: &Options) -> Option<Small> {
    let first = run(seed, options.clone());
    let _ = first.failure.as_ref()?;
    let mut best = options.clone();
    let fails = |options: &Options| run(seed, options.clone()).failure.is_some();
    loop {
        let mut smaller = false;
        for number in (0..first.planned).rev() {
            if best.without.contains(&number) {
                continue;
            }
            let mut less = best.clone();
            less.without.push(number);
            if fails(&less) {
                best = less;
                smaller = true;
            }
        }
        let mut most = best.requests.unwrap_or(first.requests);
        let mut step = most / 2;
        while step > 0 {
            let less = Options { requests: Some(most.saturating_sub(step)), ..best.clone() };
            if fails(&less) {
                most = most.saturating_sub(step);
                best = less;
                smaller = true;
            }
            step /= 2;
        }
        if !smaller {
            break;
        }
    }
    let ended = run(seed, Options { traced: true, ..best.clone() });
    Some(Small { options: best, ended })
}
