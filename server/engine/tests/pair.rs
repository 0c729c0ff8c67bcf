//! Both engines together: start, failover, move, recovery, cuts.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
use common::*;
use peer::control::Role;
use wire::view::{GroupState, ServerState};
use wire::{EventKind, NodeId, Operation, RefusalKind, SetId};

const SET: SetId = SetId(1);

fn in_sync(world: &mut World) -> bool {
    let view = world.view(S1);
    view.sets[0].state == wire::view::SetState::InSync
}

fn ready() -> World {
    let mut world = World::started();
    world.until(5_000, "first start", |w| w.serves(S1));
    world.until(3_000, "first build", in_sync);
    world.until(3_000, "both see it", |w| w.group_state(S2) == (GroupState::Running, Some(S1)));
    world
}

#[test]
fn a_new_cluster_starts_its_group_on_the_source_and_builds_the_twin() {
    let mut world = ready();
    for server in NodeId::BOTH {
        assert_eq!(world.server_state(server, S1), ServerState::Normal);
        assert_eq!(world.server_state(server, S2), ServerState::Normal);
    }
    world.run(10_000);
    assert!(world.serves(S1));
}

#[test]
fn power_loss_of_the_active_server_fails_over_and_recovery_is_one_click() {
    let mut world = ready();
    world.power_off(S1);
    let took = world.until(4_000, "failover", |w| w.serves(S2));
    assert!(took < 2_600, "{took} ms");
    let view = world.view(S2);
    let incident = view.incident.expect("an incident");
    assert!(incident.total_ms.is_some() && incident.parts.len() >= 5, "{incident:?}");
    assert_eq!(world.server_state(S2, S1), ServerState::Down);
    world.run(5_000);
    world.power_on(S1);
    world.until(3_000, "seen", |w| w.server_state(S2, S1) == ServerState::RestartedAfterDown);
    world.run(5_000);
    assert!(world.serves(S2) && !world.serves(S1));
    assert_eq!(world.server_state(S1, S1), ServerState::RestartedAfterDown);
    assert_eq!(
        world.command(S1, Operation::MoveGroup { group: GROUP, to: S1 }),
        Err(RefusalKind::ServerNotRecovered)
    );
    assert_eq!(world.command(S1, Operation::RecoverServer { server: S1 }), Ok(()));
    world.until(5_000, "recovered", |w| w.server_state(S2, S1) == ServerState::Normal && in_sync(w));
    assert_eq!(world.command(S1, Operation::MoveGroup { group: GROUP, to: S1 }), Ok(()));
    world.until(5_000, "moved home", |w| w.serves(S1) && in_sync(w));
    world.run(3_000);
    assert!(world.serves(S1));
    let moved = |e: &wire::Event| matches!(e.kind, EventKind::GroupMoved { .. });
    assert_eq!(world.host(S1).events.iter().filter(|e| moved(e)).count(), 1);
}

#[test]
fn a_fast_reboot_is_a_failure_too() {
    let mut world = ready();
    world.power_off(S1);
    world.run(300);
    world.power_on(S1);
    world.until(4_000, "failover", |w| w.serves(S2));
    assert_eq!(world.server_state(S2, S1), ServerState::RestartedAfterDown);
}

#[test]
fn loss_of_the_standby_leaves_the_group_running_alone() {
    let mut world = ready();
    world.power_off(S2);
    world.run(10_000);
    assert!(world.serves(S1));
    assert!(matches!(world.view(S1).sets[0].state, wire::view::SetState::Alone { good: S1 }));
    world.witness_off();
    world.run(10_000);
    assert!(world.serves(S1), "alone needs nobody");
    world.witness_on();
    world.power_on(S2);
    world.until(3_000, "seen", |w| w.server_state(S1, S2) == ServerState::RestartedAfterDown);
    assert_eq!(world.command(S1, Operation::RecoverServer { server: S2 }), Ok(()));
    world.until(5_000, "recovered", |w| w.server_state(S1, S2) == ServerState::Normal && in_sync(w));
}

