//! Every text speaks both languages: none empty, none left in the other's words.

use super::*;
use crate::alert::{DownCause, EventKind, RebuildKind, StepKind};
use crate::command::{OldChoice, Operation, RebuildTurn, RefusalKind, VerifyTurn};
use crate::ids::{GroupId, LinkId, NodeId, SetId, WallClock};
use crate::traffic::WriteMode;
use crate::verdict::fixture::{AT, FILES, MS_FILES, ONE, TWO, healthy};
use crate::verdict::{Fact, Todo};
use crate::view::{
    BehindView, ClusterView, Forecast, GroupState, Incident, LinkState, Outcome, PartKind, ServerState,
    SetState, SetView, Standby, StepProgress, StepView, Verification, Verified,
};

/// Holds a text in both languages: present, different, and the Japanese one in Japanese.
fn both(what: &str, say: impl Fn(Lang) -> String) {
    let (en, ja) = (say(Lang::En), say(Lang::Ja));
    assert!(!en.trim().is_empty() && !ja.trim().is_empty(), "{what}: empty");
    assert_ne!(en, ja, "{what}: the same in both languages");
    assert!(
        en.is_ascii() || en.chars().all(|c| c.is_ascii() || "\u{a0}\u{202f}·".contains(c)),
        "{what}: {en}"
    );
    assert!(ja.chars().any(|c| c >= '\u{3040}'), "{what}: no Japanese in {ja}");
    for text in [&en, &ja] {
        assert!(!text.contains('!') && !text.contains("{") && !text.contains("  "), "{what}: {text}");
    }
}

const KINDS_OF_REFUSAL: usize = 47;

#[rustfmt::skip]
const REFUSALS: [RefusalKind; KINDS_OF_REFUSAL] = [
    RefusalKind::Changed, RefusalKind::UnknownGroup, RefusalKind::UnknownServer, RefusalKind::AlreadyRunning,
    RefusalKind::NotRunning, RefusalKind::AlreadyThere, RefusalKind::Busy, RefusalKind::NotInPolicy,
    RefusalKind::ServerDown, RefusalKind::ServerNotRecovered, RefusalKind::ServerStopped, RefusalKind::ServerNormal,
    RefusalKind::RecoveryRuns, RefusalKind::CopyOutOfDate, RefusalKind::CopyRebuilding, RefusalKind::CopySplit,
    RefusalKind::NoQuorum, RefusalKind::NoRight, RefusalKind::Held, RefusalKind::TwinAway, RefusalKind::Unreachable,
    RefusalKind::NoCluster, RefusalKind::EngineHalted, RefusalKind::TooMany, RefusalKind::CopyMayLack,
    RefusalKind::UnknownSet, RefusalKind::SetActive, RefusalKind::SetInactive, RefusalKind::SetWorks,
    RefusalKind::OtherNormal, RefusalKind::SetPermitted, RefusalKind::NotPermitted, RefusalKind::CopyCounts,
    RefusalKind::OnlyThere, RefusalKind::NothingKept, RefusalKind::CannotKeep,
    RefusalKind::SetInUse, RefusalKind::OtherCounts, RefusalKind::Occupied, RefusalKind::AlreadySo,
    RefusalKind::SetNotActive, RefusalKind::ActiveElsewhere,
    RefusalKind::NotInSync, RefusalKind::GoesOn, RefusalKind::StandsStill, RefusalKind::NoWork,
    RefusalKind::TwinBehind,
];

