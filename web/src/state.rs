//! What the page knows: the view as the feed told it, how old it is, and the orders on their way. Pure: no browser in it.

use wire::alert::EventKind;
use wire::command::{Command, Operation, RefusalKind, Reply};
use wire::feed::{Feed, STALE_AFTER_S};
use wire::ids::{CommandId, GroupId, NodeId, SetId};
use wire::view::{ClusterView, GroupState, ServerState};

/// First wait before the page tries to connect again; it doubles up to [`RETRY_MAX_MS`].
pub const RETRY_FIRST_MS: u64 = 250;
/// Longest wait between two tries: what the stale page calls "trying again every 2 s".
pub const RETRY_MAX_MS: u64 = 2_000;
/// An accepted order whose work never shows in the view is given up after this time.
const EFFECT_LIMIT_MS: u64 = 15_000;
/// Orders kept at once; the oldest answered one makes room.
const ORDERS_MAX: usize = 16;

/// What the page must do after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A gap: ask for a snapshot.
    Again,
    /// The server speaks another version: load the page anew.
    Reload,
}

/// Where an order stands. The button shows this and nothing it hopes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sent, not answered.
    Asked,
    /// Accepted at this time of the page's clock; the view does not show its effect yet.
    Accepted {
        /// Milliseconds of the page's clock.
        at: u64,
        /// The view has shown the work under way.
        begun: bool,
    },
    /// Refused for this reason, until dismissed.
    Refused(RefusalKind),
    /// The connection broke before the answer.
    Lost,
    /// Accepted, but the view never showed anything of it.
    NoEffect,
}

/// One order of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its id, echoed in the reply.
    pub id: CommandId,
    /// What was ordered.
    pub what: Operation,
    /// Where it stands.
    pub phase: Phase,
}

impl Order {
    /// Not clickable, until the view shows the effect.
    #[must_use]
    pub fn pending(&self) -> bool {
        matches!(self.phase, Phase::Asked | Phase::Accepted { .. })
    }
}

/// The whole state of the page that comes from its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageState {
    /// The last view.
    pub view: Option<ClusterView>,
    /// The server said that there is no cluster yet.
    pub no_cluster: bool,
    /// The page's clock at the last message, in milliseconds.
    pub last_data: Option<u64>,
    /// Orders under way or refused.
    pub orders: Vec<Order>,
    /// A snapshot was asked for; deltas until then do not fit.
    waiting: bool,
}

impl PageState {
    /// Applies one message that came at `now` (milliseconds of the page's clock).
    pub fn feed(&mut self, message: Feed, now: u64) -> Option<Need> {
        self.last_data = Some(now);
        match message {
            Feed::Snapshot(view) => {
                self.waiting = false;
                self.no_cluster = false;
                self.view = Some(*view);
                self.settle(now);
                None
            }
            Feed::Delta(_) if self.waiting => None,
            Feed::Delta(delta) => match self.view.as_mut().map(|view| delta.apply(view)) {
                Some(Ok(())) => {
                    self.settle(now);
                    None
                }
                Some(Err(_)) | None => Some(self.gap()),
            },
            Feed::Pulse { at, revision } => match self.view.as_mut() {
                Some(view) if view.revision == revision => {
                    view.at = at;
                    self.settle(now);
                    None
                }
                _ if self.waiting || self.no_cluster => None,
                _ => Some(self.gap()),
            },
            Feed::Reply(reply) => {
                self.reply(&reply, now);
                None
            }
            Feed::NoCluster => {
                self.no_cluster = true;
                self.view = None;
                None
            }
            Feed::Reload => Some(Need::Reload),
        }
    }

    fn gap(&mut self) -> Need {
        self.waiting = true;
        Need::Again
    }

    /// A new connection begins with a snapshot.
    pub fn opened(&mut self) {
        self.waiting = false;
    }

    /// The connection ended: answers that were under way will not come.
    pub fn closed(&mut self) {
        for order in &mut self.orders {
            if order.phase == Phase::Asked {
                order.phase = Phase::Lost;
            }
        }
    }

    /// Whether what the page shows is old.
    #[must_use]
    pub fn stale(&self, now: u64) -> bool {
        self.last_data.is_none_or(|last| now.saturating_sub(last) > STALE_AFTER_S * 1000)
    }

    /// Notes an order and makes its command for the revision that the operator saw. `None` without a view.
    pub fn order(&mut self, id: CommandId, what: Operation) -> Option<Command> {
        let revision = self.view.as_ref()?.revision;
        self.orders.retain(|o| o.what != what);
        if self.orders.len() >= ORDERS_MAX {
            self.orders.remove(0);
        }
        self.orders.push(Order { id, what, phase: Phase::Asked });
        Some(Command { id, revision, what })
    }

    /// The operator has read why an order was refused.
    pub fn dismiss(&mut self, id: CommandId) {
        self.orders.retain(|o| o.id != id || o.pending());
    }

    /// The order for an operation, if one is kept.
    #[must_use]
    pub fn order_for(&self, what: Operation) -> Option<Order> {
        self.orders.iter().find(|o| o.what == what).copied()
    }

