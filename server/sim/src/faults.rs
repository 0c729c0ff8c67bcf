//! What goes wrong in a run: drawn from the seed, few faults, close together, each ended after a while.

use crate::net::{LINKS, Machine, PUBLIC};
use crate::queue::Instant;
use crate::rng::Rng;
use crate::trace::Column;
use crate::world::{Event, World};
use wire::{ClusterConfig, GroupId, LinkId, NodeId, Operation, SetId};

/// A fault, or an operator's act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Fault {
    /// A host loses power; on again after a while.
    PowerLoss { host: usize, back: u64 },
    /// Both hosts lose power.
    Blackout { back: [u64; 2] },
    /// The node process is killed; away for so long.
    NodeKill { host: usize, back: u64 },
    /// A disk process is killed.
    DiskKill { host: usize, set: SetId },
    /// All processes of a host stand still.
    Freeze { host: usize, back: u64 },
    /// The witness is off; with or without its file.
    WitnessDown { forget: bool, back: u64 },
    /// A cable of a server is pulled.
    Cable { host: usize, link: LinkId, back: u64 },
    /// All interconnects are cut; the public LAN too, or not.
    Split { public: bool, back: u64 },
    /// All cables of one server are pulled.
    Isolate { host: usize, back: u64 },
    /// One direction of a link is cut.
    OneWay { link: LinkId, from: usize, back: u64 },
    /// One direction of every link between the servers is cut.
    Deaf { from: usize, back: u64 },
    /// A link loses and delays.
    Poor { link: LinkId, loss: u64, delay: u64, back: u64 },
    /// The disks of a host are slow.
    Slow { host: usize, factor: u64, back: u64 },
    /// The disks of a host fail, or only what applications read from them.
    Failing { host: usize, reads: bool, back: u64 },
    /// An operator's command.
    Operator { host: usize, what: Operation },
    /// A link delivers datagrams twice, the second time late: what came before comes again, out of order.
    Echo { link: LinkId, late: u64, back: u64 },
    /// The witness's disk is slow.
    WitnessSlow { factor: u64, back: u64 },
    /// A configuration is applied: at one server, and so much later at the other one.
    Config { first: usize, later: u64, change: Change },
}

/// What a new configuration changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Change {
    /// Recovery by itself, or not.
    Recovery,
    /// Automatic failback of all groups, or not.
    Failback,
    /// Exclusive groups, or not.
    Exclusive,
    /// Retries of failing steps, and fencing where a stop fails; or neither.
    Steps,
}

impl Fault {
    /// The same, half as long.
    #[must_use]
    pub fn shorter(mut self) -> Fault {
        match &mut self {
            Fault::PowerLoss { back, .. }
            | Fault::NodeKill { back, .. }
            | Fault::Freeze { back, .. }
            | Fault::WitnessDown { back, .. }
            | Fault::Cable { back, .. }
            | Fault::Split { back, .. }
            | Fault::Isolate { back, .. }
            | Fault::OneWay { back, .. }
            | Fault::Deaf { back, .. }
            | Fault::Poor { back, .. }
            | Fault::Slow { back, .. }
            | Fault::Failing { back, .. }
            | Fault::Echo { back, .. }
            | Fault::WitnessSlow { back, .. } => *back /= 2,
            Fault::Blackout { back } => *back = back.map(|b| b / 2),
            Fault::DiskKill { .. } | Fault::Operator { .. } | Fault::Config { .. } => {}
        }
        self
    }

    fn back(&self) -> Option<u64> {
        match self {
            Fault::PowerLoss { back, .. }
            | Fault::NodeKill { back, .. }
            | Fault::Freeze { back, .. }
            | Fault::WitnessDown { back, .. }
            | Fault::Cable { back, .. }
            | Fault::Split { back, .. }
            | Fault::Isolate { back, .. }
            | Fault::OneWay { back, .. }
            | Fault::Deaf { back, .. }
            | Fault::Poor { back, .. }
            | Fault::Slow { back, .. }
            | Fault::Failing { back, .. }
            | Fault::Echo { back, .. }
            | Fault::WitnessSlow { back, .. } => Some(*back),
            Fault::Blackout { .. }
            | Fault::DiskKill { .. }
            | Fault::Operator { .. }
            | Fault::Config { .. } => None,
        }
    }
}

