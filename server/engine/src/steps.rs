//! Carrying a group's plan out: one step at a time, each with a time-out; what a late answer would say is unknown.

use crate::action::{ActionId, StartCause, Step};
use crate::core::Core;
use crate::group::{Address, FenceCause, Group, Probe, Readmission, Running, Thing, Timed, role};
use crate::input::Outcome;
use crate::plan::{Is, PlanStep, Target};
use crate::register::Acks;
use crate::rules::RETRY_PAUSE;
use crate::sets::What;
use crate::timing::{self, step};
use peer::cluster::Servers;
use peer::control::{DiskOrder, OrderFault, Role};
use peer::heartbeat::{Mode, Wanted};
use wire::alert::{EventKind, StepKind};
use wire::ids::{MILLIS, SECOND};
use wire::rules::StopFailure;
use wire::traffic::WriteMode;
use wire::{NodeId, SetId, Time};

/// How a step ended.
enum End {
    Done,
    Failed(String),
    /// It may have happened, or may yet.
    Unknown(String),
}

impl Group {
    /// Strives for the target: begins the first step of the plan, if none is under way.
    pub fn advance(&mut self, core: &mut Core, aim: Option<NodeId>) {
        let target = if aim == Some(core.me) { Target::Up } else { Target::Down };
        if self.running.is_some() {
            return;
        }
        if self.held.is_some() && self.is_here(core) {
            return;
        }
        // Seen to be gone, by a fence or a fresh disk process: there is nothing left to hold (seed 5106).
        self.held = None;
        if target != self.target {
            self.turn_to(core, target);
            if target == Target::Up {
                self.failure = None;
            }
        }
        if core.now < self.tried.1 {
            return;
        }
        let steps = self.steps_to(core, target);
        // A dropped address waits for the lease like every other step.
        match steps.first().copied() {
            None => self.settled(core),
            Some(PlanStep::Right) => self.begin_time(core, StepKind::Right),
            Some(step) => {
                if target == Target::Up {
                    self.end_time(core, StepKind::Right, false);
                }
                self.begin(core, step);
            }
        }
    }

    fn begin(&mut self, core: &mut Core, step: PlanStep) {
        let group = self.id;
        let probed = matches!(step, PlanStep::Address(ip) if self.readds(ip) || self.is_free(ip, core.now));
        let (action, timeout) = match step {
            PlanStep::Right => return,
            PlanStep::Activate(set) => match self.begin_activate(core, set) {
                true => (None, step::ACTIVATE),
                false => return,
            },
            PlanStep::Deactivate(set) => match self.begin_deactivate(core, set) {
                true => (None, step::DEACTIVATE),
                false => return,
            },
            PlanStep::Mount(set) => {
                let status = core.sets.get(&set).and_then(|s| s.status.as_ref());
                let Some(device) = status.and_then(|s| s.device.clone()) else {
                    return self.wait_or_fail(core, step, "the block device did not appear");
                };
                (Some(core.perform(Step::Mount { group, set, device }, step::MOUNT)), step::MOUNT)
            }
            PlanStep::Unmount(set) => {
                (Some(core.perform(Step::Unmount { group, set, force: false }, step::UNMOUNT)), step::UNMOUNT)
            }
            PlanStep::Address(address) if self.probing(address, core.now) => return,
            PlanStep::Address(address) if probed => {
                self.begin_adding(address);
                (Some(core.perform(Step::AddAddress { group, address }, step::ADDRESS)), step::ADDRESS)
            }
            PlanStep::Address(address) => {
                (Some(core.perform(Step::ProbeAddress { group, address }, step::PROBE)), step::PROBE)
            }
            PlanStep::Remove(address) => {
                // From here on it is not refreshed: a renewal behind the removal would bring it back.
                for known in self.addresses.iter_mut().filter(|a| a.ip == address) {
                    known.is = Is::Unknown;
                }
                (Some(core.perform(Step::RemoveAddress { group, address }, step::ADDRESS)), step::ADDRESS)
            }
            PlanStep::Start => {
                let timeout = self.script_timeout(core);
                (Some(core.perform(Step::StartScript { group, cause: self.cause }, timeout)), timeout)
            }
            PlanStep::Stop => {
                let timeout = self.script_timeout(core);
                (Some(core.perform(Step::StopScript { group }, timeout)), timeout)
            }
        };
        self.begin_time(core, step.kind());
        let deadline = core.now.plus(timeout + step::SLACK);
        self.running = Some(Running { step, action, probed, deadline });
    }

