//! Events as sentences, with the remedy where there is one (E5, G13).

use crate::alert::{DownCause, EventKind};
use crate::text::number::{bytes, count, milliseconds};
use crate::text::state::rebuild_kind;
use crate::text::step::step;
use crate::text::time::duration;
use crate::text::{Lang, Names, refusal, say};

/// The stable number of a message as people see it.
#[must_use]
pub fn event_number(code: u16) -> String {
    format!("M-{code}")
}

/// The sentence of an event.
#[must_use]
pub fn event(lang: Lang, kind: &EventKind, names: Names<'_>) -> String {
    server_event(lang, kind, names)
        .or_else(|| path_event(lang, kind, names))
        .or_else(|| group_event(lang, kind, names))
        .or_else(|| mirror_event(lang, kind, names))
        .or_else(|| crate::text::upkeep::event(lang, kind, names))
        .unwrap_or_else(|| other_event(lang, kind, names))
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "each function knows its kinds; tests::events_all_speak holds them all"
)]
fn server_event(lang: Lang, kind: &EventKind, names: Names<'_>) -> Option<String> {
    Some(match kind {
        EventKind::ServerUp { server } => {
            let server = names.server(*server);
            say!(lang, "{server} is up", "{server} が起動")
        }
        EventKind::ServerDown { server, cause } => down(lang, &names.server(*server), *cause),
        EventKind::ServerRestarted { server, automatic: true } => {
            let server = names.server(*server);
            say!(lang, "{server} is up again; recovering by itself", "{server} が再起動、自動でサーバ復帰")
        }
        EventKind::ServerRestarted { server, automatic: false } => {
            let server = names.server(*server);
            say!(
                lang,
                "{server} is up again. Press Recover to let it take part",
                "{server} が再起動。サーバ復帰を実行してください"
            )
        }
        EventKind::RecoverBegan { server } => {
            let server = names.server(*server);
            say!(lang, "{server}: recovery began", "{server} のサーバ復帰を開始")
        }
        EventKind::ServerRecovered { server } => {
            let server = names.server(*server);
            say!(lang, "{server} is recovered and normal again", "{server} のサーバ復帰が完了、正常")
        }
        EventKind::ServerStopped { server } => {
            let server = names.server(*server);
            say!(lang, "{server} was stopped by an operator", "操作により {server} を停止")
        }
        EventKind::NodeReturned { server, away_ms } => {
            let (server, away) = (names.server(*server), duration(lang, away_ms / 1000));
            say!(
                lang,
                "{server}: the manager was away for {away}; what runs was kept",
                "{server} の管理プロセスが {away} ぶりに復帰、業務は継続"
            )
        }
        _ => return None,
    })
}

