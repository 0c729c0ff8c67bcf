//! A host of the demo from outside: started, given orders, and taken down as by a power loss.

use super::init::{Order, Plan};
use super::plan::Host;
use anyhow::Context as _;
use os::bounded::{Outcome, bounded};
use os::cgroup::Cgroup;
use os::fuse::{FuseConnections as _, HostFuse, is_fuse};
use os::loopdev::{HostLoops, LoopDevice, LoopDevices as _};
use os::mount;
use os::namespace::{self, Kind};
use os::netns::NetNamespace;
use os::proc;
use os::process::ProcessId;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// A host makes its namespaces within milliseconds; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long freezing is waited for. Processes that wait for a disk freeze only when they come back from it, before they
/// act on what they got, so waiting longer gains nothing.
const FREEZE_LIMIT: Duration = Duration::from_millis(100);
/// From SIGKILL to the last process gone.
const DEATH_LIMIT: Duration = Duration::from_secs(10);
/// For a loop device to lose its last user.
const DETACH_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// A running host.
pub struct Running {
    outer: Child,
    orders: ChildStdin,
    /// Its pid 1, as seen from here.
    pub init: ProcessId,
    /// The process that holds its pid namespace.
    pub outer_id: ProcessId,
    /// Its network.
    pub net: Arc<NetNamespace>,
    /// Its mounts: held, so that the last process to die is never the one that unmounts (it might serve the disk).
    mounts: OwnedFd,
    /// Its freezer.
    pub cgroup: Cgroup,
}

/// What a host's file systems stand on: kernel objects that do not die with its processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// FUSE connections mounted in it.
    pub connections: Vec<u32>,
    /// Loop devices on files below its folder.
    pub loops: Vec<LoopDevice>,
}

fn identify(pid: u32) -> anyhow::Result<ProcessId> {
    let stat = proc::stat(pid).with_context(|| format!("process {pid} ended at once"))?;
    Ok(ProcessId { pid, started: stat.started })
}

/// Starts a host: its namespaces are made, its program waits for [`Running::go`]. Must be called from the launcher's
/// main thread: the host dies with the thread that starts it.
///
/// # Errors
/// The kernel refused a namespace; the host's log says more.
pub fn start(plan: &Plan, cgroup: Cgroup, log: &Path) -> anyhow::Result<Running> {
    let log_file = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["demo", "host-outer", &serde_json::to_string(plan)?]);
    // A process group of its own: Ctrl-C at the terminal is the launcher's alone.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log_file).process_group(0);
    let mut outer = command.spawn().context("start a host")?;
    let (Some(orders), Some(said)) = (outer.stdin.take(), outer.stdout.take()) else {
        anyhow::bail!("the host's pipes are missing");
    };
    let reading = bounded(START_LIMIT, move || {
        // The outer process says the pid, pid 1 says that it is ready; whichever comes first.
        let (mut pid, mut ready) = (None, false);
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            match line.strip_prefix("pid ") {
                Some(number) => pid = number.parse::<u32>().ok(),
                None => ready |= line == "ready",
            }
            if ready && pid.is_some() {
                break;
            }
        }
        pid.filter(|_| ready)
    });
    let Outcome::Done(Some(pid)) = reading else {
        let _ = outer.kill();
        let _ = outer.wait();
        anyhow::bail!("{} did not start: see {}", plan.name, log.display());
    };
    Ok(Running {
        orders,
        init: identify(pid)?,
        outer_id: identify(outer.id())?,
        net: Arc::new(NetNamespace::of_process(pid)?),
        mounts: namespace::open(pid, Kind::Mount)?,
        outer,
        cgroup,
    })
}

impl Running {
    /// Gives pid 1 an order.
    ///
    /// # Errors
    /// The host is dead.
    pub fn order(&mut self, order: Order) -> anyhow::Result<()> {
        writeln!(self.orders, "{}", order.word()).context("the host does not listen")
    }

