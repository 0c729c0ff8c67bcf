//! The engine's part: a register that never errs, and the orders that ARCHITECTURE.md's rules allow for its value.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use peer::control::{DiskOrder, DiskStatus, OrderFault, Role};
use rustix::process::Signal;
use serde_json::{Value, json};
use wire::{Epoch, Generation, NodeId};

use super::chance::Chance;
use super::faults::{Moment, Reach};
use super::oracle::Oracle;
use super::standing;
use super::writers::Stage;
use crate::rig::{Rig, Side};

/// An operation on a device that is gone ends within this: the kernel ends it with the process.
const DRAINED: Duration = Duration::from_secs(30);
/// A link that is away is waited for so long before the twin is put out (`reconnect_grace` is 500 ms).
const GRACE_MS: u64 = 500;
/// A hand-over waits so long for the writers: they may wait for the twin themselves.
const QUIET: Duration = Duration::from_millis(300);
/// Limit of one round of the driver.
const POLL: Duration = Duration::from_millis(3);

/// What the disks of a schedule are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disks {
    /// What was not flushed is lost with the process, and the host's life with it; else only the process is killed.
    pub volatile: bool,
    /// A flush does nothing: the control of the oracle.
    pub no_flush: bool,
    /// Disks may be slow, or fail.
    pub weak: bool,
}

impl Disks {
    /// The disks of a schedule: of ten, three lose their process only, seven lose power, four of these on weak disks.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Disks { volatile: seed % 10 < 7, no_flush: false, weak: seed % 10 < 4 }
    }
}

/// What the register says: the chosen value.
#[derive(Clone, Copy, Debug)]
struct Register {
    epoch: u64,
    holder: usize,
    both: bool,
    /// The holder's own copy is out: it serves through its twin, whose copy is the only one that counts.
    through: bool,
}

/// Drives one pair.
pub struct Drive {
    rig: Rig,
    disks: Disks,
    register: Register,
    chance: Chance,
    oracle: Arc<Oracle>,
    stage: Arc<Stage>,
    reach: Arc<Reach>,
    /// Which copies have all that they acknowledged: a host that lost power may lack what it had not flushed. Where both count
    /// as in sync, the one that is not whole waits for the one that is (ARCHITECTURE, "Whole copies").
    whole: [bool; 2],
    /// When a side that is down comes back.
    back_at: [Option<Instant>; 2],
    /// The active side has been allowed to rebuild since it became active and the twin came back.
    allowed: bool,
    /// Since when the link of the active side has been away, or the pair has not come on.
    unlinked: Option<Instant>,
    unequal: Option<Instant>,
    /// Stop both sides when they are called equal, and compare.
    pub audit: bool,
    /// How often that was done.
    pub audits: u64,
    /// It is due: the copies have become equal since the last time.
    audit_due: bool,
    /// No more faults: nothing is drawn that disturbs.
    pub calm: bool,
    /// Rebuilds that came to their end.
    pub rebuilds: u64,
    /// Changes of the active side.
    pub switches: u64,
    /// Comparisons of stopped copies.
    pub compared: u64,
    /// Failed disks of the active side that were left out while it went on to serve.
    pub left_out: u64,
}

impl Drive {
    /// Starts both sides and makes side 1 active, alone as at the first build.
    ///
    /// # Errors
    /// They do not start.
    pub fn start(
        rig: Rig,
        disks: Disks,
        seed: u64,
        oracle: Arc<Oracle>,
        stage: Arc<Stage>,
        reach: Arc<Reach>,
    ) -> Result<Self> {
        let now = Some(Instant::now());
        let mut drive = Drive {
            rig,
            disks,
            register: Register { epoch: 1, holder: 0, both: false, through: false },
            chance: Chance::new(seed),
            oracle,
            stage,
            reach,
            whole: [true; 2],
            back_at: [now, now],
            allowed: false,
            unlinked: None,
            unequal: None,
            audit: false,
            audits: 0,
            audit_due: false,
            calm: true,
            rebuilds: 0,
            switches: 0,
            compared: 0,
            left_out: 0,
        };
        drive.heal(Duration::from_secs(60))?;
        drive.calm = false;
        Ok(drive)
    }

