//! Invariant 3: what was acknowledged is there when the next holder begins to serve.

use crate::oracle::BOTH;
use crate::world::World;
use peer::control::Role;
use wire::SetId;

impl World {
    /// A front end went up: what the disk holds at this moment is what its holder will show.
    pub fn front_opened(&mut self, host: usize, set: SetId) {
        let sectors = self.set_size(set) / crate::disk::SECTOR_BYTES;
        let opened = self.oracles[&set].borrow_mut().begun();
        let content = self.hosts[host].media[&set].read(0, sectors);
        if let Some(disk) = self.hosts[host].disks.get_mut(&set) {
            disk.opened = Some((opened, content.into()));
        }
    }

    /// The first request served since then.
    pub(super) fn check_first_service(&mut self, host: usize, set: SetId) {
        let group = self.group_of(set);
        let Some((opened, content)) = self.hosts[host].disks.get_mut(&set).and_then(|d| d.opened.take())
        else {
            return;
        };
        self.check_not_stale(host, group, set);
        let held = self.hosts[host].bit();
        let result = self.oracles[&set].borrow_mut().activated(held, opened, |s| content[s as usize]);
        if let Err(wrong) = result {
            self.fail(3, format!("{set}: server{} took over with {wrong:?}", host + 1));
        }
    }

    /// A set in sync by the register and equal by its mirror: both copies hold all there is.
    pub fn note_in_sync(&mut self) {
        for (set, oracle) in &self.oracles {
            let both = self.ghost.chosen(self.group_of(*set)).is_some_and(|v| v.in_sync.0 == BOTH);
            let equal = [0, 1].into_iter().any(|host| {
                let Some(disk) = self.hosts[host].disks.get(set) else { return false };
                let status = disk.mirror.status();
                // A holder that stands still has not heard that its twin's host has a new life.
                let same = status.twin_incarnation == Some(self.hosts[1 - host].incarnation);
                disk.opened.is_none()
                    && status.role == Role::Active
                    && status.equal
                    && status.needs_twin
                    && same
            });
            if both && equal && self.hosts.iter().all(|h| h.powered) {
                oracle.borrow_mut().in_sync();
            }
        }
    }
}
