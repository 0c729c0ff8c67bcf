//! What a mirror administrator may do with a set in which state: the table of [8.7], in one place for engine, API and page (C8).

use crate::command::RefusalKind;
use serde::{Deserialize, Serialize};

/// An act of the mirror administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Act {
    /// Copy the good side to the other one.
    Build,
    /// Declare a side good.
    ForcedRecovery,
    /// Use the set on a server outside its group.
    Permit,
    /// Take that back.
    Restrict,
    /// Permit on a side that is not known to be the newest.
    ForcedPermit,
    /// Take a new disk in the place of a failed one.
    ExchangeDisk,
    /// Put a copy back to what it was before a rebuild.
    PutBack,
    /// Drop that older version.
    DropOld,
    /// Let a rebuild begin that cannot keep what it overwrites.
    WaiveOld,
    /// Take the set out of its stopped group and of the cluster; the data stays on the disks.
    Release,
    /// Compare both copies while they serve, and pause, limit or end that.
    Verify,
    /// Pause, resume or limit the rebuilds of the copy that serves.
    Pace,
}

impl Act {
    /// All of them.
    pub const ALL: [Act; 12] = [
        Act::Build,
        Act::ForcedRecovery,
        Act::Permit,
        Act::Restrict,
        Act::ForcedPermit,
        Act::ExchangeDisk,
        Act::PutBack,
        Act::DropOld,
        Act::WaiveOld,
        Act::Release,
        Act::Verify,
        Act::Pace,
    ];
}

/// Where a set stands, for a server: the columns of the table, the seed's three first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// Its group serves, starts, stops or moves.
    Active,
    /// Its group is stopped while the server takes part in the cluster (or was stopped by an operator).
    Inactive,
    /// Nothing is active; the server is restarted-after-down, and so is the other one.
    RestartedBoth,
    /// The server is restarted-after-down, the other one works normally.
    RestartedOtherNormal,
    /// The server is restarted-after-down, the other one is down or stopped.
    RestartedOtherDown,
    /// In use outside its group, by permission.
    Permitted,
    /// The other server is not heard, and not judged either: it may use the set.
    Unheard,
}

impl Standing {
    /// All of them.
    pub const ALL: [Standing; 7] = [
        Standing::Active,
        Standing::Inactive,
        Standing::RestartedBoth,
        Standing::RestartedOtherNormal,
        Standing::RestartedOtherDown,
        Standing::Permitted,
        Standing::Unheard,
    ];
}

