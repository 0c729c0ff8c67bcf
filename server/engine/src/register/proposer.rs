//! A server's whole part in a group's register: its acceptor, its proposals, and what it knows.

use super::{
    Acceptor, Ballot, Change, Proposal, RegisterFaults, RegisterMessage, RegisterValue, Servers, ballot,
};
use crate::input::Party;
use serde::{Deserialize, Serialize};
use wire::NodeId;

/// What must be durable before anything that depends on it leaves this server.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegisterRecord {
    /// The own acceptor.
    pub acceptor: Acceptor,
    /// Own proposals of which it is not known that a quorum accepted at their ballot or a higher one (rule 3); of equal
    /// values only the highest ballot, so that it stays as short as there are values: at most five.
    pub pending: Vec<Proposal>,
    /// The highest proposal known to be chosen (rule 4); none: the group's initial value.
    pub known: Option<Proposal>,
}

/// How this server may acknowledge writes (rule 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Acks {
    /// Not at all.
    No,
    /// Once the twin's disk has them too.
    WithTwin,
    /// Alone.
    Alone,
}

/// What an input to the register leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Effect {
    /// Send, once the record is durable.
    Send { to: Party, message: RegisterMessage },
    /// A proposal is known to be chosen; `known()` has risen.
    Learned(Proposal),
    /// The change does not apply to the value that was read; nothing was written.
    NotApplicable { read: RegisterValue },
    /// A higher ballot is in the way: try again after a pause.
    Outrun,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Round {
    Idle,
    Preparing { ballot: Ballot, change: Change, promises: Vec<(Voter, Option<Proposal>)> },
    Accepting { proposal: Proposal, change: Change },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Voter {
    Own,
    Other(Party),
}

/// A server's part in one register.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Register {
    me: NodeId,
    initial: RegisterValue,
    /// A third acceptor exists; without one a quorum is both servers.
    witness: bool,
    record: RegisterRecord,
    round: Round,
    /// The highest ballot met anywhere.
    highest: Ballot,
    /// The latest accepted proposal each other acceptor told of: two equal ones prove a choice.
    told: [Option<Proposal>; 2],
    faults: RegisterFaults,
}

fn slot(party: Party) -> usize {
    match party {
        Party::Twin => 0,
        Party::Witness => 1,
    }
}

impl Register {
    /// From what is durable. `initial` is the group's value before any was chosen.
    #[must_use]
    pub fn new(me: NodeId, initial: RegisterValue, witness: bool, record: RegisterRecord) -> Register {
        let highest = record.acceptor.promised;
        let faults = RegisterFaults::default();
        Register { me, initial, witness, record, round: Round::Idle, highest, told: [None; 2], faults }
    }

    /// Takes rules out, for the checker.
    #[doc(hidden)]
    pub fn set_faults(&mut self, faults: RegisterFaults) {
        self.faults = faults;
    }

    /// What must be durable.
    #[must_use]
    pub fn record(&self) -> &RegisterRecord {
        &self.record
    }

    /// The value known to be chosen.
    #[must_use]
    pub fn known(&self) -> RegisterValue {
        self.record.known.map_or(self.initial, |p| p.value)
    }

    /// The ballot of the known value; none for the initial one.
    #[must_use]
    pub fn known_ballot(&self) -> Option<Ballot> {
        self.record.known.map(|p| p.ballot)
    }

    /// Proposals that may yet have been or be chosen.
    #[must_use]
    pub fn pending(&self) -> &[Proposal] {
        &self.record.pending
    }

    /// The change under way.
    #[must_use]
    pub fn proposing(&self) -> Option<Change> {
        match &self.round {
            Round::Idle => None,
            Round::Preparing { change, .. } | Round::Accepting { change, .. } => Some(*change),
        }
    }

    /// How writes may be acknowledged: what the known value and every pending proposal allow (rules 5, 9, 10).
    #[must_use]
    pub fn acks(&self) -> Acks {
        let known = self.known();
        if known.holder != Some(self.me) {
            return Acks::No;
        }
        let pending: &[Proposal] = match self.record.pending.as_slice() {
            _ if self.faults.ack_by_known => &[],
            [.., last] if self.faults.ack_by_latest => std::slice::from_ref(last),
            all => all,
        };
        let elsewhere = pending.iter().any(|p| p.value.holder != Some(self.me));
        if elsewhere && !self.faults.ack_while_handing_over {
            return Acks::No;
        }
        // The twin's copy counts, with this one or instead of it (rule 12).
        let twin = self.me.twin();
        let shared = |value: &RegisterValue| value.holder == Some(self.me) && value.in_sync.contains(twin);
        if shared(&known) || pending.iter().any(|p| shared(&p.value)) { Acks::WithTwin } else { Acks::Alone }
    }

