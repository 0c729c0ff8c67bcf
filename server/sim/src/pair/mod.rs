//! A world of two mirror cores and nothing else: fast enough for hundreds of thousands of seeds.
//!
//! Two real `mirror::Mirror`s, each over a volatile disk; a link that delays, breaks at any frame and may carry frames of an
//! older stream; a register that never errs and an engine for each side that acts on it correctly, but at the worst
//! moments; hosts that lose power, processes that die, stand still, or lose their node process; an oracle that looks after
//! each event. One seed is one run; `Options` can take faults and requests out of it (`shrink` does).

mod bugs;
mod checks;
mod client;
mod disk;
mod engine;
mod faults;
mod lines;
mod link;
mod modes;
mod perform;
mod prefix;
mod rejoin;
mod runner;
mod shrink;
mod undo;

pub use bugs::{Bug, SEEDS as BUG_SEEDS, all as bugs, find as find_bug};
pub use faults::{Fault, Focus, Who};
pub use rejoin::{Explored, Failing, explore as explore_rejoin};
pub use runner::{Ended, run, run_many};
pub use shrink::{Small, shrink};

use crate::oracle::Oracle;
use crate::queue::{Instant, Queue};
use crate::rng::Rng;
use checks::Checks;
use client::Request;
use disk::{CLUSTER, Disk, SET};
use engine::{Node, Register};
use faults::Plan;
use lines::Lines;
use link::Link;
use mirror::action::{Data, OpId};
use mirror::input::{PayloadId, RequestId};
use mirror::{Action, Faults, Input, Mirror, MirrorConfig, MirrorTiming};
use peer::control::{FromDisk, Role, ToDisk};
use prefix::Prefix;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use wire::ids::MILLIS;
use wire::traffic::WriteMode;
use wire::{Incarnation, NodeId, Time};

/// Words of consecutive cells: the payload of a write, a copy or a read.
type Values = Rc<[u64]>;

/// The simulated time at which every run begins: nothing depends on it but that it is not zero.
const BEGIN: Instant = 1_000_000;
/// Events after which a run without its end is called endless.
const EVENTS_MAX: u64 = 200_000;
/// Simulated time within which everything must be well again once the faults have stopped.
const HEAL: u64 = 30_000 * MILLIS;

/// How a seed is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bug put back.
    pub bug: Faults,
    /// When the set acknowledges.
    pub mode: WriteMode,
    /// That changes now and then.
    pub changing: bool,
    /// Keep the lines of the run.
    pub traced: bool,
    /// Faults of the plan, by number, that do not happen.
    pub without: Vec<usize>,
    /// What the faults are mostly about.
    pub focus: Option<Focus>,
    /// Only so many requests.
    pub requests: Option<u64>,
    /// Instead of the seed's own plan: the pattern "standby comes back while the survivor's map is not empty", with these
    /// faults after so many events of it.
    pub rejoin: Option<Vec<(u64, Fault)>>,
}

/// Everything that can be waiting to happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    Deadline { side: usize, process: u64 },
    Io { side: usize, process: u64, io: u64 },
    Frame { stream: u64, to: usize },
    Closed { stream: u64, to: usize },
    Connect,
    Order { side: usize, process: u64 },
    Told { side: usize, process: u64 },
    Engine { side: usize },
    Client,
    Fault { number: usize },
    Start { side: usize },
}

