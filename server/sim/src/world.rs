//! The whole: two hosts, the witness, the network, and the loop that lets one event after another happen.

use crate::clock::Clock;
use crate::disk::Disk;
use crate::faults::{Fault, Plan};
use crate::ghost::Ghost;
use crate::host::{Host, Kernel, Values};
use crate::invariants::Checks;
use crate::net::{ConnId, LINKS, Machine, Net};
use crate::oracle::Oracle;
use crate::queue::{Instant, Queue};
use crate::rng::Rng;
use crate::trace::{Column, Detail, Trace};
use crate::witness::WitnessMachine;
use engine::action::{ActionId, Step};
use engine::input::Outcome;
use mirror::MirrorTiming;
use mirror::action::OpId;
use mirror::input::{LocalFault, LocalResult, RequestId};
use peer::block::Frame;
use peer::cluster::ClusterMessage;
use peer::control::{FromDisk, ToDisk};
use peer::heartbeat::Heartbeat;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use wire::config::{
    GroupConfig, LinkConfig, LinkKind, MountConfig, ServerConfig, SetConfig, TimingConfig, WitnessConfig,
};
use wire::{ClusterConfig, GroupId, Incarnation, LinkId, NodeId, Operation, SetId};

/// Bytes of a mirror set: four extents, so that several are hot and several are not.
pub const SET_BYTES: u64 = 8 << 20;
/// The cluster of all runs.
pub const CLUSTER: [u8; 16] = *b"simulatedcluster";

/// What travels over a connection.
#[derive(Debug)]
pub enum Packet {
    /// The connection is there.
    Opened,
    /// A cluster message.
    Cluster(Box<ClusterMessage>),
    /// A frame of the block link, with its payload.
    Block(Box<Frame>, Option<Values>),
}

/// Everything that can be waiting to happen.
#[derive(Debug)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Event {
    /// A datagram arrives.
    Datagram { host: usize, link: LinkId, beat: Rc<Heartbeat>, counter: u64 },
    /// Something may arrive at an end of a connection.
    Deliver { conn: ConnId, to: usize },
    /// A process tries to connect: a disk process to its twin, a node process to twin or witness.
    Dial { host: usize, set: Option<SetId>, process: u64, witness: bool },
    /// An end of a connection has heard nothing for too long.
    GiveUp { conn: ConnId, end: usize },
    /// An engine's deadline.
    NodeWake { host: usize, process: u64, at: Instant },
    /// A mirror's deadline.
    DiskWake { host: usize, set: SetId, process: u64, at: Instant },
    /// The store of a node process is done.
    Stored { host: usize, process: u64 },
    /// The witness's file is written.
    WitnessStored { process: u64 },
    /// An event is in the store.
    Recorded { host: usize, process: u64, event: Box<wire::Event> },
    /// A step takes effect in the kernel; its outcome goes to the node process.
    StepDone { host: usize, boots: u64, process: u64, id: ActionId, step: Box<Step>, fails: bool },
    /// The outcome of a step reaches the engine.
    Outcome { host: usize, process: u64, id: ActionId, outcome: Outcome },
    /// The kernel completes input or output.
    Io { host: usize, boots: u64, io: u64 },
    /// Its result reaches the process.
    LocalDone { host: usize, set: SetId, process: u64, op: OpId, result: Result<LocalResult, LocalFault> },
    /// An order arrives at a disk process.
    ToDisk { host: usize, set: SetId, process: u64, order: Box<ToDisk> },
    /// A disk process's words arrive at a node process.
    FromDisk { host: usize, node: u64, set: SetId, disk: u64, said: Box<FromDisk> },
    /// A node process connects to a disk process.
    SocketOpened { host: usize, set: SetId, node: u64, disk: u64 },
    /// A disk process sees its node process go.
    NodeGone { host: usize, set: SetId, node: u64, disk: u64 },
    /// A node process sees a disk process go.
    DiskGone { host: usize, set: SetId, node: u64 },
    /// An application's turn.
    App { host: usize, group: GroupId, life: u64 },
    /// The node process is started, by boot or by the service manager.
    StartNode { host: usize, boots: u64 },
    /// A disk process is started by its node process.
    StartDisk { host: usize, set: SetId, node: u64 },
    /// The keeper starts the successor of a killed disk process.
    Replace { host: usize, set: SetId, boots: u64 },
    /// The keeper looks at the lease of a set without process.
    Keep { host: usize, set: SetId, boots: u64 },
    /// The kernel asks a successor what its predecessor did not answer.
    Again { host: usize, set: SetId, process: u64, request: RequestId },
    /// A disk process keeps addresses alive while its node process is away.
    Guard { host: usize, set: SetId, process: u64 },
    /// A fault begins.
    Fault(usize),
    /// A fault's effect ends.
    Mend(Fault),
    /// An operator's command is given at a server.
    Operator { host: usize, what: Operation },
    /// A configuration reaches a server.
    Config { host: usize, config: Box<ClusterConfig> },
    /// Checkpoint: the dear checks.
    Check,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A core panicked or stopped itself.
    Crash(String),
    /// Nothing broken, but the cluster does not heal.
    Liveness(String),
    /// A property of the list does not hold: its number and what was seen.
    Correctness(u8, String),
}

