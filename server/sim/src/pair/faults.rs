//! What happens to a run: drawn from its seed before it begins, so that a failing run can be tried again with less.

use super::disk::Disk;
use super::{Event, World};
use crate::rng::Rng;
use peer::block::HOT_MAX;
use peer::control::Role;
use wire::ids::MILLIS;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The side that serves, or holds.
    Holder,
    /// The other one.
    Standby,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Fault {
    /// A host loses power.
    Power(Who),
    /// Both do, at once.
    Blackout,
    /// A disk process is killed.
    Kill(Who),
    /// Both are.
    KillBoth,
    /// The stream breaks.
    Break,
    /// Nothing passes for so long; nobody is told.
    Cut { long: u64 },
    /// A host stands still for so long.
    Freeze { who: Who, long: u64 },
    /// A disk is slower by this factor for so long.
    Slow { who: Who, factor: u64, long: u64 },
    /// A disk fails for so long.
    Fails { who: Who, long: u64 },
    /// A node process is away for so long.
    NodeAway { who: Who, long: u64 },
    /// The state of a disk is kept, to come back later.
    Keep(Who),
    /// At its next start a standby out of sync finds another disk: a fresh one, or the state kept.
    Exchange,
}

/// What the faults of a run are mostly about, where a bug needs a rare kind of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// The holder's disk refuses what it is asked, for long, and what may follow from that.
    BadDisk,
    /// Disks that are exchanged or set back to an older state.
    SetBack,
    /// The right to serve ends: nodes away, hosts that stand still, cables cut.
    Right,
    /// A rebuild's target and its source lose their power while older versions are kept.
    Old,
}

impl Focus {
    fn draw(self, rng: &mut Rng) -> Fault {
        let who = if rng.percent(50) { Who::Holder } else { Who::Standby };
        let long = rng.pick(&[20, 80, 200, 400]) * MILLIS;
        let kinds = match self {
            Focus::BadDisk => {
                [Fault::Fails { who: Who::Holder, long }, Fault::Power(who), Fault::Kill(who), Fault::Break]
            }
            Focus::SetBack => [Fault::Keep(who), Fault::Exchange, Fault::Power(who), Fault::Break],
            Focus::Old => {
                [Fault::Power(Who::Standby), Fault::Blackout, Fault::Power(who), Fault::Cut { long }]
            }
            Focus::Right => [
                Fault::NodeAway { who, long },
                Fault::Freeze { who, long },
                Fault::Cut { long },
                Fault::Slow { who, factor: 60, long },
            ],
        };
        rng.pick(&kinds)
    }
}

/// The faults of a run and how busy it is.
#[derive(Debug, Default)]
pub(super) struct Plan {
    faults: Vec<(u64, Fault)>,
    /// Simulated microseconds during which requests and faults happen.
    pub(super) chaos: u64,
    /// The front end uses so many of the windows.
    pub(super) windows: u64,
    /// Extents the activity logs hold.
    pub(super) hot_max: usize,
    /// Most requests.
    pub(super) requests: u64,
    /// Most microseconds between two requests.
    pace: u64,
    /// Most microseconds until a disk process is started again.
    restart: u64,
    /// Frames of old streams come late.
    late: bool,
    /// The application commits: a write, its answer, a flush, its answer, again and again.
    pub(super) commits: bool,
    exchange: bool,
    /// Faults after so many events of the pattern.
    pub(super) steps: Vec<(u64, Fault)>,
    pub(super) pattern: Option<super::rejoin::Stage>,
}

impl Plan {
    /// A seed's plan.
    pub(super) fn draw(rng: &mut Rng, focus: Option<Focus>) -> Plan {
        let mut rng = rng.fork();
        let chaos = rng.range(60, 500) * MILLIS;
        let requests = rng.range(20, 160);
        let mut plan = Plan {
            chaos,
            windows: rng.range(1, 5),
            // A write touches two at most.
            hot_max: rng.pick(&[2, 3, HOT_MAX]),
            requests,
            // So many spread over the time, or in a few bursts of it.
            pace: rng.pick(&[2, 2, 1]) * chaos / requests,
            restart: rng.pick(&[2, 10, 60]) * MILLIS,
            late: rng.percent(25),
            ..Plan::default()
        };
        let mut at = 10 * MILLIS;
        for _ in 0..rng.range(1, 14) {
            // Half of the faults follow another at once: that is where the mistakes are.
            at += if rng.percent(50) { rng.below(12 * MILLIS) } else { rng.below(chaos / 3) };
            if at > chaos {
                break;
            }
            let fault = match focus.filter(|_| rng.percent(70)) {
                Some(focus) => focus.draw(&mut rng),
                None => draw(&mut rng),
            };
            plan.faults.push((at, fault));
        }
        if rng.percent(10) {
            let long = rng.pick(&[5, 20, 80, 200]) * MILLIS;
            plan.faults.push((rng.below(chaos), Fault::Fails { who: Who::Holder, long }));
        }
        plan.commits = rng.percent(15);
        plan
    }

