//! Does what the engine wants done: each action to the part that can do it, not before the record it depends on is stored,
//! in order for each addressee.

use crate::app::{Running, wall_clock};
use crate::brain::Turn;
use crate::channel::Packet;
use crate::disks::Disks;
use crate::heartbeat::Heartbeats;
use crate::steps::Steps;
use engine::Action;
use engine::Input;
use engine::action::StoreToken;
use engine::input::Party;
use engine::persist::Record;
use std::collections::VecDeque;
use std::sync::Arc;
use store::Store;
use tokio::sync::{mpsc, watch};
use wire::{ClusterConfig, Event, SetId};

/// Actions that wait for a record: the engine makes a handful in a turn, and a record is stored within milliseconds.
const HELD_MAX: usize = 4_096;
/// Events waiting to be stored: a burst of a whole cluster's failure is some dozens.
const EVENTS_MAX: usize = 1_024;

/// Hands actions on.
pub struct Performer {
    running: Arc<Running>,
    heartbeats: Heartbeats,
    disks: Disks,
    steps: Steps,
    records: watch::Sender<Option<(StoreToken, Record)>>,
    events: mpsc::Sender<Event>,
    next_event: u64,
    stored: StoreToken,
    held: VecDeque<(StoreToken, Action)>,
}

/// To whom an action goes, where order matters.
#[derive(PartialEq, Eq)]
enum Addressee {
    Party(Party),
    Set(SetId),
}

fn addressee(action: &Action) -> Option<Addressee> {
    match action {
        Action::Send { to, .. } => Some(Addressee::Party(*to)),
        Action::OrderDisk { set, .. } => Some(Addressee::Set(*set)),
        Action::Store { .. }
        | Action::SendHeartbeat { .. }
        | Action::Perform { .. }
        | Action::Record { .. }
        | Action::Keep { .. }
        | Action::Answer { .. } => None,
    }
}

fn condition(action: &Action) -> Option<StoreToken> {
    match action {
        Action::Send { after, .. } | Action::OrderDisk { after, .. } | Action::Perform { after, .. } => {
            *after
        }
        Action::Store { .. }
        | Action::SendHeartbeat { .. }
        | Action::Record { .. }
        | Action::Keep { .. }
        | Action::Answer { .. } => None,
    }
}

impl Performer {
    /// Begins the tasks that write to the store. `last_event`: the number of this server's newest stored event.
    #[must_use]
    pub fn new(
        running: Arc<Running>,
        store: &Store,
        last_event: u64,
        heartbeats: Heartbeats,
        disks: Disks,
        steps: Steps,
    ) -> Performer {
        let (records, to_store) = watch::channel(None);
        let (events, event_queue) = mpsc::channel(EVENTS_MAX);
        tokio::spawn(store_records(store.clone(), to_store, running.turns.clone()));
        tokio::spawn(store_events(store.clone(), event_queue, running.turns.clone()));
        let (next_event, stored) = (last_event + 1, StoreToken(0));
        let held = VecDeque::new();
        Performer { running, heartbeats, disks, steps, records, events, next_event, stored, held }
    }

    /// The configuration changed.
    pub fn configure(&mut self, config: ClusterConfig) {
        self.disks.configure(&config);
        self.steps.configure(config);
    }

    /// A record is durable: what waited for it goes.
    pub fn stored(&mut self, token: StoreToken) {
        self.stored = self.stored.max(token);
        for (after, action) in std::mem::take(&mut self.held) {
            self.release(after, action);
        }
    }

    /// Does an action, at once or as soon as its record is stored.
    pub fn perform(&mut self, action: Action) {
        self.release(condition(&action).unwrap_or(StoreToken(0)), action);
    }

    fn release(&mut self, after: StoreToken, action: Action) {
        let to = addressee(&action);
        let behind = to.is_some() && self.held.iter().any(|(_, earlier)| addressee(earlier) == to);
        if after <= self.stored && !behind {
            return self.act(action);
        }
        if self.held.len() >= HELD_MAX {
            tracing::error!(limit = HELD_MAX, "the store does not answer: an action is dropped");
            return;
        }
        self.held.push_back((after, action));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Store { token, record } => {
                self.records.send_replace(Some((token, record)));
            }
            Action::SendHeartbeat { link, beat } => self.heartbeats.send(link, &beat),
            Action::Send { to, message, .. } => {
                let channel = match to {
                    Party::Twin => &self.running.twin,
                    Party::Witness => &self.running.witness,
                };
                if !channel.send(Packet::Message(message)) {
                    tracing::debug!(?to, "not sent: the channel is closed");
                }
            }
            Action::OrderDisk { set, order, .. } => self.disks.order(set, order),
            Action::Perform { id, step, timeout_us, .. } => self.steps.begin(id, step, timeout_us),
            Action::Record { event } => {
                let (origin, number) = (self.running.me, self.next_event);
                self.next_event += 1;
                tracing::info!(number, code = event.code(), "event: {event:?}");
                self.keep(Event { origin, number, at: wall_clock(), kind: event });
            }
            Action::Keep { event } => self.keep(event),
            Action::Answer { .. } => {} // the brain's own
        }
    }

    fn keep(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            tracing::warn!(limit = EVENTS_MAX, "the store is too slow: an event is lost");
        }
    }
}

/// Always the latest record; one that was superseded before its turn is never written.
async fn store_records(
    store: Store,
    mut records: watch::Receiver<Option<(StoreToken, Record)>>,
    turns: mpsc::Sender<Turn>,
) {
    while records.changed().await.is_ok() {
        let Some((token, record)) = records.borrow_and_update().clone() else { continue };
        let input = match store.put_record(&record).await {
            Ok(()) => Input::Stored { token },
            Err(fault) => {
                tracing::error!("the engine's record is not stored: {fault:#}");
                Input::StoreFailed { token }
            }
        };
        if turns.send(Turn::Input(input)).await.is_err() {
            return;
        }
    }
}

async fn store_events(store: Store, mut events: mpsc::Receiver<Event>, turns: mpsc::Sender<Turn>) {
    while let Some(event) = events.recv().await {
        match store.put_event(&event).await {
            Ok(true) => {
                if turns.send(Turn::Input(Input::EventRecorded { event })).await.is_err() {
                    return;
                }
            }
            Ok(false) => {}
            Err(fault) => tracing::warn!("an event is not stored: {fault:#}"),
        }
    }
}