#[test]
fn a_cut_pair_has_one_winner_and_heals() {
    let mut world = ready();
    world.cut_witness(S1);
    world.run(2_000);
    assert!(world.serves(S1));
    world.cut_all();
    world.until(4_000, "failover", |w| w.serves(S2));
    assert!(!world.serves(S1));
    world.run(5_000);
    world.mend();
    world.run(5_000);
    assert!(world.serves(S2) && !world.serves(S1), "{}", world.trace());
    assert_eq!(world.server_state(S2, S1), ServerState::RestartedAfterDown);
    assert_eq!(world.server_state(S1, S2), ServerState::Normal);
    assert_eq!(world.command(S2, Operation::RecoverServer { server: S1 }), Ok(()));
    world.until(5_000, "recovered", |w| w.server_state(S1, S1) == ServerState::Normal && in_sync(w));
}

#[test]
fn with_both_links_and_witness_the_holder_stays() {
    let mut world = ready();
    world.cut_all();
    world.run(10_000);
    assert!(world.serves(S1) && !world.serves(S2));
    world.mend();
    world.run(3_000);
    assert!(world.serves(S1));
    assert_eq!(world.server_state(S1, S2), ServerState::RestartedAfterDown, "{}", world.trace());
    assert_eq!(world.server_state(S2, S1), ServerState::Normal);
}

#[test]
fn a_killed_node_process_is_adopted_and_beyond_its_grace_fails_over() {
    let mut world = ready();
    for _ in 0..5 {
        world.node_kill(S1);
        world.run(3_000);
        assert!(world.serves(S1) && !world.serves(S2));
        world.node_start(S1);
        world.run(3_000);
        assert!(world.serves(S1), "{}", world.trace());
        assert!(in_sync(&mut world), "{:?}\n{}", world.view(S1).sets, world.trace());
    }
    let starts = |w: &mut World| w.host(S1).log.iter().filter(|l| l.contains("StartScript")).count();
    assert_eq!(starts(&mut world), 1);
    world.node_kill(S1);
    world.until(14_000, "failover after the grace", |w| w.serves(S2));
    world.node_start(S1);
    world.run(3_000);
    assert!(world.serves(S2) && !world.serves(S1));
    assert_eq!(world.server_state(S2, S1), ServerState::RestartedAfterDown);
}

#[test]
fn a_group_is_stopped_and_started_by_an_operator() {
    let mut world = ready();
    assert_eq!(world.command(S2, Operation::StopGroup { group: GROUP }), Ok(()));
    world.until(3_000, "stopped", |w| w.group_state(S1).0 == GroupState::Stopped);
    world.run(3_000);
    assert!(!world.serves(S1) && !world.serves(S2));
    assert_eq!(world.command(S1, Operation::StopGroup { group: GROUP }), Err(RefusalKind::NotRunning));
    assert_eq!(world.command(S1, Operation::StartGroup { group: GROUP, on: S2 }), Ok(()));
    world.until(3_000, "started on the other", |w| w.serves(S2));
    world.until(3_000, "known", |w| w.group_state(S1) == (GroupState::Running, Some(S2)));
    assert_eq!(
        world.command(S1, Operation::StartGroup { group: GROUP, on: S1 }),
        Err(RefusalKind::AlreadyRunning)
    );
    assert_eq!(
        world.command(S1, Operation::MoveGroup { group: GROUP, to: S2 }),
        Err(RefusalKind::AlreadyThere)
    );
}

#[test]
fn stopping_a_server_moves_its_group_and_starting_it_brings_its_copy_back() {
    let mut world = ready();
    assert_eq!(world.command(S1, Operation::StopServer { server: S1 }), Ok(()));
    world.until(5_000, "moved", |w| w.serves(S2));
    world.until(5_000, "stopped", |w| w.server_state(S2, S1) == ServerState::Stopped);
    world.run(3_000);
    assert!(world.serves(S2));
    assert_eq!(world.command(S2, Operation::StartServer { server: S1 }), Ok(()));
    world.until(5_000, "started", |w| w.server_state(S2, S1) == ServerState::Normal && in_sync(w));
    assert!(world.serves(S2));
}

