//! Times for people: clocks in the reader's own time zone, durations in at most two units.

use crate::ids::WallClock;
use crate::text::{Lang, say};

const DAY_S: u64 = 86_400;
const MINUTE_MS: i64 = 60_000;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since 1970 on the reader's clock; `east` is how many minutes that clock is ahead of UTC.
fn local_seconds(at: WallClock, east: i32) -> u64 {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX).saturating_add(i64::from(east) * MINUTE_MS);
    u64::try_from(ms / 1000).unwrap_or(0)
}

/// Year, month (1 to 12) and day (1 to 31) of a day counted from 1970-01-01, in the Gregorian calendar.
fn calendar(days: u64) -> (u64, usize, u64) {
    // Counted from 1 March of the year 0, so that the leap day is the last of its year.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, usize::try_from(month).unwrap_or(1), day)
}

/// The time of day: `03:12:04`. `east`: minutes the reader's clock is ahead of UTC.
#[must_use]
pub fn clock(at: WallClock, east: i32) -> String {
    let s = local_seconds(at, east) % DAY_S;
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// The time of day on the same day, day and time otherwise: `19 Nov 09:14`.
#[must_use]
pub fn day_and_clock(lang: Lang, at: WallClock, at_present: WallClock, east: i32) -> String {
    let (then, today) = (local_seconds(at, east) / DAY_S, local_seconds(at_present, east) / DAY_S);
    let clock = clock(at, east);
    if then == today {
        return clock;
    }
    if then + 1 == today {
        return say!(lang, "Yesterday {clock}", "昨日 {clock}");
    }
    let (year, month, day) = calendar(then);
    let name = MONTHS.get(month - 1).copied().unwrap_or("");
    if year == calendar(today).0 {
        return say!(lang, "{day} {name} {clock}", "{month}月{day}日 {clock}");
    }
    say!(lang, "{day} {name} {year} {clock}", "{year}年{month}月{day}日 {clock}")
}

/// A length of time in at most two units: `12 min 27 s`.
#[must_use]
pub fn duration(lang: Lang, seconds: u64) -> String {
    let (d, h, m, s) = (seconds / DAY_S, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m, s) {
        (0, 0, 0, s) => say!(lang, "{s}\u{a0}s", "{s}秒"),
        (0, 0, m, 0) => say!(lang, "{m}\u{a0}min", "{m}分"),
        (0, 0, m, s) => say!(lang, "{m}\u{a0}min {s}\u{a0}s", "{m}分{s}秒"),
        (0, h, 0, _) => say!(lang, "{h}\u{a0}h", "{h}時間"),
        (0, h, m, _) => say!(lang, "{h}\u{a0}h {m}\u{a0}min", "{h}時間{m}分"),
        (1, _, _, _) => say!(lang, "1\u{a0}day", "1日"),
        (d, _, _, _) => say!(lang, "{d}\u{a0}days", "{d}日"),
    }
}

/// The length of time between two clocks; 0 if they run apart.
#[must_use]
pub fn since(lang: Lang, earlier: WallClock, later: WallClock) -> String {
    duration(lang, later.0.saturating_sub(earlier.0) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 03:12:04 UTC.
    const AT: WallClock = WallClock(1_795_317_124_000);

    #[test]
    fn clocks_are_in_the_readers_zone() {
        assert_eq!(clock(AT, 0), "03:12:04");
        assert_eq!(clock(AT, 540), "12:12:04");
        assert_eq!(clock(AT, -240), "23:12:04");
        assert_eq!(clock(WallClock(0), -60), "00:00:00");
    }

    #[test]
    fn another_day_is_named() {
        let hours = |h: u64| WallClock(AT.0 - h * 3_600_000);
        assert_eq!(day_and_clock(Lang::En, hours(1), AT, 0), "02:12:04");
        assert_eq!(day_and_clock(Lang::En, hours(4), AT, 0), "Yesterday 23:12:04");
        assert_eq!(day_and_clock(Lang::En, hours(72), AT, 0), "19 Nov 03:12:04");
        assert_eq!(day_and_clock(Lang::Ja, hours(72), AT, 0), "11月19日 03:12:04");
        assert_eq!(day_and_clock(Lang::En, hours(24 * 366), AT, 0), "21 Nov 2025 03:12:04");
    }

    #[test]
    fn the_calendar_knows_leap_years() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_779, (2026, 11, 22)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(calendar(days), date);
        }
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (s, en, ja) in [
            (0, "0\u{a0}s", "0秒"),
            (747, "12\u{a0}min 27\u{a0}s", "12分27秒"),
            (180, "3\u{a0}min", "3分"),
            (3_700, "1\u{a0}h 1\u{a0}min", "1時間1分"),
            (90_000, "1\u{a0}day", "1日"),
            (61 * 86_400, "61\u{a0}days", "61日"),
        ] {
            assert_eq!((duration(Lang::En, s).as_str(), duration(Lang::Ja, s).as_str()), (en, ja));
        }
        assert_eq!(since(Lang::En, AT, WallClock(0)), "0\u{a0}s");
    }
}
