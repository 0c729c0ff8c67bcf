//! The writer on the client host: increments the demo's counter through the floating IP, for as long as its input is open.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A client gives up on one try after this long and tries again: the outcome of that try is unknown, never "lost".
const TRY: Duration = Duration::from_millis(1_000);
/// Between two increments, so that one writer does not fill both cores.
const PAUSE: Duration = Duration::from_millis(4);
/// Between a failed try and the next.
const AGAIN: Duration = Duration::from_millis(20);
/// An answer is a short JSON text.
const ANSWER_MAX: u64 = 16 * 1024;

/// What the writer tells, one line each: milliseconds since 1970 (one clock for all hosts of the demo: they share it),
/// then what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum Told {
    /// When, and the value that the server said is safe.
    Acknowledged { at_ms: u64, value: u64 },
    /// When a try ended without an answer.
    Unanswered { at_ms: u64 },
}

impl Told {
    /// Reads a line; nothing for one that is not whole yet.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let at_ms = words.next()?.parse().ok()?;
        match (words.next()?, words.next()) {
            ("value", Some(value)) => Some(Told::Acknowledged { at_ms, value: value.parse().ok()? }),
            ("unanswered", _) => Some(Told::Unanswered { at_ms }),
            _ => None,
        }
    }
}

/// `x writer ADDRESS:PORT`: runs until standard input ends.
///
/// # Errors
/// When the address cannot be read.
pub fn main(arguments: &[&str]) -> Result<bool> {
    let [address] = arguments else { bail!("writer ADDRESS:PORT") };
    let address: SocketAddr = address.parse().with_context(|| format!("{address} is no ADDRESS:PORT"))?;
    let ended = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tell.store(true, Ordering::Relaxed);
    });
    let now = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    let mut out = std::io::stdout();
    while !ended.load(Ordering::Relaxed) {
        let (line, pause) = match increment(address) {
            Ok(value) => (format!("{} value {value}\n", now()), PAUSE),
            Err(error) => (format!("{} unanswered {error:#}\n", now()), AGAIN),
        };
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).context("tell what happened")?;
        std::thread::sleep(pause);
    }
    Ok(true)
}

/// Asks for one increment; the value that the server says is safe.
///
/// # Errors
/// When no whole answer comes in time; whether the increment happened is then unknown.
pub fn increment(address: SocketAddr) -> Result<u64> {
    let answer = ask(address, "POST", "/increment")?;
    let value: Value = serde_json::from_str(&answer).with_context(|| format!("answer {answer:?}"))?;
    value["value"].as_u64().with_context(|| format!("no value in {answer:?}"))
}

fn ask(address: SocketAddr, method: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TRY).context("connect")?;
    stream.set_read_timeout(Some(TRY)).context("set a time-out")?;
    stream.set_write_timeout(Some(TRY)).context("set a time-out")?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).context("ask")?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer).context("read the answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    let first = head.lines().next().unwrap_or_default();
    if first.split_whitespace().nth(1) != Some("200") {
        bail!("{first}");
    }
    Ok(body.to_owned())
}

/// What a run of the writer shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Increments that were acknowledged.
    pub acknowledged: u64,
    /// Tries without an answer.
    pub unanswered: u64,
    /// Acknowledged increments that were missing later.
    pub lost: u64,
    /// The longest time between two acknowledgements that follow each other, in milliseconds.
    pub gap_ms: u64,
    /// The highest acknowledged value.
    pub highest: u64,
}

/// Judges what a writer told. With one writer each acknowledged value must be higher than all before it: a counter
/// that comes back lower has lost what lies between.
#[must_use]
pub fn judge(told: &[Told]) -> Judged {
    let mut judged = Judged::default();
    let mut last_ms = None;
    for one in told {
        match *one {
            Told::Unanswered { .. } => judged.unanswered += 1,
            Told::Acknowledged { at_ms, value } => {
                judged.acknowledged += 1;
                if value <= judged.highest {
                    judged.lost += judged.highest + 1 - value;
                }
                // What is lost is counted once: the count goes on from the value that is there.
                judged.highest = value;
                if let Some(before) = last_ms.replace(at_ms) {
                    judged.gap_ms = judged.gap_ms.max(at_ms.saturating_sub(before));
                }
            }
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<Told> {
        text.lines().filter_map(Told::read).collect()
    }

    #[test]
    fn the_longest_silence_is_the_gap() {
        let judged =
            judge(&told("10 value 1\n14 value 2\n1014 unanswered connect\n2500 value 4\n2504 value 5\n"));
        assert_eq!(
            judged,
            Judged { acknowledged: 4, unanswered: 1, lost: 0, gap_ms: 2486, highest: 5 },
            "an unanswered try may have counted: 3 is missing among the answers, not on the disk"
        );
    }

    #[test]
    fn a_counter_that_comes_back_lower_has_lost_acknowledged_increments() {
        assert_eq!(judge(&told("1 value 7\n2 value 8\n9 value 6\n10 value 7\n")).lost, 3);
    }

    #[test]
    fn a_line_cut_short_is_not_read() {
        assert_eq!(Told::read("120 val"), None);
        assert_eq!(Told::read("120 value"), None);
        assert_eq!(Told::read(""), None);
    }
}
