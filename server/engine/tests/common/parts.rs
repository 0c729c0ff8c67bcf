//! The configuration of the tests' cluster, and one side of a mirror set without data.

use super::{GROUP, S1, S2};
use peer::control::{DiskStatus, OrderFault, Role};
use wire::config::*;
use wire::*;

pub fn config() -> ClusterConfig {
    let server = |n: u8| ServerConfig {
        id: NodeId(n),
        name: format!("server{n}"),
        address: format!("10.0.0.{n}:29000").parse().unwrap(),
        page: format!("https://10.0.0.{n}:29000"),
        fingerprint: String::new(),
    };
    let link = |n: u8, kind| LinkConfig {
        id: LinkId(n),
        name: format!("link{n}"),
        kind,
        addresses: [format!("10.{n}.0.1").parse().unwrap(), format!("10.{n}.0.2").parse().unwrap()],
        prefix: 24,
    };
    ClusterConfig {
        version: 1,
        name: "test".into(),
        servers: vec![server(1), server(2)],
        links: vec![link(0, LinkKind::Interconnect), link(1, LinkKind::Public)],
        witness: Some(WitnessConfig {
            name: "witness".into(),
            address: "10.0.0.9:29001".parse().unwrap(),
            fingerprint: String::new(),
        }),
        sets: vec![SetConfig {
            id: SetId(1),
            name: "data".into(),
            group: GROUP,
            backing: ["/a".into(), "/b".into()],
            size: 1 << 20,
            port: 29100,
            source: S1,
            traffic: wire::traffic::Traffic::default(),
            front: wire::config::FrontConfig::default(),
        }],
        groups: vec![GroupConfig {
            id: GROUP,
            name: "files".into(),
            policy: vec![S1, S2],
            auto_start: true,
            mounts: vec![MountConfig {
                set: SetId(1),
                point: "/mnt/data".into(),
                file_system: "ext4".into(),
                format_blank: true,
            }],
            addresses: vec!["10.1.0.100".parse().unwrap()],
            start_script: "start".into(),
            stop_script: "stop".into(),
            script_timeout_s: 30,
            rules: wire::rules::GroupRules::default(),
        }],
        timing: TimingConfig::default(),
        auto_recover: false,
    }
}

/// One side of a set: no data, only roles and what the engine sees of them.
#[derive(Clone, Debug)]
pub struct Disk {
    pub role: Role,
    pub epoch: Epoch,
    pub holder: Option<NodeId>,
    pub needs_twin: bool,
    pub mode: wire::traffic::WriteMode,
    pub equal: bool,
    /// As standby: made equal since its process started.
    pub made_equal: bool,
    pub allow: bool,
    pub lease: Option<Option<Time>>,
    pub last_grant: Option<Time>,
    pub present: bool,
    /// A deactivation ends only when the twin is not needed: its last flush is on the way to it.
    pub slow_leave: bool,
    /// The deactivation under way.
    pub leaving: Option<peer::control::Ticket>,
    /// An operator's force, as told.
    pub overruled: Option<bool>,
    /// Somebody has its block device open: it is not left.
    pub in_use: bool,
    /// A new disk: nothing is on it.
    pub blank: bool,
    /// It refuses writes; its process tells so.
    pub bad: bool,
    /// Its process serves through the twin.
    pub through: bool,
    /// As standby: told to be the only copy that counts.
    pub shouldered: bool,
    /// Orders fail with this until cleared.
    pub refuse: Option<OrderFault>,
    pub said: Option<DiskStatus>,
}

impl Disk {
    pub fn new() -> Disk {
        Disk {
            role: Role::Standby,
            epoch: Epoch(0),
            holder: None,
            needs_twin: false,
            mode: wire::traffic::WriteMode::Synchronous,
            equal: false,
            made_equal: false,
            allow: false,
            lease: None,
            last_grant: None,
            present: false,
            slow_leave: false,
            leaving: None,
            overruled: None,
            blank: false,
            in_use: false,
            bad: false,
            through: false,
            shouldered: false,
            refuse: None,
            said: None,
        }
    }
}
