//! After the faults: everything is mended, an operator does what a page asks for, and the cluster must become whole.

use crate::queue::Instant;
use crate::world::{Failure, World};
use peer::control::Role;
use wire::view::{GroupState, ServerState};
use wire::{NodeId, Operation};

/// How long healing may take at most, in microseconds: detection, grace of a node process, rebuild, several tries.
const HEAL: u64 = 90_000_000;
/// Between two looks.
const LOOK: u64 = 500_000;
/// Between two acts of the operator.
const ACT: u64 = 3_000_000;
/// The application rests for this long before the copies are compared.
const REST: u64 = 4_000_000;

impl World {
    /// The whole run: faults, then healing, then the comparison of the copies.
    pub fn run(&mut self) {
        self.run_until(self.plan.until);
        if self.failure.is_some() {
            return;
        }
        self.mend_all();
        let from = self.queue.now().max(self.hosts[0].frozen_until).max(self.hosts[1].frozen_until);
        self.heal(from + HEAL);
    }

    fn heal(&mut self, until: Instant) {
        let mut next_act = self.queue.now() + ACT;
        while self.failure.is_none() {
            let now = self.queue.now();
            self.run_until(now + LOOK);
            if self.failure.is_some() {
                return;
            }
            let Some(why) = self.unhealed() else {
                if self.rest_and_compare() {
                    return;
                }
                continue;
            };
            if self.queue.now() >= until {
                return self.fail_with(Failure::Liveness(why));
            }
            if self.queue.now() >= next_act {
                next_act = self.queue.now() + ACT;
                self.operate();
            }
        }
    }

    /// The application rests; then nothing is under way and the copies are the same. False: something moved meanwhile.
    fn rest_and_compare(&mut self) -> bool {
        self.quiet = true;
        self.run_until(self.queue.now() + REST);
        if self.failure.is_some() {
            return true;
        }
        if self.unhealed().is_some() {
            self.quiet = false;
            for host in 0..2 {
                for group in self.config.groups.iter().map(|g| g.id).collect::<Vec<_>>() {
                    if let Some(life) = self.hosts[host].kernel.apps.get(&group).map(|a| a.life) {
                        self.queue.after(1_000, crate::world::Event::App { host, group, life });
                    }
                }
            }
            return false;
        }
        self.note_in_sync();
        self.check_dirty_bits();
        if let Some(text) = self.unanswered() {
            self.fail_with(Failure::Liveness(text));
        }
        for set in self.config.sets.iter().map(|s| s.id).collect::<Vec<_>>() {
            let sectors = self.set_size(set) / crate::disk::SECTOR_BYTES;
            let [one, two] = [0, 1].map(|host: usize| self.hosts[host].media[&set].read(0, sectors));
            if let Some(place) = one.iter().zip(&two).position(|(a, b)| a != b) {
                let text = format!(
                    "{set}: the copies differ in sector {place}: {} and {}",
                    one[place] >> 20,
                    two[place] >> 20
                );
                self.fail(13, text);
            }
        }
        true
    }

    /// Why the cluster is not whole yet.
    #[must_use]
    pub fn unhealed(&mut self) -> Option<String> {
        let now = self.queue.now();
        for host in 0..2 {
            if now < self.hosts[host].frozen_until {
                return Some(format!("server{} stands still", host + 1));
            }
            self.check_feed(host);
            let Some(view) = self.hosts[host].node.as_ref().and_then(|n| n.page.clone()) else {
                return Some(format!("the node process of server{} does not run", host + 1));
            };
            if let Some(server) = view.servers.iter().find(|s| s.state != ServerState::Normal || s.recovering)
            {
                return Some(format!(
                    "server{} sees {} as {:?}, recovering {}",
                    host + 1,
                    server.name,
                    server.state,
                    server.recovering
                ));
            }
            if let Some(group) = view.groups.iter().find(|g| g.state != GroupState::Running) {
                return Some(format!("server{} sees {} as {:?}", host + 1, group.name, group.state));
            }
        }
        self.config.groups.iter().find_map(|group| self.group_unhealed(group.id))
    }

    fn group_unhealed(&self, group: wire::GroupId) -> Option<String> {
        let runs: Vec<usize> =
            (0..2).filter(|h| self.hosts[*h].kernel.apps.get(&group).is_some_and(|a| !a.broken)).collect();
        let [host] = runs[..] else {
            return Some(format!("the application of {group} works on {} servers", runs.len()));
        };
        for set in self.sets_of(group) {
            let Some(status) = self.hosts[host].disks.get(&set).map(|d| d.mirror.status()) else {
                return Some(format!("no disk process of {set} where {group} runs"));
            };
            if status.role != Role::Active || !status.equal || !status.needs_twin || status.dirty_blocks != 0
            {
                return Some(format!("{set} is not in sync: {status:?}"));
            }
        }
        let chosen = self.ghost.chosen(group);
        let whole = chosen.is_some_and(|v| v.holder == Some(self.hosts[host].id) && v.in_sync.count() == 2);
        (!whole).then(|| format!("the register of {group} says {chosen:?}"))
    }

    /// What a person in front of the pages does: recover, start.
    fn operate(&mut self) {
        let now = self.queue.now();
        if self.hosts.iter().any(|h| now < h.frozen_until) {
            return;
        }
        let Some(view) = self.hosts[0].node.as_ref().and_then(|n| n.page.clone()) else { return };
        if view.maintenance {
            self.command(0, Operation::Maintain { on: false });
        }
        for group in view.groups.iter().filter(|g| g.kept) {
            self.command(0, Operation::FreeGroup { group: group.id });
        }
        for server in &view.servers {
            match server.state {
                ServerState::RestartedAfterDown if !server.recovering => {
                    for host in 0..2 {
                        self.command(host, Operation::RecoverServer { server: server.id });
                    }
                }
                ServerState::Stopped => self.command(0, Operation::StartServer { server: server.id }),
                ServerState::Normal | ServerState::Down | ServerState::RestartedAfterDown => {}
            }
        }
        for group in &view.groups {
            match &group.state {
                GroupState::Stopped | GroupState::Failed { .. } | GroupState::Unknown => {
                    let on = NodeId::BOTH[(now / ACT % 2) as usize];
                    self.command(0, Operation::StartGroup { group: group.id, on });
                }
                GroupState::Held { .. } => self.command(0, Operation::StopGroup { group: group.id }),
                GroupState::Starting
                | GroupState::Running
                | GroupState::Stopping
                | GroupState::Moving { .. } => {}
            }
        }
    }
}
