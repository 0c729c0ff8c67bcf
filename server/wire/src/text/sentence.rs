//! The page's other sentences with slots: live sign, progress, headings of actions, the stale page's way out.

use crate::ids::WallClock;
use crate::text::time::{clock, duration};
use crate::text::{Lang, say};
use crate::view::Rebuild;

/// The live sign: who feeds the page and the clock of its last data.
#[must_use]
pub fn live_from(lang: Lang, server: &str, at: WallClock, east: i32) -> String {
    let at = clock(at, east);
    say!(lang, "Live from {server} · {at}", "{server} から受信中 · {at}")
}

/// The live sign of a stale page.
#[must_use]
pub fn not_live(lang: Lang, at: WallClock, east: i32) -> String {
    let at = clock(at, east);
    say!(lang, "Not live · last data {at}", "受信停止 · 最終 {at}")
}

/// In place of the readings of a server that does not answer.
#[must_use]
pub fn no_readings(lang: Lang, server: &str) -> String {
    say!(lang, "No readings from {server}", "{server} の測定値なし")
}

/// The time left of a rebuild: measured, stalled, or not measured yet; never "0 s left".
#[must_use]
pub fn left(lang: Lang, progress: &Rebuild) -> String {
    if progress.paused {
        return say!(lang, "paused by an operator", "操作により一時停止");
    }
    if progress.stalled_s >= STALLED_AFTER_S {
        return stalled(lang, progress.stalled_s);
    }
    match progress.left_s {
        _ if progress.total > 0 && progress.done >= progress.total => say!(lang, "finishing", "完了処理中"),
        seconds => time_left(lang, seconds),
    }
}

/// The time left of work that goes on, once it is measured.
pub(super) fn time_left(lang: Lang, seconds: Option<u64>) -> String {
    match seconds {
        None => say!(lang, "measuring", "測定中"),
        Some(seconds) => {
            let time = duration(lang, coarse(seconds));
            say!(lang, "about {time} left", "残り約{time}")
        }
    }
}

/// Seconds without progress after which the page says so (VISUAL 5).
const STALLED_AFTER_S: u64 = 10;

/// An estimate is told in whole minutes from two minutes on, and is never zero.
fn coarse(seconds: u64) -> u64 {
    if seconds >= 120 { seconds.div_ceil(60) * 60 } else { seconds.max(1) }
}

/// A rebuild that stands still.
#[must_use]
pub fn stalled(lang: Lang, seconds: u64) -> String {
    let time = duration(lang, seconds);
    say!(lang, "no progress for {time}", "{time}間 進捗なし")
}

/// When the pair is protected again.
#[must_use]
pub fn in_about(lang: Lang, seconds: u64) -> String {
    let time = duration(lang, coarse(seconds));
    say!(lang, "in about {time}", "約{time}後")
}

/// What a screen reader hears at each ten percent of a rebuild.
#[must_use]
pub fn announce_percent(lang: Lang, set: &str, percent: u64) -> String {
    say!(lang, "Rebuild of {set}: {percent} percent", "{set} のミラー構築: {percent} パーセント")
}

/// The heading of a group's actions.
#[must_use]
pub fn group_actions(lang: Lang, name: &str) -> String {
    say!(lang, "Actions for {name}", "{name} の操作")
}

/// The stale page's main button.
#[must_use]
pub fn open_on(lang: Lang, server: &str) -> String {
    say!(lang, "Open on {server}", "{server} で開く")
}

/// The twin answered just now: beside the button that opens it.
#[must_use]
pub fn twin_answers(lang: Lang, server: &str, seconds_ago: u64) -> String {
    let ago = duration(lang, seconds_ago);
    say!(lang, "{server} answers, asked {ago} ago", "{server} は応答あり ({ago}前)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::RebuildKind;
    use crate::ids::NodeId;

    #[test]
    fn the_time_left_is_honest() {
        let mut progress = Rebuild {
            to: NodeId(1),
            kind: RebuildKind::Fast,
            done: 1,
            total: 2,
            bytes_per_s: 1,
            left_s: None,
            stalled_s: 0,
            paused: false,
            limit: None,
        };
        assert_eq!(left(Lang::En, &progress), "measuring");
        progress.left_s = Some(0);
        assert_eq!(left(Lang::En, &progress), "about 1\u{a0}s left");
        progress.left_s = Some(185);
        assert_eq!(left(Lang::En, &progress), "about 4\u{a0}min left");
        progress.done = 2;
        assert_eq!(left(Lang::En, &progress), "finishing");
        progress.stalled_s = 12;
        assert_eq!(left(Lang::En, &progress), "no progress for 12\u{a0}s");
        progress.paused = true;
        assert_eq!(left(Lang::En, &progress), "paused by an operator");
    }
}
