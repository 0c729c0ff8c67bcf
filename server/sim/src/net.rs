//! Links that lose, delay, reorder and go deaf in one direction, and the TCP connections over them.
//!
//! A datagram is lost or comes after a random delay, so later ones overtake. A connection keeps its order; what is on
//! its way when a path is cut waits there, and comes late if the path heals before either end gives up.

use crate::queue::Instant;
use crate::rng::Rng;
use std::collections::{BTreeMap, VecDeque};
use wire::{LinkId, NodeId};

/// Number of links: two interconnects, then the public LAN, on which the witness is too.
pub const LINKS: usize = 3;
/// The public LAN.
pub const PUBLIC: LinkId = LinkId(2);

/// A machine with a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// Server 1.
    One,
    /// Server 2.
    Two,
    /// The witness.
    Witness,
}

impl Machine {
    /// All of them.
    pub const ALL: [Machine; 3] = [Machine::One, Machine::Two, Machine::Witness];

    /// Its place in tables.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The machine of a server.
    #[must_use]
    pub fn of(node: NodeId) -> Machine {
        if node == NodeId(1) { Machine::One } else { Machine::Two }
    }

    /// The server on it, if it is one.
    #[must_use]
    pub fn node(self) -> Option<NodeId> {
        match self {
            Machine::One => Some(NodeId(1)),
            Machine::Two => Some(NodeId(2)),
            Machine::Witness => None,
        }
    }
}

/// Numbers a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// One end of a connection: a process on a machine. The number tells one life of the process from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Where.
    pub machine: Machine,
    /// Which life of which process, as the world numbers them.
    pub process: u64,
}

/// A connection.
#[derive(Debug)]
pub struct Conn<M> {
    /// The link it runs over.
    pub link: LinkId,
    /// The end that dialled, then the one that was dialled.
    pub ends: [End; 2],
    /// Whether each end still has it open.
    pub open: [bool; 2],
    /// On their way to each end; `None` marks the end of the stream.
    queues: [VecDeque<Option<M>>; 2],
    /// No delivery to this end before then: keeps the order.
    due: [Instant; 2],
}

/// What arrives at an end.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<M> {
    /// A message.
    Message(M),
    /// The other end is closed.
    Closed,
    /// Nothing at present: the path is cut, or all is delivered.
    Nothing,
}

/// The state of all paths and connections.
#[derive(Debug)]
pub struct Net<M> {
    /// `cut[link][from][to]`.
    cut: [[[bool; 3]; 3]; LINKS],
    /// Per mille of datagrams lost on each link.
    loss: [u64; LINKS],
    /// Longest delay in microseconds on each link.
    delay: [u64; LINKS],
    /// Datagrams come again so much later at most, in microseconds; 0: they do not.
    echo: [u64; LINKS],
    conns: BTreeMap<ConnId, Conn<M>>,
    last: u64,
    rng: Rng,
}

/// Longest delay of a healthy LAN in microseconds.
const DELAY: u64 = 400;
/// Shortest delay in microseconds.
const DELAY_MIN: u64 = 30;
/// How long retransmission waits at most after a path has healed, in microseconds.
const RETRANSMIT: u64 = 400_000;

impl<M> Net<M> {
    /// A healthy network.
    pub fn new(rng: Rng) -> Self {
        Net {
            cut: Default::default(),
            loss: [0; LINKS],
            delay: [DELAY; LINKS],
            echo: [0; LINKS],
            conns: BTreeMap::new(),
            last: 0,
            rng,
        }
    }

    /// Whether anything gets from one machine to another over a link.
    #[must_use]
    pub fn is_open(&self, link: LinkId, from: Machine, to: Machine) -> bool {
        let between_servers = from != Machine::Witness && to != Machine::Witness;
        (link == PUBLIC || between_servers) && !self.cut[usize::from(link.0)][from.index()][to.index()]
    }

    /// Cuts or heals one direction.
    pub fn set_cut(&mut self, link: LinkId, from: Machine, to: Machine, cut: bool) {
        self.cut[usize::from(link.0)][from.index()][to.index()] = cut;
    }

    /// Pulls or plugs a machine's cable.
    pub fn set_cable(&mut self, link: LinkId, machine: Machine, cut: bool) {
        for other in Machine::ALL {
            self.set_cut(link, machine, other, cut);
            self.set_cut(link, other, machine, cut);
        }
    }

