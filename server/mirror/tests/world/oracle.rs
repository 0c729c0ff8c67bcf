//! What must hold: acknowledged writes, known differences, identical copies in the end.

use super::disk::SECTORS_PER_BLOCK;
use super::{SECTORS, Side, World, sectors};
use mirror::action::OpId;
use mirror::input::RequestId;
use mirror::{Action, Mirror};
use peer::block::{Body, Frame};
use peer::control::Role;

impl World {
    /// Which write a sector's word can be of at the newest.
    pub fn age(&self, sector: usize, word: u64) -> u64 {
        if word == 0 { self.zeroed[sector] } else { word }
    }

    pub fn replied(&mut self, side: usize, request: RequestId, errno: i32) {
        let asked = self.sides[side].requests.remove(&request).expect("one reply for a request");
        if errno != 0 {
            let it = &self.sides[side];
            let excused = it.fenced || self.bad(side) || self.role(side) != Role::Active;
            assert!(excused, "no error without a fault");
            return;
        }
        let both = self.needs_twin(side);
        let keepers: Vec<usize> = if both { vec![0, 1] } else { vec![side] };
        if asked.write {
            self.acknowledged += 1;
            let (at, count) = sectors(asked.range.unwrap());
            for sector in at..at + count {
                for keeper in &keepers {
                    let least = &mut self.sides[*keeper].least[sector];
                    *least = (*least).max(asked.value);
                }
            }
            // A deposed holder may still say what its twin had answered before: the twin has it.
            let view = &self.sides[1 - side].disk.view;
            let has = both && (at..at + count).all(|sector| self.age(sector, view[sector]) >= asked.value);
            assert!(self.holder == Some(side) || has, "an acknowledgement from a side that does not hold");
        } else if let Some(range) = asked.range {
            let (at, count) = sectors(range);
            let found = &self.sides[side].buffers.remove(&OpId(u64::MAX - request.0)).expect("read");
            for (i, word) in found.iter().enumerate().take(count) {
                assert!(
                    self.age(at + i, *word) >= asked.before[i].1,
                    "read sector {} gives {word}, {:?}",
                    at + i,
                    asked.before[i]
                );
            }
        } else {
            for (sector, value) in asked.before {
                for keeper in &keepers {
                    let safe = &mut self.sides[*keeper].safe[sector];
                    *safe = (*safe).max(value);
                }
            }
        }
    }

    /// Its disk has failed for good.
    pub fn bad(&self, side: usize) -> bool {
        let failed = |mirror: &Mirror| mirror.status().failed.is_some();
        self.sides[side].bad || self.sides[side].mirror.as_ref().is_some_and(failed)
    }

    /// Invariant 13: what the active side does not suspect is equal on both disks, crashed or not.
    pub fn check_blocks(&self) {
        let Some(active) = self.holder else { return };
        let (mine, twin) = (&self.sides[active], &self.sides[1 - active]);
        let (Some(mirror), Some(other)) = (&mine.mirror, &twin.mirror) else { return };
        let (status, theirs) = (mirror.status(), other.status());
        if status.role != Role::Active
            || mirror.base().is_none()
            || theirs.history.first() != mirror.base().as_ref()
        {
            return;
        }
        // What the twin itself suspects is told at the next meeting.
        for block in 0..SECTORS / SECTORS_PER_BLOCK {
            let (from, to) = (block * SECTORS_PER_BLOCK, (block + 1) * SECTORS_PER_BLOCK);
            let equal = mine.disk.stable[from..to] == twin.disk.stable[from..to]
                && mine.disk.view[from..to] == twin.disk.view[from..to];
            if !equal && !mirror.suspects_block(block as u64) && !other.suspects_block(block as u64) {
                panic!(
                    "block {block} differs and nobody knows: side {active} {:?} {:?}, twin {:?} {:?}",
                    &mine.disk.view[from..to],
                    &mine.disk.stable[from..to],
                    &twin.disk.view[from..to],
                    &twin.disk.stable[from..to]
                );
            }
        }
    }

    /// Nothing is on its way to a disk: semi-synchronous writes may be long after their answer.
    fn quiet(&self) -> bool {
        let writes = |action: &Action| matches!(action, Action::WriteLocal { .. } | Action::ZeroLocal { .. });
        let wire = |frame: &Frame| matches!(frame.body, Body::Write { .. } | Body::Zero { .. });
        let idle =
            |side: &Side| side.payloads.is_empty() && !side.doing.iter().any(|(action, ..)| writes(action));
        self.sides.iter().all(idle) && !self.wires.iter().flatten().any(|(frame, _)| wire(frame))
    }

    /// Faults off: it must heal.
    pub fn settle(&mut self) {
        self.calm = true;
        for _ in 0..60_000 {
            self.step();
            let Some(holder) = self.holder else { continue };
            let Some(mirror) = &self.sides[holder].mirror else { continue };
            let status = mirror.status();
            if self.in_sync.len() == 2
                && status.role == Role::Active
                && status.equal
                && status.rebuild.is_none()
                && self.sides[holder].requests.is_empty()
                && self.quiet()
            {
                let (a, b) = (&self.sides[0].disk, &self.sides[1].disk);
                assert_eq!(a.view, b.view, "copies identical when all is well");
                return;
            }
        }
        let states: Vec<_> = self.sides.iter().map(|side| side.mirror.as_ref().map(Mirror::status)).collect();
        panic!("it does not heal: holder {:?} in sync {:?}\n{states:#?}", self.holder, self.in_sync);
    }
}
