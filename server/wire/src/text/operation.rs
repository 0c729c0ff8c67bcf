//! Operator's acts: buttons, what is under way, and what a dialog says will stop (VISUAL 7: never "Are you sure?").

use crate::command::Operation;
use crate::ids::NodeId;
use crate::text::number::about_ms;
use crate::text::{Lang, Names, say};
use crate::text::{admin, old_version, pace, upkeep};
use crate::view::{ClusterView, GroupState, Outcome, ServerState, Standby, StepProgress};

/// A button's words, understandable alone.
#[must_use]
pub fn operation(lang: Lang, what: Operation, names: Names<'_>) -> String {
    match what {
        Operation::StartGroup { group, on } => {
            let (group, on) = (names.group(group), names.server(on));
            say!(lang, "Start {group} on {on}", "{group} を {on} で起動")
        }
        Operation::StopGroup { group } => {
            let group = names.group(group);
            say!(lang, "Stop {group}", "{group} を停止")
        }
        Operation::MoveGroup { group, to } => {
            let (group, to) = (names.group(group), names.server(to));
            say!(lang, "Move {group} to {to}", "{group} を {to} へ移動")
        }
        Operation::KeepGroup { .. }
        | Operation::FreeGroup { .. }
        | Operation::Maintain { .. }
        | Operation::StopCluster
        | Operation::StartCluster => upkeep::operation(lang, what, names),
        Operation::StopServer { server } => {
            let server = names.server(server);
            say!(lang, "Stop {server}", "{server} を停止")
        }
        Operation::StartServer { server } => {
            let server = names.server(server);
            say!(lang, "Start {server}", "{server} を起動")
        }
        Operation::RecoverServer { server } => {
            let server = names.server(server);
            say!(lang, "Recover {server}", "{server} をサーバ復帰")
        }
        Operation::BuildSet { .. }
        | Operation::ForceRecovery { .. }
        | Operation::PermitSet { .. }
        | Operation::RestrictSet { .. }
        | Operation::ForcePermit { .. }
        | Operation::ExchangeDisk { .. }
        | Operation::ReleaseSet { .. } => admin::operation(lang, what, names),
        Operation::VerifySet { set, turn } => pace::verify_operation(lang, turn, &names.set(set)),
        Operation::PaceRebuild { set, turn } => pace::rebuild_operation(lang, turn, &names.set(set)),
        Operation::OldVersion { set, on, choice } => {
            old_version::operation(lang, choice, &names.set(set), &names.server(on))
        }
    }
}

/// A pending button: what is under way, with the step the plan is at.
#[must_use]
pub fn operation_pending(lang: Lang, what: Operation, view: &ClusterView) -> String {
    let id = match what {
        Operation::StartGroup { group, .. }
        | Operation::StopGroup { group }
        | Operation::MoveGroup { group, .. } => Some(group),
        Operation::KeepGroup { .. }
        | Operation::FreeGroup { .. }
        | Operation::Maintain { .. }
        | Operation::StopCluster
        | Operation::StartCluster
        | Operation::StopServer { .. }
        | Operation::StartServer { .. }
        | Operation::RecoverServer { .. }
        | Operation::BuildSet { .. }
        | Operation::ForceRecovery { .. }
        | Operation::PermitSet { .. }
        | Operation::RestrictSet { .. }
        | Operation::ForcePermit { .. }
        | Operation::ExchangeDisk { .. }
        | Operation::OldVersion { .. }
        | Operation::ReleaseSet { .. }
        | Operation::VerifySet { .. }
        | Operation::PaceRebuild { .. } => None,
    };
    let steps = view.groups.iter().find(|g| Some(g.id) == id).map(|g| g.steps.as_slice()).unwrap_or_default();
    let total = steps.len();
    let step = steps.iter().filter(|s| matches!(s.progress, StepProgress::Done { .. })).count() + 1;
    let counted = total > 0 && step <= total;
    match what {
        Operation::MoveGroup { .. } if counted => {
            say!(lang, "Moving, step {step} of {total}", "移動中、処理 {step}/{total}")
        }
        Operation::StartGroup { .. } if counted => {
            say!(lang, "Starting, step {step} of {total}", "起動処理中、処理 {step}/{total}")
        }
        Operation::StopGroup { .. } if counted => {
            say!(lang, "Stopping, step {step} of {total}", "停止処理中、処理 {step}/{total}")
        }
        Operation::MoveGroup { .. } => say!(lang, "Moving", "移動中"),
        Operation::StartGroup { .. } | Operation::StartServer { .. } | Operation::StartCluster => {
            say!(lang, "Starting", "起動処理中")
        }
        Operation::StopGroup { .. } | Operation::StopServer { .. } | Operation::StopCluster => {
            say!(lang, "Stopping", "停止処理中")
        }
        Operation::KeepGroup { .. } | Operation::FreeGroup { .. } | Operation::Maintain { .. } => {
            say!(lang, "Ordered", "指示済み")
        }
        Operation::RecoverServer { .. } => say!(lang, "Recovering", "サーバ復帰中"),
        Operation::BuildSet { .. } => say!(lang, "Building", "ミラー構築中"),
        Operation::ForceRecovery { .. } => say!(lang, "Declaring it good", "強制復帰中"),
        Operation::PermitSet { .. } | Operation::ForcePermit { .. } => {
            say!(lang, "Permitting", "アクセス許可中")
        }
        Operation::RestrictSet { .. } => say!(lang, "Restricting", "アクセス制限中"),
        Operation::ExchangeDisk { .. } => say!(lang, "Exchanging", "ディスク交換中"),
        Operation::OldVersion { choice, .. } => old_version::pending(lang, choice),
        Operation::ReleaseSet { .. } => say!(lang, "Releasing", "ミラーセット解除中"),
        Operation::VerifySet { .. } | Operation::PaceRebuild { .. } => say!(lang, "Ordered", "要求中"),
    }
}

