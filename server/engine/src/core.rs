//! What all parts of the engine share: configuration, clock, outbox, sets, the twin and the witness as they are known.

use crate::action::{Action, ActionId, Step};
use crate::input::Party;
use crate::link::Link;
use crate::membership::Twin;
use crate::sets::{Set, What};
use crate::timing::Timing;
use peer::cluster::{ClusterMessage, Servers};
use peer::control::{DiskOrder, Ticket, ToDisk};
use peer::heartbeat::{ServerEntry, Upkeep};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use wire::alert::EventKind;
use wire::view::{Incident, Readings, ServerState};
use wire::{ClusterConfig, Generation, GroupId, Incarnation, NodeId, SetId, Time, WallClock};

/// Bugs put back on purpose, which the simulator must find. All false in the product.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFaults {
    /// The granter goes on granting after it began to take over.
    pub grant_after_suspect: bool,
    /// Promotion does not wait for the old holder's lease to be out.
    pub promote_without_waiting_lease: bool,
    /// Messages and orders do not wait for the record.
    pub skip_store_before_send: bool,
    /// Re-admission proposes without the sets' switch.
    pub readmit_without_switch: bool,
    /// Acknowledgements are allowed by the known value alone.
    pub ignore_pending: bool,
    /// A holder whose lease is out goes on.
    pub never_fence: bool,
    /// What was told is told again.
    pub repeat_alerts: bool,
}

/// A small generator (splitmix64), seeded by the shell: pauses and ids, nothing secret.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64, life: Incarnation) -> Rng {
        let mut mixed = seed;
        for chunk in life.0.chunks(8) {
            let word = chunk.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
            mixed = mixed.rotate_left(29) ^ word;
        }
        Rng(mixed)
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
    pub(crate) fn generation(&mut self) -> Generation {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        Generation(bytes)
    }
}

/// The witness as this server knows it.
#[derive(Clone, Debug, Default)]
pub struct WitnessLink {
    /// The channel is open.
    pub open: bool,
    /// The life of its memory.
    pub incarnation: Option<Incarnation>,
    /// Groups it has a vote in.
    pub votes: BTreeSet<GroupId>,
    /// Last answer to a ping.
    pub heard: Option<Time>,
    /// Round trip in microseconds, as shown.
    pub round_trip: Option<u64>,
    /// The ping under way.
    pub ping: (u64, Time),
    /// It was reported lost.
    pub reported_lost: bool,
}

/// Everything but the groups.
#[derive(Debug)]
pub struct Core {
    pub me: NodeId,
    pub twin_id: NodeId,
    pub config: ClusterConfig,
    pub timing: Timing,
    pub host: Incarnation,
    pub node: Incarnation,
    pub started: Time,
    pub now: Time,
    /// When this process last woke from a sleep longer than its own timer: messages that came meanwhile are still unread.
    pub woke: Time,
    /// The wall clock at some time, to stamp what happens.
    pub wall: (Time, WallClock),
    pub rng: Rng,
    pub faults: EngineFaults,
    /// Actions of this turn.
    pub out: Vec<Action>,
    pub links: Vec<Link>,
    pub twin: Twin,
    pub twin_channel: bool,
    pub witness: WitnessLink,
    pub servers: BTreeMap<NodeId, ServerEntry>,
    pub sets: BTreeMap<SetId, Set>,
    pub incidents: u64,
    pub incident: Option<Incident>,
    pub readings: Option<Readings>,
    /// News that the twin should hear before the next regular heartbeat.
    pub urgent: bool,
    /// The host's life is another one than the record's, or there is no record: nothing of before runs.
    pub new_host: bool,
    /// [`crate::persist::Record::crashed_in`].
    pub crashed_in: BTreeSet<GroupId>,
    /// This host began a new life after an orderly stop.
    pub booted: bool,
    pub next_ticket: u64,
    pub next_action: u64,
    /// Maintenance.
    pub upkeep: Upkeep,
    /// Where each group is active, as far as this server knows: exclusive groups look at it.
    pub active: BTreeMap<GroupId, NodeId>,
    /// Groups whose sets a change of the configuration concerns that is under way: nobody brings them up meanwhile.
    pub changing: BTreeSet<GroupId>,
    /// Exchanges and releases of disks under way here.
    pub exchanges: BTreeMap<ActionId, (SetId, wire::admin::Act)>,
}

impl Core {
    /// The wall clock at `now`.
    pub fn wall(&self) -> WallClock {
        self.wall_at(self.now)
    }

