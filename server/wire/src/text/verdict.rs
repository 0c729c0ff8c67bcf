//! The verdict in words: one sentence of at most seven words, its explanation, what to do (VISUAL 5).

use crate::text::state::behind_since;
use crate::text::step::step;
use crate::text::time::{clock, duration};
use crate::text::{Lang, Names, say};
use crate::verdict::{Fact, Kind, Todo, Verdict};

/// The sentence.
#[must_use]
pub fn verdict_words(lang: Lang, verdict: &Verdict, names: Names<'_>) -> String {
    match &verdict.kind {
        Kind::Protected => say!(lang, "Running and protected", "正常稼働・保護されています"),
        Kind::NoGroups => say!(lang, "Both servers up, no groups yet", "サーバ2台とも正常・グループ未作成"),
        Kind::AllStopped => say!(lang, "All groups are stopped", "グループはすべて停止しています"),
        Kind::OnlyOn { server } => {
            let server = names.server(*server);
            say!(lang, "Running on {server} only, not protected", "{server} のみで稼働・保護されていません")
        }
        Kind::Building => say!(lang, "Running, not protected yet", "稼働中・まだ保護されていません"),
        Kind::NotProtected => say!(lang, "Running, not protected", "稼働中・保護されていません"),
        Kind::LinkOut { link } => {
            let link = names.link(*link);
            say!(lang, "Running, {link} is disturbed", "稼働中・{link} に障害")
        }
        Kind::WitnessOut => say!(lang, "Running without a third vote", "稼働中・ウィットネスの票なし"),
        Kind::ManagerAway { server } => {
            let server = names.server(*server);
            say!(lang, "Running, {server} is not managed", "稼働中・{server} の管理が停止")
        }
        Kind::Halted { server } => {
            let server = names.server(*server);
            say!(lang, "Running, {server} has stopped managing", "稼働中・{server} の管理が停止")
        }
        Kind::Moving { group, to } => {
            let (group, to) = (names.group(*group), names.server(*to));
            say!(lang, "{group} is moving to {to}", "{group} を {to} へ移動中")
        }
        Kind::Starting { group } => {
            let group = names.group(*group);
            say!(lang, "{group} is starting", "{group} の起動処理中")
        }
        Kind::Stopping { group } => {
            let group = names.group(*group);
            say!(lang, "{group} is stopping", "{group} の停止処理中")
        }
        Kind::FailingOver { group } => {
            let group = names.group(*group);
            say!(lang, "{group} is being taken over", "{group} をフェイルオーバー中")
        }
        Kind::GroupFailed { group } => {
            let group = names.group(*group);
            say!(lang, "{group} does not run", "{group} が起動していません")
        }
        Kind::GroupHeld { group } => {
            let group = names.group(*group);
            say!(lang, "{group} waits for your decision", "{group} は保留・判断が必要です")
        }
        Kind::GroupUnknown { group } => {
            let group = names.group(*group);
            say!(lang, "Cannot tell whether {group} runs", "{group} の状態を確認できません")
        }
        Kind::Split { set } => {
            let set = names.set(*set);
            say!(lang, "Both copies of {set} changed", "{set} が両系で更新されました")
        }
        Kind::MirrorBroken { set } => {
            let set = names.set(*set);
            say!(lang, "{set} cannot be used", "{set} を使用できません")
        }
        Kind::NoService => say!(lang, "No server takes part", "稼働中のサーバがありません"),
        Kind::CutOff { server } => {
            let server = names.server(*server);
            say!(lang, "{server} is cut off", "{server} は孤立しています")
        }
    }
}

/// The explanation: whole sentences, one after the other.
#[must_use]
pub fn verdict_detail(lang: Lang, verdict: &Verdict, names: Names<'_>) -> String {
    let sentences: Vec<String> = verdict.facts.iter().map(|f| fact(lang, f, names)).collect();
    sentences.join(match lang {
        Lang::En => " ",
        Lang::Ja => "",
    })
}

