//! The witness's machine: its process, its file, its channels.

use crate::net::{ConnId, Machine};
use crate::rng::Rng;
use crate::trace::Column;
use crate::world::{Event, Packet, World};
use engine::Witness;
use engine::action::StoreToken;
use engine::witness::{WitnessAction, WitnessRecord};
use peer::cluster::ClusterMessage;
use std::collections::BTreeMap;
use wire::{Incarnation, NodeId};

/// Of a write of the witness's file with its directory, in microseconds.
const STORE: (u64, u64) = (300, 8_000);

/// The third machine.
#[derive(Debug)]
pub struct WitnessMachine {
    /// Its file.
    pub record: Option<WitnessRecord>,
    /// Its disk takes so much longer until then.
    pub slow: (u64, crate::queue::Instant),
    process: Option<u64>,
    core: Witness,
    stored: StoreToken,
    storing: Option<(StoreToken, WitnessRecord)>,
    next: Option<(StoreToken, WitnessRecord)>,
    waiting: Vec<(StoreToken, NodeId, ClusterMessage)>,
    channels: BTreeMap<NodeId, (ConnId, usize)>,
}

impl WitnessMachine {
    /// Switched off, without a file.
    pub fn new(rng: &mut Rng) -> Self {
        WitnessMachine {
            record: None,
            slow: (1, 0),
            process: None,
            core: Witness::new(None, Incarnation(rng.id())),
            stored: StoreToken(0),
            storing: None,
            next: None,
            waiting: Vec::new(),
            channels: BTreeMap::new(),
        }
    }

    /// Whether this is its process.
    #[must_use]
    pub fn is(&self, process: u64) -> bool {
        self.process == Some(process)
    }

    /// Its process, if it runs.
    #[must_use]
    pub fn process(&self) -> Option<u64> {
        self.process
    }
}

impl World {
    /// The witness starts from its file.
    pub fn start_witness(&mut self) {
        if self.witness.process.is_some() {
            return;
        }
        let process = self.fresh_process();
        let fresh = Incarnation(self.rng.id());
        let record = self.witness.record.clone();
        let known = record.is_some();
        self.witness.core = Witness::new(record, fresh);
        self.witness.process = Some(process);
        self.witness.stored = StoreToken(0);
        self.trace.step(self.queue.now(), Column::Witness, || format!("starts, file {known}"));
        self.drain_witness();
    }

    /// The witness stops at once; `forget`: its file is gone too.
    pub fn stop_witness(&mut self, forget: bool) {
        self.trace.step(self.queue.now(), Column::Witness, || format!("DOWN, file lost {forget}"));
        self.witness.process = None;
        self.witness.waiting.clear();
        self.witness.next = None;
        if let Some((_, record)) = self.witness.storing.take().filter(|_| self.rng.percent(50)) {
            self.witness.record = Some(record);
        }
        if forget {
            self.witness.record = None;
        }
        self.witness.channels.clear();
        for (conn, end) in self.net.ends_on(Machine::Witness) {
            if self.rng.percent(50) {
                self.net.vanish(conn, end);
                self.give_up_later(conn, 1 - end);
            } else {
                self.close(conn, end, true);
            }
        }
        self.note_registers();
    }

    /// A server connected.
    pub fn witness_opened(&mut self, server: NodeId, conn: ConnId, end: usize) {
        if let Some((old, end)) = self.witness.channels.insert(server, (conn, end)) {
            self.close(old, end, true);
            self.witness.core.channel_closed(server);
        }
        self.witness.core.channel_opened(server);
        self.drain_witness();
    }

    /// A connection of the witness ended.
    pub fn witness_closed(&mut self, conn: ConnId) {
        let Some(server) = self.witness.channels.iter().find(|(_, c)| c.0 == conn).map(|(s, _)| *s) else {
            return;
        };
        self.witness.channels.remove(&server);
        self.witness.core.channel_closed(server);
        self.drain_witness();
    }

    /// A message for the witness.
    pub fn witness_message(&mut self, conn: ConnId, message: ClusterMessage) {
        let Some(server) = self.witness.channels.iter().find(|(_, c)| c.0 == conn).map(|(s, _)| *s) else {
            return;
        };
        self.witness.core.handle(server, message);
        self.drain_witness();
    }

    /// The file is written.
    pub fn witness_stored(&mut self, process: u64) {
        if !self.witness.is(process) {
            return;
        }
        let Some((token, record)) = self.witness.storing.take() else { return };
        self.witness.record = Some(record);
        self.witness.stored = token;
        self.note_registers();
        self.witness.core.handle_stored(token);
        if let Some((token, record)) = self.witness.next.take() {
            self.witness_store(token, record);
        }
        let (ready, waiting) =
            std::mem::take(&mut self.witness.waiting).into_iter().partition(|(t, ..)| *t <= token);
        self.witness.waiting = waiting;
        let ready: Vec<(StoreToken, NodeId, ClusterMessage)> = ready;
        for (_, to, message) in ready {
            self.witness_send(to, message);
        }
        self.drain_witness();
    }

    fn witness_store(&mut self, token: StoreToken, record: WitnessRecord) {
        if self.witness.storing.is_some() {
            self.witness.next = Some((token, record));
            return;
        }
        self.witness.storing = Some((token, record));
        let factor = if self.queue.now() < self.witness.slow.1 { self.witness.slow.0 } else { 1 };
        let delay = self.rng.range(STORE.0, STORE.1) * factor;
        let process = self.witness.process.unwrap_or_default();
        self.queue.after(delay, Event::WitnessStored { process });
    }

    fn drain_witness(&mut self) {
        for action in self.witness.core.take_actions() {
            match action {
                WitnessAction::Store { token, record } => self.witness_store(token, record),
                WitnessAction::Send { to, message, after } => match after {
                    Some(token) if token > self.witness.stored => {
                        self.witness.waiting.push((token, to, message))
                    }
                    _ => self.witness_send(to, message),
                },
            }
        }
    }

    fn witness_send(&mut self, to: NodeId, message: ClusterMessage) {
        if let ClusterMessage::Register { group, message } = &message {
            self.trace.step(self.queue.now(), Column::Witness, || format!("-> {to} {group} {message:?}"));
        }
        if let Some((conn, end)) = self.witness.channels.get(&to).copied() {
            self.send(conn, 1 - end, Packet::Cluster(Box::new(message)));
        }
    }
}