fn down(lang: Lang, server: &str, cause: DownCause) -> String {
    match cause {
        DownCause::Silent => say!(
            lang,
            "{server} is down: no heartbeat on any link. Look at its power and console",
            "{server} がダウン: 全経路でハートビート途絶。電源とコンソールを確認"
        ),
        DownCause::Restarted => {
            say!(
                lang,
                "{server} was down: its system has started anew",
                "{server} がダウン: システムが再起動していました"
            )
        }
        DownCause::NodeGone => say!(
            lang,
            "{server} counts as down: its manager stayed away too long",
            "{server} をダウンと判定: 管理プロセスが長時間応答なし"
        ),
        DownCause::Fenced => {
            say!(
                lang,
                "{server} counts as down: it lost its right to run",
                "{server} をダウンと判定: 実行権を喪失"
            )
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "see server_event")]
fn path_event(lang: Lang, kind: &EventKind, names: Names<'_>) -> Option<String> {
    Some(match kind {
        EventKind::LinkLost { link, cable: Some(server) } => {
            let (link, server) = (names.link(*link), names.server(*server));
            say!(
                lang,
                "{link} lost: no cable on {server}. Check the cable or the port",
                "{link} 断: {server} のケーブル抜け。ケーブルとポートを確認"
            )
        }
        EventKind::LinkLost { link, cable: None } => {
            let link = names.link(*link);
            say!(
                lang,
                "{link} lost: no answer. Check the cable and the switch",
                "{link} 断: 応答なし。ケーブルとスイッチを確認"
            )
        }
        EventKind::LinkUp { link } => {
            let link = names.link(*link);
            say!(lang, "{link} answers again", "{link} の応答が回復")
        }
        EventKind::WitnessLost => say!(
            lang,
            "The witness does not answer. Look at its machine",
            "ウィットネス応答なし。そのマシンを確認"
        ),
        EventKind::WitnessUp => say!(lang, "The witness answers", "ウィットネスの応答が回復"),
        _ => return None,
    })
}

#[allow(clippy::wildcard_enum_match_arm, reason = "see server_event")]
fn group_event(lang: Lang, kind: &EventKind, names: Names<'_>) -> Option<String> {
    Some(match kind {
        EventKind::GroupStarted { group, server, took_ms } => {
            let (group, server, took) = (names.group(*group), names.server(*server), milliseconds(*took_ms));
            say!(lang, "{group} started on {server}: {took}", "{group} が {server} で活性: {took}")
        }
        EventKind::GroupStopped { group, server } => {
            let (group, server) = (names.group(*group), names.server(*server));
            say!(lang, "{group} stopped on {server}", "{group} が {server} で停止")
        }
        EventKind::GroupMoved { group, from, to, took_ms } => {
            let (group, took) = (names.group(*group), milliseconds(*took_ms));
            let (from, to) = (names.server(*from), names.server(*to));
            say!(
                lang,
                "{group} moved from {from} to {to}: {took}",
                "{group} を {from} から {to} へ移動: {took}"
            )
        }
        EventKind::GroupCutOff { group, server, step: kind, reason } => {
            let (group, server, step) = (names.group(*group), names.server(*server), step(lang, *kind, true));
            say!(
                lang,
                "{group} did not stop on {server} and was cut off. {step}: {reason}",
                "{group} は {server} で停止できず、強制的に切り離しました。{step}: {reason}"
            )
        }
        EventKind::GroupRetry { group, server, step: kind, reason } => {
            let (group, server, step) =
                (names.group(*group), names.server(*server), step(lang, *kind, false));
            say!(
                lang,
                "{group} on {server}: a step failed and is tried again. {step}: {reason}",
                "{group} が {server} で再試行中。{step}: {reason}"
            )
        }
        EventKind::GroupFailedOver { group, from: _, to, took_ms } => {
            let (group, to, took) = (names.group(*group), names.server(*to), milliseconds(*took_ms));
            say!(lang, "{group} runs on {to} after {took}", "{group} が {to} へフェイルオーバー: {took}")
        }
        EventKind::GroupFailed { group, server, step: kind, reason } => {
            let (group, server, step) =
                (names.group(*group), names.server(*server), step(lang, *kind, false));
            say!(
                lang,
                "{group} failed on {server}. {step}: {reason}",
                "{group} が {server} で起動失敗。{step}: {reason}"
            )
        }
        EventKind::GroupHeld { group, server, step: kind, reason } => {
            let (group, server, step) = (names.group(*group), names.server(*server), step(lang, *kind, true));
            say!(
                lang,
                "{group} is held on {server}: it did not stop. {step}: {reason}",
                "{group} は {server} で保留: 停止できません。{step}: {reason}"
            )
        }
        EventKind::GroupFenced { group, server } => {
            let (group, server) = (names.group(*group), names.server(*server));
            say!(
                lang,
                "{group} was cut off on {server}: it had lost its right to run",
                "{server} の {group} を遮断: 実行権を喪失"
            )
        }
        EventKind::AddressInUse { group, address, by } => {
            let group = names.group(*group);
            say!(
                lang,
                "{group}: {address} is in use by {by}. Free that address, then start the group",
                "{group}: {address} は {by} が使用中。アドレスを解放してから起動してください"
            )
        }
        _ => return None,
    })
}

#[allow(clippy::wildcard_enum_match_arm, reason = "see server_event")]
fn mirror_event(lang: Lang, kind: &EventKind, names: Names<'_>) -> Option<String> {
    Some(match kind {
        EventKind::MirrorAlone { set, server } => {
            let (set, server) = (names.set(*set), names.server(*server));
            say!(
                lang,
                "{set} goes on alone on {server}; changes are recorded",
                "{set} は {server} のみで継続、変更を記録"
            )
        }
        EventKind::RebuildBegan { set, to, kind, blocks } => {
            let (set, to, kind) = (names.set(*set), names.server(*to), rebuild_kind(lang, *kind));
            let blocks = count(*blocks);
            say!(
                lang,
                "{set}: rebuild to {to} began. {kind}, {blocks} blocks",
                "{set}: {to} へのミラー構築を開始。{kind}、{blocks} ブロック"
            )
        }
        EventKind::RebuildDone { set, to, moved_bytes, compared_bytes, took_ms } => {
            let (set, to, took) = (names.set(*set), names.server(*to), duration(lang, took_ms / 1000));
            let (moved, compared) = (bytes(*moved_bytes), bytes(*compared_bytes));
            say!(
                lang,
                "{set}: copy on {to} is equal again after {took}; {moved} sent, {compared} compared",
                "{set}: {to} の複製が一致 ({took})。転送 {moved}、照合 {compared}"
            )
        }
        EventKind::RebuildBroken { set, to } => {
            let (set, to) = (names.set(*set), names.server(*to));
            say!(
                lang,
                "{set}: rebuild to {to} was broken off; it goes on when {to} is back",
                "{set}: {to} へのミラー構築が中断。{to} の復帰後に続行"
            )
        }
        EventKind::MirrorSplit { set } => {
            let set = names.set(*set);
            say!(
                lang,
                "{set}: both sides changed. Nothing is overwritten until you choose",
                "{set}: 両系で更新あり。選択するまで上書きしません"
            )
        }
        EventKind::MirrorVerified { set, blocks } => {
            let set = names.set(*set);
            say!(
                lang,
                "{set}: all {blocks} blocks of both copies were compared; they are the same",
                "{set}: 両方のコピーの全 {blocks} ブロックを比較し、一致を確認しました"
            )
        }
        EventKind::MirrorRepaired { set, server, here, there } => {
            let (set, server) = (names.set(*set), names.server(*server));
            say!(
                lang,
                "{set}: comparing both copies found damaged blocks and set them right: {here} on {server}, {there} on the \
                 other server. Look at the disk that was wrong",
                "{set}: 両方のコピーの比較で壊れたブロックが見つかり、修復しました: {server} で {here}、相手サーバで {there}。\
                 壊れていたディスクを確認"
            )
        }
        EventKind::MirrorDiffers { set, count, blocks } => {
            let set = names.set(*set);
            let list = blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            say!(
                lang,
                "{set}: {count} blocks differ between the copies and nobody can tell which is right; they were left as they \
                 are (4096-byte blocks {list}). Check the files there; writing them anew makes both the same",
                "{set}: 両方のコピーで {count} ブロックが異なり、どちらが正しいか判断できないため変更していません \
                 (4096 バイト単位のブロック番号 {list})。該当ファイルを確認し、書き直すと一致します"
            )
        }
        EventKind::MirrorMended { set, server, blocks } => {
            let (set, server) = (names.set(*set), names.server(*server));
            say!(
                lang,
                "{set}: the disk on {server} could not read {blocks} blocks; they came from the other server and were \
                 written back. Look at that disk",
                "{set}: {server} のディスクで {blocks} ブロックが読めず、相手サーバから読んで書き戻しました。ディスクを確認"
            )
        }
        EventKind::OldVersionLost { set, .. }
        | EventKind::OldVersionBack { set, .. }
        | EventKind::OldVersionTooLarge { set, .. } => {
            let set = names.set(*set);
            super::old_version::event(lang, kind, &set, names)
        }
        EventKind::MirrorFailed { set, server, reason } => {
            let (set, server) = (names.set(*set), names.server(*server));
            say!(
                lang,
                "{set} failed on {server}: {reason}. Look at that disk",
                "{set} が {server} で異常: {reason}。ディスクを確認"
            )
        }
        _ => return admin_event(lang, kind, names),
    })
}

#[allow(clippy::wildcard_enum_match_arm, reason = "see server_event")]
fn admin_event(lang: Lang, kind: &EventKind, names: Names<'_>) -> Option<String> {
    Some(match kind {
        EventKind::MirrorPermitted { group, server } => {
            let (group, server) = (names.group(*group), names.server(*server));
            say!(
                lang,
                "Access to the mirror sets of {group} is permitted on {server}. Restrict it again when done",
                "{server} で {group} のミラーセットをアクセス許可。使用後はアクセス制限を実行してください"
            )
        }
        EventKind::MirrorRestricted { group, server } => {
            let (group, server) = (names.group(*group), names.server(*server));
            say!(
                lang,
                "Access to the mirror sets of {group} is restricted again on {server}",
                "{server} で {group} のミラーセットをアクセス制限"
            )
        }
        EventKind::MirrorStillUsed { group, server } => {
            let (group, server) = (names.group(*group), names.server(*server));
            say!(
                lang,
                "A mirror set of {group} is still in use on {server}: unmount it, then restrict access again",
                "{group} のミラーセットが {server} で使用中。アンマウントしてからアクセス制限を実行してください"
            )
        }
        EventKind::MirrorForced { group, server } => {
            let (group, server) = (names.group(*group), names.server(*server));
            say!(
                lang,
                "By an operator's force the copies of {group} on {server} count as its data",
                "操作により {server} 側を {group} の正しいデータとしました"
            )
        }
        EventKind::MirrorBuilt { group, from } => {
            let (group, from) = (names.group(*group), names.server(*from));
            say!(
                lang,
                "The mirror sets of {group} were built from {from}; both copies are equal",
                "{group} のミラーセットを {from} から構築。両系が一致"
            )
        }
        EventKind::DiskExchanged { set, server } => {
            let (set, server) = (names.set(*set), names.server(*server));
            say!(
                lang,
                "{set}: the new disk on {server} was taken; it is built in full",
                "{set}: {server} の新しいディスクを登録。完全コピーで構築します"
            )
        }
        EventKind::DiskNotExchanged { set, server, reason } => {
            let (set, server) = (names.set(*set), names.server(*server));
            say!(
                lang,
                "{set}: the new disk on {server} was not taken: {reason}",
                "{set}: {server} の新しいディスクを登録できません: {reason}"
            )
        }
        EventKind::SetRegistered { name, .. } => {
            say!(
                lang,
                "Mirror set {name} was registered; it is built",
                "ミラーセット {name} を登録。ミラー構築を行います"
            )
        }
        EventKind::SetReleased { name, .. } => {
            say!(
                lang,
                "Mirror set {name} was released; its data is still on the disks",
                "ミラーセット {name} を解除。データはディスクに残ります"
            )
        }
        EventKind::SetNotReleased { set, reason } => {
            let set = names.set(*set);
            say!(lang, "{set} was not released: {reason}", "{set} を解除できません: {reason}")
        }
        EventKind::ModeChanged { set, mode } => super::mode::changed(lang, &names.set(*set), *mode),
        EventKind::WritesLost { set, from, bytes, ms } => {
            super::mode::lost(lang, &names.set(*set), &names.server(*from), (*bytes, *ms))
        }
        EventKind::BackingChanged { set, server } => {
            let (set, server) = (names.set(*set), names.server(*server));
            say!(
                lang,
                "{set}: the disk on {server} changed its size or partitions since it was registered; it is not opened. Put it back, or exchange the disk",
                "{set}: {server} のディスクのサイズまたはパーティションが登録後に変更されたため使用しません。元に戻すか、ディスクを交換してください"
            )
        }
        _ => return None,
    })
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "see server_event; the last kinds, and a plain number for none"
)]
fn other_event(lang: Lang, kind: &EventKind, _names: Names<'_>) -> String {
    match kind {
        EventKind::ConfigApplied { version } => {
            say!(lang, "Configuration {version} applied", "構成 {version} を適用")
        }
        EventKind::CommandRefused { kind } => {
            let why = refusal(lang, *kind).why;
            say!(lang, "A command was refused: {why}", "操作を拒否: {why}")
        }
        EventKind::InvariantBroken { name } => say!(
            lang,
            "The manager found its own rule broken and stopped itself: {name}. Report this",
            "管理プロセスが内部矛盾を検出し停止: {name}。報告してください"
        ),
        _ => event_number(kind.code()),
    }
}