fn events() -> Vec<EventKind> {
    let (server, group, set, link) = (ONE, FILES, MS_FILES, LinkId(0));
    let (step, reason) = (StepKind::Mount, "it took 30 s".to_owned());
    let mut events = vec![
        EventKind::ServerUp { server },
        EventKind::ServerRestarted { server, automatic: true },
        EventKind::ServerRestarted { server, automatic: false },
        EventKind::RecoverBegan { server },
        EventKind::ServerRecovered { server },
        EventKind::ServerStopped { server },
        EventKind::NodeReturned { server, away_ms: 3_000 },
        EventKind::LinkLost { link, cable: None },
        EventKind::LinkLost { link, cable: Some(TWO) },
        EventKind::LinkUp { link },
        EventKind::WitnessLost,
        EventKind::WitnessUp,
        EventKind::GroupStarted { group, server, took_ms: 400 },
        EventKind::GroupStopped { group, server },
        EventKind::GroupMoved { group, from: ONE, to: TWO, took_ms: 1_204 },
        EventKind::GroupFailedOver { group, from: ONE, to: TWO, took_ms: 2_402 },
        EventKind::GroupFailed { group, server, step, reason: reason.clone() },
        EventKind::GroupCutOff { group, server, step, reason: reason.clone() },
        EventKind::GroupRetry { group, server, step, reason: reason.clone() },
        EventKind::GroupKept { group },
        EventKind::GroupFreed { group },
        EventKind::MaintenanceBegan,
        EventKind::MaintenanceEnded,
        EventKind::GroupHeld { group, server, step, reason: reason.clone() },
        EventKind::GroupFenced { group, server },
        EventKind::MirrorAlone { set, server },
        EventKind::RebuildDone { set, to: TWO, moved_bytes: 5_000_000, compared_bytes: 0, took_ms: 9_000 },
        EventKind::RebuildBroken { set, to: TWO },
        EventKind::MirrorSplit { set },
        EventKind::MirrorMended { set, server, blocks: 3 },
        EventKind::MirrorVerified { set, blocks: 262_144 },
        EventKind::MirrorRepaired { set, server, here: 1, there: 2 },
        EventKind::MirrorDiffers { set, count: 3, blocks: vec![7, 8, 4096] },
        EventKind::OldVersionLost { set, server },
        EventKind::OldVersionBack { set, server },
        EventKind::OldVersionTooLarge { set, server },
        EventKind::MirrorFailed { set, server, reason: reason.clone() },
        EventKind::MirrorPermitted { group, server },
        EventKind::MirrorRestricted { group, server },
        EventKind::MirrorStillUsed { group, server },
        EventKind::MirrorForced { group, server },
        EventKind::MirrorBuilt { group, from: ONE },
        EventKind::DiskExchanged { set, server },
        EventKind::DiskNotExchanged { set, server, reason: reason.clone() },
        EventKind::SetRegistered { set, name: reason.clone() },
        EventKind::SetReleased { set, name: reason.clone() },
        EventKind::SetNotReleased { set, reason },
        EventKind::BackingChanged { set, server },
        EventKind::ModeChanged { set, mode: crate::traffic::WriteMode::SemiSynchronous },
        EventKind::WritesLost { set, from: ONE, bytes: 3_000_000, ms: 1_200 },
        EventKind::AddressInUse {
            group,
            address: [192, 168, 10, 50].into(),
            by: "02:00:00:00:00:01".to_owned(),
        },
        EventKind::ConfigApplied { version: 41 },
        EventKind::InvariantBroken { name: "one_holder".to_owned() },
    ];
    let causes = [DownCause::Silent, DownCause::Restarted, DownCause::NodeGone, DownCause::Fenced];
    events.extend(causes.map(|cause| EventKind::ServerDown { server, cause }));
    events.extend(KINDS.map(|kind| EventKind::RebuildBegan { set, to: TWO, kind, blocks: 320_000 }));
    events.extend(REFUSALS.map(|kind| EventKind::CommandRefused { kind }));
    events
}

const KINDS: [RebuildKind; 4] =
    [RebuildKind::Fast, RebuildKind::FullFirst, RebuildKind::FullUnknown, RebuildKind::FullExchanged];
/// Variants of `EventKind`; the numbers of the list below differ, so a new variant shows here.
const KINDS_OF_EVENT: usize = 54;

