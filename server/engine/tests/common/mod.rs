//! Two engines and a witness with instant fake disks and hosts: the cluster's brain without a cluster.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's world may fail the test")]

mod parts;

use engine::action::Step;
use engine::input::{Outcome, Party};
use engine::witness::{WitnessAction, WitnessRecord};
use engine::{Action, Engine, Input, Record, Setup, Witness};
use peer::control::{DiskOrder, DiskStatus, Done, FromDisk, OrderFault, Role, ToDisk};
use std::collections::{BTreeMap, BTreeSet};
use wire::view::{ClusterView, GroupState, ServerState};
use wire::*;

pub use parts::{Disk, config};

pub const S1: NodeId = NodeId(1);
pub const S2: NodeId = NodeId(2);
pub const GROUP: GroupId = GroupId(1);
pub const MS: u64 = 1_000;

pub struct Host {
    pub engine: Option<Engine>,
    pub record: Record,
    pub host: Incarnation,
    pub up: bool,
    pub disks: BTreeMap<SetId, Disk>,
    pub mounted: BTreeSet<SetId>,
    pub addresses: BTreeSet<std::net::IpAddr>,
    pub running: BTreeSet<GroupId>,
    pub log: Vec<String>,
    pub events: Vec<Event>,
    pub replies: Vec<Reply>,
    pub fail: BTreeMap<String, Outcome>,
    /// Steps that fail so many times, by name and group.
    pub fails: BTreeMap<(String, GroupId), u32>,
    /// Steps that are never answered.
    pub hangs: BTreeSet<(String, GroupId)>,
    pub lost: BTreeSet<SetId>,
    number: u64,
}

pub struct World {
    pub now: Time,
    pub config: ClusterConfig,
    pub hosts: BTreeMap<NodeId, Host>,
    pub witness: Option<Witness>,
    pub witness_record: Option<WitnessRecord>,
    pub witness_reach: BTreeSet<NodeId>,
    /// Links that carry nothing.
    pub cut: BTreeSet<LinkId>,
    /// Addresses that a machine outside the cluster has.
    pub strangers: BTreeSet<std::net::IpAddr>,
    /// Longest step of time, in microseconds.
    pub grain: u64,
    /// Cluster channel and block links between the servers work.
    pub connected: bool,
    lives: u8,
    queue: std::collections::VecDeque<(NodeId, Input)>,
    command: u64,
}

impl World {
    pub fn new(config: ClusterConfig) -> World {
        let host = |n: u8, config: &ClusterConfig| Host {
            engine: None,
            record: Record::default(),
            host: Incarnation([n; 16]),
            up: false,
            disks: config.sets.iter().map(|s| (s.id, Disk::new())).collect(),
            mounted: BTreeSet::new(),
            addresses: BTreeSet::new(),
            running: BTreeSet::new(),
            log: Vec::new(),
            events: Vec::new(),
            replies: Vec::new(),
            fail: BTreeMap::new(),
            fails: BTreeMap::new(),
            hangs: BTreeSet::new(),
            lost: BTreeSet::new(),
            number: 0,
        };
        let hosts = [(S1, host(1, &config)), (S2, host(2, &config))].into_iter().collect();
        let mut world = World {
            now: Time(1_000_000_000),
            config,
            hosts,
            witness: None,
            witness_record: None,
            witness_reach: [S1, S2].into_iter().collect(),
            cut: BTreeSet::new(),
            strangers: BTreeSet::new(),
            grain: 10 * MS,
            connected: true,
            lives: 10,
            queue: Default::default(),
            command: 0,
        };
        world.witness_on();
        world
    }

    pub fn started() -> World {
        World::started_with(config())
    }

    pub fn started_with(config: ClusterConfig) -> World {
        let mut world = World::new(config);
        world.power_on(S1);
        world.power_on(S2);
        world
    }

    pub fn host(&mut self, server: NodeId) -> &mut Host {
        self.hosts.get_mut(&server).unwrap()
    }