    fn reply(&mut self, reply: &Reply, now: u64) {
        if let Some(order) = self.orders.iter_mut().find(|o| o.id == reply.id) {
            order.phase = match &reply.result {
                Ok(()) => Phase::Accepted { at: now, begun: false },
                Err(refusal) => Phase::Refused(refusal.kind),
            };
        }
        self.settle(now);
    }

    /// Ends the orders whose effect the view shows.
    fn settle(&mut self, now: u64) {
        let Some(view) = &self.view else { return };
        for order in &mut self.orders {
            if let Phase::Accepted { at, begun } = order.phase {
                let begun = begun || under_way(view, order);
                let given_up = !begun && now.saturating_sub(at) > EFFECT_LIMIT_MS;
                order.phase = if given_up { Phase::NoEffect } else { Phase::Accepted { at, begun } };
            }
        }
        self.orders.retain(|order| match order.phase {
            Phase::Accepted { begun, .. } => !ended(view, order, begun),
            Phase::Asked | Phase::Refused(_) | Phase::Lost | Phase::NoEffect => true,
        });
    }
}

fn group_of(what: Operation) -> Option<GroupId> {
    match what {
        Operation::StartGroup { group, .. }
        | Operation::StopGroup { group }
        | Operation::MoveGroup { group, .. } => Some(group),
        Operation::KeepGroup { .. }
        | Operation::FreeGroup { .. }
        | Operation::Maintain { .. }
        | Operation::StopCluster
        | Operation::StartCluster
        | Operation::StopServer { .. }
        | Operation::StartServer { .. }
        | Operation::RecoverServer { .. }
        | Operation::BuildSet { .. }
        | Operation::ForceRecovery { .. }
        | Operation::PermitSet { .. }
        | Operation::RestrictSet { .. }
        | Operation::ForcePermit { .. }
        | Operation::ExchangeDisk { .. }
        | Operation::OldVersion { .. }
        | Operation::ReleaseSet { .. }
        | Operation::VerifySet { .. }
        | Operation::PaceRebuild { .. } => None,
    }
}

/// The view shows the order's work going on.
fn under_way(view: &ClusterView, order: &Order) -> bool {
    let Some(id) = group_of(order.what) else { return true };
    view.groups.iter().filter(|g| g.id == id).any(|g| {
        let moving =
            matches!(g.state, GroupState::Starting | GroupState::Stopping | GroupState::Moving { .. });
        moving || g.command == Some(order.id)
    })
}

/// The view shows the order's effect, or that it came to another end.
fn ended(view: &ClusterView, order: &Order, begun: bool) -> bool {
    let server_is = |id: NodeId, states: &[ServerState]| {
        view.servers.iter().any(|s| s.id == id && states.contains(&s.state))
    };
    let group = group_of(order.what).and_then(|id| view.groups.iter().find(|g| g.id == id));
    // A group that rests after its work began came to an end, wherever it rests.
    let rests = group.is_some_and(|g| {
        matches!(
            g.state,
            GroupState::Running | GroupState::Stopped | GroupState::Failed { .. } | GroupState::Held { .. }
        ) && g.command != Some(order.id)
    });
    let there = |on: NodeId| group.is_some_and(|g| g.state == GroupState::Running && g.active == Some(on));
    let permitted = |id: SetId| view.sets.iter().find(|s| s.id == id).and_then(|s| s.permitted);
    let still_used = view.events.first().is_some_and(|e| matches!(e.kind, EventKind::MirrorStillUsed { .. }));
    match order.what {
        Operation::StartGroup { on, .. } => there(on) || (begun && rests),
        Operation::MoveGroup { to, .. } => there(to) || (begun && rests),
        Operation::StopGroup { .. } => {
            group.is_some_and(|g| g.state == GroupState::Stopped) || (begun && rests)
        }
        Operation::PermitSet { set, on } | Operation::ForcePermit { set, on } => permitted(set) == Some(on),
        Operation::RestrictSet { set, .. } => permitted(set).is_none() || still_used,
        // Begun is all that the set's own line does not show better: its state, and the events.
        Operation::VerifySet { .. }
        | Operation::PaceRebuild { .. }
        | Operation::BuildSet { .. }
        | Operation::ForceRecovery { .. }
        | Operation::ExchangeDisk { .. }
        | Operation::OldVersion { .. } => true,
        Operation::ReleaseSet { set } => {
            let failed =
                view.events.first().is_some_and(|e| matches!(e.kind, EventKind::SetNotReleased { .. }));
            failed || !view.sets.iter().any(|s| s.id == set)
        }
        Operation::KeepGroup { group } | Operation::FreeGroup { group } => {
            let kept = matches!(order.what, Operation::KeepGroup { .. });
            !view.groups.iter().any(|g| g.id == group && g.kept != kept)
        }
        Operation::Maintain { on } => view.maintenance == on,
        Operation::StopCluster => !view.servers.iter().any(|s| s.state == ServerState::Normal),
        Operation::StartCluster => !view.servers.iter().any(|s| s.state == ServerState::Stopped),
        Operation::StopServer { server } => server_is(server, &[ServerState::Stopped, ServerState::Down]),
        Operation::StartServer { server } => server_is(server, &[ServerState::Normal, ServerState::Down]),
        Operation::RecoverServer { server } => {
            let recovering = view.servers.iter().any(|s| s.id == server && s.recovering);
            recovering || server_is(server, &[ServerState::Normal, ServerState::Down])
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