    /// As standby of a holder that is suspiciously silent: the addresses are probed before it is judged, so that nothing of
    /// the takeover waits for that (DESIGN 6, "the standby probes in advance").
    pub fn probe_suspicion(&mut self, core: &mut Core) {
        let holds = self.register.known().holder == Some(core.twin_id);
        let suspect = core.timing.suspect;
        // A node process that is away for a moment has its disk processes heard.
        let silent =
            core.twin_silent() >= suspect && core.twin.heard.is_some() && !core.blocks_heard(suspect);
        if !holds || !silent || core.twin.gone || self.taking_over || !self.wanted.run {
            return;
        }
        if core.config.group(self.id).is_some_and(|config| self.may_run_on(config, core.me)) {
            let now = core.now;
            self.probe(core, |probe| match probe {
                Probe::Answered(at) => now.since(at) >= timing::PROBE_FRESH,
                Probe::No | Probe::Asked(..) | Probe::Free(_) => true,
            });
        }
    }

    /// Probes every address while the right to the group is being got.
    pub fn probe_ahead(&mut self, core: &mut Core) {
        self.probe(core, |_| true);
    }

    /// Probes addresses that are not here, unless it is known or being asked that nobody has them.
    fn probe(&mut self, core: &mut Core, wanted: impl Fn(Probe) -> bool) {
        let (group, until, now) = (self.id, core.now.plus(step::PROBE), core.now);
        let open = |probe: Probe| match probe {
            Probe::Asked(_, until) => now >= until,
            Probe::Free(at) => now.since(at) >= timing::PROBE_FRESH / 2,
            Probe::No | Probe::Answered(_) => true,
        };
        let due = |a: &&mut Address| a.is == Is::Absent && open(a.probe) && wanted(a.probe);
        for address in self.addresses.iter_mut().filter(due) {
            let id = core.perform(Step::ProbeAddress { group, address: address.ip }, step::PROBE);
            address.probe = Probe::Asked(id, until);
        }
    }

    /// A probe in advance was answered. Returns whether it was one.
    fn probed_ahead(&mut self, now: Time, id: ActionId, outcome: &Outcome) -> bool {
        let asked = |a: &&mut Address| matches!(a.probe, Probe::Asked(asked, _) if asked == id);
        let Some(address) = self.addresses.iter_mut().find(asked) else { return false };
        address.probe = if *outcome == Outcome::Done { Probe::Free(now) } else { Probe::Answered(now) };
        true
    }

    fn probing(&self, ip: std::net::IpAddr, now: Time) -> bool {
        self.addresses.iter().any(|a| a.ip == ip && matches!(a.probe, Probe::Asked(_, until) if now < until))
    }

    /// Nobody has it: so a probe in advance found, or the other server gave it up in order just before.
    fn is_free(&self, ip: std::net::IpAddr, now: Time) -> bool {
        if self.moving && !self.serving && now.since(self.turned) < timing::PROBE_FRESH {
            return true;
        }
        let fresh = |at: Time| now.since(at) < timing::PROBE_FRESH;
        self.addresses.iter().any(|a| a.ip == ip && matches!(a.probe, Probe::Free(at) if fresh(at)))
    }

    /// The address was here under this right and was only dropped by the lease: no probe, it is added at once.
    fn readds(&self, ip: std::net::IpAddr) -> bool {
        self.serving && self.addresses.iter().any(|a| a.ip == ip && a.added > Time(0))
    }

    fn script_timeout(&self, core: &Core) -> u64 {
        let seconds = core.config.group(self.id).map_or(0, |g| g.script_timeout_s);
        u64::from(seconds.max(1)) * SECOND
    }