#[test]
fn stopping_the_standby_puts_it_out_and_it_may_be_powered_off_and_on() {
    let mut world = ready();
    assert_eq!(world.command(S1, Operation::StopServer { server: S2 }), Ok(()));
    world.until(5_000, "stopped", |w| w.server_state(S1, S2) == ServerState::Stopped);
    world.power_off(S2);
    world.run(10_000);
    assert!(world.serves(S1));
    assert_eq!(world.server_state(S1, S2), ServerState::Stopped);
    world.power_on(S2);
    world.until(8_000, "back without a click", |w| {
        w.server_state(S1, S2) == ServerState::Normal && in_sync(w)
    });
}

#[test]
fn a_failed_start_goes_to_the_other_server_once() {
    let mut world = ready();
    let failed = engine::input::Outcome::Failed { reason: "exit 1".into() };
    world.host(S2).fail.insert("StartScript".into(), failed.clone());
    assert_eq!(world.command(S1, Operation::MoveGroup { group: GROUP, to: S2 }), Ok(()));
    world.until(8_000, "back", |w| w.serves(S1));
    world.run(3_000);
    world.host(S1).fail.insert("StartScript".into(), failed);
    assert_eq!(world.command(S1, Operation::MoveGroup { group: GROUP, to: S2 }), Ok(()));
    world.run(10_000);
    assert!(!world.serves(S1) && !world.serves(S2));
    assert!(matches!(world.group_state(S1).0, GroupState::Failed { .. }), "{:?}", world.group_state(S1));
    let tries = |w: &mut World, s| w.host(s).log.iter().filter(|l| l.contains("StartScript")).count();
    assert_eq!(tries(&mut world, S2), 2);
    world.host(S1).fail.clear();
    assert_eq!(world.command(S1, Operation::StartGroup { group: GROUP, on: S1 }), Ok(()));
    world.until(5_000, "started again", |w| w.serves(S1));
}

#[test]
fn a_failed_stop_holds_the_group() {
    let mut world = ready();
    let failed = engine::input::Outcome::Failed { reason: "in use by pid 7".into() };
    world.host(S1).fail.insert("Unmount".into(), failed);
    assert_eq!(world.command(S1, Operation::MoveGroup { group: GROUP, to: S2 }), Ok(()));
    world.until(3_000, "held", |w| matches!(w.group_state(S1).0, GroupState::Held { .. }));
    world.run(3_000);
    assert!(matches!(world.group_state(S2).0, GroupState::Held { .. }), "{:?}", world.group_state(S2));
    assert!(!world.serves(S2));
    assert_eq!(world.command(S1, Operation::MoveGroup { group: GROUP, to: S2 }), Err(RefusalKind::Held));
    world.host(S1).fail.clear();
    assert_eq!(world.command(S2, Operation::StopGroup { group: GROUP }), Ok(()));
    world.until(3_000, "stopped", |w| w.group_state(S1).0 == GroupState::Stopped);
}

#[test]
fn a_lost_disk_process_sends_the_group_to_the_twin() {
    let mut world = ready();
    world.host(S1).lost.insert(wire::SetId(1));
    world.restart_disk(S1, wire::SetId(1));
    world.until(8_000, "taken over", |w| w.serves(S2));
}

#[test]
fn after_both_were_down_nothing_starts_unasked_and_automatically_only_when_in_sync() {
    let mut world = ready();
    world.power_off(S1);
    world.until(4_000, "failover", |w| w.serves(S2));
    world.power_off(S2);
    world.run(1_000);
    world.power_on(S1);
    world.run(20_000);
    assert!(!world.serves(S1));
    world.power_on(S2);
    world.run(5_000);
    assert!(!world.serves(S1) && !world.serves(S2));
    assert_eq!(world.command(S2, Operation::RecoverServer { server: S2 }), Ok(()));
    world.until(5_000, "started where the data is newest", |w| w.serves(S2));
    assert_eq!(world.command(S2, Operation::RecoverServer { server: S1 }), Ok(()));
    world.until(5_000, "recovered", |w| w.server_state(S1, S1) == ServerState::Normal && in_sync(w));

    let mut config = config();
    config.auto_recover = true;
    let mut world = World::started_with(config);
    world.until(5_000, "first start", |w| w.serves(S1));
    world.until(3_000, "first build", in_sync);
    world.power_off(S1);
    world.until(4_000, "failover", |w| w.serves(S2));
    world.power_off(S2);
    world.power_on(S1);
    world.run(20_000);
    assert!(!world.serves(S1), "its copy is out of date");
    world.power_on(S2);
    world.until(25_000, "the newest recovers by itself", |w| w.serves(S2));
    world.until(5_000, "and then the other", |w| w.server_state(S1, S1) == ServerState::Normal && in_sync(w));
}

