//! The heartbeat: one authenticated datagram on every link, every `heartbeat_ms`.
//!
//! It is the sign of life, the lease's request (a nonce) and grant (the echo of the twin's nonce), and it carries the small
//! facts on which both servers must agree soon: server states, who holds which group, what is wanted of a group.
//!
//! Datagram: version (1 byte), counter (8 bytes, little endian), postcard of [`Heartbeat`], tag (16 bytes: keyed BLAKE3 over
//! all before it). The counter grows with every datagram of one node process; [`ReplayGuard`] refuses old ones.

use crate::cluster::{CodecFault, Servers};
use serde::{Deserialize, Serialize};
use wire::view::ServerState;
use wire::{Epoch, GroupId, Incarnation, LinkId, NodeId, WallClock};

/// Version of the datagram; its first byte.
pub const HEARTBEAT_VERSION: u8 = 1;
/// Longest datagram: fits one Ethernet frame with IPv6 and UDP headers (1452 bytes); 64 groups need some 1400 at most.
pub const HEARTBEAT_BYTES_MAX: usize = 1_440;

const HEAD: usize = 1 + 8;
const TAG: usize = 16;
/// Separates this use of the cluster key from every other.
const KEY_CONTEXT: &str = "futago 2026 heartbeat v1";
/// Node lives that `ReplayGuard` remembers: more restarts within the time a datagram is of use do not happen.
const LIVES_MAX: usize = 64;

/// One sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender.
    pub from: NodeId,
    /// Life of its host (DESIGN 6).
    pub host: Incarnation,
    /// Life of its node process.
    pub node: Incarnation,
    /// Grows by one on each link; gaps are losses.
    pub sequence: u64,
    /// The sender asks for its lease with this number; the lease runs from when it was sent. The same on all links.
    pub nonce: u64,
    /// The last heartbeat of the receiver that came over this link.
    pub echo: Option<Echo>,
    /// The receiver's latest nonce, granted for the groups below whose `says.granted` is set.
    pub grant: Option<Grant>,
    /// Server states as the sender sees them, by ascending id.
    pub servers: Vec<ServerEntry>,
    /// What the sender knows of each group, by ascending id.
    pub groups: Vec<GroupBeat>,
    /// Links on which the sender's host sees no carrier.
    pub no_carrier: Vec<LinkId>,
    /// The sender reaches the witness, and the witness votes.
    pub witness: bool,
    /// Version of the sender's configuration.
    pub config_version: u64,
    /// Maintenance.
    pub upkeep: Upkeep,
}

/// "I heard you": makes a link two-way, and measures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Life of the receiver's node process that was heard.
    pub node: Incarnation,
    /// Its sequence on this link.
    pub sequence: u64,
    /// How long ago it came, in microseconds.
    pub held_us: u64,
}

/// A grant of the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Life of the node process that asked.
    pub node: Incarnation,
    /// Its nonce.
    pub nonce: u64,
}

/// A server's state as somebody sees it; of two entries the one with the higher version counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServerEntry {
    /// Raised with each change, by whoever makes it.
    pub version: u64,
    /// Who made the change; decides between equal versions.
    pub author: NodeId,
    /// Of this server.
    pub server: NodeId,
    /// Its state (A4).
    pub state: ServerState,
    /// Coming back: its sets are being rebuilt.
    pub recovering: bool,
    /// An operator stops it: its groups are leaving.
    pub leaving: bool,
    /// When it got into that state.
    pub since: WallClock,
}

/// What a sender knows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupBeat {
    /// The group.
    pub group: GroupId,
    /// Epoch of the value it knows to be chosen.
    pub epoch: Epoch,
    /// Its holder.
    pub holder: Option<NodeId>,
    /// Its servers in sync.
    pub in_sync: Servers,
    /// What the sender vouches for.
    pub says: Says,
    /// The sender's own part in it.
    pub part: Part,
    /// What is wanted.
    pub wanted: Wanted,
}

/// What a sender vouches for, of a group; one byte in the datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", from = "u8")]
pub struct Says {
    /// `Heartbeat::grant` is valid for this group, at this epoch.
    pub granted: bool,
    /// The sender's copy has all that it is counted for: its host did not go down without an orderly end, or the copy was
    /// made equal since.
    pub whole: bool,
    /// As holder: the receiver's copy is equal, or was left so in order. Said of the life of the receiver that
    /// `Heartbeat::grant` names: the one that the sender believes in.
    pub twin_whole: bool,
    /// As holder: the own disk fails, and the receiver's copy should be the only one that counts (rule 12).
    pub asks_out: bool,
}

impl From<u8> for Says {
    fn from(bits: u8) -> Says {
        let said = |bit: u8| bits & bit != 0;
        Says { granted: said(1), whole: said(2), twin_whole: said(4), asks_out: said(8) }
    }
}