/// A disk process.
struct Process {
    number: u64,
    mirror: Mirror,
    /// The front end takes requests.
    front: bool,
    /// What the device held when its front end opened, and when that was; until the first answer.
    opened: Option<(u64, Box<[u64; disk::CELLS]>)>,
    io: BTreeMap<u64, (Action, Values)>,
    marks: BTreeMap<OpId, u64>,
    requests: BTreeMap<RequestId, Request>,
    /// The last step of a committing application was its write.
    written: bool,
    payloads: BTreeMap<PayloadId, Values>,
    /// With the cell each begins at.
    buffers: BTreeMap<OpId, (usize, Values)>,
    /// Whole blocks of those of hashed ranges.
    blocks: BTreeMap<OpId, Rc<[disk::Block]>>,
    /// Payloads that came with a rebuild's copy.
    copied: BTreeSet<Data>,
    /// The deadline that is armed.
    armed: Option<Time>,
    /// The stream this end is attached to.
    stream: Option<u64>,
    orders: VecDeque<(Instant, ToDisk)>,
    told: VecDeque<(Instant, FromDisk)>,
    fenced: bool,
    /// Its disk has failed an operation.
    bad: bool,
    leaves: bool,
}

impl Process {
    /// Its disk is worth nothing to the set until the host comes back with it.
    fn has_failed(&self) -> bool {
        self.bad || self.mirror.has_failed()
    }
}

/// One host.
struct Side {
    disk: Disk,
    process: Option<Process>,
    incarnation: Incarnation,
    node: Node,
    frozen_until: Instant,
    /// The disk is slower by this factor until then.
    slow: (u64, Instant),
    /// Operations of the disk fail until then.
    failing_until: Instant,
    /// Its copy has everything that was acknowledged: no loss of power since it last was equal or served.
    whole: bool,
    /// The other side has served while this copy was not whole: it is to be made equal before it may serve.
    behind: bool,
    /// The disk was exchanged or set back and nobody has compared it since.
    exchanged: bool,
    /// An older state of the disk.
    kept: Option<(Disk, undo::Old)>,
    old: undo::Old,
}

/// A run.
pub struct World {
    options: Options,
    rng: Rng,
    queue: Queue<Event>,
    timing: MirrorTiming,
    sides: [Side; 2],
    link: Link,
    register: Register,
    oracle: Oracle,
    prefix: Prefix,
    mode: modes::Modes,
    plan: Plan,
    checks: Checks,
    lines: Lines,
    next: u64,
    /// Turns of both cores.
    turns: u64,
    calm_since: Option<Instant>,
    /// What went wrong.
    pub failure: Option<String>,
    /// Events handled.
    pub events: u64,
    /// Changes of the active side.
    pub switches: u64,
    /// Rebuilds that ended.
    pub rebuilds: u64,
    /// Copies that were put back to what they were before a rebuild.
    pub undone: u64,
    /// Requests of all kinds that were begun.
    pub requests: u64,
    /// Statuses that told of a verification that went to its end.
    pub verified: u64,
}

