//! Processes and freezers on the real kernel.
#![allow(clippy::unwrap_used)] // helpers of tests, where the lint's own exception does not reach

mod support;

use os::cgroup::Cgroup;
use os::mount::{Mounted, table};
use os::namespace::Kind;
use os::process::{Exit, Finished, HostProcesses, ProcessId, Processes as _, Spec, Stopped};
use os::{output, proc};
use rustix::mount::{UnmountFlags, unmount};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use support::{wait_for, with_namespaces};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_script_gets_its_environment_only_and_its_output_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut spec =
        Spec { output: Some(log.clone()), ..Spec::script("echo $SIDE; echo -$HOME-; pwd >&2; exit 3") };
    spec.environment.insert("SIDE".into(), "left".into());
    let finished = HostProcesses::default().run(&spec, LONG).unwrap();
    assert_eq!(finished, Finished::Exited(Exit::Code(3)));
    assert_eq!(String::from_utf8(output::tail(&log).unwrap()).unwrap(), "left\n--\n/\n");
}

#[test]
fn a_script_that_takes_too_long_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("child");
    let script = format!("sleep 600 & echo $! > {}; sleep 600", file.display());
    let processes = HostProcesses::default();
    let id = processes.start(&Spec::script(&script)).unwrap();
    wait_for("the child", || fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')));
    assert_eq!(processes.wait(id, Duration::ZERO), None);
    assert_eq!(processes.stop(id, Duration::ZERO), Stopped::Gone);
    assert_eq!(processes.wait(id, LONG), Some(Exit::Signal(9)));
    let child: u32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    assert!(proc::stat(child).is_none_or(|stat| stat.state == 'Z' || stat.session != id.pid));
    assert!(matches!(
        processes.run(&Spec::script("sleep 600"), Duration::from_millis(50)).unwrap(),
        Finished::TimedOut(Stopped::Gone)
    ));
}

#[test]
fn term_lets_a_process_end_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let script = format!("trap 'exit 7' TERM; touch {}; while :; do sleep 0.05; done", ready.display());
    let processes = HostProcesses::default();
    let id = processes.start(&Spec::script(&script)).unwrap();
    wait_for("the trap", || ready.exists());
    assert_eq!(processes.stop(id, LONG), Stopped::Gone);
    assert_eq!(processes.wait(id, LONG), Some(Exit::Code(7)));
}

#[test]
fn a_missing_program_is_an_error_that_names_it() {
    let spec = Spec { program: "/no/such/program".into(), ..Spec::default() };
    assert!(HostProcesses::default().start(&spec).unwrap_err().to_string().contains("/no/such/program"));
}

/// Not a test: the first life of the next one, run in a process of its own.
#[test]
#[ignore = "run by a_process_outlives_its_starter_and_is_adopted_by_the_next"]
fn first_life() {
    let Ok(file) = std::env::var("FIRST_LIFE") else { return };
    // A descriptor that somebody forgot to close on exec must not be passed on either.
    let forgotten = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&forgotten, rustix::io::FdFlags::empty()).unwrap();
    let id = HostProcesses::default().start(&Spec::script("exec sleep 600")).unwrap();
    fs::write(file, format!("{} {}", id.pid, id.started)).unwrap();
    std::process::abort();
}

#[test]
fn a_process_outlives_its_starter_and_is_adopted_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("id");
    let mut life = Command::new(std::env::current_exe().unwrap());
    life.args(["--exact", "first_life", "--ignored"]).env("FIRST_LIFE", &file).current_dir(folder.path());
    assert!(!life.output().unwrap().status.success(), "the first life aborts");
    let text = fs::read_to_string(&file).unwrap();
    let (pid, started) = text.split_once(' ').unwrap();
    let id = ProcessId { pid: pid.parse().unwrap(), started: started.parse().unwrap() };

    let processes = HostProcesses::default();
    assert!(processes.is_alive(id));
    let files = || fs::read_dir(format!("/proc/{}/fd", id.pid)).unwrap().count();
    wait_for("nothing but three descriptors", || {
        proc::name(id.pid).as_deref() == Some("sleep") && files() == 3
    });
    let other = ProcessId { started: id.started + 1, ..id };
    assert!(!processes.adopt(other, None).unwrap(), "the same pid with another start is another process");
    assert!(processes.adopt(id, None).unwrap());
    assert_eq!(processes.wait(id, Duration::ZERO), None);
    assert_eq!(processes.stop(other, Duration::ZERO), Stopped::Gone);
    assert!(processes.is_alive(id), "a stop meant for another process does nothing");
    assert_eq!(processes.stop(id, LONG), Stopped::Gone);
    assert_eq!(processes.wait(id, LONG), Some(Exit::Unseen));
    assert!(!processes.adopt(id, None).unwrap());
}

fn freeze_thaw_and_kill(name: &str) -> PathBuf {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let group = Cgroup::create(&format!("futago-test-{}-{name}", std::process::id())).unwrap();
    let script = format!(
        "echo $$ > {}/cgroup.procs; n=0; while :; do n=$((n+1)); echo $n > {}; sleep 0.01; done",
        group.path().display(),
        count.display()
    );
    let processes = HostProcesses::default();
    let id = processes.start(&Spec::script(&script)).unwrap();
    let read = || fs::read_to_string(&count).unwrap_or_default();
    wait_for("the count to rise", || read().trim().parse::<u32>().is_ok_and(|n| n > 2));
    assert!(group.pids().unwrap().contains(&id.pid));
    assert!(group.freeze(LONG).unwrap());
    let frozen = read();
    std::thread::sleep(Duration::from_millis(100)); // ten rounds of the script, were it running
    assert_eq!(read(), frozen);
    group.thaw().unwrap();
    wait_for("the count to rise again", || read() != frozen && !read().is_empty());
    assert!(group.freeze(LONG).unwrap());
    assert!(group.kill_until_empty(LONG).unwrap());
    assert_eq!(processes.wait(id, LONG), Some(Exit::Signal(9)));
    group.remove(LONG).unwrap();
    assert!(!group.path().exists());
    group.path().to_owned()
}

#[test]
fn a_frozen_group_does_nothing_and_dies_as_one() {
    freeze_thaw_and_kill("any");
}

#[test]
fn cgroup_v2_serves_where_there_is_no_v1_freezer() {
    with_namespaces(&[Kind::Mount], || {
        let freezers =
            |mounted: &Mounted| mounted.file_system == "cgroup" && mounted.point.ends_with("freezer");
        for mounted in table("thread-self").unwrap().iter().filter(|mounted| freezers(mounted)) {
            unmount(&mounted.point, UnmountFlags::DETACH).unwrap();
        }
        let used = freeze_thaw_and_kill("v2");
        let two = |mounted: &Mounted| mounted.file_system == "cgroup2" && used.starts_with(&mounted.point);
        assert!(table("thread-self").unwrap().iter().any(two), "{}", used.display());
    });
}
