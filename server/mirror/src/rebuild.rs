//! A rebuild: blocks that differ are sent, suspects are compared first, bits are cleared after a flush of both disks.
//!
//! A run is up to 1 MiB of neighbouring blocks of one kind. It claims its range, so that no write overlaps it between
//! its reading here and the twin's answer.

use crate::action::{Action, Data, LinkFault, OpId};
use crate::config::{COPIED_BLOCKS_MAX, RUNS_MAX};
use crate::dirty::DirtyMap;
use crate::input::{LocalFault, LocalResult, Range};
use crate::layout::EXTENT_BLOCKS;
use crate::mirror::{Mirror, Op};
use crate::pair::Awaited;
use peer::block::{BLOCK_BYTES, Body, RUN_BLOCKS_MAX};
use peer::control::{RebuildResult, RebuildStatus, Role};
use std::collections::{BTreeMap, VecDeque};
use wire::alert::RebuildKind;
use wire::{NodeId, Time};

/// Neighbouring blocks on their way.
#[derive(Debug)]
struct Run {
    first: u64,
    count: u64,
    compare: bool,
    /// Parts yet to be sent: the whole run, or what the comparison found different.
    parts: VecDeque<(u64, u64)>,
}

/// A rebuild in progress.
#[derive(Debug)]
pub(crate) struct Rebuild {
    kind: RebuildKind,
    began: Time,
    total: u64,
    done: u64,
    moved: u64,
    compared: u64,
    compared_moved: u64,
    /// Blocks before this one have been looked at in this pass.
    cursor: u64,
    runs: BTreeMap<u64, Run>,
    /// On the twin, not flushed.
    copied: Vec<(u64, u64)>,
    copied_blocks: u64,
    /// In the flush round in progress.
    flushing: Vec<(u64, u64)>,
}

impl Rebuild {
    pub(crate) fn new(kind: RebuildKind, total: u64, began: Time) -> Rebuild {
        Rebuild {
            kind,
            began,
            total,
            done: 0,
            moved: 0,
            compared: 0,
            compared_moved: 0,
            cursor: 0,
            runs: BTreeMap::new(),
            copied: Vec::new(),
            copied_blocks: 0,
            flushing: Vec::new(),
        }
    }

    /// A joint flush begins.
    pub(crate) fn round_begins(&mut self) {
        self.flushing.append(&mut self.copied);
        self.copied_blocks = 0;
    }

    /// Nothing is left to do.
    pub(crate) fn is_done(&self, map: &DirtyMap) -> bool {
        map.count() == 0 && self.runs.is_empty() && self.copied.is_empty() && self.flushing.is_empty()
    }

    pub(crate) fn status(&self, to: NodeId, running: bool) -> RebuildStatus {
        let total = self.total.max(self.done);
        RebuildStatus { to, kind: self.kind, done: self.done, total, running, began: self.began }
    }

    pub(crate) fn result(&self, to: NodeId, ended: Time) -> RebuildResult {
        RebuildResult {
            to,
            moved_bytes: self.moved * BLOCK_BYTES,
            compared_bytes: self.compared * BLOCK_BYTES,
            compared_moved_bytes: self.compared_moved * BLOCK_BYTES,
            began: self.began,
            ended,
        }
    }
}

fn bytes_of(first: u64, count: u64) -> Range {
    Range { offset: first * BLOCK_BYTES, length: u32::try_from(count * BLOCK_BYTES).unwrap_or_default() }
}

