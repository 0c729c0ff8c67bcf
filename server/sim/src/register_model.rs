//! The register's exhaustive check: every order, loss and repetition of messages, restarts of both servers, within bounds.
//!
//! The parts are the product's own: `engine::register::Register` twice, and an `Acceptor` for the witness. Messages once
//! sent stay in the network for ever, so each may arrive never, late, or again. What the register is for is modelled by
//! counting: each copy knows how many acknowledged writes it holds. Checked in every state reached:
//! a holder never acknowledges without every earlier acknowledged write (loss); never may both acknowledge (exclusion);
//! chosen values never disagree on an epoch's holder nor go back in epochs (agreement); and with messages flowing again
//! somebody who holds everything can acknowledge (stuck).

use crate::seen::{Mixer, Seen};
use engine::input::Party;
use engine::register::{
    Acceptor, Acks, Change, Effect, Proposal, Register, RegisterFaults, RegisterMessage, RegisterRecord,
    RegisterValue, Servers,
};
use std::hash::{Hash, Hasher};
use wire::{Epoch, NodeId};

/// How far the check goes. Deliveries are not bounded: there are only so many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Proposals of both servers together.
    pub proposals: u8,
    /// Restarts of both servers together.
    pub restarts: u8,
    /// Acknowledged writes.
    pub writes: u8,
    /// Writes that reach one copy and are never acknowledged.
    pub strays: u8,
    /// Begin with server 1 alone in sync; otherwise with both.
    pub alone: bool,
    /// Give up after so many states.
    pub states: usize,
}

/// What is taken out of the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// Of the register itself.
    pub register: RegisterFaults,
    /// Rule 6, as the register's user keeps it: acknowledgements need the twin from before the copies are compared.
    pub compare_before_switch: bool,
    /// Data fencing: the standby's disk takes writes of an epoch below the one it has learnt.
    pub take_stale_writes: bool,
    /// Rule 12: a holder in sync acknowledges what only its twin's disk took.
    pub through_unasked: bool,
}

/// One step of a run, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Step {
    /// A server starts a change.
    Propose { server: usize, change: Change },
    /// A message arrives; it stays in the network.
    Deliver(Letter),
    /// A server restarts with what is durable.
    Restart { server: usize },
    /// A holder acknowledges a write.
    Write { server: usize },
    /// A holder that is alone makes the twin's copy equal and acknowledges only with it from now on.
    Switch { server: usize },
    /// It gives that up.
    SwitchBack { server: usize },
    /// A write of a holder reaches its own copy only and is not acknowledged.
    Stray { server: usize },
}

/// A message on its way: 0 and 1 are the servers, 2 the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Letter {
    /// To whom.
    pub to: u8,
    /// From whom.
    pub from: u8,
    /// What.
    pub message: RegisterMessage,
}

/// What was found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A holder acknowledges without having an acknowledged write.
    Loss,
    /// Both may acknowledge on their own.
    Exclusion,
    /// Two chosen values contradict each other.
    Agreement,
    /// Nobody can ever acknowledge again; or a server in sync cannot take over with the witness when the other is dead.
    Stuck,
}

/// The end of a check.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Distinct states reached.
    pub states: usize,
    /// Whether all states within the bounds were reached.
    pub complete: bool,
    /// The first violation, with the shortest way to it.
    pub broken: Option<(Broken, Vec<Step>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    servers: [Register; 2],
    witness: Acceptor,
    /// Sorted.
    letters: Vec<Letter>,
    /// Every accepted proposal with the acceptors (bits) that ever accepted it: what was chosen, chosen stays.
    accepted: Vec<(Proposal, u8)>,
    /// Acknowledged writes in all, and those each copy holds.
    acknowledged: u8,
    copies: [u8; 2],
    /// The epoch each side's mirror has met in its twin's frames: it serves in no lower one.
    met: [Epoch; 2],
    /// A copy holds an unacknowledged write that the other may lack.
    strayed: [bool; 2],
    /// The mirror acknowledges only with the twin, whatever the register allows (rule 6).
    switched: [bool; 2],
    /// Group stopped for a hand-over: nothing is written until the register has decided.
    stopped: [bool; 2],
    /// Ended since it began to hold: a copy that was left out is not served again (rule 12).
    restarted: [bool; 2],
    left: [u8; 4],
}

