//! After a start: the log is read header by header, and the blocks of its last segments are checked, to find its end.

use super::Stage;
use super::back::Back;
use super::segment::{Segment, UNSEALED_MAX, sum};
use crate::action::{Action, OpId};
use crate::input::{LocalFault, LocalResult};
use crate::layout::UNIT;
use crate::mirror::{Mirror, Op};
use std::collections::VecDeque;

/// Finding the log's end.
#[derive(Debug, Default)]
pub(super) struct Reading {
    op: Option<OpId>,
    /// The segments read last: they count when so many others follow, or their blocks are what they say.
    last: VecDeque<Segment>,
    /// Of those, the ones whose blocks are being read, by place.
    checks: Vec<(OpId, usize)>,
    /// How many of them are good, from the first on.
    good: usize,
}

impl Mirror {
    pub(super) fn advance_reading(&mut self) {
        let Stage::Reading(reading) = &mut self.undo.stage else { return };
        if reading.op.is_some() || !reading.checks.is_empty() {
            return;
        }
        let at = reading.last.back().map_or(0, Segment::end);
        if at < self.store_units() {
            let op = self.begin(Op::KeepRead);
            if let Stage::Reading(reading) = &mut self.undo.stage {
                reading.op = Some(op);
            }
            let offset = self.store_offset(at);
            self.act(Action::LoadControl { op, offset, length: UNIT as u32 });
        } else {
            self.header_read(None);
        }
    }

    /// Something that was read after a start, or put back, is here.
    pub(crate) fn keep_read_done(&mut self, op: OpId, result: Result<LocalResult, LocalFault>) {
        match &mut self.undo.stage {
            Stage::Reading(reading) => {
                let result = match result {
                    Ok(result) => result,
                    Err(fault) => {
                        self.fail(format!("reading the preserved version failed: errno {}", fault.errno));
                        return;
                    }
                };
                match result {
                    LocalResult::Bytes(bytes) if reading.op == Some(op) => {
                        reading.op = None;
                        let found = Segment::read(&bytes, &self.sb, reading.last.back());
                        self.header_read(found);
                    }
                    LocalResult::Hashes(hashes) => self.segment_checked(op, &hashes),
                    LocalResult::Bytes(_) | LocalResult::Done | LocalResult::Read { .. } => {}
                }
            }
            Stage::Returning(_) => self.returned(op, result),
            Stage::Off | Stage::Keeping | Stage::Ending { .. } => {}
        }
    }

    fn header_read(&mut self, found: Option<Segment>) {
        self.moved = true;
        let only_last = self.config.faults.check_last_segment_only;
        let unsure = if only_last { 1 } else { UNSEALED_MAX };
        let Stage::Reading(reading) = &mut self.undo.stage else { return };
        if let Some(found) = found {
            reading.last.push_back(found);
            if reading.last.len() > unsure
                && let Some(sure) = reading.last.pop_front()
            {
                self.undo.keeping.found(&sure);
            }
            return;
        }
        reading.good = reading.last.len();
        let places: Vec<(usize, u64, u64)> = (0..)
            .zip(&reading.last)
            .filter(|(_, segment)| segment.units() > 0)
            .map(|(place, segment)| (place, segment.at + 1, segment.units()))
            .collect();
        let mut checks = Vec::new();
        for (place, unit, units) in places {
            let op = self.begin(Op::KeepRead);
            checks.push((op, place));
            let range = self.store_range(unit, units);
            self.act(Action::HashLocal { op, range, keep: false });
        }
        let none = checks.is_empty();
        if let Stage::Reading(reading) = &mut self.undo.stage {
            reading.checks = checks;
        }
        if none {
            self.end_found();
        }
    }

    /// The blocks of one of the last segments are here.
    fn segment_checked(&mut self, op: OpId, hashes: &[[u8; 16]]) {
        let Stage::Reading(reading) = &mut self.undo.stage else { return };
        let Some(check) = reading.checks.iter().position(|(check, _)| *check == op) else { return };
        let (_, place) = reading.checks.remove(check);
        let Some(segment) = reading.last.get(place) else { return };
        let whole = segment.runs.iter().all(|run| match run.place {
            Some(first) => {
                let found = hashes.get(first as usize..first as usize + run.count as usize);
                found.is_some_and(|hashes| sum(hashes) == run.sum)
            }
            None => true,
        });
        if !whole {
            reading.good = reading.good.min(place);
        }
        if reading.checks.is_empty() {
            self.end_found();
        }
    }

    /// The log's end is known.
    fn end_found(&mut self) {
        self.moved = true;
        let Stage::Reading(reading) = std::mem::take(&mut self.undo.stage) else { return };
        for segment in reading.last.iter().take(reading.good) {
            self.undo.keeping.found(segment);
        }
        self.undo.stage = if self.returning() { Stage::Returning(Back::default()) } else { Stage::Keeping };
        if matches!(self.undo.stage, Stage::Keeping) {
            self.go_on();
        }
    }
}