    /// Every set is checked before the first is changed; alone or with the twin, as the register allows.
    fn begin_activate(&mut self, core: &mut Core, set: SetId) -> bool {
        let step = PlanStep::Activate(set);
        if self.is_left_out(core) {
            self.wait_or_fail(core, step, "the copy here does not count any more");
            return false;
        }
        let sets = core.sets_of(self.id);
        let ready = |id: &SetId| {
            let active = role(core, *id) == Some(Role::Active);
            active || core.sets.get(id).is_some_and(crate::sets::Set::is_promotable)
        };
        if !sets.iter().all(ready) {
            self.wait_or_fail(core, step, "the mirror set's copy or its process is not ready here");
            return false;
        }
        let alone = self.register.acks() == Acks::Alone;
        let linked = |id: &SetId| core.sets.get(id).and_then(|s| s.status.as_ref()).is_some_and(|s| s.linked);
        if !alone && !sets.iter().all(linked) {
            // The register puts the twin out if it stays away; then the set starts alone.
            self.begin_time(core, StepKind::Disk);
            return false;
        }
        let epoch = self.register.known().epoch;
        let generation = core.rng.generation();
        self.clean = false;
        self.given_up = false;
        if let Some(entry) = core.sets.get_mut(&set) {
            // It starts with no lease; one is ordered as soon as its status says that it activates.
            entry.lease_ordered = None;
        }
        core.order(set, DiskOrder::Activate { epoch, alone, generation }, What::Step, step::ACTIVATE)
            .is_some()
    }

    fn begin_deactivate(&mut self, core: &mut Core, set: SetId) -> bool {
        if !core.sets.get(&set).is_some_and(|s| s.present && s.status.is_some()) {
            // Not connected: either it comes back, or after a moment it counts as ended.
            return false;
        }
        core.order(set, DiskOrder::Deactivate, What::Step, step::DEACTIVATE).is_some()
    }

    /// A step that cannot begin yet: its time runs, and when it is over it has failed.
    fn wait_or_fail(&mut self, core: &mut Core, step: PlanStep, reason: &str) {
        self.begin_time(core, step.kind());
        let began =
            self.timeline.iter().rev().find(|t| t.kind == step.kind() && t.took.is_none()).map(|t| t.began);
        if began.is_some_and(|at| core.now.since(at) >= step::ACTIVATE) {
            self.finish(core, step, End::Failed(reason.to_string()));
        }
    }

    /// A step without answer is unknown.
    pub fn expire(&mut self, core: &mut Core) {
        let late = self.running.as_ref().filter(|r| core.now >= r.deadline).map(|r| r.step);
        if let Some(step) = late {
            self.running = None;
            self.finish(core, step, End::Unknown("no answer in time".to_string()));
        }
    }

    /// A `Perform` was answered. Returns whether it was this group's.
    pub fn performed(&mut self, core: &mut Core, id: ActionId, outcome: &Outcome) -> bool {
        if let Some(running) = self.running.as_ref().filter(|r| r.action == Some(id)) {
            let (step, probed) = (running.step, running.probed);
            self.running = None;
            self.step_performed(core, step, probed, outcome);
            return true;
        }
        if self.probed_ahead(core.now, id, outcome) {
            return true;
        }
        if let crate::group::Look::Asked(asked, _) = self.look
            && asked == id
        {
            match outcome {
                Outcome::Observed { mounted, addressed, processes } => {
                    let (mounted, addressed, processes) = (*mounted, *addressed, *processes);
                    self.look = crate::group::Look::Seen { at: core.now, mounted, addressed, processes };
                }
                Outcome::Done
                | Outcome::Failed { .. }
                | Outcome::Unknown { .. }
                | Outcome::AddressInUse { .. } => {
                    self.look = crate::group::Look::Needed;
                }
            }
            return true;
        }
        let thing = match &mut self.fencing {
            Some(fencing) => fencing.waits.remove(&id),
            None => None,
        };
        let Some(thing) = thing.or_else(|| self.background.remove(&id)) else {
            return false;
        };
        if *outcome == Outcome::Done {
            self.gone(thing);
        }
        self.judge_fencing(core);
        true
    }

    /// A removal in the background or a fencing succeeded.
    fn gone(&mut self, thing: Thing) {
        match thing {
            Thing::Processes => self.script = Is::Absent,
            Thing::Mount(set) => set_mount(&mut self.mounts, set, Is::Absent),
            Thing::Address(ip) => {
                for address in self.addresses.iter_mut().filter(|a| a.ip == ip && a.is == Is::Unknown) {
                    address.is = Is::Absent;
                }
                if self.fencing.is_some() {
                    self.set_address(ip, Is::Absent, Time(0));
                }
            }
        }
    }

