//! `disk-kill`: the disk process is killed again and again under fio's verified load, on either side: a pause, never an error.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use wire::ids::{Epoch, NodeId};

use super::Options;
use crate::command;
use crate::lab::{Lab, Setup, Status, signal_pid};
use crate::report::{Outcome, Table};
use crate::scenes;

/// What the claim asks for.
const ROUNDS: u64 = 20;
/// The goal for the median of the rounds' longest waits, in milliseconds.
const PAUSE_P50_MS: f64 = 100.0;
/// The goal for the longest wait of all, in milliseconds.
const PAUSE_MAX_MS: f64 = 500.0;
/// From one kill to the next: a side is killed every second round, and five deaths of it within a minute would end its
/// replacement, as they should.
const ROUND: Duration = Duration::from_millis(8_500);
/// The load has reached its depth by then.
const KILL_AT: Duration = Duration::from_millis(1_000);
/// Of the keeper or the manager, once the successor serves.
const OTHER_AT: Duration = Duration::from_millis(2_000);
/// fio's file on the group's file system.
const FILE_MIB: u64 = 96;
/// For fio to write and verify all of it, however busy the machine.
const FIO: Duration = Duration::from_secs(90);

/// Which other process dies in a round beside the disk process.
#[derive(Clone, Copy, Debug)]
enum Other {
    Nobody,
    Keeper,
    Manager,
}

/// The show.
///
/// # Errors
/// When the demo does not start, or fio cannot be run.
pub fn run(options: &Options) -> Result<Outcome> {
    let rounds = options.figure("rounds", ROUNDS)?;
    let mut lab = Lab::start(&Setup { size_mib: 512, ..Setup::default() })?;
    let active = lab.wait_healthy(scenes::RECOVER)?;
    let epoch = lab.wait("the group's term", scenes::RECOVER, |status| term(status, active))?;
    let point = lab.mount_point()?;
    let mut table = Table::new(&["round", "killed", "also", "longest wait ms", "fio errors"]);
    let (mut pauses, mut errors) = (Vec::new(), 0);
    for round in 1..=rounds {
        let begun = Instant::now();
        let victim = if round % 2 == 1 { active } else { active.twin() };
        let other = match round % 4 {
            1 => Other::Keeper,
            3 => Other::Manager,
            _ => Other::Nobody,
        };
        let (pause, failed) = one_round(&mut lab, active, victim, other, &point)?;
        errors += u64::from(failed);
        pauses.push(pause);
        let side = if victim == active { "active" } else { "standby" };
        println!("round {round}: {side}, {other:?}: {pause:.1} ms, {failed}");
        table.row(&[
            format!("{round}"),
            side.to_owned(),
            format!("{other:?}"),
            format!("{pause:.1}"),
            format!("{failed}"),
        ]);
        // Where it runs, since when: a failover, or a new start, is what the application would have noticed.
        let stayed = lab.wait_healthy(scenes::RECOVER)? == active;
        let same = lab.wait("the group's term", scenes::RECOVER, |status| term(status, active))? == epoch;
        errors += u64::from(!stayed || !same);
        std::thread::sleep(ROUND.saturating_sub(begun.elapsed()));
    }
    lab.end()?;
    println!();
    table.print();
    let (p50, max) = middle_and_largest(&mut pauses);
    println!("\npauses: median {p50:.1} ms (goal {PAUSE_P50_MS}), longest {max:.1} ms (goal {PAUSE_MAX_MS})");
    let facts = json!({ "rounds": rounds, "errors": errors, "pause_p50_ms": p50, "pause_max_ms": max });
    Ok(Outcome::new(errors == 0 && p50 <= PAUSE_P50_MS && max <= PAUSE_MAX_MS, facts))
}

fn term(status: &Status, on: NodeId) -> Option<Epoch> {
    let server = status.server(on).ok()?;
    server.view.as_ref()?.groups.first().map(|group| group.epoch)
}

/// One kill under load: the longest wait of a request in milliseconds, and whether fio met an error or wrong data.
fn one_round(
    lab: &mut Lab,
    active: NodeId,
    victim: NodeId,
    other: Other,
    point: &str,
) -> Result<(f64, bool)> {
    let pids = |status: &Status| {
        let (dies, serves) = (status.server(victim).ok()?, status.server(active).ok()?);
        Some((dies.disk_pid?, serves.keeper_pid?, serves.node_pid?))
    };
    let (disk, keeper, manager) = lab.wait("the processes", scenes::RECOVER, pids)?;
    let load = start_load(lab, active, point)?;
    std::thread::sleep(KILL_AT);
    signal_pid(disk, Signal::KILL)?;
    std::thread::sleep(OTHER_AT);
    match other {
        Other::Nobody => {}
        Other::Keeper => signal_pid(keeper, Signal::KILL)?,
        Other::Manager => signal_pid(manager, Signal::KILL)?,
    }
    end_load(load)
}

fn start_load(lab: &Lab, on: NodeId, point: &str) -> Result<Child> {
    let mut fio: Command = lab.exec(&scenes::name(on));
    fio.args(["fio", "--name=load", "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=4k"]);
    fio.args(["--iodepth=32", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--loops=2"]);
    fio.arg(format!("--filename={point}/load")).arg(format!("--size={FILE_MIB}M"));
    fio.args(["--output-format=json", "--randrepeat=0"]);
    fio.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    fio.spawn().context("start fio")
}

fn end_load(mut load: Child) -> Result<(f64, bool)> {
    // What fio prints fits a pipe; it must not be waited for behind a device that hangs for ever.
    let status = command::wait(&mut load, FIO).context("fio hangs")?;
    let said = load.wait_with_output().context("what fio says")?;
    let text = String::from_utf8_lossy(&said.stdout);
    let begin = text.find('{').context("fio printed no JSON")?;
    let all: Value = serde_json::from_str(&text[begin..]).context("read what fio printed")?;
    let job = all.pointer("/jobs/0").context("fio ran no job")?;
    let wrong = !status.success() || job.get("error").and_then(Value::as_i64) != Some(0);
    let longest = |path| job.pointer(path).and_then(Value::as_f64).context("no longest wait");
    // The kill may fall into the writing or into the reading back.
    let (write, read) = (longest("/write/clat_ns/max")?, longest("/read/clat_ns/max")?);
    ensure!(wrong || write > 0.0, "fio wrote nothing");
    Ok((write.max(read) / 1e6, wrong))
}

fn middle_and_largest(pauses: &mut [f64]) -> (f64, f64) {
    pauses.sort_by(f64::total_cmp);
    let tenths = |value: Option<&f64>| (value.copied().unwrap_or(f64::MAX) * 10.0).round() / 10.0;
    (tenths(pauses.get(pauses.len() / 2)), tenths(pauses.last()))
}
