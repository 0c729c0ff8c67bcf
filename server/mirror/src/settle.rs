//! Settling: before a session, an epoch or an activation is stored, everything submitted under an older one is complete
//! and flushed. One at a time; what comes meanwhile joins before the store or waits for the next.

use crate::action::Action;
use crate::input::LocalFault;
use crate::mirror::{Mirror, Op};
use peer::control::{Done, OrderFault, Ticket};
use wire::{Epoch, Generation, NodeId, Session};

/// What is settled for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Session { connection: u64, epoch: Epoch, holder: Option<NodeId>, session: Session },
    Learn { ticket: Ticket, epoch: Epoch, holder: NodeId },
    Activate { ticket: Ticket, epoch: Epoch, alone: bool, generation: Generation },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Writes of the twin that were submitted come to their end.
    Draining,
    Flushing,
    /// The superblock is on its way.
    Storing(u64),
}

/// The settling in progress and what waits for the next.
#[derive(Debug, Default)]
pub(crate) struct Settle {
    stage: Option<Stage>,
    purposes: Vec<Purpose>,
    waiting: Vec<Purpose>,
}

impl Settle {
    pub(crate) fn ask(&mut self, purpose: Purpose) {
        self.waiting.push(purpose);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.stage.is_none() && self.waiting.is_empty()
    }

    /// The connection is gone; its session is of no use (storing it does no harm).
    pub(crate) fn forget_sessions(&mut self) {
        self.waiting.retain(|purpose| !matches!(purpose, Purpose::Session { .. }));
        if !matches!(self.stage, Some(Stage::Storing(_))) {
            self.purposes.retain(|purpose| !matches!(purpose, Purpose::Session { .. }));
        }
    }

    /// Takes out activations: the right is lost. Gives their tickets.
    pub(crate) fn forget_activations(&mut self) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        for list in [&mut self.purposes, &mut self.waiting] {
            list.retain(|purpose| match purpose {
                Purpose::Activate { ticket, .. } => {
                    tickets.push(*ticket);
                    false
                }
                Purpose::Session { .. } | Purpose::Learn { .. } => true,
            });
        }
        tickets
    }
}

impl Mirror {
    pub(crate) fn advance_settle(&mut self) {
        match self.settle.stage {
            None if self.settle.waiting.is_empty() => {}
            None => {
                self.settle.purposes = std::mem::take(&mut self.settle.waiting);
                self.settle.stage = Some(Stage::Draining);
                self.moved = true;
                self.settle_drained();
            }
            Some(Stage::Draining) => self.settle_drained(),
            Some(Stage::Flushing) => {}
            Some(Stage::Storing(mark)) => {
                if self.store.reached(mark) {
                    self.settle.stage = None;
                    self.moved = true;
                    for purpose in std::mem::take(&mut self.settle.purposes) {
                        self.settled(purpose);
                    }
                }
            }
        }
    }

    fn settle_drained(&mut self) {
        let hasty = self.config.faults.session_without_drain;
        let applied = self.applied.is_empty() && self.barriers.is_empty();
        if (!applied || !self.undo.is_quiet()) && !hasty {
            return;
        }
        self.moved = true;
        if self.serving() || self.failed.is_some() || hasty {
            // The active side's own writes are not of an older session: they are sent again.
            self.settle_store();
            return;
        }
        self.settle.stage = Some(Stage::Flushing);
        let op = self.begin(Op::Settle);
        self.act(Action::FlushLocal { op });
    }

    pub(crate) fn settle_flushed(&mut self, fault: Option<LocalFault>) {
        if let Some(fault) = fault {
            self.fail(format!("flushing the local disk failed: errno {}", fault.errno));
        }
        if self.settle.stage == Some(Stage::Flushing) {
            self.settle_store();
        }
    }

    /// Changes the superblock as all purposes ask and stores it.
    fn settle_store(&mut self) {
        let joining: Vec<Purpose> = std::mem::take(&mut self.settle.waiting);
        self.settle.purposes.extend(joining);
        for purpose in self.settle.purposes.clone() {
            match purpose {
                Purpose::Session { epoch, holder, session, .. } => {
                    self.sb.session = self.sb.session.max(session);
                    self.keep_epoch(epoch, holder);
                }
                Purpose::Learn { epoch, holder, .. } => self.keep_epoch(epoch, Some(holder)),
                Purpose::Activate { epoch, alone, generation, .. } => {
                    self.keep_epoch(epoch, Some(self.sb.side));
                    self.sb.session = Session(self.sb.session.0 + 1);
                    self.sb.active = true;
                    self.store_mode();
                    self.record_ends_active();
                    if alone {
                        self.new_generation(generation);
                    }
                }
            }
        }
        let mark = self.store.superblock();
        self.settle.stage = Some(Stage::Storing(mark));
    }

    fn keep_epoch(&mut self, epoch: Epoch, holder: Option<NodeId>) {
        if epoch > self.sb.epoch {
            self.sb.epoch = epoch;
            self.sb.holder = holder;
        } else if epoch == self.sb.epoch && self.sb.holder.is_none() {
            self.sb.holder = holder;
        }
    }

    /// Changes to a new generation without the twin; the map goes on counting from where it did.
    pub(crate) fn new_generation(&mut self, generation: Generation) {
        self.sb.alone = true;
        if self.config.faults.skip_generation_on_alone {
            self.sb.alone = false;
            return;
        }
        self.sb.undone = false;
        if self.sb.history.first() != Some(&generation) {
            self.sb.history.insert(0, generation);
            self.sb.history.truncate(peer::control::HISTORY_MAX);
        }
    }

    fn settled(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Session { connection, .. } => self.session_kept(connection),
            Purpose::Learn { ticket, epoch, .. } => {
                let stored = self.sb.epoch;
                let result =
                    if stored > epoch { Err(OrderFault::StaleEpoch { stored }) } else { Ok(Done::Done) };
                self.answer(ticket, result);
            }
            Purpose::Activate { ticket, alone, .. } => self.activation_stored(ticket, alone),
        }
    }
}