    fn step_performed(&mut self, core: &mut Core, step: PlanStep, probed: bool, outcome: &Outcome) {
        let end = match outcome {
            Outcome::Done => End::Done,
            Outcome::Failed { reason } => End::Failed(reason.clone()),
            Outcome::Unknown { reason } => End::Unknown(reason.clone()),
            Outcome::Observed { .. } => End::Unknown("the answer does not fit the step".to_string()),
            Outcome::AddressInUse { by } => {
                if let PlanStep::Address(address) = step {
                    core.record_event(EventKind::AddressInUse { group: self.id, address, by: by.clone() });
                }
                End::Failed(format!("the address is in use by {by}"))
            }
        };
        if let (PlanStep::Address(address), false, End::Done) = (step, probed, &end) {
            // Nobody has it: add it now.
            self.begin_adding(address);
            let action = core.perform(Step::AddAddress { group: self.id, address }, step::ADDRESS);
            let deadline = core.now.plus(step::ADDRESS + step::SLACK);
            self.running = Some(Running { step, action: Some(action), probed: true, deadline });
            return;
        }
        self.finish(core, step, end);
    }

    /// An order of a step was answered by the set's process.
    pub fn step_ordered(&mut self, core: &mut Core, set: SetId, result: &Result<(), OrderFault>) {
        let ours =
            |step: PlanStep| matches!(step, PlanStep::Activate(s) | PlanStep::Deactivate(s) if s == set);
        let Some(step) = self.running.as_ref().map(|r| r.step).filter(|s| ours(*s)) else {
            return;
        };
        self.running = None;
        let end = match (step, result) {
            (_, Ok(())) => End::Done,
            // Not left in order, but nothing of it serves any more: nothing holds the group here.
            (PlanStep::Deactivate(_), Err(OrderFault::Fenced)) => {
                self.given_up = true;
                return self.end_time(core, step.kind(), true);
            }
            (PlanStep::Deactivate(_), Err(fault)) if self.still_used(core, fault) => {
                return self.end_time(core, step.kind(), true);
            }
            (_, Err(fault)) => End::Failed(reason_of(fault)),
        };
        self.finish(core, step, end);
    }

    /// The process of a set went away: its answer will not come.
    pub fn disk_gone(&mut self, core: &mut Core, set: SetId) {
        self.readmission = Readmission::Idle;
        self.shouldering = Readmission::Idle;
        let ours =
            |step: PlanStep| matches!(step, PlanStep::Activate(s) | PlanStep::Deactivate(s) if s == set);
        if let Some(step) = self.running.as_ref().map(|r| r.step).filter(|s| ours(*s)) {
            self.running = None;
            self.finish(core, step, End::Unknown("the disk process ended".to_string()));
        }
    }

    fn finish(&mut self, core: &mut Core, step: PlanStep, end: End) {
        let failed = !matches!(end, End::Done);
        self.end_time(core, step.kind(), failed);
        let now = core.now;
        if !failed {
            self.tried = (0, Time(0));
        }
        match (&end, step) {
            (End::Done, PlanStep::Mount(set)) => set_mount(&mut self.mounts, set, Is::Present),
            (End::Done, PlanStep::Unmount(set)) => set_mount(&mut self.mounts, set, Is::Absent),
            (End::Done, PlanStep::Address(ip)) => self.set_address(ip, Is::Present, now),
            (End::Done, PlanStep::Remove(ip)) => self.set_address(ip, Is::Absent, Time(0)),
            (End::Done, PlanStep::Start) => self.script = Is::Present,
            (End::Done, PlanStep::Stop) => self.script = Is::Absent,
            (End::Done, PlanStep::Deactivate(set)) => self.deactivated(core, set),
            (End::Done, PlanStep::Activate(set)) => {
                // The status that follows says so too; the plan need not wait for it.
                if let Some(status) = core.sets.get_mut(&set).and_then(|s| s.status.as_mut()) {
                    status.role = Role::Active;
                }
            }
            (End::Done, PlanStep::Right) => {}
            (End::Failed(reason) | End::Unknown(reason), _) => {
                let unknown = matches!(end, End::Unknown(_));
                self.step_failed(core, step, reason.clone(), unknown);
            }
        }
    }