    /// The plan of the pattern of `rejoin`.
    pub(super) fn rejoin(rng: &mut Rng, steps: &[(u64, Fault)]) -> Plan {
        let mut rng = rng.fork();
        Plan {
            chaos: 400 * MILLIS,
            windows: 2,
            hot_max: HOT_MAX,
            requests: 400,
            pace: rng.pick(&[400, 2_000]),
            restart: 4 * MILLIS,
            steps: steps.to_vec(),
            pattern: Some(super::rejoin::Stage::Building),
            ..Plan::default()
        }
    }

    pub(super) fn times(&self) -> Vec<(usize, u64)> {
        self.faults.iter().enumerate().map(|(number, (at, _))| (number, *at)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.faults.len()
    }

    pub(super) fn pace(&self, rng: &mut Rng) -> u64 {
        rng.below(self.pace)
    }

    pub(super) fn restart_delay(&self, rng: &mut Rng) -> u64 {
        500 + rng.below(self.restart)
    }
}

fn draw(rng: &mut Rng) -> Fault {
    let who = if rng.percent(50) { Who::Holder } else { Who::Standby };
    let long = rng.pick(&[2, 20, 80, 200, 400]) * MILLIS;
    match rng.below(100) {
        0..=24 => Fault::Power(who),
        25..=29 => Fault::Blackout,
        30..=49 => Fault::Kill(who),
        50..=52 => Fault::KillBoth,
        53..=67 => Fault::Break,
        68..=75 => Fault::Cut { long },
        76..=81 => Fault::Freeze { who, long },
        82..=85 => Fault::Slow { who, factor: rng.pick(&[10, 60, 400]), long },
        86..=88 => Fault::Fails { who, long: 5 * MILLIS },
        89..=94 => Fault::NodeAway { who, long },
        95..=97 => Fault::Keep(who),
        _ => Fault::Exchange,
    }
}

impl World {
    pub(super) fn planned_fault(&mut self, number: usize) {
        let Some((_, fault)) = self.plan.faults.get(number).copied() else { return };
        if self.calm_since.is_none() && !self.options.without.contains(&number) {
            self.link.keeps_late = self.plan.late;
            self.say(|| format!("fault {number}: {fault:?}"));
            self.fault(fault);
        }
    }

    fn hit(&self, who: Who) -> usize {
        let serving = (0..2).find(|side| self.role(*side) == Role::Active);
        let holder = self.register.holder.or(serving).unwrap_or(0);
        match who {
            Who::Holder => holder,
            Who::Standby => 1 - holder,
        }
    }

    /// A fault happens.
    pub(super) fn fault(&mut self, fault: Fault) {
        let now = self.queue.now();
        match fault {
            Fault::Power(who) => self.power_lost(self.hit(who)),
            Fault::Blackout => {
                let first = self.rng.below(2) as usize;
                self.power_lost(first);
                self.power_lost(1 - first);
            }
            Fault::Kill(who) => self.process_ends(self.hit(who), "is killed"),
            Fault::KillBoth => {
                self.process_ends(0, "is killed");
                self.process_ends(1, "is killed");
            }
            Fault::Break => self.break_stream(),
            Fault::Cut { long } => self.link.cut_until = now + long,
            Fault::Freeze { who, long } => {
                let side = self.hit(who);
                self.sides[side].frozen_until = now + long;
            }
            Fault::Slow { who, factor, long } => {
                let side = self.hit(who);
                self.sides[side].slow = (factor, now + long);
            }
            Fault::Fails { who, long } => {
                let side = self.hit(who);
                self.sides[side].failing_until = now + long;
            }
            Fault::NodeAway { who, long } => self.node_goes(self.hit(who), long),
            Fault::Keep(who) => {
                let side = self.hit(who);
                let mut kept = self.sides[side].disk.clone();
                kept.lose_power(&mut self.rng);
                self.sides[side].kept = Some((kept, self.sides[side].old.clone()));
            }
            Fault::Exchange => self.plan.exchange = true,
        }
    }

    /// A disk process that starts on a side out of sync may find another disk than it left.
    pub(super) fn maybe_exchange(&mut self, side: usize) {
        let out = self.register.holder == Some(1 - side) && !self.register.in_sync[side];
        let undecided = self.sides[1 - side].node_pending();
        if !self.plan.exchange || !out || undecided || self.calm_since.is_some() {
            return;
        }
        self.plan.exchange = false;
        self.line(side, || "another disk is here".into());
        // Within one session nothing tells an older state of a disk from a newer one (ARCHITECTURE, "open").
        let known = self.stored(1 - side).map_or(0, |stored| stored.twin_session.0);
        let kept = self.sides[side].kept.take().filter(|(disk, _)| disk.session() < known);
        let fresh = || (Disk::new(side, super::checks::JUNK), super::undo::Old::default());
        (self.sides[side].disk, self.sides[side].old) = kept.unwrap_or_else(fresh);
        self.sides[side].exchanged = true;
    }

    /// The faults stop.
    pub(super) fn calm(&mut self) {
        let now = self.queue.now();
        self.say(|| "the faults stop".into());
        self.calm_since = Some(now);
        self.link.cut_until = 0;
        self.link.keeps_late = false;
        self.plan.restart = MILLIS;
        for side in 0..2 {
            let host = &mut self.sides[side];
            (host.frozen_until, host.failing_until, host.slow) = (0, 0, (1, 0));
            host.node.ends_away();
            self.queue.after(1, Event::Start { side });
        }
    }
}
