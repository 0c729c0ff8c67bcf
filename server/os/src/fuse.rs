//! FUSE connections: which one serves a mount, and cutting it off (every request then ends with an I/O error).

use crate::mount::{Mounted, table};
use crate::{Doing, Failure};
use rustix::mount::{MountFlags, mount};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const CONTROL: &str = "/sys/fs/fuse/connections";
const FILE_SYSTEM: &str = "fusectl";

/// Looks at and cuts FUSE connections. They are numbered by the kernel, on the whole machine.
pub trait FuseConnections: Send + Sync {
    /// The connection that serves what is mounted at this point; `None` if that is no FUSE. Asks the kernel's table only,
    /// never the server of the mount.
    ///
    /// # Errors
    /// The kernel's table cannot be read.
    fn number(&self, point: &Path) -> Result<Option<u32>, Failure>;

    /// Ends a connection for good; `false` if there is none of this number.
    ///
    /// # Errors
    /// The control file system cannot be mounted or refused.
    fn abort(&self, number: u32) -> Result<bool, Failure>;

    /// All living connections.
    ///
    /// # Errors
    /// The control file system cannot be mounted or read.
    fn list(&self) -> Result<Vec<u32>, Failure>;
}

/// The kernel's connections, through the fusectl file system, mounted at its usual place in the caller's mount namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFuse;

/// Whether this mount is served by FUSE, of whatever sub-type.
#[must_use]
pub fn is_fuse(mounted: &Mounted) -> bool {
    let kind = mounted.file_system.as_str();
    matches!(kind, "fuse" | "fuseblk") || kind.starts_with("fuse.") || kind.starts_with("fuseblk.")
}

fn control() -> Result<PathBuf, Failure> {
    let point = PathBuf::from(CONTROL);
    let there = table("thread-self")?.iter().any(|m| m.point == point && m.file_system == FILE_SYSTEM);
    if !there {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        match mount(FILE_SYSTEM, &point, FILE_SYSTEM, flags, None) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {} // busy: another thread was first
            Err(error) => return Err(error).doing(|| format!("mount fusectl at {CONTROL}")),
        }
    }
    Ok(point)
}

impl FuseConnections for HostFuse {
    fn number(&self, point: &Path) -> Result<Option<u32>, Failure> {
        let found = table("thread-self")?.into_iter().rfind(|mounted| mounted.point == point);
        // An anonymous device's minor number is what fusectl names the connection by.
        Ok(found.filter(is_fuse).map(|mounted| mounted.device.1))
    }

    fn abort(&self, number: u32) -> Result<bool, Failure> {
        match fs::write(control()?.join(number.to_string()).join("abort"), "1") {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).doing(|| format!("abort FUSE connection {number}")),
        }
    }

    fn list(&self) -> Result<Vec<u32>, Failure> {
        let entries = fs::read_dir(control()?).doing(|| format!("list {CONTROL}"))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }
}

/// Connections in memory.
#[derive(Debug, Default)]
pub struct FakeFuse(Mutex<Vec<(PathBuf, u32)>>);

impl FakeFuse {
    /// A server mounts here with this number.
    pub fn add(&self, point: &Path, number: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((point.to_owned(), number));
    }
}

impl FuseConnections for FakeFuse {
    fn number(&self, point: &Path) -> Result<Option<u32>, Failure> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(table.iter().find(|(known, _)| known == point).map(|(_, number)| *number))
    }

    fn abort(&self, number: u32) -> Result<bool, Failure> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = table.len();
        table.retain(|(_, known)| *known != number);
        Ok(table.len() < before)
    }

    fn list(&self) -> Result<Vec<u32>, Failure> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, number)| *number).collect())
    }
}
