//! Crash consistency in the small: a few random schedules of what `cargo x show mirror-crash` runs by the hundred.

#![allow(clippy::expect_used, reason = "a story that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::command;
use e2e::crash::{self, Disks, Story};
use e2e::rig::{Plan, Rig};
use peer::control::{DiskOrder, Role};
use serde_json::json;

/// Schedules of each run; they run at once and take some seconds each.
const SCHEDULES: u64 = 15;
/// So many at once.
const JOBS: u64 = 8;
/// Schedules of the control at most; nearly each loses something.
const CONTROLS: u64 = 12;

#[test]
fn random_schedules_of_kills_cuts_and_bad_disks_lose_nothing() {
    // Other seeds than the day before: a few more each time, and the same again where one fails.
    let from = std::env::var("FUTAGO_CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(day);
    println!("seeds {from}..{} (FUTAGO_CRASH_SEED={from})", from + SCHEDULES);
    let mut bad = Vec::new();
    let mut acknowledged = 0;
    crash::run_all(from, SCHEDULES, JOBS, Disks::of, Story::Any, |ran| {
        acknowledged += ran.tally.acknowledged;
        if !ran.is_good() {
            let kept = ran.keep("crash-test").expect("a place for the records");
            bad.push(format!(
                "seed {}: {:?} {:?}, records {}",
                ran.seed,
                ran.tally.told,
                ran.broken,
                kept.display()
            ));
        }
        true
    });
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(acknowledged > 1_000, "only {acknowledged} writes: nothing was tried");
}

#[test]
fn the_oracle_sees_a_flush_that_does_nothing() {
    let mut lost = 0;
    crash::run_all(
        1,
        CONTROLS,
        JOBS,
        |_| Disks { volatile: true, no_flush: true, weak: false },
        Story::Any,
        |ran| {
            lost += ran.tally.lost;
            lost == 0
        },
    );
    assert!(lost > 0, "nothing was lost although nothing was flushed");
}

fn day() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs() / 86_400 * 1_000
}

/// fio for all of it, on a loaded machine.
const FIO: Duration = Duration::from_secs(120);

/// Rule 12: the active side's own disk refuses every write from some moment on. The application, which writes with checksums and
/// flushes, sees nothing of it; then that side dies, and the other one has it all.
#[test]
fn a_disk_that_refuses_writes_is_served_through_the_twin() {
    let extra = json!({ "volatile": true });
    let mut rig = Rig::new(&Plan { extra, ..Plan::default() }).expect("a rig");
    rig.one.options["volatile_fault"] = json!({ "what": "write", "after": 900, "times": 0, "errno": 5 });
    rig.build().expect("built");
    let device = rig.one.device().expect("a device");
    let mut load = fio(&device, &["--do_verify=1", "--fsync=64"]).spawn().expect("fio");
    let one = rig.one.wait("asking to be left out", |status| status.asks_out).expect("its disk refuses");
    assert!(one.failed.is_some() && one.linked && one.needs_twin, "{one:?}");
    // What the register's word follows from, and what follows from it.
    rig.two.order(DiskOrder::Shoulder).expect("the twin stores it");
    rig.one.order(DiskOrder::Through).expect("through the twin");
    let status = command::wait(&mut load, FIO).expect("fio ends");
    assert!(status.success(), "fio: {status}");
    let one = rig.one.status().expect("a status");
    assert!(one.through && one.role == Role::Active && !one.consistent, "{one:?}");
    rig.one.kill();
    rig.two.activate(2).expect("the twin serves");
    let device = rig.two.device().expect("a device");
    let mut verify = fio(&device, &["--verify_only"]).spawn().expect("fio");
    let status = command::wait(&mut verify, FIO).expect("fio ends");
    assert!(status.success(), "fio finds what was acknowledged: {status}");
}

fn fio(device: &Path, more: &[&str]) -> Command {
    let mut fio = Command::new("fio");
    fio.args(["--name=load", "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=4k", "--iodepth=8"]);
    fio.args(["--size=24m", "--verify=crc32c", "--verify_fatal=1", "--randseed=7", "--output-format=terse"]);
    fio.arg(format!("--filename={}", device.display())).args(more).stdout(Stdio::null());
    fio
}
