//! Power, boot, and the life and death of processes.

use crate::clock::Clock;
use crate::host::{DiskProcess, IoKind, Kernel, NodeProcess};
use crate::net::ConnId;
use crate::trace::Column;
use crate::world::{CLUSTER, Event, World};
use engine::action::StoreToken;
use engine::{Engine, Input as EngineInput, Setup};
use mirror::{ControlArea, Input, Mirror, MirrorConfig, MirrorTiming};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Incarnation, SetId, WallClock};

/// From power on to the start of the node process, in microseconds.
const BOOT: (u64, u64) = (100_000, 1_500_000);
/// From a death to the service manager's new start.
const RESTART: (u64, u64) = (20_000, 400_000);
/// From the node process's start to that of a disk process, and to finding a living one.
const SPAWN: (u64, u64) = (5_000, 60_000);
/// How often the disk process refreshes addresses while its node process is away (`disk::limits::GUARD`).
const GUARD: u64 = 200_000;
/// Kernel lifetime given to an address at each refresh, in microseconds.
pub const ADDRESS_LIFETIME: u64 = 3_000_000;

impl World {
    /// A host is switched on.
    pub fn boot(&mut self, host: usize) {
        let now = self.queue.now();
        let id = self.rng.id();
        let clock = Clock::booted(now, &mut self.rng);
        let delay = self.rng.range(BOOT.0, BOOT.1);
        let h = &mut self.hosts[host];
        if h.powered {
            return;
        }
        h.powered = true;
        h.boots += 1;
        h.clock = clock;
        h.incarnation = Incarnation(id);
        h.node_wanted = true;
        let (boots, machine) = (h.boots, h.machine());
        self.trace.step(now, Column::Server(host), || "power on".into());
        self.queue.after(delay, Event::StartNode { host, boots });
        self.reset_half_open(machine);
    }

    /// A host loses power: what runs is gone, what was not flushed is lost, torn or kept.
    pub fn lose_power(&mut self, host: usize) {
        let now = self.queue.now();
        if !self.hosts[host].powered {
            return;
        }
        self.check_dirty_bits();
        self.trace.step(now, Column::Server(host), || "POWER LOST".into());
        let vanished = self.net.ends_on(self.hosts[host].machine());
        let rng = &mut self.rng;
        let h = &mut self.hosts[host];
        h.powered = false;
        h.frozen_until = 0;
        if let Some(node) = h.node.take()
            && let Some((_, record)) = node.storing.filter(|_| rng.percent(50))
        {
            h.record = Some(record);
        }
        h.disks.clear();
        for io in std::mem::take(&mut h.io).into_values() {
            let Some(disk) = h.media.get_mut(&io.set) else { continue };
            match io.kind {
                IoKind::Write { sector, values } => disk.tear(sector, &values, rng),
                IoKind::Control { writes } => disk.tear_control(&writes, rng),
                IoKind::Read { .. }
                | IoKind::Hash { .. }
                | IoKind::Load { .. }
                | IoKind::Flush { .. }
                | IoKind::Open
                | IoKind::Close { .. } => {}
            }
        }
        for disk in h.media.values_mut() {
            disk.lose_power(rng);
        }
        h.kernel = Kernel::default();
        let bit = h.bit();
        for oracle in self.oracles.values() {
            oracle.borrow_mut().power_lost(bit);
        }
        for (conn, end) in vanished {
            self.vanish(conn, end);
        }
        self.note_registers();
    }

    fn vanish(&mut self, conn: ConnId, end: usize) {
        self.net.vanish(conn, end);
        self.give_up_later(conn, 1 - end);
    }

    /// The node process starts.
    pub fn start_node(&mut self, host: usize, boots: u64) {
        let now = self.queue.now();
        let h = &self.hosts[host];
        if !h.powered || h.boots != boots || h.node.is_some() || !h.node_wanted {
            return;
        }
        let process = self.fresh_process();
        let incarnation = Incarnation(self.rng.id());
        let h = &self.hosts[host];
        let setup = Setup {
            config: self.config.clone(),
            me: h.id,
            record: h.record.clone().unwrap_or_default(),
            host: h.incarnation,
            node: incarnation,
            seed: self.rng.number(),
            wall: WallClock(now / 1000),
        };
        self.check_restart(host, &setup.record);
        let mut engine = Engine::new(setup, self.hosts[host].time(now));
        engine.set_faults(self.bugs.engine);
        self.trace.step(now, Column::Server(host), || format!("node process {process} starts"));
        self.hosts[host].node = Some(NodeProcess {
            process,
            since: now,
            engine,
            incarnation,
            wake: None,
            storing: None,
            store_next: None,
            stored: StoreToken(0),
            waiting: Vec::new(),
            twin: None,
            witness: None,
            steps: BTreeSet::new(),
            address_due: BTreeMap::new(),
            commands: BTreeMap::new(),
            events: 0,
            counter: 0,
            guards: BTreeMap::new(),
            page: None,
        });
        for set in self.config.sets.iter().map(|s| s.id).collect::<Vec<_>>() {
            let delay = self.rng.range(SPAWN.0, SPAWN.1);
            match self.hosts[host].disks.get(&set).map(|d| d.process) {
                Some(disk) => self.queue.after(delay, Event::SocketOpened { host, set, node: process, disk }),
                None => self.queue.after(delay, Event::StartDisk { host, set, node: process }),
            }
        }
        self.dial_later(host, None, process);
        self.dial_witness_later(host, process);
        self.drain_engine(host, process);
    }