/// What an operation that ends something will do to people, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The question is a statement: `Stop server1`.
    pub title: String,
    /// What stops or moves, and for how long clients wait.
    pub effects: Vec<String>,
}

/// What a stop or a move will do; `None` when nothing of anybody's ends and no dialog is needed.
#[must_use]
pub fn ending(lang: Lang, what: Operation, view: &ClusterView) -> Option<Ending> {
    let names = Names(view);
    let effects = match what {
        Operation::StopGroup { group } => {
            let address = view.groups.iter().find(|g| g.id == group).and_then(|g| g.addresses.first());
            vec![cut_off(lang, &names.group(group), address.map(ToString::to_string))]
        }
        Operation::MoveGroup { group, to } => {
            let from = view.groups.iter().find(|g| g.id == group).and_then(|g| g.active);
            let about = from.and_then(|f| forecast_ms(view, f)).map(|ms| about_ms(lang, ms));
            vec![away(lang, &names.group(group), &names.server(to), about)]
        }
        Operation::StopServer { server } => stop_server(lang, server, view),
        Operation::BuildSet { .. }
        | Operation::ForceRecovery { .. }
        | Operation::PermitSet { .. }
        | Operation::ForcePermit { .. }
        | Operation::ExchangeDisk { .. }
        | Operation::ReleaseSet { .. } => admin::effects(lang, what, names),
        Operation::OldVersion { set, on, choice } => {
            old_version::effects(lang, choice, &names.set(set), &names.server(on))
        }
        Operation::StopCluster => upkeep::stop_cluster(lang, view),
        Operation::StartGroup { .. }
        | Operation::KeepGroup { .. }
        | Operation::FreeGroup { .. }
        | Operation::Maintain { .. }
        | Operation::StartCluster
        | Operation::StartServer { .. }
        | Operation::RecoverServer { .. }
        | Operation::VerifySet { .. }
        | Operation::PaceRebuild { .. }
        | Operation::RestrictSet { .. } => {
            return None;
        }
    };
    Some(Ending { title: operation(lang, what, names), effects })
}

/// One sentence beside a button that is ready: whom the operation touches. `None` when nobody.
#[must_use]
pub fn consequence(lang: Lang, what: Operation, view: &ClusterView) -> Option<String> {
    let Operation::StopServer { server } = what else {
        return ending(lang, what, view).and_then(|e| e.effects.into_iter().next());
    };
    let names = Names(view);
    let here = view.groups.iter().filter(|g| g.active == Some(server) && g.state != GroupState::Stopped);
    let ids: Vec<_> = here.clone().map(|g| g.id).collect();
    let moves = takes_over(view, server) && here.clone().all(|g| g.standby == Standby::Ready);
    let (groups, twin, server) =
        (names.groups(&ids, lang), names.server(server.twin()), names.server(server));
    Some(match (ids.len(), moves) {
        (0, _) => say!(lang, "No group runs on {server}.", "{server} で活性のグループはありません。"),
        (1, true) => say!(lang, "{groups} moves to {twin} first.", "先に {groups} を {twin} へ移動します。"),
        (_, true) => say!(lang, "{groups} move to {twin} first.", "先に {groups} を {twin} へ移動します。"),
        (1, false) => say!(
            lang,
            "{groups} stops too: nothing could take over.",
            "{groups} も停止します。引き継ぎ先はありません。"
        ),
        (_, false) => say!(
            lang,
            "{groups} stop too: nothing could take over.",
            "{groups} も停止します。引き継ぎ先はありません。"
        ),
    })
}

