//! What a running demo has made outside its folder, on record there, and the sweep after a launcher that was killed.

use super::host;
use anyhow::Context as _;
use os::bounded::{Outcome, bounded};
use os::cgroup::Cgroup;
use os::fuse::{FuseConnections as _, HostFuse};
use os::loopdev::LoopDevice;
use os::mount;
use os::proc;
use os::process::ProcessId;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILE: &str = "demo.json";
/// For the processes of one left host to die.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);

/// Everything of the kernel that a demo holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The machine's start: after another, nothing of this is left.
    pub boot_id: String,
    /// The launcher.
    pub launcher: Option<ProcessId>,
    /// The hosts that run.
    pub hosts: Vec<HostRecord>,
}

/// One host of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its name.
    pub name: String,
    /// Its outer process and its pid 1.
    pub processes: Vec<ProcessId>,
    /// Its freezer.
    pub cgroup: String,
    /// FUSE connections.
    pub connections: Vec<u32>,
    /// Loop devices with their files.
    pub loops: Vec<(u32, PathBuf)>,
}

/// This start of the machine.
///
/// # Errors
/// /proc is not mounted.
pub fn boot_id() -> anyhow::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot id")?.trim().to_owned())
}

fn is_alive(id: ProcessId) -> bool {
    proc::stat(id.pid).is_some_and(|stat| stat.started == id.started && !stat.is_dead())
}

impl Record {
    /// Reads the record of a folder; `None` if no demo has run there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(folder: &Path) -> anyhow::Result<Option<Record>> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{} is damaged: delete it if no demo runs there", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Stores it durably.
    ///
    /// # Errors
    /// The file system refused.
    pub fn store(&self, folder: &Path) -> anyhow::Result<()> {
        Ok(os::durable::write(&folder.join(FILE), &serde_json::to_vec_pretty(self)?)?)
    }

    /// Its launcher, if that still runs.
    #[must_use]
    pub fn running(&self) -> Option<ProcessId> {
        let here = boot_id().is_ok_and(|id| id == self.boot_id);
        self.launcher.filter(|launcher| here && is_alive(*launcher))
    }

    /// Takes away what a dead launcher left. Nothing is touched that is not provably its own.
    ///
    /// # Errors
    /// Something does not go; what it is is named.
    pub fn sweep(&self) -> anyhow::Result<()> {
        if boot_id()? != self.boot_id {
            return Ok(());
        }
        self.hosts.iter().try_for_each(|host| host.sweep().with_context(|| format!("sweep {}", host.name)))
    }
}

impl HostRecord {
    fn sweep(&self) -> anyhow::Result<()> {
        // A number in use by a mount of this namespace belongs to somebody else by now.
        let mounts = mount::table("thread-self")?;
        let foreign = |number: u32| mounts.iter().any(|m| m.device == (0, number));
        let cgroup = Cgroup::create(&self.cgroup)?;
        cgroup.freeze(Duration::from_millis(500))?;
        for number in self.connections.iter().filter(|number| !foreign(**number)) {
            HostFuse.abort(*number)?;
        }
        let group = cgroup.clone();
        let empty = bounded(2 * SWEEP_LIMIT, move || group.kill_until_empty(SWEEP_LIMIT));
        for id in self.processes.iter().filter(|id| is_alive(**id)) {
            if let Some(pid) = i32::try_from(id.pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL); // gone meanwhile
            }
        }
        if !matches!(empty, Outcome::Done(Ok(true))) {
            anyhow::bail!("processes do not die: {:?}", cgroup.pids());
        }
        let devices: Vec<LoopDevice> = self
            .loops
            .iter()
            .map(|(number, backing)| LoopDevice { number: *number, backing: backing.clone() })
            .collect();
        host::detach(&devices)?;
        Ok(cgroup.remove(SWEEP_LIMIT)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_knows_whether_its_launcher_runs() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(folder.path()).unwrap(), None);
        let pid = std::process::id();
        let me = ProcessId { pid, started: proc::stat(pid).unwrap().started };
        let mut record = Record { boot_id: boot_id().unwrap(), launcher: Some(me), ..Record::default() };
        record.hosts.push(HostRecord {
            name: "server1".into(),
            loops: vec![(3, "/x".into())],
            ..HostRecord::default()
        });
        record.store(folder.path()).unwrap();
        let loaded = Record::load(folder.path()).unwrap().unwrap();
        assert_eq!(loaded, record);
        assert_eq!(loaded.running(), Some(me));
        let other = ProcessId { started: me.started + 1, ..me };
        assert_eq!(Record { launcher: Some(other), ..loaded }.running(), None);
    }
}