    pub fn witness_on(&mut self) {
        self.lives += 1;
        self.witness = Some(Witness::new(self.witness_record.clone(), Incarnation([self.lives; 16])));
        for server in NodeId::BOTH {
            self.open(server, Party::Witness, true);
        }
        self.drain();
    }

    pub fn witness_off(&mut self) {
        self.witness = None;
        for server in NodeId::BOTH {
            self.open(server, Party::Witness, false);
        }
        self.drain();
    }

    fn open(&mut self, server: NodeId, party: Party, open: bool) {
        if party == Party::Witness
            && let Some(witness) = &mut self.witness
        {
            if open && self.witness_reach.contains(&server) && self.hosts[&server].engine.is_some() {
                witness.channel_opened(server);
            } else {
                witness.channel_closed(server);
            }
        }
        self.queue.push_back((server, Input::ChannelChanged { party, open }));
    }

    /// A new life of the host: power on.
    pub fn power_on(&mut self, server: NodeId) {
        self.lives += 1;
        let life = Incarnation([self.lives; 16]);
        let host = self.host(server);
        host.host = life;
        host.up = true;
        for disk in host.disks.values_mut() {
            disk.role = Role::Standby;
            disk.needs_twin = false;
            disk.present = true;
            disk.lease = None;
        }
        self.node_start(server);
    }

    pub fn power_off(&mut self, server: NodeId) {
        let host = self.host(server);
        host.engine = None;
        host.up = false;
        host.mounted.clear();
        host.addresses.clear();
        host.running.clear();
        for disk in host.disks.values_mut() {
            disk.present = false;
            disk.said = None;
            disk.role = Role::Standby;
            disk.made_equal = false;
        }
        self.queue.retain(|(to, _)| *to != server);
        self.open(server.twin(), Party::Twin, false);
        if let Some(witness) = &mut self.witness {
            witness.channel_closed(server);
        }
        self.drain();
    }

    pub fn node_kill(&mut self, server: NodeId) {
        self.host(server).engine = None;
        for disk in self.host(server).disks.values_mut() {
            disk.said = None;
        }
        self.queue.retain(|(to, _)| *to != server);
        self.open(server.twin(), Party::Twin, false);
        self.drain();
    }

    pub fn node_start(&mut self, server: NodeId) {
        self.lives += 1;
        let (now, config, lives) = (self.now, self.config.clone(), self.lives);
        let host = self.host(server);
        let setup = Setup {
            config,
            me: server,
            record: host.record.clone(),
            host: host.host,
            node: Incarnation([lives; 16]),
            seed: u64::from(lives),
            wall: WallClock(1_790_000_000_000 + now.0 / 1_000),
        };
        host.engine = Some(Engine::new(setup, now));
        let present: Vec<SetId> = host.disks.iter().filter(|(_, d)| d.present).map(|(id, _)| *id).collect();
        for set in present {
            self.queue.push_back((server, Input::DiskPresent { set, present: true }));
        }
        self.open(server, Party::Witness, self.witness.is_some());
        if self.connected && self.hosts[&server.twin()].engine.is_some() {
            self.open(server, Party::Twin, true);
            self.open(server.twin(), Party::Twin, true);
        }
        self.perform(server);
        self.drain();
    }

    /// All interconnects and the public LAN between the servers.
    pub fn cut_all(&mut self) {
        self.cut = self.config.links.iter().map(|l| l.id).collect();
        self.connected = false;
        for server in NodeId::BOTH {
            self.open(server, Party::Twin, false);
        }
        self.drain();
    }

    pub fn mend(&mut self) {
        self.cut.clear();
        self.connected = true;
        for server in NodeId::BOTH {
            if self.hosts[&server].engine.is_some() && self.hosts[&server.twin()].engine.is_some() {
                self.open(server, Party::Twin, true);
            }
        }
        self.drain();
    }

    pub fn cut_witness(&mut self, server: NodeId) {
        self.witness_reach.remove(&server);
        self.open(server, Party::Witness, false);
        self.drain();
    }

    pub fn command(&mut self, at: NodeId, what: Operation) -> Result<(), RefusalKind> {
        let revision = self.view(at).revision;
        self.command_of(at, what, revision)
    }

