//! Mirror sets are registered on and released from a running cluster, on both servers or on neither, whatever dies meanwhile (C2,
//! C8, E1).

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{Lab, Setup, Status, signal_pid};
use e2e::{command, paths, scenes};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use wire::command::Operation;
use wire::ids::{GroupId, NodeId, SetId};
use wire::view::{GroupState, SetState};

const ONE: NodeId = NodeId(1);
/// For a small set to be built, and for a server's manager to come back.
const PATIENCE: Duration = Duration::from_secs(60);
/// A command that asks both servers.
const COMMAND: Duration = Duration::from_secs(90);
const SIZE: u64 = 32 << 20;

/// The new set's image on a server.
fn image(lab: &Lab, server: NodeId) -> PathBuf {
    lab.folder().join(format!("second{}.img", server.0))
}

fn change(lab: &Lab, server: NodeId) -> PathBuf {
    lab.folder().join(format!("server{}/change.json", server.0))
}

/// `futago set register second ...`, given on a server.
fn register(lab: &Lab, at: NodeId, disk1: &Path, more: &[&str]) -> Result<std::process::Command> {
    let mut order = lab.exec(&scenes::name(at));
    order.arg(paths::program()?).args(["set", "register", "second", "--source", "1", "--size"]);
    order.arg(SIZE.to_string()).arg("--disk1").arg(disk1).arg("--disk2").arg(image(lab, NodeId(2)));
    order.arg("--mount").arg(lab.folder().join("second"));
    order.args(more).arg("--data").arg(lab.folder().join(scenes::name(at)));
    Ok(order)
}

fn found(status: &Status) -> Option<(SetId, GroupId)> {
    status.views().find_map(|view| view.sets.iter().find(|set| set.name == "second").map(|s| (s.id, s.group)))
}

/// Both servers show the second set equal on both sides, its group running.
fn serves(status: &Status) -> Option<()> {
    let equal = |view: &wire::ClusterView| {
        let set = view.sets.iter().find(|set| set.name == "second" && set.state == SetState::InSync);
        let runs = |id| view.groups.iter().any(|group| group.id == id && group.state == GroupState::Running);
        set.is_some_and(|set| runs(set.group))
    };
    (status.views().count() == 2 && status.views().all(equal)).then_some(())
}

/// Both servers have the same configuration, without the second set.
fn gone(status: &Status) -> Option<()> {
    let mut versions = status.views().map(|view| view.config_version);
    let same = versions.next() == versions.next();
    let without = |view: &wire::ClusterView| view.sets.iter().all(|set| set.name != "second");
    (status.views().count() == 2 && same && status.views().all(without)).then_some(())
}

fn release(lab: &mut Lab) -> Result<()> {
    let (set, group) = found(&lab.status()?).context("the second set")?;
    let at = lab.status()?.views().find_map(|v| v.groups.iter().find(|g| g.id == group)?.active);
    let early = format!("{:?}", lab.operate(ONE, Operation::ReleaseSet { set }));
    ensure!(early.contains("M-2071"), "released while its group runs on {at:?}: {early}");
    lab.operate(ONE, Operation::StopGroup { group })?;
    lab.wait("the group is stopped", PATIENCE, |status| {
        let stopped = |view: &wire::ClusterView| {
            view.groups.iter().any(|it| it.id == group && it.state == GroupState::Stopped)
        };
        (status.views().count() == 2 && status.views().all(stopped)).then_some(())
    })?;
    lab.operate(NodeId(2), Operation::ReleaseSet { set })?;
    lab.wait("both servers have released it", PATIENCE, gone)?;
    let end = Instant::now() + PATIENCE;
    for server in NodeId::BOTH {
        let left = lab.folder().join(format!("server{}/leaving-{}.json", server.0, set.0));
        while left.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let head = std::fs::read(image(lab, server))?;
        let was = mirror::layout::released(&head).context("the control area is marked as released")?;
        ensure!((was.set, was.side) == (set, server), "{was:?}");
        let socket = lab.folder().join(format!("server{}/run/set-{}.sock", server.0, set.0));
        ensure!(std::os::unix::net::UnixStream::connect(&socket).is_err(), "its disk process has ended");
    }
    Ok(())
}

