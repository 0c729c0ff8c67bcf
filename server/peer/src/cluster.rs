//! Messages between the two node processes, and between a node process and the witness, with their codec.
//!
//! They travel over one ordered, authenticated channel each (mutual TLS); a closed channel loses what was not yet read, so
//! every message here may be lost, and none may be trusted to be the latest.

use crate::heartbeat::ServerEntry;
use serde::{Deserialize, Serialize};
use wire::view::{GroupView, Incident, LinkView, Readings, SetView};
use wire::{ClusterConfig, Epoch, Event, GroupId, Incarnation, NodeId};

/// Version of the messages; the first byte of each.
pub const CLUSTER_VERSION: u8 = 1;
/// Longest message: a configuration at every limit is 64 groups with two scripts of 64 KiB, 8 MiB.
pub const CLUSTER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A set of servers: bit n stands for the server with id n + 1.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Servers(pub u8);

impl Servers {
    /// Nobody.
    pub const NONE: Servers = Servers(0);
    /// Both servers of a mirror cluster.
    pub const BOTH: Servers = Servers(0b11);

    /// That server alone.
    #[must_use]
    pub fn only(server: NodeId) -> Servers {
        Servers::NONE.with(server)
    }
    /// These and that server.
    #[must_use]
    pub fn with(self, server: NodeId) -> Servers {
        Servers(self.0 | Self::bit(server))
    }
    /// These without that server.
    #[must_use]
    pub fn without(self, server: NodeId) -> Servers {
        Servers(self.0 & !Self::bit(server))
    }
    /// Whether it is one of them.
    #[must_use]
    pub fn contains(self, server: NodeId) -> bool {
        self.0 & Self::bit(server) != 0
    }
    /// How many they are.
    #[must_use]
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }
    /// Nobody is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn bit(server: NodeId) -> u8 {
        1u8.checked_shl(u32::from(server.0.wrapping_sub(1))).unwrap_or(0)
    }
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries((1..=8).filter(|n| self.contains(NodeId(*n)))).finish()
    }
}

/// The number of a proposal: higher rounds first, then the proposer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Raised above every round seen.
    pub round: u64,
    /// The server that proposes.
    pub proposer: NodeId,
}

/// What a group's register holds (DESIGN 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegisterValue {
    /// Raised at each change of holder, and only then.
    pub epoch: Epoch,
    /// Who may run the group.
    pub holder: Option<NodeId>,
    /// Whose copies hold every acknowledged write.
    pub in_sync: Servers,
}

/// A value at a ballot: accepted by one acceptor, or chosen by a quorum; the message or field says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Proposal {
    /// Its number.
    pub ballot: Ballot,
    /// What it would make of the register.
    pub value: RegisterValue,
}

/// A step of the register's protocol (CASPaxos).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum RegisterMessage {
    /// Proposer: promise not to take part in lower ballots, and tell what was accepted.
    Prepare { ballot: Ballot },
    /// Acceptor: promised, durably.
    Promise { ballot: Ballot, accepted: Option<Proposal> },
    /// Proposer: accept this.
    Accept { proposal: Proposal },
    /// Acceptor: accepted, durably.
    Accepted { ballot: Ballot },
    /// Acceptor: a higher ballot was promised.
    Refused { ballot: Ballot, promised: Ballot },
    /// A quorum accepted this: a fact, whoever says it.
    Chosen { proposal: Proposal },
    /// Tell what is promised and accepted; changes nothing.
    Ask,
    /// Answer to `Ask`.
    State { promised: Ballot, accepted: Option<Proposal> },
}

/// A server's acceptor state of one group, told to a witness that lost its memory or does not know the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// Of this group.
    pub group: GroupId,
    /// Highest ballot promised.
    pub promised: Ballot,
    /// Highest proposal accepted.
    pub accepted: Option<Proposal>,
}

/// What one server tells the other so that both pages show the same (DESIGN 8). Never decided upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusGossip {
    /// Who tells.
    pub from: NodeId,
    /// Its readings.
    pub readings: Option<Readings>,
    /// The groups that run, start or stop there, or failed there.
    pub groups: Vec<GroupView>,
    /// The sets of groups it holds.
    pub sets: Vec<SetView>,
    /// The links as it sees them.
    pub links: Vec<LinkView>,
    /// The last failover it carried out.
    pub incident: Option<Incident>,
    /// Server states as it sees them.
    pub servers: Vec<ServerEntry>,
}

