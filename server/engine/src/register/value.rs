//! The changes a server may make to a group's register.

use super::{RegisterFaults, RegisterValue, Servers};
use serde::{Deserialize, Serialize};
use wire::{Epoch, NodeId};

/// A change; what it makes of the value that the proposer's own prepare read is [`Change::apply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Change {
    /// Become the first holder.
    Take,
    /// Become holder in place of one that is gone, and leave it out (rule 7).
    Promote,
    /// As holder: go on without the twin.
    PutOut,
    /// As standby in sync, at the holder's word that its own disk fails: leave the holder's copy out, while it goes on to hold
    /// (rule 12).
    LeaveOut,
    /// As holder: the twin's copy is equal again.
    Readmit,
    /// As holder, stopped, both copies equal: let the twin hold (rule 9).
    HandOver,
    /// An operator's force (rule 11): hold alone, whoever held and whoever was in sync.
    Force,
    /// As standby: remove oneself. Forbidden by rule 8; only the checker's fault lets it through.
    #[doc(hidden)]
    Leave,
}

fn raised(epoch: Epoch) -> Epoch {
    Epoch(epoch.0.saturating_add(1))
}

impl Change {
    /// The value to propose, or nothing if the change does not apply to what was read.
    #[must_use]
    pub fn apply(self, read: RegisterValue, me: NodeId, faults: RegisterFaults) -> Option<RegisterValue> {
        let twin = me.twin();
        let mine = read.holder == Some(me);
        // Rule 1: in the in-sync set of what was read; the end of the function asks the same of what is proposed.
        if !read.in_sync.contains(me) && self != Change::Force && !faults.propose_out_of_sync {
            return None;
        }
        let alone = Servers::only(me);
        let value = match self {
            Change::Take if read.holder.is_none() => {
                RegisterValue { epoch: raised(read.epoch), holder: Some(me), in_sync: read.in_sync }
            }
            Change::Take if mine => read,
            Change::Promote | Change::PutOut if mine => RegisterValue { in_sync: alone, ..read },
            Change::Promote => {
                let in_sync = if faults.promote_keeps_old { read.in_sync.with(me) } else { alone };
                RegisterValue { epoch: raised(read.epoch), holder: Some(me), in_sync }
            }
            Change::Force => RegisterValue { epoch: raised(read.epoch), holder: Some(me), in_sync: alone },
            Change::Readmit if mine => RegisterValue { in_sync: Servers::BOTH, ..read },
            Change::HandOver if mine && read.in_sync == Servers::BOTH => {
                RegisterValue { epoch: raised(read.epoch), holder: Some(twin), in_sync: Servers::BOTH }
            }
            Change::LeaveOut if read.holder == Some(twin) => RegisterValue { in_sync: alone, ..read },
            // An earlier try of the same hand-over: finish it.
            Change::HandOver if read.holder == Some(twin) && read.in_sync == Servers::BOTH => read,
            Change::Leave if faults.leave_unasked && read.holder == Some(twin) => {
                return Some(RegisterValue { in_sync: read.in_sync.without(me), ..read });
            }
            Change::Take
            | Change::PutOut
            | Change::LeaveOut
            | Change::Readmit
            | Change::HandOver
            | Change::Leave => {
                return None;
            }
        };
        (value.in_sync.contains(me) || faults.propose_out_of_sync).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const TWIN: NodeId = NodeId(2);

    fn value(epoch: u64, holder: Option<NodeId>, in_sync: Servers) -> RegisterValue {
        RegisterValue { epoch: Epoch(epoch), holder, in_sync }
    }

    #[test]
    fn every_change_on_every_value() {
        let me = Servers::only(ME);
        let twin = Servers::only(TWIN);
        let both = Servers::BOTH;
        let cases = [
            (Change::Take, value(0, None, me), Some(value(1, Some(ME), me))),
            (Change::Take, value(0, None, twin), None),
            (Change::Take, value(3, Some(TWIN), both), None),
            (Change::Promote, value(3, Some(TWIN), both), Some(value(4, Some(ME), me))),
            (Change::Promote, value(3, Some(TWIN), twin), None),
            (Change::Promote, value(3, Some(ME), both), Some(value(3, Some(ME), me))),
            (Change::PutOut, value(3, Some(ME), both), Some(value(3, Some(ME), me))),
            (Change::PutOut, value(3, Some(ME), me), Some(value(3, Some(ME), me))),
            (Change::PutOut, value(3, Some(TWIN), both), None),
            (Change::LeaveOut, value(3, Some(TWIN), both), Some(value(3, Some(TWIN), me))),
            (Change::LeaveOut, value(3, Some(TWIN), me), Some(value(3, Some(TWIN), me))),
            (Change::LeaveOut, value(3, Some(TWIN), twin), None),
            (Change::LeaveOut, value(3, Some(ME), both), None),
            (Change::PutOut, value(3, Some(ME), twin), None),
            (Change::Promote, value(3, Some(TWIN), me), Some(value(4, Some(ME), me))),
            (Change::Readmit, value(3, Some(ME), me), Some(value(3, Some(ME), both))),
            (Change::Readmit, value(4, Some(TWIN), twin), None),
            (Change::HandOver, value(3, Some(ME), both), Some(value(4, Some(TWIN), both))),
            (Change::HandOver, value(3, Some(ME), me), None),
            (Change::HandOver, value(4, Some(TWIN), both), Some(value(4, Some(TWIN), both))),
            (Change::HandOver, value(5, Some(TWIN), twin), None),
            (Change::Force, value(3, Some(TWIN), twin), Some(value(4, Some(ME), me))),
            (Change::Force, value(3, Some(ME), both), Some(value(4, Some(ME), me))),
            (Change::Leave, value(3, Some(TWIN), both), None),
        ];
        for (change, read, expected) in cases {
            assert_eq!(change.apply(read, ME, RegisterFaults::default()), expected, "{change:?} on {read:?}");
        }
    }
}