const PROPOSALS: usize = 0;
const RESTARTS: usize = 1;
const WRITES: usize = 2;
const STRAYS: usize = 3;
/// The witness among the parties.
const WITNESS: usize = 2;

fn node(server: usize) -> NodeId {
    NodeId::BOTH[server]
}

fn index(party: Party, server: usize) -> usize {
    match party {
        Party::Twin => 1 - server,
        Party::Witness => WITNESS,
    }
}

impl State {
    fn first(bounds: Bounds, without: Without) -> State {
        // Past the first start: server 1 holds. `Take` is a promotion of nobody's group.
        let in_sync = if bounds.alone { Servers::only(node(0)) } else { Servers::BOTH };
        let value = RegisterValue { epoch: Epoch(1), holder: Some(node(0)), in_sync };
        let server = |i: usize| {
            let mut register = Register::new(node(i), value, true, RegisterRecord::default());
            register.set_faults(without.register);
            register
        };
        State {
            servers: [server(0), server(1)],
            witness: Acceptor::default(),
            letters: Vec::new(),
            accepted: Vec::new(),
            acknowledged: 1,
            copies: [1, u8::from(!bounds.alone)],
            met: [Epoch(0); 2],
            strayed: [false; 2],
            switched: [false; 2],
            stopped: [false; 2],
            restarted: [false; 2],
            left: [bounds.proposals, bounds.restarts, bounds.writes, bounds.strays],
        }
    }

    fn acks(&self, server: usize, without: Without) -> Acks {
        match self.servers[server].acks() {
            _ if self.restarted[server] && self.is_left_out(server) => Acks::No,
            _ if self.met[server] > self.servers[server].known().epoch => Acks::No,
            // Rule 9 has two keepers, the stopped group and the register; taken out, neither holds.
            _ if self.stopped[server] && !without.register.ack_while_handing_over => Acks::No,
            Acks::Alone if self.switched[server] => Acks::WithTwin,
            Acks::Alone => Acks::Alone,
            Acks::WithTwin => Acks::WithTwin,
            Acks::No => Acks::No,
        }
    }

    /// Whether the twin's disk takes this server's writes: not of an epoch below the one it has learnt.
    fn twin_takes(&self, server: usize, without: Without) -> bool {
        let learnt = self.met[1 - server].max(self.servers[1 - server].known().epoch);
        without.take_stale_writes || learnt <= self.servers[server].known().epoch
    }

    /// The mirrors speak with each other in this server's epoch.
    fn meet(&mut self, server: usize) {
        let epoch = self.servers[server].known().epoch;
        self.met[1 - server] = self.met[1 - server].max(epoch);
    }

    fn steps(&self, without: Without, steps: &mut Vec<Step>) {
        steps.clear();
        for server in 0..2 {
            self.steps_of(server, without, steps);
        }
        steps.extend(self.letters.iter().map(|letter| Step::Deliver(*letter)));
    }

