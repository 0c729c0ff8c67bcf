//! Invariant 5: a floating IP is on at most one server that could drop it.

use crate::machines::ADDRESS_LIFETIME;
use crate::world::World;
use peer::control::Role;
use wire::GroupId;

impl World {
    /// A server got the address of a group.
    pub fn check_addresses(&mut self, host: usize, group: GroupId) {
        if self.keeps_address(1 - host, group) {
            self.fail(
                5,
                format!("{group}: server{} takes the address that server{} still has", host + 1, 2 - host),
            );
        }
    }

    /// Both at once, however it came about.
    pub(super) fn check_held_addresses(&mut self) {
        for group in self.config.groups.iter().map(|g| g.id).collect::<Vec<_>>() {
            if self.keeps_address(0, group) {
                self.check_addresses(0, group);
            }
        }
    }

    /// The address is there, and something that could drop it. A server that stands still cannot, nor can one that lost its
    /// node process and the disk process that serves, both within a lease (nor its next node process, until it has looked):
    /// there the kernel does so when the lifetime ends.
    fn keeps_address(&mut self, host: usize, group: GroupId) -> bool {
        let now = self.queue.now();
        let host = &mut self.hosts[host];
        host.kernel.expire(now);
        let addresses = host.kernel.addresses.iter().filter(|((g, _), _)| *g == group);
        let Some(until) = addresses.map(|(_, until)| *until).max() else { return false };
        let refreshed = until.saturating_sub(ADDRESS_LIFETIME);
        let serves = host.disks.values().any(|d| d.mirror.status().role != Role::Standby);
        let keeper = serves || host.node.as_ref().is_some_and(|node| node.since <= refreshed);
        host.powered && now >= host.frozen_until && keeper
    }
}