#[test]
fn events_all_speak() {
    let (view, events) = (healthy(), events());
    let mut codes: Vec<u16> = events.iter().map(EventKind::code).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), KINDS_OF_EVENT);
    for kind in &events {
        both(&format!("{kind:?}"), |lang| event(lang, kind, Names(&view)));
        assert_ne!(
            event(Lang::En, kind, Names(&view)),
            event_number(kind.code()),
            "{kind:?} has no sentence"
        );
    }
}

#[test]
fn refusals_all_say_why_and_what_first() {
    let mut numbers = Vec::new();
    for kind in REFUSALS {
        both(&format!("{kind:?}"), |lang| refusal(lang, kind).why);
        both(&format!("{kind:?}"), |lang| refusal(lang, kind).first);
        both(&format!("{kind:?}"), |lang| greyed(lang, kind));
        both(&format!("{kind:?}"), |lang| refused(lang, kind));
        numbers.push(refusal(Lang::En, kind).number);
    }
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), KINDS_OF_REFUSAL);
}

#[test]
fn labels_all_speak() {
    for each in Label::ALL.iter().filter(|l| !matches!(l, Label::Cpu)) {
        both(&format!("{each:?}"), |lang| label(lang, *each).to_owned());
    }
}

/// VISUAL 3, the table of states, word by word.
#[test]
fn states_have_the_words_of_the_table() {
    let view = healthy();
    let names = Names(&view);
    let pair = |say: &dyn Fn(Lang) -> String| (say(Lang::En), say(Lang::Ja));
    let expect =
        |found: (String, String), en: &str, ja: &str| assert_eq!(found, (en.to_owned(), ja.to_owned()));
    for (state, en, ja) in [
        (ServerState::Normal, "Normal", "正常"),
        (ServerState::Stopped, "Stopped", "停止"),
        (ServerState::Down, "Down", "ダウン"),
        (ServerState::RestartedAfterDown, "Restarted after down", "ダウン後再起動"),
    ] {
        expect(pair(&|l| server_state(l, state).to_owned()), en, ja);
    }
    let reason = String::new;
    for (state, en, ja) in [
        (GroupState::Stopped, "Stopped", "停止 (非活性)"),
        (GroupState::Starting, "Starting", "起動処理中"),
        (GroupState::Running, "Running", "活性"),
        (GroupState::Stopping, "Stopping", "停止処理中"),
        (GroupState::Moving { to: ONE }, "Moving to server1", "server1 へ移動中"),
        (GroupState::Failed { step: StepKind::Disk, reason: reason() }, "Failed", "起動失敗"),
        (GroupState::Held { step: StepKind::Disk, reason: reason() }, "Held", "保留"),
        (GroupState::Unknown, "Unknown", "不明"),
    ] {
        expect(pair(&|l| group_state(l, &state, names)), en, ja);
    }
    for (state, en, ja) in [
        (Standby::Ready, "Standby", "待機"),
        (Standby::Rebuilding, "Copy not usable", "複製は使用不可"),
        (Standby::OutOfDate { since: AT }, "Copy out of date", "複製が古い"),
    ] {
        expect(pair(&|l| standby(l, state).to_owned()), en, ja);
    }
    for (state, en, ja) in [
        (SetState::InSync, "In sync", "同期済み"),
        (SetState::Alone { good: ONE }, "Alone", "片サーバのみ"),
        (SetState::Split, "Both sides changed: choose", "両系で更新あり: 選択が必要"),
        (SetState::Broken { reason: reason() }, "Broken", "異常"),
    ] {
        expect(pair(&|l| set_state(l, &state).to_owned()), en, ja);
    }
    for (state, en, ja) in [
        (LinkState::Lost, "No answer", "応答なし"),
        (LinkState::NoCable, "No cable", "ケーブル抜け"),
        (LinkState::Unknown, "Unknown", "不明"),
    ] {
        expect(pair(&|l| link_state(l, state).to_owned()), en, ja);
    }
    expect(pair(&|l| was(l, server_state(l, ServerState::Normal))), "was Normal", "正常 (前回の値)");
}