/// The table: whether an act is possible in a state, and if not, why. What concerns the copies (which is good, which counts)
/// is asked besides, by the engine.
///
/// # Errors
/// The reason of the refusal.
pub fn allowed(act: Act, standing: Standing) -> Result<(), RefusalKind> {
    match (act, standing) {
        // It changes nothing that anybody uses.
        (Act::DropOld | Act::WaiveOld, _) => Ok(()),
        // Never under somebody who uses the set; a source that is away is what it is for.
        (Act::PutBack, Standing::Active) => Err(RefusalKind::SetActive),
        (Act::PutBack, Standing::Permitted) => Err(RefusalKind::SetPermitted),
        (
            Act::PutBack,
            Standing::Inactive
            | Standing::RestartedBoth
            | Standing::RestartedOtherNormal
            | Standing::RestartedOtherDown
            | Standing::Unheard,
        ) => Ok(()),
        // Of a copy that serves, whoever uses it.
        (Act::Verify | Act::Pace, Standing::Active | Standing::Permitted) => Ok(()),
        (
            Act::Verify | Act::Pace,
            Standing::Inactive
            | Standing::RestartedBoth
            | Standing::RestartedOtherNormal
            | Standing::RestartedOtherDown
            | Standing::Unheard,
        ) => Err(RefusalKind::SetNotActive),
        (_, Standing::Unheard) => Err(RefusalKind::TwinAway),
        // A failed disk is exchanged in every state; it does not touch the copy in use.
        (
            Act::ExchangeDisk,
            Standing::Active
            | Standing::Inactive
            | Standing::RestartedBoth
            | Standing::RestartedOtherNormal
            | Standing::RestartedOtherDown
            | Standing::Permitted,
        ) => Ok(()),
        (Act::Restrict, Standing::Permitted) => Ok(()),
        (
            Act::Build | Act::ForcedRecovery | Act::Permit | Act::ForcedPermit | Act::Release,
            Standing::Permitted,
        ) => Err(RefusalKind::SetPermitted),
        // "Only if both servers are in it; not while either is normal."
        (Act::Build, Standing::Active | Standing::Inactive) => Err(RefusalKind::SetWorks),
        (Act::Build, Standing::RestartedBoth) => Ok(()),
        (Act::Build, Standing::RestartedOtherNormal) => Err(RefusalKind::OtherNormal),
        (Act::Build, Standing::RestartedOtherDown) => Err(RefusalKind::TwinAway),
        (Act::ForcedRecovery | Act::Permit | Act::Restrict | Act::ForcedPermit, Standing::Active) => {
            Err(RefusalKind::SetActive)
        }
        // "Never while registered in a group": it leaves its group and the cluster in one step, and only a stopped group.
        (Act::Release, Standing::Active) => Err(RefusalKind::SetInUse),
        (Act::Release, Standing::Inactive | Standing::RestartedBoth | Standing::RestartedOtherNormal) => {
            Ok(())
        }
        // Both servers forget it, or neither.
        (Act::Release, Standing::RestartedOtherDown) => Err(RefusalKind::TwinAway),
        (Act::ForcedRecovery | Act::Permit | Act::Restrict | Act::ForcedPermit, Standing::Inactive) => {
            Err(RefusalKind::SetInactive)
        }
        (
            Act::ForcedRecovery | Act::Permit | Act::ForcedPermit,
            Standing::RestartedBoth | Standing::RestartedOtherNormal | Standing::RestartedOtherDown,
        ) => Ok(()),
        (
            Act::Restrict,
            Standing::RestartedBoth | Standing::RestartedOtherNormal | Standing::RestartedOtherDown,
        ) => Err(RefusalKind::NotPermitted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as a person reads it: a line for each act, a column for each state.
    #[test]
    fn the_table_of_8_7() {
        let columns =
            ["active", "inactive", "both restarted", "other normal", "other down", "permitted", "unheard"];
        let table = [
            ("Build", "works works yes normal away permitted away"),
            ("ForcedRecovery", "active inactive yes yes yes permitted away"),
            ("Permit", "active inactive yes yes yes permitted away"),
            ("Restrict", "active inactive not not not yes away"),
            ("ForcedPermit", "active inactive yes yes yes permitted away"),
            ("ExchangeDisk", "yes yes yes yes yes yes away"),
            ("PutBack", "active yes yes yes yes permitted yes"),
            ("DropOld", "yes yes yes yes yes yes yes"),
            ("WaiveOld", "yes yes yes yes yes yes yes"),
            ("Release", "in use yes yes yes away permitted away"),
            ("Verify", "yes unused unused unused unused yes unused"),
            ("Pace", "yes unused unused unused unused yes unused"),
        ];
        let word = |answer: Result<(), RefusalKind>| match answer {
            Ok(()) => "yes".to_string(),
            Err(RefusalKind::SetWorks) => "works".into(),
            Err(RefusalKind::OtherNormal) => "normal".into(),
            Err(RefusalKind::TwinAway) => "away".into(),
            Err(RefusalKind::SetPermitted) => "permitted".into(),
            Err(RefusalKind::SetActive) => "active".into(),
            Err(RefusalKind::SetInactive) => "inactive".into(),
            Err(RefusalKind::NotPermitted) => "not".into(),
            Err(RefusalKind::SetInUse) => "in use".into(),
            Err(RefusalKind::SetNotActive) => "unused".into(),
            Err(other) => format!("{other:?}"),
        };
        assert_eq!(columns.len(), Standing::ALL.len());
        for ((name, line), act) in table.into_iter().zip(Act::ALL) {
            assert_eq!(name, format!("{act:?}"));
            let found: Vec<String> =
                Standing::ALL.iter().map(|standing| word(allowed(act, *standing))).collect();
            assert_eq!(found.join(" "), line, "{name}");
        }
    }
}
