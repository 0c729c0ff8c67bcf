//! Numbers for people: digits grouped by thin spaces, a unit always, at most two decimals (VISUAL 4).

use crate::text::{Lang, say};

/// Between groups of three digits: the thin space that does not break.
const THIN: char = '\u{202f}';
/// Keeps a number and its unit on one line.
const NBSP: char = '\u{a0}';
/// An integer, digits grouped: `137 600`.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(THIN);
        }
        text.push(digit);
    }
    text
}

/// `value / unit` with as many decimals (0 to 2) as three digits of precision need, rounded down so that nothing is
/// promised that was not measured; no trailing zeros.
fn scaled(value: u64, unit: u64) -> String {
    let whole = value / unit;
    let hundredths = u64::try_from(u128::from(value % unit) * 100 / u128::from(unit)).unwrap_or(0);
    match (whole, hundredths) {
        (_, 0) => count(whole),
        (w, _) if w >= 100 => count(w),
        (w, h) if w >= 10 || h.is_multiple_of(10) => {
            if h / 10 == 0 {
                count(w)
            } else {
                format!("{w}.{}", h / 10)
            }
        }
        (w, h) => format!("{w}.{h:02}"),
    }
}

/// A size in bytes with the largest fitting decimal unit: `480 GB`.
#[must_use]
pub fn bytes(value: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB")];
    match UNITS.iter().find(|(unit, _)| value >= *unit) {
        Some((unit, name)) => format!("{}{NBSP}{name}", scaled(value, *unit)),
        None => format!("{value}{NBSP}B"),
    }
}

/// A speed: `74 MB/s`.
#[must_use]
pub fn bytes_per_s(value: u64) -> String {
    format!("{}/s", bytes(value))
}

/// Done and total blocks of a copy: `137 600 / 320 000 blocks`.
#[must_use]
pub fn blocks(lang: Lang, done: u64, total: u64) -> String {
    let (done, total) = (count(done), count(total));
    say!(lang, "{done} / {total} blocks", "{done} / {total} ブロック")
}

/// A share in whole percent, rounded down: 100 % only when all is done.
#[must_use]
pub fn percent(done: u64, total: u64) -> u64 {
    if total == 0 {
        0
    } else {
        u64::try_from(u128::from(done.min(total)) * 100 / u128::from(total)).unwrap_or(0)
    }
}

/// Milliseconds as they were measured: `2 402 ms`.
#[must_use]
pub fn milliseconds(ms: u64) -> String {
    format!("{}{NBSP}ms", count(ms))
}

/// Milliseconds told in seconds with one decimal: `2.4 s`.
#[must_use]
pub fn seconds(lang: Lang, ms: u64) -> String {
    let tenths = ms.saturating_add(50) / 100;
    let number = if tenths.is_multiple_of(10) {
        count(tenths / 10)
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    say!(lang, "{number}{NBSP}s", "{number}秒")
}

/// A forecast's time, marked as such and never below one second: `about 2 s`.
#[must_use]
pub fn about_ms(lang: Lang, ms: u64) -> String {
    let whole = (ms.saturating_add(500) / 1000).max(1);
    let number = count(whole);
    say!(lang, "about {number}{NBSP}s", "約{number}秒")
}

/// A round trip: `0.18 ms`, below ten microseconds `0.01 ms`.
#[must_use]
pub fn round_trip(us: u64) -> String {
    format!("{}{NBSP}ms", scaled(us.max(10), 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_thin_spaces() {
        for (value, text) in
            [(0, "0"), (999, "999"), (1_204, "1\u{202f}204"), (1_234_567, "1\u{202f}234\u{202f}567")]
        {
            assert_eq!(count(value), text);
        }
    }

    #[test]
    fn units_always_and_two_decimals_at_most() {
        for (value, text) in [
            (0, "0\u{a0}B"),
            (999, "999\u{a0}B"),
            (1_000, "1\u{a0}KB"),
            (1_230, "1.23\u{a0}KB"),
            (12_345, "12.3\u{a0}KB"),
            (10_040, "10\u{a0}KB"),
            (480_000_000_000, "480\u{a0}GB"),
            (1_073_741_824, "1.07\u{a0}GB"),
            (123_456_789, "123\u{a0}MB"),
            (u64::MAX, "18\u{202f}446\u{202f}744\u{a0}TB"),
        ] {
            assert_eq!(bytes(value), text, "{value}");
        }
        assert_eq!(bytes_per_s(74_000_000), "74\u{a0}MB/s");
        assert_eq!(round_trip(180), "0.18\u{a0}ms");
        assert_eq!(round_trip(0), "0.01\u{a0}ms");
        assert_eq!(round_trip(1_200), "1.2\u{a0}ms");
    }

    #[test]
    fn a_hundred_percent_only_when_all_is_done() {
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(319_999, 320_000), 99);
        assert_eq!(percent(320_000, 320_000), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }

    #[test]
    fn times_say_what_they_are() {
        assert_eq!(milliseconds(2_402), "2\u{202f}402\u{a0}ms");
        assert_eq!(seconds(Lang::En, 2_402), "2.4\u{a0}s");
        assert_eq!(seconds(Lang::Ja, 3_000), "3秒");
        assert_eq!(about_ms(Lang::En, 0), "about 1\u{a0}s");
        assert_eq!(about_ms(Lang::En, 2_600), "about 3\u{a0}s");
        assert_eq!(about_ms(Lang::Ja, 2_000), "約2秒");
        assert_eq!(blocks(Lang::En, 137_600, 320_000), "137\u{202f}600 / 320\u{202f}000 blocks");
    }
}
