//! The node process's shell: performs an engine's actions on the simulated store, network and kernel.

use crate::app::App;
use crate::machines::ADDRESS_LIFETIME;
use crate::net::Machine;
use crate::trace::{Column, Detail};
use crate::world::{Event, Failure, Packet, World};
use engine::action::{ActionId, Step, StoreToken};
use engine::input::{Outcome, Party};
use engine::{Action, Input, Record};
use peer::cluster::ClusterMessage;
use peer::control::DiskOrder;
use std::rc::Rc;
use wire::{Command, CommandId, Event as Recorded, EventKind, GroupId, Operation, Revision, WallClock};

/// Of a store, in microseconds: mostly one flush of the disk.
const STORE: (u64, u64) = (300, 9_000);
/// Of a step on the host.
const STEP: (u64, u64) = (2_000, 80_000);
/// More events than this of one node process are a storm (invariant 10).
const EVENTS_MAX: u64 = 2_000;
/// Tells one step in so many that it failed, while faults are about.
const STEP_FAILS_PER_MILLE: u64 = 4;

impl World {
    /// One turn of an engine.
    pub fn engine_input(&mut self, host: usize, input: Input) {
        let time = self.hosts[host].time(self.queue.now());
        let Some(node) = self.hosts[host].node.as_mut() else { return };
        let process = node.process;
        node.engine.handle(input, time);
        self.drain_engine(host, process);
    }

    /// Performs what an engine has queued, and sets its next waking.
    pub fn drain_engine(&mut self, host: usize, process: u64) {
        let Some(node) = self.hosts[host].node.as_mut().filter(|n| n.process == process) else { return };
        if let Some(why) = node.engine.halted() {
            let why = format!("engine of server{} halted: {why}", host + 1);
            return self.fail_with(Failure::Crash(why));
        }
        for action in node.engine.take_actions() {
            self.engine_acts(host, action);
        }
        let now = self.queue.now();
        let clock = self.hosts[host].clock;
        let Some(node) = self.hosts[host].node.as_mut().filter(|n| n.process == process) else { return };
        let Some(deadline) = node.engine.next_deadline() else { return };
        let at = clock.moment(deadline).max(now + 1);
        if node.wake.is_none_or(|wake| wake > at || wake <= now) {
            node.wake = Some(at);
            self.queue.at(at, Event::NodeWake { host, process, at });
        }
    }

    /// An engine's deadline.
    pub fn node_wakes(&mut self, host: usize, process: u64, at: u64) {
        let Some(node) =
            self.hosts[host].node.as_mut().filter(|n| n.process == process && n.wake == Some(at))
        else {
            return;
        };
        node.wake = None;
        self.engine_input(host, Input::DeadlineReached);
    }

    fn engine_acts(&mut self, host: usize, action: Action) {
        let after = match &action {
            Action::Send { after, .. } | Action::OrderDisk { after, .. } | Action::Perform { after, .. } => {
                *after
            }
            Action::Store { .. }
            | Action::SendHeartbeat { .. }
            | Action::Record { .. }
            | Action::Keep { .. }
            | Action::Answer { .. } => None,
        };
        let Some(node) = self.hosts[host].node.as_mut() else { return };
        match after {
            Some(token) if token > node.stored => node.waiting.push((token, action)),
            _ => self.perform_engine(host, action),
        }
    }

    fn perform_engine(&mut self, host: usize, action: Action) {
        let now = self.queue.now();
        match action {
            Action::Store { token, record } => self.store(host, token, record),
            Action::SendHeartbeat { link, beat } => {
                self.check_beat(host, &beat);
                let (from, to) = (self.hosts[host].machine(), self.hosts[1 - host].machine());
                let Some(node) = self.hosts[host].node.as_mut() else { return };
                node.counter += 1;
                let counter = node.counter;
                if let Some(delay) = self.net.datagram(link, from, to) {
                    let beat = Rc::new(beat);
                    if let Some(late) = self.net.echo(link) {
                        let beat = Rc::clone(&beat);
                        let event = Event::Datagram { host: 1 - host, link, beat, counter };
                        self.queue.after(delay + late, event);
                    }
                    let event = Event::Datagram { host: 1 - host, link, beat, counter };
                    self.queue.after(delay, event);
                }
            }
            Action::Send { to, message, .. } => self.send_cluster(host, to, message),
            Action::OrderDisk { set, order, .. } => self.order_disk(host, set, order),
            Action::Perform { id, step, timeout_us, .. } => self.begin_step(host, id, step, timeout_us),
            Action::Record { event } => self.record_event(host, event),
            Action::Keep { event } => self.recorded_later(host, event),
            Action::Answer { reply } => {
                self.trace
                    .step(now, Column::Server(host), || format!("answer {}: {:?}", reply.id, reply.result));
                match self.hosts[host].node.as_mut().and_then(|n| n.commands.remove(&reply.id)) {
                    Some(Operation::RecoverServer { server }) if reply.result.is_ok() => {
                        self.excuse(host, server)
                    }
                    Some(_) => {}
                    None => self.fail(9, format!("server{} answers {} twice or unasked", host + 1, reply.id)),
                }
            }
        }
    }

