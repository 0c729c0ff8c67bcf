//! Every cable of the active server cut while its processes live, and who is active then, by three witnesses of one clock.
//!
//! All hosts of a lab run on one kernel: the applications' own times, the kernel's tables of addresses and the servers'
//! views are compared as they are, without an allowance.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use wire::ids::NodeId;

use crate::lab::{Lab, Writer};
use crate::scenes::{RECOVER, TAKE_OVER, name, runs};
use crate::writer::{Judge, Told, now_us};

/// Between two looks at the tables of addresses: far below the shortest time in which an address changes hands.
const LOOK: Duration = Duration::from_millis(2);
/// So often the client beside the loser has to try in vain after the winner's first acknowledgement: were the loser's
/// application able to answer, one of them would show it.
const VAIN_TRIES: usize = 3;

/// What came of cutting every cable of the active server while its processes live.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The server that was cut off.
    pub loser: NodeId,
    /// From the cut to the last increment that the loser's application acknowledged, in milliseconds.
    pub loser_until_ms: u64,
    /// From the cut to the first one on the winner.
    pub winner_from_ms: u64,
    /// From the cut to the last look that found the floating address on the loser.
    pub address_until_ms: u64,
    /// From the cut to the first look that found it on the winner.
    pub address_from_ms: u64,
    /// Increments that the loser's application acknowledged at or after the winner's first, or with a value that the
    /// winner's acknowledged too.
    pub both_acknowledged: u64,
    /// Looks that found the floating address on both servers.
    pub both_addressed: u64,
    /// Looks that found both servers saying that they run the group themselves.
    pub both_say: u64,
    /// Whether the loser's file system is gone or refuses to be written.
    pub loser_refuses: bool,
}

impl Cut {
    /// Whether never two were active.
    #[must_use]
    pub fn one_active(&self) -> bool {
        self.both_acknowledged == 0 && self.both_addressed == 0 && self.both_say == 0
    }
}

/// Cuts both interconnects and the public LAN of the active server, with a writer on each server beside the client's, and
/// mends them after the other has taken over.
///
/// # Errors
/// When the winner does not take over, or the loser's host cannot be asked.
pub fn cut_active(lab: &mut Lab, client: &mut Writer, judge: &mut Judge) -> Result<Cut> {
    let loser = lab.wait_healthy(RECOVER)?;
    let winner = loser.twin();
    judge.hear(&client.told()?);
    let mut on_loser = lab.writer(&name(loser))?;
    let mut on_winner = lab.writer(&name(winner))?;
    let addresses = Addresses::watch(lab, loser, winner)?;
    let cut_us = now_us();
    let cables = ["ic1".to_owned(), "ic2".to_owned(), format!("public-{}", loser.0)];
    for cable in &cables {
        lab.demo(&["cut", cable])?;
    }
    let mut both_say = 0;
    lab.wait("the witness decides for the other server", TAKE_OVER, |status| {
        let won = runs(status, winner, winner);
        both_say += u64::from(won && runs(status, loser, loser));
        won.then_some(())
    })?;
    let mut told = on_winner.wait_for_answer(winner, TAKE_OVER)?;
    let first = acknowledged(&told).into_iter().filter(|one| one.by == winner).map(|one| one.said_us).min();
    let first_ms = first.context("the winner's first acknowledgement")? / 1_000;
    told.extend(on_loser.wait_until("the loser's client tries in vain", TAKE_OVER, |told| {
        let vain = |one: &&Told| matches!(one, Told::Unanswered { at_ms } if *at_ms >= first_ms);
        told.iter().filter(vain).count() >= VAIN_TRIES
    })?);
    let loser_refuses = lab.refuses_writes(loser)?;
    told.extend(on_winner.end()?);
    told.extend(on_loser.end()?);
    let heard = client.wait_for_answer(winner, TAKE_OVER)?;
    judge.hear(&heard);
    told.extend(heard);
    let seen = addresses.end()?;
    for cable in &cables {
        lab.demo(&["mend", cable])?;
    }
    let (until_us, from_us, both) = overlap(&told, loser, winner).context("both sides acknowledged")?;
    let since_cut = |at_us: u64| at_us.saturating_sub(cut_us) / 1_000;
    Ok(Cut {
        loser,
        loser_until_ms: since_cut(until_us),
        winner_from_ms: since_cut(from_us),
        address_until_ms: since_cut(seen.loser_until_us),
        address_from_ms: since_cut(
            seen.winner_from_us.context("the winner's floating address was not seen")?,
        ),
        both_acknowledged: both,
        both_addressed: seen.both,
        both_say,
        loser_refuses,
    })
}

