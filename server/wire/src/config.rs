//! The cluster's configuration: one document, identical on both servers, versioned (E1).

use crate::ids::{GroupId, LinkId, NodeId, SetId};
use crate::limits::{self, NameFault};
use crate::traffic::Traffic;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Everything an operator configures. `version` grows by one with each change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Grows with each change; the higher one wins when the servers meet.
    pub version: u64,
    /// Cluster name (A2).
    pub name: String,
    /// The two servers, by ascending id.
    pub servers: Vec<ServerConfig>,
    /// Heartbeat paths in order of preference; the first is the primary (A6).
    pub links: Vec<LinkConfig>,
    /// The third acceptor of the register (A8).
    pub witness: Option<WitnessConfig>,
    /// Mirror sets.
    pub sets: Vec<SetConfig>,
    /// Failover groups.
    pub groups: Vec<GroupConfig>,
    /// How quickly silence is judged.
    pub timing: TimingConfig,
    /// Whether a server that was down recovers without an operator (A4).
    pub auto_recover: bool,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerConfig {
    /// 1 or 2.
    pub id: NodeId,
    /// Host name (A2).
    pub name: String,
    /// Where its node process serves peers, API and page.
    pub address: SocketAddr,
    /// The page's address as an operator's browser reaches it, `https://host:port`.
    pub page: String,
    /// SHA-256 of its certificate, hexadecimal: peers are pinned by it.
    pub fingerprint: String,
}

/// One heartbeat path: an address of each server in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkConfig {
    /// Position in the order.
    pub id: LinkId,
    /// The name people see.
    pub name: String,
    /// What it carries.
    pub kind: LinkKind,
    /// The address of server 1 and of server 2 in this network.
    pub addresses: [IpAddr; 2],
    /// Length of the network prefix, in bits.
    pub prefix: u8,
}

/// What a link is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LinkKind {
    /// Heartbeats, and blocks of the mirror sets (a mirror connect is an interconnect too, A6).
    Interconnect,
    /// Clients; heartbeats too (A6).
    Public,
}

/// The witness (A8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessConfig {
    /// The name people see.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// SHA-256 of its certificate, hexadecimal.
    pub fingerprint: String,
}

/// One mirror set (C1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetConfig {
    /// Its id.
    pub id: SetId,
    /// Its name (A2).
    pub name: String,
    /// The group that owns it (B1).
    pub group: GroupId,
    /// Backing device or image file on server 1 and server 2.
    pub backing: [String; 2],
    /// Bytes offered to the file system: a multiple of 4096; the smaller backing rules.
    pub size: u64,
    /// TCP port of the block link, the same on both servers.
    pub port: u16,
    /// Whose data is copied to the other at the first build.
    pub source: NodeId,
    /// How its blocks travel between the servers (C11).
    #[serde(default)]
    pub traffic: Traffic,
    /// How its data is reached on the server where it is active (C13).
    #[serde(default)]
    pub front: FrontConfig,
}

/// The front ends of a mirror set; both may be on at once, they show the same disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontConfig {
    /// A block device, which can be mounted.
    pub device: bool,
    /// An NBD export.
    #[serde(default)]
    pub nbd: Option<NbdConfig>,
}

impl Default for FrontConfig {
    fn default() -> Self {
        FrontConfig { device: true, nbd: None }
    }
}

/// An NBD export, served while the set is active. It bears the set's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NbdConfig {
    /// Serve it on the unix socket `run/set-N.nbd` in the server's data folder, for root only.
    pub unix: bool,
    /// Addresses to serve it at, such as a floating IP of the group; none: not over TCP.
    #[serde(default)]
    pub addresses: Vec<std::net::IpAddr>,
    /// TCP port at these addresses.
    #[serde(default = "nbd_port")]
    pub port: u16,
    /// Over TCP, TLS 1.3 to clients with a certificate of the set's own (`futago set certificate`). In clear whoever reaches
    /// the port can read and write the set: on loopback only ([`PLAIN_EXPORT`]).
    #[serde(default = "yes")]
    pub tls: bool,
}

/// Number of the refusal of an export in clear beyond loopback.
pub const PLAIN_EXPORT: u16 = 3_230;

/// The protocol's registered port.
pub const NBD_PORT: u16 = 10_809;

fn nbd_port() -> u16 {
    NBD_PORT
}

fn yes() -> bool {
    true
}