impl World {
    /// A run's beginning: two fresh disks, the second full of junk, nothing running.
    #[must_use]
    pub fn new(seed: u64, options: Options) -> World {
        let mut rng = Rng::new(seed);
        let plan = match &options.rejoin {
            Some(faults) => Plan::rejoin(&mut rng, faults),
            None => Plan::draw(&mut rng, options.focus),
        };
        let mut side = |index: usize| Side {
            disk: Disk::new(index, if index == 0 { 0 } else { checks::JUNK }),
            process: None,
            incarnation: Incarnation(rng.id()),
            node: Node::default(),
            frozen_until: 0,
            slow: (1, 0),
            failing_until: 0,
            whole: true,
            behind: false,
            exchanged: false,
            kept: None,
            old: undo::Old::default(),
        };
        let sides = [side(0), side(1)];
        let journal_bytes = match options.mode {
            // Now and then full.
            _ if options.changing => rng.pick(&[1 << 13, 1 << 16, mirror::config::JOURNAL_BYTES_MAX]),
            WriteMode::Asynchronous => rng.pick(&[1 << 13, 1 << 16, mirror::config::JOURNAL_BYTES_MAX]),
            WriteMode::Synchronous | WriteMode::SemiSynchronous => mirror::config::JOURNAL_BYTES_MAX,
        };
        let timing = MirrorTiming {
            lease_us: 150 * MILLIS,
            node_grace_us: 300 * MILLIS,
            alive_us: 40 * MILLIS,
            silent_us: 130 * MILLIS,
            status_us: 20 * MILLIS,
            io_limit_us: 300 * MILLIS,
            deactivate_us: 400 * MILLIS,
            cool_us: rng.pick(&[2, 8, 30, 200]) * MILLIS,
            mode: options.mode,
            journal_bytes,
        };
        let lines = Lines::new(options.traced);
        // A flush of an asynchronous set is no promise about the twin: nothing is ruled out for ever.
        let oracle = Oracle::new(options.mode != WriteMode::Asynchronous && !options.changing);
        let mode = modes::Modes::new(options.mode);
        let mut world = World {
            options,
            rng,
            queue: Queue::default(),
            timing,
            sides,
            link: Link::default(),
            register: Register::default(),
            oracle,
            prefix: Prefix::default(),
            mode,
            plan,
            checks: Checks::default(),
            lines,
            next: 0,
            turns: 0,
            calm_since: None,
            failure: None,
            events: 0,
            switches: 0,
            rebuilds: 0,
            undone: 0,
            requests: 0,
            verified: 0,
        };
        for side in 0..2 {
            world.queue.at(BEGIN, Event::Start { side });
            world.queue.at(BEGIN + 500, Event::Engine { side });
        }
        world.queue.at(BEGIN + 1000, Event::Client);
        for (number, at) in world.plan.times() {
            world.queue.at(BEGIN + at, Event::Fault { number });
        }
        world
    }

    /// Runs to the end: all well, or the first failure.
    pub fn run(&mut self) {
        while self.failure.is_none() {
            let Some(event) = self.queue.pop() else {
                self.fail("nothing is left to happen".into());
                return;
            };
            self.events += 1;
            self.happen(event);
            self.rejoin_step();
            let now = self.queue.now();
            if self.calm_since.is_none() && now >= BEGIN + self.plan.chaos {
                self.calm();
            }
            if let Some(since) = self.calm_since {
                if self.is_well() {
                    return;
                }
                if now > since + HEAL || self.events > EVENTS_MAX {
                    self.not_healed();
                }
            }
        }
    }

