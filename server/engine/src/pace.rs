//! Work on the copies that an operator begins, pauses, limits and ends while they serve: verifications and rebuilds (C7, C10).

use crate::core::Core;
use crate::group::Group;
use crate::sets::What;
use crate::timing::step;
use peer::control::{DiskOrder, DiskStatus, Role};
use std::num::NonZeroU64;
use wire::{Operation, RebuildTurn, RefusalKind, SetId, VerifyTurn};

/// Every such operation on a set; limits stand for all of their kind.
pub fn operations(set: SetId) -> Vec<Operation> {
    let verify = [
        VerifyTurn::Start { limit: None },
        VerifyTurn::Pause,
        VerifyTurn::Resume,
        VerifyTurn::Limit { limit: None },
        VerifyTurn::End,
    ];
    let rebuild = [RebuildTurn::Pause, RebuildTurn::Resume, RebuildTurn::Limit { limit: None }];
    let verify = verify.into_iter().map(|turn| Operation::VerifySet { set, turn });
    verify.chain(rebuild.into_iter().map(|turn| Operation::PaceRebuild { set, turn })).collect()
}

/// The status of the side that serves, which is asked and ordered where it is.
fn serving(core: &Core, set: SetId) -> Option<&DiskStatus> {
    let status = core.sets.get(&set).filter(|set| set.present)?.status.as_ref()?;
    (status.role == Role::Active).then_some(status)
}

/// Asked of the copy that serves, after the table.
pub fn validate(core: &Core, group: &Group, set: SetId, what: Operation) -> Result<(), RefusalKind> {
    let Some(status) = serving(core, set) else {
        let elsewhere = group.active_on(core) == Some(core.twin_id);
        return Err(if elsewhere { RefusalKind::ActiveElsewhere } else { RefusalKind::SetNotActive });
    };
    if let Operation::VerifySet { turn, .. } = what {
        verify(status, turn)
    } else if let Operation::PaceRebuild { turn, .. } = what {
        rebuild(status, turn)
    } else {
        Err(RefusalKind::UnknownSet)
    }
}

fn verify(status: &DiskStatus, turn: VerifyTurn) -> Result<(), RefusalKind> {
    match (turn, status.verify.map(|verify| verify.paused)) {
        (VerifyTurn::Start { .. }, Some(_)) => Err(RefusalKind::GoesOn),
        (VerifyTurn::Start { .. }, None) if status.linked && status.needs_twin && status.equal => Ok(()),
        (VerifyTurn::Start { .. }, None) => Err(RefusalKind::NotInSync),
        (_, None) => Err(RefusalKind::NoWork),
        (VerifyTurn::Pause, Some(true)) => Err(RefusalKind::StandsStill),
        (VerifyTurn::Resume, Some(false)) => Err(RefusalKind::GoesOn),
        (VerifyTurn::Pause | VerifyTurn::Resume | VerifyTurn::Limit { .. } | VerifyTurn::End, Some(_)) => {
            Ok(())
        }
    }
}

fn rebuild(status: &DiskStatus, turn: RebuildTurn) -> Result<(), RefusalKind> {
    match (turn, status.rebuild.map(|rebuild| rebuild.paused)) {
        (_, None) => Err(RefusalKind::NoWork),
        (RebuildTurn::Pause, Some(true)) => Err(RefusalKind::StandsStill),
        (RebuildTurn::Resume, Some(false)) => Err(RefusalKind::GoesOn),
        (RebuildTurn::Pause | RebuildTurn::Resume | RebuildTurn::Limit { .. }, Some(_)) => Ok(()),
    }
}

/// Orders it of the disk process here; what the operation does not name stays as it is.
pub fn carry_out(core: &mut Core, set: SetId, what: Operation) {
    let Some(status) = serving(core, set) else { return };
    let bytes = |limit: Option<NonZeroU64>| limit.map(NonZeroU64::get);
    let order = if let Operation::VerifySet { turn, .. } = what {
        let (paused, limit) = status.verify.map_or((false, None), |it| (it.paused, it.limit));
        let (run, paused, limit) = match turn {
            VerifyTurn::Start { limit } => (true, false, bytes(limit)),
            VerifyTurn::Pause => (true, true, limit),
            VerifyTurn::Resume => (true, false, limit),
            VerifyTurn::Limit { limit } => (true, paused, bytes(limit)),
            VerifyTurn::End => (false, false, None),
        };
        DiskOrder::Verify { run, paused, limit }
    } else if let Operation::PaceRebuild { turn, .. } = what {
        let (paused, limit) = status.rebuild.map_or((false, None), |it| (it.paused, it.limit));
        let (paused, limit) = match turn {
            RebuildTurn::Pause => (true, limit),
            RebuildTurn::Resume => (false, limit),
            RebuildTurn::Limit { limit } => (paused, bytes(limit)),
        };
        DiskOrder::Rebuild { paused, limit }
    } else {
        return;
    };
    core.order(set, order, What::Standing, step::ORDER);
}
