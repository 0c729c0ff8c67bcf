//! A rebuild: blocks that differ are sent, suspects are compared first, bits are cleared after a flush of both disks.
//!
//! A run is some neighbouring blocks of one kind. It claims its range, so that no write overlaps it between its reading
//! here and the twin's last answer. Many runs are under way: by bytes, by number, and by the frames the twin must hold.
//!
//! ```text
//! claimed --known different--> read ------------------------------> parts sent --all answered--> copied --joint flush--> clear
//!         \-suspect--> read and hashed --> Check --Checked--> what differs /
//! ```
//! A suspect run all of whose sums are known is not read: the table gives its hashes, and only what differs is read. The twin
//! does the same by itself, so a copy that is alike is compared without reading either disk. A sum is as true as the disk
//! keeps what it was given: that is what a verification is for. Not so where the bytes may come from elsewhere (another disk
//! in the place of one, or one that was set back) or an operator wants it: then both are read (`Superblock::read_all`).

use crate::action::{Action, Data, LinkFault, OpId};
use crate::config::{
    AHEAD_BLOCKS_MAX, AHEAD_BLOCKS_STEP, BUFFERED_MAX, COPIED_BLOCKS_MAX, FOREIGN_PROBE, FOREIGN_RUNS,
    FRAMES_MAX, LARGE_FRAME_BYTES, LARGE_FRAMES_MAX, RUN_BLOCKS_LONG, RUN_BLOCKS_SHORT, RUNS_MAX,
};
use crate::dirty::DirtyMap;
use crate::input::{LocalFault, LocalResult, Range, ZERO_HASH};
use crate::layout::EXTENT_BLOCKS;
use crate::mirror::{Mirror, Op};
use crate::pace::Pace;
use crate::pair::Awaited;
use crate::progress::Progress;
use crate::sum_page::{Sum, sum_of};
use crate::table::Told;
use peer::block::{AHEAD_RUNS_MAX, BLOCK_BYTES, Body, HASH_BYTES};
use peer::control::RebuildResult;
use std::collections::{BTreeMap, VecDeque};
use wire::alert::RebuildKind;
use wire::{NodeId, Time};

/// Neighbouring blocks on their way.
#[derive(Debug)]
struct Run {
    first: u64,
    count: u64,
    compare: bool,
    /// Of the blocks, once they are known.
    hashes: Vec<[u8; HASH_BYTES]>,
    /// They come from the table: nothing was read yet.
    told: bool,
    /// It waits for pages of the table.
    waits: bool,
    /// Of the blocks, which differ, while they are read.
    different: Option<Bits>,
    /// Holds their bytes until everything is sent.
    buffer: Option<OpId>,
    /// Of the blocks, which are all zeroes here.
    zero: Bits,
    /// Yet to be sent: the whole run, or what the comparison found different.
    parts: VecDeque<Part>,
    /// Sent and not answered.
    waiting: u32,
}

/// Blocks of a run that go in one frame.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: u64,
    count: u64,
    /// Only that they are zeroes is sent.
    zero: bool,
}

impl Part {
    /// Whether the twin needs a large slot for it.
    fn is_large(&self) -> bool {
        !self.zero && is_large(self.count)
    }
}

/// One bit for each block of a run: bit 0 of byte 0 first.
#[derive(Debug, Default)]
struct Bits(Vec<u8>);

impl Bits {
    fn of(bits: impl Iterator<Item = bool>) -> Bits {
        let mut bytes = Vec::new();
        for (i, bit) in bits.enumerate() {
            if i % 8 == 0 {
                bytes.push(0);
            }
            if let Some(last) = bytes.last_mut() {
                *last |= u8::from(bit) << (i % 8);
            }
        }
        Bits(bytes)
    }

    fn has(&self, block: u64) -> bool {
        self.0.get((block / 8) as usize).is_some_and(|byte| byte >> (block % 8) & 1 == 1)
    }
}

impl Run {
    /// Adds a block (counted from the run's first) to what is to be sent.
    fn add(&mut self, block: u64) {
        let (first, zero) = (self.first + block, self.zero.has(block));
        match self.parts.back_mut() {
            Some(part) if part.first + part.count == first && part.zero == zero => part.count += 1,
            Some(_) | None => self.parts.push_back(Part { first, count: 1, zero }),
        }
    }
}

