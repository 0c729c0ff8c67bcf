//! The write mode of a mirror set (C4): how far behind an asynchronous copy is, and what that refuses.

use crate::core::Core;
use crate::sets::{Set, rounded};
use peer::control::Role;
use wire::ids::{MILLIS, SECOND};
use wire::view::BehindView;
use wire::{GroupId, RefusalKind, SetId, Time};

/// Until a stricter mode is in force, writers wait behind what is on its way: no longer than a person notices.
const CHANGE_MS: u64 = 1_000;
/// A group that moves waits for all of it, while nobody is served: well within the step's time-out.
const MOVE_MS: u64 = 20_000;

impl Set {
    /// As active: what the twin lacks, told so that a page is not redrawn for noise.
    #[must_use]
    pub fn behind(&self, now: Time) -> Option<BehindView> {
        let status = self.status.as_ref().filter(|s| self.present && s.role == Role::Active)?;
        let behind = status.behind?;
        let age = now.since(behind.since);
        let unit = if age < SECOND { 100 * MILLIS } else { SECOND };
        Some(BehindView {
            bytes: rounded(behind.bytes),
            writes: rounded(behind.writes),
            ms: age / unit * unit / MILLIS,
        })
    }

    /// The same wherever it is active, as far as is known here.
    fn lag_ms(&self, now: Time) -> u64 {
        self.behind(now).or(self.lacked).map_or(0, |behind| behind.ms)
    }
}

/// Whether the mode of a set can be changed now: both servers take part, and a change from asynchronous is not to make anybody
/// wait for long.
///
/// # Errors
/// Why not.
pub fn refused(core: &Core, set: SetId) -> Result<(), RefusalKind> {
    let found = core.sets.get(&set).filter(|_| core.config.set(set).is_some());
    let Some(found) = found else { return Err(RefusalKind::UnknownSet) };
    if !core.twin_present() {
        return Err(RefusalKind::TwinAway);
    }
    if found.lag_ms(core.now) > CHANGE_MS { Err(RefusalKind::TwinBehind) } else { Ok(()) }
}

/// Whether a group can be moved in time, as far as its asynchronous copies go.
pub fn may_move(core: &Core, group: GroupId) -> Result<(), RefusalKind> {
    let lags = |id: &SetId| core.sets.get(id).is_some_and(|set| set.lag_ms(core.now) > MOVE_MS);
    if core.sets_of(group).iter().any(lags) { Err(RefusalKind::TwinBehind) } else { Ok(()) }
}
