//! The page's state against what a server may say, in any order.

use super::*;
use wire::command::Refusal;
use wire::feed::Delta;
use wire::ids::{Epoch, Revision, WallClock};
use wire::view::{GroupView, ServerView, Standby};

const FILES: GroupId = GroupId(1);
const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const MOVE: Operation = Operation::MoveGroup { group: FILES, to: TWO };

fn server(id: NodeId) -> ServerView {
    ServerView {
        id,
        name: format!("server{}", id.0),
        state: ServerState::Normal,
        since: WallClock(0),
        recovering: false,
        node_away: false,
        page: String::new(),
        readings: None,
    }
}

fn view() -> ClusterView {
    let group = GroupView {
        id: FILES,
        name: "files".to_owned(),
        policy: vec![ONE, TWO],
        state: GroupState::Running,
        active: Some(ONE),
        since: WallClock(0),
        failed_over: false,
        addresses: Vec::new(),
        mounts: Vec::new(),
        sets: Vec::new(),
        epoch: Epoch(1),
        steps: Vec::new(),
        standby: Standby::Ready,
        command: None,
        kept: false,
    };
    ClusterView {
        revision: Revision(7),
        server: ONE,
        at: WallClock(1_000),
        cluster: "demo".to_owned(),
        config_version: 1,
        servers: vec![server(ONE), server(TWO)],
        links: Vec::new(),
        witness: None,
        groups: vec![group],
        sets: Vec::new(),
        events: Vec::new(),
        incident: None,
        forecasts: Vec::new(),
        operations: Vec::new(),
        halted: None,
        maintenance: false,
    }
}

/// A page that has a snapshot, at time 0 of its clock.
fn shown() -> PageState {
    let mut state = PageState::default();
    assert_eq!(state.feed(Feed::Snapshot(Box::new(view())), 0), None);
    state
}

/// Lets the group change by a delta.
fn change(state: &mut PageState, now: u64, change: impl Fn(&mut ClusterView)) {
    let old = state.view.clone().unwrap();
    let mut new = old.clone();
    change(&mut new);
    new.revision = Revision(old.revision.0 + 1);
    let delta = Delta::between(&old, &new).unwrap();
    assert_eq!(state.feed(Feed::Delta(Box::new(delta)), now), None);
}

fn accepted(what: Operation) -> PageState {
    let mut state = shown();
    let command = state.order(CommandId(5), what).unwrap();
    assert_eq!((command.revision, command.what), (Revision(7), what));
    state.feed(Feed::Reply(Reply { id: CommandId(5), result: Ok(()) }), 10);
    state
}

#[test]
fn a_gap_asks_once_and_the_snapshot_ends_it() {
    let mut state = shown();
    let far = || Feed::Delta(Box::new(Delta { base: Revision(9), ..Delta::default() }));
    assert_eq!(state.feed(far(), 1), Some(Need::Again));
    assert_eq!(state.feed(far(), 2), None, "asked already");
    assert_eq!(state.view, Some(view()), "a delta that does not fit changes nothing");
    let later = ClusterView { revision: Revision(12), ..view() };
    state.feed(Feed::Snapshot(Box::new(later)), 3);
    assert_eq!(state.feed(far(), 4), Some(Need::Again), "a new gap is a new question");
}

#[test]
fn a_pulse_keeps_the_page_alive_and_finds_a_lost_delta() {
    let mut state = shown();
    let pulse = |revision| Feed::Pulse { at: WallClock(2_000), revision: Revision(revision) };
    assert_eq!(state.feed(pulse(7), 1_000), None);
    assert_eq!(state.view.as_ref().unwrap().at, WallClock(2_000));
    assert_eq!(state.feed(pulse(8), 2_000), Some(Need::Again));
}

#[test]
fn a_page_is_stale_after_three_seconds_without_data() {
    assert!(PageState::default().stale(0), "nothing was received yet");
    let state = shown();
    assert!(!state.stale(3_000));
    assert!(state.stale(3_001));
}