    /// Two commands, the second one taken in before anything that the first one began has ended.
    pub fn commands(&mut self, at: NodeId, what: [Operation; 2]) -> [Result<(), RefusalKind>; 2] {
        let revision = self.view(at).revision;
        let ids = what.map(|what| {
            self.command += 1;
            let id = CommandId(self.command);
            self.queue.push_back((at, Input::CommandGiven { command: Command { id, revision, what } }));
            id
        });
        self.drain();
        ids.map(|id| {
            let reply = self.host(at).replies.iter().find(|r| r.id == id).cloned().expect("one reply");
            reply.result.map_err(|refusal| refusal.kind)
        })
    }

    /// Something else that happened on a host.
    pub fn input(&mut self, at: NodeId, input: Input) {
        self.queue.push_back((at, input));
        self.drain();
    }

    /// A command for what somebody saw at a revision.
    pub fn command_of(&mut self, at: NodeId, what: Operation, revision: Revision) -> Result<(), RefusalKind> {
        self.command += 1;
        let id = CommandId(self.command);
        self.queue.push_back((at, Input::CommandGiven { command: Command { id, revision, what } }));
        self.drain();
        let reply = self.host(at).replies.iter().find(|r| r.id == id).cloned().expect("one reply");
        reply.result.map_err(|refusal| refusal.kind)
    }

    pub fn view(&mut self, server: NodeId) -> ClusterView {
        let (now, wall) = (self.now, WallClock(1_790_000_000_000 + self.now.0 / 1_000));
        self.host(server).engine.as_mut().expect("runs").view(now, wall)
    }

    pub fn group_state(&mut self, server: NodeId) -> (GroupState, Option<NodeId>) {
        let view = self.view(server);
        (view.groups[0].state.clone(), view.groups[0].active)
    }

    pub fn server_state(&mut self, at: NodeId, of: NodeId) -> ServerState {
        self.view(at).servers.iter().find(|s| s.id == of).unwrap().state
    }

    pub fn serves(&self, server: NodeId) -> bool {
        let host = &self.hosts[&server];
        let active = host.disks.values().any(|d| d.role == Role::Active);
        host.running.contains(&GROUP) && !host.addresses.is_empty() && active
    }

    /// Until `done`, at most `limit_ms`.
    pub fn until(&mut self, limit_ms: u64, what: &str, mut done: impl FnMut(&mut World) -> bool) -> u64 {
        let start = self.now;
        while !done(self) {
            assert!(
                self.now.since(start) < limit_ms * MS,
                "{what}: not within {limit_ms} ms\n{}",
                self.trace()
            );
            self.step();
        }
        self.now.since(start) / MS
    }

    pub fn run(&mut self, ms: u64) {
        let end = self.now.plus(ms * MS);
        while self.now < end {
            self.step();
        }
    }

    pub fn trace(&self) -> String {
        let mut text = String::new();
        for (id, host) in &self.hosts {
            text += &format!("--- {id} up {} {:?}\n", host.up, host.disks);
            for line in host.log.iter().rev().take(40).rev() {
                text += &format!("{line}\n");
            }
        }
        text
    }

    fn step(&mut self) {
        let next = self.hosts.values().filter_map(|h| h.engine.as_ref()?.next_deadline()).min();
        let latest = self.now.plus(self.grain);
        let next = next.unwrap_or(latest).min(latest).max(self.now.plus(1));
        self.now = next;
        for server in NodeId::BOTH {
            let due = self.hosts[&server].engine.as_ref().and_then(Engine::next_deadline);
            if due.is_some_and(|at| at <= self.now) {
                self.queue.push_back((server, Input::DeadlineReached));
            }
        }
        self.disks();
        self.drain();
        self.check();
    }

    fn linked(&self, set: SetId) -> bool {
        self.connected && self.hosts.values().all(|h| h.up && h.disks[&set].present)
    }

