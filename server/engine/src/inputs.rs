//! What each input changes, before the engine restores what must hold.

use crate::action::{Action, StoreToken};
use crate::engine::Engine;
use crate::group::Group;
use crate::input::{Input, Party};
use crate::link::Link;
use crate::plan::Is;
use crate::sets::{Set, What};
use crate::timing::Timing;
use peer::cluster::{ClusterMessage, Introduction};
use peer::control::{FromDisk, OrderFault};
use peer::heartbeat::Heartbeat;
use wire::alert::EventKind;
use wire::limits::VIEW_EVENTS_MAX;
use wire::{ClusterConfig, Event, Incarnation, LinkId, NodeId, SetId, Time};

/// Events of one message that are kept; the shell sends what was missed in several.
const EVENTS_MAX: usize = 256;

impl Engine {
    pub(crate) fn apply(&mut self, input: Input) {
        match input {
            Input::HeartbeatReceived { link, beat } => self.heard(link, &beat),
            Input::CarrierChanged { link, present } => {
                if let Some(path) = self.core.links.iter_mut().find(|l| l.id == link) {
                    path.carrier = present;
                }
            }
            Input::ChannelChanged { party, open } => self.channel(party, open),
            Input::MessageReceived { from, message } => self.message(from, message),
            Input::Stored { token } => self.record_stored(token),
            Input::StoreFailed { .. } => self.halt("the store failed"),
            Input::Performed { id, outcome } => {
                let core = &mut self.core;
                let _ = core.exchanged(id, &outcome)
                    || self.groups.values_mut().any(|group| group.performed(core, id, &outcome));
            }
            Input::DiskPresent { set, present } => self.disk_present(set, present),
            Input::DiskSaid { set, said } => self.disk_said(set, said),
            Input::CommandGiven { command } => self.command(&command),
            Input::BackingChanged { set } => {
                let server = self.core.me;
                self.core.record_event(EventKind::BackingChanged { set, server });
            }
            Input::ConfigChanged { config } => self.configure(config),
            Input::ChangeBegan { groups } => self.core.changing = groups,
            Input::ReadingsTaken { readings } => self.core.readings = Some(readings),
            Input::EventRecorded { event } => self.event_recorded(event),
            Input::DeadlineReached => {}
        }
    }

    fn heard(&mut self, link: LinkId, beat: &Heartbeat) {
        let value = |group: &Group| {
            let known = group.register.known();
            (known.epoch, known.holder)
        };
        let known = self.groups.iter().map(|(id, group)| (*id, value(group))).collect();
        if !self.core.hear(link, beat, &known) {
            return;
        }
        if self.core.twin.nonce.is_some_and(|(node, nonce, _)| (node, nonce) == (beat.node, beat.nonce)) {
            self.note_whole_copies(beat);
        }
        self.core.upkeep = self.core.upkeep.max(beat.upkeep);
        for group in self.groups.values_mut() {
            group.take_grant(beat, &self.nonces, &self.core);
            let told = beat.groups.iter().find(|g| g.group == group.id);
            if let Some(told) =
                told.filter(|t| t.wanted > group.wanted && NodeId::BOTH.contains(&t.wanted.on))
            {
                group.wanted = told.wanted;
                if !told.wanted.run {
                    // An operator stops it: what is held is tried once more.
                    group.held = None;
                }
            }
        }
    }

    /// What the twin's latest heartbeat says of the copies: its own, and the ones here.
    fn note_whole_copies(&mut self, beat: &Heartbeat) {
        self.core.twin.crashed_in = beat.groups.iter().filter(|g| !g.says.whole).map(|g| g.group).collect();
        // Said of this life: a grant names the life that the twin believes in, not only one it has heard of.
        let of_this_life = beat.grant.is_some_and(|grant| grant.node == self.core.node);
        for told in beat.groups.iter().filter(|told| told.says.twin_whole && of_this_life) {
            let known = self.groups.get(&told.group).map(|group| group.register.known());
            if known.is_some_and(|v| v.epoch == told.epoch && v.holder == Some(beat.from)) {
                self.core.crashed_in.remove(&told.group);
            }
        }
    }

    fn channel(&mut self, party: Party, open: bool) {
        match party {
            Party::Twin => {
                self.core.twin_channel = open;
                self.next_gossip = self.core.now;
                self.gossip_quiet = self.core.now;
                if !open {
                    return;
                }
                for group in self.groups.values_mut() {
                    group.confirmed = false;
                    group.asked_at = Time(0);
                    group.told_at = Time(0);
                }
                let own = self.events.iter().filter(|e| e.origin == self.core.me).rev().cloned().collect();
                self.core.send(Party::Twin, ClusterMessage::Events { events: own });
            }
            Party::Witness => {
                self.core.witness.open = open;
                self.core.witness.votes.clear();
                self.core.witness.incarnation = None;
                self.core.witness.heard = open.then_some(self.core.now);
                self.core.witness.ping.1 = Time(0);
            }
        }
    }

