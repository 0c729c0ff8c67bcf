//! The client of the failover measurement: a datagram to a floating IP every few milliseconds, and each answer told; and
//! the echo that answers where a group is nothing but an address.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::writer::now_us;
use crate::{command, paths};

/// Between two probes: what the gap is measured to.
const PERIOD: Duration = Duration::from_millis(5);
/// A probe is its number; an answer the same and the name of who answered.
const NUMBER: usize = 8;
/// Longest answer.
const ANSWER_MAX: usize = 128;
/// A pause between two answers longer than this is part of an outage.
const OUTAGE_US: u64 = 20_000;

/// Between two looks at what a probe told.
const LOOK: Duration = Duration::from_millis(50);

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When it came, in microseconds since 1970.
    pub at_us: u64,
    /// Who answered.
    pub by: String,
}

impl Heard {
    /// Reads a line; nothing for one that is not whole.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let (at, by) = line.split_once(' ')?;
        Some(Self { at_us: at.parse().ok()?, by: by.to_owned() })
    }
}

/// The longest silence after an event: from the last answer before it to the first behind it, and who gave that one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Its length in microseconds.
    pub us: u64,
    /// When it ended, in microseconds since 1970.
    pub end_us: u64,
    /// Who answered then.
    pub by: String,
}

impl Gap {
    /// The longest silence that ended after `event_us`.
    #[must_use]
    pub fn longest(heard: &[Heard], event_us: u64) -> Option<Gap> {
        let pairs = heard.windows(2).filter(|pair| pair[1].at_us + OUTAGE_US > event_us);
        let gap = |pair: &[Heard]| Gap {
            us: pair[1].at_us.saturating_sub(pair[0].at_us),
            end_us: pair[1].at_us,
            by: pair[1].by.clone(),
        };
        pairs.map(gap).max_by_key(|gap| gap.us)
    }

    /// In milliseconds, rounded.
    #[must_use]
    pub fn ms(&self) -> u64 {
        (self.us + 500) / 1_000
    }
}

/// `x probe ADDRESS:PORT`: runs until standard input ends.
///
/// # Errors
/// When the address cannot be read or no socket is to be had.
pub fn main(arguments: &[&str]) -> Result<bool> {
    let [address] = arguments else { bail!("probe ADDRESS:PORT") };
    let address: SocketAddr = address.parse().with_context(|| format!("{address} is no ADDRESS:PORT"))?;
    let ended = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tell.store(true, Ordering::Relaxed);
    });
    let socket = UdpSocket::bind("0.0.0.0:0").context("a socket")?;
    let mut out = std::io::stdout().lock();
    let mut next = Instant::now();
    let mut bytes = [0; ANSWER_MAX];
    for number in 0_u64.. {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        // Unreachable for the moment is what is measured.
        let _ = socket.send_to(&number.to_le_bytes(), address);
        next = (next + PERIOD).max(Instant::now());
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left)).context("set a time-out")?;
            if let Ok((length, _)) = socket.recv_from(&mut bytes)
                && length > NUMBER
            {
                let by = String::from_utf8_lossy(&bytes[NUMBER..length]);
                writeln!(out, "{} {by}", now_us()).and_then(|()| out.flush()).context("tell an answer")?;
            }
        }
    }
    Ok(true)
}

/// `x echo ADDRESS:PORT NAME`: answers each datagram with itself and the name, whether the host has the address yet or not.
///
/// # Errors
/// When the address cannot be read or the port is taken.
pub fn echo(arguments: &[&str]) -> Result<bool> {
    let [address, name] = arguments else { bail!("echo ADDRESS:PORT NAME") };
    let address: SocketAddr = address.parse().with_context(|| format!("{address} is no ADDRESS:PORT"))?;
    if matches!(address.ip(), IpAddr::V6(_)) {
        bail!("floating IP addresses are IPv4");
    }
    std::fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1").context("bind before the address is here")?;
    let socket = UdpSocket::bind(address).with_context(|| format!("listen on {address}"))?;
    let mut bytes = [0; ANSWER_MAX];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
        let answer = [&bytes[..length.min(NUMBER)], name.as_bytes()].concat();
        // The address may have gone in between: then nobody is answered.
        let _ = socket.send_to(&answer, from);
    }
}

/// A running probe; it ends with this value.
pub struct Prober {
    child: Child,
    told: PathBuf,
}

impl Prober {
    /// Starts a probe by a command that runs things on the client's host; `told` takes what it tells.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut on_client: Command, address: &str, told: PathBuf) -> Result<Prober> {
        let out = File::create(&told).context("a file for what the probe tells")?;
        on_client.arg(paths::x()?).args(["probe", address]);
        on_client.stdin(Stdio::piped()).stdout(out).process_group(0);
        let child = on_client.spawn().context("start the probe")?;
        Ok(Prober { child, told })
    }

    /// All answers so far, in the order of their coming.
    ///
    /// # Errors
    /// When what it told cannot be read.
    pub fn heard(&self) -> Result<Vec<Heard>> {
        let text = std::fs::read_to_string(&self.told).context("read what the probe told")?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        Ok(text[..whole].lines().filter_map(Heard::read).collect())
    }

    /// Waits for an answer after a moment (microseconds since 1970) by somebody who suits; the first one.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn wait_for(&self, after_us: u64, limit: Duration, suits: impl Fn(&str) -> bool) -> Result<Heard> {
        let until = Instant::now() + limit;
        loop {
            let heard = self.heard()?;
            if let Some(found) = heard.iter().find(|one| one.at_us > after_us && suits(&one.by)) {
                return Ok(found.clone());
            }
            if Instant::now() >= until {
                bail!("no answer within {} s; the last one: {:?}", limit.as_secs(), heard.last());
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if command::wait(&mut self.child, Duration::from_secs(3)).is_err() {
            command::kill_group(&self.child);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_the_longest_silence_that_ends_after_the_event() {
        let lines = "1000 a\n900000 a\n905000 a\n910000 a\n2910000 b\n2915000 b\n";
        let heard: Vec<Heard> = lines.lines().filter_map(Heard::read).collect();
        let gap = Gap::longest(&heard, 912_000).unwrap();
        assert_eq!((gap.ms(), gap.end_us, gap.by.as_str()), (2_000, 2_910_000, "b"));
        assert_eq!(Gap::longest(&heard[..1], 0), None);
        assert_eq!(Heard::read("12"), None);
    }
}
