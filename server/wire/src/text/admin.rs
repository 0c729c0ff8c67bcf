//! The mirror administrator's words: his acts, what each ends or loses, and why one is not possible (C8, [8.7]).

use crate::command::{Operation, RefusalKind};
use crate::ids::NodeId;
use crate::text::refusal::Pair;
use crate::text::{Lang, Names, say};

/// A button's words.
pub(super) fn operation(lang: Lang, what: Operation, names: Names<'_>) -> String {
    match what {
        Operation::BuildSet { set, to } => {
            let (set, from, to) = (names.set(set), names.server(to.twin()), names.server(to));
            say!(lang, "Build {set} from {from} on {to}", "{set} を {from} から {to} へミラー構築")
        }
        Operation::ForceRecovery { set, good } => {
            let (set, good) = (names.set(set), names.server(good));
            say!(lang, "Forced recovery: {set} of {good} is good", "{set} の {good} 側を正として強制復帰")
        }
        Operation::PermitSet { set, on } => {
            let (set, on) = (names.set(set), names.server(on));
            say!(lang, "Permit access to {set} on {on}", "{on} で {set} のアクセス許可")
        }
        Operation::RestrictSet { set, on } => {
            let (set, on) = (names.set(set), names.server(on));
            say!(lang, "Restrict access to {set} on {on}", "{on} で {set} のアクセス制限")
        }
        Operation::ForcePermit { set, on } => {
            let (set, on) = (names.set(set), names.server(on));
            say!(lang, "Force access to {set} on {on}", "{on} で {set} の強制アクセス許可")
        }
        Operation::ExchangeDisk { set, server } => {
            let (set, server) = (names.set(set), names.server(server));
            say!(lang, "Exchange the disk of {set} on {server}", "{server} の {set} のディスクを交換")
        }
        Operation::ReleaseSet { set } => {
            let set = names.set(set);
            say!(lang, "Release {set}", "{set} のミラーセット解除")
        }
        Operation::StartGroup { .. }
        | Operation::KeepGroup { .. }
        | Operation::FreeGroup { .. }
        | Operation::Maintain { .. }
        | Operation::StopCluster
        | Operation::StartCluster
        | Operation::StopGroup { .. }
        | Operation::MoveGroup { .. }
        | Operation::StopServer { .. }
        | Operation::StartServer { .. }
        | Operation::RecoverServer { .. }
        | Operation::VerifySet { .. }
        | Operation::PaceRebuild { .. }
        | Operation::OldVersion { .. } => String::new(),
    }
}

/// What an act loses or ends: the dialog's sentences.
pub(super) fn effects(lang: Lang, what: Operation, names: Names<'_>) -> Vec<String> {
    match what {
        Operation::BuildSet { set, to } => {
            let (set, from, to) = (names.set(set), names.server(to.twin()), names.server(to));
            vec![
                say!(
                    lang,
                    "What {set} holds on {to} is overwritten with the copy of {from}.",
                    "{to} の {set} は {from} の複製で上書きされます。"
                ),
                say!(
                    lang,
                    "Until the build is complete the copy on {to} cannot be used.",
                    "構築が完了するまで {to} の複製は使用できません。"
                ),
            ]
        }
        Operation::ForceRecovery { set, good } => {
            let (set, other, good) = (names.set(set), names.server(good.twin()), names.server(good));
            vec![
                say!(
                    lang,
                    "The copy on {good} counts as the data of {set} from now on, newest or not.",
                    "以後、{good} の複製が最新かどうかにかかわらず {set} のデータとなります。"
                ),
                say!(
                    lang,
                    "What only {other} holds is lost at the next build.",
                    "{other} だけにある更新は次のミラー構築で失われます。"
                ),
                still_off(lang, &other),
            ]
        }
        Operation::PermitSet { set, on } => {
            let (set, on) = (names.set(set), names.server(on));
            vec![
                say!(
                    lang,
                    "{set} can be used on {on} outside its group until access is restricted again.",
                    "アクセス制限を行うまで、{on} で {set} をグループ外で使用できます。"
                ),
                may_differ(lang, &on),
            ]
        }
        Operation::ForcePermit { set, on } => {
            let (set, other, on) = (names.set(set), names.server(on.twin()), names.server(on));
            vec![
                say!(
                    lang,
                    "{set} on {on} may be older than on {other}: later writes are missing there.",
                    "{on} の {set} は {other} より古い可能性があり、後の更新を欠いています。"
                ),
                say!(
                    lang,
                    "What is written now makes both sides differ; then one must be chosen.",
                    "ここで書き込むと両系で更新ありとなり、後でどちらかを選ぶ必要があります。"
                ),
                still_off(lang, &other),
            ]
        }
        Operation::ExchangeDisk { set, server } => {
            let (set, server) = (names.set(set), names.server(server));
            vec![
                say!(
                    lang,
                    "Everything on the disk that is now in the place of {set} on {server} is lost.",
                    "{server} の {set} の位置にあるディスクの内容はすべて失われます。"
                ),
                say!(
                    lang,
                    "It is then built in full from the other server.",
                    "その後、もう一方のサーバから完全コピーでミラー構築します。"
                ),
            ]
        }
        Operation::ReleaseSet { set } => {
            let set = names.set(set);
            vec![
                say!(
                    lang,
                    "{set} leaves its group and the cluster on both servers; its mount goes with it.",
                    "{set} を両サーバのグループとクラスタから外します。マウントの設定も削除されます。"
                ),
                say!(
                    lang,
                    "Its data stays on both disks and is no longer mirrored.",
                    "データは両方のディスクに残りますが、以後ミラーリングされません。"
                ),
            ]
        }
        Operation::RestrictSet { .. }
        | Operation::KeepGroup { .. }
        | Operation::FreeGroup { .. }
        | Operation::Maintain { .. }
        | Operation::StopCluster
        | Operation::StartCluster
        | Operation::StartGroup { .. }
        | Operation::StopGroup { .. }
        | Operation::MoveGroup { .. }
        | Operation::StopServer { .. }
        | Operation::StartServer { .. }
        | Operation::RecoverServer { .. }
        | Operation::VerifySet { .. }
        | Operation::PaceRebuild { .. }
        | Operation::OldVersion { .. } => Vec::new(),
    }
}