    /// Whether its pid 1 lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        proc::stat(self.init.pid).is_some_and(|stat| stat.started == self.init.started && !stat.is_dead())
    }

    /// The end of a power loss, its cables already dead: everything is frozen at one instant, its disks fall silent, and
    /// all processes are killed without one of them noticing another's death (DESIGN section 10).
    ///
    /// # Errors
    /// Processes or devices are left; what they are is named.
    pub fn power_off(mut self, storage: &Storage) -> anyhow::Result<()> {
        if !self.cgroup.freeze(FREEZE_LIMIT)? {
            tracing::debug!("some processes wait in the kernel: they freeze as they come back");
        }
        for number in &storage.connections {
            HostFuse.abort(*number)?;
        }
        let gone = self.cgroup.kill_until_empty(DEATH_LIMIT)?;
        let ended = bounded(DEATH_LIMIT, move || self.outer.wait().is_ok());
        if !gone || ended != Outcome::Done(true) {
            anyhow::bail!("processes of the host do not die: {:?}", self.cgroup.pids());
        }
        // With the last reference the kernel unmounts what was mounted; its disk is gone, so that ends with errors, soon.
        let (mounts, net) = (self.mounts, self.net);
        if bounded(DEATH_LIMIT, move || drop((mounts, net))) == Outcome::Unknown {
            anyhow::bail!("the kernel does not let go of the host's file systems");
        }
        detach(&storage.loops)?;
        self.cgroup.remove(DETACH_LIMIT)?;
        Ok(())
    }
}

/// Whether a path of the kernel's list of loop devices is this recorded one: once its mount is gone, the kernel shows it
/// from that mount's root.
fn same_backing(recorded: &Path, shown: &Path) -> bool {
    let shown = shown.strip_prefix("/").unwrap_or(shown);
    let shown = Path::new(shown.to_str().unwrap_or_default().trim_end_matches(" (deleted)"));
    !shown.as_os_str().is_empty() && recorded.ends_with(shown)
}

/// Detaches loop devices, those only that still have the recorded file, and waits until they are free.
///
/// # Errors
/// Some are still in use.
pub fn detach(loops: &[LoopDevice]) -> anyhow::Result<()> {
    let until = Instant::now() + DETACH_LIMIT;
    loop {
        let listed = HostLoops.list()?;
        let ours = |device: &&LoopDevice| {
            listed.iter().any(|l| l.number == device.number && same_backing(&device.backing, &l.backing))
        };
        let left: Vec<u32> = loops.iter().filter(ours).map(|device| device.number).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            anyhow::bail!("loop devices still in use: {left:?}");
        }
        for number in left {
            if matches!(bounded(DETACH_LIMIT, move || HostLoops.detach(number)), Outcome::Unknown) {
                anyhow::bail!("loop device {number} does not come free");
            }
        }
        thread::sleep(POLL);
    }
}

/// What the file systems of a host stand on at this moment. Asks the kernel's tables only.
///
/// # Errors
/// /sys cannot be read.
pub fn storage(init: ProcessId, folder: &Path) -> anyhow::Result<Storage> {
    let mounts = mount::table(&init.pid.to_string()).unwrap_or_default();
    let own = |mounted: &&mount::Mounted| is_fuse(mounted) && mounted.point.starts_with(folder);
    let connections = mounts.iter().filter(own).map(|mounted| mounted.device.1).collect();
    let loops = HostLoops.list()?.into_iter().filter(|device| device.backing.starts_with(folder)).collect();
    Ok(Storage { connections, loops })
}

/// The freezer group of a host of the demo with this launcher.
///
/// # Errors
/// No freezer is mounted.
pub fn freezer(launcher: u32, host: Host) -> anyhow::Result<Cgroup> {
    Ok(Cgroup::create(&format!("futago-demo-{launcher}-{host}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_device_is_known_again_by_its_file_with_and_without_its_mount() {
        let recorded = Path::new("/demo/server1/run/set-1/disk-abc");
        assert!(same_backing(recorded, recorded));
        assert!(same_backing(recorded, Path::new("/disk-abc")));
        assert!(same_backing(recorded, Path::new("/disk-abc (deleted)")));
        assert!(!same_backing(recorded, Path::new("/other/disk-abc")));
        assert!(!same_backing(recorded, Path::new("/")));
    }
}
