//! Invariant 8: nothing is sent that depends on what is not stored.

use crate::world::World;
use engine::register::RegisterRecord;
use mirror::Action;
use peer::block::Body;
use peer::cluster::{ClusterMessage, RegisterMessage};
use peer::heartbeat::Heartbeat;
use wire::SetId;

impl World {
    /// A cluster message leaves a server.
    pub fn check_message(&mut self, host: usize, message: &ClusterMessage) {
        let ClusterMessage::Register { group, message } = message else { return };
        let empty = RegisterRecord::default();
        let groups = self.hosts[host].record.as_ref().map(|r| &r.groups);
        let stored = groups.and_then(|g| g.get(group)).map_or(&empty, |g| &g.register);
        let accepted = stored.acceptor.accepted.map(|p| p.ballot);
        let holds = match message {
            RegisterMessage::Prepare { ballot } | RegisterMessage::Promise { ballot, .. } => {
                stored.acceptor.promised >= *ballot
            }
            RegisterMessage::Accept { proposal } => {
                let pending = stored.pending.contains(proposal)
                    || stored.known.is_some_and(|k| k.ballot >= proposal.ballot);
                accepted >= Some(proposal.ballot) && pending
            }
            RegisterMessage::Accepted { ballot } => accepted >= Some(*ballot),
            RegisterMessage::Refused { .. }
            | RegisterMessage::Chosen { .. }
            | RegisterMessage::Ask
            | RegisterMessage::State { .. } => true,
        };
        if !holds {
            self.fail(8, format!("server{} sends {message:?} with only {stored:?} stored", host + 1));
        }
    }

    /// A heartbeat leaves a server.
    pub fn check_beat(&mut self, host: usize, beat: &Heartbeat) {
        let record = self.hosts[host].record.as_ref();
        let ahead = beat.groups.iter().find(|told| {
            let known = record.and_then(|r| r.groups.get(&told.group)).and_then(|g| g.register.known);
            told.epoch > known.map_or(wire::Epoch(0), |k| k.value.epoch)
        });
        if let Some(told) = ahead {
            self.fail(8, format!("server{} tells {told:?} and has not stored it", host + 1));
        }
    }

    /// A mirror acts.
    pub fn check_mirror_action(&mut self, host: usize, set: SetId, action: &Action) {
        let Action::Send { frame, .. } = action else { return };
        // A greeting names what is stored too; the first frame of a session says that it is.
        if matches!(frame.body, Body::Refused { .. } | Body::Leaving) {
            return;
        }
        let sent = self.checks.sent.entry((host, set)).or_default();
        sent.0 = sent.0.max(frame.epoch);
        sent.1 = sent.1.max(frame.session);
    }
}
