//! The verdict as a table: what happened, which colour and which sentence.

use super::fixture::{AT, FILES, MS_FILES, ONE, TWO, healthy};
use super::*;
use crate::alert::RebuildKind;
use crate::ids::{GroupId, WallClock};
use crate::text::{Lang, Names, verdict_detail, verdict_words};
use crate::view::{
    ClusterView, GroupState, Incident, LinkState, Outcome, Rebuild, ServerState, SetState, Standby,
};

type Change = fn(&mut ClusterView);

fn down(view: &mut ClusterView) {
    view.server = TWO;
    view.servers[0].state = ServerState::Down;
    view.servers[0].since = WallClock(AT.0 - 60_000);
    view.servers[0].readings = None;
    for link in &mut view.links {
        link.state = LinkState::Lost;
        link.round_trip_us = None;
    }
    for group in &mut view.groups {
        group.active = Some(TWO);
        group.standby = Standby::OutOfDate { since: WallClock(AT.0 - 60_000) };
    }
    view.groups[0].failed_over = true;
    for set in &mut view.sets {
        set.state = SetState::Alone { good: TWO };
    }
    view.incident = Some(Incident {
        number: 17,
        server: ONE,
        group: FILES,
        began: WallClock(AT.0 - 62_000),
        parts: Vec::new(),
        total_ms: Some(2_402),
        forecast_ms: Some(2_200),
    });
    view.forecasts = vec![Forecast { server: TWO, outcome: Outcome::Stops, groups: vec![FILES, GroupId(2)] }];
}

fn back(view: &mut ClusterView) {
    down(view);
    view.servers[0].state = ServerState::RestartedAfterDown;
    for link in &mut view.links {
        link.state = LinkState::Up;
    }
}

fn rebuilding(view: &mut ClusterView) {
    back(view);
    view.servers[0].recovering = true;
    for set in &mut view.sets {
        set.state = SetState::Rebuilding { progress: progress(Some(200)) };
    }
}

fn progress(left_s: Option<u64>) -> Rebuild {
    Rebuild {
        to: ONE,
        kind: RebuildKind::Fast,
        done: 43,
        total: 100,
        bytes_per_s: 74_000_000,
        left_s,
        stalled_s: 0,
        paused: false,
        limit: None,
    }
}

fn reason() -> String {
    "it took too long".to_owned()
}

const TABLE: &[(&str, Change, Tone, &str)] = &[
    ("healthy", |_| {}, Tone::Ok, "Running and protected"),
    ("server down, failed over", down, Tone::Warn, "Running on server2 only, not protected"),
    ("server back, waiting", back, Tone::Warn, "Running on server2 only, not protected"),
    ("server back, rebuilding", rebuilding, Tone::Warn, "Running on server2 only, not protected"),
    (
        "failing over",
        |v| {
            down(v);
            v.groups[0].state = GroupState::Starting;
        },
        Tone::Bad,
        "files is being taken over",
    ),
    (
        "first build",
        |v| v.sets[0].state = SetState::Rebuilding { progress: progress(None) },
        Tone::Warn,
        "Running, not protected yet",
    ),
    (
        "mirror alone, both servers normal",
        |v| v.sets[0].state = SetState::Alone { good: ONE },
        Tone::Warn,
        "Running, not protected",
    ),
    ("link lost", |v| v.links[1].state = LinkState::Lost, Tone::Warn, "Running, Interconnect 2 is disturbed"),
    ("link slow", |v| v.links[1].state = LinkState::Slow, Tone::Warn, "Running, Interconnect 2 is disturbed"),
    (
        "link unknown alone is no alarm",
        |v| v.links[1].state = LinkState::Unknown,
        Tone::Ok,
        "Running and protected",
    ),
    (
        "witness silent",
        |v| {
            if let Some(w) = &mut v.witness {
                w.up = false;
            }
        },
        Tone::Warn,
        "Running without a third vote",
    ),
    (
        "witness without memory",
        |v| {
            if let Some(w) = &mut v.witness {
                w.votes = false;
            }
        },
        Tone::Warn,
        "Running without a third vote",
    ),
    ("no witness configured", |v| v.witness = None, Tone::Ok, "Running and protected"),
    (
        "one group stopped on purpose",
        |v| v.groups[0].state = GroupState::Stopped,
        Tone::Ok,
        "Running and protected",
    ),
    (
        "all groups stopped on purpose",
        |v| v.groups.iter_mut().for_each(|g| g.state = GroupState::Stopped),
        Tone::Un,
        "All groups are stopped",
    ),
    (
        "both servers stopped",
        |v| v.servers.iter_mut().for_each(|s| s.state = ServerState::Stopped),
        Tone::Un,
        "All groups are stopped",
    ),
    (
        "group failed",
        |v| v.groups[0].state = GroupState::Failed { step: StepKind::Mount, reason: reason() },
        Tone::Bad,
        "files does not run",
    ),
    (
        "group held, still there",
        |v| v.groups[0].state = GroupState::Held { step: StepKind::Script, reason: reason() },
        Tone::Warn,
        "files waits for your decision",
    ),
    (
        "group held, nobody serves",
        |v| {
            v.groups[0].state = GroupState::Held { step: StepKind::Script, reason: reason() };
            v.groups[0].active = None;
        },
        Tone::Bad,
        "files waits for your decision",
    ),
    (
        "group moving",
        |v| v.groups[0].state = GroupState::Moving { to: TWO },
        Tone::Move,
        "files is moving to server2",
    ),
    (
        "group starting as planned",
        |v| v.groups[0].state = GroupState::Starting,
        Tone::Move,
        "files is starting",
    ),
    (
        "group stopping as planned",
        |v| v.groups[0].state = GroupState::Stopping,
        Tone::Move,
        "files is stopping",
    ),
    (
        "all paths silent, the twin not judged yet",
        |v| v.links.iter_mut().for_each(|l| l.state = LinkState::Lost),
        Tone::Bad,
        "Cannot tell whether db runs",
    ),
    (
        "group unknown",
        |v| v.groups[0].state = GroupState::Unknown,
        Tone::Bad,
        "Cannot tell whether files runs",
    ),
    ("split", |v| v.sets[0].state = SetState::Split, Tone::Bad, "Both copies of ms-files changed"),
    (
        "broken",
        |v| v.sets[0].state = SetState::Broken { reason: reason() },
        Tone::Bad,
        "ms-files cannot be used",
    ),
    (
        "no groups",
        |v| {
            v.groups.clear();
            v.sets.clear();
            v.forecasts.clear();
        },
        Tone::Ok,
        "Both servers up, no groups yet",
    ),
    (
        "server stopped by an operator",
        |v| v.servers[0].state = ServerState::Stopped,
        Tone::Warn,
        "Running on server2 only, not protected",
    ),
    ("manager away", |v| v.servers[1].node_away = true, Tone::Warn, "Running, server2 is not managed"),
    (
        "halted",
        |v| v.halted = Some("rows_have_names".to_owned()),
        Tone::Warn,
        "Running, server1 has stopped managing",
    ),
    (
        "no server normal",
        |v| v.servers.iter_mut().for_each(|s| s.state = ServerState::RestartedAfterDown),
        Tone::Bad,
        "No server takes part",
    ),
    (
        "cut off",
        |v| {
            down(v);
            if let Some(w) = &mut v.witness {
                w.up = false;
            }
            v.groups.iter_mut().for_each(|g| g.state = GroupState::Unknown);
        },
        Tone::Bad,
        "server2 is cut off",
    ),
    (
        "alone but serving, witness gone too",
        |v| {
            down(v);
            if let Some(w) = &mut v.witness {
                w.up = false;
            }
        },
        Tone::Warn,
        "Running on server2 only, not protected",
    ),
];