    fn disks(&mut self) {
        let ids: Vec<SetId> = self.config.sets.iter().map(|s| s.id).collect();
        for set in ids {
            for server in NodeId::BOTH {
                // Rebuild: instant once allowed.
                let linked = self.linked(set);
                let now = self.now;
                // While the node process is away: renewed over the block link as far as the twin's engine allowed.
                let twin = &self.hosts[&server.twin()].disks[&set];
                let allowed = twin.last_grant.is_some();
                let disk = self.host(server).disks.get_mut(&set).unwrap();
                if disk.role == Role::Active && linked && disk.allow && !disk.equal {
                    disk.equal = true;
                }
                if !linked && !disk.needs_twin {
                    disk.equal = false;
                }
                let node_away = self.hosts[&server].engine.is_none();
                let disk = self.host(server).disks.get_mut(&set).unwrap();
                if node_away
                    && linked
                    && allowed
                    && disk.role == Role::Active
                    && disk.lease.flatten().is_some()
                {
                    disk.lease = Some(Some(now.plus(1_300 * MS)));
                    self.host(server.twin()).disks.get_mut(&set).unwrap().last_grant = Some(now);
                }
                let disk = self.host(server).disks.get_mut(&set).unwrap();
                if let Some(Some(lease)) = disk.lease
                    && disk.role == Role::Active
                    && disk.present
                    && now > lease.plus(500 * MS)
                {
                    disk.role = Role::Fenced;
                    let host = self.host(server);
                    host.mounted.clear();
                    host.running.clear();
                    host.addresses.clear();
                }
                self.say(server, set, false);
            }
        }
    }

    fn say(&mut self, server: NodeId, set: SetId, always: bool) {
        let linked = self.linked(set);
        let now = self.now;
        let twin_host = self.hosts[&server.twin()].host;
        let host = self.host(server);
        if host.engine.is_none() {
            return;
        }
        let disk = host.disks.get_mut(&set).unwrap();
        if !disk.present {
            return;
        }
        let status = DiskStatus {
            role: disk.role,
            epoch: disk.epoch,
            holder: disk.holder,
            session: Session(1),
            consistent: true,
            history: vec![Generation([1; 16])],
            needs_twin: disk.needs_twin,
            made_equal: disk.made_equal,
            linked,
            equal: disk.equal,
            twin_incarnation: Some(twin_host),
            twin_heard: None,
            waiting_since: None,
            split: false,
            dirty_blocks: 0,
            rebuild: None,
            last_rebuild: None,
            lease: disk.lease.flatten(),
            link_address: None,
            sent_bytes: 0,
            device: (disk.role == Role::Active).then(|| "/dev/loop0".to_string()),
            exports: Vec::new(),
            failed: disk.bad.then(|| "a write to the local disk failed: errno 5".to_string()),
            asks_out: disk.bad && disk.role == Role::Active && disk.needs_twin && linked && !disk.through,
            through: disk.through,
            mended_blocks: 0,
            undo: None,
            undo_lost: false,
            undo_short: false,
            undone: false,
            verify: None,
            last_verify: None,
            behind: None,
            mode: disk.mode,
            mode_in_force: disk.mode,
        };
        if always || disk.said.as_ref() != Some(&status) {
            disk.said = Some(status.clone());
            let status = DiskStatus { twin_heard: linked.then_some(now), ..status };
            let said = FromDisk::Status(Box::new(status));
            self.queue.push_back((server, Input::DiskSaid { set, said }));
        }
    }

    /// The disk of a set refuses writes from now on.
    pub fn break_disk(&mut self, server: NodeId, set: SetId) {
        self.host(server).disks.get_mut(&set).unwrap().bad = true;
        self.say(server, set, true);
    }

    /// The process of a set ends, and cannot be started again until `restart_disk`.
    pub fn lose_disk(&mut self, server: NodeId, set: SetId) {
        self.host(server).disks.get_mut(&set).unwrap().present = false;
        self.queue.push_back((server, Input::DiskPresent { set, present: false }));
    }

    /// The process of a set ends at once, and node starts a fresh one.
    pub fn restart_disk(&mut self, server: NodeId, set: SetId) {
        let disk = self.host(server).disks.get_mut(&set).unwrap();
        disk.present = true;
        disk.role = Role::Standby;
        disk.lease = None;
        disk.allow = false;
        disk.made_equal = false;
        disk.through = false;
        disk.said = None;
        self.queue.push_back((server, Input::DiskPresent { set, present: false }));
        self.queue.push_back((server, Input::DiskPresent { set, present: true }));
        self.say(server, set, true);
    }

