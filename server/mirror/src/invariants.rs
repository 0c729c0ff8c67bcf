//! Rules that hold after every turn, in production too: a broken one ends service rather than going on (DESIGN 9).

use crate::config::{APPLIED_MAX, JOURNAL_WRITES_MAX, REQUESTS_MAX, RUNS_MAX};
use crate::mirror::Mirror;
use peer::block::HOT_MAX;
use peer::control::Role;

/// Actions of one turn: a few for each request, run and frame in hand.
const ACTIONS_MAX: usize = 8 * (REQUESTS_MAX + APPLIED_MAX + RUNS_MAX);

impl Mirror {
    /// Checks the rules; a broken one fences this side.
    pub(crate) fn check(&mut self) {
        if self.role == Role::Fenced {
            return;
        }
        if let Some(name) = self.broken_rule() {
            self.broken(name);
        }
    }

    fn broken_rule(&self) -> Option<&'static str> {
        let serving = matches!(self.role, Role::Active | Role::Deactivating);
        let rules = [
            (!serving || self.sb.holder == Some(self.sb.side), "active only as holder of the stored epoch"),
            (!serving || self.sb.consistent || self.through, "an inconsistent copy is never active"),
            (!self.joined() || (serving && self.linked()), "writes are sent only in an open session"),
            (!serving || self.needs_twin || self.joined() || self.log.stable(), "alone, the map holds all"),
            (
                !serving || self.needs_twin || self.sb.alone || self.faulty(),
                "alone only under an own generation",
            ),
            (self.log.len() <= HOT_MAX, "hot extents within the log"),
            (self.applied.len() <= APPLIED_MAX, "bounded work for the twin"),
            (self.actions_waiting() <= ACTIONS_MAX, "bounded actions"),
            (self.journal.len() <= JOURNAL_WRITES_MAX + REQUESTS_MAX, "bounded journal"),
            (self.granted.is_empty(), "granted claims are acted on"),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds).map(|(_, name)| *name);
        if cfg!(debug_assertions) { broken.or_else(|| self.broken_rule_in_full()) } else { broken }
    }

    fn faulty(&self) -> bool {
        self.config.faults.skip_generation_on_alone
    }

    /// The dear ones, for tests and the simulator.
    fn broken_rule_in_full(&self) -> Option<&'static str> {
        let writes = &self.requests.writes;
        let pinned = writes.values().filter(|writing| writing.issued && !self.through);
        let faulty = self.config.faults.cool_before_bits;
        let hot = |range: crate::input::Range| self.log.is_hot(range.offset, u64::from(range.length));
        let rules = [
            (
                pinned.clone().map(|w| w.range).chain(self.journal.ranges()).all(hot) || faulty,
                "a write in flight lies in hot extents",
            ),
            (
                self.needs_twin || self.joined() || pinned.clone().all(|w| self.covered(w.range)),
                "alone, a write in flight is in the map",
            ),
            (
                self.ranges.len()
                    <= writes.len()
                        + self.requests.ghosts.len()
                        + self.requests.reads.len()
                        + self.requests.mends.len()
                        + self.applied.len()
                        + self.verify_run_count()
                        + RUNS_MAX,
                "no claim without an owner",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map(|(_, name)| *name)
    }

    fn covered(&self, range: crate::input::Range) -> bool {
        let (first, count) = crate::log::blocks(range.offset, u64::from(range.length));
        (first..first + count).all(|block| self.map.is_set(block))
    }
}
