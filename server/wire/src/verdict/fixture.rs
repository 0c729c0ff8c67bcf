//! A healthy two-server cluster for the tests of verdicts and texts; each test changes what it is about.

use crate::alert::{Event, EventKind};
use crate::command::Operation;
use crate::config::LinkKind;
use crate::ids::{Epoch, GroupId, LinkId, NodeId, Revision, SetId, WallClock};
use crate::view::{
    ClusterView, Forecast, GroupState, GroupView, LinkState, LinkView, Outcome, Possible, Readings,
    ServerState, ServerView, SetState, SetView, Standby, WitnessView,
};

/// The clock of the fixture: 2026-11-22 14:02:31 UTC.
pub(crate) const AT: WallClock = WallClock(1_795_356_151_000);
/// The fixture's first group and its mirror set.
pub(crate) const FILES: GroupId = GroupId(1);
/// The mirror set of [`FILES`].
pub(crate) const MS_FILES: SetId = SetId(1);
/// The two servers.
pub(crate) const ONE: NodeId = NodeId(1);
/// The other one.
pub(crate) const TWO: NodeId = NodeId(2);

fn server(id: NodeId) -> ServerView {
    ServerView {
        id,
        name: format!("server{}", id.0),
        state: ServerState::Normal,
        since: WallClock(AT.0 - 61 * 86_400_000),
        recovering: false,
        node_away: false,
        page: format!("https://127.0.0.1:844{}", id.0),
        readings: Some(Readings {
            cpu_percent: 12 * id.0,
            memory_percent: 41,
            uptime_s: 61 * 86_400,
            system: "Debian 12".to_owned(),
        }),
    }
}

fn link(id: u8, name: &str, kind: LinkKind, network: &str, us: u64) -> LinkView {
    LinkView {
        id: LinkId(id),
        name: name.to_owned(),
        kind,
        network: network.to_owned(),
        primary: id == 0,
        carries_blocks: id == 0,
        state: LinkState::Up,
        no_cable_at: None,
        round_trip_us: Some(us),
        loss_percent: 0,
    }
}

fn group(id: u16, name: &str, at: NodeId) -> GroupView {
    GroupView {
        id: GroupId(id),
        name: name.to_owned(),
        policy: vec![at, at.twin()],
        state: GroupState::Running,
        active: Some(at),
        since: WallClock(AT.0 - 86_400_000),
        failed_over: false,
        addresses: vec![std::net::IpAddr::from([192, 168, 10, 49 + u8::try_from(id).unwrap_or(0)])],
        mounts: vec![format!("/srv/{name}")],
        sets: vec![SetId(id)],
        epoch: Epoch(7),
        steps: Vec::new(),
        standby: Standby::Ready,
        command: None,
        kept: false,
    }
}

fn set(id: u16, name: &str) -> SetView {
    SetView {
        id: SetId(id),
        name: name.to_owned(),
        group: GroupId(id),
        size: 480_000_000_000,
        backing: ["/dev/sdb".to_owned(), "/dev/sdb".to_owned()],
        state: SetState::InSync,
        permitted: None,
        dirty_blocks: 0,
        bytes_per_s: 38_000_000,
        next_fast: true,
        fronts: vec!["/dev/loop0".to_owned()],
        old: None,
        put_back: false,
        verify: None,
        verified: None,
        mode: crate::traffic::WriteMode::Synchronous,
        mode_in_force: crate::traffic::WriteMode::Synchronous,
        behind: None,
        mode_refused: None,
    }
}

/// Both servers normal, `files` on server 1 and `db` on server 2, everything in sync.
pub(crate) fn healthy() -> ClusterView {
    let moves = |from: NodeId, group: u16, ms| Forecast {
        server: from,
        outcome: Outcome::Moves { about_ms: ms },
        groups: vec![GroupId(group)],
    };
    let possible = |what| Possible { what, refused: None };
    let events = [
        EventKind::ConfigApplied { version: 41 },
        EventKind::GroupMoved { group: GroupId(2), from: ONE, to: TWO, took_ms: 1_204 },
        EventKind::LinkUp { link: LinkId(1) },
        EventKind::LinkLost { link: LinkId(1), cable: Some(TWO) },
    ];
    let event = |(i, kind): (usize, &EventKind)| {
        let i = u64::try_from(i).unwrap_or(0);
        Event { origin: ONE, number: 100 - i, at: WallClock(AT.0 - i * 30_000_000), kind: kind.clone() }
    };
    ClusterView {
        revision: Revision(7),
        server: ONE,
        at: AT,
        cluster: "office-tokyo".to_owned(),
        config_version: 41,
        servers: vec![server(ONE), server(TWO)],
        links: vec![
            link(0, "Interconnect 1", LinkKind::Interconnect, "10.0.0.0/24", 180),
            link(1, "Interconnect 2", LinkKind::Interconnect, "10.0.1.0/24", 210),
            link(2, "Public LAN", LinkKind::Public, "192.168.10.0/24", 420),
        ],
        witness: Some(WitnessView {
            name: "nas01".to_owned(),
            up: true,
            votes: true,
            round_trip_us: Some(1_100),
        }),
        groups: vec![group(1, "files", ONE), group(2, "db", TWO)],
        sets: vec![set(1, "ms-files"), set(2, "ms-db")],
        events: events.iter().enumerate().map(event).collect(),
        incident: None,
        forecasts: vec![moves(ONE, 1, 2_000), moves(TWO, 2, 3_000)],
        operations: vec![
            possible(Operation::MoveGroup { group: FILES, to: TWO }),
            possible(Operation::StopGroup { group: FILES }),
            possible(Operation::MoveGroup { group: GroupId(2), to: ONE }),
            possible(Operation::StopGroup { group: GroupId(2) }),
            possible(Operation::StopServer { server: ONE }),
            possible(Operation::StopServer { server: TWO }),
        ],
        halted: None,
        maintenance: false,
    }
}
