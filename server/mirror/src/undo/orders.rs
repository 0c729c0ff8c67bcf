//! Orders about a preserved version, and whether a store takes what a rebuild over a split brain's loser overwrites.

use super::Stage;
use super::back::Back;
use crate::action::LinkFault;
use crate::layout::EXTENT_BLOCKS;
use crate::mirror::Mirror;
use peer::block::BLOCK_BYTES;
use peer::control::{OrderFault, Role, Ticket, UndoAct};

impl Mirror {
    pub(crate) fn undo_ordered(&mut self, ticket: Ticket, act: UndoAct) {
        let fault = match act {
            UndoAct::Waive => {
                self.undo.waived = true;
                None
            }
            UndoAct::Back | UndoAct::Drop if self.sb.preserved.is_none() => Some(OrderFault::NothingKept),
            UndoAct::Back | UndoAct::Drop if self.returning() => {
                (act == UndoAct::Drop).then_some(OrderFault::WrongRole)
            }
            UndoAct::Back if self.role != Role::Standby || !self.settle.is_idle() => {
                Some(OrderFault::WrongRole)
            }
            // The source is there: it would overwrite again what goes back.
            UndoAct::Back if self.linked() => Some(OrderFault::InUse),
            UndoAct::Back => {
                self.begin_returning();
                None
            }
            UndoAct::Drop => {
                self.end_record();
                None
            }
        };
        match fault {
            Some(fault) => self.answer(ticket, Err(fault)),
            None => {
                let mark = self.store.superblock();
                self.undo.answers.push((mark, ticket));
            }
        }
    }

    fn begin_returning(&mut self) {
        if let Some(preserved) = &mut self.sb.preserved {
            preserved.returning = true;
        }
        self.sb.consistent = false;
        self.sb.undone = true;
        self.sb.made_equal = false;
        self.made_equal = false;
        self.undo.after = self.store.superblock();
        self.close_link(LinkFault::Restart);
        if matches!(self.undo.stage, Stage::Keeping) {
            self.undo.stage = Stage::Returning(Back::default());
        }
    }

    /// A rebuild over a copy that went on by itself waits: its store cannot hold what would be lost, and nobody waived it.
    pub(crate) fn undo_is_short(&self) -> bool {
        self.declared && !self.undo.waived && !self.undo_fits()
    }

    /// Whether the store of the twin, if it has one, holds what a rebuild over a copy that went on by itself overwrites.
    fn undo_fits(&self) -> bool {
        let Some((hello, _)) = self.link.as_ref().and_then(|link| link.hello.as_ref()) else { return false };
        let all = self.sb.size / BLOCK_BYTES;
        let common = self.sb.base.is_some() && self.sb.base == hello.base && !self.sb.compare_all;
        let hot = hello.hot.len() as u64 * EXTENT_BLOCKS;
        let known = if common { (self.map.count() + hello.dirty + hot).min(all) } else { all };
        hello.room.is_none_or(|room| room >= known)
    }
}
