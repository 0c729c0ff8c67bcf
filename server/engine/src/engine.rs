//! The engine: owner of everything, one turn at a time.

use crate::action::{Action, StoreToken};
use crate::core::{Core, EngineFaults, Rng, WitnessLink};
use crate::group::Group;
use crate::input::{Input, Party};
use crate::lease::Nonces;
use crate::link::Link;
use crate::membership::Twin;
use crate::persist::Record;
use crate::plan::Is;
use crate::register::RegisterFaults;
use crate::sets::{Set, What};
use crate::timing::{self, Timing};
use peer::cluster::{ClusterMessage, StatusGossip};
use peer::control::{DiskStatus, OrderFault, Role};
use peer::heartbeat::{Heartbeat, Part};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::alert::EventKind;
use wire::view::ServerState;
use wire::{
    ClusterConfig, ClusterView, Event, GroupId, Incarnation, NodeId, Refusal, RefusalKind, Reply, Revision,
    SetId, Time, WallClock,
};

/// Records on their way to the store: it writes one at a time and takes the latest, so that two suffice; more means it hangs.
const STORES_MAX: usize = 64;

/// What an engine starts from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The configuration.
    pub config: ClusterConfig,
    /// This server.
    pub me: NodeId,
    /// What was stored last; the default if nothing was.
    pub record: Record,
    /// The life of this host.
    pub host: Incarnation,
    /// The life of this process.
    pub node: Incarnation,
    /// A random number.
    pub seed: u64,
    /// The wall clock.
    pub wall: WallClock,
}

/// The cluster's brain on one server. One owner; `handle` applies one input, then the shell drains `take_actions` before the
/// next one, and arms one timer for `next_deadline`.
#[derive(Debug)]
pub struct Engine {
    pub(crate) core: Core,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) nonces: Nonces,
    pub(crate) gossip: Option<StatusGossip>,
    pub(crate) events: VecDeque<Event>,
    issued: StoreToken,
    pub(crate) stored: StoreToken,
    last: Record,
    pub(crate) in_flight: VecDeque<(StoreToken, Record)>,
    /// The record as it is stored: all that heartbeats may tell of.
    pub(crate) durable: Record,
    actions: Vec<Action>,
    next_beat: Time,
    last_beat: Time,
    pub(crate) next_gossip: Time,
    pub(crate) gossip_quiet: Time,
    pub(crate) told: Option<StatusGossip>,
    next_report: Time,
    pub(crate) shown: Option<ClusterView>,
    pub(crate) changed: BTreeMap<crate::operator::Subject, Revision>,
    halted: Option<String>,
}

impl Engine {
    /// An engine from what was stored. The first heartbeat is due at once, before the store was touched.
    #[must_use]
    pub fn new(setup: Setup, now: Time) -> Engine {
        let Setup { config, me, record, host, node, seed, wall } = setup;
        let new_host = record.host != Some(host);
        let crashed = new_host && record.host.is_some() && !record.clean;
        let booted = new_host && record.host.is_some() && record.clean;
        let twin = Twin { stored_host: record.twin_host, ..Twin::default() };
        let mut core = Core {
            me,
            twin_id: me.twin(),
            timing: Timing::from(&config.timing),
            links: config.links.iter().map(|l| Link::new(l.id)).collect(),
            config,
            host,
            node,
            started: now,
            now,
            woke: Time(0),
            wall: (now, wall),
            rng: Rng::new(seed, node),
            faults: EngineFaults::default(),
            out: Vec::new(),
            twin,
            twin_channel: false,
            witness: WitnessLink::default(),
            servers: record.servers.clone(),
            sets: BTreeMap::new(),
            incidents: record.incidents,
            incident: record.incident.clone(),
            readings: None,
            urgent: true,
            new_host,
            crashed_in: record.crashed_in.clone(),
            booted,
            next_ticket: 0,
            next_action: 0,
            upkeep: record.upkeep,
            active: BTreeMap::new(),
            changing: BTreeSet::new(),
            exchanges: BTreeMap::new(),
        };
        let before = if new_host { Is::Absent } else { Is::Unknown };
        core.sets = core.config.sets.iter().map(|s| (s.id, Set::new(s.id, s.group, before, now))).collect();
        if crashed || record.host.is_none() {
            // Without a record (a replaced machine) nobody knows what the disks hold either.
            core.crashed_in = core.config.sets.iter().map(|s| s.group).collect();
        }
        if crashed {
            let own = core.entry(me);
            if own.state != ServerState::Stopped || own.recovering {
                core.set_entry(me, ServerState::RestartedAfterDown, false, false);
            }
            core.out.clear();
        }
        if new_host {
            core.record_event(EventKind::ServerUp { server: me });
        }
        let last = Record { version: 0, ..Record::default() };
        let mut engine = Engine {
            core,
            groups: BTreeMap::new(),
            nonces: Nonces::default(),
            gossip: None,
            events: VecDeque::new(),
            issued: StoreToken(0),
            stored: StoreToken(0),
            last,
            in_flight: VecDeque::new(),
            durable: record.clone(),
            actions: Vec::new(),
            next_beat: now,
            last_beat: Time(0),
            next_gossip: now,
            gossip_quiet: now,
            told: None,
            next_report: now,
            shown: None,
            changed: BTreeMap::new(),
            halted: None,
        };
        engine.fit_groups(&record);
        if engine.core.new_host {
            engine.groups.values_mut().for_each(|group| group.end_permission(&mut engine.core));
        }
        engine.restore();
        engine.finish();
        engine
    }

