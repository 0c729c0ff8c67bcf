//! Memory pressure (C12): everything that a host has is dirty pages of the mirror itself, and only its disk process can clean them.

#![allow(clippy::expect_used, reason = "a story that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::command;
use e2e::rig::{Plan, Rig};

/// What both disk processes and four writers have together: the writers would have eight times as much dirty at once.
const LIMIT: u64 = 64 << 20;
/// For all of it, on a loaded machine; without progress it would be for ever.
const PATIENCE: Duration = Duration::from_secs(240);
/// For a step that does little.
const STEP: Duration = Duration::from_secs(60);

/// A group of processes whose memory, page cache included, is limited.
struct Limited {
    path: PathBuf,
    unified: bool,
}

impl Limited {
    /// Under the memory controller of cgroup v1, or of v2 where that has it.
    fn new(bytes: u64) -> Limited {
        let old = Path::new("/sys/fs/cgroup/memory");
        let unified = !old.join("memory.limit_in_bytes").exists();
        let root = if unified { PathBuf::from("/sys/fs/cgroup") } else { old.join(own()) };
        if unified {
            fs::write(root.join("cgroup.subtree_control"), "+memory")
                .expect("the memory controller of cgroup v2");
        }
        let path = root.join(format!("futago-memory-{}", std::process::id()));
        fs::create_dir(&path).expect("a memory cgroup");
        let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(path.join(file), bytes.to_string()).expect("a limit");
        Limited { path, unified }
    }

    /// Moves this process in, or back to where it came from; what it starts from then on begins there.
    fn join(&self, whether: bool) {
        let group = if whether { &self.path } else { self.path.parent().expect("a group above") };
        fs::write(group.join("cgroup.procs"), std::process::id().to_string()).expect("this process moves");
    }

    /// How often the limit was hit, and how many were killed for it.
    fn pressed(&self) -> (u64, u64) {
        let read = |file: &str| fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let (events, hits) = if self.unified { ("memory.events", "max") } else { ("memory.oom_control", "") };
        let events = read(events);
        let named = |name: &str| {
            let line = events.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            line.unwrap_or(0)
        };
        let hit = if self.unified { named(hits) } else { read("memory.failcnt").trim().parse().unwrap_or(0) };
        (hit, named("oom_kill "))
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // Empty again: what was in it has ended, and a dying process leaves within moments.
        for _ in 0..200 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// This process's own group under the v1 memory controller.
fn own() -> String {
    let groups = fs::read_to_string("/proc/self/cgroup").expect("the own groups");
    let own = groups.lines().find_map(|line| line.split_once(":memory:"));
    own.map(|(_, group)| group.trim_start_matches('/').to_owned()).unwrap_or_default()
}

/// Everything begins under the limit. Where the kernel would let a process at the limit wait for the mirror (cgroup v1), the disk
/// processes must not stay: without that, both wait for each other for ever, within seconds.
#[test]
fn a_host_full_of_dirty_pages_of_the_mirror_goes_on() {
    let group = Limited::new(LIMIT);
    let mut rig = Rig::new(&Plan { size: 640 << 20, ..Plan::default() }).expect("a rig");
    group.join(true);
    let built = rig.build();
    group.join(false);
    built.expect("built");
    let device = rig.one.device().expect("a device");
    command::output(Command::new("mkfs.ext4").arg("-q").arg(&device), STEP).expect("a file system");
    let folder = tempfile::tempdir().expect("a folder");
    command::output(Command::new("mount").arg(&device).arg(folder.path()), STEP).expect("mounted");
    group.join(true);
    let writers = writers(folder.path()).spawn();
    group.join(false);
    let mut writers = writers.expect("fio");
    let ended = command::wait(&mut writers, PATIENCE);
    let status = rig.one.status();
    let unmounted = command::output(Command::new("umount").arg(folder.path()), STEP);
    assert!(
        ended.as_ref().is_ok_and(|status| status.success()),
        "fio: {ended:?} {status:?} {}",
        rig.one.log()
    );
    unmounted.expect("unmounted");
    let status = rig.one.status().expect("a status");
    assert!(status.needs_twin && status.failed.is_none(), "in sync all the time: {status:?}");
    let (hits, killed) = group.pressed();
    println!("the limit was hit {hits} times");
    assert!(hits > 1_000, "no pressure: {hits}");
    assert_eq!(killed, 0, "killed for memory");
    rig.one.kill();
    rig.two.kill();
    assert_eq!(rig.difference().expect("both images"), None);
}

/// Four jobs that write through the page cache, wait for their data once, and read it back.
fn writers(folder: &Path) -> Command {
    let mut fio = Command::new("fio");
    fio.args(["--name=dirty", "--ioengine=psync", "--rw=randwrite", "--bs=16k", "--size=128m"]);
    fio.args([
        "--numjobs=4",
        "--end_fsync=1",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--output-format=terse",
    ]);
    fio.arg(format!("--directory={}", folder.display())).stdin(Stdio::null()).stdout(Stdio::null());
    fio
}