/// A rebuild in progress.
#[derive(Debug)]
pub(crate) struct Rebuild {
    pub(crate) kind: RebuildKind,
    pub(crate) progress: Progress,
    pub(crate) pace: Pace,
    /// Blocks before this one have been looked at in this pass.
    cursor: u64,
    /// The twin was told of what will be sent of the blocks before this one.
    ahead: u64,
    /// Blocks it was told of that no run has reached.
    announced: u64,
    runs: BTreeMap<u64, Run>,
    /// Compared runs in a row without a block in common.
    foreign: u32,
    /// Runs sent uncompared since.
    trusted: u32,
    /// Blocks of all runs.
    blocks: u64,
    /// Runs with parts to be sent, in order.
    sending: VecDeque<u64>,
    /// Frames of parts that the twin has not answered, and those that need one of its few large slots.
    frames: u32,
    large: u32,
    /// On the twin, not flushed.
    copied: Vec<(u64, u64)>,
    copied_blocks: u64,
    /// In the flush round in progress.
    flushing: Vec<(u64, u64)>,
    flushing_blocks: u64,
}

impl Rebuild {
    pub(crate) fn new(kind: RebuildKind, progress: Progress, pace: Pace) -> Rebuild {
        Rebuild {
            kind,
            progress,
            pace,
            cursor: 0,
            ahead: 0,
            announced: 0,
            runs: BTreeMap::new(),
            foreign: 0,
            trusted: 0,
            blocks: 0,
            sending: VecDeque::new(),
            frames: 0,
            large: 0,
            copied: Vec::new(),
            copied_blocks: 0,
            flushing: Vec::new(),
            flushing_blocks: 0,
        }
    }

    /// A joint flush begins.
    pub(crate) fn round_begins(&mut self) {
        self.flushing.append(&mut self.copied);
        self.flushing_blocks += std::mem::take(&mut self.copied_blocks);
    }

    /// Nothing is left to do.
    pub(crate) fn is_done(&self, map: &DirtyMap) -> bool {
        map.count() == 0 && self.runs.is_empty() && self.copied.is_empty() && self.flushing.is_empty()
    }

    /// Blocks that are not on the twin yet.
    pub(crate) fn left(&self, map: &DirtyMap) -> u64 {
        map.count().saturating_sub(self.copied_blocks + self.flushing_blocks)
    }

    pub(crate) fn result(&self, to: NodeId, ended: Time) -> RebuildResult {
        let Progress { moved, compared, compared_moved, began, .. } = self.progress;
        RebuildResult {
            to,
            moved_bytes: moved * BLOCK_BYTES,
            compared_bytes: compared * BLOCK_BYTES,
            compared_moved_bytes: compared_moved * BLOCK_BYTES,
            began,
            ended,
        }
    }

    /// The twin's copy is of something else altogether, so far: comparing it costs more than it saves. Asked once a run.
    fn is_foreign(&mut self) -> bool {
        if self.foreign < FOREIGN_RUNS {
            return false;
        }
        self.trusted = (self.trusted + 1) % FOREIGN_PROBE;
        self.trusted != 0
    }

    /// Room for another run.
    fn has_room(&self) -> bool {
        self.runs.len() < RUNS_MAX && self.blocks * BLOCK_BYTES < BUFFERED_MAX
    }
}

fn bytes_of(first: u64, count: u64) -> Range {
    Range { offset: first * BLOCK_BYTES, length: u32::try_from(count * BLOCK_BYTES).unwrap_or_default() }
}

/// Whether the twin needs a large slot for a frame.
fn is_large(count: u64) -> bool {
    count * BLOCK_BYTES > LARGE_FRAME_BYTES
}

impl Mirror {
    /// Whether runs may be under way at all.
    pub(crate) fn rebuild_runs(&self) -> bool {
        // In sync, writes and flushes wait for the last blocks: nothing holds them back then.
        let wanted = self.needs_twin || (self.allow_rebuild && !self.sb.rebuild_paused);
        wanted && self.joined() && self.failed.is_none() && self.serving()
    }

