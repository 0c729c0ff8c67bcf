//! Invariant 2: a side serves only as the holder of the highest epoch it has stored.

use crate::world::World;
use peer::control::{DiskStatus, Role};
use wire::SetId;

impl World {
    /// A request is answered by a side in this state.
    pub(super) fn check_epoch(&mut self, host: usize, set: SetId, status: &DiskStatus) {
        let id = self.hosts[host].id;
        let serves = matches!(status.role, Role::Active | Role::Deactivating);
        let highest = self.checks.sent.get(&(host, set)).map(|(epoch, _)| *epoch);
        if !serves || status.holder != Some(id) || highest.is_some_and(|h| h > status.epoch) {
            self.fail(
                2,
                format!(
                    "{set}: server{} serves as {:?} in {} of {:?}, having sent {highest:?}",
                    host + 1,
                    status.role,
                    status.epoch,
                    status.holder
                ),
            );
        }
    }
}