    fn record_event(&mut self, host: usize, kind: EventKind) {
        let now = self.queue.now();
        self.trace.step(now, Column::Server(host), || format!("event: {kind:?}"));
        if let EventKind::InvariantBroken { name } = &kind {
            let text = format!("engine of server{}: {name}", host + 1);
            return self.fail_with(Failure::Crash(text));
        }
        self.check_alert(host, &kind);
        let origin = self.hosts[host].id;
        let Some(node) = self.hosts[host].node.as_mut() else { return };
        node.events += 1;
        let number = self.checks.next_event();
        let event = Recorded { origin, number, at: WallClock(now / 1000), kind };
        let storm = node.events > EVENTS_MAX;
        self.expect(!storm, || {
            format!("server{} records more than {EVENTS_MAX} events, the last {:?}", host + 1, event.kind)
        });
        self.recorded_later(host, event);
    }

    fn recorded_later(&mut self, host: usize, event: Recorded) {
        let delay = self.rng.range(STORE.0, STORE.1);
        let Some(process) = self.hosts[host].node.as_ref().map(|n| n.process) else { return };
        self.queue.after(delay, Event::Recorded { host, process, event: Box::new(event) });
    }

    /// The store has given an event its number.
    pub fn recorded(&mut self, host: usize, process: u64, event: Recorded) {
        if self.hosts[host].node.as_ref().is_some_and(|n| n.process == process) {
            self.engine_input(host, Input::EventRecorded { event });
        }
    }

    fn send_cluster(&mut self, host: usize, to: Party, message: ClusterMessage) {
        let now = self.queue.now();
        self.check_message(host, &message);
        if self.trace.wants(Detail::Steps) {
            let text = match &message {
                ClusterMessage::Register { group, message } => Some(format!("-> {to:?} {group} {message:?}")),
                ClusterMessage::Introduce { groups, .. } => Some(format!("-> {to:?} Introduce {groups:?}")),
                ClusterMessage::Hello { .. }
                | ClusterMessage::WitnessSays { .. }
                | ClusterMessage::Status(_)
                | ClusterMessage::Events { .. }
                | ClusterMessage::ConfigOffer { .. }
                | ClusterMessage::ConfigTaken { .. }
                | ClusterMessage::ConfigRefused { .. }
                | ClusterMessage::Ping { .. }
                | ClusterMessage::Pong { .. } => None,
            };
            if let Some(text) = text {
                self.trace.step(now, Column::Server(host), || text);
            }
        }
        let Some(node) = self.hosts[host].node.as_ref() else { return };
        let channel = match to {
            Party::Twin => node.twin,
            Party::Witness => node.witness,
        };
        if let Some((conn, end)) = channel {
            self.send(conn, 1 - end, Packet::Cluster(Box::new(message)));
        }
    }

    fn store(&mut self, host: usize, token: StoreToken, record: Record) {
        let delay = self.rng.range(STORE.0, STORE.1);
        let Some(node) = self.hosts[host].node.as_mut() else { return };
        if node.storing.is_some() {
            node.store_next = Some((token, record));
            return;
        }
        node.storing = Some((token, record));
        let process = node.process;
        self.queue.after(delay, Event::Stored { host, process });
    }