    fn deactivated(&mut self, core: &mut Core, set: SetId) {
        if let Some(status) = core.sets.get_mut(&set).and_then(|s| s.status.as_mut()) {
            status.role = Role::Standby;
        }
        let left = |id: &SetId| crate::group::set_is(core, *id) != Is::Absent;
        // One that fenced itself meanwhile was not flushed on both.
        self.clean = !core.sets_of(self.id).iter().any(left) && !self.given_up;
    }

    fn step_failed(&mut self, core: &mut Core, step: PlanStep, reason: String, unknown: bool) {
        let (group, server, kind) = (self.id, core.me, step.kind());
        // What was tried and failed left nothing; what is unknown may be here.
        match step {
            PlanStep::Mount(set) if unknown => set_mount(&mut self.mounts, set, Is::Unknown),
            PlanStep::Address(ip) => {
                let is = if unknown { Is::Unknown } else { Is::Absent };
                self.set_address(ip, is, Time(0));
            }
            // A script that failed may have left processes running: the stop script ends them.
            PlanStep::Start => self.script = Is::Unknown,
            PlanStep::Right
            | PlanStep::Activate(_)
            | PlanStep::Mount(_)
            | PlanStep::Stop
            | PlanStep::Remove(_)
            | PlanStep::Unmount(_)
            | PlanStep::Deactivate(_) => {}
        }
        if self.target == Target::Up && !unknown && self.tried.0 < core.rules(group).retries {
            self.tried = (self.tried.0 + 1, core.now.plus(RETRY_PAUSE));
            core.record_event(EventKind::GroupRetry { group, server, step: kind, reason });
        } else if self.target == Target::Up {
            core.record_event(EventKind::GroupFailed { group, server, step: kind, reason: reason.clone() });
            self.failure = Some((kind, reason));
            self.note_failed(core);
        } else if !matches!(step, PlanStep::Deactivate(set) if !core.sets.get(&set).is_some_and(|s| s.present))
        {
            if core.rules(group).stop_failure == StopFailure::Fence {
                self.failure = Some((kind, reason));
                return self.fence(core, FenceCause::WillNotStop);
            }
            core.record_event(EventKind::GroupHeld { group, server, step: kind, reason: reason.clone() });
            self.held = Some((kind, reason));
            self.since = core.wall();
        }
    }

    /// From here on it may be here, whatever becomes of the answer.
    fn begin_adding(&mut self, ip: std::net::IpAddr) {
        for address in self.addresses.iter_mut().filter(|a| a.ip == ip) {
            address.is = Is::Unknown;
            address.probe = Probe::No;
        }
    }

    fn set_address(&mut self, ip: std::net::IpAddr, is: Is, added: Time) {
        for address in self.addresses.iter_mut().filter(|a| a.ip == ip) {
            address.is = is;
            address.added = added;
            address.refreshed = added;
            address.announced = 0;
        }
    }

    /// A kind of step begins, unless it runs already.
    pub fn begin_time(&mut self, core: &Core, kind: StepKind) {
        if self.timeline.iter().any(|t| t.kind == kind && t.took.is_none()) {
            return;
        }
        let (began, wall) = (core.now, core.wall());
        self.timeline.push(Timed { kind, began, wall, took: None, failed: false });
        if self.timeline.len() > TIMELINE_MAX {
            self.timeline.remove(0);
        }
    }

    fn end_time(&mut self, core: &Core, kind: StepKind, failed: bool) {
        for timed in self.timeline.iter_mut().filter(|t| t.kind == kind && t.took.is_none()) {
            timed.took = Some(core.now.since(timed.began));
            timed.failed = failed;
        }
    }

    /// The target is reached.
    fn settled(&mut self, core: &mut Core) {
        if self.wanted.mode != Mode::Serve {
            return self.access_settled(core, self.target == Target::Up);
        }
        match self.target {
            Target::Up if !self.serving => self.now_serving(core),
            Target::Down if self.serving => {
                self.serving = false;
                self.since = core.wall();
                // A move is told when the group serves on the other server.
                if self.aim(core).is_none() {
                    self.home_again(core);
                    core.record_event(EventKind::GroupStopped { group: self.id, server: core.me });
                }
                self.command = None;
            }
            Target::Up | Target::Down => {}
        }
    }

