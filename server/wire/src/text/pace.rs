//! Words about work on the copies while they serve: verifications, paused and limited rebuilds (C7, C10).

use crate::command::{RebuildTurn, RefusalKind, VerifyTurn};
use crate::text::number::{bytes_per_s, count, percent};
use crate::text::refusal::Pair;
use crate::text::sentence::time_left;
use crate::text::state::set_state;
use crate::text::time::clock;
use crate::text::{Lang, say};
use crate::view::{SetState, SetView, Verification, Verified};

/// A button's words.
pub(super) fn verify_operation(lang: Lang, turn: VerifyTurn, set: &str) -> String {
    match turn {
        VerifyTurn::Start { .. } => say!(lang, "Compare both copies of {set}", "{set} の両系を照合"),
        VerifyTurn::Pause => say!(lang, "Pause the comparison of {set}", "{set} の照合を一時停止"),
        VerifyTurn::Resume => say!(lang, "Resume the comparison of {set}", "{set} の照合を再開"),
        VerifyTurn::Limit { .. } => say!(lang, "Limit the comparison of {set}", "{set} の照合の速度を制限"),
        VerifyTurn::End => say!(lang, "End the comparison of {set}", "{set} の照合を終了"),
    }
}

/// A button's words.
pub(super) fn rebuild_operation(lang: Lang, turn: RebuildTurn, set: &str) -> String {
    match turn {
        RebuildTurn::Pause => say!(lang, "Pause the rebuild of {set}", "{set} のミラー構築を一時停止"),
        RebuildTurn::Resume => say!(lang, "Resume the rebuild of {set}", "{set} のミラー構築を再開"),
        RebuildTurn::Limit { .. } => {
            say!(lang, "Limit the rebuild of {set}", "{set} のミラー構築の速度を制限")
        }
    }
}

/// A speed limit as a person reads it; `None`: what there is without one.
#[must_use]
pub fn limit(lang: Lang, bytes: Option<u64>) -> String {
    match bytes {
        Some(bytes) => {
            let speed = bytes_per_s(bytes);
            say!(lang, "at most {speed}", "最大 {speed}")
        }
        None => say!(lang, "no limit of yours", "制限なし"),
    }
}

/// A set's state as its word, with what an operator ordered besides.
#[must_use]
pub fn set_word(lang: Lang, set: &SetView) -> String {
    match (&set.state, &set.verify) {
        (SetState::Rebuilding { progress }, _) if progress.paused => say!(lang, "Paused", "一時停止"),
        (SetState::InSync, Some(verify)) if !verify.paused => say!(lang, "Comparing", "照合中"),
        (state, _) => set_state(lang, state).to_owned(),
    }
}

/// How far a verification is: `43 % compared · about 3 min left · 2 blocks differ`.
#[must_use]
pub fn verifying(lang: Lang, verify: &Verification) -> String {
    let share = percent(verify.done, verify.total);
    let mut parts = vec![say!(lang, "{share}\u{a0}% compared", "照合 {share}\u{a0}%")];
    parts.push(match (verify.paused, verify.running) {
        (true, _) => say!(lang, "paused by an operator", "操作により一時停止"),
        (false, false) => say!(lang, "waits until both copies are in sync", "同期を待っています"),
        (false, true) => time_left(lang, verify.left_s),
    });
    parts.extend(verify.limit.map(|bytes| limit(lang, Some(bytes))));
    if verify.different > 0 {
        parts.push(differ(lang, verify.different));
    }
    if verify.unresolved > 0 {
        parts.push(unclear(lang, verify.unresolved));
    }
    parts.join(" · ")
}

/// How the last verification ended. `east`: minutes the reader's clock is ahead of UTC.
#[must_use]
pub fn verified(lang: Lang, last: &Verified, east: i32) -> String {
    let (at, checked) = (clock(last.ended, east), count(last.checked));
    let mut parts = vec![if last.stopped {
        say!(lang, "Ended early at {at}: {checked} blocks compared", "{at} に中断: {checked} ブロックを照合")
    } else {
        say!(lang, "Compared by {at}: {checked} blocks", "{at} に完了: {checked} ブロックを照合")
    }];
    if last.different == 0 {
        parts.push(say!(lang, "all equal", "すべて一致"));
    } else {
        let repaired = count(last.repaired);
        parts.push(differ(lang, last.different));
        parts.push(say!(lang, "{repaired} repaired", "修復 {repaired}"));
    }
    if last.unresolved > 0 {
        parts.push(unclear(lang, last.unresolved));
    }
    parts.join(" · ")
}

fn differ(lang: Lang, blocks: u64) -> String {
    let number = count(blocks);
    match blocks {
        1 => say!(lang, "1 block differed", "不一致 1 ブロック"),
        _ => say!(lang, "{number} blocks differed", "不一致 {number} ブロック"),
    }
}

fn unclear(lang: Lang, blocks: u64) -> String {
    let number = count(blocks);
    say!(
        lang,
        "{number} not repairable: nobody knows which side is right",
        "修復不可 {number} (正しい側が不明)"
    )
}

/// Why an order is refused, and what first: English, then Japanese.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "`refusal::words` lists the kinds that come here; the last is the rest"
)]
pub(super) fn refusal_words(kind: RefusalKind) -> (Pair, Pair) {
    match kind {
        RefusalKind::SetNotActive => (
            ("the mirror set is not in use", "Start its group first"),
            ("切替ミラーディスクは非活性です", "先にグループを起動してください"),
        ),
        RefusalKind::ActiveElsewhere => (
            (
                "the mirror set is in use on the other server",
                "Open the page of that server and order it there",
            ),
            ("もう一方のサーバで活性中です", "そのサーバのページで実行してください"),
        ),
        RefusalKind::NotInSync => (
            ("the two copies are not in sync", "Possible when the rebuild is complete"),
            ("両系が同期していません", "ミラー構築の完了後に実行できます"),
        ),
        RefusalKind::GoesOn => {
            (("it goes on already", "Nothing needs to be done"), ("既に実行中です", "操作は不要です"))
        }
        RefusalKind::StandsStill => (
            ("it is paused already", "Resume it when it is to go on"),
            ("既に一時停止中です", "続けるには再開してください"),
        ),
        _ => (
            ("no such work is under way", "Nothing needs to be done"),
            ("該当する処理はありません", "操作は不要です"),
        ),
    }
}