impl Mirror {
    pub(crate) fn advance_rebuild(&mut self) {
        let able = self.joined() && self.failed.is_none() && (self.needs_twin || self.allow_rebuild);
        let able = able && self.serving();
        if !able || self.rebuild.is_none() {
            return;
        }
        while self.rebuild.as_ref().is_some_and(|rebuild| rebuild.runs.len() < RUNS_MAX) && self.begin_run() {
        }
        let Some(rebuild) = &mut self.rebuild else { return };
        let end = rebuild.runs.is_empty() && self.map.next_set(rebuild.cursor).is_none();
        if !rebuild.copied.is_empty() && (end || rebuild.copied_blocks >= COPIED_BLOCKS_MAX) {
            self.flushes.wanted = true;
        }
        let rest = self.map.count() > 0 && rebuild.copied.is_empty() && rebuild.flushing.is_empty();
        if end && rest && rebuild.cursor > 0 {
            // Bits set behind the cursor meanwhile: another pass.
            rebuild.cursor = 0;
            self.moved = true;
        }
    }

    /// Begins the next run; false when this pass is at its end.
    fn begin_run(&mut self) -> bool {
        let all = self.sb.compare_all;
        let Some(rebuild) = &mut self.rebuild else { return false };
        let Some(first) = self.map.next_set(rebuild.cursor) else { return false };
        let suspect = |block: u64| all || self.suspects.contains(&((block / EXTENT_BLOCKS) as u32));
        let compare = suspect(first);
        let mut count = 1;
        while count < RUN_BLOCKS_MAX as u64
            && self.map.is_set(first + count)
            && suspect(first + count) == compare
        {
            count += 1;
        }
        rebuild.cursor = first + count;
        self.next_id += 1;
        let id = self.next_id;
        rebuild.runs.insert(id, Run { first, count, compare, parts: VecDeque::new() });
        let range = bytes_of(first, count);
        let ordered = !self.config.faults.rebuild_without_order;
        if !ordered || self.ranges.claim(id, range.offset, u64::from(range.length), true) {
            self.run_granted(id);
        }
        self.moved = true;
        true
    }

    /// The run's claim is granted: nothing overlaps it until it is released.
    pub(crate) fn run_granted(&mut self, id: u64) {
        let Some(run) = self.rebuild.as_mut().and_then(|rebuild| rebuild.runs.get_mut(&id)) else { return };
        let (first, count) = (run.first, run.count);
        if run.compare {
            let op = self.begin(Op::RunHash(id));
            self.act(Action::HashLocal { op, range: bytes_of(first, count) });
        } else {
            run.parts.push_back((first, count));
            self.next_part(id);
        }
    }

    pub(crate) fn run_hash_done(&mut self, id: u64, result: Result<LocalResult, LocalFault>) {
        let Some(run) = self.rebuild.as_ref().and_then(|rebuild| rebuild.runs.get(&id)) else { return };
        let offset = run.first * BLOCK_BYTES;
        let expected = run.count as usize;
        match result {
            Ok(LocalResult::Hashes(hashes)) if hashes.len() == expected => {
                let sequence = self.send(Body::Check { offset, hashes }, None);
                if let Some(link) = &mut self.link {
                    link.awaited.insert(sequence, Awaited::Check(id));
                }
            }
            Ok(_) => self.broken("a hash for each block"),
            Err(fault) => self.rebuild_failed(fault),
        }
    }

    pub(crate) fn run_checked(&mut self, id: u64, different: &[u8]) {
        let Some(rebuild) = &mut self.rebuild else { return };
        let Some(run) = rebuild.runs.get_mut(&id) else { return };
        if different.len() != (run.count as usize).div_ceil(8) {
            self.close_link(LinkFault::Protocol);
            return;
        }
        rebuild.compared += run.count;
        for i in 0..run.count {
            let differs = different.get((i / 8) as usize).is_some_and(|byte| byte >> (i % 8) & 1 == 1);
            if !differs {
                continue;
            }
            match run.parts.back_mut() {
                Some((first, count)) if *first + *count == run.first + i => *count += 1,
                Some(_) | None => run.parts.push_back((run.first + i, 1)),
            }
        }
        self.next_part(id);
    }

