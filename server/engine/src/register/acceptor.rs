//! One acceptor: what it promised and accepted. Whoever owns it makes it durable before it answers.

use super::{Ballot, Proposal};
use serde::{Deserialize, Serialize};

/// An acceptor's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Acceptor {
    /// It takes no part in lower ballots.
    pub promised: Ballot,
    /// The highest proposal it accepted.
    pub accepted: Option<Proposal>,
}

impl Acceptor {
    /// Promises `ballot` and tells what was accepted; or names the higher ballot that was promised. Repeating is harmless.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<Option<Proposal>, Ballot> {
        if ballot < self.promised {
            return Err(self.promised);
        }
        self.promised = ballot;
        Ok(self.accepted)
    }

    /// Accepts a proposal; or names the higher ballot that was promised.
    pub fn accept(&mut self, proposal: Proposal) -> Result<(), Ballot> {
        if proposal.ballot < self.promised {
            return Err(self.promised);
        }
        self.promised = proposal.ballot;
        self.accepted = Some(proposal);
        Ok(())
    }

    /// Takes over what another acceptor knows, where it is higher: only for a witness without memory (`engine::witness`).
    pub fn adopt(&mut self, promised: Ballot, accepted: Option<Proposal>) {
        self.promised = self.promised.max(promised);
        if accepted.map(|p| p.ballot) > self.accepted.map(|p| p.ballot) {
            self.accepted = accepted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RegisterValue, Servers};
    use super::*;
    use wire::{Epoch, NodeId};

    fn ballot(round: u64) -> Ballot {
        Ballot { round, proposer: NodeId(1) }
    }
    fn proposal(round: u64) -> Proposal {
        let value = RegisterValue { epoch: Epoch(round), holder: None, in_sync: Servers::BOTH };
        Proposal { ballot: ballot(round), value }
    }

    #[test]
    fn a_promise_keeps_lower_ballots_out() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.prepare(ballot(5)), Ok(None));
        assert_eq!(acceptor.prepare(ballot(4)), Err(ballot(5)));
        assert_eq!(acceptor.accept(proposal(4)), Err(ballot(5)));
        assert_eq!(acceptor.accept(proposal(5)), Ok(()));
        assert_eq!(acceptor.prepare(ballot(5)), Ok(Some(proposal(5))));
        assert_eq!(acceptor.accept(proposal(6)), Ok(()));
        assert_eq!(acceptor.promised, ballot(6));
    }

    #[test]
    fn adopting_takes_the_higher_of_each() {
        let mut acceptor = Acceptor { promised: ballot(3), accepted: Some(proposal(3)) };
        acceptor.adopt(ballot(9), Some(proposal(2)));
        assert_eq!(acceptor, Acceptor { promised: ballot(9), accepted: Some(proposal(3)) });
        acceptor.adopt(ballot(1), Some(proposal(8)));
        assert_eq!(acceptor, Acceptor { promised: ballot(9), accepted: Some(proposal(8)) });
    }
}
