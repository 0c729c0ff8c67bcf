//! The writer on the client host: increments the demo's counter through the floating IP, for as long as its input is open.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use wire::ids::NodeId;

/// A client gives up on one try after this long and tries again: the outcome of that try is unknown, never "lost".
const TRY: Duration = Duration::from_millis(1_000);
/// It gives up on a connection that nobody answers after this long: the gap is measured to about this.
const CONNECT: Duration = Duration::from_millis(100);
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
    /// When, the value that a server said is safe, which server's application said so, and when it did (microseconds).
    Acknowledged { at_ms: u64, value: u64, by: NodeId, said_us: u64 },
    /// When a try ended without an answer: whether it counted is unknown.
    Unanswered { at_ms: u64 },
    /// When, and the value that was read before the next try.
    Seen { at_ms: u64, value: u64 },
}

impl Told {
    /// Reads a line; nothing for one that is not whole yet.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let at_ms = words.next()?.parse().ok()?;
        match words.next()? {
            "value" => {
                let value = words.next()?.parse().ok()?;
                let by = NodeId(words.next()?.strip_prefix("server")?.parse().ok()?);
                Some(Told::Acknowledged { at_ms, value, by, said_us: words.next()?.parse().ok()? })
            }
            "seen" => Some(Told::Seen { at_ms, value: words.next()?.parse().ok()? }),
            "unanswered" => Some(Told::Unanswered { at_ms }),
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
    // After a try without an answer the value is read first: were increments tried again at once, one that counted
    // without an answer could stand in for one that was acknowledged and lost.
    let mut doubtful = false;
    while !ended.load(Ordering::Relaxed) {
        let asked = if doubtful { look(address) } else { increment(address) };
        doubtful = asked.is_err();
        let line = match asked {
            Ok(said) => format!("{} {said}\n", now_ms()),
            Err(error) => format!("{} unanswered {error:#}\n", now_ms()),
        };
        let mut out = std::io::stdout();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).context("tell what happened")?;
        std::thread::sleep(if doubtful { AGAIN } else { PAUSE });
    }
    Ok(true)
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    now_us() / 1_000
}

/// Microseconds since 1970.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Adds one; the acknowledgement as it is told.
fn increment(address: SocketAddr) -> Result<String> {
    let answer = ask(address, "POST", "/increment")?;
    let server = answer["server"].as_str().with_context(|| format!("no server in {answer}"))?;
    let said_us = answer["at_us"].as_u64().with_context(|| format!("no time in {answer}"))?;
    Ok(format!("value {} {server} {said_us}", value(&answer)?))
}

/// Reads the value; as it is told.
fn look(address: SocketAddr) -> Result<String> {
    Ok(format!("seen {}", value(&ask(address, "GET", "/value")?)?))
}

fn value(answer: &Value) -> Result<u64> {
    answer["value"].as_u64().with_context(|| format!("no value in {answer}"))
}

/// Asks the demo's application.
fn ask(address: SocketAddr, method: &str, path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT).context("connect")?;
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
    serde_json::from_str(body).with_context(|| format!("answer {body:?}"))
}

/// Judges what a writer tells, as it comes. With one writer each acknowledged value must be higher than all before it:
/// a counter that comes back lower has lost what lies between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judge {
    /// Increments that were acknowledged.
    pub acknowledged: u64,
    /// Tries without an answer.
    pub unanswered: u64,
    /// Acknowledged increments that were missing later.
    pub lost: u64,
    /// The value that must still be there.
    pub expected: u64,
    last_ms: Option<u64>,
    gap_ms: u64,
}

impl Judge {
    /// Takes in what was told since the last time.
    pub fn hear(&mut self, told: &[Told]) {
        for one in told {
            match *one {
                Told::Unanswered { .. } => self.unanswered += 1,
                Told::Seen { value, .. } => self.found(value),
                Told::Acknowledged { at_ms, value, .. } => {
                    self.acknowledged += 1;
                    self.found(value.saturating_sub(1));
                    self.expected = value;
                    if let Some(before) = self.last_ms.replace(at_ms) {
                        self.gap_ms = self.gap_ms.max(at_ms.saturating_sub(before));
                    }
                }
            }
        }
    }

    /// The counter stood at this value. What is lost is counted once: the count goes on from what is there.
    fn found(&mut self, value: u64) {
        self.lost += self.expected.saturating_sub(value);
        self.expected = value;
    }

    /// The longest time between two acknowledgements that follow each other, in milliseconds, since this was last asked.
    pub fn take_gap_ms(&mut self) -> u64 {
        std::mem::take(&mut self.gap_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Judge {
        let told: Vec<Told> = text.lines().filter_map(Told::read).collect();
        let mut judge = Judge::default();
        judge.hear(&told);
        judge
    }

    #[test]
    fn the_longest_silence_is_the_gap_and_a_try_without_answer_may_have_counted() {
        let mut judge = judged(
            "10 value 1 server1 10000\n14 value 2 server1 14000\n1014 unanswered connect\n2480 seen 3\n2500 value 4 server1 2500000\n2504 value 5 server1 2504000\n",
        );
        assert_eq!((judge.acknowledged, judge.unanswered, judge.lost, judge.expected), (4, 1, 0, 5));
        assert_eq!(judge.take_gap_ms(), 2486);
        assert_eq!(judge.take_gap_ms(), 0);
    }

    #[test]
    fn a_counter_that_comes_back_lower_has_lost_acknowledged_increments() {
        assert_eq!(judged("1 value 7 server1 1000\n2 value 8 server1 2000\n9 value 6 server1 9000\n10 value 7 server1 10000\n").lost, 3);
        assert_eq!(judged("1 value 7 server1 1000\n2 value 8 server1 2000\n5 unanswered connect\n9 seen 6\n10 value 7 server1 10000\n").lost, 2);
    }

    #[test]
    fn a_line_cut_short_is_not_read() {
        assert_eq!(Told::read("120 val"), None);
        assert_eq!(Told::read("120 value"), None);
        assert_eq!(Told::read("120 value 7 server"), None);
        assert_eq!(Told::read("120 value 7 server2"), None);
        assert_eq!(Told::read(""), None);
    }
}
