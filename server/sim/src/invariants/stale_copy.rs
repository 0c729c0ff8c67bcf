//! Invariant 4: a copy that is out of date, by the register, is never served.

use crate::world::World;
use wire::{GroupId, SetId};

impl World {
    /// A side begins to serve.
    pub(super) fn check_not_stale(&mut self, host: usize, group: GroupId, set: SetId) {
        let Some(chosen) = self.ghost.chosen(group) else { return };
        if self.hosts[host].disks.get(&set).is_some_and(|d| d.mirror.is_through()) {
            // It serves the twin's copy.
            return;
        }
        let consistent = self.hosts[host].disks.get(&set).is_some_and(|d| d.mirror.status().consistent);
        if !chosen.in_sync.contains(self.hosts[host].id) || !consistent {
            self.fail(
                4,
                format!(
                    "{set}: server{} serves, consistent {consistent}, while the register says {chosen:?}",
                    host + 1
                ),
            );
        }
    }
}
