//! One failover group on this server: what is here of it, what it strives for, and the order of a turn.

use crate::action::{ActionId, StartCause, Step};
use crate::core::Core;
use crate::persist::{Forced, GroupRecord};
use crate::plan::{Is, PlanStep, Seen, Target};
use crate::register::{Acks, Register, RegisterValue};
use crate::timing;
use peer::cluster::Servers;
use peer::control::Role;
use peer::heartbeat::{Mode, Part, Wanted};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use wire::alert::StepKind;
use wire::config::GroupConfig;
use wire::view::Incident;
use wire::{CommandId, Epoch, GroupId, NodeId, SetId, Time, WallClock};

/// A floating IP on this server.
#[derive(Clone, Debug)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Whether it is here.
    pub is: Is,
    /// When it was added.
    pub added: Time,
    /// When its kernel lifetime was last renewed.
    pub refreshed: Time,
    /// Announcements made since it was added.
    pub announced: usize,
    /// The probe in advance.
    pub probe: Probe,
}

/// A probe made while a promotion is being prepared: when the group gets there, it need not wait for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// None: the step probes.
    No,
    /// Under way; answered by then.
    Asked(ActionId, Time),
    /// Nobody had the address at that time.
    Free(Time),
    /// Somebody did, or the network was not there: the step probes.
    Answered(Time),
}

/// A step under way.
#[derive(Clone, Debug)]
pub struct Running {
    /// The step.
    pub step: PlanStep,
    /// The `Perform` that is to answer; none: the set's process is.
    pub action: Option<ActionId>,
    /// The address was probed; adding it is under way.
    pub probed: bool,
    /// An answer later than this is unknown.
    pub deadline: Time,
}

/// A step of the present direction, for the page.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// Its kind.
    pub kind: StepKind,
    /// When it began.
    pub began: Time,
    /// The same for people.
    pub wall: WallClock,
    /// How long it took in microseconds, when ended.
    pub took: Option<u64>,
    /// It failed.
    pub failed: bool,
}

/// Why a group is fenced here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceCause {
    /// The right is lost: lease out, or another holder known.
    RightLost,
    /// The disk process ended under it; the right is still here.
    DiskLost,
    /// A step of its stop failed, and that is its rule (B6).
    WillNotStop,
}

/// Fencing under way.
#[derive(Clone, Debug)]
pub struct Fencing {
    /// Why.
    pub cause: FenceCause,
    /// What is to be answered.
    pub waits: BTreeMap<ActionId, Thing>,
    /// Unanswered until then: everything again.
    pub again_at: Time,
}

/// What a fencing or background action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// The group's processes.
    Processes,
    /// A mount.
    Mount(SetId),
    /// An address.
    Address(IpAddr),
}

/// What is known of what runs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nobody looked since this process started.
    Needed,
    /// Asked.
    Asked(ActionId, Time),
    /// Observed at that time; the sets' processes have not all spoken yet.
    Seen {
        /// When.
        at: Time,
        /// All its mounts are here.
        mounted: bool,
        /// All its addresses are here.
        addressed: bool,
        /// Its processes run.
        processes: bool,
    },
    /// Known.
    Done,
}

/// Re-admission of the twin (rule 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readmission {
    /// Not under way.
    Idle,
    /// Ordered; so many sets have switched.
    Switching {
        /// Answers still to come.
        left: usize,
    },
    /// All sets switched: acknowledgements need the twin, and the copies are equal.
    Switched,
}