    fn side(&mut self, side: usize) -> &mut Side {
        if side == 0 { &mut self.rig.one } else { &mut self.rig.two }
    }

    fn say(&self, what: String) {
        self.reach.say(what);
    }

    fn generation(&mut self) -> Generation {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.chance.draw().to_le_bytes());
        bytes[8..].copy_from_slice(&self.chance.draw().to_le_bytes());
        Generation(bytes)
    }

    /// A side is dead, or is put to death: its host has lost power, or only its process has gone.
    fn down(&mut self, side: usize, why: &str) -> Result<()> {
        self.say(format!("side {} is down: {why}", side + 1));
        self.reach.process(side, None);
        self.oracle.death_begins(side);
        if side == self.register.holder {
            self.stage.withdraw();
        }
        self.side(side).kill();
        if side == self.register.holder {
            self.stage.drained(DRAINED)?;
            self.oracle.device_gone();
        } else {
            self.allowed = false;
        }
        self.oracle.death_ends(side);
        self.whole[side] &= !self.disks.volatile;
        let away = if self.calm { 0 } else { self.chance.below(600) };
        self.back_at[side] = Some(Instant::now() + Duration::from_millis(away));
        if self.back_at.iter().all(Option::is_some) {
            self.compare_standing()?;
        }
        Ok(())
    }

    /// Both are stopped: what their control areas call equal must be equal (invariant 13).
    fn compare_standing(&mut self) -> Result<()> {
        self.compared += 1;
        for wrong in standing::compare(&self.rig, self.register.holder)? {
            self.oracle.wrong(wrong);
        }
        Ok(())
    }

    fn weaken(&mut self, side: usize) {
        let weak = self.disks.weak && self.disks.volatile && !self.calm;
        let slow = if weak && self.chance.one_in(3) { 50 + self.chance.below(400) } else { 0 };
        let fails = (weak && self.chance.one_in(8)).then(|| {
            let what = ["write", "read", "flush"][self.chance.below(3) as usize];
            json!({ "what": what, "after": self.chance.below(400), "times": self.chance.below(2), "errno": 5 })
        });
        if slow > 0 || fails.is_some() {
            self.say(format!("side {} starts with a weak disk: {slow} us, {fails:?}", side + 1));
        }
        let seed = self.chance.draw();
        let options = &mut self.side(side).options;
        options["volatile_delay_us"] = json!(slow);
        options["volatile_fault"] = fails.unwrap_or(Value::Null);
        options["volatile_seed"] = json!(seed);
    }

    fn start_side(&mut self, side: usize) -> Result<()> {
        self.weaken(side);
        let volatile = self.disks.volatile;
        let it = self.side(side);
        let started = if volatile { it.start() } else { it.start_again() };
        self.back_at[side] = None;
        match started {
            Ok(()) => {
                let pid = self.side(side).pid();
                self.reach.process(side, pid);
                self.say(format!("side {} runs", side + 1));
                Ok(())
            }
            // A disk that fails at once.
            Err(error) if !self.side(side).runs() => self.down(side, &format!("{error:#}")),
            Err(error) => Err(error),
        }
    }

    /// Goes on until the pair is in sync, everything runs and the device is served.
    ///
    /// # Errors
    /// It does not come so far in time.
    pub fn heal(&mut self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        while !self.step()? {
            if Instant::now() >= end {
                let states: Vec<_> = (0..2).map(|side| self.side(side).status().ok()).collect();
                bail!("the pair does not heal: {:?}\n{states:#?}", self.register);
            }
        }
        Ok(())
    }

    /// One look at both sides and what follows from it; true where all is well.
    ///
    /// # Errors
    /// A rule is broken, or requests hang.
    pub fn step(&mut self) -> Result<bool> {
        std::thread::sleep(POLL);
        for side in 0..2 {
            let runs = self.side(side).runs();
            match self.back_at[side] {
                Some(at) if Instant::now() >= at => self.start_side(side)?,
                None if !runs => self.down(side, "its process has ended")?,
                Some(_) | None => {}
            }
        }
        let states = [self.look(0)?, self.look(1)?];
        let holder = self.register.holder;
        let twin = 1 - holder;
        let Some(mine) = &states[holder] else {
            self.absent(&states)?;
            return Ok(false);
        };
        if mine.role != Role::Active {
            self.absent(&states)?;
            return Ok(false);
        }
        let behind = |status: &DiskStatus| status.epoch < Epoch(self.register.epoch);
        if states[twin].as_ref().is_some_and(|status| status.role != Role::Standby || behind(status)) {
            self.learn(twin)?;
            return Ok(false);
        }
        if self.register.through {
            return self.through(mine);
        }
        self.moment(mine);
        self.audit_due |= !mine.equal;
        if self.audit && self.audit_due && mine.linked && mine.equal && self.chance.one_in(2) {
            self.audit_due = false;
            self.look_at_both()?;
            return Ok(false);
        }
        if self.register.both {
            self.in_sync(mine, states[twin].as_ref())
        } else {
            self.alone(mine, states[twin].as_ref())
        }
    }

    fn moment(&self, mine: &DiskStatus) {
        let rebuilding = mine.rebuild.is_some_and(|rebuild| rebuild.running);
        self.reach.moment(rebuilding.then_some(Moment::Rebuilding));
    }

    /// The status of a side; nothing where it is down. One that has failed or fenced itself is taken out of service.
    fn look(&mut self, side: usize) -> Result<Option<DiskStatus>> {
        if self.back_at[side].is_some() {
            return Ok(None);
        }
        match self.side(side).status() {
            Ok(status) if status.asks_out && self.leave_out(side)? => Ok(self.side(side).status().ok()),
            Ok(status) if status.failed.is_some() && !status.through || status.role == Role::Fenced => {
                self.down(side, &format!("{:?}, failed: {:?}", status.role, status.failed))?;
                Ok(None)
            }
            Ok(status) => {
                if status.split {
                    self.oracle.wrong(format!("side {} calls the copies split", side + 1));
                    bail!("split: {status:?}");
                }
                Ok(Some(status))
            }
            Err(error) => {
                self.down(side, &format!("{error:#}"))?;
                Ok(None)
            }
        }
    }

    /// Gives an order; nothing where the side died over it.
    fn order(&mut self, side: usize, order: DiskOrder) -> Result<Option<Result<(), OrderFault>>> {
        let text = format!("{order:?}");
        match self.side(side).try_order(order) {
            Ok(result) => {
                self.say(format!("side {}: {text}: {result:?}", side + 1));
                Ok(Some(result.map(|_| ())))
            }
            Err(error) => {
                self.down(side, &format!("{text}: {error:#}"))?;
                Ok(None)
            }
        }
    }

    /// The active side's disk refuses what it is asked: the twin stores that its copy may be the only one, the register leaves
    /// the other out, and it goes on through the twin's disk. False: it is taken out of service, as any failed disk.
    fn leave_out(&mut self, side: usize) -> Result<bool> {
        let (holder, twin) = (self.register.holder, 1 - self.register.holder);
        let able = side == holder && self.register.both && self.back_at[twin].is_none() && self.whole[twin];
        if !able || self.chance.one_in(4) {
            return Ok(false);
        }
        if self.order(twin, DiskOrder::Shoulder)? != Some(Ok(())) {
            return Ok(false);
        }
        (self.register.both, self.register.through) = (false, true);
        self.oracle.through();
        self.left_out += 1;
        (self.unlinked, self.unequal) = (None, None);
        self.order(side, DiskOrder::Through)?;
        Ok(true)
    }

    /// Served through the twin: until the twin is gone, or chance moves the work there.
    fn through(&mut self, mine: &DiskStatus) -> Result<bool> {
        let holder = self.register.holder;
        let unlinked = Self::since(&mut self.unlinked, !mine.linked);
        if unlinked > GRACE_MS || self.back_at[1 - holder].is_some() {
            self.down(holder, "left out, and without its twin")?;
        } else if self.calm || self.chance.one_in(150) {
            self.stage.withdraw();
            if self.stage.drained(QUIET).is_err() {
                self.serve_again()?;
            } else if self.order(holder, DiskOrder::Deactivate)? == Some(Ok(())) {
                self.promote(1 - holder)?;
            } else {
                self.down(holder, "left out, and not left in order")?;
            }
        }
        Ok(false)
    }

    fn learn(&mut self, side: usize) -> Result<()> {
        let (epoch, holder) = (Epoch(self.register.epoch), NodeId(self.register.holder as u8 + 1));
        self.order(side, DiskOrder::LearnEpoch { epoch, holder })?;
        Ok(())
    }

    /// Nobody serves: the holder again, or its twin where that is in sync.
    fn absent(&mut self, states: &[Option<DiskStatus>; 2]) -> Result<()> {
        let holder = self.register.holder;
        let twin = 1 - holder;
        let (here, there) = (states[holder].is_some(), states[twin].is_some());
        if self.register.through {
            // Whatever the holder has, only the twin may go on.
            return if there { self.promote(twin) } else { Ok(()) };
        }
        let both = self.register.both;
        let waits = both && !self.whole[holder] && self.whole[twin];
        if waits && !there {
            return Ok(());
        }
        if both && there && (waits || self.may_promote(twin)) && self.chance.one_in(if here { 4 } else { 40 })
        {
            return self.promote(twin);
        }
        if waits || !here || states[holder].as_ref().is_some_and(|status| status.role != Role::Standby) {
            return Ok(());
        }
        if both && self.chance.one_in(2) {
            self.activate(holder, false)
        } else if both && there && self.chance.one_in(2) {
            Ok(())
        } else {
            // The register chose this side alone first.
            self.register.both = false;
            self.oracle.alone();
            self.activate(holder, true)
        }
    }

    fn may_promote(&self, side: usize) -> bool {
        self.register.both && (self.whole[side] || !self.whole[1 - side])
    }

    /// The twin takes over; the old holder may be alive and cut off.
    fn promote(&mut self, side: usize) -> Result<()> {
        self.stage.withdraw();
        self.oracle.alone();
        self.register =
            Register { epoch: self.register.epoch + 1, holder: side, both: false, through: false };
        self.switches += 1;
        self.activate(side, true)
    }

    fn activate(&mut self, side: usize, alone: bool) -> Result<()> {
        self.reach.active(side);
        self.reach.moment(Some(Moment::Activating));
        self.allowed = false;
        (self.unlinked, self.unequal) = (None, None);
        let (epoch, generation) = (Epoch(self.register.epoch), self.generation());
        let done = self.order(side, DiskOrder::Activate { epoch, alone, generation })?;
        match done {
            None => return Ok(()),
            Some(Ok(())) => {}
            Some(Err(OrderFault::Fenced | OrderFault::Io { .. })) => return Ok(()),
            Some(Err(fault)) => {
                self.oracle.wrong(format!("a copy that is in sync cannot be activated: {fault:?}"));
                bail!("activation of side {} refused: {fault:?}", side + 1);
            }
        }
        self.oracle.activated(side);
        self.whole[side] = true;
        // Whoever held before ends its term before anybody works on the new device.
        if self.back_at[1 - side].is_none() {
            self.learn(1 - side)?;
        }
        self.stage.drained(DRAINED)?;
        self.oracle.device_gone();
        if self.order(side, DiskOrder::Lease { until: None, fence_after_us: 500_000 })?.is_none() {
            return Ok(());
        }
        match self.side(side).status() {
            Ok(DiskStatus { device: Some(device), .. }) => {
                // It may die this very moment.
                if let Err(error) = self.stage.publish(device.as_ref()) {
                    self.say(format!("{error:#}"));
                }
                Ok(())
            }
            Ok(status) => bail!("active without a device: {status:?}"),
            Err(error) => self.down(side, &format!("{error:#}")),
        }
    }

    fn put_out(&mut self) -> Result<()> {
        self.reach.moment(Some(Moment::PuttingOut));
        self.register.both = false;
        self.oracle.alone();
        self.allowed = false;
        let generation = self.generation();
        self.order(self.register.holder, DiskOrder::PutOut { generation })?;
        (self.unlinked, self.unequal) = (None, None);
        Ok(())
    }

    /// The copies are called equal: whatever is not written at this moment must be. Nobody writes meanwhile, and both
    /// processes stand still.
    fn look_at_both(&mut self) -> Result<()> {
        let holder = self.register.holder;
        self.stage.withdraw();
        if self.stage.drained(QUIET).is_err() {
            return self.serve_again();
        }
        let Some(status) = self.look(holder)? else { return Ok(()) };
        let equal = status.linked && status.equal && self.back_at[1 - holder].is_none();
        if equal && self.side(1 - holder).runs() {
            for side in 0..2 {
                self.side(side).signal(Signal::STOP);
            }
            self.audits += 1;
            self.say(format!("both are looked at: needs twin {}", status.needs_twin));
            let compared = self.compare_standing();
            // What a volatile disk has not flushed is not in its image. In sync, an acknowledgement needed both disks.
            let all_there = !self.disks.volatile && status.needs_twin;
            let difference = if all_there { self.rig.difference() } else { Ok(None) };
            for side in 0..2 {
                self.side(side).signal(Signal::CONT);
            }
            compared?;
            if let Some(at) = difference? {
                self.oracle.wrong(format!("called equal and in sync, and byte {at} differs"));
            }
        }
        match self.look(holder)? {
            Some(status) if status.role == Role::Active => self.serve_again(),
            Some(_) | None => Ok(()),
        }
    }

    /// How long something has been so.
    fn since(mark: &mut Option<Instant>, is_so: bool) -> u64 {
        if !is_so {
            *mark = None;
            return 0;
        }
        mark.get_or_insert_with(Instant::now).elapsed().as_millis() as u64
    }

    fn in_sync(&mut self, mine: &DiskStatus, twin: Option<&DiskStatus>) -> Result<bool> {
        let unlinked = Self::since(&mut self.unlinked, !mine.linked);
        let stuck = mine.linked && !mine.equal && mine.dirty_blocks == 0;
        let unequal = Self::since(&mut self.unequal, stuck);
        let other = 1 - self.register.holder;
        if mine.linked && mine.equal {
            self.whole = [true; 2];
        }
        if twin.is_some() && unlinked > 0 && !self.calm && self.may_promote(other) && self.chance.one_in(300)
        {
            // Cut off: the twin takes over while this side lives.
            self.promote(other)?;
        } else if twin.is_none() && self.chance.one_in(20) || unlinked > GRACE_MS || unequal > GRACE_MS {
            self.put_out()?;
        } else if !self.calm && mine.equal && self.chance.one_in(600) {
            self.hand_over(true)?;
        }
        let well = mine.linked && mine.equal && twin.is_some() && mine.rebuild.is_none();
        Ok(well && self.register.both && self.stage.is_served())
    }

    fn alone(&mut self, mine: &DiskStatus, twin: Option<&DiskStatus>) -> Result<bool> {
        let holder = self.register.holder;
        if mine.needs_twin {
            self.put_out()?;
        } else if twin.is_some() && mine.linked && !self.allowed {
            let done = self.order(holder, DiskOrder::AllowRebuild { allowed: true })?;
            self.allowed = done == Some(Ok(()));
        } else if self.allowed && mine.linked && (mine.equal || self.chance.one_in(30)) {
            self.reach.moment(Some(Moment::Readmitting));
            match self.order(holder, DiskOrder::Readmit)? {
                Some(Ok(())) => {
                    self.rebuilds += 1;
                    self.register.both = true;
                    self.whole = [true; 2];
                    self.oracle.together();
                    self.order(holder, DiskOrder::Admitted)?;
                }
                None | Some(Err(OrderFault::NotEqual | OrderFault::Fenced)) => {}
                Some(Err(fault)) => bail!("re-admission: {fault:?}"),
            }
        }
        Ok(false)
    }

    /// The active side ends its term in order, and the other begins one; the same side again where the twin is out.
    fn hand_over(&mut self, go_on: bool) -> Result<()> {
        let holder = self.register.holder;
        self.stage.withdraw();
        if self.stage.drained(QUIET).is_err() {
            return self.serve_again();
        }
        match self.order(holder, DiskOrder::Deactivate)? {
            None => Ok(()),
            Some(Ok(())) if !go_on => Ok(()),
            Some(Ok(())) => {
                self.switches += 1;
                self.register.epoch += 1;
                if self.register.both && self.back_at[1 - holder].is_none() {
                    self.register.holder = 1 - holder;
                }
                let (side, alone) = (self.register.holder, !self.register.both);
                self.activate(side, alone)
            }
            Some(Err(
                OrderFault::NotEqual | OrderFault::InUse | OrderFault::Fenced | OrderFault::Io { .. },
            )) => self.serve_again(),
            Some(Err(fault)) => bail!("deactivation: {fault:?}"),
        }
    }

    fn serve_again(&mut self) -> Result<()> {
        let holder = self.register.holder;
        match self.side(holder).status() {
            Ok(DiskStatus { device: Some(device), role: Role::Active, .. }) => {
                let _ = self.stage.publish(device.as_ref());
                Ok(())
            }
            Ok(status) => {
                self.say(format!("not served again: {status:?}"));
                self.down(holder, "it does not serve after a refused deactivation")
            }
            Err(error) => self.down(holder, &format!("{error:#}")),
        }
    }

    /// Path of the device that is served.
    ///
    /// # Errors
    /// None is.
    pub fn device(&mut self) -> Result<std::path::PathBuf> {
        let holder = self.register.holder;
        self.side(holder).device()
    }

    /// Ends the active side's term in order and both processes, and compares the copies byte by byte, each with the oracle,
    /// and both control areas. The writers have ended and the pair is in sync.
    ///
    /// # Errors
    /// It cannot be ended in order: try again.
    pub fn end(&mut self) -> Result<()> {
        let holder = self.register.holder;
        self.hand_over(false)?;
        let states = [self.look(0)?, self.look(1)?];
        for (side, status) in states.iter().enumerate() {
            let status = status.as_ref().with_context(|| format!("side {} is down at the end", side + 1))?;
            ensure!(status.role == Role::Standby, "side {} at the end: {status:?}", side + 1);
        }
        for side in [holder, 1 - holder] {
            self.reach.process(side, None);
            self.side(side).quit()?;
        }
        if let Some(at) = self.rig.difference()? {
            self.oracle.wrong(format!("in sync, ended in order, and byte {at} differs"));
        }
        self.compare_standing()?;
        standing::judge_images(&self.rig, &self.oracle)
    }

    /// The logs of both disk processes.
    #[must_use]
    pub fn logs(&self) -> [String; 2] {
        [self.rig.one.log(), self.rig.two.log()]
    }
}
