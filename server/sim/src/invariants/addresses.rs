//! Invariant 5: a floating IP is on at most one server that could drop it.

use crate::world::World;
use peer::control::Role;
use wire::GroupId;

impl World {
    /// A server got the address of a group.
    pub fn check_addresses(&mut self, host: usize, group: GroupId) {
        let now = self.queue.now();
        let other = &mut self.hosts[1 - host];
        other.kernel.expire(now);
        // A server that stands still cannot drop anything, nor can one that lost its node process and the disk process that
        // serves, both within a lease: the kernel does so when the lifetime ends.
        let serves = other.disks.values().any(|d| d.mirror.status().role != Role::Standby);
        let runs = other.node.is_some() || serves;
        let held = other.powered
            && runs
            && now >= other.frozen_until
            && other.kernel.addresses.keys().any(|(g, _)| *g == group);
        if held {
            self.fail(
                5,
                format!("{group}: server{} takes the address that server{} still has", host + 1, 2 - host),
            );
        }
    }

    /// Both at once, however it came about.
    pub(super) fn check_held_addresses(&mut self) {
        for group in self.config.groups.iter().map(|g| g.id).collect::<Vec<_>>() {
            if self.hosts[0].powered && self.hosts[0].kernel.addresses.keys().any(|(g, _)| *g == group) {
                let runs = self.queue.now() >= self.hosts[0].frozen_until;
                self.hosts[0].kernel.expire(self.queue.now());
                if runs && self.hosts[0].kernel.addresses.keys().any(|(g, _)| *g == group) {
                    self.check_addresses(0, group);
                }
            }
        }
    }
}