impl Failure {
    /// The exit code of a run that ends so.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Failure::Crash(_) => 127,
            Failure::Liveness(_) => 128,
            Failure::Correctness(..) => 129,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Crash(text) => write!(f, "crash: {text}"),
            Failure::Liveness(text) => write!(f, "liveness: {text}"),
            Failure::Correctness(number, text) => write!(f, "invariant {number}: {text}"),
        }
    }
}

/// Bugs put back for a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bugs {
    /// In the engines.
    pub engine: engine::EngineFaults,
    /// In the mirrors.
    pub mirror: mirror::Faults,
}

/// How a run is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is written down.
    pub detail: Detail,
    /// Whether it is printed as it comes.
    pub print: bool,
    /// Bugs put back.
    pub bugs: Bugs,
    /// A fault plan instead of the seed's own.
    pub plan: Option<Plan>,
    /// Faults, orders and configurations that concern the engine most, and an application that mostly waits.
    pub engine: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { detail: Detail::Off, print: false, bugs: Bugs::default(), plan: None, engine: false }
    }
}

/// One simulated cluster.
#[derive(Debug)]
pub struct World {
    /// Time and what is to come.
    pub queue: Queue<Event>,
    /// The network.
    pub net: Net<Packet>,
    /// The servers.
    pub hosts: [Host; 2],
    /// The witness.
    pub witness: WitnessMachine,
    /// What all agree on.
    pub config: ClusterConfig,
    /// What is written down.
    pub trace: Trace,
    /// One for each set.
    pub oracles: BTreeMap<SetId, RefCell<Oracle>>,
    /// The registers as nobody inside can see them.
    pub ghost: Ghost,
    /// The state of the checks.
    pub checks: Checks,
    /// The faults to come.
    pub plan: Plan,
    /// The first failure.
    pub failure: Option<Failure>,
    /// Bugs put back.
    pub bugs: Bugs,
    /// Delays, ids.
    pub rng: Rng,
    /// The application's wishes.
    pub app_rng: Rng,
    /// Numbers of operations, processes.
    pub next_io: u64,
    /// Last number of a process or an application's life.
    pub next_process: u64,
    /// The last command's number.
    pub next_command: u64,
    /// The application rests, so that the copies can be compared.
    pub quiet: bool,
    /// Events handled.
    pub events: u64,
    /// [`Options::engine`].
    pub light: bool,
    /// Waits for Enter after so many events each; 0: does not.
    pub stop_every: u64,
    /// When an extent leaves the activity log, in microseconds: the usual time, or so short that it happens all the time.
    pub cool: u64,
}

/// The short one.
const COOL_SOON: u64 = 300_000;

