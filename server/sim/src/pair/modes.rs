//! The ways to acknowledge (C4) as the world judges by them: the one that is wanted, and the one in force at the holder.

use super::World;
use super::engine::Waits;
use peer::control::{DiskOrder, DiskStatus};
use wire::traffic::WriteMode;

/// Wanted and in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Modes {
    pub(super) wanted: WriteMode,
    /// As the holder that served last had it.
    pub(super) in_force: WriteMode,
}

impl Modes {
    pub(super) fn new(mode: WriteMode) -> Modes {
        Modes { wanted: mode, in_force: mode }
    }
}

impl World {
    /// What the twin of the holder has may be an earlier state.
    pub(super) fn asynchronous(&self) -> bool {
        self.mode.in_force == WriteMode::Asynchronous
    }

    /// It may be so in this run.
    pub(super) fn may_lag(&self) -> bool {
        self.options.changing || self.options.mode == WriteMode::Asynchronous
    }

    /// Before what a turn wants is done: it may answer by the mode that it made the one in force.
    pub(super) fn mode_looser(&mut self, side: usize, found: Option<WriteMode>) {
        if let Some(found) = found.filter(|_| self.register.holder == Some(side)) {
            self.mode.in_force = self.mode.in_force.max(found);
        }
    }

    /// After it: a stricter one says that the twin has everything, or is out.
    pub(super) fn mode_is(&mut self, side: usize, found: Option<WriteMode>) {
        let before = self.mode.in_force;
        let Some(found) = found.filter(|found| self.register.holder == Some(side) && *found < before) else {
            return;
        };
        self.line(side, || format!("in force: {found:?}"));
        self.mode.in_force = found;
        let needs = self.sides[side].process.as_ref().is_some_and(|it| it.mirror.status().needs_twin);
        if before == WriteMode::Asynchronous && needs && self.register.both() && self.sides[1 - side].whole {
            self.take_for_truth(side);
            self.both_have_all();
        }
    }

    /// The operator changes his mind now and then; each node process tells its side until the status shows it.
    pub(super) fn order_mode(&mut self, side: usize, status: &DiskStatus) {
        if !self.options.changing {
            return;
        }
        if self.calm_since.is_none() && self.rng.per_mille(15) {
            let all = [WriteMode::Synchronous, WriteMode::SemiSynchronous, WriteMode::Asynchronous];
            self.mode.wanted = self.rng.pick(&all);
        }
        let mode = self.mode.wanted;
        if status.mode != mode && self.rng.percent(30) {
            self.order(side, DiskOrder::Mode { mode }, Waits::Other);
        }
    }
}