    fn steps_of(&self, server: usize, without: Without, steps: &mut Vec<Step>) {
        let register = &self.servers[server];
        let known = register.known();
        let mine = known.holder == Some(node(server));
        if self.left[PROPOSALS] > 0 {
            let mut change = |wanted: bool, change| {
                if wanted {
                    steps.push(Step::Propose { server, change });
                }
            };
            change(!mine, Change::Promote);
            change(mine, Change::PutOut);
            let may_readmit = mine || without.register.readmit_unlearnt;
            change(may_readmit && (self.switched[server] || without.compare_before_switch), Change::Readmit);
            let equal = self.copies[0] == self.copies[1] && self.strayed == [false; 2];
            change(
                mine && known.in_sync == Servers::BOTH && register.pending().is_empty() && equal,
                Change::HandOver,
            );
            change(!mine && known.in_sync == Servers::BOTH, Change::LeaveOut);
            change(!mine && without.register.leave_unasked, Change::Leave);
        }
        if self.left[RESTARTS] > 0 {
            steps.push(Step::Restart { server });
        }
        let acks = self.acks(server, without);
        let with_twin = acks == Acks::WithTwin && self.twin_takes(server, without);
        if self.left[WRITES] > 0 && (acks == Acks::Alone || with_twin) {
            steps.push(Step::Write { server });
        }
        // Rule 6 taken out in the register lets an unlearnt holder compare and propose as well.
        let holds = mine || without.register.readmit_unlearnt;
        let alone = acks == Acks::Alone || without.register.readmit_unlearnt;
        if holds && alone && self.twin_takes(server, without) && !self.switched[server] {
            steps.push(Step::Switch { server });
        }
        let readmitting = register.proposing() == Some(Change::Readmit);
        if self.switched[server] && register.acks() == Acks::Alone && !readmitting {
            steps.push(Step::SwitchBack { server });
        }
        if self.left[STRAYS] > 0 && acks != Acks::No {
            steps.push(Step::Stray { server });
        }
    }

    fn take(&mut self, step: Step, without: Without) -> Result<(), Broken> {
        match step {
            Step::Propose { server, change } => {
                self.left[PROPOSALS] -= 1;
                if change == Change::HandOver {
                    self.stopped[server] = true;
                }
                let effects = self.servers[server].propose(change);
                self.apply(server, effects);
            }
            Step::Deliver(letter) => self.deliver(letter),
            Step::Restart { server } => {
                self.left[RESTARTS] -= 1;
                self.servers[server].restart();
                self.restarted[server] = true;
                self.switched[server] = false;
                self.stopped[server] = false;
            }
            Step::Write { server } => {
                self.left[WRITES] -= 1;
                return self.write(server, without);
            }
            Step::Switch { server } => {
                // The comparison makes the copies equal, from the holder to the other; then, or before, the switch.
                self.meet(server);
                self.copies[1 - server] = self.copies[server];
                self.strayed = [false; 2];
                self.switched[server] = !without.compare_before_switch;
            }
            Step::SwitchBack { server } => self.switched[server] = false,
            Step::Stray { server } => {
                self.left[STRAYS] -= 1;
                self.strayed[server] = true;
            }
        }
        self.restore();
        self.verify(without)
    }

    /// What the engine and the mirrors do without being told: a hand-over that was decided ends the stop, a twin put
    /// out or a lost right ends the switch.
    fn restore(&mut self) {
        for server in 0..2 {
            let register = &self.servers[server];
            let mine = register.known().holder == Some(node(server));
            let handing = register.proposing() == Some(Change::HandOver)
                || register.pending().iter().any(|p| p.value.holder != Some(node(server)));
            self.stopped[server] &= mine && handing;
            self.switched[server] &= mine;
        }
    }

    /// It holds, and its own copy does not count.
    fn is_left_out(&self, server: usize) -> bool {
        let known = self.servers[server].known();
        known.holder == Some(node(server)) && !known.in_sync.contains(node(server))
    }

    /// A write that only the twin's copy gets.
    fn write_through(&mut self, twin: usize) -> Result<(), Broken> {
        if self.copies[twin] < self.acknowledged || self.strayed[twin] {
            return Err(Broken::Loss);
        }
        self.acknowledged += 1;
        self.copies[twin] = self.acknowledged;
        self.meet(1 - twin);
        Ok(())
    }

    fn write(&mut self, server: usize, without: Without) -> Result<(), Broken> {
        let twin = 1 - server;
        let with_twin = self.acks(server, without) == Acks::WithTwin;
        if self.is_left_out(server) || without.through_unasked && with_twin {
            return self.write_through(twin);
        }
        let alone = self.acks(server, without) == Acks::Alone;
        // In sync means equal: a twin that holds what its own term left behind is not. What the holder itself left it
        // sends again, or compares after a crash.
        let unequal = !alone && (self.copies[twin] < self.acknowledged || self.strayed[twin]);
        if self.copies[server] < self.acknowledged || unequal {
            return Err(Broken::Loss);
        }
        self.acknowledged += 1;
        self.copies[server] = self.acknowledged;
        self.strayed[server] = false;
        if !alone {
            self.meet(server);
            self.copies[twin] = self.acknowledged;
        }
        Ok(())
    }