/// A group.
#[derive(Debug)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its register.
    pub register: Register,
    /// What is wanted.
    pub wanted: Wanted,
    /// What its last start here took, by step, in milliseconds.
    pub start_ms: Vec<(StepKind, u64)>,
    /// As holder: end of the lease.
    pub lease: Option<Time>,
    /// As standby: when the latest granted nonce came.
    pub last_grant: Time,
    /// As standby: granting has ended, promotion is being prepared.
    pub taking_over: bool,
    /// Next attempt of a proposal.
    pub retry_at: Time,
    /// Next repetition of register messages.
    pub repeat_at: Time,
    /// When the known value was last told to the twin.
    pub told_at: Time,
    /// When the other acceptors were last asked.
    pub asked_at: Time,
    /// In this life another acceptor showed that the known value is the latest.
    pub confirmed: bool,
    /// Re-admission.
    pub readmission: Readmission,
    /// What is here was looked at.
    pub look: Look,
    /// Its mounts here, in order.
    pub mounts: Vec<(SetId, Is)>,
    /// Its addresses here, in order.
    pub addresses: Vec<Address>,
    /// Its script here.
    pub script: Is,
    /// Where steps lead at present.
    pub target: Target,
    /// When that direction was taken.
    pub turned: Time,
    /// The step under way.
    pub running: Option<Running>,
    /// Steps of the present direction.
    pub timeline: Vec<Timed>,
    /// A stop failed.
    pub held: Option<(StepKind, String)>,
    /// A start failed here.
    pub failure: Option<(StepKind, String)>,
    /// Fencing under way.
    pub fencing: Option<Fencing>,
    /// It ended here without order; the sets may hold writes that were never acknowledged.
    pub given_up: bool,
    /// It was deactivated in order on all sets since it was last active.
    pub clean: bool,
    /// The lease is out: addresses were dropped, steps wait.
    pub suspended: bool,
    /// Actions nobody waits for, by what they are about.
    pub background: BTreeMap<ActionId, Thing>,
    /// Why the start script will run.
    pub cause: StartCause,
    /// The start under way is a move.
    pub moving: bool,
    /// Whom it was taken over from, in the start under way or the last one.
    pub from: Option<NodeId>,
    /// It serves here and that was told.
    pub serving: bool,
    /// When it got where it is.
    pub since: WallClock,
    /// The command under way.
    pub command: Option<CommandId>,
    /// Restarts after a lost disk process.
    pub restarts: VecDeque<Time>,
    /// The failover under way.
    pub incident: Option<Incident>,
    /// When it began and when it was judged.
    pub incident_times: (Time, Time),
    /// The epoch in which this server last learnt that it holds.
    pub held_epoch: Option<Epoch>,
    /// Since when the twin's copy is out of date.
    pub out_since: Option<WallClock>,
    /// Since when a failed disk here asks to be left out of the register (rule 12).
    pub asks_out: Option<Time>,
    /// As standby: the sets prepare to be the only copies that count.
    pub shouldering: Readmission,
    /// [`GroupRecord::forced`].
    pub forced: Option<Forced>,
    /// [`GroupRecord::takeovers`].
    pub takeovers: Vec<WallClock>,
    /// Failures of the step of the start under way, and when it is tried again.
    pub tried: (u8, Time),
}

/// Background actions remembered: refreshes and removals of a few addresses.
const BACKGROUND_MAX: usize = 256;

impl Group {
    /// From its record.
    #[must_use]
    pub fn new(core: &Core, id: GroupId, record: &GroupRecord) -> Group {
        let (me, now, wall) = (core.me, core.now, core.wall());
        let in_sync = Core::first_in_sync(&core.config, id);
        let initial = RegisterValue { epoch: Epoch(0), holder: None, in_sync };
        let witness = core.config.witness.is_some();
        let register = Register::new(me, initial, witness, record.register.clone());
        // A new life of the host: nothing of it can be here.
        let looked = core.new_host;
        let known = register.known();
        let held_epoch = (known.holder == Some(me)).then_some(known.epoch);
        Group {
            id,
            register,
            wanted: record.wanted,
            start_ms: record.start_ms.clone(),
            lease: None,
            last_grant: now,
            taking_over: false,
            retry_at: now,
            repeat_at: now,
            told_at: Time(0),
            asked_at: Time(0),
            confirmed: false,
            readmission: Readmission::Idle,
            look: if looked { Look::Done } else { Look::Needed },
            mounts: Vec::new(),
            addresses: Vec::new(),
            script: Is::Absent,
            target: Target::Down,
            turned: now,
            running: None,
            timeline: Vec::new(),
            held: None,
            failure: None,
            fencing: None,
            given_up: false,
            clean: false,
            suspended: false,
            background: BTreeMap::new(),
            cause: StartCause::Start,
            from: None,
            moving: false,
            serving: false,
            since: wall,
            command: None,
            restarts: VecDeque::new(),
            incident: None,
            incident_times: Group::no_incident(),
            held_epoch,
            out_since: None,
            asks_out: None,
            shouldering: Readmission::Idle,
            forced: record.forced,
            takeovers: crate::rules::bounded(&record.takeovers),
            tried: (0, Time(0)),
        }
    }

    /// What is durable of it.
    #[must_use]
    pub fn record(&self) -> GroupRecord {
        GroupRecord {
            register: self.register.record().clone(),
            wanted: self.wanted,
            start_ms: self.start_ms.clone(),
            forced: self.forced,
            takeovers: self.takeovers.clone(),
        }
    }

