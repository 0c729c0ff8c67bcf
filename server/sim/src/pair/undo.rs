//! The oracle of preserve: a copy that was put back is, bit for bit, what it was when the rebuild began.

use super::World;
use super::disk::{Block, CELLS};
use mirror::action::{Data, OpId};
use mirror::input::Range;
use peer::block::BLOCK_BYTES;
use std::rc::Rc;

/// What a side's copy was when the record it keeps began.
#[derive(Clone, Debug, Default)]
pub(super) struct Old {
    /// Number of the record; 0: none.
    record: u64,
    content: Option<Box<[u64; CELLS]>>,
    /// It has been put back and looked at.
    seen: bool,
}

impl World {
    /// After each turn: a record has begun with it, and nothing is under way on that disk.
    pub(super) fn version_begins(&mut self, side: usize) {
        let host = &mut self.sides[side];
        let record = host.process.as_ref().and_then(|process| process.mirror.record());
        let Some(record) = record.filter(|record| *record != host.old.record) else { return };
        host.old = Old { record, content: Some(Box::new(*host.disk.view())), seen: false };
    }

    /// A copy that says it was put back.
    pub(super) fn check_undone(&mut self, side: usize) {
        let host = &mut self.sides[side];
        let back = host
            .process
            .as_ref()
            .is_some_and(|process| process.mirror.is_undone() && process.mirror.record().is_none());
        if !back || host.old.seen {
            return;
        }
        host.old.seen = true;
        let Some(content) = &host.old.content else { return };
        let whole = host.disk.view() == &**content && host.disk.durable() == &**content;
        let wrong = (0..CELLS).find(|cell| host.disk.view()[*cell] != content[*cell]);
        self.undone += 1;
        if !whole {
            self.fail(format!("side {}: put back, and not what it was: cell {wrong:?}", side + 1));
        }
    }

    /// The whole blocks of ranges whose bytes the core keeps, one behind the other.
    pub(super) fn keep_blocks(&mut self, side: usize, op: OpId, ranges: &[Range]) {
        let disk = &self.sides[side].disk;
        let blocks = ranges.iter().flat_map(|range| disk.blocks(*range)).collect();
        if let Some(process) = &mut self.sides[side].process {
            process.blocks.insert(op, blocks);
        }
    }

    /// A write of what a buffer holds begins.
    pub(super) fn writes_kept(&mut self, side: usize, op: OpId, range: Range, data: Data) {
        let (buffer, from) = match data {
            Data::Buffer(buffer) => (buffer, 0),
            Data::Part { op, from } => (op, (u64::from(from) / BLOCK_BYTES) as usize),
            Data::Request(_) | Data::Payload(_) => return,
        };
        let count = (u64::from(range.length) / BLOCK_BYTES) as usize;
        let Some(process) = &mut self.sides[side].process else { return };
        let blocks = process.blocks.get(&buffer).and_then(|blocks| blocks.get(from..from + count));
        match blocks.map(Rc::from) {
            Some(blocks) => drop(process.blocks.insert(op, blocks)),
            None => self.fail(format!("side {}: buffer {} has no such blocks", side + 1, buffer.0)),
        }
    }

    /// What that write brings.
    pub(super) fn kept_blocks(&mut self, side: usize, op: OpId) -> Rc<[Block]> {
        let process = self.sides[side].process.as_mut();
        process.and_then(|process| process.blocks.remove(&op)).unwrap_or_else(|| Rc::from([]))
    }
}
