//! Invariant 1: at most one side serves a set's data; once a later holder has, no earlier one ever does.

use crate::world::World;
use wire::{Epoch, SetId};

impl World {
    /// A request is answered in an epoch.
    pub(super) fn check_exclusion(&mut self, host: usize, set: SetId, epoch: Epoch) {
        let (highest, by) = *self.checks.served.entry(set).or_insert((epoch, host));
        if epoch < highest || (epoch == highest && by != host) {
            self.fail(
                1,
                format!(
                    "{set}: server{} serves in {epoch} after server{} did in {highest}",
                    host + 1,
                    by + 1
                ),
            );
        }
        self.checks.served.insert(set, (epoch.max(highest), host));
    }
}
