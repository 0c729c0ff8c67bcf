//! The mirror administrator's acts on both engines: what the table allows, what the copies say, and what then happens (C8).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
use common::*;
use engine::input::Input;
use peer::control::Role;
use wire::view::{GroupState, ServerState, SetState};
use wire::{EventKind, NodeId, Operation, RefusalKind, SetId};

const SET: SetId = SetId(1);

fn in_sync(world: &mut World) -> bool {
    world.view(S1).sets[0].state == SetState::InSync
}

fn ready() -> World {
    let mut world = World::started();
    world.until(5_000, "first start", |w| w.serves(S1));
    world.until(3_000, "first build", in_sync);
    world.until(3_000, "both see it", |w| w.group_state(S2) == (GroupState::Running, Some(S1)));
    world
}

/// Both servers lost power and are up again; nobody recovers them.
fn both_restarted() -> World {
    let mut world = ready();
    world.run(3_000);
    world.power_off(S1);
    world.power_off(S2);
    world.run(500);
    for server in NodeId::BOTH {
        world.power_on(server);
    }
    let restarted = |w: &mut World| {
        let is = |w: &mut World, at, of| w.server_state(at, of) == ServerState::RestartedAfterDown;
        NodeId::BOTH.into_iter().all(|at| is(w, at, S1) && is(w, at, S2))
    };
    world.until(5_000, "both restarted", restarted);
    world.run(2_000);
    world
}

fn permit(on: NodeId) -> Operation {
    Operation::PermitSet { set: SET, on }
}

fn restrict(on: NodeId) -> Operation {
    Operation::RestrictSet { set: SET, on }
}

fn build(to: NodeId) -> Operation {
    Operation::BuildSet { set: SET, to }
}

fn force(good: NodeId) -> Operation {
    Operation::ForceRecovery { set: SET, good }
}

fn force_permit(on: NodeId) -> Operation {
    Operation::ForcePermit { set: SET, on }
}

fn exchange(server: NodeId) -> Operation {
    Operation::ExchangeDisk { set: SET, server }
}

fn role(world: &mut World, server: NodeId) -> Role {
    world.host(server).disks[&SET].role
}

fn told(world: &mut World, server: NodeId, what: impl Fn(&EventKind) -> bool) -> usize {
    world.host(server).events.iter().filter(|event| what(&event.kind)).count()
}

#[test]
fn a_set_whose_group_is_active_or_inactive_is_left_alone() {
    let mut world = ready();
    world.run(1_000);
    let all = |world: &mut World, reason| {
        for what in [permit(S1), restrict(S1), force(S2), force_permit(S2)] {
            assert_eq!(world.command(S1, what), Err(reason), "{what:?}");
        }
        assert_eq!(world.command(S1, build(S2)), Err(RefusalKind::SetWorks));
        assert_eq!(world.command(S2, exchange(S2)), Err(RefusalKind::CopyCounts));
        assert_eq!(world.command(S1, exchange(S2)), Err(RefusalKind::OnlyThere));
    };
    all(&mut world, RefusalKind::SetActive);
    assert_eq!(world.command(S1, Operation::StopGroup { group: GROUP }), Ok(()));
    world.until(3_000, "stopped", |w| w.group_state(S1) == (GroupState::Stopped, None));
    world.run(1_000);
    all(&mut world, RefusalKind::SetInactive);
    let unknown = Operation::PermitSet { set: SetId(9), on: S1 };
    assert_eq!(world.command(S1, unknown), Err(RefusalKind::UnknownSet));
    // The page greys by the same answers.
    let view = world.view(S1);
    let listed = |what| view.operations.iter().find(|p| p.what == what).unwrap().refused;
    assert_eq!(listed(permit(S2)), Some(RefusalKind::SetInactive));
    assert_eq!(listed(exchange(S2)), Some(RefusalKind::OnlyThere));
}

