//! The rules of the register (DESIGN 6), each taken out once, and the bounds within which the check runs.

use crate::register_model::{Bounds, Broken, Without, check};
use engine::register::RegisterFaults;

/// The bounds of the full check: every state within each, about a minute in all.
pub const FULL: [Bounds; 3] = [
    Bounds { proposals: 2, restarts: 0, writes: 1, strays: 1, alone: false, states: 20_000_000 },
    Bounds { proposals: 2, restarts: 1, writes: 1, strays: 0, alone: false, states: 20_000_000 },
    Bounds { proposals: 2, restarts: 0, writes: 1, strays: 1, alone: true, states: 20_000_000 },
];

/// Both in sync, a write that reaches one copy only.
const BOTH: Bounds =
    Bounds { proposals: 2, restarts: 0, writes: 1, strays: 1, alone: false, states: 200_000 };
/// Both in sync, and a restart.
const RESTART: Bounds =
    Bounds { proposals: 2, restarts: 1, writes: 1, strays: 0, alone: false, states: 500_000 };
/// Server 1 alone: re-admission, and two changes after it.
const ALONE: Bounds =
    Bounds { proposals: 3, restarts: 0, writes: 1, strays: 0, alone: true, states: 2_000_000 };
/// The same with a restart.
const ALONE_RESTART: Bounds =
    Bounds { proposals: 3, restarts: 1, writes: 1, strays: 0, alone: true, states: 500_000 };

/// A rule that can be taken out.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its number in DESIGN 6 and what it says, shortly.
    pub name: &'static str,
    /// What is taken out.
    pub without: Without,
    /// Bounds within which its want is found, the smallest that are known.
    pub bounds: Bounds,
}

/// Every rule that can be taken out.
#[must_use]
pub fn rules() -> Vec<Rule> {
    let f = RegisterFaults::default();
    let register = |name, bounds, register| {
        let without = Without { register, ..Without::default() };
        Rule { name, without, bounds }
    };
    let data = |name, without| Rule { name, without, bounds: BOTH };
    let w = Without::default();
    vec![
        register("rule 1, in sync to propose", BOTH, RegisterFaults { propose_out_of_sync: true, ..f }),
        register("rule 1, nothing written back", BOTH, RegisterFaults { write_back: true, ..f }),
        register("rule 2, own acceptor first", BOTH, RegisterFaults { own_acceptor_last: true, ..f }),
        register("rule 3, pending stored", BOTH, RegisterFaults { forget_pending: true, ..f }),
        register("rule 3, promises prove nothing", BOTH, RegisterFaults { promise_ends_pending: true, ..f }),
        register("rule 4, known stored", ALONE_RESTART, RegisterFaults { known_in_memory: true, ..f }),
        register("rule 5, pending counts", RESTART, RegisterFaults { ack_by_known: true, ..f }),
        register("rule 5, earlier retries count", ALONE, RegisterFaults { ack_by_latest: true, ..f }),
        register("rule 6, only a learnt holder", BOTH, RegisterFaults { readmit_unlearnt: true, ..f }),
        data("rule 6, compare after the switch", Without { compare_before_switch: true, ..w }),
        register("rule 7, old holder left out", BOTH, RegisterFaults { promote_keeps_old: true, ..f }),
        register("rule 8, a standby asks", BOTH, RegisterFaults { leave_unasked: true, ..f }),
        register(
            "rule 9, nothing while handing over",
            BOTH,
            RegisterFaults { ack_while_handing_over: true, ..f },
        ),
        register(
            "rule 10, pending binds after a restart",
            RESTART,
            RegisterFaults { resume_with_pending: true, ..f },
        ),
        register("promises bind", BOTH, RegisterFaults { accept_below_promise: true, ..f }),
        Rule {
            name: "rule 12, through the twin by the register's word",
            without: Without { through_unasked: true, ..w },
            bounds: Bounds { writes: 2, ..BOTH },
        },
        data("data of a lower epoch refused", Without { take_stale_writes: true, ..w }),
    ]
}

/// What a rule taken out leads to: states, violation, steps.
#[must_use]
pub fn find(rule: &Rule) -> Option<(usize, Broken, usize)> {
    let verdict = check(rule.bounds, rule.without);
    verdict.broken.map(|(broken, way)| (verdict.states, broken, way.len()))
}