    fn deliver(&mut self, letter: Letter) {
        let to = usize::from(letter.to);
        if to == WITNESS {
            self.deliver_to_witness(letter);
            return;
        }
        let from = if usize::from(letter.from) == WITNESS { Party::Witness } else { Party::Twin };
        let effects = self.servers[to].handle(from, letter.message);
        self.apply(to, effects);
    }

    fn deliver_to_witness(&mut self, letter: Letter) {
        let answer = match letter.message {
            RegisterMessage::Prepare { ballot } => match self.witness.prepare(ballot) {
                Ok(accepted) => RegisterMessage::Promise { ballot, accepted },
                Err(promised) => RegisterMessage::Refused { ballot, promised },
            },
            RegisterMessage::Accept { proposal } => match self.witness.accept(proposal) {
                Ok(()) => {
                    self.note_accepted(proposal, WITNESS);
                    RegisterMessage::Accepted { ballot: proposal.ballot }
                }
                Err(promised) => RegisterMessage::Refused { ballot: proposal.ballot, promised },
            },
            RegisterMessage::Ask => {
                RegisterMessage::State { promised: self.witness.promised, accepted: self.witness.accepted }
            }
            RegisterMessage::Promise { .. }
            | RegisterMessage::Accepted { .. }
            | RegisterMessage::Refused { .. }
            | RegisterMessage::Chosen { .. }
            | RegisterMessage::State { .. } => return,
        };
        self.post(Letter { to: letter.from, from: letter.to, message: answer });
    }

    fn apply(&mut self, server: usize, effects: Vec<Effect>) {
        if let Some(accepted) = self.servers[server].record().acceptor.accepted {
            self.note_accepted(accepted, server);
        }
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    let to = index(to, server) as u8;
                    self.post(Letter { to, from: server as u8, message });
                }
                Effect::Learned(_) | Effect::NotApplicable { .. } | Effect::Outrun => {}
            }
        }
    }

    fn post(&mut self, letter: Letter) {
        // A refusal only lets the next ballot be higher, as the prepare that caused it does; without it the space is
        // a third as large.
        if matches!(letter.message, RegisterMessage::Refused { .. }) {
            return;
        }
        if let Err(place) = self.letters.binary_search(&letter) {
            self.letters.insert(place, letter);
        }
    }

    fn note_accepted(&mut self, proposal: Proposal, acceptor: usize) {
        match self.accepted.binary_search_by_key(&proposal, |(p, _)| *p) {
            Ok(place) => self.accepted[place].1 |= 1 << acceptor,
            Err(place) => self.accepted.insert(place, (proposal, 1 << acceptor)),
        }
    }

    fn verify(&self, without: Without) -> Result<(), Broken> {
        let alone = |server: usize| self.acks(server, without) == Acks::Alone;
        if alone(0) && alone(1) {
            return Err(Broken::Exclusion);
        }
        let chosen = self.accepted.iter().filter(|(_, by)| by.count_ones() >= 2).map(|(p, _)| p);
        let mut last: Option<&Proposal> = None;
        for proposal in chosen {
            if let Some(before) = last {
                let (old, new) = (before.value, proposal.value);
                let same_ballot = before.ballot == proposal.ballot;
                if same_ballot
                    || new.epoch < old.epoch
                    || (new.epoch == old.epoch && new.holder != old.holder)
                {
                    return Err(Broken::Agreement);
                }
            }
            last = Some(proposal);
        }
        Ok(())
    }

    /// The servers in sync by the highest chosen value.
    fn in_sync(&self) -> Servers {
        let mut chosen =
            self.accepted.iter().filter(|(_, by)| by.count_ones() >= 2).map(|(p, _)| p.value.in_sync);
        // Before any choice the initial value counts; a register that knows nothing shows it.
        chosen.next_back().unwrap_or_else(|| {
            let fresh = self.servers.iter().find(|s| s.known_ballot().is_none());
            fresh.map_or(Servers::NONE, |s| s.known().in_sync)
        })
    }

    /// The other server is dead, the witness answers: does a server in sync take over?
    fn survives(&self, server: usize) -> bool {
        if !self.in_sync().contains(node(server)) {
            return true;
        }
        let mut state = self.clone();
        state.letters.clear();
        for _ in 0..3 {
            let effects = state.servers[server].propose(Change::Promote);
            state.apply(server, effects);
            while let Some(letter) = state.letters.pop() {
                if usize::from(letter.to) != 1 - server {
                    state.deliver(letter);
                }
            }
            if state.servers[server].acks() == Acks::Alone {
                return true;
            }
        }
        false
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = Mixer::default();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// With every message arriving at once and no more faults, does somebody get on?
    fn gets_on(&self, without: Without) -> bool {
        let mut state = self.clone();
        state.letters.clear();
        for _ in 0..3 {
            for server in 0..2 {
                state.stopped[server] = false;
                // Of a holder's own value a promotion makes the value alone.
                let effects = state.servers[server].propose(Change::Promote);
                state.apply(server, effects);
                state.settle();
                let fit = state.copies[server] >= state.acknowledged;
                let takes = state.twin_takes(server, without);
                match state.acks(server, without) {
                    Acks::Alone if fit => return true,
                    Acks::WithTwin if fit && takes => return true,
                    Acks::Alone | Acks::WithTwin | Acks::No => {}
                }
            }
        }
        false
    }

    fn settle(&mut self) {
        // Each answer leads to at most a few more; a change ends after two rounds of messages.
        for _ in 0..64 {
            let Some(letter) = self.letters.pop() else { return };
            self.deliver(letter);
        }
        self.letters.clear();
    }
}

