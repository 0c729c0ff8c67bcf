//! Which silhouette and colour a state has: the table of VISUAL 3 as functions.

use crate::shape::Shape;
use wire::alert::EventKind;
use wire::ids::NodeId;
use wire::verdict::{Kind, Tone, Verdict};
use wire::view::{
    GroupState, LinkState, ServerState, ServerView, SetState, SetView, Standby, StepProgress, WitnessView,
};

/// A state's silhouette and colour; the word comes from the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The silhouette.
    pub shape: Shape,
    /// The colour.
    pub tone: Tone,
}

const fn look(shape: Shape, tone: Tone) -> Look {
    Look { shape, tone }
}

/// Any state of a page whose data is old.
pub const STALE: Look = look(Shape::Unknown, Tone::Un);

/// The verdict's shape.
#[must_use]
pub fn verdict(verdict: &Verdict) -> Look {
    let shape = match (verdict.tone, &verdict.kind) {
        (_, Kind::Split { .. }) => Shape::Split,
        (_, Kind::GroupHeld { .. }) => Shape::Hexagon,
        (_, Kind::GroupUnknown { .. }) => Shape::Unknown,
        (_, Kind::Moving { to, .. }) => towards(*to),
        (_, Kind::Starting { .. } | Kind::FailingOver { .. }) => Shape::ArrowUp,
        (_, Kind::Stopping { .. }) => Shape::ArrowDown,
        (Tone::Ok, _) => Shape::Disc,
        (Tone::Warn, _) => Shape::Triangle,
        (Tone::Bad, _) => Shape::Octagon,
        (Tone::Un | Tone::Move, _) => Shape::Square,
    };
    look(shape, verdict.tone)
}

/// A server's state.
#[must_use]
pub fn server(server: &ServerView) -> Look {
    match server.state {
        ServerState::Normal if server.node_away => look(Shape::Triangle, Tone::Warn),
        ServerState::Normal => look(Shape::Disc, Tone::Ok),
        ServerState::Stopped => look(Shape::Square, Tone::Un),
        ServerState::Down => look(Shape::Octagon, Tone::Bad),
        ServerState::RestartedAfterDown => look(Shape::BrokenRing, Tone::Warn),
    }
}

/// A link's state.
#[must_use]
pub fn link(state: LinkState) -> Look {
    match state {
        LinkState::Up => look(Shape::Disc, Tone::Ok),
        LinkState::Slow => look(Shape::Triangle, Tone::Warn),
        LinkState::Lost | LinkState::NoCable => look(Shape::Octagon, Tone::Bad),
        LinkState::Unknown => look(Shape::Unknown, Tone::Un),
    }
}

/// The witness.
#[must_use]
pub fn witness(witness: &WitnessView) -> Look {
    match (witness.up, witness.votes) {
        (true, true) => look(Shape::Disc, Tone::Ok),
        (true, false) => look(Shape::Triangle, Tone::Warn),
        (false, _) => look(Shape::Octagon, Tone::Bad),
    }
}

/// A group's state where it is.
#[must_use]
pub fn group(state: &GroupState, served: bool) -> Look {
    match state {
        GroupState::Stopped => look(Shape::Square, Tone::Un),
        GroupState::Starting => look(Shape::ArrowUp, Tone::Move),
        GroupState::Running => look(Shape::Play, Tone::Ok),
        GroupState::Stopping => look(Shape::ArrowDown, Tone::Move),
        GroupState::Moving { to } => look(towards(*to), Tone::Move),
        GroupState::Failed { .. } => look(Shape::Octagon, Tone::Bad),
        GroupState::Held { .. } => look(Shape::Hexagon, if served { Tone::Warn } else { Tone::Bad }),
        GroupState::Unknown => look(Shape::Unknown, Tone::Un),
    }
}

/// A group's place on a server that does not have it.
#[must_use]
pub fn standby(standby: Standby, on: NodeId) -> Look {
    match standby {
        Standby::Ready => look(Shape::Square, Tone::Un),
        Standby::Rebuilding => look(towards(on), Tone::Move),
        Standby::OutOfDate { .. } | Standby::Away => look(half(on.twin()), Tone::Warn),
        Standby::Unknown => look(Shape::Unknown, Tone::Un),
    }
}

/// A mirror set's state.
#[must_use]
pub fn set(state: &SetState) -> Look {
    match state {
        SetState::InSync => look(Shape::Equal, Tone::Ok),
        SetState::Alone { good } => look(half(*good), Tone::Warn),
        SetState::Rebuilding { progress } => look(towards(progress.to), Tone::Move),
        SetState::Split => look(Shape::Split, Tone::Bad),
        SetState::Broken { .. } => look(Shape::Octagon, Tone::Bad),
        SetState::Idle => look(Shape::Square, Tone::Un),
        SetState::Unknown => look(Shape::Unknown, Tone::Un),
    }
}