    /// Makes a link lossy (per mille) and slow (longest delay in microseconds).
    pub fn set_quality(&mut self, link: LinkId, loss: u64, delay: u64) {
        self.loss[usize::from(link.0)] = loss;
        self.delay[usize::from(link.0)] = delay.max(DELAY);
    }

    /// Everything whole again.
    pub fn heal(&mut self) {
        self.cut = Default::default();
        self.loss = [0; LINKS];
        self.delay = [DELAY; LINKS];
        self.echo = [0; LINKS];
    }

    /// Makes a link deliver datagrams twice, the second time up to so much later; 0: no more.
    pub fn set_echo(&mut self, link: LinkId, late: u64) {
        self.echo[usize::from(link.0)] = late;
    }

    /// After how long a datagram that is delivered is delivered once more.
    pub fn echo(&mut self, link: LinkId) -> Option<u64> {
        let late = self.echo[usize::from(link.0)];
        (late > 0).then(|| self.rng.below(late))
    }

    /// When a datagram sent at this moment arrives; `None`: never.
    pub fn datagram(&mut self, link: LinkId, from: Machine, to: Machine) -> Option<u64> {
        let lost = self.rng.per_mille(self.loss[usize::from(link.0)]);
        (self.is_open(link, from, to) && !lost).then(|| self.transit(link))
    }

    fn transit(&mut self, link: LinkId) -> u64 {
        self.rng.range(DELAY_MIN, self.delay[usize::from(link.0)])
    }

    /// The first of these links that works both ways.
    #[must_use]
    pub fn route(&self, links: &[LinkId], from: Machine, to: Machine) -> Option<LinkId> {
        links.iter().copied().find(|l| self.is_open(*l, from, to) && self.is_open(*l, to, from))
    }

    /// A new connection, open at both ends.
    pub fn connect(&mut self, link: LinkId, ends: [End; 2]) -> ConnId {
        self.last += 1;
        let conn =
            Conn { link, ends, open: [true; 2], queues: [VecDeque::new(), VecDeque::new()], due: [0; 2] };
        self.conns.insert(ConnId(self.last), conn);
        ConnId(self.last)
    }

    /// A connection.
    #[must_use]
    pub fn conn(&self, id: ConnId) -> Option<&Conn<M>> {
        self.conns.get(&id)
    }

    /// The open ends that a process holds, those of connections it has not heard of yet included: its kernel holds them.
    #[must_use]
    pub fn ends_of(&self, process: u64) -> Vec<(ConnId, usize)> {
        self.open_ends(|end| end.process == process)
    }

    /// The open ends on a machine.
    #[must_use]
    pub fn ends_on(&self, machine: Machine) -> Vec<(ConnId, usize)> {
        self.open_ends(|end| end.machine == machine)
    }

    fn open_ends(&self, wanted: impl Fn(&End) -> bool) -> Vec<(ConnId, usize)> {
        let open = |(id, conn): (&ConnId, &Conn<M>)| {
            let id = *id;
            let held = [0, 1].map(|e| conn.open[e] && wanted(&conn.ends[e]));
            (0..2).filter(move |e| held[*e]).map(move |e| (id, e))
        };
        self.conns.iter().flat_map(open).collect()
    }

    /// All connections.
    pub fn conns(&self) -> impl Iterator<Item = (ConnId, &Conn<M>)> {
        self.conns.iter().map(|(id, conn)| (*id, conn))
    }

    /// Sends to an end of a connection; the caller puts a delivery at the returned moment.
    pub fn send(&mut self, id: ConnId, to: usize, message: M, now: Instant) -> Option<Instant> {
        self.push(id, to, Some(message), now)
    }

    fn push(&mut self, id: ConnId, to: usize, message: Option<M>, now: Instant) -> Option<Instant> {
        let link = self.conns.get(&id)?.link;
        // A lost segment of a stream comes again a little later.
        let again =
            if self.rng.per_mille(self.loss[usize::from(link.0)]) { self.rng.below(RETRANSMIT) } else { 0 };
        let at = now + self.transit(link) + again;
        let conn = self.conns.get_mut(&id)?;
        conn.queues[to].push_back(message);
        conn.due[to] = conn.due[to].max(at);
        Some(conn.due[to])
    }