impl From<Says> for u8 {
    fn from(says: Says) -> u8 {
        let bits = [says.granted, says.whole, says.twin_whole, says.asks_out];
        bits.into_iter().enumerate().fold(0, |all, (at, bit)| all | u8::from(bit) << at)
    }
}

/// What a server does with a group at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// Nothing of it is here; the sets were left clean or are standby.
    Down,
    /// Coming up.
    Starting,
    /// Serves.
    Running,
    /// Going down.
    Stopping,
    /// Could not be stopped.
    Held,
    /// Given up without an orderly end (fenced, disk process lost): the twin may take over once the lease is out.
    GivenUp,
    /// Not yet observed.
    Unknown,
}

/// What is wanted of a group; of two the one with the higher version counts, then the higher author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "WantedBits", from = "WantedBits")]
pub struct Wanted {
    /// Raised with each change; 0: nothing was decided yet.
    pub version: u64,
    /// Who made the change.
    pub author: NodeId,
    /// Whether it shall run.
    pub run: bool,
    /// Where.
    pub on: NodeId,
    /// It came there by a failover.
    pub failed_over: bool,
    /// Servers on which its start failed since an operator last acted (B6: no ping-pong).
    pub failed: Servers,
    /// How far it is brought up there, and what is decided before.
    pub mode: Mode,
    /// An operator keeps it where and as it is: nothing happens to it by itself.
    pub kept: bool,
    /// An operator ordered this, and it has not come about yet: what is kept moves for that alone.
    pub asked: bool,
}

/// [`Wanted`] as it is stored and sent: 64 of them fit a datagram.
#[derive(Serialize, Deserialize)]
struct WantedBits {
    version: u64,
    author: NodeId,
    on: NodeId,
    /// 1 run, 2 failed over, 4 kept, 8 asked.
    bits: u8,
    failed: Servers,
    mode: Mode,
}

impl From<WantedBits> for Wanted {
    fn from(packed: WantedBits) -> Wanted {
        let WantedBits { version, author, on, bits, failed, mode } = packed;
        let is = |bit: u8| bits & bit != 0;
        let (run, failed_over, kept, asked) = (is(1), is(2), is(4), is(8));
        Wanted { version, author, run, on, failed_over, failed, mode, kept, asked }
    }
}

impl From<Wanted> for WantedBits {
    fn from(wanted: Wanted) -> WantedBits {
        let Wanted { version, author, run, on, failed_over, failed, mode, kept, asked } = wanted;
        let all = [run, failed_over, kept, asked];
        let bits = all.into_iter().enumerate().fold(0, |all, (at, bit)| all | u8::from(bit) << at);
        WantedBits { version, author, on, bits, failed, mode }
    }
}

/// Maintenance, as somebody knows it: nothing happens by itself. Of two the higher one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Upkeep {
    /// Raised with each change.
    pub version: u64,
    /// Who made it; decides between equal versions.
    pub author: NodeId,
    /// Maintenance.
    pub on: bool,
}

/// What a group is brought up for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// To serve users: all of it, with failover.
    #[default]
    Serve,
    /// By an administrator's permission: its mirror sets only, on that server only (C8).
    Access,
    /// The same, until the other server's copies are built from there.
    Build,
    /// The copies of that server are declared good; nothing is brought up.
    Force,
    /// They are taken although not known to be newest, then [`Mode::Access`].
    ForceAccess,
    /// By itself: the newest copies are where the group may not run; its sets only, until the other server's copies are equal, then
    /// [`Mode::Serve`] there.
    Rebuild,
}

fn keyed(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    let derived = blake3::derive_key(KEY_CONTEXT, key);
    *blake3::keyed_hash(&derived, bytes).as_bytes()
}

/// One datagram. `counter` must grow with every datagram this node process sends.
pub fn encode(beat: &Heartbeat, counter: u64, key: &[u8; 32]) -> Result<Vec<u8>, CodecFault> {
    let mut head = Vec::with_capacity(512);
    head.push(HEARTBEAT_VERSION);
    head.extend_from_slice(&counter.to_le_bytes());
    let mut bytes = postcard::to_extend(beat, head).map_err(|_| CodecFault::Malformed)?;
    let tag = keyed(key, &bytes);
    bytes.extend_from_slice(&tag[..TAG]);
    if bytes.len() > HEARTBEAT_BYTES_MAX {
        return Err(CodecFault::TooLong { found: bytes.len(), limit: HEARTBEAT_BYTES_MAX });
    }
    Ok(bytes)
}

