//! What a rebuild has done and how fast, for people and the engine: exact, monotonic, honest about what it does not know.

use crate::mirror::Mirror;
use peer::block::BLOCK_BYTES;
use peer::control::{RebuildStatus, Role};
use wire::Time;
use wire::alert::RebuildKind;
use wire::ids::{MILLIS, SECOND};

/// The speed is that of about the last second: shorter ones jump, longer ones lie after a change.
const MEASURED_US: u64 = SECOND;
/// A time left is told only from a speed of at least this long.
const TOLD_US: u64 = 200 * MILLIS;

/// Counters in blocks; they go on over a break of the link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) began: Time,
    /// In all; grows when blocks become different meanwhile.
    pub(crate) total: u64,
    /// On the twin, flushed or not.
    pub(crate) done: u64,
    /// On stable storage of both.
    pub(crate) cleared: u64,
    /// Sent because the map called them different.
    pub(crate) moved: u64,
    pub(crate) compared: u64,
    pub(crate) compared_moved: u64,
    /// Where the measured stretch began, and the one before it.
    marks: [(Time, u64); 2],
    now: Time,
}

impl Progress {
    pub(crate) fn new(total: u64, now: Time) -> Progress {
        Progress {
            began: now,
            total,
            done: 0,
            cleared: 0,
            moved: 0,
            compared: 0,
            compared_moved: 0,
            marks: [(now, 0); 2],
            now,
        }
    }

    /// Goes on after a break with `left` blocks to do: what was not cleared is done again.
    pub(crate) fn resumed(mut self, left: u64, now: Time) -> Progress {
        self.done = self.cleared;
        self.total = self.done + left;
        self.marks = [(now, self.done); 2];
        self.now = now;
        self
    }

    /// Notes the time and how much is left.
    pub(crate) fn measure(&mut self, now: Time, left: u64) {
        self.now = now;
        self.total = self.total.max(self.done + left);
        if now.since(self.marks[1].0) >= MEASURED_US {
            self.marks = [self.marks[1], (now, self.done)];
        }
    }

    /// Bytes a second of late; none: not measured yet.
    fn speed(&self) -> Option<u64> {
        let [(from, done), _] = self.marks;
        let passed = self.now.since(from);
        (passed >= TOLD_US).then(|| self.done.saturating_sub(done) * BLOCK_BYTES * 1_000 / (passed / 1_000))
    }

    pub(crate) fn left_ms(&self) -> Option<u64> {
        let left = self.total.saturating_sub(self.done) * BLOCK_BYTES;
        self.speed().filter(|speed| *speed > 0).map(|speed| left.saturating_mul(1_000) / speed)
    }
}

impl Mirror {
    /// Progress for people and the engine: of the rebuild that runs, or of the one that waits.
    pub(crate) fn rebuild_status(&self) -> Option<RebuildStatus> {
        let to = self.sb.side.twin();
        let (paused, limit) = (self.sb.rebuild_paused, self.rebuild_limit());
        if let Some(rebuild) = &self.rebuild {
            let progress = &rebuild.progress;
            let running = self.rebuild_runs();
            return Some(RebuildStatus {
                to,
                kind: rebuild.kind,
                done: progress.done,
                total: progress.total.max(progress.done),
                running,
                began: progress.began,
                paused,
                limit,
                speed: progress.speed().filter(|_| running).unwrap_or_default(),
                left_ms: progress.left_ms().filter(|_| running),
            });
        }
        let waits = self.role == Role::Active && !self.needs_twin;
        let (kind, left) = match self.verdict() {
            Some(crate::compare::Verdict::Unknown(kind)) => (kind, self.map.blocks()),
            Some(_) | None if self.sb.base.is_none() => (RebuildKind::FullFirst, self.map.blocks()),
            Some(_) | None if self.sb.compare_all => (self.full_kind(), self.map.count()),
            Some(_) | None => (RebuildKind::Fast, self.map.count()),
        };
        let broken_off = self.broken_off.filter(|(was, _)| *was == kind);
        let (done, began) =
            broken_off.map_or((0, self.alone_at), |(_, progress)| (progress.cleared, progress.began));
        waits.then_some(RebuildStatus {
            to,
            kind,
            done,
            total: done + left,
            running: false,
            began,
            paused,
            limit,
            speed: 0,
            left_ms: None,
        })
    }

    pub(crate) fn rebuild_limit(&self) -> Option<u64> {
        Some(self.sb.rebuild_limit).filter(|limit| *limit > 0)
    }
}