    /// The wall clock at a time near the present.
    pub fn wall_at(&self, at: Time) -> WallClock {
        let (base, wall) = self.wall;
        if at >= base {
            WallClock(wall.0.saturating_add(at.since(base) / wire::ids::MILLIS))
        } else {
            WallClock(wall.0.saturating_sub(base.since(at) / wire::ids::MILLIS))
        }
    }

    /// A server's state entry.
    pub fn entry(&self, server: NodeId) -> ServerEntry {
        self.servers.get(&server).copied().unwrap_or(ServerEntry {
            version: 0,
            author: NodeId(0),
            server,
            state: ServerState::Normal,
            recovering: false,
            leaving: false,
            since: WallClock(0),
        })
    }

    /// Whether a server may start groups: it takes part, and nobody is stopping it.
    pub fn takes_part(&self, server: NodeId) -> bool {
        let entry = self.entry(server);
        let there = server == self.me || !self.twin.gone;
        entry.state == ServerState::Normal && !entry.leaving && there
    }

    /// Nothing is known of the twin's node process at present.
    pub fn twin_unheard(&self) -> bool {
        self.twin.gone || self.twin.heard.is_none()
    }

    /// Whether a server's copies may be brought up to date.
    pub fn may_be_rebuilt(&self, server: NodeId) -> bool {
        let entry = self.entry(server);
        self.takes_part(server) || entry.recovering && !entry.leaving && !self.twin.gone
    }

    /// Records an event.
    pub fn record_event(&mut self, event: EventKind) {
        self.out.push(Action::Record { event });
    }

    /// Sends a message, if its channel is open.
    pub fn send(&mut self, to: Party, message: ClusterMessage) {
        let open = match to {
            Party::Twin => self.twin_channel,
            Party::Witness => self.witness.open,
        };
        if open {
            self.out.push(Action::Send { to, message, after: None });
        }
    }

    /// Orders something of a set's process, if it is there.
    pub fn order(&mut self, set: SetId, order: DiskOrder, what: What, timeout: u64) -> Option<Ticket> {
        let deadline = self.now.plus(timeout);
        let entry = self.sets.get_mut(&set).filter(|s| s.present)?;
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        entry.expect(ticket, what, deadline);
        self.out.push(Action::OrderDisk { set, order: ToDisk { ticket, order }, after: None });
        Some(ticket)
    }

    /// Does something on this host.
    pub fn perform(&mut self, step: Step, timeout_us: u64) -> ActionId {
        self.next_action += 1;
        let id = ActionId(self.next_action);
        self.out.push(Action::Perform { id, step, timeout_us, after: None });
        id
    }

    /// A pause in microseconds, at random below `most`.
    pub fn pause(&mut self, most: u64) -> u64 {
        most / 6 + self.rng.next() % most.max(1)
    }

    /// The sets of a group, in the order of the configuration.
    pub fn sets_of(&self, group: GroupId) -> Vec<SetId> {
        self.config.sets.iter().filter(|s| s.group == group).map(|s| s.id).collect()
    }

    /// The servers in sync before anything was chosen: where the first build copies from; both for a group without sets.
    pub fn first_in_sync(config: &ClusterConfig, group: GroupId) -> Servers {
        config.sets.iter().find(|s| s.group == group).map_or(Servers::BOTH, |s| Servers::only(s.source))
    }

    /// The witness answers and votes in this group.
    pub fn witness_votes(&self, group: GroupId) -> bool {
        self.witness_up() && self.witness.votes.contains(&group)
    }

    /// The witness answers.
    pub fn witness_up(&self) -> bool {
        let heard = self.witness.heard.is_some_and(|at| self.now.since(at) < crate::timing::WITNESS_LOST);
        self.witness.open && heard
    }

    /// The twin's node process is heard.
    pub fn twin_present(&self) -> bool {
        self.twin.heard.is_some_and(|at| self.now.since(at) < self.timing.suspect) && !self.twin.gone
    }

    /// How long the twin's node process has been silent, in microseconds.
    pub fn twin_silent(&self) -> u64 {
        self.now.since(self.twin.heard.unwrap_or(self.started))
    }

    /// Some disk process of the twin was heard within `within`.
    pub fn blocks_heard(&self, within: u64) -> bool {
        let heard = |set: &Set| {
            let status = set.status.as_ref().filter(|s| set.present && s.linked);
            status.and_then(|s| s.twin_heard).is_some_and(|at| self.now.since(at) < within)
        };
        self.sets.values().any(heard)
    }
}