impl World {
    /// A cluster at the moment both servers are switched on.
    #[must_use]
    pub fn new(seed: u64, options: Options) -> World {
        let mut rng = Rng::new(seed);
        let net = Net::new(rng.fork());
        let (plan_rng, app_rng) = (rng.fork(), rng.fork());
        let config = config(&mut rng);
        let plan = options.plan.unwrap_or_else(|| Plan::draw(plan_rng, &config, options.engine));
        let hosts = [host(NodeId(1), &config, &mut rng), host(NodeId(2), &config, &mut rng)];
        let witness = WitnessMachine::new(&mut rng);
        let usual = MirrorTiming::default().cool_us;
        let cool = if rng.percent(50) { COOL_SOON } else { usual };
        let oracles = config.sets.iter().map(|s| (s.id, RefCell::default())).collect();
        let mut world = World {
            queue: Queue::default(),
            net,
            hosts,
            witness,
            ghost: Ghost::new(&config),
            checks: Checks::default(),
            trace: Trace::new(options.detail, options.print),
            oracles,
            plan,
            failure: None,
            bugs: options.bugs,
            app_rng,
            next_io: 0,
            next_process: 0,
            next_command: 0,
            quiet: false,
            events: 0,
            light: options.engine,
            stop_every: 0,
            cool,
            config,
            rng,
        };
        world.trace.heading();
        for (place, (at, _)) in world.plan.faults.iter().enumerate() {
            world.queue.at(*at, Event::Fault(place));
        }
        world.start_witness();
        for host in 0..2 {
            world.boot(host);
        }
        world.queue.after(CHECK_EVERY, Event::Check);
        world
    }

    /// Bytes of a set.
    #[must_use]
    pub fn set_size(&self, set: SetId) -> u64 {
        self.config.set(set).map_or(SET_BYTES, |s| s.size)
    }

    /// The group of a set.
    #[must_use]
    pub fn group_of(&self, set: SetId) -> GroupId {
        self.config.set(set).map_or(GroupId(0), |s| s.group)
    }

    /// The sets of a group, in the order of mounting.
    #[must_use]
    pub fn sets_of(&self, group: GroupId) -> Vec<SetId> {
        self.config.group(group).map_or_else(Vec::new, |g| g.mounts.iter().map(|m| m.set).collect())
    }

    /// A process number of its own.
    pub fn fresh_process(&mut self) -> u64 {
        self.next_process += 1;
        self.next_process
    }

    /// Notes a failure; the first one counts.
    pub fn fail(&mut self, invariant: u8, text: String) {
        self.fail_with(Failure::Correctness(invariant, text));
    }

    /// Notes a failure; the first one counts.
    pub fn fail_with(&mut self, failure: Failure) {
        self.trace.step(self.queue.now(), Column::Client, || format!("*** {failure}"));
        self.failure.get_or_insert(failure);
    }

