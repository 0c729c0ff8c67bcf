//! `idle-cost`: what a server costs while nothing happens: memory, processor and packets of all its processes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::Options;
use crate::lab::{Lab, Setup};
use crate::report::{Outcome, Table};
use crate::scenes;

/// How long it is watched, in seconds.
const SECONDS: u64 = 60;
/// Before that: first copies and announcements are over.
const SETTLE: Duration = Duration::from_secs(15);
/// Resident memory of one server with one mirror set, in MiB (Corosync and Pacemaker: 211).
const RSS_MIB: f64 = 48.0;
/// Ticks of the kernel's processor times in a second (USER_HZ, the same on every Linux).
const TICKS: f64 = 100.0;

/// The show.
///
/// # Errors
/// When the demo does not run or a process cannot be looked at.
pub fn run(options: &Options) -> Result<Outcome> {
    let seconds = options.figure("seconds", SECONDS)?.max(1);
    let mut lab = Lab::start(&Setup::default())?;
    let active = lab.wait_healthy(scenes::RECOVER)?;
    std::thread::sleep(SETTLE);
    let status = lab.status()?;
    let mut servers = Vec::new();
    for server in [active, active.twin()] {
        let found = status.server(server)?;
        let pids = [("node", found.node_pid), ("disk", found.disk_pid), ("keeper", found.keeper_pid)];
        let pids =
            pids.map(|(name, pid)| pid.map(|pid| (name, pid)).with_context(|| format!("no {name} process")));
        servers.push((server, pids.into_iter().collect::<Result<Vec<_>>>()?));
    }
    let before = servers.iter().map(|(_, pids)| Look::at(pids)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_secs(seconds));
    let after = servers.iter().map(|(_, pids)| Look::at(pids)).collect::<Result<Vec<_>>>()?;
    let mut table = Table::new(&["server", "process", "resident MiB", "own share MiB", "cpu ms/s"]);
    let mut worst = Cost::default();
    for ((server, pids), (before, after)) in servers.iter().zip(before.iter().zip(&after)) {
        let name = scenes::name(*server) + if *server == active { " (active)" } else { " (standby)" };
        let per_second = |ticks: u64| ticks as f64 * 1_000.0 / TICKS / seconds as f64;
        let mut cost =
            Cost { packets: (after.packets - before.packets) as f64 / seconds as f64, ..Cost::default() };
        for (index, (process, _)) in pids.iter().enumerate() {
            let (first, last) = (&before.processes[index], &after.processes[index]);
            let cpu = per_second(last.ticks.saturating_sub(first.ticks));
            table.row(&[
                name.clone(),
                (*process).to_owned(),
                mib(last.rss),
                mib(last.pss),
                format!("{cpu:.1}"),
            ]);
            cost.rss += last.rss as f64 / 1_024.0;
            cost.cpu += cpu;
        }
        let sum = format!("all, {:.0} packets/s", cost.packets);
        table.row(&[name, sum, format!("{:.1}", cost.rss), String::new(), format!("{:.1}", cost.cpu)]);
        worst = worst.or(cost);
    }
    lab.end()?;
    table.print();
    println!("\nCorosync and Pacemaker, as measured with the peers: 211 MiB in 8 processes, 10 packets/s");
    let facts = json!({
        "rss_mib": round(worst.rss), "cpu_ms_per_s": round(worst.cpu), "packets_per_s": round(worst.packets),
        "measured_s": seconds,
    });
    Ok(Outcome::new(worst.rss <= RSS_MIB, facts))
}

/// What a server costs; of two, the worse of each.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    rss: f64,
    cpu: f64,
    packets: f64,
}

impl Cost {
    fn or(self, other: Cost) -> Cost {
        Cost {
            rss: self.rss.max(other.rss),
            cpu: self.cpu.max(other.cpu),
            packets: self.packets.max(other.packets),
        }
    }
}

fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1_024.0)
}

fn round(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

/// One process: memory in KiB, processor time in ticks.
struct Process {
    rss: u64,
    pss: u64,
    ticks: u64,
}

/// A server at one moment.
struct Look {
    processes: Vec<Process>,
    packets: u64,
}

impl Look {
    fn at(pids: &[(&'static str, i32)]) -> Result<Look> {
        let processes = pids.iter().map(|(_, pid)| process(*pid)).collect::<Result<_>>()?;
        let (_, node) = pids.first().context("a process")?;
        let table = read(&format!("/proc/{node}/net/dev"))?;
        Ok(Look { processes, packets: packets(&table) })
    }
}

fn process(pid: i32) -> Result<Process> {
    let memory = read(&format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        let line = memory.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).context("a figure of memory")
    };
    let stat = read(&format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("a name in brackets")?;
    // utime and stime, the 14th and 15th field of all.
    let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    Ok(Process { rss: field("Rss:")?, pss: field("Pss:")?, ticks })
}

/// Packets received and sent on every cable of a host.
fn packets(table: &str) -> u64 {
    let cables =
        table.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    let counted = cables.map(|(_, figures)| {
        let figures: Vec<u64> = figures.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        figures.get(1).copied().unwrap_or(0) + figures.get(9).copied().unwrap_or(0)
    });
    counted.sum()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_all_cables_are_counted_both_ways() {
        let table = "Inter-|   Receive |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets\n\
            \x20   lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  ic1: 100 3 0 0 0 0 0 0 200 4 0 0 0 0 0 0\npublic:5 10 0 0 0 0 0 0 6 20 0 0 0 0 0 0\n";
        assert_eq!(packets(table), 37);
    }
}