    /// The lines of a traced run.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.all()
    }

    /// The faults of the plan, for `Options::without`.
    #[must_use]
    pub fn planned(&self) -> usize {
        self.plan.len()
    }

    /// Acknowledged writes.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.oracle.acknowledged()
    }

    /// Simulated microseconds.
    #[must_use]
    pub fn simulated(&self) -> u64 {
        self.queue.now().saturating_sub(BEGIN)
    }

    fn happen(&mut self, event: Event) {
        // A host that stands still: what happens to it waits.
        let whose = match event {
            Event::Deadline { side, .. }
            | Event::Io { side, .. }
            | Event::Order { side, .. }
            | Event::Engine { side }
            | Event::Start { side } => Some(side),
            Event::Frame { to, .. } | Event::Closed { to, .. } => Some(to),
            Event::Told { .. } | Event::Connect | Event::Client | Event::Fault { .. } => None,
        };
        if let Some(side) = whose
            && self.queue.now() < self.sides[side].frozen_until
        {
            let until = self.sides[side].frozen_until;
            self.queue.at(until, event);
            return;
        }
        match event {
            Event::Deadline { side, process } => self.deadline(side, process),
            Event::Io { side, process, io } => self.io_done(side, process, io),
            Event::Frame { stream, to } => self.frame_arrives(stream, to),
            Event::Closed { stream, to } => self.stream_ended(stream, to),
            Event::Connect => self.connect(),
            Event::Order { side, process } => self.order_arrives(side, process),
            Event::Told { side, process } => self.told_arrives(side, process),
            Event::Engine { side } => self.engine(side),
            Event::Client => self.client(),
            Event::Fault { number } => self.planned_fault(number),
            Event::Start { side } => self.start(side),
        }
    }

    /// A fresh number.
    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn process(&mut self, side: usize, number: u64) -> Option<&mut Process> {
        self.sides[side].process.as_mut().filter(|process| process.number == number)
    }

    /// The disk process starts, unless one runs.
    fn start(&mut self, side: usize) {
        if self.sides[side].process.is_some() || self.is_kept_away(side) {
            return;
        }
        self.maybe_exchange(side);
        let number = self.fresh();
        let config = self.config(side);
        let area = match self.sides[side].disk.read_control() {
            Ok(area) => area,
            Err(fault) => {
                self.fail(format!("side {}: the control area cannot be read: {fault}", side + 1));
                return;
            }
        };
        let now = Time(self.queue.now());
        self.sides[side].process = Some(Process {
            number,
            mirror: Mirror::new(config, area, now),
            front: false,
            opened: None,
            io: BTreeMap::new(),
            marks: BTreeMap::new(),
            requests: BTreeMap::new(),
            written: false,
            payloads: BTreeMap::new(),
            buffers: BTreeMap::new(),
            blocks: BTreeMap::new(),
            copied: BTreeSet::new(),
            armed: None,
            stream: None,
            orders: VecDeque::new(),
            told: VecDeque::new(),
            fenced: false,
            bad: false,
            leaves: false,
        });
        self.line(side, || "the disk process starts".into());
        self.dial();
        self.check_start(side);
        let present = self.node_present(side);
        self.input(side, Input::NodePresent(present));
    }

    fn config(&self, side: usize) -> MirrorConfig {
        MirrorConfig {
            cluster: CLUSTER,
            set: SET,
            side: NodeId(side as u8 + 1),
            incarnation: self.sides[side].incarnation,
            timing: MirrorTiming { mode: self.mode.wanted, ..self.timing },
            hot_max: self.plan.hot_max,
            faults: self.options.bug,
        }
    }

    /// One turn of a core.
    fn input(&mut self, side: usize, input: Input) {
        let now = Time(self.queue.now());
        if self.lines.wanted() {
            let text = lines::input(&input);
            self.line(side, || text);
        }
        let Some(process) = &mut self.sides[side].process else { return };
        let number = process.number;
        self.turns += 1;
        process.mirror.handle(input, now);
        let (actions, active) = (process.mirror.take_actions(), process.mirror.role() == Role::Active);
        let in_force = active.then(|| process.mirror.mode_in_force());
        self.mode_looser(side, in_force);
        for action in actions {
            self.perform(side, number, action);
        }
        self.mode_is(side, in_force);
        self.arm(side);
        self.check_turn(side);
        if self.sides[side].process.as_ref().is_some_and(|process| process.leaves) {
            self.process_ends(side, "has left");
        }
    }

    fn arm(&mut self, side: usize) {
        let now = Time(self.queue.now());
        let Some(process) = &mut self.sides[side].process else { return };
        let Some(due) = process.mirror.next_deadline() else { return };
        if process.armed.is_none_or(|armed| due < armed || armed < now) {
            process.armed = Some(due);
            let process = process.number;
            self.queue.at(due.0, Event::Deadline { side, process });
        }
    }

    fn deadline(&mut self, side: usize, number: u64) {
        let now = Time(self.queue.now());
        let Some(process) = self.process(side, number) else { return };
        process.armed = None;
        if process.mirror.next_deadline().is_some_and(|due| due <= now) {
            self.input(side, Input::DeadlineReached);
        } else {
            self.arm(side);
        }
    }

    fn fail(&mut self, text: String) {
        if self.failure.is_none() {
            self.say(|| format!("FAILED: {text}"));
            self.failure = Some(text);
        }
    }

    fn line(&mut self, side: usize, text: impl FnOnce() -> String) {
        self.lines.put(self.queue.now().saturating_sub(BEGIN), lines::Column::Side(side), text);
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        self.lines.put(self.queue.now().saturating_sub(BEGIN), lines::Column::World, text);
    }
}
