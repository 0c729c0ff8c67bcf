//! The witness: the third acceptor of every group's register, on a third machine. Pure; the shell stores and sends.
//!
//! Its memory has an incarnation. Without its stored record it is a new incarnation, and has a vote in a group only after both
//! servers introduced their acceptors of that group to this incarnation: whatever the lost memory had promised or accepted, the
//! proposer's own acceptor had before it (rule 2), so that the higher of both introductions covers it. It learns a new group
//! in the same way.

use crate::action::StoreToken;
use crate::register::Acceptor;
use peer::cluster::{ClusterMessage, Introduction, RegisterMessage, Servers};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wire::limits::GROUPS_MAX;
use wire::{GroupId, Incarnation, NodeId};

/// What the witness keeps: one file, durable (with its directory) before anything that depends on it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessRecord {
    /// The life of this memory.
    pub incarnation: Incarnation,
    /// Its acceptors.
    pub groups: BTreeMap<GroupId, WitnessGroup>,
}

/// One acceptor of the witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessGroup {
    /// The acceptor.
    pub acceptor: Acceptor,
    /// Who introduced its acceptor to this incarnation; both: there is a vote.
    pub introduced: Servers,
}

/// What the witness wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum WitnessAction {
    /// Make the record durable, then call `stored`. A later one supersedes an earlier one not yet begun.
    Store { token: StoreToken, record: WitnessRecord },
    /// Send to a server, not before that record is durable; dropped if its channel is closed.
    Send { to: NodeId, message: ClusterMessage, after: Option<StoreToken> },
}

/// The witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    record: WitnessRecord,
    open: Servers,
    issued: StoreToken,
    stored: StoreToken,
    actions: Vec<WitnessAction>,
    /// The store failed: nothing is answered any more until a restart.
    failed: bool,
}

impl Witness {
    /// With what was stored, or, without it, as `fresh`: a new random incarnation.
    #[must_use]
    pub fn new(stored: Option<WitnessRecord>, fresh: Incarnation) -> Witness {
        let new_life = stored.is_none();
        let record = stored.unwrap_or(WitnessRecord { incarnation: fresh, groups: BTreeMap::new() });
        let (issued, stored) = (StoreToken(0), StoreToken(0));
        let mut witness =
            Witness { record, open: Servers::NONE, issued, stored, actions: Vec::new(), failed: false };
        if new_life {
            witness.store();
        }
        witness
    }

    /// A server's channel opened.
    pub fn channel_opened(&mut self, server: NodeId) {
        self.open = self.open.with(server);
        self.say(server);
    }

    /// A server's channel closed.
    pub fn channel_closed(&mut self, server: NodeId) {
        self.open = self.open.without(server);
    }

    /// That record is durable.
    pub fn handle_stored(&mut self, token: StoreToken) {
        self.stored = self.stored.max(token);
    }

    /// The record could not be made durable: from here on nothing is answered.
    pub fn handle_store_failed(&mut self) {
        self.failed = true;
        self.actions.clear();
    }

    /// A message of a server (authenticated by its certificate).
    pub fn handle(&mut self, from: NodeId, message: ClusterMessage) {
        if self.failed || !NodeId::BOTH.contains(&from) {
            return;
        }
        match message {
            ClusterMessage::Ping { number } => self.send(from, ClusterMessage::Pong { number }),
            ClusterMessage::Register { group, message } => self.vote(from, group, message),
            ClusterMessage::Introduce { witness, groups } => self.introduced(from, witness, &groups),
            ClusterMessage::Hello { .. }
            | ClusterMessage::WitnessSays { .. }
            | ClusterMessage::Status(_)
            | ClusterMessage::Events { .. }
            | ClusterMessage::ConfigOffer { .. }
            | ClusterMessage::ConfigTaken { .. }
            | ClusterMessage::ConfigRefused { .. }
            | ClusterMessage::Pong { .. } => {}
        }
    }

    /// What is to be done, in order.
    #[must_use]
    pub fn take_actions(&mut self) -> Vec<WitnessAction> {
        std::mem::take(&mut self.actions)
    }

    /// The groups it has a vote in.
    #[must_use]
    pub fn votes(&self) -> Vec<GroupId> {
        let voting = |group: &WitnessGroup| group.introduced == Servers::BOTH;
        self.record.groups.iter().filter(|(_, g)| voting(g)).map(|(id, _)| *id).collect()
    }

    /// What is kept.
    #[must_use]
    pub fn record(&self) -> &WitnessRecord {
        &self.record
    }

    fn vote(&mut self, from: NodeId, id: GroupId, message: RegisterMessage) {
        let Some(group) = self.record.groups.get_mut(&id).filter(|g| g.introduced == Servers::BOTH) else {
            // Without a vote silence is the only right answer to a proposal; the server is told why.
            return self.say(from);
        };
        let before = group.acceptor;
        let answer = match message {
            RegisterMessage::Prepare { ballot } => match group.acceptor.prepare(ballot) {
                Ok(accepted) => RegisterMessage::Promise { ballot, accepted },
                Err(promised) => RegisterMessage::Refused { ballot, promised },
            },
            RegisterMessage::Accept { proposal } => match group.acceptor.accept(proposal) {
                Ok(()) => RegisterMessage::Accepted { ballot: proposal.ballot },
                Err(promised) => RegisterMessage::Refused { ballot: proposal.ballot, promised },
            },
            RegisterMessage::Ask => RegisterMessage::State {
                promised: group.acceptor.promised,
                accepted: group.acceptor.accepted,
            },
            RegisterMessage::Promise { .. }
            | RegisterMessage::Accepted { .. }
            | RegisterMessage::Refused { .. }
            | RegisterMessage::Chosen { .. }
            | RegisterMessage::State { .. } => return,
        };
        if group.acceptor != before {
            self.store();
        }
        self.send(from, ClusterMessage::Register { group: id, message: answer });
    }