    /// After a failover: what the copies of asynchronous sets lacked when the other server last told (C4).
    fn tell_lost(&self, core: &mut Core, from: NodeId) {
        for set in core.sets_of(self.id) {
            let mode = core.config.set(set).map(|config| config.traffic.mode);
            let lacked = core.sets.get(&set).and_then(|set| set.lacked);
            if mode == Some(WriteMode::Asynchronous) || lacked.is_some() {
                let (bytes, ms) = lacked.map_or((0, 0), |lacked| (lacked.bytes, lacked.ms));
                core.record_event(EventKind::WritesLost { set, from, bytes, ms });
            }
        }
    }

    fn now_serving(&mut self, core: &mut Core) {
        self.serving = true;
        self.since = core.wall();
        self.command = None;
        self.failure = None;
        let (group, server) = (self.id, core.me);
        let took_ms = core.now.since(self.turned) / MILLIS;
        let failed_over = self.cause == StartCause::Failover;
        self.start_ms = self.step_times();
        let event = match self.from.take() {
            Some(from) if failed_over => {
                let took_ms = self.end_incident(core).unwrap_or(took_ms);
                self.tell_lost(core, from);
                EventKind::GroupFailedOver { group, from, to: server, took_ms }
            }
            Some(from) => EventKind::GroupMoved { group, from, to: server, took_ms },
            None => EventKind::GroupStarted { group, server, took_ms },
        };
        core.record_event(event);
        for set in core.sets_of(self.id) {
            core.sets.entry(set).and_modify(|set| set.lacked = None);
        }
        self.cause = StartCause::Start;
        let failed_over = failed_over || self.wanted.on == core.me && self.wanted.failed_over;
        let (run, on, failed, asked) = (true, core.me, Servers::NONE, false);
        let wanted = Wanted { run, on, failed, failed_over, asked, ..self.wanted };
        self.want(core, wanted);
    }

    /// Milliseconds of each kind of step of this start.
    pub fn step_times(&self) -> Vec<(StepKind, u64)> {
        let kinds = [StepKind::Right, StepKind::Disk, StepKind::Mount, StepKind::Address, StepKind::Script];
        let sum = |kind: StepKind| {
            let own = self.timeline.iter().filter(|t| t.kind == kind);
            own.filter_map(|t| t.took).reduce(|a, b| a + b).map(|us| (kind, us / MILLIS))
        };
        kinds.into_iter().filter_map(sum).collect()
    }

    /// While it serves: kernel lifetimes are renewed, and the addresses announced a few times more.
    pub fn keep_addresses(&mut self, core: &mut Core) {
        let known = self.register.known().holder == Some(core.me);
        if !known || self.suspended || self.fencing.is_some() || !self.has_lease(core.now) {
            return;
        }
        let (group, now) = (self.id, core.now);
        for address in self.addresses.iter_mut().filter(|a| a.is == Is::Present) {
            if now.since(address.refreshed) >= timing::ADDRESS_REFRESH {
                address.refreshed = now;
                core.perform(Step::AddAddress { group, address: address.ip }, step::ADDRESS);
            }
            let due = timing::ANNOUNCE_AT.get(address.announced);
            if due.is_some_and(|after| now.since(address.added) >= *after) {
                address.announced += 1;
                core.perform(Step::Announce { group, address: address.ip }, step::ADDRESS);
            }
        }
    }
}

/// Steps remembered of one direction: five kinds, several mounts and addresses each.
const TIMELINE_MAX: usize = 256;

fn set_mount(mounts: &mut [(SetId, Is)], set: SetId, is: Is) {
    for (_, place) in mounts.iter_mut().filter(|(id, _)| *id == set) {
        *place = is;
    }
}

fn reason_of(fault: &OrderFault) -> String {
    match fault {
        OrderFault::StaleEpoch { stored } => format!("the disk has stored a later term ({stored})"),
        OrderFault::WrongRole => "not possible in the set's role".to_string(),
        OrderFault::Inconsistent => "this copy is an unfinished rebuild".to_string(),
        OrderFault::NotEqual => "the copies cannot be made equal at present".to_string(),
        OrderFault::Fenced => "the set has fenced itself".to_string(),
        OrderFault::InUse => "the block device is in use".to_string(),
        OrderFault::NothingKept => "no older version is kept here".to_string(),
        OrderFault::Io { reason } => reason.clone(),
    }
}