    /// A store is done: what waited for it goes on.
    pub fn stored(&mut self, host: usize, process: u64) {
        let Some(node) = self.hosts[host].node.as_mut().filter(|n| n.process == process) else { return };
        let Some((token, record)) = node.storing.take() else { return };
        node.stored = token;
        let next = node.store_next.take();
        let (ready, waiting) = std::mem::take(&mut node.waiting).into_iter().partition(|(t, _)| *t <= token);
        node.waiting = waiting;
        let ready: Vec<(StoreToken, Action)> = ready;
        self.check_record(host, &record);
        self.hosts[host].record = Some(record);
        self.note_registers();
        if let Some((token, record)) = next {
            self.store(host, token, record);
        }
        for (_, action) in ready {
            self.perform_engine(host, action);
        }
        self.engine_input(host, Input::Stored { token });
    }

    fn begin_step(&mut self, host: usize, id: ActionId, step: Step, timeout_us: u64) {
        let now = self.queue.now();
        self.trace.step(now, Column::Server(host), || format!("step {}: {step:?}", id.0));
        let fails = self.plan.is_on(now) && self.rng.per_mille(STEP_FAILS_PER_MILLE);
        let delay = self.rng.range(STEP.0, STEP.1).min(timeout_us);
        let boots = self.hosts[host].boots;
        let Some(node) = self.hosts[host].node.as_mut() else { return };
        if !node.steps.insert(id) {
            return self.fail(9, format!("server{} uses {id:?} twice", host + 1));
        }
        let process = node.process;
        let mut at = now + delay;
        if let Step::AddAddress { group, .. }
        | Step::RemoveAddress { group, .. }
        | Step::Announce { group, .. } = &step
        {
            let due = node.address_due.entry(*group).or_default();
            at = at.max(*due + 1);
            *due = at;
        }
        self.queue.at(at, Event::StepDone { host, boots, process, id, step: Box::new(step), fails });
    }

    /// A person recovers a server whose twin cannot be heard, or does not take part itself: whatever the twin holds
    /// unflushed is given up.
    fn excuse(&mut self, at: usize, server: wire::NodeId) {
        let page = self.hosts[at].node.as_ref().and_then(|n| n.page.as_ref());
        let normal = page.is_some_and(|page| {
            page.servers.iter().any(|s| s.id == server.twin() && s.state == wire::view::ServerState::Normal)
        });
        let (own, twin) = (Machine::of(server), Machine::of(server.twin()));
        let host = &self.hosts[twin.index()];
        let links = [wire::LinkId(0), wire::LinkId(1), crate::net::PUBLIC];
        let heard = host.powered
            && host.node.is_some()
            && self.queue.now() >= host.frozen_until
            && self.net.route(&links, own, twin).is_some();
        if !heard || !normal {
            let bit = host.bit();
            for oracle in self.oracles.values() {
                oracle.borrow_mut().power_lost(bit);
            }
        }
    }

    /// A step takes effect. What the node process does by itself ends with it; mounts and scripts go on without it.
    pub fn step_done(&mut self, host: usize, process: u64, id: ActionId, step: &Step, fails: bool) {
        let now = self.queue.now();
        let alive = self.hosts[host].node.as_ref().is_some_and(|n| n.process == process);
        let own = matches!(
            step,
            Step::AddAddress { .. }
                | Step::RemoveAddress { .. }
                | Step::Announce { .. }
                | Step::ProbeAddress { .. }
        );
        if own && !alive {
            return;
        }
        let outcome = if fails {
            Outcome::Failed { reason: "simulated".into() }
        } else {
            self.hosts[host].kernel.expire(now);
            self.apply_step(host, step)
        };
        self.trace.step(now, Column::Server(host), || format!("step {} {outcome:?}", id.0));
        let frozen = self.hosts[host].frozen_until;
        if now < frozen {
            self.queue.at(frozen, Event::Outcome { host, process, id, outcome });
        } else {
            self.outcome_arrived(host, process, id, outcome);
        }
    }

    /// The engine learns what became of a step.
    pub fn outcome_arrived(&mut self, host: usize, process: u64, id: ActionId, outcome: Outcome) {
        if self.hosts[host].node.as_ref().is_some_and(|n| n.process == process) {
            self.engine_input(host, Input::Performed { id, outcome });
        }
    }