/// One failover group (B1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupConfig {
    /// Its id.
    pub id: GroupId,
    /// Its name (A2).
    pub name: String,
    /// Servers in order of preference; the first is home (B2).
    pub policy: Vec<NodeId>,
    /// Whether it starts with the cluster (B2).
    pub auto_start: bool,
    /// Mounted mirror sets, in the order of mounting.
    pub mounts: Vec<MountConfig>,
    /// Floating IPs (D1).
    pub addresses: Vec<IpAddr>,
    /// Start script, run by /bin/sh (F1).
    pub start_script: String,
    /// Stop script.
    pub stop_script: String,
    /// Seconds either script may take.
    pub script_timeout_s: u32,
    /// How it reacts by itself.
    #[serde(default)]
    pub rules: crate::rules::GroupRules,
}

/// A mirror set's file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountConfig {
    /// The set.
    pub set: SetId,
    /// Where, the same on both servers (C3).
    pub point: String,
    /// `ext4` or `xfs`.
    pub file_system: String,
    /// Make the file system before the first mount if the set is blank (only zeros where a signature would be).
    pub format_blank: bool,
}

/// Intervals in milliseconds (A6); DESIGN 6 asks that lease + bound + margin fit inside the detection time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimingConfig {
    /// Between two heartbeats on a link.
    pub heartbeat_ms: u32,
    /// Silence on every link after which a server counts as down.
    pub detect_ms: u32,
    /// How long a grant of the lease lasts, from the sending of its nonce.
    pub lease_ms: u32,
    /// How long a silent node process may stay away while its disk process answers (`node_grace`).
    pub node_grace_ms: u32,
    /// How long the block link may be away before the twin is put out (`reconnect_grace`).
    pub reconnect_grace_ms: u32,
    /// How long an answer of the twin's disk may take before it is put out (`io_limit`).
    pub io_limit_ms: u32,
}

impl Default for TimingConfig {
    fn default() -> Self {
        TimingConfig {
            heartbeat_ms: 100,
            detect_ms: 2_000,
            lease_ms: 1_300,
            node_grace_ms: 10_000,
            reconnect_grace_ms: 500,
            io_limit_ms: 3_000,
        }
    }
}

/// A named set of intervals: what an operator chooses by word (A1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimingProfile {
    /// A dead server is found after 2.0 s.
    #[default]
    Default,
    /// After 0.3 s: for networks of their own and servers that are not starved.
    Fast,
    /// After 30 s, as of the seed: for interconnects and hosts that fall silent for long.
    Patient,
}

impl TimingProfile {
    /// All of them.
    pub const ALL: [TimingProfile; 3] = [TimingProfile::Default, TimingProfile::Fast, TimingProfile::Patient];

    /// By the word of configurations and command lines.
    #[must_use]
    pub fn by_name(name: &str) -> Option<TimingProfile> {
        TimingProfile::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TimingProfile::Default => "default",
            TimingProfile::Fast => "fast",
            TimingProfile::Patient => "patient",
        }
    }

    /// Its intervals.
    #[must_use]
    pub fn config(self) -> TimingConfig {
        let usual = TimingConfig::default();
        match self {
            TimingProfile::Default => usual,
            // Lease, bound (five thirteenths of it) and margin (50 ms) together are the detection time.
            TimingProfile::Fast => TimingConfig {
                heartbeat_ms: 25,
                detect_ms: 300,
                lease_ms: 180,
                reconnect_grace_ms: 300,
                ..usual
            },
            TimingProfile::Patient => TimingConfig {
                heartbeat_ms: 1_000,
                detect_ms: 30_000,
                lease_ms: 20_000,
                node_grace_ms: 30_000,
                reconnect_grace_ms: 5_000,
                io_limit_ms: 10_000,
            },
        }
    }
}

/// Intervals as they are given: a profile's word, or each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TimingChoice {
    /// By word.
    Profile(TimingProfile),
    /// Each interval.
    Own(TimingConfig),
}

impl TimingChoice {
    /// The intervals.
    #[must_use]
    pub fn config(self) -> TimingConfig {
        match self {
            TimingChoice::Profile(profile) => profile.config(),
            TimingChoice::Own(config) => config,
        }
    }
}

/// A fault in a configuration: the field and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFault {
    /// Path of the field, such as `groups[0].name`.
    pub field: String,
    /// What is allowed there, in English; the page shows the reason's own text by its kind.
    pub remedy: String,
}

