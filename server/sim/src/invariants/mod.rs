//! The properties of ARCHITECTURE "Invariants", one file each, and when they are looked at.

mod acknowledged;
mod addresses;
mod alerts;
mod bounds;
mod dirty_bits;
mod epochs;
mod exclusion;
mod feed;
mod monotonic;
mod order;
mod replies;
mod stale_copy;
mod stored_first;

use crate::host::Request;
use crate::world::{Failure, World};
use std::collections::BTreeMap;
use wire::{Epoch, Session, SetId};

/// Looks at the dirty bits once in so many completed operations of a disk: each look reads both disks whole.
const DIRTY_BITS_EVERY: u64 = 24;

/// What the checks remember.
#[derive(Debug, Default)]
pub struct Checks {
    events: u64,
    io: u64,
    alerts: alerts::Alerts,
    /// The highest epoch in which a set served, and who.
    served: BTreeMap<SetId, (Epoch, usize)>,
    /// The highest epoch and session each side sent as its own.
    sent: BTreeMap<(usize, SetId), (Epoch, Session)>,
}

impl Checks {
    /// The next number of a recorded event.
    pub fn next_event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }
}

impl World {
    /// A request was answered without an error.
    pub fn check_served(&mut self, host: usize, set: SetId, _request: &Request) {
        let Some(disk) = self.hosts[host].disks.get(&set) else { return };
        let status = disk.mirror.status();
        self.check_exclusion(host, set, status.epoch);
        self.check_epoch(host, set, &status);
        self.check_first_service(host, set);
    }

    /// After each completed operation of a disk.
    pub fn check_disks(&mut self) {
        self.checks.io += 1;
        if self.checks.io.is_multiple_of(DIRTY_BITS_EVERY) {
            self.check_dirty_bits();
        }
    }

    /// The dear checks, twice a second.
    pub fn checkpoint(&mut self) {
        for host in 0..2 {
            self.check_feed(host);
            let broken = self.hosts[host].disks.iter().find_map(|(set, disk)| {
                let failed = disk.mirror.status().failed.filter(|f| f.starts_with("invariant broken"))?;
                Some(format!("{set} at server{}: {failed}", host + 1))
            });
            if let Some(text) = broken {
                self.fail_with(Failure::Crash(text));
            }
        }
        self.check_bounds();
        self.note_in_sync();
        self.check_dirty_bits();
        self.check_held_addresses();
    }
}