fn takes_over(view: &ClusterView, server: NodeId) -> bool {
    view.servers.iter().any(|s| s.id != server && s.state == ServerState::Normal)
}

fn forecast_ms(view: &ClusterView, server: NodeId) -> Option<u64> {
    view.forecasts.iter().find(|f| f.server == server).and_then(|f| match f.outcome {
        Outcome::Moves { about_ms } => Some(about_ms),
        Outcome::NothingStops | Outcome::Stops | Outcome::StopsWithoutVote => None,
    })
}

fn cut_off(lang: Lang, group: &str, address: Option<String>) -> String {
    match address {
        Some(address) => say!(
            lang,
            "Clients of {group} ({address}) are cut off until you start it again.",
            "再び起動するまで {group} ({address}) は利用できません。"
        ),
        None => say!(
            lang,
            "{group} is away until you start it again.",
            "再び起動するまで {group} は利用できません。"
        ),
    }
}

fn away(lang: Lang, group: &str, to: &str, about: Option<String>) -> String {
    match about {
        Some(about) => say!(
            lang,
            "{group} stops, then starts on {to}: clients wait {about}.",
            "{group} を停止し {to} で起動します。中断は{about}です。"
        ),
        None => say!(
            lang,
            "{group} stops, then starts on {to}: clients wait for that time.",
            "{group} を停止し {to} で起動します。その間は利用できません。"
        ),
    }
}

fn stop_server(lang: Lang, server: NodeId, view: &ClusterView) -> Vec<String> {
    let names = Names(view);
    let twin_takes =
        view.servers.iter().any(|s| s.id != server && s.state == crate::view::ServerState::Normal);
    let about = forecast_ms(view, server).map(|ms| about_ms(lang, ms));
    let mut effects: Vec<String> = view
        .groups
        .iter()
        .filter(|g| g.active == Some(server) && g.state != GroupState::Stopped)
        .map(|g| {
            if twin_takes && g.standby == Standby::Ready {
                away(lang, &g.name, &names.server(server.twin()), about.clone())
            } else {
                cut_off(lang, &g.name, g.addresses.first().map(ToString::to_string))
            }
        })
        .collect();
    let (server, twin) = (names.server(server), names.server(server.twin()));
    if twin_takes {
        effects.push(say!(
            lang,
            "Until {server} is started again the data is on {twin} only, and nothing could take over.",
            "{server} を起動するまでデータは {twin} のみとなり、引き継ぎ先はありません。"
        ));
    } else {
        effects.push(say!(lang, "No other server runs.", "ほかに稼働中のサーバはありません。"));
    }
    effects
}

/// The demo's act on a server: power loss.
#[must_use]
pub fn server_kill(lang: Lang, server: &str) -> String {
    say!(lang, "Cut the power of {server}", "{server} の電源を断つ")
}

/// The demo's act on a server: powered on again.
#[must_use]
pub fn server_restart(lang: Lang, server: &str) -> String {
    say!(lang, "Power {server} on again", "{server} の電源を入れる")
}

/// The demo's act on a link: the cable pulled.
#[must_use]
pub fn link_cut(lang: Lang, link: &str) -> String {
    say!(lang, "Pull the cable of {link}", "{link} のケーブルを抜く")
}

/// The demo's act on a link: the cable plugged in.
#[must_use]
pub fn link_mend(lang: Lang, link: &str) -> String {
    say!(lang, "Plug {link} in again", "{link} のケーブルを挿す")
}

/// The demo refused an act.
#[must_use]
pub fn demo_failed(lang: Lang, reason: &str) -> String {
    say!(lang, "Not done: {reason}", "実行できません: {reason}")
}
