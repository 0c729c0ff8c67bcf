//! Freezing and killing a whole host at once: the v1 freezer, or cgroup v2 where that is all there is.

use crate::mount::table;
use crate::{Doing, Failure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a group that is being frozen or killed.
const POLL: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A group of processes that are stopped, resumed and killed together, with all their children.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: PathBuf,
    version: Version,
}

fn hierarchy() -> Result<(PathBuf, Version), Failure> {
    let mounts = table("thread-self")?;
    // The v1 controllers of a mount are not in its type; the freezer's own files tell.
    let freezer = mounts.iter().filter(|m| m.file_system == "cgroup").map(|m| m.point.clone());
    let is_freezer = |point: &PathBuf| {
        let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let named = text.lines().any(|line| line.split(':').nth(1) == Some("freezer"));
        named && point.file_name().is_some_and(|name| name == "freezer")
    };
    if let Some(point) = freezer.into_iter().find(is_freezer) {
        return Ok((point, Version::One));
    }
    let unified = mounts.into_iter().find(|m| m.file_system == "cgroup2").map(|m| m.point);
    unified
        .map(|point| (point, Version::Two))
        .ok_or(io::Error::from(io::ErrorKind::Unsupported))
        .doing(|| "find a cgroup freezer or cgroup v2".into())
}

impl Cgroup {
    /// Makes (or finds) the group of this name below the hierarchy's root; the name may have folders.
    ///
    /// # Errors
    /// No cgroup file system is mounted, or the kernel refused.
    pub fn create(name: &str) -> Result<Self, Failure> {
        let (root, version) = hierarchy()?;
        let path = root.join(name);
        fs::create_dir_all(&path).doing(|| format!("create cgroup {}", path.display()))?;
        Ok(Cgroup { path, version })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process in; its children are born there.
    ///
    /// # Errors
    /// No such process, or the group is gone.
    pub fn add(&self, pid: u32) -> Result<(), Failure> {
        self.write("cgroup.procs", &pid.to_string())
    }

    fn write(&self, file: &str, value: &str) -> Result<(), Failure> {
        fs::write(self.path.join(file), value)
            .doing(|| format!("write {value} to {file} of {}", self.path.display()))
    }

    fn read(&self, file: &str) -> Result<String, Failure> {
        fs::read_to_string(self.path.join(file)).doing(|| format!("read {file} of {}", self.path.display()))
    }

    /// Its processes, as pids of the caller's pid namespace.
    ///
    /// # Errors
    /// The group is gone.
    pub fn pids(&self) -> Result<Vec<u32>, Failure> {
        let text = self.read("cgroup.procs")?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect())
    }

    /// Stops every process. `false` if some are still in the kernel after `limit` (they wait for a disk): they stop the
    /// moment they would come back, so none of them acts any more either way.
    ///
    /// # Errors
    /// The group is gone.
    pub fn freeze(&self, limit: Duration) -> Result<bool, Failure> {
        let until = Instant::now() + limit;
        if self.version == Version::Two {
            self.write("cgroup.freeze", "1")?;
        }
        loop {
            let done = match self.version {
                // Said again at each look: a process that was just being made or replaced may have missed it.
                Version::One => {
                    self.write("freezer.state", "FROZEN")?;
                    self.read("freezer.state")?.trim() == "FROZEN"
                }
                Version::Two => self.read("cgroup.events")?.lines().any(|line| line == "frozen 1"),
            };
            if done || Instant::now() >= until {
                return Ok(done);
            }
            thread::sleep(POLL);
        }
    }

    /// Lets every process go on.
    ///
    /// # Errors
    /// The group is gone.
    pub fn thaw(&self) -> Result<(), Failure> {
        match self.version {
            Version::One => self.write("freezer.state", "THAWED"),
            Version::Two => self.write("cgroup.freeze", "0"),
        }
    }

    /// Sends SIGKILL to every process, frozen or not; frozen ones die when thawed (v1) or at once (v2).
    ///
    /// # Errors
    /// The group is gone.
    pub fn kill(&self) -> Result<(), Failure> {
        if self.version == Version::Two && self.write("cgroup.kill", "1").is_ok() {
            return Ok(());
        }
        for pid in self.pids()? {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL); // it may have gone meanwhile
            }
        }
        Ok(())
    }

    /// Kills again and again, thawed, until nobody is left; `false` if somebody is after `limit`.
    ///
    /// # Errors
    /// The group is gone.
    pub fn kill_until_empty(&self, limit: Duration) -> Result<bool, Failure> {
        let until = Instant::now() + limit;
        loop {
            self.kill()?;
            self.thaw()?;
            if self.pids()?.is_empty() {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            thread::sleep(POLL);
        }
    }

    /// Removes the empty group; waits up to `limit` for dying processes to leave it.
    ///
    /// # Errors
    /// Processes are left in it.
    pub fn remove(&self, limit: Duration) -> Result<(), Failure> {
        let until = Instant::now() + limit;
        loop {
            match fs::remove_dir(&self.path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if Instant::now() >= until => {
                    return Err(error).doing(|| format!("remove cgroup {}", self.path.display()));
                }
                Err(_) => thread::sleep(POLL),
            }
        }
    }
}