fn fault(field: impl Into<String>, remedy: impl Into<String>) -> ConfigFault {
    ConfigFault { field: field.into(), remedy: remedy.into() }
}

fn name_remedy(found: NameFault) -> &'static str {
    match found {
        NameFault::Length => "use 1 to 15 characters",
        NameFault::Character => "use letters, digits, - and _ (server names: no _, no - at either end)",
        NameFault::Reserved => "choose a name that is not a device name (PRN, CON, AUX, NUL, COM1-9, LPT1-9)",
    }
}

impl ClusterConfig {
    /// Checks the rules of A1 to A3, A6, B1 and C1 that concern the document alone. Returns every fault found.
    #[must_use]
    pub fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        self.check_servers(&mut faults);
        self.check_links(&mut faults);
        self.check_sets(&mut faults);
        self.check_groups(&mut faults);
        self.check_timing(&mut faults);
        faults
    }

    fn check_servers(&self, faults: &mut Vec<ConfigFault>) {
        if let Err(found) = limits::check_name(&self.name) {
            faults.push(fault("name", name_remedy(found)));
        }
        let ids: Vec<NodeId> = self.servers.iter().map(|s| s.id).collect();
        if ids != NodeId::BOTH {
            faults.push(fault("servers", "a mirror cluster has exactly two servers, with ids 1 and 2"));
        }
        for (i, server) in self.servers.iter().enumerate() {
            if let Err(found) = limits::check_server_name(&server.name) {
                faults.push(fault(format!("servers[{i}].name"), name_remedy(found)));
            }
        }
        if let [a, b] = self.servers.as_slice()
            && a.name.eq_ignore_ascii_case(&b.name)
        {
            faults.push(fault("servers[1].name", "the two servers need different names"));
        }
    }

    fn check_links(&self, faults: &mut Vec<ConfigFault>) {
        let interconnects = self.links.iter().filter(|l| l.kind == LinkKind::Interconnect).count();
        if interconnects == 0 {
            faults.push(fault("links", "name at least one interconnect; two are recommended"));
        }
        if self.links.len() > limits::INTERCONNECTS_MAX {
            faults.push(fault("links", format!("at most {} links", limits::INTERCONNECTS_MAX)));
        }
        for (i, link) in self.links.iter().enumerate() {
            if usize::from(link.id.0) != i {
                faults.push(fault(format!("links[{i}].id"), "number the links from 0 in their order"));
            }
            if link.addresses[0] == link.addresses[1] {
                faults.push(fault(format!("links[{i}].addresses"), "give each server its own address"));
            }
        }
    }

    fn check_sets(&self, faults: &mut Vec<ConfigFault>) {
        if self.sets.len() > limits::MIRROR_SETS_MAX {
            faults.push(fault("sets", format!("at most {} mirror sets", limits::MIRROR_SETS_MAX)));
        }
        for (i, set) in self.sets.iter().enumerate() {
            if set.size == 0 || !set.size.is_multiple_of(4096) {
                faults.push(fault(format!("sets[{i}].size"), "a multiple of 4096 bytes, more than 0"));
            }
            if !self.groups.iter().any(|g| g.id == set.group) {
                faults.push(fault(
                    format!("sets[{i}].group"),
                    "a mirror set belongs to one group of this cluster",
                ));
            }
            if self.sets[..i].iter().any(|other| other.id == set.id || other.port == set.port) {
                faults.push(fault(format!("sets[{i}]"), "each mirror set needs its own id and port"));
            }
            for side in 0..2 {
                let path = &set.backing[side];
                if self.sets[..i].iter().any(|other| other.backing[side] == *path) {
                    let remedy = format!("name another disk: {path} is another mirror set's");
                    faults.push(fault(format!("sets[{i}].backing[{side}]"), remedy));
                }
            }
            self.check_front(i, set, faults);
        }
    }

    fn check_front(&self, i: usize, set: &SetConfig, faults: &mut Vec<ConfigFault>) {
        let field = |name: &str| format!("sets[{i}].front.{name}");
        let mounted = self.groups.iter().flat_map(|group| &group.mounts).any(|mount| mount.set == set.id);
        if !set.front.device && mounted {
            faults.push(fault(field("device"), "switch it on: a group mounts this set"));
        }
        let Some(nbd) = &set.front.nbd else {
            if !set.front.device {
                faults.push(fault(field("device"), "switch on the device, the NBD export or both"));
            }
            return;
        };
        if !nbd.unix && nbd.addresses.is_empty() {
            faults.push(fault(field("nbd"), "name an address, or switch on the unix socket"));
        }
        if nbd.addresses.len() > limits::EXPORT_ADDRESSES_MAX {
            faults.push(fault(
                field("nbd.addresses"),
                format!("at most {} addresses", limits::EXPORT_ADDRESSES_MAX),
            ));
        }
        if let Some(address) = nbd.addresses.iter().find(|address| !nbd.tls && !address.is_loopback()) {
            let remedy = format!(
                "switch it on, or serve the export on loopback or the unix socket only: at {address} whoever reaches the \
                 port could read and write the set in clear. M-{PLAIN_EXPORT}"
            );
            faults.push(fault(field("nbd.tls"), remedy));
        }
        let link = self.sets.iter().any(|other| other.port == nbd.port);
        let twice = self.sets[..i].iter().filter_map(|other| other.front.nbd.as_ref());
        let twice = twice.filter(|other| !other.addresses.is_empty()).any(|other| other.port == nbd.port);
        if !nbd.addresses.is_empty() && (nbd.port == 0 || link || twice) {
            faults.push(fault(
                field("nbd.port"),
                "each export needs a port of its own, not that of a block link",
            ));
        }
    }

    fn check_groups(&self, faults: &mut Vec<ConfigFault>) {
        if self.groups.len() > limits::GROUPS_MAX {
            faults.push(fault("groups", format!("at most {} groups", limits::GROUPS_MAX)));
        }
        for (i, group) in self.groups.iter().enumerate() {
            if let Err(found) = limits::check_name(&group.name) {
                faults.push(fault(format!("groups[{i}].name"), name_remedy(found)));
            }
            let twice =
                self.groups[..i].iter().any(|o| o.id == group.id || o.name.eq_ignore_ascii_case(&group.name));
            if twice {
                faults.push(fault(
                    format!("groups[{i}].name"),
                    "group names and ids are unique, without regard to case",
                ));
            }
            if group.policy.is_empty() || group.policy.iter().any(|n| !NodeId::BOTH.contains(n)) {
                faults.push(fault(
                    format!("groups[{i}].policy"),
                    "name one or both servers, in order of preference",
                ));
            }
            for (m, mount) in group.mounts.iter().enumerate() {
                let field = format!("groups[{i}].mounts[{m}]");
                if !self.sets.iter().any(|s| s.id == mount.set && s.group == group.id) {
                    faults.push(fault(field.clone(), "mount a mirror set that belongs to this group"));
                }
                if !mount.point.starts_with('/') {
                    faults.push(fault(field.clone(), "the mount point is an absolute path"));
                }
                if !["ext4", "xfs"].contains(&mount.file_system.as_str()) {
                    faults.push(fault(field, "the file system is ext4 or xfs"));
                }
            }
            group.rules.check(&format!("groups[{i}].rules"), faults);
            if group.start_script.len().max(group.stop_script.len()) > limits::SCRIPT_BYTES_MAX {
                faults.push(fault(format!("groups[{i}].start_script"), "a script has at most 65536 bytes"));
            }
        }
    }

    fn check_timing(&self, faults: &mut Vec<ConfigFault>) {
        let t = &self.timing;
        if t.heartbeat_ms == 0 || t.detect_ms < 3 * t.heartbeat_ms {
            faults.push(fault("timing.detect_ms", "at least three heartbeat intervals"));
        }
        if t.lease_ms < 3 * t.heartbeat_ms || u64::from(t.lease_ms) * 3 / 2 > u64::from(t.detect_ms) {
            faults.push(fault(
                "timing.lease_ms",
                "at least three heartbeats and at most two thirds of detect_ms",
            ));
        }
    }

    /// The server with this id.
    #[must_use]
    pub fn server(&self, id: NodeId) -> Option<&ServerConfig> {
        self.servers.iter().find(|s| s.id == id)
    }
    /// The group with this id.
    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<&GroupConfig> {
        self.groups.iter().find(|g| g.id == id)
    }
    /// The set with this id.
    #[must_use]
    pub fn set(&self, id: SetId) -> Option<&SetConfig> {
        self.sets.iter().find(|s| s.id == id)
    }
}
