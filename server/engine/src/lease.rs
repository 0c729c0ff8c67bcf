//! The lease (ARCHITECTURE "The lease"): asked for by a nonce in every heartbeat, granted by its echo, counted from its sending.

use crate::core::Core;
use crate::group::Group;
use crate::register::{Acks, Change};
use peer::heartbeat::{Grant, Heartbeat};
use std::collections::{BTreeMap, VecDeque};
use wire::{GroupId, Time};

/// Nonces remembered: at the finest interval of 20 ms, longer than a lease of 1.3 s.
const NONCES_MAX: usize = 128;

/// The nonces this server sent.
#[derive(Clone, Debug, Default)]
pub struct Nonces {
    latest: u64,
    sent: VecDeque<(u64, Time)>,
}

impl Nonces {
    /// A new nonce, sent now.
    pub fn next(&mut self, now: Time) -> u64 {
        self.latest += 1;
        self.sent.push_back((self.latest, now));
        if self.sent.len() > NONCES_MAX {
            self.sent.pop_front();
        }
        self.latest
    }

    /// When it was sent.
    #[must_use]
    pub fn sent(&self, nonce: u64) -> Option<Time> {
        self.sent.iter().find(|(n, _)| *n == nonce).map(|(_, at)| *at)
    }
}

impl Group {
    /// As standby: whether this server grants the holder its lease.
    pub fn grants(&self, core: &Core) -> bool {
        let known = self.register.known();
        if core.faults.grant_after_suspect {
            return known.holder == Some(core.twin_id);
        }
        known.holder == Some(core.twin_id)
            && self.register.pending().is_empty()
            && self.register.proposing() != Some(Change::Promote)
            && !self.taking_over
            && !core.twin.gone
    }

    /// As holder: until when this server may serve; `None`: without limit (the twin is out, nothing pending).
    pub fn lease_limit(&self) -> Option<Time> {
        match self.register.acks() {
            Acks::Alone => None,
            Acks::WithTwin | Acks::No => Some(self.lease.unwrap_or(Time(0))),
        }
    }

    /// The lease runs.
    pub fn has_lease(&self, now: Time) -> bool {
        self.lease_limit().is_none_or(|limit| now < limit)
    }

    /// A grant came with a heartbeat.
    pub fn take_grant(&mut self, beat: &Heartbeat, nonces: &Nonces, core: &Core) {
        let known = self.register.known();
        let granted =
            beat.groups.iter().any(|g| g.group == self.id && g.says.granted && g.epoch == known.epoch);
        let Some(grant) = beat.grant.filter(|g| granted && g.node == core.node) else {
            return;
        };
        if known.holder != Some(core.me) {
            return;
        }
        if let Some(sent) = nonces.sent(grant.nonce) {
            self.raise_lease(sent.plus(core.timing.lease));
        }
    }

    /// The lease lasts at least until then.
    pub fn raise_lease(&mut self, until: Time) {
        self.lease = Some(self.lease.map_or(until, |old| old.max(until)));
    }

    /// As standby that takes over: when the old holder's lease, as far as this server granted it, is out for certain.
    pub fn lease_out_at(&self, core: &Core, by_blocks: Option<Time>) -> Time {
        let last = self.last_grant.max(by_blocks.unwrap_or(Time(0)));
        // A new life of the twin's host: nothing of the life to which the grants went still runs.
        if core.twin.reborn.is_some_and(|at| at > last) {
            return Time(0);
        }
        last.plus(core.timing.lease + core.timing.fence_bound + core.timing.margin)
    }
}

/// The grant that a heartbeat carries: the echo of the twin's latest nonce. Notes for each group when that nonce came: the
/// twin sent it no later.
pub fn grant(core: &Core, groups: &mut BTreeMap<GroupId, Group>) -> Option<Grant> {
    let (node, nonce, came) = core.twin.nonce?;
    for group in groups.values_mut() {
        if group.grants(core) {
            group.last_grant = group.last_grant.max(came);
        }
    }
    Some(Grant { node, nonce })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_the_sending_of_its_nonce() {
        let mut nonces = Nonces::default();
        let first = nonces.next(Time(10));
        let second = nonces.next(Time(20));
        assert_eq!(nonces.sent(first), Some(Time(10)));
        assert_eq!(nonces.sent(second), Some(Time(20)));
        for n in 0..200 {
            nonces.next(Time(100 + n));
        }
        assert_eq!(nonces.sent(first), None);
    }
}
