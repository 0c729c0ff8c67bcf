//! What must hold: invariants 1 to 4, 7, 8, 13 and 14 at every event, and that everything is well in the end.

use super::disk::{BLOCK_CELLS, BLOCKS, CELLS, WINDOWS, cells, device_block};
use super::{World, client::ALIEN};
use crate::oracle::token;
use mirror::input::Range;
use mirror::layout::Superblock;
use mirror::{Action, Mirror};
use peer::block::{BLOCK_BYTES, Body, Frame};
use peer::control::{DiskStatus, FromDisk, Role};
use wire::{Epoch, Session, Time};

/// What a disk holds that was never part of the set: no reader may ever see it.
pub(super) const JUNK: u64 = 1 << 62;
/// The stored state is read back, as a start would, after one in so many stores: reading it costs more than the store.
const READ_BACK: u64 = 16;

/// What the checks remember.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// The highest epoch and session each side sent as its own, with the disk it has.
    sent: [(Epoch, Session); 2],
    /// The last requests are asked.
    last: bool,
    /// A disk has failed an operation in this run.
    pub(super) failing: bool,
}

impl World {
    /// After each turn of a core.
    pub(super) fn check_turn(&mut self, side: usize) {
        self.version_begins(side);
        self.check_undone(side);
        self.check_known(side);
        let (Some(one), Some(two)) = (&self.sides[0].process, &self.sides[1].process) else { return };
        let uncertain = self.sides[0].disk.uncertain(&self.sides[1].disk);
        if uncertain == 0 {
            return;
        }
        let mirrors = [&one.mirror, &two.mirror];
        for active in 0..2 {
            let (mine, twins) = (mirrors[active], mirrors[1 - active]);
            let serves = matches!(mine.role(), Role::Active | Role::Deactivating);
            // Once every write goes to both, what the twin knew has been taken over.
            let others = if mine.is_joined() { mine } else { twins };
            if serves && let Some(block) = self.unknown(active, [mine, twins], others, uncertain) {
                let text = self.block_text(block);
                self.fail(format!("invariant 13, at a turn of side {}: {text}", side + 1));
                return;
            }
        }
    }

    /// A block that may differ without anybody's knowing: the one's map counts from where the other stands.
    fn unknown(&self, mine: usize, sides: [&Mirror; 2], others: &Mirror, uncertain: u32) -> Option<usize> {
        let counts = sides[0].base().is_some() && sides[0].base() == sides[1].generation();
        let counts = counts && !sides[1].is_undone();
        let counts = counts && !sides[1].counts_from_nothing();
        if !counts || self.sides[1 - mine].exchanged || self.sides[mine].exchanged {
            return None;
        }
        (0..BLOCKS).filter(|block| uncertain >> block & 1 == 1).find(|block| {
            let block = device_block(*block);
            !sides[0].suspects_block(block) && !others.suspects_block(block)
        })
    }

    fn block_text(&self, block: usize) -> String {
        let span = block * BLOCK_CELLS..(block + 1) * BLOCK_CELLS;
        let shown =
            |words: &[u64]| words.iter().map(|word| (word >> 20).to_string()).collect::<Vec<_>>().join(" ");
        let of = |side: usize| {
            let disk = &self.sides[side].disk;
            format!(
                "side {}: reads {} holds {}",
                side + 1,
                shown(&disk.view()[span.clone()]),
                shown(&disk.durable()[span.clone()])
            )
        };
        format!("block {} may differ and nobody knows: {}; {}", device_block(block), of(0), of(1))
    }

    /// What the control areas say, as both sides would find them after a loss of power at this moment.
    pub(super) fn check_stored(&mut self) {
        let now = Time(self.queue.now());
        let mut found = Vec::new();
        for side in 0..2 {
            match self.sides[side].disk.read_control() {
                Ok(area) => found.push(Mirror::new(self.config(side), area, now)),
                Err(fault) => {
                    self.fail(format!("side {}: the control area cannot be read: {fault}", side + 1));
                    return;
                }
            }
        }
        let [one, two] = found.as_slice() else { return };
        let uncertain = self.sides[0].disk.uncertain(&self.sides[1].disk);
        let wrong = [(0, [one, two]), (1, [two, one])]
            .into_iter()
            .find_map(|(mine, sides)| self.unknown(mine, sides, sides[1], uncertain));
        if let Some(block) = wrong {
            let text = self.block_text(block);
            self.fail(format!("invariant 13, as stored: {text}"));
        }
    }

    /// After a store of the control area.
    pub(super) fn check_store(&mut self) {
        if self.rng.below(READ_BACK) == 0 {
            self.check_stored();
        }
    }

    /// Invariant 14, as stored: no sum names a content that its block does not have on stable storage.
    pub(super) fn check_sums(&mut self, side: usize) {
        if let Some(block) = self.sides[side].disk.wrong_sum() {
            self.fail(format!(
                "invariant 14: the stored sum of block {block} of side {} is not its",
                side + 1
            ));
        }
    }

