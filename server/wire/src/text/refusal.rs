//! Refusals: why not, possible when, what first, and the stable number (G12).

use crate::command::RefusalKind;
use crate::text::event::event_number;
use crate::text::{Lang, say};

/// A refusal in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why not.
    pub why: String,
    /// When it will be possible, and what to do first.
    pub first: String,
    /// `M-2040`.
    pub number: String,
}

/// The words of a refusal.
#[must_use]
pub fn refusal(lang: Lang, kind: RefusalKind) -> Refused {
    let (en, ja) = words(kind);
    let (why, first) = match lang {
        Lang::En => en,
        Lang::Ja => ja,
    };
    Refused { why: why.to_owned(), first: first.to_owned(), number: event_number(kind.code()) }
}

/// Beside a greyed button: `Not now: why. What first.` without the number, which is shown apart.
#[must_use]
pub fn greyed(lang: Lang, kind: RefusalKind) -> String {
    let Refused { why, first, .. } = refusal(lang, kind);
    say!(lang, "Not now: {why}. {first}.", "現在は実行できません: {why}。{first}。")
}

/// Beside a button whose command was refused.
#[must_use]
pub fn refused(lang: Lang, kind: RefusalKind) -> String {
    let Refused { why, first, .. } = refusal(lang, kind);
    say!(lang, "Refused: {why}. {first}.", "拒否されました: {why}。{first}。")
}

pub(super) type Pair = (&'static str, &'static str);

