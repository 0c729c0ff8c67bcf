//! The vocabulary of states, exactly as VISUAL 3 fixes it.

use crate::alert::RebuildKind;
use crate::ids::{NodeId, WallClock};
use crate::text::number::{count, round_trip};
use crate::text::time::{clock, duration};
use crate::text::{Lang, Names, say};
use crate::view::{GroupState, LinkState, LinkView, ServerState, ServerView, SetState, SetView, Standby};

/// A state's word on a page whose data is old: `was Normal` (VISUAL 1).
#[must_use]
pub fn was(lang: Lang, word: &str) -> String {
    say!(lang, "was {word}", "{word} (前回の値)")
}

/// A server's state.
#[must_use]
pub fn server_state(lang: Lang, state: ServerState) -> &'static str {
    let (en, ja) = match state {
        ServerState::Normal => ("Normal", "正常"),
        ServerState::Stopped => ("Stopped", "停止"),
        ServerState::Down => ("Down", "ダウン"),
        ServerState::RestartedAfterDown => ("Restarted after down", "ダウン後再起動"),
    };
    pick(lang, en, ja)
}

fn pick(lang: Lang, en: &'static str, ja: &'static str) -> &'static str {
    match lang {
        Lang::En => en,
        Lang::Ja => ja,
    }
}

/// The line under a server's state. `everything`: it carries every running group while its twin is out.
/// `east`: minutes the reader's clock is ahead of UTC.
#[must_use]
pub fn server_line(lang: Lang, server: &ServerView, everything: bool, east: i32) -> String {
    let since = clock(server.since, east);
    match (server.state, &server.readings) {
        (ServerState::Down, _) => {
            say!(lang, "Silent since {since} on every link", "{since} から全経路で応答なし")
        }
        (ServerState::Stopped, _) => say!(lang, "Stopped by an operator at {since}", "{since} に操作で停止"),
        (ServerState::RestartedAfterDown, _) if server.recovering => {
            say!(lang, "Back since {since} · being recovered", "{since} に再起動 · サーバ復帰中")
        }
        (ServerState::RestartedAfterDown, _) => {
            say!(lang, "Back since {since} · waits to be recovered", "{since} に再起動 · サーバ復帰待ち")
        }
        (ServerState::Normal, _) if server.node_away => {
            say!(lang, "Its manager does not answer; its work goes on", "管理プロセス応答なし (業務は継続)")
        }
        (ServerState::Normal, None) => say!(lang, "No readings yet", "測定値なし"),
        (ServerState::Normal, Some(readings)) => {
            let up = duration(lang, readings.uptime_s);
            let system = &readings.system;
            if everything {
                say!(lang, "Up {up} · runs everything", "稼働 {up} · 全グループを実行")
            } else {
                say!(lang, "Up {up} · {system}", "稼働 {up} · {system}")
            }
        }
    }
}

/// A link's state, where it has no value to show instead.
#[must_use]
pub fn link_state(lang: Lang, state: LinkState) -> &'static str {
    let (en, ja) = match state {
        LinkState::Up => ("Answers", "応答あり"),
        LinkState::Slow => ("Slow", "遅延・損失"),
        LinkState::Lost => ("No answer", "応答なし"),
        LinkState::NoCable => ("No cable", "ケーブル抜け"),
        LinkState::Unknown => ("Unknown", "不明"),
    };
    pick(lang, en, ja)
}

/// What stands at the right of a link: its round trip, or its state.
#[must_use]
pub fn link_value(lang: Lang, link: &LinkView) -> String {
    match (link.state, link.round_trip_us) {
        (LinkState::Up, Some(us)) => round_trip(us),
        (LinkState::Slow, _) if link.loss_percent > 0 => {
            let lost = link.loss_percent;
            say!(lang, "Slow, {lost}\u{a0}% lost", "遅延・損失 {lost}\u{a0}%")
        }
        (LinkState::Up | LinkState::Slow | LinkState::Lost | LinkState::NoCable | LinkState::Unknown, _) => {
            link_state(lang, link.state).to_owned()
        }
    }
}

/// A group's state.
#[must_use]
pub fn group_state(lang: Lang, state: &GroupState, names: Names<'_>) -> String {
    match state {
        GroupState::Moving { to } => {
            let to = names.server(*to);
            say!(lang, "Moving to {to}", "{to} へ移動中")
        }
        GroupState::Stopped => say!(lang, "Stopped", "停止 (非活性)"),
        GroupState::Starting => say!(lang, "Starting", "起動処理中"),
        GroupState::Running => say!(lang, "Running", "活性"),
        GroupState::Stopping => say!(lang, "Stopping", "停止処理中"),
        GroupState::Failed { .. } => say!(lang, "Failed", "起動失敗"),
        GroupState::Held { .. } => say!(lang, "Held", "保留"),
        GroupState::Unknown => say!(lang, "Unknown", "不明"),
    }
}

