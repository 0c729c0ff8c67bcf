//! How the blocks of a mirror set travel between the servers, and when a write is acknowledged (C4, C11).

use crate::config::{ClusterConfig, LinkConfig, LinkKind};
use crate::ids::SetId;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// When a write is acknowledged in sync (C4). A flush, and a write with FUA, is acknowledged when both disks have flushed; in an
/// asynchronous set when the own disk has. The later one is the looser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WriteMode {
    /// Written on both disks (or in their caches).
    #[default]
    Synchronous,
    /// Written on the own disk, and received whole by the twin's disk process, which writes it whatever becomes of the link.
    /// Any single failure loses nothing; the active server and, before it has written, the twin's disk process or disk
    /// failing together lose what was acknowledged since the last flush.
    SemiSynchronous,
    /// Written on the own disk, a flush flushed there; the twin follows in the same order, as far behind as a bounded journal
    /// allows (32 MiB). The loss of the active server may take that much of what was acknowledged with it, flushed or not; the
    /// twin's copy is always an earlier state: what a disk could hold after a loss of power at that moment.
    Asynchronous,
}

/// Chosen for each mirror set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Encrypted (TLS 1.3). Not said: unless every interconnect is dedicated.
    #[serde(default)]
    pub encrypt: Option<bool>,
    /// Blocks are packed (LZ4) where that makes them smaller: for slow links.
    #[serde(default)]
    pub pack: bool,
    /// When a write is acknowledged.
    #[serde(default)]
    pub mode: WriteMode,
}

/// A network with room for two hosts only is a cable between them, or set up as one.
const DEDICATED_V4: u8 = 30;
/// The same for IPv6 (RFC 6164 allows /127).
const DEDICATED_V6: u8 = 126;

impl LinkConfig {
    /// Nobody else has an address in this network, and none has room.
    #[must_use]
    pub fn is_dedicated(&self) -> bool {
        match self.addresses[0] {
            IpAddr::V4(_) => self.prefix >= DEDICATED_V4,
            IpAddr::V6(_) => self.prefix >= DEDICATED_V6,
        }
    }
}

impl ClusterConfig {
    /// Whether a mirror set's blocks are encrypted between the servers.
    #[must_use]
    pub fn encrypts(&self, set: SetId) -> bool {
        let said = self.set(set).and_then(|set| set.traffic.encrypt);
        let mut interconnects = self.links.iter().filter(|link| link.kind == LinkKind::Interconnect);
        said.unwrap_or_else(|| !interconnects.all(LinkConfig::is_dedicated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SetConfig, TimingConfig};
    use crate::ids::{GroupId, LinkId, NodeId};

    fn link(kind: LinkKind, prefix: u8) -> LinkConfig {
        let addresses = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        LinkConfig { id: LinkId(0), name: "l".into(), kind, addresses, prefix }
    }

    fn encrypts(encrypt: Option<bool>, links: Vec<LinkConfig>) -> bool {
        let set = SetConfig {
            id: SetId(1),
            name: "s".into(),
            group: GroupId(1),
            backing: ["a".into(), "b".into()],
            size: 4096,
            port: 1,
            source: NodeId(1),
            front: crate::config::FrontConfig::default(),
            traffic: Traffic { encrypt, ..Traffic::default() },
        };
        let config = ClusterConfig {
            version: 1,
            name: "c".into(),
            servers: Vec::new(),
            links,
            witness: None,
            sets: vec![set],
            groups: Vec::new(),
            timing: TimingConfig::default(),
            auto_recover: false,
        };
        config.encrypts(SetId(1))
    }

    #[test]
    fn encrypted_unless_every_interconnect_is_dedicated_or_the_operator_says_otherwise() {
        let (wide, narrow) = (link(LinkKind::Interconnect, 24), link(LinkKind::Interconnect, 30));
        let public = link(LinkKind::Public, 24);
        assert!(encrypts(None, vec![wide.clone()]));
        assert!(encrypts(None, vec![narrow.clone(), wide.clone()]));
        assert!(!encrypts(None, vec![narrow.clone(), public]));
        assert!(encrypts(Some(true), vec![narrow]));
        assert!(!encrypts(Some(false), vec![wide]));
    }
}
