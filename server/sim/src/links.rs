//! What arrives over the network, who dials whom, and what a closed connection means to a process.

use crate::net::{Arrival, ConnId, End, Machine, PUBLIC};
use crate::queue::Instant;
use crate::trace::Column;
use crate::world::{Event, Packet, World};
use engine::Input as EngineInput;
use engine::input::Party;
use mirror::Input;
use mirror::input::PayloadId;
use peer::cluster::ClusterMessage;
use peer::heartbeat::Heartbeat;
use std::rc::Rc;
use wire::{LinkId, SetId};

/// Pause between two attempts to connect, in microseconds (`disk::limits::BACK_OFF`).
const DIAL_AGAIN: (u64, u64) = (20_000, 250_000);
/// After so long without an acknowledgement a connection is given up by the kernel.
const USER_TIMEOUT: (u64, u64) = (4_000_000, 15_000_000);
/// Interconnects, in order of preference: blocks go there only.
const INTERCONNECTS: [LinkId; 2] = [LinkId(0), LinkId(1)];
/// Cluster messages go over any link.
const ALL: [LinkId; 3] = [PUBLIC, LinkId(0), LinkId(1)];

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A node process.
    Node(usize),
    /// A disk process.
    Disk(usize, SetId),
    /// The witness.
    Witness,
}

impl World {
    /// Who a process is, if it lives.
    #[must_use]
    pub fn owner(&self, process: u64) -> Option<Owner> {
        for (index, host) in self.hosts.iter().enumerate() {
            if host.node.as_ref().is_some_and(|n| n.process == process) {
                return Some(Owner::Node(index));
            }
            if let Some((set, _)) = host.disks.iter().find(|(_, d)| d.process == process) {
                return Some(Owner::Disk(index, *set));
            }
        }
        self.witness.is(process).then_some(Owner::Witness)
    }

    /// Sends over a connection.
    pub fn send(&mut self, conn: ConnId, to: usize, packet: Packet) {
        if let Some(at) = self.net.send(conn, to, packet, self.queue.now()) {
            self.queue.at(at, Event::Deliver { conn, to });
        }
    }

    /// A process closes its end.
    pub fn close(&mut self, conn: ConnId, end: usize, reset: bool) {
        if let Some(at) = self.net.close(conn, end, reset, self.queue.now()) {
            self.queue.at(at, Event::Deliver { conn, to: 1 - end });
            self.give_up_later(conn, 1 - end);
        }
    }

    /// An end that hears nothing more gives up some time.
    pub fn give_up_later(&mut self, conn: ConnId, end: usize) {
        let delay = self.rng.range(USER_TIMEOUT.0, USER_TIMEOUT.1);
        self.queue.after(delay, Event::GiveUp { conn, end });
    }

    /// A process will dial: the side of server 1 to its twin, every node process to the witness.
    pub fn dial_later(&mut self, host: usize, set: Option<SetId>, process: u64) {
        if host == 0 {
            let delay = self.rng.range(DIAL_AGAIN.0, DIAL_AGAIN.1);
            self.queue.after(delay, Event::Dial { host, set, process, witness: false });
        }
    }

    /// A node process will dial the witness.
    pub fn dial_witness_later(&mut self, host: usize, process: u64) {
        let delay = self.rng.range(DIAL_AGAIN.0, DIAL_AGAIN.1);
        self.queue.after(delay, Event::Dial { host, set: None, process, witness: true });
    }

    /// A process dials.
    pub fn dial(&mut self, host: usize, set: Option<SetId>, process: u64, witness: bool) {
        let linked = match (self.owner(process), witness) {
            (Some(Owner::Node(_)), true) => {
                self.hosts[host].node.as_ref().is_some_and(|n| n.witness.is_some())
            }
            (Some(Owner::Node(_)), false) => self.hosts[host].node.as_ref().is_some_and(|n| n.twin.is_some()),
            (Some(Owner::Disk(_, set)), _) => self.hosts[host].disks[&set].link.is_some(),
            (Some(Owner::Witness) | None, _) => true,
        };
        if linked {
            return;
        }
        let from = self.hosts[host].machine();
        let twin = &self.hosts[1 - host];
        let (to, answers) = match (witness, set) {
            (true, _) => (Machine::Witness, self.witness.process()),
            (false, None) => (twin.machine(), twin.node.as_ref().map(|n| n.process)),
            (false, Some(set)) => (twin.machine(), twin.disks.get(&set).map(|d| d.process)),
        };
        let links: &[LinkId] = if witness {
            &[PUBLIC]
        } else if set.is_some() {
            &INTERCONNECTS
        } else {
            &ALL
        };
        match (self.net.route(links, from, to), answers) {
            (Some(link), Some(other)) => {
                let ends = [End { machine: from, process }, End { machine: to, process: other }];
                let conn = self.net.connect(link, ends);
                self.send(conn, 1, Packet::Opened);
                self.send(conn, 0, Packet::Opened);
            }
            _ if witness => self.dial_witness_later(host, process),
            _ => self.dial_later(host, set, process),
        }
    }