/// What a group's place on the server that does not have it says.
#[must_use]
pub fn standby(lang: Lang, standby: Standby) -> &'static str {
    let (en, ja) = match standby {
        Standby::Ready => ("Standby", "待機"),
        Standby::Rebuilding => ("Copy not usable", "複製は使用不可"),
        Standby::OutOfDate { .. } => ("Copy out of date", "複製が古い"),
        Standby::Away => ("Cannot take over", "引き継ぎ不可"),
        Standby::Unknown => ("Unknown", "不明"),
    };
    pick(lang, en, ja)
}

/// What a group's place on a server says: its state where it is, otherwise what the place could do.
#[must_use]
pub fn group_state_on(
    lang: Lang,
    server: NodeId,
    active: Option<NodeId>,
    state: &GroupState,
    place: Standby,
    names: Names<'_>,
) -> String {
    match (state, active) {
        (GroupState::Moving { to }, _) if *to == server => say!(lang, "Arriving", "移動先"),
        (_, Some(at)) if at != server => standby(lang, place).to_owned(),
        _ => group_state(lang, state, names),
    }
}

/// A mirror set's state.
#[must_use]
pub fn set_state(lang: Lang, state: &SetState) -> &'static str {
    let (en, ja) = match state {
        SetState::InSync => ("In sync", "同期済み"),
        SetState::Alone { .. } => ("Alone", "片サーバのみ"),
        SetState::Rebuilding { .. } => ("Rebuilding", "ミラー構築中"),
        SetState::Split => ("Both sides changed: choose", "両系で更新あり: 選択が必要"),
        SetState::Broken { .. } => ("Broken", "異常"),
        SetState::Idle => ("Stopped, equal", "停止・一致"),
        SetState::Unknown => ("Unknown", "不明"),
    };
    pick(lang, en, ja)
}

/// What a rebuild copies, and why if it is everything.
#[must_use]
pub fn rebuild_kind(lang: Lang, kind: RebuildKind) -> &'static str {
    let (en, ja) = match kind {
        RebuildKind::Fast => ("Fast copy", "高速コピー"),
        RebuildKind::FullFirst => ("Full copy (first build)", "完全コピー (初回構築)"),
        RebuildKind::FullUnknown => ("Full copy (differences unknown)", "完全コピー (差分不明)"),
        RebuildKind::FullExchanged => ("Full copy (disk exchanged)", "完全コピー (ディスク交換)"),
    };
    pick(lang, en, ja)
}

/// What has changed on the one good copy of a mirror set; `None` where nothing is recorded.
#[must_use]
pub fn set_changed(lang: Lang, set: &SetView) -> Option<String> {
    let dirty = count(set.dirty_blocks);
    match (&set.state, set.dirty_blocks) {
        (SetState::Alone { .. }, 1) => Some(say!(lang, "1 block changed", "変更 1 ブロック")),
        (SetState::Alone { .. }, _) => Some(say!(lang, "{dirty} blocks changed", "変更 {dirty} ブロック")),
        _ => None,
    }
}

/// The second line under a mirror set's state.
#[must_use]
pub fn set_line(lang: Lang, set: &SetView) -> String {
    match (&set.state, set.next_fast) {
        (SetState::Broken { reason }, _) => reason.clone(),
        (SetState::Split, _) => {
            say!(lang, "nothing is overwritten until you choose", "選択するまで上書きしません")
        }
        (SetState::Idle, _) => say!(lang, "equal by record, in use nowhere", "記録上は一致、未使用"),
        (SetState::Unknown, _) => say!(lang, "cannot be judged from here", "ここからは判定できません"),
        (SetState::InSync | SetState::Alone { .. } | SetState::Rebuilding { .. }, true) => {
            say!(lang, "next rebuild: fast copy", "次のミラー構築: 高速コピー")
        }
        (SetState::InSync | SetState::Alone { .. } | SetState::Rebuilding { .. }, false) => {
            say!(lang, "next rebuild: full copy", "次のミラー構築: 完全コピー")
        }
    }
}

/// Since when a copy is behind.
#[must_use]
pub(crate) fn behind_since(lang: Lang, since: WallClock, east: i32) -> String {
    let since = clock(since, east);
    say!(lang, "behind since {since}", "{since} から未反映")
}