/// One acknowledged increment.
#[derive(Clone, Copy, Debug)]
struct Said {
    value: u64,
    by: NodeId,
    said_us: u64,
}

fn acknowledged(told: &[Told]) -> Vec<Said> {
    let pick = |one: &Told| match *one {
        Told::Acknowledged { value, by, said_us, .. } => Some(Said { value, by, said_us }),
        Told::Seen { .. } | Told::Unanswered { .. } => None,
    };
    told.iter().filter_map(pick).collect()
}

/// The loser's last acknowledgement, the winner's first, and how many of the loser's lie in the winner's time or carry a
/// value that the winner gave out too, or a higher one.
fn overlap(told: &[Told], loser: NodeId, winner: NodeId) -> Option<(u64, u64, u64)> {
    let said = acknowledged(told);
    let by = |server| said.iter().filter(move |one| one.by == server);
    let until = by(loser).map(|one| one.said_us).max()?;
    let from = by(winner).map(|one| one.said_us).min()?;
    let first = by(winner).map(|one| one.value).min()?;
    let late: BTreeSet<u64> =
        by(loser).filter(|one| one.said_us >= from || one.value >= first).map(|one| one.value).collect();
    Some((until, from, u64::try_from(late.len()).unwrap_or(u64::MAX)))
}

/// What the kernel's tables of addresses showed.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    loser_until_us: u64,
    winner_from_us: Option<u64>,
    both: u64,
}

/// A watch over the floating address in the network namespaces of both servers.
struct Addresses {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Seen>>>,
}

impl Addresses {
    fn watch(lab: &Lab, loser: NodeId, winner: NodeId) -> Result<Self> {
        let status = lab.status()?;
        let address = status.service.ip();
        let table = |server| {
            let pid = status.server(server)?.node_pid.context("a manager that runs")?;
            Ok::<_, anyhow::Error>(format!("/proc/{pid}/net/fib_trie"))
        };
        let tables = (table(loser)?, table(winner)?);
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !end.load(Ordering::Relaxed) {
                // The loser's first: an address that changed hands between the two looks counts as held by both.
                let on_loser = is_local(&read(&tables.0)?, address);
                let looked_us = now_us();
                let on_winner = is_local(&read(&tables.1)?, address);
                if on_loser {
                    seen.loser_until_us = looked_us;
                }
                if on_winner {
                    seen.winner_from_us.get_or_insert(looked_us);
                }
                seen.both += u64::from(on_loser && on_winner);
                std::thread::sleep(LOOK);
            }
            Ok(seen)
        });
        Ok(Self { ended, thread: Some(thread) })
    }

    fn end(mut self) -> Result<Seen> {
        self.ended.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("ended once")?;
        thread.join().map_err(|_| anyhow::anyhow!("the watch over addresses failed"))?
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn read(table: &str) -> Result<String> {
    std::fs::read_to_string(table).with_context(|| format!("read {table}"))
}

/// Whether the kernel's routing table holds this address as one of the host's own.
fn is_local(table: &str, address: IpAddr) -> bool {
    let head = format!("|-- {address}");
    let mut lines = table.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line == head && lines.clone().next().is_some_and(|next| next.contains("host LOCAL")) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);

    fn told(text: &str) -> Vec<Told> {
        text.lines().filter_map(Told::read).collect()
    }

    #[test]
    fn an_acknowledgement_in_the_others_time_is_found_however_short_the_overlap() {
        let apart = told("1 value 7 server1 1000\n2 value 8 server1 2000\n9 value 9 server2 2001\n");
        assert_eq!(overlap(&apart, ONE, TWO), Some((2000, 2001, 0)));
        let late = told("9 value 9 server2 2001\n2 value 8 server1 2001\n");
        assert_eq!(overlap(&late, ONE, TWO), Some((2001, 2001, 1)));
    }

    #[test]
    fn a_value_given_out_by_both_is_found_whatever_the_times() {
        let twice = told("1 value 7 server1 1000\n2 value 8 server1 2000\n9 value 8 server2 9000\n");
        assert_eq!(overlap(&twice, ONE, TWO), Some((2000, 9000, 1)));
        assert_eq!(overlap(&told("1 value 7 server1 1000\n"), ONE, TWO), None);
    }

    #[test]
    fn an_own_address_is_told_from_a_route() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.9\n        /32 link UNICAST\n     |-- 10.0.0.10\n        /32 host LOCAL\n";
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(is_local(table, address("10.0.0.10")));
        assert!(!is_local(table, address("10.0.0.9")) && !is_local(table, address("10.0.0.1")));
    }
}
