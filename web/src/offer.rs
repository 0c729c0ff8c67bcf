//! Which operations a server or a group offers: fixed places, so that nothing jumps; the reasons come from the view (G12).

use wire::command::{OldChoice, Operation, RebuildTurn, RefusalKind, VerifyTurn};
use wire::ids::NodeId;
use wire::view::{ClusterView, GroupState, GroupView, ServerState, ServerView, SetState, SetView};

/// One button.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What it orders.
    pub what: Operation,
    /// Why it is greyed, if it is.
    pub refused: Option<RefusalKind>,
}

/// What the view says about these operations; one it does not list is not offered.
fn listed(view: &ClusterView, wanted: &[Operation]) -> Vec<Offer> {
    let find = |what: &Operation| view.operations.iter().find(|p| p.what == *what);
    wanted.iter().filter_map(find).map(|p| Offer { what: p.what, refused: p.refused }).collect()
}

/// The one act that fits a server's state.
#[must_use]
pub fn for_server(view: &ClusterView, server: &ServerView) -> Vec<Offer> {
    let server_id = server.id;
    let what = match server.state {
        ServerState::Normal => Operation::StopServer { server: server_id },
        ServerState::Stopped => Operation::StartServer { server: server_id },
        ServerState::Down | ServerState::RestartedAfterDown => Operation::RecoverServer { server: server_id },
    };
    listed(view, &[what])
}

/// A group's acts: move and stop where it is, start where it could be.
#[must_use]
pub fn for_group(view: &ClusterView, group: &GroupView) -> Vec<Offer> {
    let id = group.id;
    match (&group.state, group.active) {
        (GroupState::Moving { to }, _) => {
            listed(view, &[Operation::MoveGroup { group: id, to: *to }, Operation::StopGroup { group: id }])
        }
        (
            GroupState::Running | GroupState::Starting | GroupState::Stopping | GroupState::Held { .. },
            Some(at),
        ) => listed(
            view,
            &[Operation::MoveGroup { group: id, to: at.twin() }, Operation::StopGroup { group: id }],
        ),
        (GroupState::Held { .. }, None) => listed(view, &[Operation::StopGroup { group: id }]),
        (
            GroupState::Stopped
            | GroupState::Failed { .. }
            | GroupState::Unknown
            | GroupState::Running
            | GroupState::Starting
            | GroupState::Stopping,
            _,
        ) => {
            let starts: Vec<Operation> =
                in_order(&group.policy).map(|on| Operation::StartGroup { group: id, on }).collect();
            listed(view, &starts)
        }
    }
}

/// The mirror administrator's acts on a set that are possible or nearly so: a permission that can be taken back stands in the
/// place of the one that can be given.
#[must_use]
pub fn for_set(view: &ClusterView, set: &SetView) -> Vec<Offer> {
    let id = set.id;
    let access = NodeId::BOTH.map(|on| match set.permitted {
        Some(at) if at == on => Operation::RestrictSet { set: id, on },
        Some(_) | None => Operation::PermitSet { set: id, on },
    });
    let rest = [
        NodeId::BOTH.map(|to| Operation::BuildSet { set: id, to }),
        NodeId::BOTH.map(|good| Operation::ForceRecovery { set: id, good }),
        NodeId::BOTH.map(|on| Operation::ForcePermit { set: id, on }),
        NodeId::BOTH.map(|server| Operation::ExchangeDisk { set: id, server }),
    ];
    let all = access.into_iter().chain(rest.into_iter().flatten()).chain([Operation::ReleaseSet { set: id }]);
    let mut all: Vec<Operation> = all.collect();
    // Offered where there is something to choose about: what is not possible here is not worth a greyed button.
    for choice in [OldChoice::PutBack, OldChoice::Drop, OldChoice::Waive] {
        let what = NodeId::BOTH.map(|on| Operation::OldVersion { set: id, on, choice });
        let possible =
            |what: &Operation| view.operations.iter().any(|p| p.what == *what && p.refused.is_none());
        all.extend(what.into_iter().filter(possible));
    }
    listed(view, &all)
}

/// Work on the copies while they serve: what begins it, or what fits its going on or standing still.
#[must_use]
pub fn for_work(view: &ClusterView, set: &SetView) -> Vec<Offer> {
    let id = set.id;
    let verify = |turn| Operation::VerifySet { set: id, turn };
    let mut all = Vec::new();
    if let SetState::Rebuilding { progress } = set.state {
        let turn = if progress.paused { RebuildTurn::Resume } else { RebuildTurn::Pause };
        all.push(Operation::PaceRebuild { set: id, turn });
    }
    match set.verify {
        None => all.push(verify(VerifyTurn::Start { limit: None })),
        Some(work) => {
            all.push(verify(if work.paused { VerifyTurn::Resume } else { VerifyTurn::Pause }));
            all.push(verify(VerifyTurn::End));
        }
    }
    listed(view, &all)
}

/// The operation that limits what is under way, as the view lists it, and the limit that holds.
#[must_use]
pub fn limit_of(view: &ClusterView, set: &SetView) -> Option<(Offer, Option<u64>)> {
    let (what, limit) = match (&set.state, &set.verify) {
        (SetState::Rebuilding { progress }, _) => {
            (Operation::PaceRebuild { set: set.id, turn: RebuildTurn::Limit { limit: None } }, progress.limit)
        }
        (_, Some(work)) => {
            (Operation::VerifySet { set: set.id, turn: VerifyTurn::Limit { limit: None } }, work.limit)
        }
        (_, None) => return None,
    };
    listed(view, &[what]).pop().map(|offer| (offer, limit))
}

/// Left to right, as the servers are drawn.
fn in_order(policy: &[NodeId]) -> impl Iterator<Item = NodeId> {
    NodeId::BOTH.into_iter().filter(|id| policy.contains(id))
}

/// Where a group would move: for the key M.
#[must_use]
pub fn move_of(view: &ClusterView, group: &GroupView) -> Option<Offer> {
    for_group(view, group).into_iter().find(|o| matches!(o.what, Operation::MoveGroup { .. }))
}