    /// Reads the next part of a run, or ends the run.
    fn next_part(&mut self, id: u64) {
        let Some(run) = self.rebuild.as_mut().and_then(|rebuild| rebuild.runs.get_mut(&id)) else { return };
        if let Some((first, count)) = run.parts.front().copied() {
            let op = self.begin(Op::RunRead(id));
            self.act(Action::ReadLocal { op, range: bytes_of(first, count), into: Data::Buffer(op) });
            return;
        }
        let Some(rebuild) = &mut self.rebuild else { return };
        let Some(run) = rebuild.runs.remove(&id) else { return };
        rebuild.done += run.count;
        rebuild.copied.push((run.first, run.count));
        rebuild.copied_blocks += run.count;
        if self.config.faults.clear_bits_before_flush {
            self.map.clear(run.first, run.count);
        }
        self.release_claim(id);
    }

    pub(crate) fn run_read_done(&mut self, id: u64, op: OpId, fault: Option<LocalFault>) {
        let part = self.rebuild.as_ref().and_then(|rebuild| rebuild.runs.get(&id));
        let part = part.and_then(|run| run.parts.front().copied());
        match (part, fault) {
            (Some((first, count)), None) => {
                let Range { offset, length } = bytes_of(first, count);
                let sequence = self.send(Body::Copy { offset, length }, Some(Data::Buffer(op)));
                if let Some(link) = &mut self.link {
                    link.awaited.insert(sequence, Awaited::Copy(id));
                }
            }
            (_, Some(fault)) => self.rebuild_failed(fault),
            (None, None) => {}
        }
        self.act(Action::Release { data: Data::Buffer(op) });
    }

    pub(crate) fn run_copied(&mut self, id: u64) {
        let Some(rebuild) = &mut self.rebuild else { return };
        let Some(run) = rebuild.runs.get_mut(&id) else { return };
        if let Some((_, count)) = run.parts.pop_front() {
            if run.compare {
                rebuild.compared_moved += count;
            } else {
                rebuild.moved += count;
            }
        }
        self.next_part(id);
    }

    /// A joint flush has succeeded: what was copied before it began is equal on stable storage.
    pub(crate) fn clear_copied(&mut self) {
        let Some(rebuild) = &mut self.rebuild else { return };
        let flushed = std::mem::take(&mut rebuild.flushing);
        if self.failed.is_some() {
            // A write that failed here may lie among them: they stay recorded as different.
            return;
        }
        for (first, count) in flushed {
            self.map.clear(first, count);
        }
        self.moved = true;
    }

    fn rebuild_failed(&mut self, fault: LocalFault) {
        self.fail(format!("reading the local disk for a rebuild failed: errno {}", fault.errno));
    }

    /// The twin is gone: runs are given up, what was not flushed stays recorded as different.
    pub(crate) fn break_rebuild(&mut self) {
        let Some(rebuild) = self.rebuild.take() else { return };
        for op in self.ops.values_mut() {
            if matches!(op, Op::RunRead(_)) {
                *op = Op::LostRead;
            }
        }
        self.ops.retain(|_, op| !matches!(op, Op::RunHash(_)));
        for id in rebuild.runs.into_keys() {
            self.release_claim(id);
        }
    }

    /// Progress for people and the engine: of the rebuild that runs, or of the one that waits.
    pub(crate) fn rebuild_status(&self) -> Option<RebuildStatus> {
        let to = self.sb.side.twin();
        let running = self.joined() && (self.needs_twin || self.allow_rebuild);
        if let Some(rebuild) = &self.rebuild {
            return Some(rebuild.status(to, running));
        }
        let waits = self.role == Role::Active && !self.needs_twin;
        let kind = match self.verdict() {
            Some(crate::compare::Verdict::Unknown(kind)) => kind,
            Some(_) | None if self.sb.base.is_none() => RebuildKind::FullFirst,
            Some(_) | None if self.sb.compare_all => RebuildKind::FullUnknown,
            Some(_) | None => RebuildKind::Fast,
        };
        let full = !matches!(kind, RebuildKind::Fast);
        let total = if full { self.map.blocks() } else { self.map.count() };
        waits.then_some(RebuildStatus { to, kind, done: 0, total, running: false, began: self.alone_at })
    }
}
