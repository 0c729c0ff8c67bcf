//! What two copies of a mirror set are to each other, told from their histories alone (DESIGN 5).

use peer::block::Hello;
use wire::alert::RebuildKind;
use wire::{Generation, Session};

/// Where a copy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Current generation first.
    pub history: Vec<Generation>,
    /// The generation its map counts from.
    pub base: Option<Generation>,
    /// Not an unfinished rebuild target.
    pub consistent: bool,
    /// Has acknowledged without its twin under its current generation.
    pub alone: bool,
    /// Put back to an older version: it lacks what was copied to it since.
    pub undone: bool,
    /// Highest session it has stored.
    pub session: Session,
    /// Highest session it knows its twin to have stored.
    pub twin_session: Session,
}

/// What the active side may do with its twin's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Same generation: equal but for what both maps and logs name; it need not be marked inconsistent.
    Equal,
    /// Behind: the maps and logs of both name what differs.
    Behind,
    /// Behind by an unknown amount: everything is compared.
    Unknown(RebuildKind),
    /// The twin has gone on where this side has not: this copy is out of date, nothing is overwritten.
    Ahead,
    /// Both went on: nothing is overwritten until a person chooses (E7).
    Split,
}

impl Standing {
    /// The twin's standing from its greeting and the session in that frame's header.
    #[must_use]
    pub fn of(hello: &Hello, session: Session) -> Standing {
        Standing {
            history: hello.history.clone(),
            base: hello.base,
            consistent: hello.consistent,
            alone: hello.alone,
            undone: hello.undone,
            session,
            twin_session: hello.twin_session,
        }
    }

    /// In sync, and may have what no other copy knows to lack: see [`peer::control::DiskOrder::Shoulder`].
    pub(crate) fn is_alone_to_count(&self) -> bool {
        self.consistent && !self.alone && self.base.is_none()
    }

    fn current(&self) -> Option<Generation> {
        self.history.first().copied()
    }
}

/// Judges the twin's copy from the active side.
#[must_use]
pub fn compare(mine: &Standing, twin: &Standing) -> Verdict {
    if twin.twin_session > mine.session {
        // This side's disk was set back to an older state: it must not overwrite anything.
        return Verdict::Ahead;
    }
    if twin.session < mine.twin_session {
        return Verdict::Unknown(RebuildKind::FullExchanged);
    }
    let Some(theirs) = twin.current() else {
        return Verdict::Unknown(RebuildKind::FullFirst);
    };
    let Some(ours) = mine.current() else {
        return Verdict::Ahead;
    };
    if mine.base == Some(theirs) && twin.undone && !twin.alone {
        // The bits for what it had been sent are clear.
        return Verdict::Unknown(RebuildKind::FullUnknown);
    }
    if ours == theirs && (mine.is_alone_to_count() || twin.is_alone_to_count()) {
        return Verdict::Unknown(RebuildKind::FullUnknown);
    }
    if mine.base == Some(theirs) {
        return on_common_ground(mine, twin, ours == theirs);
    }
    if !twin.consistent {
        return Verdict::Unknown(RebuildKind::FullUnknown);
    }
    if twin.base == Some(ours) || (twin.history.contains(&ours) && ours != theirs) {
        return if mine.alone { Verdict::Split } else { Verdict::Ahead };
    }
    if mine.history.contains(&theirs) && !twin.alone {
        return Verdict::Unknown(RebuildKind::FullUnknown);
    }
    Verdict::Split
}

/// The twin stands at the generation this side's map counts from.
fn on_common_ground(mine: &Standing, twin: &Standing, same: bool) -> Verdict {
    if !twin.consistent {
        return Verdict::Behind;
    }
    match (twin.alone, same && !mine.alone) {
        (true, true) => Verdict::Ahead,
        (true, false) => Verdict::Split,
        (false, true) => Verdict::Equal,
        (false, false) => Verdict::Behind,
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