    fn apply_step(&mut self, host: usize, step: &Step) -> Outcome {
        self.check_order(host, step);
        let now = self.queue.now();
        match step {
            Step::Mount { group, set, .. } => {
                let Some(device) = self.hosts[host].disks.get(set).filter(|d| d.front).map(|d| d.process)
                else {
                    return Outcome::Failed { reason: "no such device".into() };
                };
                self.hosts[host].kernel.mounts.insert((*group, *set), device);
            }
            Step::Unmount { group, set, force } => {
                let busy = self.hosts[host].kernel.apps.contains_key(group);
                if busy && !force {
                    return Outcome::Failed { reason: "the file system is in use".into() };
                }
                let requests = self.hosts[host].disks.get(set).is_some_and(|d| !d.requests.is_empty());
                if (requests || self.hosts[host].kernel.held.contains_key(set)) && !force {
                    return Outcome::Unknown { reason: "input and output hangs".into() };
                }
                self.hosts[host].kernel.mounts.remove(&(*group, *set));
                self.hosts[host].kernel.apps.remove(group);
            }
            Step::ProbeAddress { group, .. } => {
                let public = crate::net::PUBLIC;
                let (from, to) = (self.hosts[host].machine(), self.hosts[1 - host].machine());
                let reachable = self.net.is_open(public, from, to) && self.net.is_open(public, to, from);
                self.hosts[1 - host].kernel.expire(now);
                let there = self.hosts[1 - host].kernel.addresses.keys().any(|(g, _)| g == group);
                if reachable && there {
                    return Outcome::AddressInUse { by: "the twin".into() };
                }
            }
            Step::AddAddress { group, address } => {
                self.hosts[host].kernel.addresses.insert((*group, *address), now + ADDRESS_LIFETIME);
                self.check_addresses(host, *group);
            }
            Step::Announce { .. } => {}
            Step::RemoveAddress { group, address } => {
                let _ = self.hosts[host].kernel.addresses.remove(&(*group, *address));
            }
            Step::StartScript { group, .. } => self.start_app(host, *group),
            Step::StopScript { group } | Step::Kill { group } => {
                drop(self.hosts[host].kernel.apps.remove(group))
            }
            Step::Observe { group } => return self.observe(host, *group),
            // No operator of the simulator exchanges disks.
            Step::ExchangeDisk { .. } | Step::ReleaseSet { .. } => {
                return Outcome::Failed { reason: "not simulated".into() };
            }
        }
        Outcome::Done
    }

    fn start_app(&mut self, host: usize, group: GroupId) {
        if self.hosts[host].kernel.apps.get(&group).is_some_and(|a| !a.broken) {
            return;
        }
        let life = self.fresh_process();
        let sets = self.sets_of(group);
        self.hosts[host].kernel.apps.insert(group, App::new(life, sets));
        self.queue.after(1_000, Event::App { host, group, life });
    }

    fn observe(&self, host: usize, group: GroupId) -> Outcome {
        let kernel = &self.hosts[host].kernel;
        let sets = self.sets_of(group);
        Outcome::Observed {
            mounted: sets.iter().all(|s| kernel.mounts.contains_key(&(group, *s))),
            addressed: kernel.addresses.keys().any(|(g, _)| *g == group),
            processes: kernel.apps.contains_key(&group),
        }
    }

    /// An operator orders something at a server, with the revision its page shows.
    pub fn command(&mut self, host: usize, what: Operation) {
        let now = self.queue.now();
        if now < self.hosts[host].frozen_until {
            return;
        }
        self.check_feed(host);
        self.next_command += 1;
        let id = CommandId(self.next_command);
        self.trace.step(now, Column::Client, || format!("operator at server{}: {id} {what:?}", host + 1));
        let Some(node) = self.hosts[host].node.as_mut() else { return };
        let revision: Revision = node.page.as_ref().map(|page| page.revision).unwrap_or_default();
        node.commands.insert(id, what);
        self.engine_input(host, Input::CommandGiven { command: Command { id, revision, what } });
    }

    /// Whether an order renews a lease, for the trace.
    #[must_use]
    pub fn is_routine(order: &DiskOrder) -> bool {
        matches!(order, DiskOrder::Lease { .. } | DiskOrder::Report | DiskOrder::Grant { .. })
    }

    /// The machine of a host by index.
    #[must_use]
    pub fn machine(&self, host: usize) -> Machine {
        self.hosts[host].machine()
    }
}