    /// Fits mounts and addresses to the configuration; what is here of removed ones stays until it is stopped.
    pub fn configure(&mut self, config: &GroupConfig) {
        let unknown = if self.look == Look::Done { Is::Absent } else { Is::Unknown };
        let mounts = config.mounts.iter().map(|m| {
            let old = self.mounts.iter().find(|(set, _)| *set == m.set);
            old.copied().unwrap_or((m.set, unknown))
        });
        self.mounts = mounts.collect();
        let addresses = config.addresses.iter().map(|ip| {
            let fresh = Address {
                ip: *ip,
                is: unknown,
                added: Time(0),
                refreshed: Time(0),
                announced: 0,
                probe: Probe::No,
            };
            self.addresses.iter().find(|a| a.ip == *ip).cloned().unwrap_or(fresh)
        });
        self.addresses = addresses.collect();
        if self.look != Look::Done {
            self.script = Is::Unknown;
        }
    }

    /// What is seen of it here.
    #[must_use]
    pub fn seen(&self, core: &Core) -> Seen {
        let known = self.register.known();
        let right =
            known.holder == Some(core.me) && self.register.acks() != Acks::No && self.has_lease(core.now);
        let sets = core.sets_of(self.id).into_iter().map(|set| (set, set_is(core, set))).collect();
        let addresses = self.addresses.iter().map(|a| (a.ip, a.is)).collect();
        Seen { right, sets, mounts: self.mounts.clone(), addresses, script: self.script }
    }

    /// The steps from what is seen to a target. By permission only the sets are brought up.
    #[must_use]
    pub fn steps_to(&self, core: &Core, target: Target) -> Vec<PlanStep> {
        let seen = self.seen(core);
        let sets_only = target == Target::Up && self.wanted.mode != Mode::Serve;
        crate::plan::plan(target, &if sets_only { seen.without_missing() } else { seen })
    }

    /// Something of it is here, or may be.
    #[must_use]
    pub fn is_here(&self, core: &Core) -> bool {
        let seen = self.seen(core);
        let here = |is: &Is| *is != Is::Absent;
        seen.sets.iter().any(|(_, is)| here(is))
            || seen.mounts.iter().any(|(_, is)| here(is))
            || seen.addresses.iter().any(|(_, is)| here(is))
            || here(&seen.script)
    }

    /// It serves users from here: all of it is here. (An address dropped for a moment by the lease counts as here.)
    #[must_use]
    pub fn is_up(&self, core: &Core) -> bool {
        let missing = self.steps_to(core, Target::Up);
        let dropped =
            |step: &PlanStep| matches!(step, PlanStep::Right | PlanStep::Address(_)) && self.suspended;
        missing.iter().all(dropped)
    }

    /// What this server tells the other about its part.
    #[must_use]
    pub fn part(&self, core: &Core) -> Part {
        if self.look != Look::Done {
            return Part::Unknown;
        }
        if self.held.is_some() {
            return Part::Held;
        }
        if self.is_here(core) || self.fencing.is_some() {
            return match (self.target, self.fencing.is_some()) {
                (_, true) | (Target::Down, _) => Part::Stopping,
                (Target::Up, _) if self.is_up(core) => Part::Running,
                (Target::Up, _) => Part::Starting,
            };
        }
        let known = self.register.known().holder;
        let holder = known == Some(core.me);
        let unclean = !self.clean && !core.sets_of(self.id).is_empty();
        match self.target {
            // Waiting for the other server to hand it over is not yet starting.
            Target::Up if holder || known.is_none() => Part::Starting,
            Target::Up => Part::Down,
            // Left out, this copy is nobody's to go on with.
            Target::Down if holder && (self.given_up || unclean || self.is_left_out(core)) => Part::GivenUp,
            Target::Down => Part::Down,
        }
    }

    /// Judges the right before an input is looked at.
    pub fn judge_lease_first(&mut self, core: &mut Core) {
        if self.look == Look::Done {
            self.judge_right(core);
        }
    }