    fn drain(&mut self) {
        let mut turns = 0;
        while let Some((server, input)) = self.queue.pop_front() {
            turns += 1;
            assert!(turns < 20_000, "no rest: {server} {input:?}\n{}", self.trace());
            let now = self.now;
            let Some(engine) = self.host(server).engine.as_mut() else { continue };
            engine.handle(input, now);
            self.perform(server);
        }
    }

    fn perform(&mut self, server: NodeId) {
        let Some(engine) = self.host(server).engine.as_mut() else { return };
        let actions = engine.take_actions();
        if let Some(reason) = engine.halted().map(str::to_string) {
            panic!("{server} halted: {reason}\n{}", self.trace());
        }
        for action in actions {
            self.perform_one(server, action);
        }
    }

    fn perform_one(&mut self, server: NodeId, action: Action) {
        match action {
            Action::Store { token, record } => {
                self.host(server).record = record;
                self.queue.push_back((server, Input::Stored { token }));
            }
            Action::SendHeartbeat { link, beat } => {
                if !self.cut.contains(&link) && self.hosts[&server.twin()].engine.is_some() {
                    self.queue.push_back((server.twin(), Input::HeartbeatReceived { link, beat }));
                }
            }
            Action::Send { to: Party::Twin, message, .. } => {
                if self.connected {
                    let input = Input::MessageReceived { from: Party::Twin, message };
                    self.queue.push_back((server.twin(), input));
                }
            }
            Action::Send { to: Party::Witness, message, .. } => {
                if !self.witness_reach.contains(&server) {
                    return;
                }
                let Some(witness) = &mut self.witness else { return };
                witness.handle(server, message);
                self.witness_actions();
            }
            Action::OrderDisk { set, order, .. } => self.order(server, set, &order),
            Action::Perform { id, step, .. } => {
                let name = (step_name(&step), step_group(&step));
                if self.hosts[&server].hangs.contains(&name) {
                    return;
                }
                let outcome = self.do_step(server, &step);
                self.queue.push_back((server, Input::Performed { id, outcome }));
            }
            Action::Record { event } => {
                let at = WallClock(1_790_000_000_000 + self.now.0 / 1_000);
                let host = self.host(server);
                host.number += 1;
                let event = Event { origin: server, number: host.number, at, kind: event };
                host.log.push(format!("{} event {:?}", at.0, event.kind));
                host.events.push(event.clone());
                self.queue.push_back((server, Input::EventRecorded { event }));
            }
            Action::Keep { event } => {
                let host = self.host(server);
                if !host.events.contains(&event) {
                    host.events.push(event.clone());
                    self.queue.push_back((server, Input::EventRecorded { event }));
                }
            }
            Action::Answer { reply } => self.host(server).replies.push(reply),
        }
        self.witness_actions();
    }

    fn witness_actions(&mut self) {
        let Some(witness) = &mut self.witness else { return };
        for action in witness.take_actions() {
            match action {
                WitnessAction::Store { token, record } => {
                    self.witness_record = Some(record);
                    witness.handle_stored(token);
                }
                WitnessAction::Send { to, message, .. } => {
                    if self.witness_reach.contains(&to) {
                        let input = Input::MessageReceived { from: Party::Witness, message };
                        self.queue.push_back((to, input));
                    }
                }
            }
        }
    }