    /// The node process is killed; `back`: the service manager starts it again at once.
    pub fn kill_node(&mut self, host: usize, back: bool) {
        let now = self.queue.now();
        self.hosts[host].node_wanted = back;
        let boots = self.hosts[host].boots;
        if back {
            let delay = self.rng.range(RESTART.0, RESTART.1);
            self.queue.after(delay, Event::StartNode { host, boots });
        }
        let Some(node) = self.hosts[host].node.take() else { return };
        self.trace.step(now, Column::Server(host), || format!("NODE PROCESS {} KILLED", node.process));
        // A write that was begun is finished by the kernel or was not yet handed to it.
        if let Some((_, record)) = node.storing.filter(|_| self.rng.percent(50)) {
            self.hosts[host].record = Some(record);
        }
        self.note_registers();
        for (conn, end) in self.net.ends_of(node.process) {
            let reset = self.rng.percent(50);
            self.close(conn, end, reset);
        }
        for (set, disk) in &mut self.hosts[host].disks {
            if disk.node == Some(node.process) {
                disk.socket_due[0] = disk.socket_due[0].max(now);
                let gone = Event::NodeGone { host, set: *set, node: node.process, disk: disk.process };
                self.queue.at(disk.socket_due[0], gone);
            }
        }
    }

    /// A disk process starts, once what its predecessor had under way is done.
    pub fn start_disk(&mut self, host: usize, set: SetId, node: u64) {
        let h = &self.hosts[host];
        if h.node.as_ref().is_none_or(|n| n.process != node) || h.disks.contains_key(&set) {
            return;
        }
        self.launch_disk(host, set, Event::StartDisk { host, set, node });
    }

    /// Starts a disk process as soon as nothing of its predecessor is under way; `again` is tried until then.
    pub fn launch_disk(&mut self, host: usize, set: SetId, again: Event) {
        let now = self.queue.now();
        let h = &self.hosts[host];
        if h.io.values().any(|io| io.set == set) {
            return self.queue.after(5_000, again);
        }
        let (id, incarnation, time) = (h.id, h.incarnation, h.time(now));
        let bytes = h.media[&set].read_control(mirror::layout::head_bytes(self.set_size(set)));
        let area = match ControlArea::read(&bytes) {
            Ok(area) => area,
            Err(fault) => {
                return self.fail_with(crate::world::Failure::Crash(format!(
                    "{set} at server{}: {fault:?}",
                    host + 1
                )));
            }
        };
        self.check_area(host, set, &area);
        let timing = MirrorTiming {
            lease_us: u64::from(self.config.timing.lease_ms) * 1_000,
            node_grace_us: u64::from(self.config.timing.node_grace_ms) * 1_000,
            cool_us: self.cool,
            io_limit_us: u64::from(self.config.timing.io_limit_ms) * 1_000,
            mode: self.config.set(set).map(|set| set.traffic.mode).unwrap_or_default(),
            ..MirrorTiming::default()
        };
        let config = MirrorConfig {
            cluster: CLUSTER,
            set,
            side: id,
            incarnation,
            timing,
            hot_max: peer::block::HOT_MAX,
            faults: self.bugs.mirror,
        };
        let process = self.fresh_process();
        self.trace.step(now, Column::Server(host), || format!("{set}: disk process {process} starts"));
        let (mirror, held) = match self.resumed(host, set, &config, &area) {
            Some((mirror, held)) => (mirror, Some(held)),
            None => (Mirror::new(config, area, time), None),
        };
        let disk = DiskProcess {
            process,
            mirror,
            wake: None,
            node: None,
            socket_due: [now; 2],
            link: None,
            front: false,
            opened: None,
            requests: BTreeMap::new(),
            payloads: BTreeMap::new(),
            buffers: BTreeMap::new(),
            ops: BTreeSet::new(),
            next: (0, 0),
            lease_ended: true,
        };
        self.hosts[host].disks.insert(set, disk);
        if let Some(held) = held {
            self.take_front(host, set, process, held);
        }
        let delay = self.rng.range(SPAWN.0, SPAWN.1);
        if let Some(node) = self.hosts[host].node.as_ref().map(|n| n.process) {
            self.queue.after(delay, Event::SocketOpened { host, set, node, disk: process });
        }
        self.queue.after(GUARD, Event::Guard { host, set, process });
        self.dial_later(host, Some(set), process);
        self.drain_mirror(host, set, process);
    }