#[test]
fn links_show_their_value_and_lines_their_state() {
    let mut view = healthy();
    let mut link = view.links.remove(0);
    assert_eq!(link_value(Lang::Ja, &link), "0.18\u{a0}ms");
    link.state = LinkState::Slow;
    link.loss_percent = 3;
    assert_eq!(link_value(Lang::En, &link), "Slow, 3\u{a0}% lost");
    let mut server = view.servers.remove(0);
    assert_eq!(server_line(Lang::En, &server, false, 0), "Up 61\u{a0}days · Debian 12");
    assert_eq!(server_line(Lang::En, &server, true, 0), "Up 61\u{a0}days · runs everything");
    server.since = AT;
    for state in [ServerState::Down, ServerState::Stopped, ServerState::RestartedAfterDown] {
        server.state = state;
        both(&format!("{state:?}"), |l| server_line(l, &server, false, 0));
        assert!(server_line(Lang::En, &server, false, 0).contains("14:02:31"));
    }
    let mut set = view.sets.remove(0);
    for state in
        [SetState::InSync, SetState::Alone { good: ONE }, SetState::Split, SetState::Idle, SetState::Unknown]
    {
        set.state = state;
        both("set line", |l| set_line(l, &set));
        if let SetState::Alone { .. } = set.state {
            for dirty_blocks in [0, 1, 2] {
                set.dirty_blocks = dirty_blocks;
                both("changed", |l| set_changed(l, &set).unwrap());
            }
        }
    }
}

#[test]
fn steps_parts_and_forecasts_all_speak() {
    let view = healthy();
    let incident = Incident {
        number: 17,
        server: ONE,
        group: FILES,
        began: AT,
        parts: Vec::new(),
        total_ms: Some(2_402),
        forecast_ms: Some(2_200),
    };
    for kind in [StepKind::Right, StepKind::Disk, StepKind::Mount, StepKind::Address, StepKind::Script] {
        for stopping in [false, true] {
            both("step", |l| step(l, kind, stopping));
        }
        both("part", |l| part(l, PartKind::Step(kind), &incident, Names(&view)));
    }
    for progress in [StepProgress::Waiting, StepProgress::Running { since: AT }, StepProgress::Failed] {
        let view = StepView { kind: StepKind::Disk, stopping: false, progress };
        both("progress", |l| step_progress(l, &view, AT));
    }
    for kind in [PartKind::Detection, PartKind::Decision] {
        both("part", |l| part(l, kind, &incident, Names(&view)));
    }
    both("incident", |l| incident_title(l, &incident, Names(&view), 0));
    for (total_ms, forecast_ms) in [(None, None), (Some(1), None), (Some(1), Some(2))] {
        both("clients", |l| {
            incident_clients(l, &Incident { total_ms, forecast_ms, ..incident.clone() }, Names(&view))
        });
    }
    assert_eq!(
        incident_clients(Lang::En, &incident, Names(&view)),
        "files was away for 2.4\u{a0}s. Forecast had been 2.2\u{a0}s. Times in milliseconds."
    );
    for outcome in
        [Outcome::NothingStops, Outcome::Moves { about_ms: 1 }, Outcome::Stops, Outcome::StopsWithoutVote]
    {
        for groups in [vec![FILES], vec![FILES, GroupId(2)]] {
            let row = Forecast { server: ONE, outcome, groups };
            both("forecast", |l| forecast(l, &row, Names(&view)));
            both("effect", |l| forecast_effect(l, &row, Names(&view)));
            both("when", |l| forecast_when(l, &row, Names(&view)));
        }
    }
}