/// The faults of a run, by time.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Plan {
    /// What, and when.
    pub faults: Vec<(Instant, Fault)>,
    /// From here on nothing goes wrong and all is mended.
    pub until: Instant,
}

/// Shortest and longest safety phase in microseconds.
const SAFETY: (u64, u64) = (12_000_000, 40_000_000);
/// Before this the cluster forms; faults in it are rarer.
const FORMING: u64 = 4_000_000;

/// So many losses of power in a hundred are followed by another one of the same host, so long after it was switched on: while
/// its copy is being rebuilt.
const FLAP_PERCENT: u64 = 30;
const FLAP: (u64, u64) = (400_000, 2_500_000);

impl Plan {
    /// Nothing goes wrong until then.
    #[must_use]
    pub fn quiet(until: Instant) -> Plan {
        Plan { faults: Vec::new(), until }
    }

    /// A plan by hand.
    #[must_use]
    pub fn of(faults: &[(Instant, Fault)], until: Instant) -> Plan {
        Plan { faults: faults.to_vec(), until }
    }

    /// Whether faults may still come.
    #[must_use]
    pub fn is_on(&self, now: Instant) -> bool {
        now < self.until && !self.faults.is_empty()
    }

    /// Draws a plan: some bursts of one to three faults; of the kinds that concern the engine most, if `engine`.
    #[must_use]
    pub fn draw(mut rng: Rng, config: &ClusterConfig, engine: bool) -> Plan {
        let rng = &mut rng;
        let until = rng.range(SAFETY.0, SAFETY.1);
        let mut faults = Vec::new();
        for _ in 0..rng.range(1, 4) {
            let from = if rng.percent(15) { 200_000 } else { FORMING };
            let at = rng.range(from, until - 2_000_000);
            let mut within = at;
            for _ in 0..rng.range(1, 3) {
                let fault = if engine { draw_engine(rng, config) } else { draw(rng, config) };
                faults.push((within, fault));
                if let Fault::PowerLoss { host, back } = fault
                    && rng.percent(FLAP_PERCENT)
                {
                    let again = within + back + rng.range(FLAP.0, FLAP.1);
                    faults.push((again, Fault::PowerLoss { host, back: duration(rng) }));
                }
                within += duration(rng) / 2;
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        faults.retain(|(at, _)| *at < until);
        Plan { faults, until }
    }
}

/// From milliseconds to many seconds, short ones as likely as long ones.
fn duration(rng: &mut Rng) -> u64 {
    let power = rng.range(0, 10);
    let base = 20_000_u64 << power;
    rng.range(base / 2, base)
}

fn draw(rng: &mut Rng, config: &ClusterConfig) -> Fault {
    let host = rng.below(2) as usize;
    let back = duration(rng);
    let link = LinkId(rng.below(LINKS as u64) as u8);
    match rng.below(100) {
        0..20 => Fault::PowerLoss { host, back },
        20..24 => Fault::Blackout { back: [back, duration(rng)] },
        24..33 => Fault::NodeKill { host, back },
        33..39 => Fault::DiskKill { host, set: config.sets[rng.below(config.sets.len() as u64) as usize].id },
        39..45 => Fault::Freeze { host, back },
        45..50 => Fault::WitnessDown { forget: rng.percent(40), back },
        50..57 => Fault::Cable { host, link, back },
        57..65 => Fault::Split { public: rng.percent(30), back },
        65..70 => Fault::Isolate { host, back },
        70..75 => Fault::OneWay { link, from: host, back },
        75..80 => Fault::Deaf { from: host, back },
        80..84 => Fault::Poor { link, loss: rng.range(50, 700), delay: rng.range(1_000, 300_000), back },
        84..88 => Fault::Slow { host, factor: rng.pick(&[5, 50, 500]), back },
        88..90 => Fault::Failing { host, reads: false, back },
        90..93 => Fault::Failing { host, reads: true, back },
        _ => Fault::Operator { host, what: operation(rng, config) },
    }
}

/// Half of them are as in every other run; the others are those that only the engine feels.
fn draw_engine(rng: &mut Rng, config: &ClusterConfig) -> Fault {
    let host = rng.below(2) as usize;
    let back = duration(rng);
    let link = LinkId(rng.below(LINKS as u64) as u8);
    match rng.below(100) {
        0..50 => draw(rng, config),
        50..58 => Fault::Echo { link, late: rng.range(1_000, 600_000), back },
        58..64 => Fault::WitnessSlow { factor: rng.pick(&[10, 100, 1_000]), back },
        64..72 => {
            let change = rng.pick(&[Change::Recovery, Change::Failback, Change::Exclusive, Change::Steps]);
            Fault::Config { first: host, later: duration(rng), change }
        }
        72..78 => Fault::NodeKill { host, back },
        _ => Fault::Operator { host, what: engine_operation(rng, config) },
    }
}

fn engine_operation(rng: &mut Rng, config: &ClusterConfig) -> Operation {
    let group: GroupId = config.groups[rng.below(config.groups.len() as u64) as usize].id;
    match rng.below(12) {
        0..2 => Operation::KeepGroup { group },
        2..4 => Operation::FreeGroup { group },
        4 => Operation::Maintain { on: true },
        5 => Operation::Maintain { on: false },
        6 => Operation::StopCluster,
        7..9 => Operation::StartCluster,
        _ => operation(rng, config),
    }
}

fn operation(rng: &mut Rng, config: &ClusterConfig) -> Operation {
    let group: GroupId = config.groups[rng.below(config.groups.len() as u64) as usize].id;
    let server = NodeId::BOTH[rng.below(2) as usize];
    match rng.below(10) {
        0..5 => Operation::MoveGroup { group, to: server },
        5 => Operation::StopGroup { group },
        6 => Operation::StartGroup { group, on: server },
        7 => Operation::StopServer { server },
        8 => Operation::StartServer { server },
        _ => Operation::RecoverServer { server },
    }
}

impl World {
    /// A fault of the plan begins.
    pub fn fault_begins(&mut self, place: usize) {
        let Some((_, fault)) = self.plan.faults.get(place).copied() else { return };
        self.inject(fault);
    }

    /// A fault begins.
    pub fn inject(&mut self, fault: Fault) {
        let now = self.queue.now();
        self.trace.step(now, Column::Client, || format!("FAULT {fault:?}"));
        self.check_dirty_bits();
        match fault {
            Fault::PowerLoss { host, .. } => self.lose_power(host),
            Fault::Blackout { back } => {
                for (host, back) in back.into_iter().enumerate() {
                    self.lose_power(host);
                    self.queue.after(back, Event::Mend(Fault::PowerLoss { host, back: 0 }));
                }
            }
            Fault::NodeKill { host, .. } => self.kill_node(host, false),
            Fault::DiskKill { host, set } => self.kill_disk(host, set, crate::keeper::KILLED),
            Fault::Freeze { host, back } => {
                if self.hosts[host].powered {
                    self.hosts[host].frozen_until = now + back;
                }
            }
            Fault::WitnessDown { forget, .. } => self.stop_witness(forget),
            Fault::Slow { host, factor, back } => self.hosts[host].slow = (factor, now + back),
            Fault::Failing { host, reads, back } => self.hosts[host].failing = (reads, now + back),
            Fault::Operator { host, what } => self.command(host, what),
            Fault::Echo { link, late, .. } => self.net.set_echo(link, late),
            Fault::WitnessSlow { factor, back } => self.witness.slow = (factor, now + back),
            Fault::Config { first, later, change } => self.reconfigure(first, later, change),
            Fault::Cable { .. }
            | Fault::Split { .. }
            | Fault::Isolate { .. }
            | Fault::OneWay { .. }
            | Fault::Deaf { .. }
            | Fault::Poor { .. } => {
                self.set_network(fault, true);
                self.doubt_connections();
            }
        }
        if let Some(back) = fault.back() {
            self.queue.after(back, Event::Mend(fault));
        }
    }

    /// A fault's effect ends.
    pub fn fault_ends(&mut self, fault: Fault) {
        self.trace.step(self.queue.now(), Column::Client, || format!("mended {fault:?}"));
        match fault {
            Fault::PowerLoss { host, .. } => self.boot(host),
            Fault::NodeKill { host, .. } => {
                self.hosts[host].node_wanted = true;
                let boots = self.hosts[host].boots;
                self.start_node(host, boots);
            }
            Fault::WitnessDown { .. } => self.start_witness(),
            Fault::Cable { .. }
            | Fault::Split { .. }
            | Fault::Isolate { .. }
            | Fault::OneWay { .. }
            | Fault::Deaf { .. }
            | Fault::Poor { .. } => {
                self.set_network(fault, false);
                self.redeliver();
            }
            Fault::Failing { host, .. } => self.restart_failed_disks(host),
            Fault::Echo { link, .. } => self.net.set_echo(link, 0),
            Fault::WitnessSlow { .. } | Fault::Config { .. } => {}
            Fault::Blackout { .. }
            | Fault::DiskKill { .. }
            | Fault::Freeze { .. }
            | Fault::Slow { .. }
            | Fault::Operator { .. } => {}
        }
    }

    /// A person has seen to the disk: processes that gave it up are ended, and started anew by the node process.
    pub fn restart_failed_disks(&mut self, host: usize) {
        let failed = self.hosts[host].disks.iter().filter(|(_, d)| d.mirror.status().failed.is_some());
        for set in failed.map(|(set, _)| *set).collect::<Vec<_>>() {
            self.kill_disk(host, set, "restarted by an operator");
        }
    }

    fn set_network(&mut self, fault: Fault, cut: bool) {
        let between = [Machine::One, Machine::Two];
        match fault {
            Fault::Cable { host, link, .. } => self.net.set_cable(link, between[host], cut),
            Fault::Isolate { host, .. } => {
                for link in 0..LINKS {
                    self.net.set_cable(LinkId(link as u8), between[host], cut);
                }
            }
            Fault::Split { public, .. } => {
                for link in (0..LINKS as u8).map(LinkId).filter(|l| public || *l != PUBLIC) {
                    self.net.set_cut(link, Machine::One, Machine::Two, cut);
                    self.net.set_cut(link, Machine::Two, Machine::One, cut);
                }
            }
            Fault::OneWay { link, from, .. } => self.net.set_cut(link, between[from], between[1 - from], cut),
            Fault::Deaf { from, .. } => {
                for link in (0..LINKS as u8).map(LinkId) {
                    self.net.set_cut(link, between[from], between[1 - from], cut);
                }
            }
            Fault::Poor { link, loss, delay, .. } => {
                if cut {
                    self.net.set_quality(link, loss, delay);
                } else {
                    self.net.set_quality(link, 0, 0);
                }
            }
            Fault::PowerLoss { .. }
            | Fault::Blackout { .. }
            | Fault::NodeKill { .. }
            | Fault::DiskKill { .. }
            | Fault::Freeze { .. }
            | Fault::WitnessDown { .. }
            | Fault::Slow { .. }
            | Fault::Failing { .. }
            | Fault::Echo { .. }
            | Fault::WitnessSlow { .. }
            | Fault::Config { .. }
            | Fault::Operator { .. } => {}
        }
    }

    /// Everything whole again: no fault from here on.
    pub fn mend_all(&mut self) {
        let now = self.queue.now();
        self.trace.step(now, Column::Client, || "ALL MENDED: the cluster must heal".into());
        self.net.heal();
        self.plain_rules();
        self.redeliver();
        self.witness.slow = (1, 0);
        self.start_witness();
        for host in 0..2 {
            self.hosts[host].slow = (1, 0);
            self.hosts[host].failing = (false, 0);
            self.restart_failed_disks(host);
            self.boot(host);
            self.hosts[host].node_wanted = true;
            let boots = self.hosts[host].boots;
            if self.hosts[host].node.is_none() {
                self.queue.after(100_000, Event::StartNode { host, boots });
            }
        }
    }
}