    fn message(&mut self, from: Party, message: ClusterMessage) {
        match (from, message) {
            (from, ClusterMessage::Register { group, message }) => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.register_message(&mut self.core, from, message);
                }
            }
            (Party::Witness, ClusterMessage::WitnessSays { incarnation, votes }) => {
                self.core.witness.incarnation = Some(incarnation);
                self.core.witness.votes = votes.into_iter().take(wire::limits::GROUPS_MAX).collect();
                self.introduce(incarnation);
            }
            (Party::Witness, ClusterMessage::Pong { number }) => self.ponged(number),
            (Party::Twin, ClusterMessage::Status(gossip)) => {
                self.take_gossip(*gossip);
            }
            (Party::Twin, ClusterMessage::Events { events }) => {
                let foreign = events.into_iter().filter(|e| e.origin == self.core.twin_id);
                self.core.out.extend(foreign.take(EVENTS_MAX).map(|event| Action::Keep { event }));
            }
            // Greetings, configurations and pings between the servers are the shell's business.
            _ => {}
        }
    }

    /// The witness lacks groups: it hears this server's acceptors (ARCHITECTURE "The register").
    fn introduce(&mut self, witness: Incarnation) {
        let missing = self.groups.values().filter(|g| !self.core.witness.votes.contains(&g.id));
        let introduction = |group: &Group| {
            let acceptor = group.register.record().acceptor;
            Introduction { group: group.id, promised: acceptor.promised, accepted: acceptor.accepted }
        };
        let groups: Vec<Introduction> = missing.map(introduction).collect();
        if !groups.is_empty() {
            self.core.send(Party::Witness, ClusterMessage::Introduce { witness, groups });
        }
    }

    fn ponged(&mut self, number: u64) {
        let now = self.core.now;
        let witness = &mut self.core.witness;
        if witness.ping.0 != number {
            return;
        }
        witness.heard = Some(now);
        let trip = now.since(witness.ping.1);
        let near = witness.round_trip.is_some_and(|shown| trip.abs_diff(shown) * 2 <= shown + 200);
        if !near {
            witness.round_trip = Some(trip);
        }
    }

    fn record_stored(&mut self, token: StoreToken) {
        self.stored = self.stored.max(token);
        while self.in_flight.front().is_some_and(|(t, _)| *t <= token) {
            if let Some((_, record)) = self.in_flight.pop_front() {
                self.durable = record;
                self.core.urgent = true;
            }
        }
    }

    fn disk_present(&mut self, id: SetId, present: bool) {
        let now = self.core.now;
        let Some(set) = self.core.sets.get_mut(&id) else { return };
        set.set_present(present, now);
        let group = set.group;
        if let Some(group) = self.groups.get_mut(&group) {
            group.disk_gone(&mut self.core, id);
        }
    }

    fn disk_said(&mut self, id: SetId, said: FromDisk) {
        let now = self.core.now;
        let Some(set) = self.core.sets.get_mut(&id).filter(|s| s.present) else { return };
        match said {
            FromDisk::Status(status) => set.note_status(*status, now),
            FromDisk::Done { ticket, result } => {
                let Some(what) = set.finish(ticket, &result, now) else { return };
                self.disk_answered(id, what, result.map(|_| ()));
            }
        }
    }

    pub(crate) fn disk_answered(&mut self, id: SetId, what: What, result: Result<(), OrderFault>) {
        let Some(group) = self.core.sets.get(&id).map(|s| s.group) else { return };
        let Some(group) = self.groups.get_mut(&group) else { return };
        match what {
            What::Step => group.step_ordered(&mut self.core, id, &result),
            What::Readmit => group.readmit_answered(&mut self.core, result.is_ok()),
            What::Shoulder => group.shoulder_answered(&mut self.core, result.is_ok()),
            What::PutOut | What::StopGrant | What::Fence | What::Lease | What::Standing => {}
        }
    }

    fn configure(&mut self, config: ClusterConfig) {
        if config.version < self.core.config.version {
            return;
        }
        let now = self.core.now;
        self.core.record_event(EventKind::ConfigApplied { version: config.version });
        let lacks = |one: &ClusterConfig, id: SetId| one.set(id).is_none();
        let new = config.sets.iter().filter(|set| lacks(&self.core.config, set.id));
        let new = new.map(|set| EventKind::SetRegistered { set: set.id, name: set.name.clone() });
        let gone = self.core.config.sets.iter().filter(|set| lacks(&config, set.id));
        let gone = gone.map(|set| EventKind::SetReleased { set: set.id, name: set.name.clone() });
        let changed = config.sets.iter().filter_map(|set| {
            let (before, mode) = (self.core.config.set(set.id)?.traffic.mode, set.traffic.mode);
            (before != mode).then_some(EventKind::ModeChanged { set: set.id, mode })
        });
        // Told once for both servers.
        let told: Vec<EventKind> =
            new.chain(gone).chain(changed).filter(|_| self.core.me == NodeId(1)).collect();
        told.into_iter().for_each(|event| self.core.record_event(event));
        self.core.timing = Timing::from(&config.timing);
        let mut links: Vec<Link> = config.links.iter().map(|l| Link::new(l.id)).collect();
        if self.core.config.links == config.links {
            links = std::mem::take(&mut self.core.links);
        }
        self.core.links = links;
        self.core.config = config;
        let sets = self.core.config.sets.clone();
        for set in &sets {
            let fresh = || Set::new(set.id, set.group, Is::Absent, now);
            self.core.sets.entry(set.id).or_insert_with(fresh).group = set.group;
        }
        self.core.sets.retain(|id, set| set.present || sets.iter().any(|s| s.id == *id));
        let record = self.record();
        self.fit_groups(&record);
        if let Some(incarnation) = self.core.witness.incarnation {
            self.introduce(incarnation);
        }
    }

    fn event_recorded(&mut self, event: Event) {
        if self.events.iter().any(|e| (e.origin, e.number) == (event.origin, event.number)) {
            return;
        }
        if event.origin == self.core.me {
            self.core.send(Party::Twin, ClusterMessage::Events { events: vec![event.clone()] });
        }
        let key = |e: &Event| (e.at, e.origin, e.number);
        let place = self.events.iter().position(|e| key(e) < key(&event)).unwrap_or(self.events.len());
        self.events.insert(place, event);
        self.events.truncate(VIEW_EVENTS_MAX);
    }
}