    fn order(&mut self, server: NodeId, set: SetId, order: &ToDisk) {
        let linked = self.linked(set);
        let now = self.now;
        let quiet = matches!(order.order, DiskOrder::Lease { .. } | DiskOrder::Report);
        let host = self.hosts.get_mut(&server).unwrap();
        if !quiet {
            host.log.push(format!("{} order {set} {:?}", now.0 / MS, order.order));
        }
        let disk = host.disks.get_mut(&set).unwrap();
        if !disk.present {
            return;
        }
        let mut result = Ok(Done::Done);
        match &order.order {
            DiskOrder::LearnEpoch { epoch, holder } => {
                if *epoch >= disk.epoch {
                    disk.epoch = *epoch;
                    disk.holder = Some(*holder);
                } else {
                    result = Err(OrderFault::StaleEpoch { stored: disk.epoch });
                }
            }
            DiskOrder::Activate { epoch, alone, .. } => {
                if let Some(fault) = disk.refuse.clone() {
                    result = Err(fault);
                } else if *epoch < disk.epoch {
                    result = Err(OrderFault::StaleEpoch { stored: disk.epoch });
                } else {
                    disk.epoch = *epoch;
                    disk.holder = Some(server);
                    disk.role = Role::Active;
                    disk.needs_twin = !alone;
                    disk.equal = !alone;
                    disk.lease = None;
                }
            }
            DiskOrder::Deactivate => {
                assert!(!host.mounted.contains(&set), "deactivated while mounted");
                if disk.in_use {
                    let said = FromDisk::Done { ticket: order.ticket, result: Err(OrderFault::InUse) };
                    self.queue.push_back((server, Input::DiskSaid { set, said }));
                    return;
                }
                if disk.slow_leave && disk.needs_twin {
                    disk.role = Role::Deactivating;
                    disk.leaving = Some(order.ticket);
                    self.say(server, set, false);
                    return;
                }
                disk.role = if disk.through { Role::Fenced } else { Role::Standby };
            }
            DiskOrder::Mode { mode } => disk.mode = *mode,
            DiskOrder::Fence => disk.role = Role::Fenced,
            DiskOrder::PutOut { .. } => {
                disk.needs_twin = false;
                disk.equal = false;
                if let Some(ticket) = disk.leaving.take() {
                    disk.role = Role::Standby;
                    let said = FromDisk::Done { ticket, result: Ok(Done::Done) };
                    self.queue.push_back((server, Input::DiskSaid { set, said }));
                }
            }
            DiskOrder::AllowRebuild { allowed } => disk.allow = *allowed,
            DiskOrder::Shoulder => {
                assert_eq!(disk.role, Role::Standby);
                match disk.refuse.clone() {
                    Some(fault) => result = Err(fault),
                    None => disk.shouldered = true,
                }
            }
            DiskOrder::Through => {
                assert!(disk.role == Role::Active && disk.needs_twin);
                (disk.through, disk.equal) = (true, false);
            }
            DiskOrder::Overrule { replace } => disk.overruled = Some(*replace),
            DiskOrder::Readmit => {
                if linked && disk.equal {
                    disk.needs_twin = true;
                    self.host(server.twin()).disks.get_mut(&set).unwrap().made_equal = true;
                    self.say(server.twin(), set, false);
                } else {
                    result = Err(OrderFault::NotEqual);
                }
            }
            DiskOrder::Admitted
            | DiskOrder::Rebuild { .. }
            | DiskOrder::Verify { .. }
            | DiskOrder::Undo { .. }
            | DiskOrder::Report
            | DiskOrder::Guard { .. } => {}
            DiskOrder::Quit => {
                assert_eq!(disk.role, Role::Fenced);
                // The process ends; node starts it again.
                self.restart_disk(server, set);
                return;
            }
            DiskOrder::Lease { until, .. } => disk.lease = Some(*until),
            DiskOrder::Grant { allowed: true } => disk.last_grant = Some(now),
            DiskOrder::Grant { allowed: false } => {
                result = Ok(Done::GrantStopped { last: disk.last_grant.take() });
            }
        }
        let said = FromDisk::Done { ticket: order.ticket, result };
        self.queue.push_back((server, Input::DiskSaid { set, said }));
        self.say(server, set, order.order == DiskOrder::Report);
    }

