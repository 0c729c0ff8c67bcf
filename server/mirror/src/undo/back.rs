//! Putting a preserved version back: segment by segment, each run checked before it overwrites anything.
//!
//! That it is under way is stored before the first block; a crash begins it again from the first segment, which gives the
//! same content, for each block is in the log as it was when the record began.

use super::segment::{Segment, sum};
use super::{Stage, Undo};
use crate::action::{Action, Data, OpId};
use crate::input::{LocalFault, LocalResult, Range};
use crate::layout::UNIT;
use crate::mirror::{Mirror, Op};
use peer::block::BLOCK_BYTES;

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Back {
    /// The segment that went back last.
    last: Option<Segment>,
    reading: Option<OpId>,
    /// The segment that goes back when this store is done: the sums of its blocks are being taken back.
    waits: Option<(u64, Segment)>,
    /// Runs being read (with their place on the device and checksum) and written.
    runs: Vec<Going>,
    flush: Flush,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Flush {
    #[default]
    Not,
    Flushing(OpId),
    Storing(u64),
}

#[derive(Debug)]
struct Going {
    buffer: OpId,
    first: u64,
    count: u64,
    sum: u32,
    /// The write, once begun; zeroes have no buffer.
    write: Option<OpId>,
    zero: bool,
}

impl Mirror {
    pub(super) fn advance_returning(&mut self) {
        let drained = self.applied.is_empty() && self.undo.keeping.is_idle() && self.failed.is_none();
        let (head, stored) = (self.undo.keeping.head, self.store.reached(self.undo.after));
        let Stage::Returning(back) = &mut self.undo.stage else { return };
        if back.waits.as_ref().is_some_and(|(mark, _)| !self.store.reached(*mark)) {
            return;
        }
        if let Some((_, segment)) = back.waits.take() {
            return self.segment_goes_back(segment);
        }
        if !drained || !stored || back.reading.is_some() || !back.runs.is_empty() {
            return;
        }
        let at = back.last.as_ref().map_or(0, Segment::end);
        let next = at < head;
        match back.flush {
            Flush::Not if next => {
                let op = self.begin(Op::KeepRead);
                let offset = self.store_offset(at);
                if let Stage::Returning(back) = &mut self.undo.stage {
                    back.reading = Some(op);
                }
                self.act(Action::LoadControl { op, offset, length: UNIT as u32 });
            }
            Flush::Not => {
                let op = self.begin(Op::KeepRead);
                if let Stage::Returning(back) = &mut self.undo.stage {
                    back.flush = Flush::Flushing(op);
                }
                self.act(Action::FlushLocal { op });
            }
            Flush::Flushing(_) => {}
            Flush::Storing(mark) => {
                if self.store.reached(mark) {
                    self.undo = Undo { waived: self.undo.waived, ..Undo::default() };
                    self.moved = true;
                    self.told.report = true;
                }
            }
        }
    }

    /// Something of it is done.
    pub(super) fn returned(&mut self, op: OpId, result: Result<LocalResult, LocalFault>) {
        self.moved = true;
        let Stage::Returning(back) = &mut self.undo.stage else { return };
        if let Some(place) = back.runs.iter().position(|run| run.buffer == op || run.write == Some(op)) {
            self.run_returned(place, result);
            return;
        }
        let failed =
            |fault: &LocalFault| format!("putting the preserved version back failed: errno {}", fault.errno);
        match result {
            Err(fault) => self.fail(failed(&fault)),
            Ok(LocalResult::Bytes(bytes)) if back.reading == Some(op) => {
                back.reading = None;
                match Segment::read(&bytes, &self.sb, back.last.as_ref()) {
                    Some(segment) => self.segment_may_go_back(segment),
                    None => {
                        let at = back.last.as_ref().map_or(0, Segment::end);
                        self.fail(format!("the preserved version is damaged: header at {at}"));
                    }
                }
            }
            Ok(_) if back.flush == Flush::Flushing(op) => self.version_is_back(),
            Ok(_) => {}
        }
    }

    fn segment_may_go_back(&mut self, segment: Segment) {
        let mut after = 0;
        for run in &segment.runs {
            let length = u32::try_from(run.count * BLOCK_BYTES).unwrap_or_default();
            after = after.max(self.sums_forget(Range { offset: run.first * BLOCK_BYTES, length }));
        }
        if let Stage::Returning(back) = &mut self.undo.stage {
            back.waits = Some((after, segment));
        }
    }

    fn segment_goes_back(&mut self, segment: Segment) {
        let mut runs = Vec::with_capacity(segment.runs.len());
        for run in &segment.runs {
            let op = self.begin(Op::KeepRead);
            let (first, count) = (run.first, run.count);
            runs.push(Going {
                buffer: op,
                first,
                count,
                sum: run.sum,
                write: None,
                zero: run.place.is_none(),
            });
            match run.place {
                Some(place) => {
                    let range = self.store_range(segment.at + 1 + u64::from(place), count);
                    self.act(Action::HashLocal { op, range, keep: true });
                }
                None => {
                    let length = u32::try_from(count * BLOCK_BYTES).unwrap_or_default();
                    self.act(Action::ZeroLocal {
                        op,
                        range: Range { offset: first * BLOCK_BYTES, length },
                        unmap: false,
                    });
                }
            }
        }
        if let Stage::Returning(back) = &mut self.undo.stage {
            (back.last, back.runs) = (Some(segment), runs);
        }
    }

    fn run_returned(&mut self, place: usize, result: Result<LocalResult, LocalFault>) {
        let Stage::Returning(back) = &mut self.undo.stage else { return };
        let Some(run) = back.runs.get_mut(place) else { return };
        let (buffer, zero, reading) = (run.buffer, run.zero, run.write.is_none() && !run.zero);
        match result {
            Ok(LocalResult::Hashes(hashes)) if reading && sum(&hashes) == run.sum => {
                let length = u32::try_from(run.count * BLOCK_BYTES).unwrap_or_default();
                let range = Range { offset: run.first * BLOCK_BYTES, length };
                let write = self.begin(Op::KeepRead);
                if let Stage::Returning(back) = &mut self.undo.stage
                    && let Some(run) = back.runs.get_mut(place)
                {
                    run.write = Some(write);
                }
                self.act(Action::WriteLocal { op: write, range, data: Data::Buffer(buffer) });
                return;
            }
            Ok(_) if reading => {
                self.fail("the preserved version is damaged: a checksum does not match".into())
            }
            Ok(_) => {}
            Err(fault) => {
                self.fail(format!("putting the preserved version back failed: errno {}", fault.errno));
            }
        }
        if !zero {
            self.act(Action::Release { data: Data::Buffer(buffer) });
        }
        if let Stage::Returning(back) = &mut self.undo.stage {
            back.runs.remove(place);
        }
    }

    /// Every block is back and flushed: the copy is what it was.
    fn version_is_back(&mut self) {
        let Some(preserved) = self.sb.preserved.take() else { return };
        self.sb.history = preserved.history;
        self.sb.alone = preserved.alone;
        self.sb.base = None;
        self.sb.consistent = true;
        self.sb.undone = true;
        self.sb.active = false;
        self.sb.compare_all = false;
        self.forget_differences();
        let mark = self.store.superblock();
        if let Stage::Returning(back) = &mut self.undo.stage {
            back.flush = Flush::Storing(mark);
        }
    }
}