#[test]
fn a_set_is_registered_on_a_running_cluster_released_and_taken_over_again_with_its_data() -> Result<()> {
    let mut lab = Lab::start(&Setup::default())?;
    lab.wait_healthy(PATIENCE)?;

    // A mounted disk is refused at its field, and nothing has happened on either server.
    let disk = lab.folder().join("mounted.img");
    let script = format!(
        "set -e; truncate -s 128M {0}; d=$(losetup -f --show {0}); mkfs.ext4 -q $d; mkdir -p /run/mounted; mount $d /run/mounted; echo $d",
        disk.display()
    );
    let device = command::output(lab.exec("server1").args(["sh", "-c", &script]), COMMAND)?;
    let refused =
        command::output(&mut register(&lab, ONE, Path::new(device.trim()), &["--replace"])?, COMMAND);
    let script = format!("umount /run/mounted; losetup -d {}", device.trim());
    command::output(lab.exec("server1").args(["sh", "-c", &script]), COMMAND)?;
    let reason = format!("{refused:?}");
    ensure!(refused.is_err() && reason.contains("M-3205") && reason.contains("backing[0]"), "{reason}");
    let clean = NodeId::BOTH.iter().all(|server| !change(&lab, *server).exists());
    ensure!(clean && !image(&lab, NodeId(2)).exists(), "nothing was changed");
    ensure!(gone(&lab.status()?).is_some(), "no configuration was changed");

    command::output(&mut register(&lab, ONE, &image(&lab, ONE), &[])?, COMMAND)?;
    lab.wait("registered, built, mounted", PATIENCE, serves)?;
    let note = lab.folder().join("second/note");
    let script = format!("echo kept > {0}; sync -f {0}", note.display());
    command::output(lab.exec("server1").args(["sh", "-c", &script]), COMMAND)?;
    release(&mut lab)?;

    let refused = command::output(&mut register(&lab, NodeId(2), &image(&lab, ONE), &[])?, COMMAND);
    let reason = format!("{refused:?}");
    ensure!(refused.is_err() && reason.contains("M-3217"), "a released disk is taken unasked: {reason}");
    command::output(&mut register(&lab, NodeId(2), &image(&lab, ONE), &["--replace"])?, COMMAND)?;
    lab.wait("registered again", PATIENCE, serves)?;
    let read = command::output(lab.exec("server1").args(["cat", &note.display().to_string()]), COMMAND)?;
    ensure!(read.trim() == "kept", "the source's data is taken over: {read:?}");
    ensure!(lab.wait_healthy(PATIENCE).is_ok(), "the first set went on");
    lab.end()
}

/// Whichever manager dies once it has written down what is under way: the set is there on both servers in the end, or on neither.
#[test]
fn a_manager_that_dies_between_two_steps_leaves_no_half_registered_set() -> Result<()> {
    let mut lab = Lab::start(&Setup::default())?;
    lab.wait_healthy(PATIENCE)?;
    let (mut made, mut undone) = (0, 0);
    let rounds = [0, 20, 60].into_iter().flat_map(|late_ms| NodeId::BOTH.map(|victim| (late_ms, victim)));
    for (late_ms, victim) in rounds {
        let pid = lab.status()?.server(victim)?.node_pid.context("the manager's process")?;
        let mut order = register(&lab, ONE, &image(&lab, ONE), &["--replace"])?
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let end = Instant::now() + PATIENCE;
        while !change(&lab, victim).exists() && order.try_wait()?.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(200));
        }
        ensure!(change(&lab, victim).exists(), "nothing was under way on {victim:?}");
        // Each pair of rounds dies at another step, some after the end.
        std::thread::sleep(Duration::from_millis(late_ms));
        signal_pid(pid, Signal::KILL)?;
        command::wait(&mut order, COMMAND)?;
        lab.wait("the manager is back", PATIENCE, |status| {
            let back = status.server(victim).ok().and_then(|it| it.node_pid).is_some_and(|now| now != pid);
            (back && status.views().count() == 2).then_some(())
        })?;
        let end = Instant::now() + PATIENCE;
        while NodeId::BOTH.iter().any(|server| change(&lab, *server).exists()) {
            ensure!(Instant::now() < end, "what is under way is not forgotten");
            std::thread::sleep(Duration::from_millis(20));
        }
        let there = lab.wait("made or taken back on both servers", PATIENCE, |status| {
            serves(status).map(|()| true).or_else(|| gone(status).map(|()| false))
        })?;
        if there {
            made += 1;
            release(&mut lab)?;
        } else {
            for server in NodeId::BOTH {
                let head = std::fs::read(image(&lab, server)).unwrap_or_default();
                ensure!(mirror::layout::superblock(&head).is_err(), "{server:?} keeps half a set");
            }
            undone += 1;
        }
    }
    println!("made {made}, taken back {undone}");
    ensure!(lab.wait_healthy(PATIENCE).is_ok(), "the first set went on");
    lab.end()
}