    /// Something the contract between core and shell says.
    pub fn expect(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.fail_with(Failure::Crash(text()));
        }
    }

    /// Lets things happen until a time, or a failure.
    pub fn run_until(&mut self, until: Instant) {
        while self.failure.is_none() && self.queue.next_at().is_some_and(|at| at <= until) {
            self.step();
        }
    }

    /// Lets one thing happen.
    pub fn step(&mut self) {
        let Some(event) = self.queue.pop() else { return };
        self.events += 1;
        let now = self.queue.now();
        if let Some(host) = target(&event)
            && now < self.hosts[host].frozen_until
        {
            self.queue.at(self.hosts[host].frozen_until, event);
            return;
        }
        self.happen(event);
        if self.stop_every > 0 && self.events.is_multiple_of(self.stop_every) {
            let now = self.queue.now() as f64 / 1e6;
            println!("--- {now:.6} s, {} events: Enter goes on", self.events);
            let _ = std::io::stdin().read_line(&mut String::new());
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Datagram { host, link, beat, counter } => {
                self.datagram_arrived(host, link, &beat, counter)
            }
            Event::Deliver { conn, to } => self.deliver(conn, to),
            Event::Dial { host, set, process, witness } => self.dial(host, set, process, witness),
            Event::GiveUp { conn, end } => self.give_up(conn, end),
            Event::NodeWake { host, process, at } => self.node_wakes(host, process, at),
            Event::DiskWake { host, set, process, at } => self.disk_wakes(host, set, process, at),
            Event::Stored { host, process } => self.stored(host, process),
            Event::Recorded { host, process, event } => self.recorded(host, process, *event),
            Event::WitnessStored { process } => self.witness_stored(process),
            Event::StepDone { host, boots, process, id, step, fails } => {
                if self.hosts[host].boots == boots && self.hosts[host].powered {
                    self.step_done(host, process, id, &step, fails);
                }
            }
            Event::Outcome { host, process, id, outcome } => self.outcome_arrived(host, process, id, outcome),
            Event::Io { host, boots, io } => {
                if self.hosts[host].boots == boots && self.hosts[host].powered {
                    self.io_done(host, io);
                }
            }
            Event::LocalDone { host, set, process, op, result } => {
                self.local_done(host, set, process, op, result)
            }
            Event::ToDisk { host, set, process, order } => self.order_arrived(host, set, process, *order),
            Event::FromDisk { host, node, set, disk, said } => self.disk_said(host, node, set, disk, *said),
            Event::SocketOpened { host, set, node, disk } => self.socket_opened(host, set, node, disk),
            Event::NodeGone { host, set, node, disk } => self.node_gone(host, set, node, disk),
            Event::DiskGone { host, set, node } => self.disk_gone(host, set, node),
            Event::App { host, group, life } => self.app_turn(host, group, life),
            Event::StartNode { host, boots } => self.start_node(host, boots),
            Event::StartDisk { host, set, node } => self.start_disk(host, set, node),
            Event::Guard { host, set, process } => self.guard(host, set, process),
            Event::Replace { host, set, boots } => self.replace(host, set, boots),
            Event::Keep { host, set, boots } => self.keep(host, set, boots),
            Event::Again { host, set, process, request } => self.asked_again(host, set, process, request),
            Event::Fault(place) => self.fault_begins(place),
            Event::Mend(fault) => self.fault_ends(fault),
            Event::Operator { host, what } => self.command(host, what),
            Event::Config { host, config } => self.config_arrived(host, &config),
            Event::Check => {
                self.checkpoint();
                self.queue.after(CHECK_EVERY, Event::Check);
            }
        }
    }
}

/// Between two checkpoints, in microseconds: many in each phase of a failover.
const CHECK_EVERY: u64 = 500_000;

/// The host whose processes must run for an event to happen.
fn target(event: &Event) -> Option<usize> {
    match event {
        Event::Datagram { host, .. }
        | Event::Dial { host, .. }
        | Event::NodeWake { host, .. }
        | Event::DiskWake { host, .. }
        | Event::Stored { host, .. }
        | Event::Recorded { host, .. }
        | Event::Outcome { host, .. }
        | Event::LocalDone { host, .. }
        | Event::ToDisk { host, .. }
        | Event::FromDisk { host, .. }
        | Event::SocketOpened { host, .. }
        | Event::NodeGone { host, .. }
        | Event::DiskGone { host, .. }
        | Event::App { host, .. }
        | Event::StartNode { host, .. }
        | Event::StartDisk { host, .. }
        | Event::Guard { host, .. }
        | Event::Replace { host, .. }
        | Event::Keep { host, .. }
        | Event::Again { host, .. }
        | Event::Config { host, .. }
        | Event::Operator { host, .. } => Some(*host),
        // The kernel's own, or told apart at delivery.
        Event::Deliver { .. }
        | Event::GiveUp { .. }
        | Event::WitnessStored { .. }
        | Event::StepDone { .. }
        | Event::Io { .. }
        | Event::Fault(_)
        | Event::Mend(_)
        | Event::Check => None,
    }
}

