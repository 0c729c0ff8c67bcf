//! Invariant 9: one reply to each command, one result for each action, none forgotten.

use crate::world::World;

impl World {
    /// What has waited for an answer until the end of a run.
    #[must_use]
    pub fn unanswered(&self) -> Option<String> {
        for (index, host) in self.hosts.iter().enumerate() {
            if let Some(node) = host.node.as_ref().filter(|n| !n.commands.is_empty()) {
                return Some(format!(
                    "server{}: commands {:?} were never answered",
                    index + 1,
                    node.commands
                ));
            }
            for (set, disk) in &host.disks {
                if let Some((request, kind)) = disk.requests.iter().next() {
                    return Some(format!(
                        "server{} {set}: {request:?} was never answered: {:?}",
                        index + 1,
                        kind.kind
                    ));
                }
            }
        }
        None
    }
}