#[test]
fn a_holder_wrongly_judged_by_an_isolated_standby_stays_normal() {
    let mut world = ready();
    world.cut_witness(S2);
    world.cut_all();
    world.run(1_500);
    // Its clock of silence begins anew: it does not judge the standby in its turn.
    world.node_kill(S1);
    world.node_start(S1);
    world.until(2_000, "judged", |w| w.server_state(S2, S1) == ServerState::Down);
    assert_eq!(world.server_state(S1, S2), ServerState::Normal);
    world.mend();
    world.run(3_000);
    assert_eq!(world.server_state(S1, S1), ServerState::Normal, "{}", world.trace());
    assert_eq!(world.server_state(S2, S1), ServerState::Normal, "{}", world.trace());
    assert!(world.serves(S1));
    world.until(5_000, "in sync again", in_sync);
}

#[test]
fn a_server_stops_though_the_node_process_of_a_stopped_groups_holder_was_restarted() {
    let mut world = ready();
    assert_eq!(world.command(S1, Operation::StopGroup { group: GROUP }), Ok(()));
    world.until(3_000, "stopped", |w| w.group_state(S1).0 == GroupState::Stopped);
    world.node_kill(S1);
    world.node_start(S1);
    world.run(3_000);
    assert_eq!(world.command(S1, Operation::StopServer { server: S2 }), Ok(()));
    world.until(5_000, "stopped", |w| w.server_state(S1, S2) == ServerState::Stopped);
}

/// Of no address all are held: the manager of a server that does not hold the group must not take it for half started here.
#[test]
fn a_restarted_node_process_does_not_fence_a_group_without_addresses_that_runs_elsewhere() {
    let mut config = config();
    config.groups[0].addresses.clear();
    let mut world = World::started_with(config);
    world.until(5_000, "first start", |w| w.host(S1).running.contains(&GROUP));
    world.until(3_000, "first build", in_sync);
    world.node_kill(S2);
    world.node_start(S2);
    world.run(5_000);
    for server in [S1, S2] {
        assert_eq!(world.server_state(server, S2), ServerState::Normal, "{}", world.trace());
    }
    assert!(world.host(S1).running.contains(&GROUP));
}

#[test]
fn a_copy_that_crashed_waits_for_the_whole_one_whatever_else_its_server_may_run() {
    let mut config = config();
    config.auto_recover = true;
    let other = wire::config::GroupConfig {
        id: wire::GroupId(2),
        name: "web".into(),
        mounts: Vec::new(),
        addresses: Vec::new(),
        ..config.groups[0].clone()
    };
    config.groups.push(other);
    let mut world = World::started_with(config);
    world.until(5_000, "first start", |w| w.serves(S1));
    world.until(3_000, "first build", in_sync);
    world.run(1_000);
    // The standby lives, with everything, but nobody hears it.
    world.cut_witness(S2);
    world.cut_all();
    world.power_off(S1);
    world.power_on(S1);
    world.run(40_000);
    assert!(!world.serves(S1), "{}", world.trace());
    world.mend();
    world.until(30_000, "the whole copy takes over", |w| w.serves(S2));
}

#[test]
fn a_standby_that_dies_while_the_set_is_left_does_not_hold_the_group() {
    let mut world = ready();
    world.host(S1).disks.get_mut(&SetId(1)).unwrap().slow_leave = true;
    assert_eq!(world.command(S1, Operation::StopGroup { group: GROUP }), Ok(()));
    let role = |w: &mut World| w.host(S1).disks[&SetId(1)].role;
    world.until(2_000, "leaving", |w| role(w) == Role::Deactivating);
    world.power_off(S2);
    world.until(5_000, "left alone", |w| role(w) == Role::Standby);
    world.run(15_000);
    assert_eq!(world.group_state(S1), (GroupState::Stopped, None), "{}", world.trace());
}