    /// A disk process dies: its device is gone, what it had submitted is still written.
    pub fn kill_disk(&mut self, host: usize, set: SetId, why: &str) {
        let now = self.queue.now();
        let Some(disk) = self.hosts[host].disks.remove(&set) else { return };
        self.trace
            .step(now, Column::Server(host), || format!("{set}: DISK PROCESS {} DIES ({why})", disk.process));
        for (conn, end) in self.net.ends_of(disk.process) {
            let reset = self.rng.percent(50);
            self.close(conn, end, reset);
        }
        if why != crate::keeper::KILLED || !self.hold_front(host, set, &disk) {
            let group = self.group_of(set);
            self.break_app(host, group, "its device is gone");
        }
        // A child's end is seen by its parent, connected or not.
        if let Some(node) = disk.node.or(self.hosts[host].node.as_ref().map(|n| n.process)) {
            self.queue.after(100, Event::DiskGone { host, set, node });
        }
    }

    /// The node process sees its disk process go and starts another.
    pub fn disk_gone(&mut self, host: usize, set: SetId, node: u64) {
        if self.hosts[host].node.as_ref().is_none_or(|n| n.process != node) {
            return;
        }
        let delay = self.rng.range(RESTART.0, RESTART.1);
        self.queue.after(delay, Event::StartDisk { host, set, node });
        self.engine_input(host, EngineInput::DiskPresent { set, present: false });
    }

    /// The unix socket between a node process and a disk process is there.
    pub fn socket_opened(&mut self, host: usize, set: SetId, node: u64, disk: u64) {
        if self.hosts[host].node.as_ref().is_none_or(|n| n.process != node) {
            return;
        }
        let Some(found) = self.disk_of(host, set, disk) else {
            // It died before its socket answered: the node process starts another.
            let delay = self.rng.range(RESTART.0, RESTART.1);
            return self.queue.after(delay, Event::StartDisk { host, set, node });
        };
        found.node = Some(node);
        self.engine_input(host, EngineInput::DiskPresent { set, present: true });
        if self.disk_of(host, set, disk).is_some() {
            self.mirror_input(host, set, Input::NodePresent(true));
        }
    }

    /// A disk process sees its node process go.
    pub fn node_gone(&mut self, host: usize, set: SetId, node: u64, disk: u64) {
        let Some(found) = self.disk_of(host, set, disk).filter(|d| d.node == Some(node)) else { return };
        found.node = None;
        self.mirror_input(host, set, Input::NodePresent(false));
    }

    /// What a disk process said reaches the engine.
    pub fn disk_said(
        &mut self,
        host: usize,
        node: u64,
        set: SetId,
        disk: u64,
        mut said: peer::control::FromDisk,
    ) {
        let Some(found) = self.disk_of(host, set, disk) else { return };
        if let peer::control::FromDisk::Status(status) = &mut said {
            status.device = found.front.then(|| "/dev/loop0".into());
        }
        if self.hosts[host].node.as_ref().is_some_and(|n| n.process == node) {
            self.engine_input(host, EngineInput::DiskSaid { set, said });
        }
    }

    /// The disk process refreshes the addresses of its group while the node process is away and the lease runs.
    pub fn guard(&mut self, host: usize, set: SetId, process: u64) {
        let now = self.queue.now();
        let group = self.group_of(set);
        let Some(disk) = self.disk_of(host, set, process) else { return };
        let keeps = disk.node.is_none() && !disk.lease_ended && disk.front;
        self.queue.after(GUARD, Event::Guard { host, set, process });
        let kernel = &mut self.hosts[host].kernel;
        kernel.expire(now);
        if keeps {
            for (_, until) in kernel.addresses.iter_mut().filter(|((g, _), _)| *g == group) {
                *until = now + ADDRESS_LIFETIME;
            }
        }
    }

    /// A mirror's deadline.
    pub fn disk_wakes(&mut self, host: usize, set: SetId, process: u64, at: u64) {
        let Some(disk) = self.disk_of(host, set, process).filter(|d| d.wake == Some(at)) else { return };
        disk.wake = None;
        self.mirror_input(host, set, Input::DeadlineReached);
    }
}
