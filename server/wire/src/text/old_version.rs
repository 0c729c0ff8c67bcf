//! Words about an older version of a copy that a rebuild overwrote: its choices, events and refusals (DESIGN 5, E7).

use crate::alert::EventKind;
use crate::command::{OldChoice, RefusalKind};
use crate::text::refusal::Pair;
use crate::text::{Lang, Names, say};

/// A button's words.
pub(super) fn operation(lang: Lang, choice: OldChoice, set: &str, on: &str) -> String {
    match choice {
        OldChoice::PutBack => {
            say!(lang, "Put {set} on {on} back to before the rebuild", "{on} の {set} を再構築前に戻す")
        }
        OldChoice::Drop => {
            say!(lang, "Drop the older version of {set} on {on}", "{on} の {set} の旧版を破棄")
        }
        OldChoice::Waive => {
            say!(lang, "Rebuild {set} without keeping the older version", "{set} を旧版を残さずに再構築")
        }
    }
}

/// While it is under way.
pub(super) fn pending(lang: Lang, choice: OldChoice) -> String {
    match choice {
        OldChoice::PutBack => say!(lang, "Putting back", "復元中"),
        OldChoice::Drop => say!(lang, "Dropping", "破棄中"),
        OldChoice::Waive => say!(lang, "Going on", "続行中"),
    }
}

/// What it loses: the dialog's sentences.
pub(super) fn effects(lang: Lang, choice: OldChoice, set: &str, on: &str) -> Vec<String> {
    match choice {
        OldChoice::PutBack => vec![
            say!(
                lang,
                "What the rebuild has brought to {set} on {on} is lost; the copy is whole again, as it was before.",
                "再構築で {on} の {set} に反映された内容は失われ、再構築前の複製に戻ります。"
            ),
            say!(
                lang,
                "It is not the newest: it serves only by a forced recovery, and is compared in full at the next rebuild.",
                "最新ではありません。使用には強制復帰が必要で、次の再構築では全体を照合します。"
            ),
        ],
        OldChoice::Drop => vec![say!(
            lang,
            "What {set} on {on} held before the rebuild can no longer be looked at or put back.",
            "{on} の {set} の再構築前の内容は参照も復元もできなくなります。"
        )],
        OldChoice::Waive => vec![say!(
            lang,
            "What only the other copy of {set} holds is lost for good: it cannot be put back.",
            "{set} のもう一方の複製だけにある内容は完全に失われ、復元できません。"
        )],
    }
}

/// An event's sentence.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "`event` lists the kinds that come here; the last is the rest"
)]
pub(super) fn event(lang: Lang, kind: &EventKind, set: &str, names: Names<'_>) -> String {
    match kind {
        EventKind::OldVersionLost { server, .. } => {
            let server = names.server(*server);
            say!(
                lang,
                "{set}: the version of {server} from before the rebuild is no longer kept: its store was full, or that \
                 server began to serve",
                "{set}: {server} の再構築前の版は保持されなくなりました（領域不足、またはそのサーバが活性化）"
            )
        }
        EventKind::OldVersionBack { server, .. } => {
            let server = names.server(*server);
            say!(
                lang,
                "{set}: the copy on {server} is what it was before the rebuild. It is not the newest",
                "{set}: {server} の複製を再構築前の状態に戻しました。最新ではありません"
            )
        }
        EventKind::OldVersionTooLarge { server, .. } => {
            let server = names.server(*server);
            say!(
                lang,
                "{set}: the rebuild waits: {server} cannot keep all that it would overwrite. Order it to go on without",
                "{set}: 再構築は待機中です。{server} は上書きされる内容をすべて保持できません。破棄して続行するか選択"
            )
        }
        _ => String::new(),
    }
}

/// Why a choice is refused, and what first: English, then Japanese.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "`refusal::words` lists the kinds that come here; the last is the rest"
)]
pub(super) fn refusal_words(kind: RefusalKind) -> (Pair, Pair) {
    match kind {
        RefusalKind::NothingKept => (
            ("no older version is kept on that server", "Nothing needs to be done"),
            ("そのサーバに旧版は保持されていません", "操作は不要です"),
        ),
        _ => (
            (
                "that server cannot keep all that the rebuild would overwrite",
                "Order the rebuild to go on without keeping it, or save what you need from that copy",
            ),
            (
                "そのサーバは再構築で上書きされる内容をすべて保持できません",
                "旧版を残さず続行するか、必要な内容を退避してください",
            ),
        ),
    }
}