    /// What is here is known.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.look == Look::Done
    }

    /// Times at which something ends, besides the regular tick.
    #[must_use]
    pub fn deadlines(&self, core: &Core) -> Vec<Time> {
        let mut all = vec![self.retry_at, self.repeat_at];
        if self.register.known().holder == Some(core.me) {
            let bound = core.timing.fence_bound;
            all.extend(self.lease_limit().into_iter().flat_map(|limit| [limit, limit.plus(bound)]));
        }
        all.extend(self.running.as_ref().map(|r| r.deadline));
        all.extend(self.promotion_at(core));
        all
    }

    /// One turn. `aim`: where it should run, as far as this server can tell.
    pub fn turn(&mut self, core: &mut Core, aim: Option<NodeId>) {
        self.expire(core);
        self.background.retain(|id, _| id.0 + BACKGROUND_MAX as u64 > core.next_action);
        self.take_block_lease(core);
        let looked = self.look == Look::Done;
        if !self.look(core) {
            return;
        }
        // What was just found may be what is kept.
        let aim = if looked { aim } else { self.aim(core) };
        self.judge_right(core);
        self.finish_build(core);
        self.drive_register(core, aim);
        // It may have been refused, by the limit of takeovers.
        let aim = if self.wanted.failed.contains(core.me) { self.aim(core) } else { aim };
        if self.fencing.is_none() {
            self.advance(core, aim);
            self.fail_back(core);
            self.rebuild_for_twin(core);
        }
        self.probe_suspicion(core);
        self.standing_orders(core);
        self.keep_addresses(core);
    }

    /// After a restart of the node process alone: looks at what runs, and adopts it.
    fn look(&mut self, core: &mut Core) -> bool {
        match self.look {
            Look::Done => return true,
            Look::Needed => {
                let step = Step::Observe { group: self.id };
                let id = core.perform(step, timing::step::OBSERVE);
                self.look = Look::Asked(id, core.now.plus(timing::step::OBSERVE + timing::step::SLACK));
            }
            Look::Asked(_, deadline) if core.now >= deadline => self.look = Look::Needed,
            Look::Asked(..) => {}
            Look::Seen { at, mounted, addressed, processes } => {
                let spoke = |id: &SetId| core.sets.get(id).is_some_and(|s| s.status.is_some());
                let late = core.now.since(at) >= timing::DISK_FIRST;
                if late || core.sets_of(self.id).iter().all(spoke) {
                    self.observed(core, mounted, addressed, processes);
                    return true;
                }
            }
        }
        false
    }

    /// What was observed. All of it is adopted or, if this server has no right to it, stopped.
    fn observed(&mut self, core: &Core, mounted: bool, addressed: bool, processes: bool) {
        // "Not all of it" may still be some of it: unknown, unless nothing of the group is here at all.
        // Of no address all are held, and of no mount all are mounted: that says nothing.
        let some_mounted = mounted && !self.mounts.is_empty();
        let some_addressed = addressed && !self.addresses.is_empty();
        let none = !some_mounted && !some_addressed && !processes;
        let active = core.sets_of(self.id).iter().any(|set| set_is(core, *set) != Is::Absent);
        let otherwise = if none && !active { Is::Absent } else { Is::Unknown };
        let is = |found: bool| if found { Is::Present } else { otherwise };
        for (_, mount) in &mut self.mounts {
            *mount = is(mounted);
        }
        for address in &mut self.addresses {
            address.is = is(addressed);
            address.announced = timing::ANNOUNCE_AT.len();
        }
        self.script = if processes { Is::Present } else { Is::Absent };
        self.look = Look::Done;
        if self.register.known().holder == Some(core.me) && self.lease.is_none() {
            self.lease = Some(core.now);
        }
        if self.is_up(core) || mounted && processes {
            self.target = Target::Up;
            self.serving = true;
        }
    }

    /// Its start failed here: not again until an operator acts or it has run elsewhere.
    pub fn note_failed(&mut self, core: &mut Core) {
        let wanted = Wanted { failed: self.wanted.failed.with(core.me), ..self.wanted };
        self.want(core, wanted);
    }

    /// Changes what is wanted; both servers will agree on it.
    pub fn want(&mut self, core: &mut Core, mut wanted: Wanted) {
        if self.wanted.version == 0 && wanted.on == NodeId(0) {
            // Nothing was decided yet: it was started with the cluster, here.
            (wanted.run, wanted.on) = (true, core.me);
        }
        let version = self.wanted.version;
        if (Wanted { version, author: self.wanted.author, ..wanted }) == self.wanted {
            return;
        }
        self.wanted = Wanted { version: version + 1, author: core.me, ..wanted };
        core.urgent = true;
    }

    /// Takes a new direction.
    pub fn turn_to(&mut self, core: &Core, target: Target) {
        if self.target != target {
            self.target = target;
            self.turned = core.now;
            self.timeline.clear();
            self.tried = (0, Time(0));
        }
    }

    /// Whether it may run on a server, as far as its own record tells.
    #[must_use]
    pub fn may_run_on(&self, config: &GroupConfig, server: NodeId) -> bool {
        config.policy.contains(&server) && !self.wanted.failed.contains(server)
    }

    /// Where it should run (B2, A4): where it is wanted if that server can, otherwise on the other one if that can.
    #[must_use]
    pub fn aim(&self, core: &Core) -> Option<NodeId> {
        let config = core.config.group(self.id)?;
        let known = self.register.known();
        let undecided = self.wanted.version == 0;
        if !self.should_run(core) {
            return None;
        }
        if self.wanted.mode != Mode::Serve {
            return self.access_aim(core);
        }
        let first = if undecided {
            config.policy.iter().copied().find(|s| known.in_sync.contains(*s))?
        } else {
            self.wanted.on
        };
        let runs = |server: NodeId| {
            let here = server == core.me && (self.is_up(core) && self.is_here(core));
            let there = server == core.twin_id && core.twin.part(self.id) == Part::Running;
            known.holder == Some(server) && (here || there) && !core.entry(server).leaving
        };
        let can = |server: NodeId| {
            // Through the twin's disk the holder goes on where it is.
            let in_sync = known.in_sync.contains(server) || runs(server);
            let able =
                core.takes_part(server) && !self.is_worse(core, server) && !self.is_shut_out(core, server)
                    || runs(server);
            in_sync && self.may_run_on(config, server) && able
        };
        if self.is_kept(core) {
            return self.kept_aim(core, can);
        }
        // Where it ended without order it starts again only if the other server cannot take it.
        let ended = if first == core.me {
            known.holder == Some(core.me) && self.given_up && self.fencing.is_none()
        } else {
            core.twin.part(self.id) == Part::GivenUp
        };
        let order = if ended { [first.twin(), first] } else { [first, first.twin()] };
        order.into_iter().find(|server| can(*server))
    }

    /// A server's copy may lack what was acknowledged but not flushed, and the other one, which counts as in sync too, does not
    /// (or nobody can say): it waits for the other one, or for an operator's word.
    #[must_use]
    pub fn is_worse(&self, core: &Core, server: NodeId) -> bool {
        let crashed = |server: NodeId| {
            let lacking = if server == core.me { &core.crashed_in } else { &core.twin.crashed_in };
            lacking.contains(&self.id)
        };
        self.in_sync().count() > 1 && crashed(server) && !crashed(server.twin())
    }

    /// Notes where it is active, for exclusive groups.
    pub fn note_active(&self, core: &mut Core) {
        let at = self.active_on(core).or(self.taking_over.then_some(core.me));
        // What is only built, or used by an administrator, takes nobody's place.
        match at.filter(|_| self.wanted.mode == Mode::Serve) {
            Some(server) => core.active.insert(self.id, server),
            None => core.active.remove(&self.id),
        };
    }

    /// It is wanted to run, wherever that is possible.
    #[must_use]
    pub fn should_run(&self, core: &Core) -> bool {
        let undecided = self.wanted.version == 0;
        self.wanted.run || undecided && core.config.group(self.id).is_some_and(|c| c.auto_start)
    }

    /// As holder with both in sync: the twin's copy is equal, or the sets were left in order with both flushed.
    #[must_use]
    pub fn keeps_twin_whole(&self, core: &Core) -> bool {
        let known = self.register.known();
        let equal = |id: &SetId| {
            let needs = core.sets.get(id).and_then(|s| s.status.as_ref()).is_some_and(|s| s.needs_twin);
            needs && core.sets.get(id).is_some_and(|set| set.is_equal(core.twin.stored_host))
        };
        let left = self.clean && !self.is_here(core);
        known.holder == Some(core.me)
            && known.in_sync.count() > 1
            && (left || core.sets_of(self.id).iter().all(equal))
    }

    /// As holder: the own copy does not count, the twin's is served through the twin (rule 12).
    #[must_use]
    pub fn is_left_out(&self, core: &Core) -> bool {
        let known = self.register.known();
        known.holder == Some(core.me) && !known.in_sync.contains(core.me)
    }

    /// The servers in sync, by the known value.
    #[must_use]
    pub fn in_sync(&self) -> Servers {
        self.register.known().in_sync
    }
}

/// The role of a set here, if its process is there.
pub fn role(core: &Core, set: SetId) -> Option<Role> {
    core.sets.get(&set).and_then(crate::sets::Set::role)
}

/// Whether a set is active here.
pub fn set_is(core: &Core, set: SetId) -> Is {
    let Some(entry) = core.sets.get(&set) else {
        return Is::Absent;
    };
    match entry.role() {
        Some(Role::Active) => Is::Present,
        Some(Role::Activating | Role::Deactivating) => Is::Unknown,
        Some(Role::Standby | Role::Fenced) => Is::Absent,
        // Not connected: after a moment it counts as ended; node starts it again.
        None if core.now.since(entry.present_since) >= timing::DISK_AWAY => Is::Absent,
        None => entry.before,
    }
}