    /// Something may arrive at an end.
    pub fn deliver(&mut self, conn: ConnId, to: usize) {
        let Some(end) = self.net.conn(conn).map(|c| c.ends[to]) else { return };
        let Some(owner) = self.owner(end.process) else { return };
        if let Owner::Node(host) | Owner::Disk(host, _) = owner
            && self.queue.now() < self.hosts[host].frozen_until
        {
            self.queue.at(self.hosts[host].frozen_until, Event::Deliver { conn, to });
            return;
        }
        match self.net.deliver(conn, to) {
            Arrival::Nothing => {}
            Arrival::Closed => {
                let _ = self.net.close(conn, to, true, self.queue.now());
                self.lost(owner, end.process, conn);
            }
            Arrival::Message(Packet::Opened) => self.opened(owner, end.process, conn, to),
            Arrival::Message(Packet::Cluster(message)) => self.cluster_message(owner, conn, *message),
            Arrival::Message(Packet::Block(frame, values)) => {
                if let Owner::Disk(host, set) = owner {
                    self.frame_arrived(host, set, conn, *frame, values);
                }
            }
        }
    }

    fn frame_arrived(
        &mut self,
        host: usize,
        set: SetId,
        conn: ConnId,
        frame: peer::block::Frame,
        values: Option<crate::host::Values>,
    ) {
        let Some(disk) = self.hosts[host].disks.get_mut(&set).filter(|d| d.link.map(|l| l.0) == Some(conn))
        else {
            return;
        };
        let payload = values.map(|values| {
            disk.next.1 += 1;
            let payload = PayloadId(disk.next.1);
            disk.payloads.insert(payload, values);
            payload
        });
        self.mirror_input(host, set, Input::Received { frame, payload });
    }

    fn opened(&mut self, owner: Owner, process: u64, conn: ConnId, end: usize) {
        match owner {
            Owner::Disk(host, set) => self.link_opened(host, set, process, conn, end),
            Owner::Witness => {
                let Some(host) = self.net.conn(conn).and_then(|c| c.ends[1 - end].machine.node()) else {
                    return;
                };
                self.witness_opened(host, conn, end);
            }
            Owner::Node(host) => {
                let Some(other) = self.net.conn(conn).map(|c| c.ends[1 - end].machine) else { return };
                let party = if other == Machine::Witness { Party::Witness } else { Party::Twin };
                let Some(node) = self.hosts[host].node.as_mut() else { return };
                let place = if party == Party::Witness { &mut node.witness } else { &mut node.twin };
                let old = place.replace((conn, end));
                let hello = ClusterMessage::Hello {
                    from: self.hosts[host].id,
                    host: self.hosts[host].incarnation,
                    node: self.hosts[host].node.as_ref().map(|n| n.incarnation).unwrap_or_default(),
                    config_version: self.config.version,
                };
                if let Some((conn, end)) = old {
                    self.close(conn, end, true);
                    self.engine_input(host, EngineInput::ChannelChanged { party, open: false });
                }
                self.send(conn, 1 - end, Packet::Cluster(Box::new(hello)));
                self.engine_input(host, EngineInput::ChannelChanged { party, open: true });
            }
        }
    }