#[test]
fn the_band_asks_about_people_not_parts() {
    for (what, change, tone, words) in TABLE {
        let mut view = healthy();
        change(&mut view);
        let found = verdict(&view);
        let said = verdict_words(Lang::En, &found, Names(&view));
        assert_eq!((found.tone, said.as_str()), (*tone, *words), "{what}");
        assert!(said.split_whitespace().count() <= 7, "{what}: {said}");
        assert!(found.rows.len() <= 3, "{what}: {:?}", found.rows);
        assert_ne!(verdict_words(Lang::Ja, &found, Names(&view)), said, "{what}");
        for lang in Lang::ALL {
            assert!(!verdict_detail(lang, &found, Names(&view)).is_empty(), "{what}");
        }
    }
}

#[test]
fn every_kind_of_verdict_is_in_the_table() {
    let mut names: Vec<&str> = TABLE
        .iter()
        .map(|(_, change, ..)| {
            let mut view = healthy();
            change(&mut view);
            verdict(&view).kind.name()
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 21, "{names:?}");
}

#[test]
fn beside_a_healthy_verdict_stand_both_forecasts() {
    let view = healthy();
    let expected: Vec<Row> = view.forecasts.iter().cloned().map(Row::Forecast).collect();
    assert_eq!(verdict(&view).rows, expected);
    assert_eq!(
        verdict_detail(Lang::En, &verdict(&view), Names(&view)),
        "Both servers are up. Both groups serve their clients. All data is on both disks."
    );
}

#[test]
fn after_a_failover_the_survivor_is_forecast_and_the_dead_server_is_to_be_looked_at() {
    let mut view = healthy();
    down(&mut view);
    let found = verdict(&view);
    assert_eq!(
        found.rows,
        vec![Row::Forecast(view.forecasts[0].clone()), Row::Todo(Todo::LookAtServer { server: ONE })]
    );
    assert_eq!(
        verdict_detail(Lang::En, &found, Names(&view)),
        "server1 is down. Both groups serve their clients. No data was lost. Unprotected for 1\u{a0}min 2\u{a0}s."
    );
}

#[test]
fn a_rebuild_says_when_protection_is_back_only_if_every_set_is_measured() {
    let mut view = healthy();
    rebuilding(&mut view);
    assert!(verdict(&view).rows.contains(&Row::ProtectedAgain { about_s: Some(200) }));
    view.sets[1].state = SetState::Alone { good: TWO };
    assert!(verdict(&view).rows.contains(&Row::ProtectedAgain { about_s: None }));
    view.sets[1].state = SetState::Rebuilding { progress: Rebuild { stalled_s: 12, ..progress(Some(9)) } };
    assert!(verdict(&view).rows.contains(&Row::ProtectedAgain { about_s: None }));
}

#[test]
fn without_service_what_to_do_comes_first() {
    let mut view = healthy();
    view.sets[0].state = SetState::Split;
    assert_eq!(verdict(&view).rows.first(), Some(&Row::Todo(Todo::Choose { set: MS_FILES })));
}

#[test]
fn nothing_lost_is_only_said_of_a_failover_that_is_over() {
    let mut view = healthy();
    down(&mut view);
    if let Some(incident) = &mut view.incident {
        incident.total_ms = None;
    }
    assert!(!verdict(&view).facts.contains(&Fact::NothingLost));
}