    fn introduced(&mut self, from: NodeId, life: Incarnation, groups: &[Introduction]) {
        if life != self.record.incarnation {
            return self.say(from);
        }
        let mut changed = false;
        for introduction in groups {
            let known = self.record.groups.contains_key(&introduction.group);
            if !known && self.record.groups.len() >= GROUPS_MAX {
                continue;
            }
            let group = self.record.groups.entry(introduction.group).or_default();
            if group.introduced.contains(from) {
                continue;
            }
            group.acceptor.adopt(introduction.promised, introduction.accepted);
            group.introduced = group.introduced.with(from);
            changed = true;
        }
        if changed {
            self.store();
            let open = self.open;
            for server in NodeId::BOTH.into_iter().filter(|s| open.contains(*s)) {
                self.say(server);
            }
        }
    }

    fn say(&mut self, to: NodeId) {
        let message =
            ClusterMessage::WitnessSays { incarnation: self.record.incarnation, votes: self.votes() };
        self.send(to, message);
    }

    fn store(&mut self) {
        self.issued = StoreToken(self.issued.0 + 1);
        self.actions.push(WitnessAction::Store { token: self.issued, record: self.record.clone() });
    }

    fn send(&mut self, to: NodeId, message: ClusterMessage) {
        // Everything waits for the latest record: at most one write, and no reasoning about what depends on what.
        let after = (self.issued > self.stored).then_some(self.issued);
        self.actions.push(WitnessAction::Send { to, message, after });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::{Ballot, Proposal, RegisterValue};
    use wire::Epoch;

    const LIFE: Incarnation = Incarnation([1; 16]);
    const GROUP: GroupId = GroupId(1);
    const PREPARE: RegisterMessage =
        RegisterMessage::Prepare { ballot: Ballot { round: 9, proposer: NodeId(1) } };

    fn introduction(round: u64) -> Introduction {
        let ballot = Ballot { round, proposer: NodeId(2) };
        let value = RegisterValue { epoch: Epoch(round), holder: Some(NodeId(2)), in_sync: Servers::BOTH };
        Introduction { group: GROUP, promised: ballot, accepted: Some(Proposal { ballot, value }) }
    }

    fn introduce(round: u64) -> ClusterMessage {
        ClusterMessage::Introduce { witness: LIFE, groups: vec![introduction(round)] }
    }

    fn answers(witness: &mut Witness) -> Vec<RegisterMessage> {
        let sent = witness.take_actions().into_iter().filter_map(|action| match action {
            WitnessAction::Send { message: ClusterMessage::Register { message, .. }, .. } => Some(message),
            WitnessAction::Send { .. } | WitnessAction::Store { .. } => None,
        });
        sent.collect()
    }

    #[test]
    fn no_vote_before_both_servers_introduced_themselves_to_this_life() {
        let mut witness = Witness::new(None, LIFE);
        let prepare = ClusterMessage::Register { group: GROUP, message: PREPARE };
        witness.handle(NodeId(1), prepare.clone());
        assert_eq!(answers(&mut witness), []);
        witness.handle(NodeId(1), introduce(3));
        witness.handle(NodeId(1), introduce(4));
        witness.handle(NodeId(1), prepare.clone());
        assert_eq!(answers(&mut witness), []);
        let stranger =
            ClusterMessage::Introduce { witness: Incarnation([2; 16]), groups: vec![introduction(5)] };
        witness.handle(NodeId(2), stranger);
        assert_eq!(witness.votes(), []);
        witness.handle(NodeId(2), introduce(4));
        assert_eq!(witness.votes(), [GROUP]);
        witness.handle(NodeId(1), prepare);
        let ballot = Ballot { round: 9, proposer: NodeId(1) };
        let promise = RegisterMessage::Promise { ballot, accepted: introduction(4).accepted };
        assert_eq!(answers(&mut witness), [promise]);
    }

    #[test]
    fn an_answer_waits_for_its_record() {
        let mut witness = Witness::new(None, LIFE);
        witness.handle(NodeId(1), introduce(3));
        witness.handle(NodeId(2), introduce(3));
        let _ = witness.take_actions();
        witness.handle(NodeId(1), ClusterMessage::Register { group: GROUP, message: PREPARE });
        let actions = witness.take_actions();
        let [WitnessAction::Store { token, .. }, WitnessAction::Send { after, .. }] = actions.as_slice()
        else {
            panic!("{actions:?}")
        };
        assert_eq!(*after, Some(*token));
        witness.handle_stored(*token);
        witness.handle(NodeId(1), ClusterMessage::Ping { number: 1 });
        let actions = witness.take_actions();
        assert!(matches!(actions.as_slice(), [WitnessAction::Send { after: None, .. }]), "{actions:?}");
    }

    #[test]
    fn after_a_failed_store_it_is_silent() {
        let mut witness = Witness::new(None, LIFE);
        witness.handle_store_failed();
        witness.handle(NodeId(1), ClusterMessage::Ping { number: 1 });
        assert_eq!(witness.take_actions(), []);
    }
}
