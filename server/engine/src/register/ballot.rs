//! Choosing the number of a proposal.

use super::Ballot;
use wire::NodeId;

/// The lowest ballot of `me` above everything it has seen.
#[must_use]
pub fn above(seen: Ballot, me: NodeId) -> Ballot {
    if seen.proposer < me {
        Ballot { round: seen.round.max(1), proposer: me }
    } else {
        Ballot { round: seen.round.saturating_add(1), proposer: me }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_ballot_is_higher_and_mine() {
        for round in 0..4 {
            for proposer in 0..3 {
                let seen = Ballot { round, proposer: NodeId(proposer) };
                for me in NodeId::BOTH {
                    let next = above(seen, me);
                    assert!(next > seen && next.proposer == me, "{seen:?} {next:?}");
                }
            }
        }
    }
}