#[test]
fn no_cluster_and_reload() {
    let mut state = shown();
    assert_eq!(state.feed(Feed::NoCluster, 1), None);
    assert_eq!((state.no_cluster, state.view.is_none()), (true, true));
    assert_eq!(state.feed(Feed::Pulse { at: WallClock(1), revision: Revision(0) }, 2), None);
    state.feed(Feed::Snapshot(Box::new(view())), 3);
    assert!(!state.no_cluster);
    assert_eq!(state.feed(Feed::Reload, 4), Some(Need::Reload));
}

#[test]
fn a_move_stays_pending_until_the_view_shows_it_done() {
    let mut state = accepted(MOVE);
    assert!(state.order_for(MOVE).unwrap().pending());
    change(&mut state, 20, |v| v.groups[0].state = GroupState::Moving { to: TWO });
    assert!(state.order_for(MOVE).unwrap().pending());
    change(&mut state, 60_000, |v| {
        v.groups[0].state = GroupState::Running;
        v.groups[0].active = Some(TWO);
    });
    assert_eq!(state.order_for(MOVE), None);
}

#[test]
fn a_move_that_came_to_another_end_is_not_pending_for_ever() {
    let mut state = accepted(MOVE);
    change(&mut state, 20, |v| v.groups[0].state = GroupState::Moving { to: TWO });
    change(&mut state, 30, |v| v.groups[0].state = GroupState::Running);
    assert_eq!(state.order_for(MOVE), None, "it runs where it was; the state says so");
}

#[test]
fn an_accepted_order_without_any_effect_is_given_up_with_a_reason() {
    let mut state = accepted(MOVE);
    let pulse = || Feed::Pulse { at: WallClock(2_000), revision: Revision(7) };
    state.feed(pulse(), 10 + EFFECT_LIMIT_MS);
    assert!(state.order_for(MOVE).unwrap().pending());
    state.feed(pulse(), 11 + EFFECT_LIMIT_MS);
    assert_eq!(state.order_for(MOVE).unwrap().phase, Phase::NoEffect);
}

#[test]
fn a_refusal_stands_until_it_is_dismissed() {
    let mut state = shown();
    state.order(CommandId(5), MOVE).unwrap();
    let refusal = Err(Refusal { kind: RefusalKind::CopyRebuilding });
    state.feed(Feed::Reply(Reply { id: CommandId(5), result: refusal }), 10);
    change(&mut state, 20, |v| v.groups[0].failed_over = true);
    assert_eq!(state.order_for(MOVE).unwrap().phase, Phase::Refused(RefusalKind::CopyRebuilding));
    state.dismiss(CommandId(5));
    assert_eq!(state.order_for(MOVE), None);
}

#[test]
fn an_answer_that_cannot_come_any_more_is_not_waited_for() {
    let mut state = shown();
    state.order(CommandId(5), MOVE).unwrap();
    state.closed();
    assert_eq!(state.order_for(MOVE).unwrap().phase, Phase::Lost);
    state.order(CommandId(6), MOVE).unwrap();
    assert!(state.order_for(MOVE).unwrap().pending(), "ordering again replaces it");
    state.dismiss(CommandId(6));
    assert!(state.order_for(MOVE).is_some(), "a pending order cannot be dismissed");
}

#[test]
fn servers_orders_end_with_their_state() {
    for (what, effect) in [
        (Operation::StopServer { server: ONE }, (|s| s.state = ServerState::Stopped) as fn(&mut ServerView)),
        (Operation::RecoverServer { server: ONE }, |s| s.recovering = true),
    ] {
        let mut state = accepted(what);
        if matches!(what, Operation::RecoverServer { .. }) {
            state.view.as_mut().unwrap().servers[0].state = ServerState::RestartedAfterDown;
            state.order(CommandId(5), what).unwrap();
            state.feed(Feed::Reply(Reply { id: CommandId(5), result: Ok(()) }), 10);
        }
        assert!(state.order_for(what).unwrap().pending());
        change(&mut state, 20, |v| effect(&mut v.servers[0]));
        assert_eq!(state.order_for(what), None, "{what:?}");
    }
}

#[test]
fn orders_kept_are_bounded() {
    let mut state = shown();
    for i in 0..100 {
        state
            .order(CommandId(i), Operation::StopGroup { group: GroupId(u16::try_from(i).unwrap()) })
            .unwrap();
    }
    assert_eq!(state.orders.len(), ORDERS_MAX);
}