    /// Invariant 14, in memory: what a side believes of a block is what a read of it gives.
    fn check_known(&mut self, side: usize) {
        let host = &self.sides[side];
        let Some(process) = &host.process else { return };
        let wrong = (0..BLOCKS).find(|block| {
            let known = process.mirror.known_sum(device_block(*block));
            known.is_some_and(|known| known != host.disk.sum(*block))
        });
        if let Some(block) = wrong {
            let text = self.block_text(block);
            self.fail(format!("invariant 14, in memory of side {}: {text}", side + 1));
        }
    }

    /// A verification of copies that nobody damaged finds nothing, whatever is under way.
    pub(super) fn check_verified(&mut self, side: usize, status: &DiskStatus) {
        let found = status.verify.map(|verify| verify.different);
        let ended = status.last_verify.as_ref().map(|verify| verify.different);
        // What a failing disk does not read counts as different.
        let sound = !self.checks.failing;
        if found.into_iter().chain(ended).any(|different| different > 0) && sound {
            self.fail(format!("side {}: a verification finds a difference that nobody made", side + 1));
        }
        if status.last_verify.as_ref().is_some_and(|verify| !verify.stopped) {
            self.verified += 1;
        }
    }

    /// A disk process starts with what its disk holds.
    pub(super) fn check_start(&mut self, side: usize) {
        self.check_sums(side);
        self.check_stored();
        let Some(stored) = self.stored(side) else { return };
        let (epoch, session) = self.checks.sent[side];
        if self.sides[side].exchanged {
            self.checks.sent[side] = (stored.epoch, stored.session);
        } else if stored.epoch < epoch || stored.session < session {
            self.fail(format!(
                "invariant 7: side {} comes back at {:?} {:?} after it sent {epoch:?} {session:?}",
                side + 1,
                stored.epoch,
                stored.session
            ));
        }
    }

    pub(super) fn stored(&self, side: usize) -> Option<Superblock> {
        self.sides[side].disk.read_control().ok().map(|area| area.superblock)
    }

    /// A side sends a frame: nothing in it may depend on what is not stored.
    #[allow(clippy::wildcard_enum_match_arm, reason = "only these frames promise what is stored")]
    pub(super) fn note_sent(&mut self, side: usize, frame: &Frame) {
        let wrong = match &frame.body {
            Body::SessionStored => {
                let Some(stored) = self.stored(side) else { return };
                let known = &mut self.checks.sent[side];
                let back = frame.epoch < known.0 || frame.session < known.1;
                *known = (frame.epoch.max(known.0), frame.session.max(known.1));
                back || stored.epoch < frame.epoch || stored.session < frame.session
            }
            Body::BuildReady => self.stored(side).is_some_and(|stored| stored.consistent),
            Body::BuildStored => {
                self.sides[side].exchanged = false;
                self.made_equal(side);
                self.stored(side).is_some_and(|stored| {
                    !stored.consistent || stored.base != stored.history.first().copied()
                })
            }
            Body::BuildBegin { generation, .. } => {
                self.stored(side).is_some_and(|stored| stored.base != Some(*generation)) || self.forgets(side)
            }
            _ => false,
        };
        if wrong {
            self.fail(format!("invariant 7 or 8: side {} sends {frame:?} and has not stored it", side + 1));
        }
    }

    /// Whether a side that begins a rebuild, for which the other one forgets what differs, has not stored all it knows of.
    fn forgets(&self, side: usize) -> bool {
        let (host, now) = (&self.sides[side], Time(self.queue.now()));
        let (Some(process), Ok(area)) = (&host.process, host.disk.read_control()) else { return true };
        let stored = Mirror::new(self.config(side), area, now);
        let mut blocks = (0..BLOCKS).map(device_block);
        blocks.any(|block| process.mirror.is_dirty(block) && !stored.suspects_block(block))
    }

    /// A core says that an order is done: what it stands for is stored.
    pub(super) fn check_done(&mut self, side: usize, told: &FromDisk) {
        let FromDisk::Done { ticket, result: Ok(_) } = told else { return };
        if self.is_activation(side, *ticket) {
            let wrong = self.stored(side).is_none_or(|stored| {
                let holds = stored.holder.is_some_and(|holder| usize::from(holder.0) == side + 1);
                !holds || !stored.active || !stored.consistent
            });
            if wrong {
                self.fail(format!("invariant 8: side {} is active and has not stored it", side + 1));
            }
        }
        if self.is_put_out(side, *ticket) && self.stored(side).is_none_or(|stored| !stored.alone) {
            self.fail(format!("invariant 8: side {} goes on alone and has not stored it", side + 1));
        }
        if self.is_deactivation(side, *ticket) {
            self.sides[side].whole = true;
            if self.register.holder == Some(side) && self.register.both() {
                (self.sides[1 - side].whole, self.sides[1 - side].behind) = (true, false);
                if self.sides[0].disk.uncertain(&self.sides[1].disk) != 0 {
                    self.fail(format!("side {} is left in order and the copies are not equal", side + 1));
                }
            }
        }
    }