    fn do_step(&mut self, server: NodeId, step: &Step) -> Outcome {
        let name = step_name(step);
        let now = self.now;
        let config = self.config.clone();
        let host = self.host(server);
        let known = matches!(step, Step::AddAddress { address, .. } if host.addresses.contains(address));
        if !known {
            host.log.push(format!("{} {step:?}", now.0 / MS));
        }
        if let Some(outcome) = host.fail.get(&name) {
            return outcome.clone();
        }
        if let Some(left) = host.fails.get_mut(&(name, step_group(step))).filter(|left| **left > 0) {
            *left -= 1;
            return Outcome::Failed { reason: "it does not work here".into() };
        }
        match step {
            Step::Mount { set, .. } => {
                host.mounted.insert(*set);
            }
            Step::Unmount { set, .. } => {
                host.mounted.remove(set);
                host.lost.remove(set);
            }
            Step::ProbeAddress { address, .. } => {
                if self.hosts[&server.twin()].addresses.contains(address) {
                    return Outcome::AddressInUse { by: "twin".into() };
                }
                if self.strangers.contains(address) {
                    return Outcome::AddressInUse { by: "02:00:00:00:00:99".into() };
                }
            }
            Step::AddAddress { address, .. } => {
                host.addresses.insert(*address);
            }
            Step::RemoveAddress { address, .. } => {
                host.addresses.remove(address);
            }
            Step::Announce { .. } => {}
            Step::StartScript { group, .. } => {
                host.running.insert(*group);
            }
            Step::StopScript { group } | Step::Kill { group } => {
                host.running.remove(group);
            }
            Step::ExchangeDisk { set } => {
                let disk = host.disks.get_mut(set).unwrap();
                *disk = Disk { present: disk.present, blank: true, ..Disk::new() };
                self.restart_disk(server, *set);
            }
            Step::ReleaseSet { .. } => return Outcome::Failed { reason: "not of this world".into() },
            Step::Observe { group } => {
                // As a real host looks: whether all is there; of nothing, all is.
                let of = config.group(*group).unwrap();
                return Outcome::Observed {
                    mounted: of.mounts.iter().all(|mount| host.mounted.contains(&mount.set)),
                    addressed: of.addresses.iter().all(|address| host.addresses.contains(address)),
                    processes: host.running.contains(group),
                };
            }
        }
        Outcome::Done
    }

    /// Invariants over both hosts.
    fn check(&self) {
        let both = |f: &dyn Fn(&Host) -> bool| self.hosts.values().all(f);
        let shared = self.hosts[&S1].addresses.intersection(&self.hosts[&S2].addresses);
        assert_eq!(shared.count(), 0, "an address on both\n{}", self.trace());
        for set in self.config.sets.iter().map(|s| s.id) {
            let can_write = |h: &Host| {
                let disk = &h.disks[&set];
                let leased = disk.lease.is_some_and(|l| l.is_none_or(|until| self.now < until));
                disk.role == Role::Active && leased && !disk.needs_twin
            };
            assert!(!both(&can_write), "both acknowledge alone\n{}", self.trace());
            let active = |h: &Host| h.disks[&set].role == Role::Active;
            assert!(!both(&active), "both active\n{}", self.trace());
        }
        for host in self.hosts.values() {
            for set in &host.mounted {
                // The mount of a lost process is dead until it is unmounted.
                if host.lost.contains(set) {
                    continue;
                }
                assert_eq!(host.disks[set].role, Role::Active, "mounted but not active\n{}", self.trace());
            }
        }
    }
}

/// The name of a step, as failures name it.
pub fn step_name(step: &Step) -> String {
    if matches!(step, Step::Unmount { force: true, .. }) {
        return "ForceUnmount".to_string();
    }
    let text = format!("{step:?}");
    text.split([' ', '{']).next().unwrap_or("").to_string()
}

/// The group of a step; none has the number 0.
pub fn step_group(step: &Step) -> GroupId {
    match step {
        Step::Mount { group, .. }
        | Step::Unmount { group, .. }
        | Step::ProbeAddress { group, .. }
        | Step::AddAddress { group, .. }
        | Step::Announce { group, .. }
        | Step::RemoveAddress { group, .. }
        | Step::StartScript { group, .. }
        | Step::StopScript { group }
        | Step::Kill { group }
        | Step::Observe { group } => *group,
        Step::ExchangeDisk { .. } | Step::ReleaseSet { .. } => GroupId(0),
    }
}