/// Everything that travels over a cluster channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum ClusterMessage {
    /// First message of a server on a channel, to the twin and to the witness.
    Hello { from: NodeId, host: Incarnation, node: Incarnation, config_version: u64 },
    /// A step of a group's register.
    Register { group: GroupId, message: RegisterMessage },
    /// Witness to server, first and at each change: its memory, and the groups it has a vote in.
    WitnessSays { incarnation: Incarnation, votes: Vec<GroupId> },
    /// Server to witness: its acceptors, for this life of the witness's memory.
    Introduce { witness: Incarnation, groups: Vec<Introduction> },
    /// Server to twin, once a second and when what it tells changes.
    Status(Box<StatusGossip>),
    /// Server to twin: events it recorded, oldest first; known ones are ignored (E5).
    Events { events: Vec<Event> },
    /// Server to twin: its configuration; the higher version wins (E1). Answered by node, not by the engine.
    ConfigOffer { config: Box<ClusterConfig> },
    /// The twin stored that version.
    ConfigTaken { version: u64 },
    /// The twin keeps its own; the reason is for a person.
    ConfigRefused { version: u64, reason: String },
    /// Answered at once by `Pong` with the same number.
    Ping { number: u64 },
    /// Answer to `Ping`.
    Pong { number: u64 },
}

/// A message that cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecFault {
    /// Longer than its limit.
    #[error("message of {found} bytes: at most {limit} are allowed")]
    TooLong {
        /// Its length.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Another version of the protocol.
    #[error("protocol version {found}: this program speaks {known}; bring both servers to one release")]
    Version {
        /// Its version.
        found: u8,
        /// Ours.
        known: u8,
    },
    /// Not a message.
    #[error("not a valid message")]
    Malformed,
    /// The tag does not fit: another key, or a changed message.
    #[error("the tag does not fit: the servers hold different cluster keys, or the message was changed")]
    Tag,
}

/// One message as bytes: version, then postcard.
pub fn encode(message: &ClusterMessage) -> Result<Vec<u8>, CodecFault> {
    let bytes = postcard::to_extend(message, vec![CLUSTER_VERSION]).map_err(|_| CodecFault::Malformed)?;
    if bytes.len() > CLUSTER_BYTES_MAX {
        return Err(CodecFault::TooLong { found: bytes.len(), limit: CLUSTER_BYTES_MAX });
    }
    Ok(bytes)
}

/// The message in `bytes`, which must contain exactly one.
pub fn decode(bytes: &[u8]) -> Result<ClusterMessage, CodecFault> {
    if bytes.len() > CLUSTER_BYTES_MAX {
        return Err(CodecFault::TooLong { found: bytes.len(), limit: CLUSTER_BYTES_MAX });
    }
    let (version, rest) = bytes.split_first().ok_or(CodecFault::Malformed)?;
    if *version != CLUSTER_VERSION {
        return Err(CodecFault::Version { found: *version, known: CLUSTER_VERSION });
    }
    match postcard::take_from_bytes(rest) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(CodecFault::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept() -> ClusterMessage {
        let value =
            RegisterValue { epoch: Epoch(7), holder: Some(NodeId(2)), in_sync: Servers::only(NodeId(2)) };
        let proposal = Proposal { ballot: Ballot { round: 3, proposer: NodeId(2) }, value };
        ClusterMessage::Register { group: GroupId(1), message: RegisterMessage::Accept { proposal } }
    }

    #[test]
    fn a_message_survives_the_codec() {
        let bytes = encode(&accept()).unwrap();
        assert_eq!(decode(&bytes), Ok(accept()));
    }

    #[test]
    fn anything_else_is_refused() {
        let bytes = encode(&accept()).unwrap();
        assert_eq!(decode(&[]), Err(CodecFault::Malformed));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(CodecFault::Malformed));
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert_eq!(decode(&longer), Err(CodecFault::Malformed));
        let mut other = bytes;
        other[0] = 9;
        assert_eq!(decode(&other), Err(CodecFault::Version { found: 9, known: CLUSTER_VERSION }));
    }

    #[test]
    fn sets_of_servers_add_and_remove() {
        let both = Servers::only(NodeId(1)).with(NodeId(2));
        assert_eq!(both, Servers::BOTH);
        assert_eq!(both.count(), 2);
        assert!(!both.without(NodeId(1)).contains(NodeId(1)));
        assert!(!Servers::BOTH.contains(NodeId(0)));
        assert_eq!(Servers::NONE.with(NodeId(200)), Servers::NONE);
    }
}
