//! The steps of a plan and the parts of an incident.

use crate::alert::StepKind;
use crate::text::number::{milliseconds, seconds};
use crate::text::time::{clock, duration};
use crate::text::{Lang, Names, say};
use crate::view::{Incident, PartKind, StepProgress, StepView};

/// A step by what it does on a server.
#[must_use]
pub fn step(lang: Lang, kind: StepKind, stopping: bool) -> String {
    match (kind, stopping) {
        (StepKind::Right, false) => say!(lang, "Obtain the right to run", "実行権を取得"),
        (StepKind::Right, true) => say!(lang, "Hand over the right to run", "実行権を引き渡し"),
        (StepKind::Disk, false) => say!(lang, "Take the disk over", "ディスクを活性化"),
        (StepKind::Disk, true) => say!(lang, "Give the disk back", "ディスクを非活性化"),
        (StepKind::Mount, false) => say!(lang, "Mount the file system", "ファイルシステムをマウント"),
        (StepKind::Mount, true) => say!(lang, "Unmount the file system", "ファイルシステムをアンマウント"),
        (StepKind::Address, false) => say!(lang, "Add and announce the address", "アドレスを追加し通知"),
        (StepKind::Address, true) => say!(lang, "Take the address off", "アドレスを削除"),
        (StepKind::Script, false) => say!(lang, "Run the start script", "開始スクリプトを実行"),
        (StepKind::Script, true) => say!(lang, "Run the stop script", "終了スクリプトを実行"),
    }
}

/// Where a step stands; `at` and `since` are of the same clock.
#[must_use]
pub fn step_progress(lang: Lang, step: &StepView, at: crate::ids::WallClock) -> String {
    match step.progress {
        StepProgress::Waiting => say!(lang, "to come", "未実行"),
        StepProgress::Running { since } => {
            let running = duration(lang, at.0.saturating_sub(since.0) / 1000);
            say!(lang, "running {running}", "実行中 {running}")
        }
        StepProgress::Done { ms } => milliseconds(ms),
        StepProgress::Failed => say!(lang, "failed", "失敗"),
    }
}

/// What a part of a failover's time was spent on.
#[must_use]
pub fn part(lang: Lang, kind: PartKind, incident: &Incident, names: Names<'_>) -> String {
    let server = names.server(incident.server);
    match kind {
        PartKind::Detection => say!(lang, "{server} silent on all links", "{server} 全経路で応答なし"),
        PartKind::Decision => say!(lang, "votes agree", "票が一致"),
        PartKind::Step(StepKind::Right) => say!(lang, "right to run obtained", "実行権を取得"),
        PartKind::Step(StepKind::Disk) => say!(lang, "disk taken over", "ディスク活性化"),
        PartKind::Step(StepKind::Mount) => say!(lang, "mounted, journal read", "マウント・ジャーナル再生"),
        PartKind::Step(StepKind::Address) => say!(lang, "address up", "アドレス活性化"),
        PartKind::Step(StepKind::Script) => say!(lang, "start script done", "開始スクリプト完了"),
    }
}

/// The head of an incident: number, server, time.
#[must_use]
pub fn incident_title(lang: Lang, incident: &Incident, names: Names<'_>, east: i32) -> String {
    let (number, server, at) = (incident.number, names.server(incident.server), clock(incident.began, east));
    say!(lang, "Incident {number}: {server} failed at {at}", "障害 {number}: {at} に {server} がダウン")
}

/// What clients felt of an incident, and what had been forecast.
#[must_use]
pub fn incident_clients(lang: Lang, incident: &Incident, names: Names<'_>) -> String {
    let group = names.group(incident.group);
    match (incident.total_ms, incident.forecast_ms) {
        (None, _) => say!(
            lang,
            "{group} is being taken over. Times in milliseconds.",
            "{group} をフェイルオーバー中。単位はミリ秒。"
        ),
        (Some(total), None) => {
            let total = seconds(lang, total);
            say!(
                lang,
                "{group} was away for {total}. Times in milliseconds.",
                "{group} の中断は {total}。単位はミリ秒。"
            )
        }
        (Some(total), Some(forecast)) => {
            let (total, forecast) = (seconds(lang, total), seconds(lang, forecast));
            say!(
                lang,
                "{group} was away for {total}. Forecast had been {forecast}. Times in milliseconds.",
                "{group} の中断は {total}、予測は {forecast}。単位はミリ秒。"
            )
        }
    }
}