    /// What a delivery finds: the next message if the path is open.
    pub fn deliver(&mut self, id: ConnId, to: usize) -> Arrival<M> {
        let Some(conn) = self.conns.get_mut(&id) else { return Arrival::Nothing };
        let (from, target) = (conn.ends[1 - to].machine, conn.ends[to].machine);
        let open = !self.cut[usize::from(conn.link.0)][from.index()][target.index()];
        if !open || !conn.open[to] {
            return Arrival::Nothing;
        }
        match conn.queues[to].pop_front() {
            Some(Some(message)) => Arrival::Message(message),
            Some(None) => Arrival::Closed,
            None => Arrival::Nothing,
        }
    }

    /// An end closes: what it has sent still arrives, or is dropped if `reset`; then the other end learns of it. The
    /// caller puts a delivery at the returned moment.
    pub fn close(&mut self, id: ConnId, end: usize, reset: bool, now: Instant) -> Option<Instant> {
        let conn = self.conns.get_mut(&id)?;
        if !std::mem::take(&mut conn.open[end]) {
            return None;
        }
        if !conn.open[1 - end] {
            self.conns.remove(&id);
            return None;
        }
        if reset {
            conn.queues[1 - end].clear();
        }
        conn.queues[end].clear();
        self.push(id, 1 - end, None, now)
    }

    /// An end vanishes without a word: its host lost power.
    pub fn vanish(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.open[end] = false;
        conn.queues[1 - end].clear();
        if !conn.open[1 - end] {
            self.conns.remove(&id);
        }
    }

    /// The most messages on their way to one end of a connection.
    #[must_use]
    pub fn longest_queue(&self) -> usize {
        self.conns.values().flat_map(|conn| &conn.queues).map(VecDeque::len).max().unwrap_or(0)
    }

    /// Deliveries to make again after a path has healed: for each stalled direction as many as wait there.
    pub fn stalled(&mut self, now: Instant) -> Vec<(ConnId, usize, Instant)> {
        let mut again = Vec::new();
        for (id, conn) in &mut self.conns {
            for to in 0..2 {
                let at = now + self.rng.below(RETRANSMIT);
                conn.due[to] = conn.due[to].max(at);
                again.extend(conn.queues[to].iter().map(|_| (*id, to, conn.due[to])));
            }
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> [End; 2] {
        [End { machine: Machine::One, process: 1 }, End { machine: Machine::Two, process: 2 }]
    }

    #[test]
    fn a_stream_keeps_its_order_over_a_cut() {
        let mut net: Net<u32> = Net::new(Rng::new(1));
        let id = net.connect(LinkId(0), ends());
        let first = net.send(id, 1, 1, 0);
        let second = net.send(id, 1, 2, 0);
        assert!(first <= second);
        assert_eq!(net.deliver(id, 1), Arrival::Message(1));
        net.set_cable(LinkId(0), Machine::Two, true);
        assert_eq!(net.deliver(id, 1), Arrival::Nothing);
        net.heal();
        assert_eq!(net.stalled(9).len(), 1);
        assert_eq!(net.deliver(id, 1), Arrival::Message(2));
        assert!(net.close(id, 0, false, 10).is_some());
        assert_eq!(net.deliver(id, 1), Arrival::Closed);
        assert_eq!(net.close(id, 1, false, 11), None);
        assert!(net.conn(id).is_none());
    }

    #[test]
    fn a_cut_can_be_one_way_and_the_witness_is_on_the_public_lan_only() {
        let mut net: Net<u32> = Net::new(Rng::new(1));
        net.set_cut(LinkId(0), Machine::One, Machine::Two, true);
        assert!(net.datagram(LinkId(0), Machine::One, Machine::Two).is_none());
        assert!(net.datagram(LinkId(0), Machine::Two, Machine::One).is_some());
        assert_eq!(net.route(&[LinkId(0), LinkId(1)], Machine::Two, Machine::One), Some(LinkId(1)));
        assert!(!net.is_open(LinkId(1), Machine::One, Machine::Witness));
        assert!(net.is_open(PUBLIC, Machine::One, Machine::Witness));
    }
}