    /// Writes that overlap reach each disk in the order of their issue; a copy may bring any of them.
    pub(super) fn check_order(&mut self, side: usize, action: &Action, values: &[u64]) {
        let Action::WriteLocal { range, data, .. } = action else { return };
        let first = cells(*range).0;
        let process = self.sides[side].process.as_ref();
        let copied = process.is_some_and(|process| process.copied.contains(data));
        let view = self.sides[side].disk.view();
        let regular = token(crate::oracle::WriteNumber(ALIEN), 0);
        let wrong =
            (first..).zip(values).find(|(cell, value)| view[*cell] < regular && view[*cell] > **value);
        if let Some((cell, value)) = wrong.filter(|(_, value)| !copied && **value != 0) {
            let text = format!("write {} in cell {cell} after write {}", value >> 20, view[cell] >> 20);
            self.fail(format!("side {}: {text}", side + 1));
        }
    }

    /// The first answer of a term: what the device held when it opened is the truth from then on.
    pub(super) fn check_first_answer(&mut self, side: usize) {
        // One that serves goes on through its twin when its own copy is left out.
        let Some(process) = &mut self.sides[side].process else { return };
        if process.mirror.is_through() && !self.register.in_sync[side] {
            // The twin's device is what it shows; what was open stays open.
            process.opened = None;
            return;
        }
        if !self.register.in_sync[side] && process.opened.is_some() {
            self.fail(format!("invariant 4: side {} serves and is not in sync", side + 1));
        }
        self.take_for_truth(side);
    }

    /// The side holds and serves: what its device held when it opened is the truth.
    pub(super) fn take_for_truth(&mut self, side: usize) {
        let Some(process) = &mut self.sides[side].process else { return };
        let Some((tick, held)) = process.opened.take() else { return };
        (self.sides[side].whole, self.sides[side].behind) = (true, false);
        self.sides[1 - side].behind = !self.sides[1 - side].whole;
        // A copy that has everything that was answered may hold more of what was not.
        let beside = self.register.both() && self.sides[1 - side].whole;
        let content = |cell: u64| held[cell as usize];
        let shown = if beside {
            self.oracle.activated_beside(1 << side, tick, content)
        } else {
            self.oracle.activated(1 << side, tick, content)
        };
        if let Err(wrong) = shown {
            self.fail(format!("invariant 3: side {} begins to serve with {wrong:?}", side + 1));
        }
    }

    /// A side of an asynchronous set begins a term with this content.
    pub(super) fn check_prefix(&mut self, side: usize, held: &[u64; CELLS]) {
        if !self.may_lag() || self.register.holder != Some(side) {
            return;
        }
        if self.asynchronous()
            && self.prefix.serves != Some(side)
            && let Some(wrong) = self.prefix.check(side, held)
        {
            self.fail(format!("invariant 3: side {} takes over with no earlier state: {wrong}", side + 1));
        }
        self.prefix.restart(side);
    }

    /// Whether the faults have stopped and everything is as it should be.
    pub(super) fn is_well(&mut self) -> bool {
        let Some(holder) = self.register.holder.filter(|_| self.register.both()) else { return false };
        let Some(process) = &self.sides[holder].process else { return false };
        let settled = process.front && process.requests.is_empty() && process.mirror.is_settled();
        let settled = settled && !process.has_failed();
        let twin = self.sides[1 - holder].process.as_ref().is_some_and(|twin| !twin.has_failed());
        if !settled || !twin {
            return false;
        }
        if !self.checks.last {
            self.checks.last = true;
            self.say(|| "all is well; a flush and a look at everything".into());
            self.flush(holder);
            for (first, count) in WINDOWS {
                self.read(
                    holder,
                    Range { offset: first * BLOCK_BYTES, length: (count * BLOCK_BYTES) as u32 },
                );
            }
            return false;
        }
        let disks = [&self.sides[0].disk, &self.sides[1].disk];
        let equal = disks[0].uncertain(disks[1]) == 0 && disks[0].view() == disks[1].view();
        let dirty = (0..BLOCKS).any(|block| process.mirror.is_dirty(device_block(block)));
        let strange =
            (0..CELLS).find(|cell| disks[0].view()[*cell] >= token(crate::oracle::WriteNumber(ALIEN), 0));
        if !equal || dirty || strange.is_some() {
            self.fail(format!(
                "in the end: copies equal {equal}, bits left {dirty}, nobody's write {strange:?}"
            ));
        }
        true
    }

    /// It takes too long.
    pub(super) fn not_healed(&mut self) {
        let states: Vec<String> = self
            .sides
            .iter()
            .map(|side| {
                side.process
                    .as_ref()
                    .map_or("no process".into(), |process| format!("{:?}", process.mirror.status()))
            })
            .collect();
        let waiting: Vec<usize> =
            self.sides.iter().map(|side| side.process.as_ref().map_or(0, |p| p.requests.len())).collect();
        let text =
            format!("it does not heal: {:?}, requests {waiting:?}\n{}", self.register, states.join("\n"));
        self.fail(text);
    }
}
