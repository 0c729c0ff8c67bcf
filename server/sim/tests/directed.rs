//! Situations as sentences: each a plan by hand, the whole run with all invariants, and what must have come of it.

use sim::faults::{Fault, Plan};
use sim::world::{Options, World};
use wire::{GroupId, LinkId, NodeId, Operation, SetId};

const SECOND: u64 = 1_000_000;
const GROUP: GroupId = GroupId(1);
const SET: SetId = SetId(1);

/// A seed of one group with recovery by itself: configuration and delays come from it, faults from the plan.
fn seed() -> u64 {
    (1..)
        .find(|seed| {
            let world = World::new(*seed, Options { plan: Some(Plan::quiet(0)), ..Options::default() });
            world.config.groups.len() == 1 && world.config.auto_recover
        })
        .unwrap_or(1)
}

fn ran(faults: &[(u64, Fault)], until: u64) -> World {
    let mut world = World::new(seed(), Options { plan: Some(Plan::of(faults, until)), ..Options::default() });
    world.run();
    assert_eq!(world.failure, None);
    world
}

fn holder(world: &World) -> Option<NodeId> {
    world.ghost.chosen(GROUP).and_then(|value| value.holder)
}
fn epoch(world: &World) -> u64 {
    world.ghost.chosen(GROUP).map_or(0, |value| value.epoch.0)
}
fn acknowledged(world: &World) -> u64 {
    world.oracles[&SET].borrow().acknowledged()
}

#[test]
fn without_faults_the_group_runs_at_home_and_the_copies_are_identical() {
    let world = ran(&[], 10 * SECOND);
    assert_eq!((holder(&world), epoch(&world)), (Some(NodeId(1)), 1));
    assert!(acknowledged(&world) > 50);
}

#[test]
fn a_loses_power_b_promotes_a_returns_fast_copy_identical() {
    let world = ran(&[(8 * SECOND, Fault::PowerLoss { host: 0, back: 10 * SECOND })], 30 * SECOND);
    assert_eq!((holder(&world), epoch(&world)), (Some(NodeId(2)), 2));
    let status = world.hosts[1].disks[&SET].mirror.status();
    let rebuilt = status.last_rebuild.expect("the returned copy was rebuilt");
    let moved = rebuilt.moved_bytes + rebuilt.compared_moved_bytes;
    assert!(moved > 0 && moved < world.set_size(SET), "{rebuilt:?}");
}

#[test]
fn a_power_loss_shorter_than_detection_loses_nothing_either() {
    // At a moment after which no simulated start fails: that would send the group back.
    let at = 8 * SECOND + 37_000;
    let world = ran(&[(at, Fault::PowerLoss { host: 0, back: 10_000 })], 30 * SECOND);
    assert_eq!(holder(&world), Some(NodeId(2)), "the copy that did not crash goes on");
}

#[test]
fn the_standby_loses_power_and_the_application_goes_on() {
    let world = ran(&[(8 * SECOND, Fault::PowerLoss { host: 1, back: 6 * SECOND })], 25 * SECOND);
    assert_eq!((holder(&world), epoch(&world)), (Some(NodeId(1)), 1));
}

#[test]
fn every_link_between_the_servers_is_cut_and_the_witness_decides() {
    let world = ran(&[(8 * SECOND, Fault::Split { public: true, back: 12 * SECOND })], 30 * SECOND);
    assert!(holder(&world).is_some());
}

#[test]
fn the_active_server_is_cut_off_from_everything_and_fences_itself() {
    let world = ran(&[(8 * SECOND, Fault::Isolate { host: 0, back: 12 * SECOND })], 35 * SECOND);
    assert_eq!((holder(&world), epoch(&world)), (Some(NodeId(2)), 2));
}

