//! Invariant 6: disk, mount, address, script; the reverse when a group stops.

use crate::world::World;
use engine::action::Step;

impl World {
    /// A step is about to take effect.
    pub fn check_order(&mut self, host: usize, step: &Step) {
        let kernel = &self.hosts[host].kernel;
        let mounted = |group| self.sets_of(group).iter().all(|s| kernel.mounts.contains_key(&(group, *s)));
        let broken = match step {
            Step::AddAddress { group, address } => {
                // One that is here is only given a new lifetime.
                let fresh = !kernel.addresses.contains_key(&(*group, *address));
                (fresh && !mounted(*group)).then_some("an address before the mount")
            }
            Step::StartScript { group, .. } => {
                let addressed = kernel.addresses.keys().any(|(g, _)| g == group);
                (!mounted(*group) || !addressed).then_some("a script before mount and address")
            }
            Step::Unmount { group, force: false, .. } => {
                kernel.apps.contains_key(group).then_some("an unmount before the script was stopped")
            }
            Step::Mount { .. }
            | Step::Unmount { force: true, .. }
            | Step::ProbeAddress { .. }
            | Step::Announce { .. }
            | Step::RemoveAddress { .. }
            | Step::StopScript { .. }
            | Step::Kill { .. }
            | Step::Observe { .. }
            | Step::ExchangeDisk { .. }
            | Step::ReleaseSet { .. } => None,
        };
        if let Some(what) = broken {
            // A fence may have taken away, under a plan that runs, what the plan had built; and the kernel what a host
            // that stood still did not refresh.
            let fenced = self.hosts[host].disks.values().any(|d| !d.front);
            let stood = self.queue.now() < self.hosts[host].frozen_until + crate::machines::ADDRESS_LIFETIME;
            // A refresh in flight when the guard dropped the address: its removal is queued behind it.
            let node = self.hosts[host].node.as_ref();
            let queued = |group| {
                node.and_then(|n| n.address_due.get(group)).is_some_and(|due| *due > self.queue.now())
            };
            let removed = matches!(step, Step::AddAddress { group, .. } if queued(group));
            if !fenced && !stood && !removed {
                self.fail(6, format!("server{}: {what}: {step:?}", host + 1));
            }
        }
    }
}