/// Nobody can look through a cut cable: an operator's force is his word.
fn still_off(lang: Lang, other: &str) -> String {
    say!(
        lang,
        "If {other} does not answer, make sure that it is off: nothing else keeps it from using its copy.",
        "{other} が応答しない場合は電源断を確認してください。ほかに {other} の使用を防ぐものはありません。"
    )
}

fn may_differ(lang: Lang, on: &str) -> String {
    say!(
        lang,
        "If {on} goes down meanwhile, both copies may differ and are built again.",
        "その間に {on} がダウンすると両系の複製が異なる可能性があり、再度ミラー構築が必要です。"
    )
}

/// The heading of a set's administration.
#[must_use]
pub fn set_actions(lang: Lang, name: &str) -> String {
    say!(lang, "Administration of {name}", "{name} の管理")
}

/// In a set's line: an administrator uses it.
#[must_use]
pub fn set_permitted(lang: Lang, on: NodeId, names: Names<'_>) -> String {
    let on = names.server(on);
    say!(lang, "access permitted on {on}", "{on} でアクセス許可中")
}

/// Why an act is refused, and what first: English, then Japanese.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "`refusal::words` lists the kinds that come here; the last is the rest"
)]
pub(super) fn refusal_words(kind: RefusalKind) -> (Pair, Pair) {
    match kind {
        RefusalKind::SetActive => (
            (
                "the group of this mirror set is active",
                "Use it through its group, or stop the group and its servers",
            ),
            ("切替ミラーディスクが活性中です", "グループを通して使用してください"),
        ),
        RefusalKind::SetInUse => (
            ("the group of this mirror set is active", "Stop the group first"),
            ("グループが活性中です", "先にグループを停止してください"),
        ),
        RefusalKind::OtherCounts => (
            (
                "the other server's copies in this group count as equal, and the new disk does not",
                "Stop the other server while the group runs, then stop the group; or register into a new group",
            ),
            (
                "このグループでは相手サーバの複製も最新として扱われています",
                "グループの活性中に相手サーバを停止し、次にグループを停止してください。または新しいグループに登録してください",
            ),
        ),
        RefusalKind::SetInactive => (
            (
                "the mirror set belongs to a group and its server works normally",
                "Start the group instead. Possible only on a server that is restarted after down",
            ),
            (
                "切替ミラーディスクは非活性でサーバは正常です",
                "グループを起動してください。ダウン後再起動のサーバでのみ実行できます",
            ),
        ),
        RefusalKind::SetWorks => (
            (
                "the mirror set works normally",
                "Nothing needs to be built: what differs is copied by itself while its group runs",
            ),
            (
                "ミラーセットは正常に動作しています",
                "構築は不要です。差分はグループの活性中に自動で反映されます",
            ),
        ),
        RefusalKind::OtherNormal => (
            ("the other server works normally", "Recover this server instead: that builds its copies"),
            ("もう一方のサーバは正常です", "サーバ復帰を実行してください。ミラー構築も行われます"),
        ),
        RefusalKind::SetPermitted => (
            ("the mirror set is in use by permission", "Restrict access to it first"),
            ("ミラーセットはアクセス許可中です", "先にアクセス制限を実行してください"),
        ),
        RefusalKind::NotPermitted => (
            ("access to the mirror set is not permitted there", "Nothing needs to be done"),
            ("そのサーバではアクセス許可されていません", "操作は不要です"),
        ),
        RefusalKind::CopyCounts => (
            (
                "the copy on that server still counts as equal",
                "Stop that server first while its group runs on the other one, then exchange the disk",
            ),
            (
                "そのサーバの複製は同期済みとして扱われています",
                "グループをもう一方で活性にし、このサーバを停止してから交換してください",
            ),
        ),
        RefusalKind::OnlyThere => (
            ("this is done on that server only", "Open the page of that server and order it there"),
            ("そのサーバ上でのみ実行できます", "そのサーバのページで実行してください"),
        ),
        _ => (
            ("there is no such mirror set", "Reload the page to see the mirror sets of this cluster"),
            ("そのミラーセットはありません", "ページを再読み込みしてミラーセットを確認してください"),
        ),
    }
}