#[test]
fn after_both_were_down_a_set_is_permitted_and_restricted_without_its_group() {
    let mut world = both_restarted();
    assert_eq!(world.command(S2, permit(S1)), Ok(()), "ordered at the other server");
    world.until(5_000, "permitted", |w| role(w, S1) == Role::Active);
    world.run(2_000);
    for server in NodeId::BOTH {
        assert_eq!(world.view(server).sets[0].permitted, Some(S1));
        assert_eq!(world.group_state(server), (GroupState::Stopped, None));
        assert_eq!(world.server_state(server, S1), ServerState::RestartedAfterDown);
    }
    assert!(world.host(S1).mounted.is_empty() && world.host(S1).running.is_empty());
    assert!(world.host(S1).addresses.is_empty(), "its set only");
    for what in [permit(S1), permit(S2), force(S1), build(S2), force_permit(S2)] {
        assert_eq!(world.command(S1, what), Err(RefusalKind::SetPermitted), "{what:?}");
    }
    assert_eq!(world.command(S1, restrict(S2)), Err(RefusalKind::NotPermitted));
    let start = Operation::StartGroup { group: GROUP, on: S1 };
    assert_eq!(world.command(S1, start), Err(RefusalKind::SetPermitted));
    let recover = Operation::RecoverServer { server: S1 };
    assert_eq!(world.command(S1, recover), Err(RefusalKind::SetPermitted));

    // Somebody has it mounted: it stays permitted, and that is told.
    world.host(S1).disks.get_mut(&SET).unwrap().in_use = true;
    assert_eq!(world.command(S1, restrict(S1)), Ok(()));
    world.until(3_000, "told", |w| told(w, S1, |e| matches!(e, EventKind::MirrorStillUsed { .. })) == 1);
    world.run(1_000);
    assert_eq!(role(&mut world, S1), Role::Active);
    assert_eq!(world.view(S1).sets[0].permitted, Some(S1));
    world.host(S1).disks.get_mut(&SET).unwrap().in_use = false;
    assert_eq!(world.command(S1, restrict(S1)), Ok(()));
    world.until(5_000, "restricted", |w| role(w, S1) == Role::Standby);
    world.run(1_000);
    assert_eq!(world.view(S2).sets[0].permitted, None);
    assert_eq!(told(&mut world, S1, |e| matches!(e, EventKind::MirrorPermitted { .. })), 1);
    assert_eq!(told(&mut world, S1, |e| matches!(e, EventKind::MirrorRestricted { .. })), 1);
    assert_eq!(world.command(S1, restrict(S1)), Err(RefusalKind::NotPermitted));
    // From there everything goes on as ever.
    assert_eq!(world.command(S1, recover), Ok(()));
    world.until(3_000, "takes part", |w| w.server_state(S1, S1) == ServerState::Normal);
    assert_eq!(world.command(S1, start), Ok(()));
    world.until(10_000, "serves", |w| w.serves(S1));
}

#[test]
fn a_crash_while_permitted_ends_the_permission_and_leaves_a_copy_that_may_differ() {
    let mut world = both_restarted();
    assert_eq!(world.command(S1, permit(S1)), Ok(()));
    world.until(5_000, "permitted", |w| role(w, S1) == Role::Active);
    world.run(1_000);
    world.power_off(S1);
    world.run(5_000);
    assert_eq!(role(&mut world, S2), Role::Standby, "it does not fail over");
    world.power_on(S1);
    world.run(5_000);
    assert_eq!(role(&mut world, S1), Role::Standby, "it does not come back by itself");
    assert_eq!(world.view(S1).sets[0].permitted, None);
    // The build is offered from the copy that counts.
    let view = world.view(S1);
    let offered = |what| view.operations.iter().find(|p| p.what == what).unwrap().refused.is_none();
    assert!(offered(build(S2)) || offered(build(S1)), "{:?}", view.operations);
}

#[test]
fn a_build_makes_both_copies_equal_and_leaves_both_servers_as_they_were() {
    let mut world = both_restarted();
    assert_eq!(world.command(S1, build(S2)), Ok(()));
    world.until(15_000, "built", |w| told(w, S1, |e| matches!(e, EventKind::MirrorBuilt { .. })) == 1);
    world.run(1_000);
    for server in NodeId::BOTH {
        assert_eq!(role(&mut world, server), Role::Standby);
        assert_eq!(world.server_state(server, server), ServerState::RestartedAfterDown);
        assert_eq!(world.view(server).sets[0].permitted, None);
    }
    assert_eq!(world.command(S2, permit(S2)), Ok(()), "both count as newest");
    world.until(5_000, "permitted there", |w| role(w, S2) == Role::Active);
}

/// The newest copy's server is away for good; the other one's copy is old.
fn old_copy_alone() -> World {
    let mut world = ready();
    world.run(1_000);
    world.power_off(S2);
    world.until(5_000, "alone", |w| w.server_state(S1, S2) == ServerState::Down);
    world.run(1_000);
    world.power_off(S1);
    world.power_on(S2);
    world.until(20_000, "judged", |w| {
        w.server_state(S2, S1) == ServerState::Down
            && w.server_state(S2, S2) == ServerState::RestartedAfterDown
    });
    world.run(2_000);
    world
}

#[test]
fn an_old_copy_is_used_only_by_force_which_the_register_decides() {
    let mut world = old_copy_alone();
    // It was down before it could hear that it was put out: what it knows is that it may lack something.
    assert_eq!(world.command(S2, permit(S2)), Err(RefusalKind::CopyMayLack));
    world.witness_off();
    world.run(5_000);
    assert_eq!(world.command(S2, force_permit(S2)), Err(RefusalKind::NoQuorum));
    assert_eq!(world.command(S2, force(S2)), Err(RefusalKind::NoQuorum));
    world.witness_on();
    world.run(2_000);
    assert_eq!(world.command(S2, build(S1)), Err(RefusalKind::TwinAway), "it needs both");
    assert_eq!(world.command(S2, force(S1)), Err(RefusalKind::ServerDown), "that one is not up");
    assert_eq!(world.command(S2, force_permit(S2)), Ok(()));
    world.until(5_000, "permitted", |w| role(w, S2) == Role::Active);
    let disk = world.host(S2).disks[&SET].clone();
    assert_eq!((disk.overruled, disk.needs_twin), (Some(false), false));
    assert_eq!(told(&mut world, S2, |e| matches!(e, EventKind::MirrorForced { .. })), 1);
    // The other one comes back: it learns the new term and does not serve beside it.
    world.power_on(S1);
    world.run(10_000);
    assert_eq!(role(&mut world, S1), Role::Standby);
    assert!(world.host(S1).disks[&SET].epoch >= disk.epoch);
}