/// One state in so many is asked whether it gets on.
const STUCK_SAMPLE: u64 = 16;

/// Breadth-first over every state within the bounds.
#[must_use]
pub fn check(bounds: Bounds, without: Without) -> Verdict {
    let mut seen = Seen::new();
    // For each state found: the state it was found from, and the number of the step.
    let mut ways: Vec<(u32, u16)> = vec![(0, 0)];
    let first = State::first(bounds, without);
    seen.insert(first.fingerprint());
    let mut level = vec![(first, 0_u32)];
    let mut steps = Vec::new();
    while !level.is_empty() {
        let mut next = Vec::new();
        for (state, place) in level {
            state.steps(without, &mut steps);
            for (number, step) in steps.iter().enumerate() {
                let mut after = state.clone();
                let taken = after.take(*step, without);
                let fingerprint = after.fingerprint();
                let fresh = seen.insert(fingerprint);
                if !fresh && taken.is_ok() {
                    continue;
                }
                ways.push((place, number as u16));
                let stuck = fingerprint.is_multiple_of(STUCK_SAMPLE)
                    && (!after.gets_on(without) || !after.survives(0) || !after.survives(1));
                let broken = taken.err().or(stuck.then_some(Broken::Stuck));
                if let Some(broken) = broken {
                    let way = way_to(&ways, bounds, without);
                    return Verdict { states: seen.len(), complete: false, broken: Some((broken, way)) };
                }
                next.push((after, ways.len() as u32 - 1));
            }
            if seen.len() >= bounds.states {
                return Verdict { states: seen.len(), complete: false, broken: None };
            }
        }
        level = next;
    }
    Verdict { states: seen.len(), complete: true, broken: None }
}

fn way_to(ways: &[(u32, u16)], bounds: Bounds, without: Without) -> Vec<Step> {
    let mut numbers = Vec::new();
    let mut place = ways.len() - 1;
    while place != 0 {
        let (from, number) = ways[place];
        numbers.push(number);
        place = from as usize;
    }
    let mut state = State::first(bounds, without);
    let mut steps = Vec::new();
    numbers
        .into_iter()
        .rev()
        .map(|number| {
            state.steps(without, &mut steps);
            let step = steps[usize::from(number)];
            let _ = state.take(step, without);
            step
        })
        .collect()
}