#[test]
fn facts_and_todos_all_speak() {
    let view = healthy();
    let (server, group, set, link) = (ONE, FILES, MS_FILES, LinkId(0));
    let groups = |n: u16| (1..=n).map(GroupId).collect::<Vec<_>>();
    let (step, reason) = (StepKind::Mount, "it took 30 s".to_owned());
    for fact in [
        Fact::BothUp,
        Fact::Down { server },
        Fact::ServerStopped { server },
        Fact::WaitsForRecovery { server },
        Fact::Recovering { server },
        Fact::AllServe { groups: groups(1) },
        Fact::AllServe { groups: groups(2) },
        Fact::AllServe { groups: groups(3) },
        Fact::NotServing { groups: groups(1) },
        Fact::NotServing { groups: groups(2) },
        Fact::StoppedOnPurpose { groups: groups(1) },
        Fact::StoppedOnPurpose { groups: groups(2) },
        Fact::DataOnBoth,
        Fact::CopyFollows,
        Fact::DataOnOne { server },
        Fact::NothingLost,
        Fact::UnprotectedFor { seconds: 747 },
        Fact::LinkLost { link, cable: None },
        Fact::LinkLost { link, cable: Some(server) },
        Fact::LinkSlow { link },
        Fact::OtherPaths { count: 1 },
        Fact::OtherPaths { count: 2 },
        Fact::NoPath,
        Fact::WitnessSilent,
        Fact::WitnessWithoutVote,
        Fact::ManagerSilent { server },
        Fact::HaltedBecause { reason: reason.clone() },
        Fact::StepFailed { group, step, reason: reason.clone() },
        Fact::StopFailed { group, step, reason },
        Fact::NothingOverwritten,
        Fact::MayRunElsewhere,
    ] {
        both(&format!("{fact:?}"), |l| super::verdict::fact(l, &fact, Names(&view)));
    }
    for each in [
        Todo::LookAtServer { server },
        Todo::Recover { server },
        Todo::StartServer { server },
        Todo::CheckLink { link },
        Todo::CheckWitness,
        Todo::LookAtGroup { group },
        Todo::Choose { set },
        Todo::CheckDisk { set },
        Todo::RestartManager { server },
        Todo::AskTwin { server },
        Todo::StartGroups,
        Todo::Resume { set: MS_FILES },
        Todo::Wait,
    ] {
        both(&format!("{each:?}"), |l| todo(l, each, Names(&view)).0);
        both(&format!("{each:?}"), |l| todo(l, each, Names(&view)).1);
    }
}

