//! Invariant 11: every queue is bounded, each bound with its reason.

use crate::world::World;
use wire::limits::VIEW_EVENTS_MAX;

/// Actions of a node process that wait for its store: a few turns of an engine, each bounded by its own check.
const WAITING_MAX: usize = 2_048;
/// Messages on their way to one end of a connection: what a stalled path holds back until its ends give up.
const QUEUE_MAX: usize = 4_096;
/// Orders and reports of one disk process not yet answered: some of each kind.
const STEPS_MAX: usize = 65_536;

impl World {
    /// Looks at every queue.
    pub fn check_bounds(&mut self) {
        let mut broken = None;
        for (host, h) in self.hosts.iter().enumerate() {
            let Some(node) = h.node.as_ref() else { continue };
            let events = node.page.as_ref().map_or(0, |page| page.events.len());
            for (what, found, most) in [
                ("actions waiting for the store", node.waiting.len(), WAITING_MAX),
                ("steps of one life", node.steps.len(), STEPS_MAX),
                ("events in the view", events, VIEW_EVENTS_MAX),
            ] {
                if found > most {
                    broken = Some(format!("server{}: {found} {what}, at most {most}", host + 1));
                }
            }
        }
        let longest = self.net.longest_queue();
        if longest > QUEUE_MAX {
            broken = Some(format!("{longest} messages on their way to one end, at most {QUEUE_MAX}"));
        }
        if let Some(text) = broken {
            self.fail(11, text);
        }
    }
}