    /// The process ended and started again: what was in memory is gone.
    pub fn restart(&mut self) {
        self.round = Round::Idle;
        self.told = [None; 2];
        self.highest = self.record.acceptor.promised;
        if self.faults.known_in_memory {
            self.record.known = None;
        }
        if self.faults.resume_with_pending && self.known() == self.alone() {
            self.record.pending.clear();
        }
    }

    fn alone(&self) -> RegisterValue {
        RegisterValue { holder: Some(self.me), in_sync: Servers::only(self.me), ..self.known() }
    }

    /// Starts a change: the own acceptor promises, then the others are asked. Ends whatever was under way (it stays pending).
    pub fn propose(&mut self, change: Change) -> Vec<Effect> {
        // Rule 6: only a holder that has learnt that it holds re-admits.
        let unlearnt = self.known().holder != Some(self.me);
        if change == Change::Readmit && unlearnt && !self.faults.readmit_unlearnt {
            return vec![Effect::NotApplicable { read: self.known() }];
        }
        let ballot = ballot::above(self.highest.max(self.record.acceptor.promised), self.me);
        self.highest = ballot;
        // Rule 2: the own acceptor first; its promise is durable before the messages leave.
        let Ok(accepted) = self.record.acceptor.prepare(ballot) else {
            return vec![Effect::Outrun];
        };
        if self.faults.promise_ends_pending {
            self.record.pending.clear();
        }
        self.round = Round::Preparing { ballot, change, promises: vec![(Voter::Own, accepted)] };
        self.to_others(RegisterMessage::Prepare { ballot })
    }

    /// Gives up the change under way; what was proposed stays pending.
    pub fn give_up(&mut self) {
        self.round = Round::Idle;
    }

    /// Sends the messages of the current phase again.
    #[must_use]
    pub fn repeat(&self) -> Vec<Effect> {
        match &self.round {
            Round::Idle => Vec::new(),
            Round::Preparing { ballot, .. } => self.to_others(RegisterMessage::Prepare { ballot: *ballot }),
            Round::Accepting { proposal, .. } => {
                self.to_others(RegisterMessage::Accept { proposal: *proposal })
            }
        }
    }

    /// Asks the other acceptors what they hold, without disturbing anybody.
    #[must_use]
    pub fn ask(&self) -> Vec<Effect> {
        self.to_others(RegisterMessage::Ask)
    }

    /// A message of the register came from the twin or the witness.
    pub fn handle(&mut self, from: Party, message: RegisterMessage) -> Vec<Effect> {
        match message {
            RegisterMessage::Prepare { ballot } => {
                self.highest = self.highest.max(ballot);
                let message = match self.record.acceptor.prepare(ballot) {
                    Ok(accepted) => RegisterMessage::Promise { ballot, accepted },
                    Err(promised) => RegisterMessage::Refused { ballot, promised },
                };
                vec![Effect::Send { to: from, message }]
            }
            RegisterMessage::Accept { proposal } => self.handle_accept(from, proposal),
            RegisterMessage::Promise { ballot, accepted } => self.handle_promise(from, ballot, accepted),
            RegisterMessage::Accepted { ballot } => self.handle_accepted(from, ballot),
            RegisterMessage::Refused { ballot, promised } => {
                self.highest = self.highest.max(promised);
                if self.ballot_of_round() != Some(ballot) {
                    return Vec::new();
                }
                self.round = Round::Idle;
                vec![Effect::Outrun]
            }
            RegisterMessage::Chosen { proposal } => self.learn(proposal),
            RegisterMessage::Ask => {
                let Acceptor { promised, accepted } = self.record.acceptor;
                vec![Effect::Send { to: from, message: RegisterMessage::State { promised, accepted } }]
            }
            RegisterMessage::State { promised, accepted } => {
                self.highest = self.highest.max(promised);
                self.note(from, accepted)
            }
        }
    }

    fn handle_accept(&mut self, from: Party, proposal: Proposal) -> Vec<Effect> {
        self.highest = self.highest.max(proposal.ballot);
        if self.faults.accept_below_promise {
            self.record.acceptor.promised = self.record.acceptor.promised.min(proposal.ballot);
        }
        let message = match self.record.acceptor.accept(proposal) {
            Ok(()) => RegisterMessage::Accepted { ballot: proposal.ballot },
            Err(promised) => RegisterMessage::Refused { ballot: proposal.ballot, promised },
        };
        let mut effects = vec![Effect::Send { to: from, message }];
        if from == Party::Twin {
            // The proposer's own acceptor accepted first (rule 2): with ours that may be a quorum already.
            effects.extend(self.note(from, Some(proposal)));
        }
        effects
    }