#[test]
fn operations_speak_and_endings_name_what_stops() {
    let mut view = healthy();
    view.groups[0].steps = vec![
        StepView { kind: StepKind::Script, stopping: true, progress: StepProgress::Done { ms: 3 } },
        StepView { kind: StepKind::Mount, stopping: true, progress: StepProgress::Running { since: AT } },
    ];
    for what in [
        Operation::StartGroup { group: FILES, on: ONE },
        Operation::StopGroup { group: FILES },
        Operation::MoveGroup { group: FILES, to: TWO },
        Operation::StopServer { server: ONE },
        Operation::StartServer { server: ONE },
        Operation::RecoverServer { server: ONE },
        Operation::BuildSet { set: MS_FILES, to: TWO },
        Operation::ForceRecovery { set: MS_FILES, good: ONE },
        Operation::PermitSet { set: MS_FILES, on: ONE },
        Operation::RestrictSet { set: MS_FILES, on: ONE },
        Operation::ForcePermit { set: MS_FILES, on: TWO },
        Operation::ExchangeDisk { set: MS_FILES, server: TWO },
        Operation::OldVersion { set: MS_FILES, on: TWO, choice: OldChoice::PutBack },
        Operation::OldVersion { set: MS_FILES, on: TWO, choice: OldChoice::Drop },
        Operation::OldVersion { set: MS_FILES, on: ONE, choice: OldChoice::Waive },
        Operation::ReleaseSet { set: MS_FILES },
        Operation::KeepGroup { group: FILES },
        Operation::FreeGroup { group: FILES },
        Operation::Maintain { on: true },
        Operation::Maintain { on: false },
        Operation::StopCluster,
        Operation::StartCluster,
        Operation::VerifySet { set: MS_FILES, turn: VerifyTurn::Start { limit: None } },
        Operation::VerifySet { set: MS_FILES, turn: VerifyTurn::Pause },
        Operation::VerifySet { set: MS_FILES, turn: VerifyTurn::Resume },
        Operation::VerifySet { set: MS_FILES, turn: VerifyTurn::Limit { limit: None } },
        Operation::VerifySet { set: MS_FILES, turn: VerifyTurn::End },
        Operation::PaceRebuild { set: MS_FILES, turn: RebuildTurn::Pause },
        Operation::PaceRebuild { set: MS_FILES, turn: RebuildTurn::Resume },
        Operation::PaceRebuild { set: MS_FILES, turn: RebuildTurn::Limit { limit: None } },
    ] {
        both(&format!("{what:?}"), |l| operation(l, what, Names(&view)));
        both(&format!("{what:?}"), |l| operation_pending(l, what, &view));
        for effect in 0..ending(Lang::En, what, &view).map_or(0, |e| e.effects.len()) {
            both(&format!("{what:?}"), |l| {
                ending(l, what, &view).map(|e| e.effects[effect].clone()).unwrap_or_default()
            });
        }
    }
    let stop = Operation::StopServer { server: ONE };
    assert_eq!(consequence(Lang::En, stop, &view).unwrap(), "files moves to server2 first.");
    both("consequence", |l| consequence(l, stop, &view).unwrap());
    assert_eq!(consequence(Lang::En, Operation::RecoverServer { server: ONE }, &view), None);
    let moving = Operation::MoveGroup { group: FILES, to: TWO };
    assert_eq!(operation_pending(Lang::En, moving, &view), "Moving, step 2 of 2");
    assert_eq!(
        ending(Lang::En, stop, &view).unwrap().effects,
        [
            "files stops, then starts on server2: clients wait about 2\u{a0}s.",
            "Until server1 is started again the data is on server2 only, and nothing could take over.",
        ]
    );
    view.groups[0].standby = Standby::Rebuilding;
    both("consequence", |l| consequence(l, stop, &view).unwrap());
    let stop = ending(Lang::En, stop, &view).unwrap();
    assert_eq!(stop.effects[0], "Clients of files (192.168.10.50) are cut off until you start it again.");
    assert_eq!(ending(Lang::En, Operation::RecoverServer { server: ONE }, &view), None);
}

#[test]
fn a_verification_tells_how_far_it_is_and_how_it_ended() {
    let mut verify = Verification {
        done: 43,
        total: 100,
        running: true,
        paused: false,
        limit: None,
        left_s: None,
        different: 0,
        unresolved: 0,
    };
    assert_eq!(verifying(Lang::En, &verify), "43\u{a0}% compared · measuring");
    verify =
        Verification { left_s: Some(185), limit: Some(20_000_000), different: 2, unresolved: 1, ..verify };
    both("running", |l| verifying(l, &verify));
    assert_eq!(
        verifying(Lang::En, &verify),
        "43\u{a0}% compared · about 4\u{a0}min left · at most 20\u{a0}MB/s · 2 blocks differed · 1 not repairable: \
         nobody knows which side is right"
    );
    verify = Verification { running: false, different: 1, ..verify };
    both("waiting", |l| verifying(l, &verify));
    verify.paused = true;
    both("paused", |l| verifying(l, &verify));
    both("no limit", |l| limit(l, None));
    let mut last =
        Verified { ended: AT, stopped: false, checked: 9000, different: 0, repaired: 0, unresolved: 0 };
    both("equal", |l| verified(l, &last, 0));
    last = Verified { stopped: true, different: 3, repaired: 2, unresolved: 1, ..last };
    both("differed", |l| verified(l, &last, 0));
    let mut set = healthy().sets.remove(0);
    set.verify = Some(Verification { paused: false, ..verify });
    both("comparing", |l| set_word(l, &set));
    assert_eq!(set_word(Lang::En, &set), "Comparing");
    set.verify = Some(Verification { paused: true, ..verify });
    assert_eq!(set_word(Lang::En, &set), "In sync", "a paused comparison is no state of the set");
}

