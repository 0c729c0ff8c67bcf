//! Words about when the writes of a mirror set are acknowledged, and how far behind the other copy is (C4).

use crate::text::number::{bytes, count, seconds};
use crate::text::refusal::Pair;
use crate::text::{Lang, say};
use crate::traffic::WriteMode;
use crate::view::{BehindView, SetView};

/// A mode's name.
#[must_use]
pub fn write_mode(lang: Lang, mode: WriteMode) -> String {
    match mode {
        WriteMode::Synchronous => say!(lang, "synchronous", "同期"),
        WriteMode::SemiSynchronous => say!(lang, "semi-synchronous", "準同期"),
        WriteMode::Asynchronous => say!(lang, "asynchronous", "非同期"),
    }
}

/// What a mode means: what is sure when a write is acknowledged, and what a failure may lose.
#[must_use]
pub fn write_mode_means(lang: Lang, mode: WriteMode) -> String {
    match mode {
        WriteMode::Synchronous => say!(
            lang,
            "A write is done when both disks have it. A failover loses nothing.",
            "両方のディスクに書き込まれた時点で書き込み完了とします。フェイルオーバーで失われるデータはありません。"
        ),
        WriteMode::SemiSynchronous => say!(
            lang,
            "A write is done when this disk has it and the other server has received it. A single failure loses nothing.",
            "自ディスクへの書き込みと相手サーバの受信で書き込み完了とします。単一障害で失われるデータはありません。"
        ),
        WriteMode::Asynchronous => say!(
            lang,
            "A write is done when this disk has it; the other copy follows. A failover loses what it lacks: at most 32 MiB.",
            "自ディスクに書き込まれた時点で完了とし、相手の複製は後から追従します。フェイルオーバーでは未反映分 (最大 32 MiB) が失われます。"
        ),
    }
}

/// A mode was asked for, and the cluster has not shown it yet.
#[must_use]
pub fn write_mode_pending(lang: Lang, mode: WriteMode) -> String {
    let mode = write_mode(lang, mode);
    say!(lang, "Changing to {mode} on both servers", "両サーバで {mode} へ変更中")
}

/// A mode was asked for, and nobody knows what became of it.
#[must_use]
pub fn write_mode_unanswered(lang: Lang) -> String {
    say!(
        lang,
        "No answer: look at the mode that is shown, then choose again",
        "応答がありません。表示中のモードを確認してから選び直してください"
    )
}

/// Heading of the choice.
#[must_use]
pub fn write_modes(lang: Lang, set: &str) -> String {
    say!(lang, "Write mode of {set}", "{set} の書き込みモード")
}

/// In a set's line: its mode, and what is in force until a change of it takes effect. None: synchronous, as everybody expects.
#[must_use]
pub fn set_mode(lang: Lang, set: &SetView) -> Option<String> {
    let (mode, now) = (write_mode(lang, set.mode), write_mode(lang, set.mode_in_force));
    if set.mode < set.mode_in_force {
        return Some(say!(
            lang,
            "{now}, {mode} once the other copy has caught up",
            "{now} (相手の複製が追いつき次第 {mode})"
        ));
    }
    (set.mode != WriteMode::Synchronous).then_some(mode)
}

/// How far behind the other copy is.
#[must_use]
pub fn set_behind(lang: Lang, behind: BehindView) -> String {
    let (size, time) = (bytes(behind.bytes), seconds(lang, behind.ms));
    if behind.writes == 0 {
        return say!(lang, "other copy behind by {size}, {time}", "相手の複製は {size}、{time} 遅れ");
    }
    let writes = count(behind.writes);
    say!(
        lang,
        "other copy behind by {writes} writes, {size}, {time}",
        "相手の複製は書き込み {writes} 件、{size}、{time} 遅れ"
    )
}

pub(super) fn changed(lang: Lang, set: &str, mode: WriteMode) -> String {
    let mode = write_mode(lang, mode);
    say!(lang, "Write mode of {set} set to {mode}", "{set} の書き込みモードを {mode} に変更")
}

/// A failover to a copy that lacked something.
pub(super) fn lost(lang: Lang, set: &str, from: &str, (lacked, ms): (u64, u64)) -> String {
    let (lacked, time) = (bytes(lacked), seconds(lang, ms));
    say!(
        lang,
        "{set} is asynchronous: its copy was {lacked} ({time}) behind when {from} was last heard. That, and what was written after it, is missing; check the application's data",
        "{set} は非同期です。{from} の最後の応答時点で {lacked} ({time}) 遅れており、その分と以後の書き込みは失われました。業務データを確認してください"
    )
}

/// Of a failover's forecast: what the asynchronous sets among these groups would lose.
pub(super) fn would_lose(lang: Lang, sets: &[&SetView], about: &str) -> Option<String> {
    let lags: Vec<_> = sets.iter().filter(|set| set.mode_in_force == WriteMode::Asynchronous).collect();
    if lags.is_empty() {
        return None;
    }
    let lacked = bytes(lags.iter().filter_map(|set| set.behind).map(|behind| behind.bytes).sum());
    Some(say!(
        lang,
        "Loses what is not copied yet ({lacked}), back in {about}",
        "未反映分 ({lacked}) を失い、{about}で復帰"
    ))
}

pub(super) fn refusal_words() -> (Pair, Pair) {
    (
        (
            "the other server's copy of an asynchronous set is far behind",
            "Possible when it has caught up: wait, or write less",
        ),
        (
            "非同期ミラーセットの相手サーバの複製が大きく遅れています",
            "追いつくと実行できます。待つか、書き込みを減らしてください",
        ),
    )
}