#[test]
fn a_start_on_the_copy_that_may_lack_something_is_refused_with_that_reason() {
    let mut world = ready();
    // The holder goes down while its standby is being stopped: that copy is whole, and does not take over.
    world.witness_off();
    world.power_off(S1);
    assert_eq!(world.command(S2, Operation::StopServer { server: S2 }), Ok(()));
    world.until(5_000, "stopped", |w| w.server_state(S2, S2) == ServerState::Stopped);
    // Its disk process does not come up, so that nothing is decided yet.
    world.lose_disk(S2, SetId(1));
    world.power_on(S1);
    world.until(3_000, "the twin is heard", |w| w.server_state(S1, S2) == ServerState::Stopped);
    world.run(500);
    assert_eq!(world.command(S1, Operation::RecoverServer { server: S1 }), Ok(()));
    world.until(3_000, "takes part", |w| w.server_state(S1, S1) == ServerState::Normal);
    let start = Operation::StartGroup { group: GROUP, on: S1 };
    assert_eq!(world.command(S1, start), Err(RefusalKind::CopyMayLack), "{}", world.trace());
    let view = world.view(S1);
    let listed = view.operations.iter().find(|p| p.what == start).unwrap();
    assert_eq!(listed.refused, Some(RefusalKind::CopyMayLack), "greyed for that reason");
    // What the reason says first is possible: the other copy serves.
    world.restart_disk(S2, SetId(1));
    assert_eq!(world.command(S2, Operation::StartServer { server: S2 }), Ok(()));
    world.until(10_000, "runs on the whole copy", |w| w.serves(S2));
}

/// Rule 12: the own disk refuses writes, and nothing of it is seen: the register leaves its copy out, the group goes on where it
/// is, through the twin's disk.
fn served_through() -> World {
    let mut world = ready();
    let epoch = world.view(S1).groups[0].epoch;
    world.break_disk(S1, SET);
    world.until(1_400, "through", |w| w.host(S1).disks[&SET].through);
    assert!(world.host(S2).disks[&SET].shouldered, "before the register is asked");
    world.run(20_000);
    assert!(world.serves(S1) && !world.serves(S2), "{}", world.trace());
    assert_eq!(world.view(S1).groups[0].epoch, epoch);
    assert_eq!(world.group_state(S2), (GroupState::Running, Some(S1)));
    world
}

#[test]
fn a_disk_that_refuses_writes_is_left_out_and_the_group_goes_on_until_it_is_moved() {
    let mut world = served_through();
    assert_eq!(world.command(S1, Operation::MoveGroup { group: GROUP, to: S2 }), Ok(()));
    world.until(8_000, "moved", |w| w.serves(S2));
    world.run(10_000);
    assert!(world.serves(S2) && !world.serves(S1), "{}", world.trace());
}

#[test]
fn a_copy_that_was_left_out_is_never_served_when_its_twin_is_gone() {
    let mut world = served_through();
    world.power_off(S2);
    world.until(4_000, "ended", |w| !w.serves(S1));
    world.run(30_000);
    assert!(!world.serves(S1), "{}", world.trace());
    assert_ne!(world.host(S1).disks[&SET].role, Role::Active);
    world.power_on(S2);
    world.run(3_000);
    let _ = world.command(S2, Operation::RecoverServer { server: S2 });
    world.until(10_000, "the twin serves", |w| w.serves(S2));
}

#[test]
fn a_holder_that_was_left_out_and_dies_is_followed_by_its_twin() {
    let mut world = served_through();
    world.power_off(S1);
    world.until(4_000, "failover", |w| w.serves(S2));
    world.power_on(S1);
    world.run(10_000);
    assert!(world.serves(S2) && !world.serves(S1));
}

#[test]
fn a_failed_disk_whose_twin_does_not_take_it_over_in_time_fails_over() {
    let mut world = ready();
    world.host(S2).disks.get_mut(&SET).unwrap().refuse = Some(peer::control::OrderFault::WrongRole);
    world.break_disk(S1, SET);
    world.run(1_000);
    assert!(world.serves(S1));
    world.until(2_000, "given up", |w| !w.serves(S1));
    world.host(S2).disks.get_mut(&SET).unwrap().refuse = None;
    world.until(10_000, "failover", |w| w.serves(S2));
}
