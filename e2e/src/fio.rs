//! The workloads that block devices are measured with, run by fio, one at a time.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command;

/// What is done to a device (PEERS: a to e; `qd1` beside them).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// 4 KiB random writes one at a time, a flush after each.
    A,
    /// 4 KiB random writes, 32 at a time.
    B,
    /// 1 MiB sequential writes, 8 at a time, one flush at the end.
    C,
    /// 4 KiB random reads, 32 at a time.
    D,
    /// 4 KiB random, two reads for each write, 8 at a time.
    E,
    /// 4 KiB random writes one at a time.
    Qd1,
}

impl Workload {
    /// All of them.
    pub const ALL: [Workload; 6] =
        [Workload::A, Workload::B, Workload::C, Workload::D, Workload::E, Workload::Qd1];

    /// Short name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Workload::A => "a",
            Workload::B => "b",
            Workload::C => "c",
            Workload::D => "d",
            Workload::E => "e",
            Workload::Qd1 => "qd1",
        }
    }

    /// Whether it writes.
    #[must_use]
    pub fn writes(self) -> bool {
        self != Workload::D
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Workload::A => &["--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"],
            Workload::B => &["--rw=randwrite", "--bs=4k", "--iodepth=32"],
            Workload::C => &["--rw=write", "--bs=1m", "--iodepth=8", "--end_fsync=1"],
            Workload::D => &["--rw=randread", "--bs=4k", "--iodepth=32"],
            Workload::E => &["--rw=randrw", "--bs=4k", "--iodepth=8", "--rwmixread=67"],
            Workload::Qd1 => &["--rw=randwrite", "--bs=4k", "--iodepth=1"],
        }
    }
}

/// What fio works on.
#[derive(Clone, Debug)]
pub enum Target {
    /// Files or block devices, each under the whole workload at the same time.
    Files(Vec<String>),
    /// An NBD export.
    Nbd(String),
}

/// What a run gave, for each file of the target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Requests a second.
    pub iops: f64,
    /// Median and 99th percentile of the completion time of a write (of a read, where nothing is written), in microseconds.
    pub p50_us: f64,
    /// See `p50_us`.
    pub p99_us: f64,
    /// Processor seconds of the whole machine for 100,000 requests.
    pub cpu_s: f64,
}

/// Runs a workload for so long (after half a second that does not count) over the first `size` bytes.
///
/// # Errors
/// fio fails.
pub fn run(workload: Workload, target: &Target, size: u64, seconds: f64) -> Result<Figures> {
    let mut fio = Command::new("fio");
    fio.args(["--output-format=json", "--direct=1", "--time_based=1", "--ramp_time=0.5", "--randrepeat=0"]);
    fio.args(["--norandommap=1", "--group_reporting=1", "--thread=1"]);
    fio.arg(format!("--runtime={seconds}")).arg(format!("--size={size}")).args(workload.options());
    let files = match target {
        Target::Files(files) => {
            fio.arg("--ioengine=libaio");
            for (number, file) in files.iter().enumerate() {
                fio.arg(format!("--name=job{number}")).arg(format!("--filename={file}"));
            }
            files.len()
        }
        Target::Nbd(uri) => {
            fio.args(["--ioengine=nbd", "--name=job0"]).arg(format!("--uri={uri}"));
            1
        }
    };
    let before = busy()?;
    let said = command::output(&mut fio, Duration::from_secs_f64(seconds + 60.0))?;
    let used = busy()? - before;
    let begin = said.find('{').context("fio printed no JSON")?;
    let all: Value = serde_json::from_str(&said[begin..]).context("read what fio printed")?;
    let job = all.pointer("/jobs/0").context("fio ran no job")?;
    ensure!(job.get("error").and_then(Value::as_i64) == Some(0), "fio met an error: {job}");
    let number = |path: &str| job.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    let side = if workload.writes() { "write" } else { "read" };
    let percentile = |p: &str| number(&format!("/{side}/clat_ns/percentile/{p}")) / 1000.0;
    let files = files as f64;
    let iops = (number("/read/iops") + number("/write/iops")) / files;
    // The processor time counts the half second at the beginning too.
    let requests = iops * files * (seconds + 0.5);
    Ok(Figures {
        iops,
        p50_us: percentile("50.000000"),
        p99_us: percentile("99.000000"),
        cpu_s: if requests > 0.0 { used / requests * 100_000.0 } else { 0.0 },
    })
}

/// Processor seconds that the machine has spent on anything, over all processors.
fn busy() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let idle: f64 = fields.iter().skip(3).take(2).sum();
    // User, nice, system, idle, waiting, interrupts twice, stolen; the rest is counted in them. Ticks of 10 ms.
    Ok((fields.iter().take(8).sum::<f64>() - idle) / 100.0)
}