#[test]
fn the_other_sentences_speak() {
    let view = healthy();
    for (what, say) in [
        ("live", &(|l| live_from(l, "server1", AT, 0)) as &dyn Fn(Lang) -> String),
        ("not live", &|l| not_live(l, AT, 0)),
        ("no readings", &|l| no_readings(l, "server1")),
        ("set actions", &|l| set_actions(l, "data")),
        ("permitted", &|l| set_permitted(l, ONE, Names(&view))),
        ("stalled", &|l| stalled(l, 12)),
        ("in about", &|l| in_about(l, 185)),
        ("announce", &|l| announce_percent(l, "ms", 40)),
        ("actions", &|l| group_actions(l, "files")),
        ("open", &|l| open_on(l, "server2")),
        ("answers", &|l| twin_answers(l, "server2", 2)),
        ("stale", &|l| stale_words(l, "server1", 48)),
        ("stale detail", &|l| stale_detail(l, AT, 2, 0)),
        ("behind", &|l| copy_behind(l, AT, 0)),
        ("kill", &|l| server_kill(l, "server1")),
        ("restart", &|l| server_restart(l, "server1")),
        ("cut", &|l| link_cut(l, "Interconnect 1")),
        ("mend", &|l| link_mend(l, "Interconnect 1")),
        ("failed", &|l| demo_failed(l, "404")),
        ("blocks", &|l| blocks(l, 1, 2)),
        ("days ago", &|l| day_and_clock(l, WallClock(AT.0 - 864_000_000), AT, 0)),
    ] {
        both(what, say);
    }
    for kind in KINDS {
        both("kind", |l| rebuild_kind(l, kind).to_owned());
    }
    both("arriving", |l| {
        group_state_on(l, TWO, Some(ONE), &GroupState::Moving { to: TWO }, Standby::Ready, Names(&view))
    });
    assert_eq!(Names(&view).set(SetId(99)), "set#99");
    assert_eq!(Names(&view).server(NodeId(9)), "server#9");
    assert_eq!((Lang::from_tag("ja-JP"), Lang::from_tag("de")), (Lang::Ja, Lang::En));
}

#[test]
fn a_mode_is_told_with_what_it_waits_for_and_how_far_the_copy_is_behind() {
    let mut view = healthy();
    let plain = view.sets[0].clone();
    assert_eq!(set_mode(Lang::En, &plain), None);
    let lagging = SetView {
        mode: WriteMode::Synchronous,
        mode_in_force: WriteMode::Asynchronous,
        behind: Some(BehindView { bytes: 3_000_000, writes: 730, ms: 1_200 }),
        ..plain
    };
    for lang in Lang::ALL {
        let words = set_mode(lang, &lagging).unwrap();
        let [now, then] = [lagging.mode_in_force, lagging.mode].map(|mode| write_mode(lang, mode));
        assert!(words.contains(&now) && words.contains(&then), "{words}");
        let behind = set_behind(lang, lagging.behind.unwrap());
        assert!(behind.contains("730") && behind.contains("1.2"), "{behind}");
    }
    // A forecast is honest about an asynchronous copy.
    let names = |view: &ClusterView| forecast(Lang::En, &view.forecasts[0], Names(view));
    assert!(names(&view).contains("0 bytes lost"));
    view.sets[0] = SetView { mode: WriteMode::Asynchronous, ..lagging };
    let told = names(&view);
    assert!(!told.contains("0 bytes lost") && told.contains("Loses"), "{told}");
    assert!(verdict_detail(Lang::En, &crate::verdict::verdict(&view), Names(&view)).contains("follows"));
}
