//! Keeping groups where they are, maintenance, and the cluster's stop and start as a whole.

use crate::alert::EventKind;
use crate::command::{Operation, RefusalKind};
use crate::text::refusal::Pair;
use crate::text::{Lang, Names, say};
use crate::view::ClusterView;

/// A button's words.
#[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match names these")]
pub(super) fn operation(lang: Lang, what: Operation, names: Names<'_>) -> String {
    match what {
        Operation::KeepGroup { group } => {
            let group = names.group(group);
            say!(lang, "Keep {group} where it is", "{group} を現在のサーバに固定")
        }
        Operation::FreeGroup { group } => {
            let group = names.group(group);
            say!(lang, "Let {group} fail over again", "{group} の固定を解除")
        }
        Operation::Maintain { on: true } => say!(lang, "Begin maintenance", "保守モードを開始"),
        Operation::Maintain { on: false } => say!(lang, "End maintenance", "保守モードを終了"),
        Operation::StopCluster => say!(lang, "Stop the cluster", "クラスタシャットダウン"),
        Operation::StartCluster => say!(lang, "Start the cluster", "クラスタを起動"),
        _ => String::new(),
    }
}

/// What the cluster's stop ends.
pub(super) fn stop_cluster(lang: Lang, view: &ClusterView) -> Vec<String> {
    let names = Names(view);
    let ids: Vec<_> = view.groups.iter().filter(|g| g.active.is_some()).map(|g| g.id).collect();
    let first = if ids.is_empty() {
        say!(lang, "No group runs.", "活性のグループはありません。")
    } else {
        let groups = names.groups(&ids, lang);
        say!(
            lang,
            "Clients are cut off from {groups} until the cluster is started.",
            "クラスタを起動するまで、クライアントは {groups} を利用できません。"
        )
    };
    vec![first]
}

/// The sentence of an event; `None`: another one's.
#[allow(clippy::wildcard_enum_match_arm, reason = "tests::events_all_speak holds them all")]
pub(super) fn event(lang: Lang, kind: &EventKind, names: Names<'_>) -> Option<String> {
    Some(match kind {
        EventKind::GroupKept { group } => {
            let group = names.group(*group);
            say!(
                lang,
                "{group} is kept where it is: nothing happens to it by itself",
                "{group} を固定しました。自動では何も行いません"
            )
        }
        EventKind::GroupFreed { group } => {
            let group = names.group(*group);
            say!(lang, "{group} fails over again", "{group} の固定を解除しました")
        }
        EventKind::MaintenanceBegan => say!(
            lang,
            "Maintenance: nothing happens by itself, everything is watched",
            "保守モードを開始しました。監視のみ行い、自動では何も行いません"
        ),
        EventKind::MaintenanceEnded => {
            say!(lang, "Maintenance is over: groups fail over again", "保守モードを終了しました")
        }
        _ => return None,
    })
}

/// Why, and what first: English, then Japanese.
#[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match names these")]
pub(super) fn refusal_words(kind: RefusalKind) -> (Pair, Pair) {
    match kind {
        RefusalKind::Occupied => (
            (
                "the group is exclusive, and another group is active on that server",
                "Move or stop the other group first",
            ),
            (
                "排他グループのため、他のグループが活性のサーバでは起動できません",
                "先に他のグループを移動または停止してください",
            ),
        ),
        _ => (("it is so already", "There is nothing to do"), ("すでにその状態です", "操作は不要です")),
    }
}