/// The counter and heartbeat of a datagram whose tag fits.
pub fn decode(bytes: &[u8], key: &[u8; 32]) -> Result<(u64, Heartbeat), CodecFault> {
    if bytes.len() > HEARTBEAT_BYTES_MAX {
        return Err(CodecFault::TooLong { found: bytes.len(), limit: HEARTBEAT_BYTES_MAX });
    }
    if bytes.len() < HEAD + TAG {
        return Err(CodecFault::Malformed);
    }
    let (signed, tag) = bytes.split_at(bytes.len() - TAG);
    // All 16 bytes are looked at whatever differs, so that timing tells nothing.
    let differs = keyed(key, signed).iter().zip(tag).fold(0, |found, (a, b)| found | (a ^ b));
    if differs != 0 {
        return Err(CodecFault::Tag);
    }
    if signed[0] != HEARTBEAT_VERSION {
        return Err(CodecFault::Version { found: signed[0], known: HEARTBEAT_VERSION });
    }
    let counter = signed[1..HEAD].try_into().map(u64::from_le_bytes).map_err(|_| CodecFault::Malformed)?;
    match postcard::take_from_bytes(&signed[HEAD..]) {
        Ok((beat, [])) => Ok((counter, beat)),
        Ok(_) | Err(_) => Err(CodecFault::Malformed),
    }
}

/// Refuses datagrams that came before; one for each link. A recorded datagram of a life this guard does not know passes once:
/// it cannot echo the receiver's own life, and the engine takes no life for real before it is echoed.
#[derive(Clone, Debug, Default)]
pub struct ReplayGuard {
    lives: std::collections::VecDeque<(Incarnation, u64)>,
}

impl ReplayGuard {
    /// Whether this datagram is newer than every one before of its life.
    pub fn admit(&mut self, beat: &Heartbeat, counter: u64) -> bool {
        if let Some((_, highest)) = self.lives.iter_mut().find(|(node, _)| *node == beat.node) {
            let newer = counter > *highest;
            *highest = counter.max(*highest);
            return newer;
        }
        self.lives.push_back((beat.node, counter));
        if self.lives.len() > LIVES_MAX {
            self.lives.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::limits::GROUPS_MAX;

    const KEY: [u8; 32] = [7; 32];

    fn entry(server: u8) -> ServerEntry {
        ServerEntry {
            version: 40,
            author: NodeId(1),
            server: NodeId(server),
            state: ServerState::Normal,
            recovering: false,
            leaving: false,
            since: WallClock(1_790_000_000_000),
        }
    }

    fn beat(groups: usize) -> Heartbeat {
        let group = |n: usize| GroupBeat {
            group: GroupId(u16::try_from(n).unwrap() + 200),
            epoch: Epoch(20_000),
            holder: Some(NodeId(1)),
            in_sync: Servers::BOTH,
            says: Says { granted: true, whole: false, twin_whole: true, asks_out: true },
            part: Part::Running,
            wanted: Wanted {
                version: 20_000,
                author: NodeId(1),
                run: true,
                on: NodeId(1),
                failed_over: false,
                failed: Servers::NONE,
                mode: Mode::Serve,
                kept: true,
                asked: true,
            },
        };
        Heartbeat {
            from: NodeId(1),
            host: Incarnation([1; 16]),
            node: Incarnation([2; 16]),
            sequence: u64::MAX,
            nonce: u64::MAX,
            echo: Some(Echo { node: Incarnation([3; 16]), sequence: u64::MAX, held_us: u64::MAX }),
            grant: Some(Grant { node: Incarnation([3; 16]), nonce: u64::MAX }),
            servers: vec![entry(1), entry(2)],
            groups: (0..groups).map(group).collect(),
            no_carrier: (0..16).map(LinkId).collect(),
            witness: true,
            config_version: 9,
            upkeep: Upkeep { version: 20_000, author: NodeId(2), on: true },
        }
    }

    #[test]
    fn a_datagram_survives_the_codec_at_every_limit() {
        let bytes = encode(&beat(GROUPS_MAX), 5, &KEY).unwrap();
        assert_eq!(decode(&bytes, &KEY), Ok((5, beat(GROUPS_MAX))));
    }

    #[test]
    fn a_changed_byte_or_another_key_is_refused() {
        let bytes = encode(&beat(2), 5, &KEY).unwrap();
        assert_eq!(decode(&bytes, &[8; 32]), Err(CodecFault::Tag));
        for i in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 1;
            assert_eq!(decode(&changed, &KEY), Err(CodecFault::Tag), "byte {i}");
        }
        assert_eq!(decode(&bytes[..10], &KEY), Err(CodecFault::Malformed));
    }

    #[test]
    fn what_came_before_is_refused() {
        let mut guard = ReplayGuard::default();
        let first = beat(0);
        let second = Heartbeat { node: Incarnation([9; 16]), ..beat(0) };
        assert!(guard.admit(&first, 5));
        assert!(!guard.admit(&first, 5));
        assert!(!guard.admit(&first, 4));
        assert!(guard.admit(&first, 6));
        assert!(guard.admit(&second, 1));
        assert!(!guard.admit(&first, 6), "another life in between changes nothing");
        assert!(guard.admit(&second, 2));
    }
}