/// Why, and when or what first: English, then Japanese.
fn words(kind: RefusalKind) -> (Pair, Pair) {
    match kind {
        RefusalKind::Changed => (
            ("the state changed after you looked", "Look at the state, then order it again"),
            ("表示後に状態が変わりました", "状態を確認してからもう一度実行してください"),
        ),
        RefusalKind::UnknownGroup => (
            ("there is no such group", "Reload the page to see the groups of this cluster"),
            ("そのグループはありません", "ページを再読み込みしてグループを確認してください"),
        ),
        RefusalKind::UnknownServer => (
            ("there is no such server", "Reload the page to see the servers of this cluster"),
            ("そのサーバはありません", "ページを再読み込みしてサーバを確認してください"),
        ),
        RefusalKind::AlreadyRunning => (
            ("the group runs already", "Nothing needs to be done"),
            ("グループは既に活性です", "操作は不要です"),
        ),
        RefusalKind::NotRunning => (
            ("the group does not run", "Start it first"),
            ("グループは活性ではありません", "先に起動してください"),
        ),
        RefusalKind::AlreadyThere => (
            ("the group runs on that server already", "Nothing needs to be done"),
            ("グループは既にそのサーバで活性です", "操作は不要です"),
        ),
        RefusalKind::Busy => (
            ("the group is on its way", "Possible when its last step is done: wait for it"),
            ("グループは処理中です", "処理が終わると実行できます"),
        ),
        RefusalKind::NotInPolicy => (
            ("the group may not run on that server", "Add the server to the group's order of servers first"),
            ("グループの運用ポリシーにそのサーバがありません", "先に運用ポリシーへサーバを追加してください"),
        ),
        RefusalKind::ServerDown => (
            (
                "that server is down",
                "Possible when it is up again and recovered: look at its power and console",
            ),
            (
                "そのサーバはダウンしています",
                "再起動しサーバ復帰した後に実行できます。電源とコンソールを確認してください",
            ),
        ),
        RefusalKind::ServerNotRecovered => (
            ("that server was down and is not recovered", "Recover it first"),
            ("そのサーバはダウン後再起動の状態です", "先にサーバ復帰を実行してください"),
        ),
        RefusalKind::ServerStopped => (
            ("that server is stopped", "Start it first"),
            ("そのサーバは停止しています", "先にサーバを起動してください"),
        ),
        RefusalKind::ServerNormal => (
            ("that server works normally", "There is nothing to recover or to start"),
            ("そのサーバは正常です", "復帰や起動の必要はありません"),
        ),
        RefusalKind::RecoveryRuns => (
            ("that server is being recovered already", "Possible when the recovery ends: wait for it"),
            ("そのサーバは復帰処理中です", "サーバ復帰の完了後に実行できます"),
        ),
        RefusalKind::CopyOutOfDate => (
            ("the copy on that server is out of date", "Possible after a rebuild: recover that server first"),
            (
                "そのサーバの複製は古くなっています",
                "ミラー構築後に実行できます。先にサーバ復帰を実行してください",
            ),
        ),
        RefusalKind::CopyRebuilding => (
            ("the copy on that server is not complete", "Possible when the rebuild ends: wait for it"),
            ("そのサーバの複製は構築中です", "ミラー構築の完了後に実行できます"),
        ),
        RefusalKind::CopyMayLack => (
            (
                "the copy on that server may lack the last writes before it went down, and the other one has them",
                "Start it on the other server first: then this copy is brought up to date",
            ),
            (
                "そのサーバの複製はダウン直前の更新を欠いている可能性があり、もう一方は揃っています",
                "先にもう一方のサーバで起動してください。その後この複製が最新になります",
            ),
        ),
        RefusalKind::CopySplit => (
            ("both sides of the mirror set changed", "Choose the side that is kept first"),
            ("ミラーセットが両系で更新されています", "先に残す側を選択してください"),
        ),
        RefusalKind::NoQuorum => (
            (
                "too few votes answer",
                "Possible when the other server or the witness answers again: look at them",
            ),
            ("票が足りません", "もう一方のサーバかウィットネスの応答が回復すると実行できます"),
        ),
        RefusalKind::NoRight => (
            (
                "this server has lost its right to run",
                "Possible when it reaches the other server or the witness again",
            ),
            (
                "このサーバは実行権を失っています",
                "もう一方のサーバかウィットネスとの通信が回復すると実行できます",
            ),
        ),
        RefusalKind::Held => (
            ("the group is held: a stop failed", "Look at the failed step on its server first"),
            ("グループは保留中です (停止に失敗)", "先に失敗した処理を確認してください"),
        ),
        RefusalKind::TwinAway => (
            (
                "the other server must take part and does not answer",
                "Possible when it answers: look at its links",
            ),
            ("もう一方のサーバが応答しません", "応答が回復すると実行できます。経路を確認してください"),
        ),
        RefusalKind::Unreachable => (
            ("that server cannot be reached from here", "Open the page of that server and order it there"),
            ("ここからそのサーバに到達できません", "そのサーバのページで実行してください"),
        ),
        RefusalKind::NoCluster => (
            ("there is no cluster yet", "Create the cluster first"),
            ("クラスタがまだありません", "先にクラスタを生成してください"),
        ),
        RefusalKind::EngineHalted => (
            (
                "the manager of this server stopped itself",
                "Look at its log and start the manager again first",
            ),
            ("このサーバの管理処理は停止しています", "ログを確認し、管理プロセスを再起動してください"),
        ),
        RefusalKind::UnknownSet
        | RefusalKind::SetActive
        | RefusalKind::SetInactive
        | RefusalKind::SetWorks
        | RefusalKind::OtherNormal
        | RefusalKind::SetPermitted
        | RefusalKind::NotPermitted
        | RefusalKind::CopyCounts
        | RefusalKind::OnlyThere
        | RefusalKind::SetInUse
        | RefusalKind::OtherCounts => crate::text::admin::refusal_words(kind),
        RefusalKind::Occupied | RefusalKind::AlreadySo => crate::text::upkeep::refusal_words(kind),
        RefusalKind::SetNotActive
        | RefusalKind::ActiveElsewhere
        | RefusalKind::NotInSync
        | RefusalKind::GoesOn
        | RefusalKind::StandsStill
        | RefusalKind::NoWork => crate::text::pace::refusal_words(kind),
        RefusalKind::TwinBehind => crate::text::mode::refusal_words(),
        RefusalKind::NothingKept | RefusalKind::CannotKeep => crate::text::old_version::refusal_words(kind),
        RefusalKind::TooMany => (
            ("too many orders wait for an answer", "Possible in a moment: wait for the answers"),
            ("応答待ちの操作が多すぎます", "応答を待ってから実行してください"),
        ),
    }
}