pub(crate) fn fact(lang: Lang, fact: &Fact, names: Names<'_>) -> String {
    match fact {
        Fact::BothUp => say!(lang, "Both servers are up.", "サーバ2台とも正常。"),
        Fact::Down { server } => {
            let server = names.server(*server);
            say!(lang, "{server} is down.", "{server} はダウンしています。")
        }
        Fact::ServerStopped { server } => {
            let server = names.server(*server);
            say!(lang, "{server} was stopped by an operator.", "{server} は操作により停止しています。")
        }
        Fact::WaitsForRecovery { server } => {
            let server = names.server(*server);
            say!(
                lang,
                "{server} is up again and waits to be recovered.",
                "{server} は再起動し、サーバ復帰を待っています。"
            )
        }
        Fact::Recovering { server } => {
            let server = names.server(*server);
            say!(lang, "{server} is being recovered.", "{server} はサーバ復帰中です。")
        }
        Fact::AllServe { groups } => {
            let name = names.groups(groups, lang);
            match groups.len() {
                1 => say!(lang, "{name} serves its clients.", "{name} は活性です。"),
                2 => say!(lang, "Both groups serve their clients.", "グループは2つとも活性。"),
                _ => say!(lang, "All groups serve their clients.", "グループはすべて活性。"),
            }
        }
        Fact::NotServing { groups } => {
            let name = names.groups(groups, lang);
            if groups.len() == 1 {
                say!(lang, "{name} does not serve its clients.", "{name} は業務を停止しています。")
            } else {
                say!(lang, "{name} do not serve their clients.", "{name} は業務を停止しています。")
            }
        }
        Fact::StoppedOnPurpose { groups } => {
            let name = names.groups(groups, lang);
            if groups.len() == 1 {
                say!(lang, "{name} is stopped on purpose.", "{name} は操作により停止。")
            } else {
                say!(lang, "{name} are stopped on purpose.", "{name} は操作により停止。")
            }
        }
        Fact::CopyFollows => say!(
            lang,
            "All data is on one disk, the other copy follows.",
            "データは片方のディスクに揃っており、もう一方の複製が追従しています。"
        ),
        Fact::DataOnBoth => say!(lang, "All data is on both disks.", "データは両方のディスクにあります。"),
        Fact::DataOnOne { server } => {
            let server = names.server(*server);
            say!(
                lang,
                "Only the disk of {server} has all data.",
                "最新のデータは {server} のディスクのみにあります。"
            )
        }
        Fact::NothingLost => say!(lang, "No data was lost.", "失われたデータはありません。"),
        Fact::UnprotectedFor { seconds } => {
            let time = duration(lang, *seconds);
            say!(lang, "Unprotected for {time}.", "無保護 {time}。")
        }
        Fact::LinkLost { .. }
        | Fact::LinkSlow { .. }
        | Fact::OtherPaths { .. }
        | Fact::NoPath
        | Fact::WitnessSilent
        | Fact::WitnessWithoutVote => path_fact(lang, fact, names),
        Fact::ManagerSilent { .. }
        | Fact::HaltedBecause { .. }
        | Fact::StepFailed { .. }
        | Fact::StopFailed { .. }
        | Fact::NothingOverwritten
        | Fact::BrokenBecause { .. }
        | Fact::MayRunElsewhere => trouble_fact(lang, fact, names),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "called by `fact` for these kinds only")]
fn path_fact(lang: Lang, fact: &Fact, names: Names<'_>) -> String {
    match fact {
        Fact::LinkLost { link, cable: Some(server) } => {
            let (link, server) = (names.link(*link), names.server(*server));
            say!(lang, "{link} has no cable on {server}.", "{link} は {server} のケーブルが抜けています。")
        }
        Fact::LinkLost { link, cable: None } => {
            let link = names.link(*link);
            say!(lang, "{link} does not answer.", "{link} は応答がありません。")
        }
        Fact::LinkSlow { link } => {
            let link = names.link(*link);
            say!(lang, "{link} is slow or loses packets.", "{link} は遅延または損失があります。")
        }
        Fact::OtherPaths { count: 1 } => {
            say!(lang, "The servers reach each other on one more path.", "サーバ間の経路は残り1本です。")
        }
        Fact::OtherPaths { count } => {
            say!(
                lang,
                "The servers reach each other on {count} more paths.",
                "サーバ間の経路は残り{count}本です。"
            )
        }
        Fact::NoPath => {
            say!(lang, "No path to the other server is left.", "もう一方のサーバへの経路がありません。")
        }
        Fact::WitnessSilent => say!(lang, "The witness does not answer.", "ウィットネスが応答しません。"),
        _ => say!(
            lang,
            "The witness lost its memory and votes again when it has heard both servers.",
            "ウィットネスは記憶を失い、両サーバの情報を得るまで投票しません。"
        ),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "called by `fact` for these kinds only")]
fn trouble_fact(lang: Lang, fact: &Fact, names: Names<'_>) -> String {
    match fact {
        Fact::ManagerSilent { server } => {
            let server = names.server(*server);
            say!(
                lang,
                "The manager of {server} does not answer; what it started goes on.",
                "{server} の管理プロセスが応答しません。業務は継続しています。"
            )
        }
        Fact::HaltedBecause { reason } => say!(
            lang,
            "The manager found its own rule broken: {reason}. A failover is not possible from here.",
            "管理プロセスが内部矛盾を検出: {reason}。ここからフェイルオーバーできません。"
        ),
        Fact::StepFailed { group, step: kind, reason } => {
            let (group, step) = (names.group(*group), step(lang, *kind, false));
            say!(
                lang,
                "{group} could not be started. {step}: {reason}.",
                "{group} を起動できません。{step}: {reason}。"
            )
        }
        Fact::StopFailed { group, step: kind, reason } => {
            let (group, step) = (names.group(*group), step(lang, *kind, true));
            say!(
                lang,
                "{group} could not be stopped. {step}: {reason}.",
                "{group} を停止できません。{step}: {reason}。"
            )
        }
        Fact::NothingOverwritten => {
            say!(lang, "Nothing is overwritten until you choose.", "選択するまで上書きしません。")
        }
        Fact::BrokenBecause { set, reason } => {
            let set = names.set(*set);
            say!(lang, "{set}: {reason}.", "{set}: {reason}。")
        }
        _ => say!(
            lang,
            "The groups may run on the other server: nothing is started here.",
            "もう一方のサーバで活性の可能性があるため、ここでは起動しません。"
        ),
    }
}