    fn handle_promise(&mut self, from: Party, ballot: Ballot, accepted: Option<Proposal>) -> Vec<Effect> {
        let mut effects = self.note(from, accepted);
        let Round::Preparing { ballot: ours, change, promises } = &mut self.round else {
            return effects;
        };
        if *ours != ballot || promises.iter().any(|(voter, _)| *voter == Voter::Other(from)) {
            return effects;
        }
        promises.push((Voter::Other(from), accepted));
        if promises.len() < QUORUM {
            return effects;
        }
        let change = *change;
        let all = promises.len() > QUORUM || !self.witness;
        // This promise and the own one are a quorum, and each quorum's reading is valid: where one shows a value that may
        // never have been chosen and the change does not apply to it, the next one is waited for.
        let own = promises.first().and_then(|(_, p)| *p);
        let read = own.max(accepted).map_or(self.initial, |p| p.value);
        let value = match change.apply(read, self.me, self.faults) {
            Some(value) => value,
            None if self.faults.write_back => read,
            None if !all => return effects,
            None => {
                // Rule 1: nothing is written, not even the value that was read.
                self.round = Round::Idle;
                effects.push(Effect::NotApplicable { read });
                return effects;
            }
        };
        effects.extend(self.start_accept(Proposal { ballot, value }, change));
        effects
    }

    fn start_accept(&mut self, proposal: Proposal, change: Change) -> Vec<Effect> {
        // Rule 2: the own acceptor accepts first, in the same durable write as the pending proposal.
        if !self.faults.own_acceptor_last && self.record.acceptor.accept(proposal).is_err() {
            self.round = Round::Idle;
            return vec![Effect::Outrun];
        }
        if !self.faults.forget_pending {
            // Rule 3: pending from before anybody else can see it.
            self.record.pending.retain(|p| p.value != proposal.value);
            self.record.pending.push(proposal);
        }
        self.round = Round::Accepting { proposal, change };
        self.to_others(RegisterMessage::Accept { proposal })
    }

    fn handle_accepted(&mut self, from: Party, ballot: Ballot) -> Vec<Effect> {
        let proposal = match self.round {
            Round::Accepting { proposal, .. } if proposal.ballot == ballot => proposal,
            Round::Idle | Round::Preparing { .. } | Round::Accepting { .. } => {
                // The round ended before this answer came: what is pending may be chosen by it all the same.
                let late = self.record.pending.iter().find(|p| p.ballot == ballot).copied();
                return late.map_or_else(Vec::new, |proposal| self.note(from, Some(proposal)));
            }
        };
        if self.faults.own_acceptor_last && self.record.acceptor.accept(proposal).is_err() {
            self.round = Round::Idle;
            return vec![Effect::Outrun];
        }
        self.note(from, Some(proposal))
    }

    /// An acceptor is known to have accepted a proposal, now or once. With the own acceptor, or the other one, at the same
    /// ballot a quorum has, and it is chosen.
    fn note(&mut self, from: Party, accepted: Option<Proposal>) -> Vec<Effect> {
        let Some(told) = accepted else {
            return Vec::new();
        };
        self.highest = self.highest.max(told.ballot);
        let kept = &mut self.told[slot(from)];
        if kept.is_none_or(|k| k.ballot < told.ballot) {
            *kept = Some(told);
        }
        let own = self.record.acceptor.accepted.is_some_and(|p| p.ballot == told.ballot);
        let others = self.told.iter().flatten().filter(|p| p.ballot == told.ballot).count();
        if usize::from(own) + others >= QUORUM { self.learn(told) } else { Vec::new() }
    }

    fn learn(&mut self, chosen: Proposal) -> Vec<Effect> {
        self.highest = self.highest.max(chosen.ballot);
        if self.record.known.is_some_and(|known| known.ballot >= chosen.ballot) {
            return Vec::new();
        }
        // Rules 3 and 4: pending ends with the same write that stores the known value.
        self.record.known = Some(chosen);
        self.record.pending.retain(|p| p.ballot > chosen.ballot);
        let mut effects = vec![Effect::Learned(chosen)];
        if self.ballot_of_round().is_some_and(|ours| ours <= chosen.ballot) {
            if chosen.ballot.proposer == self.me {
                effects.push(Effect::Send {
                    to: Party::Twin,
                    message: RegisterMessage::Chosen { proposal: chosen },
                });
            }
            self.round = Round::Idle;
        }
        effects
    }

    fn ballot_of_round(&self) -> Option<Ballot> {
        match &self.round {
            Round::Idle => None,
            Round::Preparing { ballot, .. } => Some(*ballot),
            Round::Accepting { proposal, .. } => Some(proposal.ballot),
        }
    }

    fn to_others(&self, message: RegisterMessage) -> Vec<Effect> {
        let witness = self.witness.then_some(Effect::Send { to: Party::Witness, message });
        [Effect::Send { to: Party::Twin, message }].into_iter().chain(witness).collect()
    }
}

/// Two of three acceptors; two of two without a witness.
const QUORUM: usize = 2;