    /// Takes rules out, for the simulator.
    #[doc(hidden)]
    pub fn set_faults(&mut self, faults: EngineFaults) {
        self.core.faults = faults;
        let register = RegisterFaults { ack_by_known: faults.ignore_pending, ..RegisterFaults::default() };
        for group in self.groups.values_mut() {
            group.register.set_faults(register);
        }
    }

    pub(crate) fn fit_groups(&mut self, record: &Record) {
        let configs = self.core.config.groups.clone();
        for config in &configs {
            if !self.groups.contains_key(&config.id) {
                let stored = record.groups.get(&config.id).cloned().unwrap_or_default();
                self.groups.insert(config.id, Group::new(&self.core, config.id, &stored));
            }
            if let Some(group) = self.groups.get_mut(&config.id) {
                group.configure(config);
            }
        }
        // A group that left the configuration is dropped once nothing of it is here.
        let core = &self.core;
        self.groups.retain(|id, group| configs.iter().any(|c| c.id == *id) || group.is_here(core));
    }

    /// Applies one input and restores what must hold.
    pub fn handle(&mut self, input: Input, now: Time) {
        if self.halted.is_some() {
            if let Input::CommandGiven { command } = input {
                let result = Err(Refusal { kind: RefusalKind::EngineHalted });
                self.actions.push(Action::Answer { reply: Reply { id: command.id, result } });
            }
            return;
        }
        let now = now.max(self.core.now);
        if now.since(self.core.now) > self.core.timing.slept {
            self.core.woke = now;
        }
        self.core.now = now;
        // Before anything else: what ran out while this process slept (DESIGN 6).
        for group in self.groups.values_mut() {
            group.judge_lease_first(&mut self.core);
        }
        self.apply(input);
        self.restore();
        self.finish();
    }

    /// What is to be done, in order.
    #[must_use]
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether an operation is possible now.
    ///
    /// # Errors
    /// Why not.
    pub fn possible(&self, what: wire::Operation) -> Result<(), RefusalKind> {
        crate::operator::validate(&self.core, &self.groups, what)
    }

    /// Whether a fresh mirror set may be put into a group, or into a new one.
    ///
    /// # Errors
    /// Why not.
    pub fn may_register(&self, group: Option<GroupId>, source: NodeId) -> Result<(), RefusalKind> {
        crate::admin::may_register(&self.core, &self.groups, group, source)
    }

    /// Whether the write mode of a set can be changed now.
    ///
    /// # Errors
    /// Why not.
    pub fn may_change_mode(&self, set: SetId) -> Result<(), RefusalKind> {
        crate::mode::refused(&self.core, set)
    }