/// A mirror set with what an operator ordered besides (`text::set_word`).
#[must_use]
pub fn set_with_work(row: &SetView) -> Look {
    match (&row.state, &row.verify) {
        (SetState::Rebuilding { progress }, _) if progress.paused => look(Shape::Paused, Tone::Warn),
        (SetState::InSync, Some(verify)) if !verify.paused => look(Shape::RingEqual, Tone::Move),
        (state, _) => set(state),
    }
}

/// A step of a plan.
#[must_use]
pub fn step(progress: StepProgress, stopping: bool) -> Look {
    match progress {
        StepProgress::Waiting => look(Shape::Ring, Tone::Un),
        StepProgress::Running { .. } if stopping => look(Shape::ArrowDown, Tone::Move),
        StepProgress::Running { .. } => look(Shape::ArrowUp, Tone::Move),
        StepProgress::Done { .. } => look(Shape::RingDot, Tone::Ok),
        StepProgress::Failed => look(Shape::Octagon, Tone::Bad),
    }
}

/// An event's shape: that of the state it tells of.
#[must_use]
pub fn event(kind: &EventKind) -> Look {
    match kind {
        EventKind::ServerUp { .. }
        | EventKind::ServerRecovered { .. }
        | EventKind::LinkUp { .. }
        | EventKind::WitnessUp => look(Shape::Disc, Tone::Ok),
        EventKind::ServerDown { .. }
        | EventKind::LinkLost { .. }
        | EventKind::GroupFailed { .. }
        | EventKind::GroupFenced { .. }
        | EventKind::GroupCutOff { .. }
        | EventKind::MirrorFailed { .. }
        | EventKind::MirrorDiffers { .. }
        | EventKind::WritesLost { .. }
        | EventKind::BackingChanged { .. }
        | EventKind::AddressInUse { .. }
        | EventKind::InvariantBroken { .. } => look(Shape::Octagon, Tone::Bad),
        EventKind::ServerRestarted { .. } => look(Shape::BrokenRing, Tone::Warn),
        EventKind::RecoverBegan { server: to } | EventKind::RebuildBegan { to, .. } => {
            look(towards(*to), Tone::Move)
        }
        EventKind::ServerStopped { .. } | EventKind::GroupStopped { .. } => look(Shape::Square, Tone::Un),
        EventKind::NodeReturned { .. } | EventKind::GroupMoved { .. } | EventKind::ConfigApplied { .. } => {
            look(Shape::RingDot, Tone::Un)
        }
        EventKind::GroupFreed { .. } | EventKind::MaintenanceEnded => look(Shape::RingDot, Tone::Un),
        EventKind::GroupRetry { .. } | EventKind::GroupKept { .. } | EventKind::MaintenanceBegan => {
            look(Shape::Triangle, Tone::Warn)
        }
        EventKind::MirrorRestricted { .. }
        | EventKind::DiskExchanged { .. }
        | EventKind::MirrorVerified { .. }
        | EventKind::SetRegistered { .. }
        | EventKind::SetReleased { .. }
        | EventKind::ModeChanged { .. } => look(Shape::RingDot, Tone::Un),
        EventKind::WitnessLost
        | EventKind::RebuildBroken { .. }
        | EventKind::MirrorMended { .. }
        | EventKind::MirrorRepaired { .. }
        | EventKind::OldVersionLost { .. }
        | EventKind::OldVersionBack { .. }
        | EventKind::OldVersionTooLarge { .. }
        | EventKind::MirrorPermitted { .. }
        | EventKind::MirrorStillUsed { .. }
        | EventKind::MirrorForced { .. }
        | EventKind::DiskNotExchanged { .. }
        | EventKind::SetNotReleased { .. }
        | EventKind::CommandRefused { .. } => look(Shape::Triangle, Tone::Warn),
        EventKind::GroupStarted { .. } | EventKind::GroupFailedOver { .. } => look(Shape::Play, Tone::Ok),
        EventKind::GroupHeld { .. } => look(Shape::Hexagon, Tone::Warn),
        EventKind::MirrorAlone { server, .. } => look(half(*server), Tone::Warn),
        EventKind::RebuildDone { .. } | EventKind::MirrorBuilt { .. } => look(Shape::Equal, Tone::Ok),
        EventKind::MirrorSplit { .. } => look(Shape::Split, Tone::Bad),
    }
}

fn towards(to: NodeId) -> Shape {
    if to.0 == 1 { Shape::ArrowLeft } else { Shape::ArrowRight }
}

fn half(good: NodeId) -> Shape {
    if good.0 == 1 { Shape::HalfLeft } else { Shape::HalfRight }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_where_the_data_goes_and_halves_are_full_on_the_good_side() {
        assert_eq!(standby(Standby::Rebuilding, NodeId(1)), look(Shape::ArrowLeft, Tone::Move));
        assert_eq!(group(&GroupState::Moving { to: NodeId(2) }, true).shape, Shape::ArrowRight);
        assert_eq!(set(&SetState::Alone { good: NodeId(2) }), look(Shape::HalfRight, Tone::Warn));
        assert_eq!(
            standby(Standby::OutOfDate { since: wire::ids::WallClock(0) }, NodeId(1)).shape,
            Shape::HalfRight
        );
    }
}