/// What to do: the strong line and the line under it.
#[must_use]
pub fn todo(lang: Lang, todo: Todo, names: Names<'_>) -> (String, String) {
    let server = match todo {
        Todo::LookAtServer { server }
        | Todo::Recover { server }
        | Todo::StartServer { server }
        | Todo::RestartManager { server }
        | Todo::AskTwin { server } => names.server(server),
        Todo::CheckLink { .. }
        | Todo::CheckWitness
        | Todo::LookAtGroup { .. }
        | Todo::Choose { .. }
        | Todo::CheckDisk { .. }
        | Todo::StartGroups
        | Todo::Resume { .. }
        | Todo::Wait => String::new(),
    };
    match todo {
        Todo::LookAtServer { .. } => (
            say!(lang, "Look at {server}: power, console", "{server} の電源とコンソールを確認"),
            say!(lang, "when it is up again it can be recovered", "再起動後にサーバ復帰できます"),
        ),
        Todo::Recover { .. } => (
            say!(lang, "Recover {server}", "{server} のサーバ復帰を実行"),
            say!(lang, "its copy is rebuilt, then it protects again", "複製を再構築し、保護を再開します"),
        ),
        Todo::StartServer { .. } => (
            say!(lang, "Start {server} when wanted", "必要なときに {server} を起動"),
            say!(lang, "until then nothing could take over", "それまで引き継ぎ先はありません"),
        ),
        Todo::RestartManager { .. } => (
            say!(lang, "Look at the manager on {server}", "{server} の管理プロセスを確認"),
            say!(lang, "service futago: its log, then start it again", "サービス futago: ログを確認し再起動"),
        ),
        Todo::AskTwin { .. } => (
            say!(lang, "Open the page of {server}", "{server} のページを開く"),
            say!(
                lang,
                "if it runs, it knows more; else look at the links",
                "稼働中なら詳細が分かります。経路も確認"
            ),
        ),
        Todo::CheckLink { link } => {
            let link = names.link(link);
            (
                say!(lang, "Check the cable of {link}", "{link} のケーブルを確認"),
                say!(lang, "then the port and the switch", "次にポートとスイッチを確認"),
            )
        }
        Todo::CheckWitness => (
            say!(lang, "Look at the witness's machine", "ウィットネスのマシンを確認"),
            say!(
                lang,
                "without it a cut between the servers stops a group",
                "不在時に経路が断たれるとグループが停止します"
            ),
        ),
        Todo::LookAtGroup { group } => {
            let group = names.group(group);
            (
                say!(lang, "Look at the failed step of {group}", "{group} の失敗した処理を確認"),
                say!(lang, "put its cause right, then order it again", "原因を取り除いてから再度実行"),
            )
        }
        Todo::Choose { set } => {
            let set = names.set(set);
            (
                say!(lang, "Choose the side of {set} to keep", "{set} の残す側を選択"),
                say!(lang, "save a copy of the other side first", "先にもう一方を退避してください"),
            )
        }
        Todo::CheckDisk { set } => {
            let set = names.set(set);
            (
                say!(lang, "Look at the disk of {set}", "{set} のディスクを確認"),
                say!(lang, "cabling, device, system log", "接続、デバイス、システムログ"),
            )
        }
        Todo::Resume { set } => {
            let set = names.set(set);
            (
                say!(lang, "Resume the rebuild of {set}", "{set} のミラー構築を再開"),
                say!(lang, "until it is complete nothing could take over", "完了まで引き継ぎ先はありません"),
            )
        }
        Todo::StartGroups => (
            say!(lang, "Start the groups when wanted", "必要なときにグループを起動"),
            say!(lang, "no client is served now", "業務は提供されていません"),
        ),
        Todo::Wait => (
            say!(lang, "Nothing, this takes its course", "操作は不要です"),
            say!(lang, "the page shows when it is done", "完了するとこの画面に表示されます"),
        ),
    }
}

/// The sentence of a page that has no contact with its server. `seconds`: since the last data.
#[must_use]
pub fn stale_words(lang: Lang, server: &str, seconds: u64) -> String {
    let time = duration(lang, seconds);
    say!(lang, "No contact with {server} for {time}", "{server} と {time} 通信できません")
}

/// Its explanation: when the data were true and how often the page tries again. `east`: minutes ahead of UTC.
#[must_use]
pub fn stale_detail(lang: Lang, last: crate::ids::WallClock, retry_s: u64, east: i32) -> String {
    let (last, retry) = (clock(last, east), duration(lang, retry_s));
    say!(
        lang,
        "Everything below is old: it was true at {last}. Trying again every {retry}.",
        "以下は古い情報です ({last} 時点)。{retry}ごとに再接続しています。"
    )
}

/// Since when a copy is behind, for the slot of a group.
#[must_use]
pub fn copy_behind(lang: Lang, since: crate::ids::WallClock, east: i32) -> String {
    behind_since(lang, since, east)
}
