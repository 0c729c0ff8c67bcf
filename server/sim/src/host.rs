//! One server as hardware and kernel: power, clock, disks, mounts, addresses; and the processes that run there.

use crate::app::App;
use crate::clock::Clock;
use crate::disk::{Disk, FlushMark};
use crate::keeper::Held;
use crate::net::{ConnId, Machine};
use crate::queue::Instant;
use engine::action::{ActionId, StoreToken};
use engine::persist::Record;
use engine::{Action as EngineAction, Engine};
use mirror::Mirror;
use mirror::action::OpId;
use mirror::input::{PayloadId, Range, RequestId};
use peer::heartbeat::ReplayGuard;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use wire::{ClusterView, CommandId, GroupId, Incarnation, LinkId, NodeId, Operation, SetId, Time};

/// Sectors' values on their way.
pub type Values = Rc<[u64]>;

/// A server.
#[derive(Debug)]
pub struct Host {
    /// 1 or 2.
    pub id: NodeId,
    /// Whether it has power.
    pub powered: bool,
    /// How often it was switched on: what belongs to an earlier time is gone.
    pub boots: u64,
    /// Its processes do not run until then.
    pub frozen_until: Instant,
    /// Its CLOCK_BOOTTIME.
    pub clock: Clock,
    /// Life of this host.
    pub incarnation: Incarnation,
    /// The engine's record in the store.
    pub record: Option<Record>,
    /// The disk under each set.
    pub media: BTreeMap<SetId, Disk>,
    /// Input and output the kernel has under way.
    pub io: BTreeMap<u64, Io>,
    /// Local disks take so much longer until then.
    pub slow: (u64, Instant),
    /// Local disks fail until then; `true`: only reads of requests do.
    pub failing: (bool, Instant),
    /// Mounts, addresses, applications.
    pub kernel: Kernel,
    /// The node process.
    pub node: Option<NodeProcess>,
    /// Whether the service manager starts the node process when it is missing.
    pub node_wanted: bool,
    /// The disk processes.
    pub disks: BTreeMap<SetId, DiskProcess>,
}

impl Host {
    /// Its machine.
    #[must_use]
    pub fn machine(&self) -> Machine {
        Machine::of(self.id)
    }

    /// Its place in tables, 0 or 1.
    #[must_use]
    pub fn index(&self) -> usize {
        self.machine().index()
    }

    /// Its bit in a set of hosts.
    #[must_use]
    pub fn bit(&self) -> u8 {
        1 << self.index()
    }

    /// What its clock shows.
    #[must_use]
    pub fn time(&self, now: Instant) -> Time {
        self.clock.time(now)
    }
}

/// What the kernel knows and keeps while processes come and go.
#[derive(Debug, Default)]
pub struct Kernel {
    /// Mounted sets, with the disk process that offered the device.
    pub mounts: BTreeMap<(GroupId, SetId), u64>,
    /// Addresses and when their lifetime ends.
    pub addresses: BTreeMap<(GroupId, IpAddr), Instant>,
    /// Applications.
    pub apps: BTreeMap<GroupId, App>,
    /// Front ends whose disk process was killed, held by the keeper.
    pub held: BTreeMap<SetId, Held>,
}

impl Kernel {
    /// Drops what has outlived its lifetime.
    pub fn expire(&mut self, now: Instant) {
        self.addresses.retain(|_, until| *until > now);
    }
}

/// A node process.
#[derive(Debug)]
pub struct NodeProcess {
    /// Which life.
    pub process: u64,
    /// When it started.
    pub since: Instant,
    /// Its brain.
    pub engine: Engine,
    /// Its life, as heartbeats tell.
    pub incarnation: Incarnation,
    /// Its engine acts next at this moment.
    pub wake: Option<Instant>,
    /// A store under way, and the one that waits.
    pub storing: Option<(StoreToken, Record)>,
    /// The store to begin next; a later one supersedes it.
    pub store_next: Option<(StoreToken, Record)>,
    /// The highest token stored.
    pub stored: StoreToken,
    /// Actions that wait for a store.
    pub waiting: Vec<(StoreToken, EngineAction)>,
    /// Channels to twin and witness.
    pub twin: Option<(ConnId, usize)>,
    /// To the witness.
    pub witness: Option<(ConnId, usize)>,
    /// Steps begun.
    pub steps: BTreeSet<ActionId>,
    /// No address step of a group takes effect before then: the node process performs them in order.
    pub address_due: BTreeMap<GroupId, Instant>,
    /// Commands given here and not yet answered.
    pub commands: BTreeMap<CommandId, Operation>,
    /// Events recorded here.
    pub events: u64,
    /// Number of the last datagram.
    pub counter: u64,
    /// Refuses repeated datagrams.
    pub guards: BTreeMap<LinkId, ReplayGuard>,
    /// The view a browser has built from deltas.
    pub page: Option<ClusterView>,
}

/// A disk process.
#[derive(Debug)]
pub struct DiskProcess {
    /// Which life.
    pub process: u64,
    /// Its brain.
    pub mirror: Mirror,
    /// Its mirror acts next at this moment.
    pub wake: Option<Instant>,
    /// The node process connected to it.
    pub node: Option<u64>,
    /// No message on the socket before then, to the process and from it.
    pub socket_due: [Instant; 2],
    /// The block link.
    pub link: Option<(ConnId, usize)>,
    /// The front end is there.
    pub front: bool,
    /// When the front end was opened, by the oracle's order, and what the disk held; until the first request is served.
    pub opened: Option<(u64, Values)>,
    /// Requests of the front end by number.
    pub requests: BTreeMap<RequestId, Request>,
    /// Payloads that came with frames.
    pub payloads: BTreeMap<PayloadId, Values>,
    /// Buffers of local reads.
    pub buffers: BTreeMap<OpId, Values>,
    /// Local operations not yet answered.
    pub ops: BTreeSet<OpId>,
    /// Next request, payload.
    pub next: (u64, u64),
    /// The lease has ended: addresses are not refreshed.
    pub lease_ended: bool,
}

/// A request of the front end.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asked: the application's life.
    pub app: u64,
    /// What.
    pub kind: RequestKind,
    /// The payload, or what was read.
    pub values: Values,
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum RequestKind {
    /// A write with its number at the oracle.
    Write { number: crate::oracle::WriteNumber, range: Range },
    /// Zeroes over a range; a write as every other.
    Zero { number: crate::oracle::WriteNumber, range: Range },
    /// A read, begun at an order of the oracle.
    Read { begun: u64, range: Range },
    /// A flush, begun at an order of the oracle.
    Flush { begun: u64 },
}

/// Input or output on a local disk.
#[derive(Clone, Debug)]
pub struct Io {
    /// The set.
    pub set: SetId,
    /// Who waits for it.
    pub process: u64,
    /// Its number there.
    pub op: OpId,
    /// What.
    pub kind: IoKind,
    /// It will fail.
    pub fails: bool,
}

/// What is done on a local disk.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum IoKind {
    /// Write data.
    Write { sector: u64, values: Values },
    /// Read data into a request or a buffer.
    Read { sector: u64, sectors: u64, into: mirror::action::Data },
    /// Hash blocks.
    Hash { sector: u64, sectors: u64, keep: bool },
    /// Flush what had completed at this mark.
    Flush { mark: FlushMark },
    /// Control bytes with their own flush.
    Control { writes: Vec<(u64, Vec<u8>)> },
    /// Read control bytes.
    Load { offset: u64, length: u32 },
    /// Front end up.
    Open,
    /// Front end down.
    Close { abort: bool },
}