fn host(id: NodeId, config: &ClusterConfig, rng: &mut Rng) -> Host {
    let media = config
        .sets
        .iter()
        .map(|set| {
            let mut disk = Disk::default();
            let format = mirror::layout::Format { cluster: CLUSTER, set: set.id, side: id, size: set.size };
            if let Ok(bytes) = mirror::layout::format(format) {
                // Blocks of zeros are what a blank disk reads as: only the others are written.
                let blocks =
                    bytes.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|b| *b != 0));
                disk.store_control(
                    &blocks.map(|(i, block)| (i as u64 * 4096, block.to_vec())).collect::<Vec<_>>(),
                );
            }
            (set.id, disk)
        })
        .collect();
    Host {
        id,
        powered: false,
        boots: 0,
        frozen_until: 0,
        clock: Clock::booted(0, rng),
        incarnation: Incarnation::default(),
        record: None,
        media,
        io: BTreeMap::new(),
        slow: (1, 0),
        failing: (false, 0),
        kernel: Kernel::default(),
        node: None,
        node_wanted: true,
        disks: BTreeMap::new(),
    }
}

/// The configuration of a run: one group, sometimes two with opposite homes; recovery by itself or by an operator.
fn config(rng: &mut Rng) -> ClusterConfig {
    let address = |net: u8, node: u8| IpAddr::V4(Ipv4Addr::new(10, 0, net, node));
    let socket = |node: u8| SocketAddr::new(address(2, node), 8443);
    let server = |id: u8| ServerConfig {
        id: NodeId(id),
        name: format!("server{id}"),
        address: socket(id),
        page: format!("https://server{id}:8443"),
        fingerprint: String::new(),
    };
    let link = |id: u8| LinkConfig {
        id: LinkId(id),
        name: format!("link{id}"),
        kind: if usize::from(id) + 1 == LINKS { LinkKind::Public } else { LinkKind::Interconnect },
        addresses: [address(id, 1), address(id, 2)],
        prefix: 24,
    };
    let groups: u16 = if rng.percent(20) { 2 } else { 1 };
    let home = |id: u16| if id == 1 { [NodeId(1), NodeId(2)] } else { [NodeId(2), NodeId(1)] };
    let set = |id: u16| SetConfig {
        id: SetId(id),
        name: format!("set{id}"),
        group: GroupId(id),
        backing: ["image1".into(), "image2".into()],
        size: SET_BYTES,
        port: 7000 + id,
        source: home(id)[0],
        traffic: wire::traffic::Traffic::default(),
        front: wire::config::FrontConfig::default(),
    };
    let group = |id: u16| GroupConfig {
        id: GroupId(id),
        name: format!("group{id}"),
        policy: home(id).to_vec(),
        auto_start: true,
        mounts: vec![MountConfig {
            set: SetId(id),
            point: format!("/mnt/{id}"),
            file_system: "ext4".into(),
            format_blank: true,
        }],
        addresses: vec![address(2, 100 + id as u8)],
        start_script: "start".into(),
        stop_script: "stop".into(),
        script_timeout_s: 10,
        rules: wire::rules::GroupRules::default(),
    };
    ClusterConfig {
        version: 1,
        name: "sim".into(),
        servers: vec![server(1), server(2)],
        links: (0..LINKS as u8).map(link).collect(),
        witness: Some(WitnessConfig {
            name: "witness".into(),
            address: socket(9),
            fingerprint: String::new(),
        }),
        sets: (1..=groups).map(set).collect(),
        groups: (1..=groups).map(group).collect(),
        timing: TimingConfig::default(),
        auto_recover: rng.percent(75),
    }
}

/// The column of a machine.
#[must_use]
pub fn column(machine: Machine) -> Column {
    match machine {
        Machine::One => Column::Server(0),
        Machine::Two => Column::Server(1),
        Machine::Witness => Column::Witness,
    }
}
