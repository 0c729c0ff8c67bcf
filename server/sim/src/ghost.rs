//! The registers as nobody inside can see them: from the durable acceptors, what was ever accepted and what is chosen.

use crate::oracle::Hosts;
use crate::world::World;
use peer::cluster::{Ballot, Proposal, RegisterValue, Servers};
use std::collections::BTreeMap;
use wire::{ClusterConfig, Epoch, GroupId, SetId};

/// One register.
#[derive(Clone, Debug)]
struct Seen {
    initial: RegisterValue,
    accepted: BTreeMap<Ballot, Accepted>,
    chosen: Option<Proposal>,
}

/// What is known of a ballot.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    value: RegisterValue,
    /// The acceptors (bits) that ever accepted it.
    by: u8,
    /// The lives of the hosts when its proposer, the first acceptor, accepted it.
    lives: [u64; 2],
}

/// All registers.
#[derive(Clone, Debug)]
pub struct Ghost {
    groups: BTreeMap<GroupId, Seen>,
}

impl Ghost {
    /// Before anything was accepted.
    #[must_use]
    pub fn new(config: &ClusterConfig) -> Ghost {
        let seen = |group: &wire::config::GroupConfig| {
            let source = config.sets.iter().find(|s| s.group == group.id).map(|s| s.source);
            let in_sync = source.map_or(Servers::NONE, Servers::only);
            let initial = RegisterValue { epoch: Epoch(0), holder: None, in_sync };
            Seen { initial, accepted: BTreeMap::new(), chosen: None }
        };
        Ghost { groups: config.groups.iter().map(|g| (g.id, seen(g))).collect() }
    }

    /// An acceptor durably holds a proposal. An error: two values at one ballot.
    fn note(
        &mut self,
        group: GroupId,
        acceptor: u8,
        proposal: Proposal,
        lives: [u64; 2],
    ) -> Result<(), String> {
        let Some(seen) = self.groups.get_mut(&group) else { return Ok(()) };
        let value = proposal.value;
        let entry = seen.accepted.entry(proposal.ballot).or_insert(Accepted { value, by: 0, lives });
        if entry.value != value {
            return Err(format!(
                "{group}: two values at {:?}: {:?} and {value:?}",
                proposal.ballot, entry.value
            ));
        }
        entry.by |= 1 << acceptor;
        if entry.by.count_ones() >= 2 && seen.chosen.is_none_or(|c| c.ballot < proposal.ballot) {
            let before = seen.chosen.map_or(seen.initial, |c| c.value);
            let new = proposal.value;
            if new.epoch < before.epoch || (new.epoch == before.epoch && new.holder != before.holder) {
                return Err(format!("{group}: {new:?} was chosen after {before:?}"));
            }
            seen.chosen = Some(proposal);
        }
        Ok(())
    }

    /// The hosts that lost power after the value chosen last had been proposed.
    fn lost_since_proposed(&self, group: GroupId, lives: [u64; 2]) -> Hosts {
        let seen = self.groups.get(&group);
        let proposed = seen.and_then(|s| s.accepted.get(&s.chosen?.ballot));
        let lost = |host: &usize| proposed.is_some_and(|a| a.lives[*host] != lives[*host]);
        (0..2).filter(lost).map(|host| 1 << host).sum()
    }

    /// The value chosen last.
    #[must_use]
    pub fn chosen(&self, group: GroupId) -> Option<RegisterValue> {
        self.groups.get(&group).map(|s| s.chosen.map_or(s.initial, |c| c.value))
    }
}

impl World {
    /// Looks at every durable acceptor.
    pub fn note_registers(&mut self) {
        let mut found = Vec::new();
        for (host, h) in self.hosts.iter().enumerate() {
            let groups = h.record.iter().flat_map(|r| &r.groups);
            found.extend(
                groups.filter_map(|(id, g)| g.register.acceptor.accepted.map(|p| (*id, host as u8, p))),
            );
        }
        let groups = self.witness.record.iter().flat_map(|r| &r.groups);
        found.extend(groups.filter_map(|(id, g)| g.acceptor.accepted.map(|p| (*id, 2, p))));
        // Twice the number of boots, and one more while it runs: each loss of power changes it.
        let lives = [0, 1].map(|i| 2 * self.hosts[i].boots + u64::from(self.hosts[i].powered));
        for (group, acceptor, proposal) in found {
            let before = self.ghost.chosen(group);
            if let Err(text) = self.ghost.note(group, acceptor, proposal, lives) {
                self.fail(1, text);
            }
            let after = self.ghost.chosen(group);
            if let Some(value) = after.filter(|_| after != before) {
                let lost = self.ghost.lost_since_proposed(group, lives);
                for set in self.sets_of(group) {
                    self.oracles[&set].borrow_mut().restricted(value.in_sync.0, lost);
                }
            }
        }
    }

    /// The hosts that must hold what this host acknowledges at this moment.
    #[must_use]
    pub fn copies_by_register(&self, group: GroupId, set: SetId, host: usize) -> Hosts {
        let chosen = self.ghost.chosen(group);
        let through = self.hosts[host].disks.get(&set).is_some_and(|d| d.mirror.is_through());
        let own = if through { 0 } else { 1 << host };
        chosen.map_or(0, |v| v.in_sync.0) | own
    }
}