    pub(crate) fn advance_rebuild(&mut self) {
        if self.rebuild.is_none() || !self.rebuild_runs() {
            return;
        }
        let now = self.now;
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.pace.advance(now);
        }
        self.send_parts();
        while self.rebuild.as_ref().is_some_and(Rebuild::has_room) && self.begin_run() {}
        self.announce();
        let Some(rebuild) = &mut self.rebuild else { return };
        rebuild.progress.measure(now, rebuild.left(&self.map));
        let end = rebuild.runs.is_empty() && self.map.next_set(rebuild.cursor).is_none();
        if !rebuild.copied.is_empty() && (end || rebuild.copied_blocks >= COPIED_BLOCKS_MAX) {
            self.flushes.wanted = true;
        }
        let rest = self.map.count() > 0 && rebuild.copied.is_empty() && rebuild.flushing.is_empty();
        if end && rest && rebuild.cursor > 0 {
            // Bits set behind the cursor meanwhile: another pass.
            (rebuild.cursor, rebuild.ahead, rebuild.announced) = (0, 0, 0);
            self.moved = true;
        }
    }

    /// Begins the next run; false when this pass is at its end or no run may begin yet.
    fn begin_run(&mut self) -> bool {
        let (all, hurry) = (self.sb.compare_all, self.needs_twin);
        let Some(rebuild) = &mut self.rebuild else { return false };
        let Some(first) = self.map.next_set(rebuild.cursor) else { return false };
        let allowed = if hurry { RUN_BLOCKS_LONG } else { rebuild.pace.next_run(RUN_BLOCKS_LONG) };
        if allowed == 0 {
            return false;
        }
        let suspect = |block: u64| all || self.suspects.contains(&((block / EXTENT_BLOCKS) as u32));
        let suspected = suspect(first);
        let compare = suspected && !(all && rebuild.is_foreign());
        let mut count = 1;
        while count < allowed && self.map.is_set(first + count) && suspect(first + count) == suspected {
            count += 1;
        }
        if !suspected && count < RUN_BLOCKS_LONG / 4 {
            // Too short to be worth one of the twin's few large slots.
            count = count.min(RUN_BLOCKS_SHORT);
        }
        if first < rebuild.ahead && !suspected {
            rebuild.announced = rebuild.announced.saturating_sub(count);
        }
        rebuild.cursor = first + count;
        rebuild.blocks += count;
        rebuild.pace.spend(count * BLOCK_BYTES);
        self.next_id += 1;
        let id = self.next_id;
        let (zero, parts) = (Bits::default(), VecDeque::new());
        let run = Run {
            first,
            count,
            compare,
            hashes: Vec::new(),
            told: false,
            waits: false,
            different: None,
            buffer: None,
            zero,
            parts,
            waiting: 0,
        };
        rebuild.runs.insert(id, run);
        let range = bytes_of(first, count);
        let ordered = !self.config.faults.rebuild_without_order;
        if !ordered || self.ranges.claim(id, range.offset, u64::from(range.length), true) {
            self.run_granted(id);
        }
        self.moved = true;
        true
    }

    /// Tells the twin what will be sent soon: of blocks known to be different. Of others it knows when they are compared.
    fn announce(&mut self) {
        let Some(rebuild) = &mut self.rebuild else { return };
        if self.sb.compare_all || rebuild.announced + AHEAD_BLOCKS_STEP > AHEAD_BLOCKS_MAX {
            return;
        }
        let mut runs: Vec<(u64, u32)> = Vec::new();
        let mut at = rebuild.ahead.max(rebuild.cursor);
        let (mut announced, mut looked) = (rebuild.announced, 0);
        while let Some(block) = self.map.next_set(at).filter(|_| announced < AHEAD_BLOCKS_MAX) {
            let extent = block / EXTENT_BLOCKS;
            looked += 1;
            if looked > 2 * AHEAD_BLOCKS_MAX {
                break;
            }
            if self.suspects.contains(&(extent as u32)) {
                at = (extent + 1) * EXTENT_BLOCKS;
                continue;
            }
            let full = runs.len() == AHEAD_RUNS_MAX;
            match runs.last_mut() {
                Some((first, count)) if *first + u64::from(*count) == block => *count += 1,
                Some(_) | None if full => break,
                Some(_) | None => runs.push((block, 1)),
            }
            at = block + 1;
            announced += 1;
        }
        (rebuild.ahead, rebuild.announced) = (at, announced);
        if !runs.is_empty() {
            self.send(Body::Ahead { runs }, None);
            self.moved = true;
        }
    }

    /// The run's claim is granted: nothing overlaps it until it is released.
    pub(crate) fn run_granted(&mut self, id: u64) {
        let Some(run) = self.rebuild.as_mut().and_then(|rebuild| rebuild.runs.get_mut(&id)) else { return };
        let (first, count, compare) = (run.first, run.count, run.compare);
        let range = bytes_of(first, count);
        let told = if compare && !self.sb.read_all { self.sums_tell(first, count) } else { Told::Not };
        match told {
            Told::All(hashes) => return self.check_run(id, hashes, true),
            Told::Later => return self.run_waits(id),
            Told::Not => {}
        }
        if compare {
            let op = self.begin(Op::RunHash(id));
            self.act(Action::HashLocal { op, range, keep: true });
        } else {
            let op = self.begin(Op::RunRead(id));
            self.act(Action::ReadLocal { op, range, into: Data::Buffer(op) });
        }
    }

    fn run_waits(&mut self, id: u64) {
        if let Some(run) = self.rebuild.as_mut().and_then(|rebuild| rebuild.runs.get_mut(&id)) {
            run.waits = true;
        }
    }

    /// Pages of the table are here: runs that wait for them look again.
    pub(crate) fn runs_look_again(&mut self) {
        let Some(rebuild) = &mut self.rebuild else { return };
        let waiting = rebuild.runs.iter_mut().filter(|(_, run)| run.waits);
        let waiting: Vec<u64> = waiting
            .map(|(id, run)| {
                run.waits = false;
                *id
            })
            .collect();
        for id in waiting {
            self.run_granted(id);
        }
    }

    /// Asks the twin which of the run's blocks differ. `told`: the hashes come from the table.
    fn check_run(&mut self, id: u64, hashes: Vec<[u8; HASH_BYTES]>, told: bool) {
        let read = self.sb.read_all;
        let Some(run) = self.rebuild.as_mut().and_then(|rebuild| rebuild.runs.get_mut(&id)) else { return };
        run.zero = Bits::of(hashes.iter().map(|hash| *hash == ZERO_HASH));
        (run.hashes, run.told) = (hashes.clone(), told);
        let offset = run.first * BLOCK_BYTES;
        let sequence = self.send(Body::Check { offset, hashes, told, read }, None);
        if let Some(link) = &mut self.link {
            link.awaited.insert(sequence, Awaited::Check(id));
        }
    }

    pub(crate) fn run_hash_done(&mut self, id: u64, op: OpId, result: Result<LocalResult, LocalFault>) {
        let run = self.rebuild.as_mut().and_then(|rebuild| rebuild.runs.get_mut(&id));
        match (run, result) {
            (Some(run), Ok(LocalResult::Hashes(hashes))) if hashes.len() as u64 == run.count => {
                run.buffer = Some(op);
                self.check_run(id, hashes, false);
            }
            (Some(_), Ok(_)) => self.broken("a hash for each block"),
            (_, Err(fault)) => {
                self.act(Action::Release { data: Data::Buffer(op) });
                self.rebuild_failed(fault);
            }
            (None, Ok(_)) => self.act(Action::Release { data: Data::Buffer(op) }),
        }
    }

    pub(crate) fn run_checked(&mut self, id: u64, different: &[u8]) {
        let Some(rebuild) = &mut self.rebuild else { return };
        let Some(run) = rebuild.runs.get_mut(&id) else { return };
        if different.len() != (run.count as usize).div_ceil(8) {
            self.close_link(LinkFault::Protocol);
            return;
        }
        rebuild.progress.compared += run.count;
        let different = Bits(different.to_vec());
        let (first, count) = (run.first, run.count);
        let differing = (0..count).filter(|block| different.has(*block)).count() as u64;
        rebuild.foreign = if differing < count { 0 } else { rebuild.foreign.saturating_add(1) };
        let same: Vec<(u64, Sum)> = (first..)
            .zip(&run.hashes)
            .filter(|(block, _)| !different.has(block - first))
            .map(|(block, hash)| (block, sum_of(hash)))
            .collect();
        if run.told && differing > 0 {
            run.different = Some(different);
            let op = self.begin(Op::RunRead(id));
            self.act(Action::ReadLocal { op, range: bytes_of(first, count), into: Data::Buffer(op) });
        } else {
            for block in (0..count).filter(|block| different.has(*block)) {
                run.add(block);
            }
            self.run_ready(id);
        }
        for (block, sum) in same {
            self.sum_learn(block, sum);
        }
    }

    pub(crate) fn run_read_done(&mut self, id: u64, op: OpId, result: Result<LocalResult, LocalFault>) {
        let run = self.rebuild.as_mut().and_then(|rebuild| rebuild.runs.get_mut(&id));
        match (run, result) {
            (Some(run), Ok(result)) => {
                run.buffer = Some(op);
                if let LocalResult::Read { zero } = result {
                    run.zero = Bits(zero);
                }
                let different = run.different.take();
                for block in (0..run.count).filter(|at| different.as_ref().is_none_or(|it| it.has(*at))) {
                    run.add(block);
                }
                self.run_ready(id);
            }
            (None, Ok(_)) => self.act(Action::Release { data: Data::Buffer(op) }),
            (_, Err(fault)) => {
                self.act(Action::Release { data: Data::Buffer(op) });
                self.rebuild_failed(fault);
            }
        }
    }

    /// The run's bytes are here and it is known what to send.
    fn run_ready(&mut self, id: u64) {
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.sending.push_back(id);
        }
        self.send_parts();
    }

    /// Sends parts of runs in order, as many as the twin can hold.
    fn send_parts(&mut self) {
        while let Some(rebuild) = &mut self.rebuild
            && let Some(id) = rebuild.sending.front().copied()
        {
            let Some(run) = rebuild.runs.get_mut(&id) else {
                rebuild.sending.pop_front();
                continue;
            };
            let Some(part) = run.parts.front().copied() else {
                rebuild.sending.pop_front();
                let (buffer, ended) = (run.buffer.take(), run.waiting == 0);
                if let Some(op) = buffer {
                    self.act(Action::Release { data: Data::Buffer(op) });
                }
                if ended {
                    self.end_run(id);
                }
                continue;
            };
            let large = part.is_large();
            if rebuild.frames >= FRAMES_MAX || (large && rebuild.large >= LARGE_FRAMES_MAX) {
                return;
            }
            let Some(op) = run.buffer else { return };
            run.parts.pop_front();
            run.waiting += 1;
            rebuild.frames += 1;
            rebuild.large += u32::from(large);
            let from = bytes_of(run.first, part.first - run.first).length;
            let Range { offset, length } = bytes_of(part.first, part.count);
            let (body, data) = if part.zero {
                // Space that was allocated stays so: a disk that is full later must not fail writes to this side alone.
                (Body::Zero { offset, length, unmap: false }, None)
            } else {
                (Body::Copy { offset, length }, Some(Data::Part { op, from }))
            };
            let sequence = self.send(body, data);
            if let Some(link) = &mut self.link {
                let awaited = Awaited::Copy { run: id, count: part.count, zero: part.zero };
                link.awaited.insert(sequence, awaited);
            }
        }
    }

    /// The twin has a part.
    pub(crate) fn run_copied(&mut self, id: u64, count: u64, zero: bool) {
        let Some(rebuild) = &mut self.rebuild else { return };
        rebuild.frames = rebuild.frames.saturating_sub(1);
        rebuild.large = rebuild.large.saturating_sub(u32::from(!zero && is_large(count)));
        let Some(run) = rebuild.runs.get_mut(&id) else { return };
        run.waiting = run.waiting.saturating_sub(1);
        if zero {
            // Nothing was moved.
        } else if run.compare {
            rebuild.progress.compared_moved += count;
        } else {
            rebuild.progress.moved += count;
        }
        let whole = run.waiting == 0 && run.parts.is_empty() && run.buffer.is_none();
        if whole || self.config.faults.end_run_early {
            self.end_run(id);
        }
        self.send_parts();
    }

    /// Every part of the run is on the twin.
    fn end_run(&mut self, id: u64) {
        let Some(rebuild) = &mut self.rebuild else { return };
        let Some(run) = rebuild.runs.remove(&id) else { return };
        if let Some(op) = run.buffer {
            self.act(Action::Release { data: Data::Buffer(op) });
        }
        let Some(rebuild) = &mut self.rebuild else { return };
        rebuild.blocks -= run.count;
        rebuild.copied.push((run.first, run.count));
        rebuild.copied_blocks += run.count;
        rebuild.progress.done += run.count;
        if self.config.faults.clear_bits_before_flush {
            self.map.clear(run.first, run.count);
        }
        if !run.told {
            self.sums_learn(run.first, &run.hashes);
        }
        self.release_claim(id);
    }

    /// A joint flush has succeeded: what was copied before it began is equal on stable storage.
    pub(crate) fn clear_copied(&mut self) {
        let Some(rebuild) = &mut self.rebuild else { return };
        let flushed = std::mem::take(&mut rebuild.flushing);
        rebuild.flushing_blocks = 0;
        if self.failed.is_some() {
            // A write that failed here may lie among them: they stay recorded as different.
            return;
        }
        for (first, count) in flushed {
            self.map.clear(first, count);
            rebuild.progress.cleared += count;
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
            if matches!(op, Op::RunRead(_) | Op::RunHash(_)) {
                *op = Op::LostRead;
            }
        }
        for (id, run) in rebuild.runs {
            if let Some(op) = run.buffer {
                self.act(Action::Release { data: Data::Buffer(op) });
            }
            self.release_claim(id);
        }
        // What is not cleared is to be done again.
        self.broken_off = Some((rebuild.kind, rebuild.progress));
    }
}