    /// A connection ended under a process.
    fn lost(&mut self, owner: Owner, process: u64, conn: ConnId) {
        match owner {
            Owner::Witness => self.witness_closed(conn),
            Owner::Disk(host, set) => {
                let Some(disk) = self.hosts[host].disks.get_mut(&set) else { return };
                if disk.link.map(|l| l.0) != Some(conn) {
                    // The dialler's connection ended before it had opened.
                    return self.dial_later(host, Some(set), process);
                }
                disk.link = None;
                self.trace.step(self.queue.now(), Column::Server(host), || format!("{set}: block link lost"));
                self.dial_later(host, Some(set), process);
                self.mirror_input(host, set, Input::LinkLost);
            }
            Owner::Node(host) => {
                let Some(node) = self.hosts[host].node.as_mut() else { return };
                if node.twin.map(|l| l.0) == Some(conn) {
                    node.twin = None;
                    self.dial_later(host, None, process);
                    self.engine_input(host, EngineInput::ChannelChanged { party: Party::Twin, open: false });
                } else if node.witness.map(|l| l.0) == Some(conn) {
                    node.witness = None;
                    self.dial_witness_later(host, process);
                    self.engine_input(
                        host,
                        EngineInput::ChannelChanged { party: Party::Witness, open: false },
                    );
                } else {
                    self.dial_later(host, None, process);
                    self.dial_witness_later(host, process);
                }
            }
        }
    }

    /// An end gives a dead connection up.
    pub fn give_up(&mut self, conn: ConnId, end: usize) {
        let Some(found) = self.net.conn(conn) else { return };
        let (open, end_of, other_open) = (found.open[end], found.ends[end], found.open[1 - end]);
        let path = self.net.is_open(found.link, found.ends[1 - end].machine, end_of.machine)
            && self.net.is_open(found.link, end_of.machine, found.ends[1 - end].machine);
        if !open || (other_open && path) {
            return;
        }
        let Some(owner) = self.owner(end_of.process) else { return };
        let frozen = if let Owner::Node(host) | Owner::Disk(host, _) = owner {
            self.hosts[host].frozen_until
        } else {
            0
        };
        if self.queue.now() < frozen {
            self.queue.at(frozen, Event::GiveUp { conn, end });
            return;
        }
        self.close(conn, end, true);
        self.lost(owner, end_of.process, conn);
    }

    /// Connections over a path that was just cut: each end gives up in its own time, unless the path heals before.
    pub fn doubt_connections(&mut self) {
        let cut: Vec<ConnId> = self
            .net
            .conns()
            .filter(|(_, c)| {
                let [a, b] = c.ends;
                !self.net.is_open(c.link, a.machine, b.machine)
                    || !self.net.is_open(c.link, b.machine, a.machine)
            })
            .map(|(id, _)| id)
            .collect();
        for conn in cut {
            self.give_up_later(conn, 0);
            self.give_up_later(conn, 1);
        }
    }

    /// A path has healed: what waits in streams is sent again, and hosts without power answer with a reset.
    pub fn redeliver(&mut self) {
        for (conn, to, at) in self.net.stalled(self.queue.now()) {
            self.queue.at(at, Event::Deliver { conn, to });
        }
    }

    /// Ends of connections whose other host has lost its power and booted again: the next segment is answered by a reset.
    pub fn reset_half_open(&mut self, machine: Machine) {
        let now = self.queue.now();
        let half: Vec<(ConnId, usize)> = self
            .net
            .conns()
            .filter_map(|(id, c)| {
                (0..2)
                    .find(|e| c.ends[1 - e].machine == machine && !c.open[1 - e] && c.open[*e])
                    .map(|e| (id, e))
            })
            .collect();
        for (conn, end) in half {
            let delay: Instant = self.rng.below(400_000);
            self.queue.at(now + delay, Event::GiveUp { conn, end });
        }
    }

    /// A datagram arrives.
    pub fn datagram_arrived(&mut self, host: usize, link: LinkId, beat: &Rc<Heartbeat>, counter: u64) {
        let Some(node) = self.hosts[host].node.as_mut() else { return };
        if node.guards.entry(link).or_default().admit(beat, counter) {
            let beat = beat.as_ref().clone();
            self.trace.noise(self.queue.now(), Column::Server(host), || {
                format!("<- {link} heartbeat {}", beat.sequence)
            });
            self.engine_input(host, EngineInput::HeartbeatReceived { link, beat });
        }
    }

    fn cluster_message(&mut self, owner: Owner, conn: ConnId, message: ClusterMessage) {
        match owner {
            Owner::Witness => self.witness_message(conn, message),
            Owner::Disk(..) => {}
            Owner::Node(host) => {
                let Some(node) = self.hosts[host].node.as_ref() else { return };
                let from = if node.witness.map(|l| l.0) == Some(conn) {
                    Party::Witness
                } else if node.twin.map(|l| l.0) == Some(conn) {
                    Party::Twin
                } else {
                    return;
                };
                self.engine_input(host, EngineInput::MessageReceived { from, message });
            }
        }
    }
}
