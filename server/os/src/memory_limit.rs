//! Takes a process out of a memory limit under which writing back could wait for itself.
//!
//! Under the memory controller of cgroup v1, whoever allocates at the limit waits for pages of the same group that are being written
//! back. A process that these pages are written back *through* waits for itself then, for ever, unless it is marked as an I/O
//! flusher, which needs CAP_SYS_RESOURCE. Under cgroup v2 nobody waits so, and leaving would take the process away from its
//! service manager.

use crate::mount::table;
use crate::{Doing as _, Failure};
use std::fs;
use std::path::{Path, PathBuf};

/// From here on a limit is none: the kernel shows the largest number of pages it can count, in bytes.
const NO_LIMIT: u64 = 1 << 62;
/// The file of a group that holds its limit in bytes.
const LIMIT: &str = "memory.limit_in_bytes";

/// Moves a process, with all its threads, up out of every group of the v1 memory controller that has a limit: into the nearest
/// group that has none, nor any above it. Gives the limit it left, if any.
///
/// # Errors
/// No such process, or it may not be moved.
pub fn leave_memory_limit(pid: u32) -> Result<Option<u64>, Failure> {
    let file = format!("/proc/{pid}/cgroup");
    let groups = fs::read_to_string(&file).doing(|| format!("read {file}"))?;
    let Some(own) = memory_group(&groups) else { return Ok(None) };
    let mounts = table("thread-self")?;
    let roots = mounts.into_iter().filter(|mount| mount.file_system == "cgroup").map(|mount| mount.point);
    let Some(root) = roots.into_iter().find(|root| root.join(LIMIT).exists()) else { return Ok(None) };
    let limit = |group: &Path| {
        let text = fs::read_to_string(root.join(group).join(LIMIT)).ok()?;
        text.trim().parse().ok().filter(|limit: &u64| *limit < NO_LIMIT)
    };
    let Some((target, left)) = above(&own, limit) else { return Ok(None) };
    let target = root.join(target).join("cgroup.procs");
    fs::write(&target, pid.to_string()).doing(|| format!("write {pid} to {}", target.display()))?;
    Ok(Some(left))
}

/// The group of the v1 memory controller out of `/proc/PID/cgroup`, below the root.
fn memory_group(groups: &str) -> Option<PathBuf> {
    groups.lines().find_map(|line| {
        let mut words = line.splitn(3, ':').skip(1);
        let controllers = words.next()?;
        let group = words.next()?;
        controllers.split(',').any(|name| name == "memory").then(|| group.trim_start_matches('/').into())
    })
}

/// The group to move to, and the smallest limit that is left: `None` where neither the group nor one above it has a limit.
fn above(own: &Path, limit: impl Fn(&Path) -> Option<u64>) -> Option<(PathBuf, u64)> {
    let chain: Vec<&Path> = own.ancestors().filter(|group| !group.as_os_str().is_empty()).collect();
    let limited: Vec<(&Path, u64)> =
        chain.iter().filter_map(|group| limit(group).map(|limit| (*group, limit))).collect();
    let (highest, _) = limited.last()?;
    let smallest = limited.iter().map(|(_, limit)| *limit).min()?;
    Some((highest.parent().unwrap_or(Path::new("")).to_owned(), smallest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_group_is_found_in_the_kernels_words() {
        let groups = "9:name=systemd:/\n4:cpu,memory:/system.slice/futago-node.service\n0::/system.slice\n";
        assert_eq!(memory_group(groups), Some("system.slice/futago-node.service".into()));
        assert_eq!(memory_group("0::/system.slice\n"), None, "cgroup v2");
        assert_eq!(memory_group("4:memory\n"), None);
    }

    #[test]
    fn a_process_goes_above_the_highest_limit_and_no_further() {
        let at = |limits: &'static [(&str, u64)]| {
            above(Path::new("a/b/c"), |group| {
                let found = limits.iter().find(|(name, _)| Path::new(name) == group);
                found.map(|(_, limit)| *limit)
            })
        };
        assert_eq!(at(&[]), None);
        assert_eq!(at(&[("a/b/c", 5)]), Some(("a/b".into(), 5)));
        assert_eq!(at(&[("a/b", 5), ("a/b/c", 7)]), Some(("a".into(), 5)));
        assert_eq!(at(&[("a", 9), ("a/b/c", 7)]), Some(("".into(), 7)));
    }

    /// With a real process in a real group, where the kernel has the v1 controller; where it has not, nothing is to be left.
    #[test]
    fn a_real_process_leaves_a_real_limit() {
        let own = memory_group(&fs::read_to_string("/proc/self/cgroup").unwrap());
        let root = Path::new("/sys/fs/cgroup/memory");
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let groups = |pid: u32| memory_group(&fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap());
        assert_eq!(leave_memory_limit(child.id()).unwrap(), None, "it has none yet");
        if let Some(own) = own.filter(|_| root.join(LIMIT).exists()) {
            let group = root.join(&own).join(format!("futago-limit-{}", std::process::id()));
            fs::create_dir(&group).unwrap();
            fs::write(group.join(LIMIT), (64_u64 << 20).to_string()).unwrap();
            fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
            let left = leave_memory_limit(child.id());
            let now = groups(child.id());
            child.kill().unwrap();
            child.wait().unwrap();
            fs::remove_dir(&group).unwrap();
            assert_eq!(left.unwrap(), Some(64 << 20));
            assert_eq!(now, Some(own));
        } else {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
