//! File systems: mount, unmount, who is mounted where and who holds it. Calls may hang with a held disk: bound them at the call site.

use crate::process::{Finished, HostProcesses, Processes as _, Spec};
use crate::{Doing, Failure, output, proc};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Processes named as holders of a mount point: enough for a person to act on.
const HOLDERS_MAX: usize = 32;
/// Read of what mkfs printed, for the error a person sees.
const MKFS_ERROR_SHOWN: usize = 400;

/// A file system that a mirror set can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// xfs; mounted with `nouuid`, for both twins carry the same one.
    Xfs,
}

impl FileSystem {
    /// By the name used in the configuration.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "ext4" => Some(FileSystem::Ext4),
            "xfs" => Some(FileSystem::Xfs),
            _ => None,
        }
    }

    /// The kernel's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }
}

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where.
    pub point: PathBuf,
    /// What: a device's path for disks.
    pub source: String,
    /// The kernel's name of the file system.
    pub file_system: String,
    /// Major and minor number as `st_dev` of its files shows them.
    pub device: (u32, u32),
}

/// A process that keeps a file system busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its pid.
    pub pid: u32,
    /// Its short name.
    pub name: String,
}

/// Mounts and unmounts. `mount`, `unmount` and `make` may hang for as long as the disk below does.
pub trait Mounts: Send + Sync {
    /// Mounts a device, making the mount point if it is missing.
    ///
    /// # Errors
    /// The device holds no such file system, the point is busy, or the kernel refused.
    fn mount(&self, device: &Path, point: &Path, file_system: FileSystem) -> Result<(), Failure>;

    /// Unmounts; `false` if nothing was mounted there.
    ///
    /// # Errors
    /// Busy (see [`Mounts::holders`]), or the kernel refused.
    fn unmount(&self, point: &Path) -> Result<bool, Failure>;

    /// Takes the file system out of the tree at once; the kernel lets go of it when its last holder does.
    ///
    /// # Errors
    /// The kernel refused.
    fn unmount_lazily(&self, point: &Path) -> Result<bool, Failure>;

    /// What is mounted at a point (the topmost); never touches the disk.
    ///
    /// # Errors
    /// The kernel's table cannot be read.
    fn mounted_at(&self, point: &Path) -> Result<Option<Mounted>, Failure>;

    /// Who keeps a mount point busy, at most 32; never touches the disk.
    ///
    /// # Errors
    /// The kernel's table cannot be read.
    fn holders(&self, point: &Path) -> Result<Vec<Holder>, Failure>;

    /// Makes a new, empty file system: **what was on the device is lost**. Only on an explicit order.
    ///
    /// # Errors
    /// mkfs is not installed, failed, or took longer than `limit`.
    fn make(&self, device: &Path, file_system: FileSystem, limit: Duration) -> Result<(), Failure>;
}

/// The mounts of this process's mount namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostMounts;

/// Every mount of a process's mount namespace, in the order of mounting; `thread-self` for the caller's own.
///
/// # Errors
/// No such process.
pub fn table(process: &str) -> Result<Vec<Mounted>, Failure> {
    let path = format!("/proc/{process}/mountinfo");
    let text = fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    Ok(text.lines().filter_map(parse_line).collect())
}

fn parse_line(line: &str) -> Option<Mounted> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let point = PathBuf::from(unescape(fields.nth(1)?));
    let mut rest = right.split(' ');
    let file_system = rest.next()?.to_owned();
    let source = unescape(rest.next()?);
    Some(Mounted { point, source, file_system, device: (major.parse().ok()?, minor.parse().ok()?) })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(3).unwrap_or(("", part));
        match u8::from_str_radix(code, 8) {
            Ok(byte) => text.push(char::from(byte)),
            Err(_) => text.push_str(code),
        }
        text.push_str(rest);
    }
    text
}

/// The path as the kernel's table has it, without asking the file system that may be mounted there.
fn resolved(point: &Path) -> PathBuf {
    let parent = point.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, point.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => point.to_owned(),
    }
}

fn unmount_with(point: &Path, flags: UnmountFlags) -> Result<bool, Failure> {
    match unmount(point, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error).doing(|| format!("unmount {}", point.display())),
    }
}

/// Whether this link of /proc leads into the file system with this device number; asks for cached facts only.
fn leads_into(link: &Path, device: (u32, u32)) -> bool {
    let found = statx(CWD, link, AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT, StatxFlags::empty());
    found.is_ok_and(|found| (found.stx_dev_major, found.stx_dev_minor) == device)
}

fn holds(pid: u32, device: (u32, u32)) -> bool {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    if ["cwd", "root", "exe"].iter().any(|link| leads_into(&folder.join(link), device)) {
        return true;
    }
    // Threads share their descriptors, but a first thread that has ended shows none while others still hold them.
    let tasks = fs::read_dir(folder.join("task"));
    let open = |task: fs::DirEntry| {
        let files = fs::read_dir(task.path().join("fd"));
        files.is_ok_and(|files| files.flatten().any(|file| leads_into(&file.path(), device)))
    };
    tasks.is_ok_and(|tasks| tasks.flatten().any(open))
}

impl Mounts for HostMounts {
    fn mount(&self, device: &Path, point: &Path, file_system: FileSystem) -> Result<(), Failure> {
        let doing = || format!("mount {} at {} as {}", device.display(), point.display(), file_system.name());
        fs::create_dir_all(point).doing(doing)?;
        let data: Option<CString> = match file_system {
            FileSystem::Ext4 => None,
            FileSystem::Xfs => Some(c"nouuid".to_owned()),
        };
        mount(device, point, file_system.name(), MountFlags::NOATIME, data.as_deref()).doing(doing)
    }

