//! Power losses, deaths of processes, cut links.

use super::{Waits, World, fresh16, sectors};
use mirror::action::Data;
use mirror::input::LocalFault;
use mirror::{Action, Input, Mirror};
use std::collections::VecDeque;
use wire::traffic::WriteMode;

impl World {
    /// Power loss.
    pub fn crash(&mut self, side: usize) {
        self.say(format!("{side} loses power"));
        let doing = std::mem::take(&mut self.sides[side].doing);
        for (action, _, words) in doing {
            match action {
                Action::WriteLocal { range, .. } | Action::ZeroLocal { range, .. }
                    if self.chance.one_in(2) =>
                {
                    self.sides[side].disk.write(sectors(range).0, &words);
                }
                Action::StoreControl { writes, .. } => self.sides[side].disk.tear(&writes, &mut self.chance),
                _ => {}
            }
        }
        self.sides[side].disk.crash(&mut self.chance);
        let it = &mut self.sides[side];
        it.least = it.safe.clone();
        it.incarnation = fresh16(&mut self.chance);
        it.crashed = true;
        self.gone(side);
        self.sides[side].requests.clear();
        self.sides[side].kept = None;
    }

    /// The process ends, the host stays: what was submitted comes to its end.
    pub fn kill(&mut self, side: usize) {
        self.say(format!("{side} process ends"));
        let doing = std::mem::take(&mut self.sides[side].doing);
        for (action, _, words) in doing {
            match action {
                Action::WriteLocal { range, .. } | Action::ZeroLocal { range, .. } => {
                    self.sides[side].disk.write(sectors(range).0, &words);
                }
                Action::StoreControl { writes, .. } => self.sides[side].disk.store(&writes),
                _ => {}
            }
        }
        let kept = self.sides[side].mirror.as_ref().map(Mirror::kept);
        if self.mode == WriteMode::SemiSynchronous {
            // What was only promised goes with the process: it is lost if the other side is lost too.
            let it = &mut self.sides[side];
            for (least, found) in it.least.iter_mut().zip(&it.disk.view) {
                *least = (*least).min(*found);
            }
        }
        self.gone(side);
        let (keeps, quick) = (self.chance.one_in(2), self.chance.one_in(2));
        let delay = self.chance.below(5_000);
        let it = &mut self.sides[side];
        it.kept = kept.filter(|kept| kept.serving && keeps);
        if it.kept.is_none() {
            it.requests.clear();
        } else if quick {
            it.ready_at = self.now + delay;
        }
    }

    pub fn gone(&mut self, side: usize) {
        let delay = self.chance.below(400_000);
        let it = &mut self.sides[side];
        it.mirror = None;
        it.doing.clear();
        it.again.clear();
        it.payloads.clear();
        it.buffers.clear();
        it.status = None;
        it.connected = false;
        it.ready_at = self.now + delay;
        self.orders.retain(|_, waits| match waits {
            Waits::Activate(s) | Waits::Readmit(s) | Waits::PutOut(s) | Waits::Deactivate(s) => *s != side,
            Waits::Other => true,
        });
        self.break_link(1 - side);
    }

    pub fn disturb(&mut self) {
        let up = self.sides.iter().all(|side| side.mirror.is_some());
        if !self.link_up && self.cable && up && self.chance.one_in(30) {
            self.link_up = true;
            for side in 0..2 {
                self.sides[side].connected = true;
            }
            for side in 0..2 {
                if self.sides[side].connected {
                    self.input(side, Input::LinkConnected { dialled: side == 0 });
                }
            }
        }
        if self.calm {
            self.cable = true;
            return;
        }
        if self.chance.one_in(400) {
            self.cable = !self.cable;
            if !self.cable {
                self.break_both();
            }
        }
        if self.chance.one_in(300) {
            self.break_both();
        }
        for side in 0..2 {
            let twin_well = self.sides[1 - side].mirror.is_some();
            // One failure at a time while both are needed; both at once now and then.
            if self.sides[side].mirror.is_some() && (twin_well || self.chance.one_in(5)) {
                if self.chance.one_in(900) {
                    self.crash(side);
                } else if self.chance.one_in(500) {
                    self.kill(side);
                    // The twin's host goes too, before what is unstable was flushed.
                    if self.sides[side].kept.is_some() && twin_well && self.chance.one_in(6) {
                        self.crash(1 - side);
                    }
                }
            }
        }
    }

    pub fn break_link(&mut self, tell: usize) {
        self.link_up = false;
        self.wires = [VecDeque::new(), VecDeque::new()];
        if self.sides[tell].connected {
            self.sides[tell].connected = false;
            self.input(tell, Input::LinkLost);
        }
    }

    pub fn break_both(&mut self) {
        self.link_up = false;
        self.wires = [VecDeque::new(), VecDeque::new()];
        for side in 0..2 {
            if self.sides[side].connected {
                self.sides[side].connected = false;
                self.input(side, Input::LinkLost);
            }
        }
    }

    /// The disk fails an operation; a write that failed may be there or not.
    pub fn fault(&mut self, side: usize, action: &Action) -> bool {
        let op = match action {
            Action::WriteLocal { op, .. } | Action::ZeroLocal { op, .. } => *op,
            Action::HashLocal { op, keep, .. } => {
                if *keep {
                    self.sides[side].buffers.insert(*op, Vec::new());
                }
                *op
            }
            Action::StoreControl { op, writes } => {
                self.sides[side].disk.tear(writes, &mut self.chance);
                *op
            }
            Action::LoadControl { op, .. } => *op,
            Action::FlushLocal { op } => {
                self.sides[side].buffers.remove(op);
                *op
            }
            Action::ReadLocal { op, into, .. } => {
                if let Data::Buffer(buffer) = into {
                    self.sides[side].buffers.insert(*buffer, Vec::new());
                }
                *op
            }
            _ => return false,
        };
        self.say(format!("{side} disk fails {op:?}"));
        // What the twin reads instead is no failure of the disk as a whole.
        self.sides[side].bad = !matches!(action, Action::ReadLocal { into: Data::Request(_), .. });
        self.input(side, Input::LocalDone { op, result: Err(LocalFault { errno: 5 }) });
        true
    }
}