    /// When the engine must be woken at the latest, with `DeadlineReached`.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        if self.halted.is_some() {
            return None;
        }
        let tick = self.core.timing.heartbeat.clamp(timing::TICK_MIN, timing::TICK_MAX);
        let mut due = self.next_beat.min(self.core.now.plus(tick));
        if self.core.urgent {
            due = due.min(self.last_beat.plus(timing::URGENT_PAUSE));
        }
        for group in self.groups.values() {
            let own = group.deadlines(&self.core);
            due = own.into_iter().filter(|at| *at > self.core.now).fold(due, Time::min);
        }
        // Never in the past: a shell that is late must not spin.
        Some(due.max(self.core.now.plus(1_000)))
    }

    /// Why the engine stopped itself.
    #[must_use]
    pub fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// Restores what must hold after an input: silence and states judged, groups advanced, signs of life sent.
    fn restore(&mut self) {
        let awake = self.core.now.since(self.core.woke) >= self.core.timing.wake_grace;
        for link in self.core.links.iter_mut().filter(|_| awake) {
            link.tick(self.core.timing.link_lost, self.core.now);
        }
        self.core.judge_silence();
        let confirmed = self.confirmed();
        let complete = self.complete();
        let expelled = self.expelled(self.core.twin_id);
        // What an administrator uses is not taken from him by a recovery.
        let free = !self.groups.values().any(Group::is_permitted);
        let free = free && !self.core.upkeep.on;
        self.core.judge_states(confirmed && free, complete, expelled && free);
        self.note_whole();
        self.finish_leaving();
        self.late_orders();
        // What a group does may let another of its steps begin in the same turn.
        self.note_active();
        for _ in 0..4 {
            let before = self.core.out.len();
            for group in self.groups.values_mut() {
                let aim = group.aim(&self.core);
                group.turn(&mut self.core, aim);
                group.judge_fencing(&mut self.core);
                group.note_active(&mut self.core);
            }
            if self.core.out.len() == before {
                break;
            }
        }
        self.ping_witness();
        self.ask_reports();
        self.notice();
        self.send_beats();
        self.send_gossip();
    }

    fn note_active(&mut self) {
        for group in self.groups.values() {
            group.note_active(&mut self.core);
        }
        let groups = &self.groups;
        self.core.active.retain(|group, _| groups.contains_key(group));
    }

    /// Copies here that were made equal since this host crashed, or that serve: they are the truth.
    fn note_whole(&mut self) {
        let core = &self.core;
        let whole = |group: &GroupId| {
            let sets = core.sets_of(*group);
            let says = |id: &wire::SetId, what: fn(&DiskStatus) -> bool| {
                core.sets.get(id).filter(|s| s.present).and_then(|s| s.status.as_ref()).is_some_and(what)
            };
            let equal = |id| says(id, |s| s.made_equal);
            let active = |id| says(id, |s| s.role == Role::Active);
            sets.iter().all(equal) || sets.iter().all(active)
        };
        let crashed = core.crashed_in.iter().copied().filter(|group| !whole(group)).collect();
        self.core.crashed_in = crashed;
    }

    /// A quorum showed that this server holds the newest data of some group, or there is no group: its copy is the only one in
    /// sync; or both are, and this one is no worse than the other.
    fn confirmed(&self) -> bool {
        let me = self.core.me;
        let newest = |group: &Group| {
            group.confirmed && group.in_sync().contains(me) && !group.is_worse(&self.core, me)
        };
        self.groups.is_empty() || self.groups.values().any(newest)
    }

    /// No group that is to run counts on a server's copy: a new life of its host may have lost what its disk had not flushed, so
    /// that recovery begins only after it was put out, and ends by its re-admission.
    pub(crate) fn expelled(&self, server: NodeId) -> bool {
        crate::operator::expelled(&self.core, &self.groups, server)
    }

    /// Every group that runs has both copies in sync, so that a recovery is complete.
    fn complete(&self) -> bool {
        let runs = |group: &&Group| group.active_on(&self.core).is_some() || group.aim(&self.core).is_some();
        self.groups.values().filter(runs).all(|group| group.in_sync().count() > 1)
    }

    /// A server that an operator stops is stopped when nothing of a group is here and no holder that runs counts on it.
    fn finish_leaving(&mut self) {
        let me = self.core.me;
        let own = self.core.entry(me);
        if !own.leaving {
            return;
        }
        // Of a twin that is not heard, but not judged either, nobody knows: its disk processes may still count on this copy.
        let judged = self.core.twin.gone && !self.core.blocks_heard(self.core.timing.detect);
        let counts = |group: &Group| {
            // Given up, nothing of it is there.
            let part = self.core.twin.part(group.id);
            let elsewhere = !judged && !matches!(part, Part::Down | Part::GivenUp);
            group.is_here(&self.core)
                || group.running.is_some()
                || elsewhere && group.in_sync().contains(me) && group.register.known().holder != Some(me)
                || group.register.known().holder == Some(me)
                    && group.aim(&self.core).is_some_and(|aim| aim != me)
        };
        if !self.groups.values().any(counts) {
            self.core.set_entry(me, ServerState::Stopped, false, false);
        }
    }

    fn late_orders(&mut self) {
        let now = self.core.now;
        let mut late = Vec::new();
        for (id, set) in &mut self.core.sets {
            late.extend(set.take_expired(now).into_iter().map(|(_, what)| (*id, what)));
        }
        for (id, what) in late {
            let reason = "no answer in time".to_string();
            self.disk_answered(id, what, Err(OrderFault::Io { reason }));
        }
    }

    fn ping_witness(&mut self) {
        let now = self.core.now;
        if !self.core.witness.open || now.since(self.core.witness.ping.1) < timing::WITNESS_PING {
            return;
        }
        // An unanswered ping stays valid for its number only; the next one replaces it.
        let number = self.core.witness.ping.0 + 1;
        self.core.witness.ping = (number, now);
        self.core.send(Party::Witness, ClusterMessage::Ping { number });
    }

    /// Keeps statuses fresh: while heartbeats are silent they decide, otherwise they show progress.
    fn ask_reports(&mut self) {
        let now = self.core.now;
        if now < self.next_report {
            return;
        }
        let silent = self.core.twin_silent() >= self.core.timing.suspect / 2;
        self.next_report = now.plus(if silent { timing::REPORT_SILENT } else { timing::REPORT_QUIET });
        let present: Vec<SetId> = self.core.sets.values().filter(|s| s.present).map(|s| s.id).collect();
        for set in present {
            self.core.order(set, peer::control::DiskOrder::Report, What::Standing, timing::step::ORDER);
        }
    }

    fn send_beats(&mut self) {
        let now = self.core.now;
        let brought_forward = self.core.urgent && now >= self.last_beat.plus(timing::URGENT_PAUSE);
        if now < self.next_beat && !brought_forward {
            return;
        }
        self.core.urgent = false;
        self.last_beat = now;
        self.next_beat = now.plus(self.core.timing.heartbeat);
        let nonce = self.nonces.next(now);
        let grant = crate::lease::grant(&self.core, &mut self.groups);
        let beat = crate::beat::compose(&self.core, &self.groups, &self.durable, nonce, grant);
        for link in &mut self.core.links {
            let (sequence, echo) = link.next_beat(now);
            let beat = Heartbeat { sequence, echo, ..beat.clone() };
            self.core.out.push(Action::SendHeartbeat { link: link.id, beat });
        }
    }

    /// The record as it should be.
    pub(crate) fn record(&self) -> Record {
        let own = self.core.entry(self.core.me);
        let mut record = Record {
            host: Some(self.core.host),
            twin_host: self.core.twin.stored_host,
            crashed_in: self.core.crashed_in.clone(),
            // Stopped in order, or still waiting to be started after that.
            clean: own.state == ServerState::Stopped && !own.recovering,
            servers: self.core.servers.clone(),
            incidents: self.core.incidents,
            incident: self.core.incident.clone(),
            upkeep: self.core.upkeep,
            ..Record::default()
        };
        record.groups = self.groups.iter().map(|(id, group)| (*id, group.record())).collect();
        record
    }

    /// Ends a turn: checks the invariants, issues the record if it changed, and lets what depends on it wait for it.
    fn finish(&mut self) {
        if let Err(name) = crate::invariants::check(&self.core, &self.groups, &self.last) {
            self.core.record_event(EventKind::InvariantBroken { name: name.to_string() });
            // Only the notice leaves: nothing that a broken state asked for.
            let notice = self.core.out.pop();
            self.core.out.clear();
            self.actions.extend(notice);
            return self.halt(name);
        }
        let record = self.record();
        if record != self.last {
            self.issued = StoreToken(self.issued.0 + 1);
            self.actions.push(Action::Store { token: self.issued, record: record.clone() });
            self.in_flight.push_back((self.issued, record.clone()));
            self.last = record;
            if self.in_flight.len() > STORES_MAX {
                return self.halt("the store does not answer");
            }
        }
        let waiting =
            (self.issued > self.stored && !self.core.faults.skip_store_before_send).then_some(self.issued);
        for mut action in std::mem::take(&mut self.core.out) {
            gate(&mut action, waiting);
            self.actions.push(action);
        }
    }

    pub(crate) fn halt(&mut self, reason: &str) {
        self.halted = Some(reason.to_string());
    }

    /// The record whose durability was confirmed last.
    #[doc(hidden)]
    #[must_use]
    pub fn durable(&self) -> &Record {
        &self.durable
    }
}

/// Everything waits for the latest record, except what only takes rights away, renews them, or asks.
fn gate(action: &mut Action, waiting: Option<StoreToken>) {
    use crate::action::Step;
    use peer::control::DiskOrder;
    match action {
        Action::Send { after, .. } => *after = waiting,
        Action::OrderDisk { order, after, .. } => {
            let free = matches!(
                order.order,
                DiskOrder::Lease { .. } | DiskOrder::Grant { .. } | DiskOrder::Fence | DiskOrder::Report
            );
            *after = if free { None } else { waiting };
        }
        Action::Perform { step, after, .. } => {
            let free = matches!(
                step,
                Step::Kill { .. } | Step::RemoveAddress { .. } | Step::Unmount { .. } | Step::Observe { .. }
            );
            *after = if free { None } else { waiting };
        }
        Action::Store { .. }
        | Action::SendHeartbeat { .. }
        | Action::Record { .. }
        | Action::Keep { .. }
        | Action::Answer { .. } => {}
    }
}