#[test]
fn the_node_process_dies_and_returns_and_the_application_does_not_notice() {
    let world = ran(&[(8 * SECOND, Fault::NodeKill { host: 0, back: 3 * SECOND })], 20 * SECOND);
    assert_eq!((holder(&world), epoch(&world)), (Some(NodeId(1)), 1));
}

#[test]
fn the_node_process_stays_away_longer_than_its_grace_and_the_group_fails_over() {
    let world = ran(&[(8 * SECOND, Fault::NodeKill { host: 0, back: 25 * SECOND })], 40 * SECOND);
    assert_eq!(holder(&world), Some(NodeId(2)));
}

#[test]
fn an_operator_moves_the_group_and_back() {
    let to =
        |server| Fault::Operator { host: 0, what: Operation::MoveGroup { group: GROUP, to: NodeId(server) } };
    let world = ran(&[(8 * SECOND, to(2)), (14 * SECOND, to(1))], 20 * SECOND);
    assert_eq!((holder(&world), epoch(&world)), (Some(NodeId(1)), 3));
}

#[test]
fn a_blackout_of_both_servers_loses_nothing_that_was_flushed() {
    let world = ran(&[(8 * SECOND, Fault::Blackout { back: [2 * SECOND, 5 * SECOND] })], 30 * SECOND);
    assert!(holder(&world).is_some());
}

#[test]
fn a_standby_that_stands_still_is_put_out_and_comes_back() {
    let world = ran(&[(8 * SECOND, Fault::Freeze { host: 1, back: 5 * SECOND })], 25 * SECOND);
    assert_eq!(holder(&world), Some(NodeId(1)));
}

#[test]
fn one_interconnect_is_lost_and_the_other_carries_on() {
    let cable = Fault::Cable { host: 0, link: LinkId(0), back: 10 * SECOND };
    let world = ran(&[(8 * SECOND, cable)], 25 * SECOND);
    assert_eq!((holder(&world), epoch(&world)), (Some(NodeId(1)), 1));
}

#[test]
fn a_witness_without_its_file_votes_again_once_both_have_spoken() {
    let faults = [
        (8 * SECOND, Fault::WitnessDown { forget: true, back: SECOND }),
        (14 * SECOND, Fault::PowerLoss { host: 0, back: 8 * SECOND }),
    ];
    let world = ran(&faults, 35 * SECOND);
    assert_eq!(holder(&world), Some(NodeId(2)));
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let mut world = World::new(77, Options::default());
        world.run();
        (world.events, world.queue.now(), world.failure.clone(), acknowledged(&world))
    };
    assert_eq!(run(), run());
}

#[test]
fn a_standby_that_lost_power_while_the_holders_node_was_away_is_put_out_before_it_counts_again() {
    let world = ran(
        &[
            (8 * SECOND, Fault::NodeKill { host: 0, back: 6 * SECOND }),
            (9 * SECOND, Fault::PowerLoss { host: 1, back: SECOND / 2 }),
            (12 * SECOND, Fault::PowerLoss { host: 0, back: 2 * SECOND }),
        ],
        30 * SECOND,
    );
    assert!(holder(&world).is_some());
}

#[test]
fn a_copy_made_equal_after_its_crash_is_taken_before_the_one_that_crashed_later() {
    let world = ran(
        &[
            (8 * SECOND, Fault::PowerLoss { host: 1, back: SECOND }),
            (14 * SECOND, Fault::PowerLoss { host: 0, back: 50_000 }),
        ],
        30 * SECOND,
    );
    assert_eq!(holder(&world), Some(NodeId(2)));
}

#[test]
fn a_set_that_fails_while_its_group_stops_does_not_hold_the_group() {
    let stop = Fault::Operator { host: 0, what: Operation::StopServer { server: NodeId(1) } };
    let fails = Fault::Failing { host: 0, reads: false, back: SECOND };
    let world = ran(&[(8 * SECOND, stop), (8 * SECOND + 50_000, fails)], 30 * SECOND);
    assert_eq!(holder(&world), Some(NodeId(2)));
}