    fn unmount(&self, point: &Path) -> Result<bool, Failure> {
        unmount_with(point, UnmountFlags::empty())
    }

    fn unmount_lazily(&self, point: &Path) -> Result<bool, Failure> {
        unmount_with(point, UnmountFlags::DETACH)
    }

    fn mounted_at(&self, point: &Path) -> Result<Option<Mounted>, Failure> {
        let point = resolved(point);
        Ok(table("thread-self")?.into_iter().rfind(|mounted| mounted.point == point))
    }

    fn holders(&self, point: &Path) -> Result<Vec<Holder>, Failure> {
        let Some(mounted) = self.mounted_at(point)? else { return Ok(Vec::new()) };
        let found = proc::pids().into_iter().filter(|pid| holds(*pid, mounted.device));
        let named = found.map(|pid| Holder { pid, name: proc::name(pid).unwrap_or_default() });
        Ok(named.take(HOLDERS_MAX).collect())
    }

    fn make(&self, device: &Path, file_system: FileSystem, limit: Duration) -> Result<(), Failure> {
        let doing = || format!("make a new {} on {}", file_system.name(), device.display());
        let log = std::env::temp_dir().join(format!("futago-mkfs-{}", std::process::id()));
        let force = if file_system == FileSystem::Ext4 { "-F" } else { "-f" };
        let arguments = vec!["-q".to_owned(), force.to_owned(), device.display().to_string()];
        let program = format!("mkfs.{}", file_system.name()).into();
        let spec = Spec { program, arguments, output: Some(log.clone()), ..Spec::default() };
        let finished = HostProcesses::default().run(&spec, limit);
        let printed = output::tail(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        match finished? {
            Finished::Exited(crate::process::Exit::Code(0)) => Ok(()),
            Finished::Exited(exit) => {
                let shown = printed.get(..MKFS_ERROR_SHOWN).unwrap_or(&printed);
                let shown = String::from_utf8_lossy(shown).trim().to_owned();
                Err(io::Error::other(format!("{exit:?}: {shown}"))).doing(doing)
            }
            Finished::TimedOut(_) => Err(io::Error::from(io::ErrorKind::TimedOut)).doing(doing),
        }
    }
}

/// Mounts in memory.
#[derive(Debug, Default)]
pub struct FakeMounts(Mutex<FakeTable>);

#[derive(Debug, Default)]
struct FakeTable {
    mounted: BTreeMap<PathBuf, Mounted>,
    holders: BTreeMap<PathBuf, Vec<Holder>>,
    made: Vec<PathBuf>,
}

impl FakeMounts {
    fn with<T>(&self, act: impl FnOnce(&mut FakeTable) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From here on the point is busy with these; none: free.
    pub fn set_holders(&self, point: &Path, holders: Vec<Holder>) {
        self.with(|table| table.holders.insert(point.to_owned(), holders));
    }

    /// Devices that were given a new file system, in order.
    pub fn made(&self) -> Vec<PathBuf> {
        self.with(|table| table.made.clone())
    }
}

impl Mounts for FakeMounts {
    fn mount(&self, device: &Path, point: &Path, file_system: FileSystem) -> Result<(), Failure> {
        self.with(|table| {
            if table.mounted.contains_key(point) {
                return Err(io::Error::from(io::ErrorKind::ResourceBusy)).doing(|| "mount".into());
            }
            let minor = u32::try_from(table.mounted.len()).unwrap_or(0);
            let source = device.display().to_string();
            let file_system = file_system.name().to_owned();
            let mounted = Mounted { point: point.to_owned(), source, file_system, device: (7, minor) };
            table.mounted.insert(point.to_owned(), mounted);
            Ok(())
        })
    }

    fn unmount(&self, point: &Path) -> Result<bool, Failure> {
        self.with(|table| match table.holders.get(point).is_some_and(|holders| !holders.is_empty()) {
            true => Err(io::Error::from(io::ErrorKind::ResourceBusy)).doing(|| "unmount".into()),
            false => Ok(table.mounted.remove(point).is_some()),
        })
    }

    fn unmount_lazily(&self, point: &Path) -> Result<bool, Failure> {
        Ok(self.with(|table| table.mounted.remove(point).is_some()))
    }

    fn mounted_at(&self, point: &Path) -> Result<Option<Mounted>, Failure> {
        Ok(self.with(|table| table.mounted.get(point).cloned()))
    }

    fn holders(&self, point: &Path) -> Result<Vec<Holder>, Failure> {
        Ok(self.with(|table| table.holders.get(point).cloned().unwrap_or_default()))
    }

    fn make(&self, device: &Path, _file_system: FileSystem, _limit: Duration) -> Result<(), Failure> {
        self.with(|table| table.made.push(device.to_owned()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table_with_its_escapes() {
        let line = r"36 35 7:12 / /mnt/with\040space rw,noatime shared:1 - ext4 /dev/loop12 rw,data=ordered";
        let mounted = parse_line(line).unwrap();
        assert_eq!(mounted.point, PathBuf::from("/mnt/with space"));
        assert_eq!((mounted.source.as_str(), mounted.device), ("/dev/loop12", (7, 12)));
        assert_eq!(unescape(r"a\134b\"), r"a\b");
        assert!(parse_line("nonsense").is_none());
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(table("thread-self").unwrap().iter().any(|mounted| mounted.point == Path::new("/")));
    }
}