#[test]
fn forced_recovery_declares_the_copy_good_and_then_it_serves() {
    let mut world = old_copy_alone();
    assert_eq!(world.command(S2, force(S2)), Ok(()));
    world.until(5_000, "declared", |w| told(w, S2, |e| matches!(e, EventKind::MirrorForced { .. })) == 1);
    world.run(2_000);
    assert_eq!(role(&mut world, S2), Role::Standby, "nothing is brought up");
    assert_eq!(world.host(S2).disks[&SET].overruled, Some(true), "the other copy may be overwritten");
    assert_eq!(world.command(S2, Operation::RecoverServer { server: S2 }), Ok(()));
    world.until(3_000, "takes part", |w| w.server_state(S2, S2) == ServerState::Normal);
    assert_eq!(world.command(S2, Operation::StartGroup { group: GROUP, on: S2 }), Ok(()));
    world.until(5_000, "serves", |w| w.serves(S2));
    world.power_on(S1);
    world.until(10_000, "back", |w| w.server_state(S2, S1) == ServerState::RestartedAfterDown);
    assert_eq!(world.command(S2, Operation::RecoverServer { server: S1 }), Ok(()));
    world.until(10_000, "rebuilt", |w| w.view(S2).sets[0].state == SetState::InSync);
    assert!(world.serves(S2));
}

#[test]
fn a_failed_disk_is_exchanged_once_nobody_counts_on_it_and_is_built_in_full() {
    let mut world = ready();
    world.run(1_000);
    assert_eq!(world.command(S1, Operation::StopServer { server: S2 }), Ok(()));
    world.until(5_000, "stopped", |w| w.server_state(S2, S2) == ServerState::Stopped);
    world.run(1_000);
    assert_eq!(world.command(S1, exchange(S1)), Err(RefusalKind::CopyCounts), "the copy in use");
    assert_eq!(world.command(S2, exchange(S2)), Ok(()));
    world.until(3_000, "taken", |w| told(w, S2, |e| matches!(e, EventKind::DiskExchanged { .. })) == 1);
    assert!(world.host(S2).disks[&SET].blank);
    assert_eq!(world.command(S1, Operation::StartServer { server: S2 }), Ok(()));
    world.until(10_000, "built", in_sync);
    assert!(world.serves(S1));
    let failed = engine::input::Outcome::Failed { reason: "it is mounted".into() };
    assert_eq!(world.command(S1, Operation::StopServer { server: S2 }), Ok(()));
    world.until(5_000, "stopped", |w| w.server_state(S2, S2) == ServerState::Stopped);
    world.run(1_000);
    world.host(S2).fail.insert("ExchangeDisk".into(), failed);
    assert_eq!(world.command(S2, exchange(S2)), Ok(()));
    world.until(3_000, "told", |w| told(w, S2, |e| matches!(e, EventKind::DiskNotExchanged { .. })) == 1);
}

/// Both servers hold the group from before they look whether it is stopped until the change is made: a start in between would run what
/// the new configuration no longer has.
#[test]
fn a_group_that_a_change_concerns_is_not_brought_up_until_the_change_has_ended() {
    let mut world = ready();
    assert_eq!(world.command(S1, Operation::StopGroup { group: GROUP }), Ok(()));
    world.until(3_000, "stopped", |w| w.group_state(S1) == (GroupState::Stopped, None));
    world.until(3_000, "both see it", |w| w.group_state(S2) == (GroupState::Stopped, None));
    world.run(1_000);
    let start = |on| Operation::StartGroup { group: GROUP, on };
    world.input(S2, Input::ChangeBegan { groups: [GROUP].into() });
    for on in NodeId::BOTH {
        assert_eq!(world.command(S2, start(on)), Err(RefusalKind::Busy));
    }
    // The change itself is asked about meanwhile.
    let release = Operation::ReleaseSet { set: SET };
    let listed =
        |view: wire::ClusterView, what| view.operations.iter().find(|p| p.what == what).unwrap().refused;
    assert_eq!(listed(world.view(S2), release), None);
    assert_eq!(listed(world.view(S2), start(S2)), Some(RefusalKind::Busy));
    world.input(S2, Input::ChangeBegan { groups: [].into() });
    // The server that leads holds it from the moment it takes the order.
    assert_eq!(listed(world.view(S1), start(S1)), None);
    assert_eq!(world.commands(S1, [release, start(S1)]), [Ok(()), Err(RefusalKind::Busy)]);
    world.run(2_000);
    assert_eq!(world.command(S2, start(S1)), Ok(()), "a release that did not come about holds nothing");
    world.until(5_000, "started", |w| w.serves(S1));
}
