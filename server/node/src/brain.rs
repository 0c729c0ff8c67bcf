//! The task that owns the engine: wait, handle one input, perform what it wants done, publish what it sees.

use crate::app::wall_clock;
use crate::perform::Performer;
use engine::Engine;
use engine::Input;
use os::clock::{BootClock, Clock as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use wire::{
    ClusterView, Command, CommandId, GroupId, NodeId, Operation, Refusal, RefusalKind, Reply, SetId, Time,
};

/// Inputs waiting for the engine: some seconds of heartbeats of sixteen links, and everything else besides.
pub const TURNS_MAX: usize = 4_096;
/// Between two views: a person sees no difference, and a busy rebuild is not a flood of deltas.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// Commands that wait for the engine's answer; it gives them within the same turn as a rule.
const COMMANDS_MAX: usize = 64;
/// A deadline missed by more than this: the process was stopped. What came meanwhile is heard before it is judged.
const OVERSLEPT_US: u64 = 200_000;
/// Time for the sockets to hand over what came while the process was stopped.
const CATCH_UP: Duration = Duration::from_millis(20);

/// What reaches the brain.
pub enum Turn {
    /// Something happened.
    Input(Input),
    /// What this process itself must know.
    Question(Question, oneshot::Sender<Result<(), RefusalKind>>),
    /// An operator's command with the place its one reply goes to.
    Command(Command, oneshot::Sender<Reply>),
}

/// What is asked of the engine; nothing changes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether an operation is possible.
    Operation(Operation),
    /// Whether the write mode of a set can be changed.
    Mode(SetId),
    /// Whether a fresh set may go into this group, or into a new one, with this server's data.
    Register {
        /// None: a new one.
        group: Option<GroupId>,
        /// Whose data is copied.
        source: NodeId,
    },
}

/// The engine and what surrounds it.
pub struct Brain {
    /// Decides.
    pub engine: Engine,
    /// Does.
    pub performer: Performer,
    /// What happened.
    pub turns: mpsc::Receiver<Turn>,
    /// What is seen.
    pub views: watch::Sender<Option<Arc<ClusterView>>>,
    /// Commands that wait for their reply.
    pub waiting: BTreeMap<CommandId, oneshot::Sender<Reply>>,
}

impl Brain {
    /// Runs until nobody can send to it any more.
    pub async fn run(mut self) {
        let mut publish_at = Instant::now();
        self.perform();
        loop {
            let now = BootClock.now();
            let deadline = self.engine.next_deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                if deadline.is_some_and(|deadline| now.since(deadline) > OVERSLEPT_US) {
                    tracing::warn!(
                        late_us = deadline.map(|d| now.since(d)),
                        "woke late: listening before judging"
                    );
                    self.catch_up().await;
                }
                self.handle(Input::DeadlineReached);
                // Inputs are not starved by deadlines that follow one another.
                while let Ok(turn) = self.turns.try_recv() {
                    self.take(turn);
                }
            }
            tokio::select! {
                turn = self.turns.recv() => match turn {
                    Some(turn) => self.take(turn),
                    None => return,
                },
                () = until(self.engine.next_deadline()) => {}
                () = sleep_until(publish_at) => {
                    self.publish();
                    publish_at = Instant::now() + PUBLISH_EVERY;
                }
            }
        }
    }

    async fn catch_up(&mut self) {
        sleep(CATCH_UP).await;
        while let Ok(turn) = self.turns.try_recv() {
            self.take(turn);
        }
    }

    fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Input(Input::Stored { token }) => {
                self.performer.stored(token);
                self.handle(Input::Stored { token });
            }
            Turn::Input(input) => self.handle(input),
            Turn::Question(question, answer) => {
                let possible = match question {
                    Question::Operation(what) => self.engine.possible(what),
                    Question::Mode(set) => self.engine.may_change_mode(set),
                    Question::Register { group, source } => self.engine.may_register(group, source),
                };
                let _ = answer.send(possible);
            }
            Turn::Command(command, answer) => {
                let id = command.id;
                if self.waiting.len() >= COMMANDS_MAX || self.waiting.contains_key(&id) {
                    let refusal = Refusal { kind: RefusalKind::TooMany };
                    let _ = answer.send(Reply { id, result: Err(refusal) });
                    return;
                }
                self.waiting.insert(id, answer);
                self.handle(Input::CommandGiven { command });
            }
        }
    }

    fn handle(&mut self, input: Input) {
        if let Input::ConfigChanged { config } = &input {
            self.performer.configure(config.clone());
        }
        self.engine.handle(input, BootClock.now());
        self.perform();
    }

    fn perform(&mut self) {
        for action in self.engine.take_actions() {
            if let engine::Action::Answer { reply } = action {
                match self.waiting.remove(&reply.id) {
                    Some(answer) => drop(answer.send(reply)),
                    None => tracing::debug!(id = %reply.id, "nobody waits for this reply"),
                }
                continue;
            }
            self.performer.perform(action);
        }
    }

    fn publish(&mut self) {
        let view = self.engine.view(BootClock.now(), wall_clock());
        self.views.send_if_modified(|shown| {
            let new = shown.as_ref().is_none_or(|shown| shown.revision != view.revision);
            if new {
                *shown = Some(Arc::new(view));
            }
            new
        });
    }
}

async fn until(deadline: Option<Time>) {
    match deadline {
        Some(deadline) => sleep(Duration::from_micros(deadline.since(BootClock.now()))).await,
        None => std::future::pending().await,
    }
}
