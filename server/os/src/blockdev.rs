//! Disks, partitions and image files as candidates for a mirror set: what they are and what speaks against them (C2).
//!
//! Everything comes from /sys, /proc and the candidate's own first bytes; nothing is written. File systems, arrays, LVM and
//! partition tables are recognised by util-linux's `wipefs --no-act`, which names every signature at once, also where the
//! kernel has no driver for what it found.

use crate::bounded::{Outcome, bounded};
use crate::mount::table;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wire::backing::{BackingFault, BackingFound, BackingKind, BackingShape};

/// A disk that does not answer for so long is not taken; a healthy one is looked at within a tenth of a second.
const LOOK_LIMIT: Duration = Duration::from_secs(15);
/// Bytes looked at besides the known signatures: where a control area would be written first.
pub const HEAD_BYTES: usize = 1024 * 1024;
/// Holders followed from device to device: an LV on an array on partitions is three deep.
const DEPTH_MAX: usize = 8;
/// What programs are searched by.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A candidate as it was found, with its first bytes for whoever knows the control area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// What was found.
    pub found: BackingFound,
    /// At most [`HEAD_BYTES`] from its beginning; fewer where it is shorter.
    pub head: Vec<u8>,
}

/// Looks at candidates. Never writes.
pub trait BlockDevices: Send + Sync {
    /// What is at a path, and why it could not be a backing. A path where an image file could be made is found without a shape.
    fn inspect(&self, path: &Path) -> Inspected;

    /// The shape alone: from the kernel's tables, without asking the disk.
    ///
    /// # Errors
    /// There is no disk, partition or file.
    fn shape(&self, path: &Path) -> Result<BackingShape, BackingFault>;
}

/// The machine's disks.
#[derive(Clone, Debug)]
pub struct HostBlockDevices {
    sys: PathBuf,
    swaps: PathBuf,
}

impl Default for HostBlockDevices {
    fn default() -> Self {
        HostBlockDevices { sys: "/sys".into(), swaps: "/proc/swaps".into() }
    }
}

impl HostBlockDevices {
    /// The same with other kernel tables, for kinds of disks that a test machine has not.
    #[must_use]
    pub fn with_tables(sys: &Path, swaps: &Path) -> HostBlockDevices {
        HostBlockDevices { sys: sys.into(), swaps: swaps.into() }
    }
}

impl BlockDevices for HostBlockDevices {
    fn inspect(&self, path: &Path) -> Inspected {
        let (host, of) = (self.clone(), path.to_path_buf());
        match bounded(LOOK_LIMIT, move || host.look(&of)) {
            Outcome::Done(Ok(inspected)) => inspected,
            Outcome::Done(Err(fault)) => only(BackingFault::Unreadable { reason: fault.to_string() }),
            Outcome::Unknown => only(BackingFault::Unreadable { reason: "it does not answer".into() }),
        }
    }

    fn shape(&self, path: &Path) -> Result<BackingShape, BackingFault> {
        let found = fs::metadata(path).map_err(|_| BackingFault::Missing)?;
        if found.is_file() {
            return Ok(FILE);
        }
        let node = found.file_type().is_block_device().then(|| self.node(number_of(found.rdev()))).flatten();
        node.map(|node| node.shape()).ok_or(BackingFault::NotADisk)
    }
}

/// A file lies on a file system that may move and grow it: nothing of it can be held against it.
const FILE: BackingShape =
    BackingShape { kind: BackingKind::File, bytes: 0, start: 0, partitions: Vec::new() };

/// Bytes of a sector in /sys, whatever the disk's own are.
const SECTOR: u64 = 512;

fn only(fault: BackingFault) -> Inspected {
    Inspected { found: BackingFound { shape: None, bytes: 0, faults: vec![fault] }, head: Vec::new() }
}

/// A block device by its number.
type Number = (u32, u32);

fn number_of(rdev: u64) -> Number {
    (libc::major(rdev), libc::minor(rdev))
}

/// One device in /sys.
struct Node {
    number: Number,
    folder: PathBuf,
    /// The folder of the disk it is a partition of.
    disk: Option<PathBuf>,
}

fn read_trimmed(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

fn read_number(path: &Path) -> Option<u64> {
    read_trimmed(path)?.parse().ok()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

impl Node {
    /// `dev` file of a folder in /sys.
    fn of_folder(folder: PathBuf) -> Option<Node> {
        let number = read_trimmed(&folder.join("dev"))?;
        let (major, minor) = number.split_once(':')?;
        let disk =
            folder.join("partition").exists().then(|| folder.parent().map(Path::to_path_buf)).flatten();
        Some(Node { number: (major.parse().ok()?, minor.parse().ok()?), folder, disk })
    }

    /// The whole disk's folder.
    fn whole(&self) -> &Path {
        self.disk.as_deref().unwrap_or(&self.folder)
    }

    /// The partitions on it, by their first sector.
    fn partitions(&self) -> Vec<Node> {
        let inside = names_in(&self.folder).into_iter().map(|name| self.folder.join(name));
        let mut all: Vec<Node> =
            inside.filter(|folder| folder.join("partition").exists()).filter_map(Node::of_folder).collect();
        all.sort_by_key(|node| node.extent().0);
        all
    }

    fn shape(&self) -> BackingShape {
        let (start, sectors) = self.extent();
        BackingShape {
            kind: if self.disk.is_some() { BackingKind::Partition } else { BackingKind::Disk },
            bytes: sectors.saturating_mul(SECTOR),
            start,
            partitions: self.partitions().iter().map(Node::extent).collect(),
        }
    }

    /// First sector and sectors, of [`SECTOR`] bytes.
    fn extent(&self) -> (u64, u64) {
        let read = |name| read_number(&self.folder.join(name)).unwrap_or(0);
        (read("start"), read("size"))
    }
}

impl HostBlockDevices {
    fn node(&self, (major, minor): Number) -> Option<Node> {
        let folder = fs::canonicalize(self.sys.join(format!("dev/block/{major}:{minor}"))).ok()?;
        Node::of_folder(folder)
    }

    fn look(&self, path: &Path) -> io::Result<Inspected> {
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(missing(path)),
            Err(fault) => return Err(fault),
        };
        let kind = found.file_type();
        if kind.is_file() {
            return self.look_at_file(path, &found);
        }
        let node = kind.is_block_device().then(|| self.node(number_of(found.rdev()))).flatten();
        match node {
            Some(node) => self.look_at_device(path, &node),
            None => Ok(only(BackingFault::NotADisk)),
        }
    }

    fn look_at_device(&self, path: &Path, node: &Node) -> io::Result<Inspected> {
        let parts = node.partitions();
        let all: Vec<&Node> = std::iter::once(node).chain(&parts).collect();
        let numbers: Vec<Number> = all.iter().map(|node| node.number).collect();
        let mut faults = Vec::new();
        if self.roots().iter().any(|disk| disk == node.whole()) {
            faults.push(BackingFault::Root);
        }
        if let Some(point) = mounted(&numbers) {
            faults.push(BackingFault::Mounted { point });
        }
        if self.swaps(|of| fs::metadata(of).is_ok_and(|m| numbers.contains(&number_of(m.rdev())))) {
            faults.push(BackingFault::Swap);
        }
        if read_number(&node.whole().join("removable")) == Some(1) {
            faults.push(BackingFault::Removable);
        }
        if read_number(&node.folder.join("ro")) == Some(1) {
            faults.push(BackingFault::ReadOnly);
        }
        faults.extend(all.iter().filter_map(|node| self.holder(node)));
        let shape = node.shape();
        let bytes = shape.bytes;
        let mut head = Vec::new();
        // A disk that is not taken anyway is not read.
        if faults.is_empty() {
            head = self::head(&mut File::open(path)?)?;
            let mut signatures = signatures(path)?;
            for part in &parts {
                // What lies on its partitions is nobody's surprise either: an idle array's member is refused.
                let members = device_of(part).map_or(Ok(Vec::new()), |path| self::signatures(&path))?;
                signatures.extend(members.into_iter().filter(|signature| signature.usage == "raid"));
            }
            judge_signatures(&signatures, &head, &mut faults);
            if faults.iter().all(BackingFault::is_confirmable) && !may_be_claimed(path)? {
                faults.push(BackingFault::InUse);
            }
        }
        Ok(Inspected { found: BackingFound { shape: Some(shape), bytes, faults }, head })
    }

    fn look_at_file(&self, path: &Path, found: &fs::Metadata) -> io::Result<Inspected> {
        let mut faults = Vec::new();
        let same = |of: &Path| {
            fs::metadata(of).is_ok_and(|m| (m.dev(), m.ino()) == (found.dev(), found.ino()) && m.is_file())
        };
        if self.swaps(same) {
            faults.push(BackingFault::Swap);
        }
        // By name alone: to ask about another device's file is to wait for whoever serves it, a held mirror set for example.
        let own = fs::canonicalize(path)?;
        for name in names_in(&self.sys.join("block")).iter().filter(|name| name.starts_with("loop")) {
            let behind = read_trimmed(&self.sys.join("block").join(name).join("loop/backing_file"));
            if behind.is_some_and(|behind| own == Path::new(&behind)) {
                faults.push(BackingFault::Held { by: format!("/dev/{name}") });
            }
        }
        let mut file = File::open(path)?;
        let head = head(&mut file)?;
        judge_signatures(&signatures(path)?, &head, &mut faults);
        if OpenOptions::new().write(true).open(path).is_err() {
            faults.push(BackingFault::ReadOnly);
        }
        if flock(file.as_fd(), FlockOperation::NonBlockingLockShared).is_err() {
            faults.push(BackingFault::InUse);
        }
        Ok(Inspected { found: BackingFound { shape: Some(FILE), bytes: found.len(), faults }, head })
    }

    /// The disks that hold the root file system, through arrays and logical volumes.
    fn roots(&self) -> Vec<PathBuf> {
        // The host's own root, besides that of a process in a namespace.
        let tables = ["1", "thread-self"].into_iter().filter_map(|process| table(process).ok());
        let roots = tables.flatten().filter(|mount| mount.point == Path::new("/"));
        let mut disks = Vec::new();
        for mount in roots {
            let node = Path::new(&mount.source).starts_with("/dev");
            let by_source = || {
                let found = node.then(|| fs::metadata(&mount.source).ok()).flatten();
                found.map(|found| number_of(found.rdev()))
            };
            let number = if mount.device.0 == 0 { by_source() } else { Some(mount.device) };
            if let Some(node) = number.and_then(|number| self.node(number)) {
                self.below(&node, DEPTH_MAX, &mut disks);
            }
        }
        disks
    }

    /// A device's disk and every disk under it.
    fn below(&self, node: &Node, depth: usize, disks: &mut Vec<PathBuf>) {
        disks.push(node.whole().to_path_buf());
        let slaves = node.folder.join("slaves");
        for name in names_in(&slaves).into_iter().filter(|_| depth > 0) {
            let folder = fs::canonicalize(slaves.join(name)).ok();
            if let Some(slave) = folder.and_then(Node::of_folder) {
                self.below(&slave, depth - 1, disks);
            }
        }
    }

    /// What the kernel has stacked on a device.
    fn holder(&self, node: &Node) -> Option<BackingFault> {
        let name = names_in(&node.folder.join("holders")).into_iter().next()?;
        let uuid = read_trimmed(&self.sys.join("block").join(&name).join("dm/uuid")).unwrap_or_default();
        Some(match name.as_str() {
            _ if uuid.starts_with("LVM-") => BackingFault::Lvm,
            name if name.starts_with("md") => BackingFault::Raid,
            name => BackingFault::Held { by: format!("/dev/{name}") },
        })
    }

    /// Whether swap in use is on something.
    fn swaps(&self, is: impl Fn(&Path) -> bool) -> bool {
        let text = fs::read_to_string(&self.swaps).unwrap_or_default();
        text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).any(|path| is(Path::new(path)))
    }
}

fn missing(path: &Path) -> Inspected {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A device that is not there is not to become a file in /dev.
    let makeable = folder.is_dir() && path.is_absolute() && !path.starts_with("/dev");
    let faults = if makeable { Vec::new() } else { vec![BackingFault::Missing] };
    Inspected { found: BackingFound { shape: None, bytes: 0, faults }, head: Vec::new() }
}

/// Where one of these devices is mounted, for this process or for the host's first one.
fn mounted(numbers: &[Number]) -> Option<String> {
    let tables = ["thread-self", "1"].into_iter().filter_map(|process| table(process).ok());
    let found = tables.flatten().find(|mount| {
        // Only device nodes are asked about: a file may be served by somebody who does not answer.
        let node = Path::new(&mount.source).starts_with("/dev");
        let found = || node.then(|| fs::metadata(&mount.source).ok()).flatten();
        let source = || found().filter(|found| found.file_type().is_block_device());
        // File systems over several disks show a number of their own.
        let behind = (mount.device.0 == 0).then(source).flatten().map(|found| number_of(found.rdev()));
        numbers.contains(&behind.unwrap_or(mount.device))
    });
    found.map(|mount| mount.point.display().to_string())
}

fn device_of(node: &Node) -> Option<PathBuf> {
    let uevent = read_trimmed(&node.folder.join("uevent"))?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name)).filter(|path| path.exists())
}

fn head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Nobody else has the device for himself.
fn may_be_claimed(path: &Path) -> io::Result<bool> {
    let claimed = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(path);
    match claimed {
        Ok(file) => Ok(flock(file.as_fd(), FlockOperation::NonBlockingLockShared).is_ok()),
        Err(fault) if fault.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// One signature found by util-linux.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature {
    kind: String,
    usage: String,
}

fn signatures(path: &Path) -> io::Result<Vec<Signature>> {
    let mut wipefs = Command::new("wipefs");
    wipefs.args(["--no-act", "--parsable", "--output", "TYPE,USAGE"]).arg(path).env_clear();
    let output = wipefs.env("PATH", SEARCH_PATH).env("LC_ALL", "C").output();
    let output = output.map_err(|fault| io::Error::other(format!("wipefs of util-linux: {fault}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(io::Error::other(format!("wipefs: {said}")));
    }
    Ok(parse_signatures(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_signatures(text: &str) -> Vec<Signature> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let split = |line: &str| {
        let (kind, usage) = line.split_once(',')?;
        Some(Signature { kind: kind.to_string(), usage: usage.to_string() })
    };
    lines.filter_map(split).collect()
}

fn judge_signatures(signatures: &[Signature], head: &[u8], faults: &mut Vec<BackingFault>) {
    for signature in signatures.iter().filter(|signature| signature.usage == "raid") {
        let fault = if signature.kind.starts_with("LVM") { BackingFault::Lvm } else { BackingFault::Raid };
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    let mut data: Vec<&str> =
        signatures.iter().filter(|s| s.usage != "raid").map(|s| s.kind.as_str()).collect();
    data.dedup();
    if !data.is_empty() {
        faults.push(BackingFault::Carries { what: data.join(", ") });
    } else if signatures.is_empty() && head.iter().any(|byte| *byte != 0) {
        faults.push(BackingFault::Carries { what: "unknown".into() });
    }
}

/// Disks in memory, by path; any other path is missing.
#[derive(Debug, Default)]
pub struct FakeBlockDevices(Mutex<BTreeMap<PathBuf, Inspected>>);

impl FakeBlockDevices {
    /// Puts a disk there.
    pub fn put(&self, path: &Path, inspected: Inspected) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.into(), inspected);
    }
}

impl BlockDevices for FakeBlockDevices {
    fn inspect(&self, path: &Path) -> Inspected {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(path).cloned().unwrap_or_else(|| only(BackingFault::Missing))
    }

    fn shape(&self, path: &Path) -> Result<BackingShape, BackingFault> {
        self.inspect(path).found.shape.ok_or(BackingFault::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read_as_util_linux_prints_them() {
        let text = "# TYPE,USAGE\ngpt,partition-table\nPMBR,partition-table\nLVM2_member,raid\n";
        let found = parse_signatures(text);
        assert_eq!(found.len(), 3);
        let mut faults = Vec::new();
        judge_signatures(&found, &[1], &mut faults);
        assert_eq!(faults, [BackingFault::Lvm, BackingFault::Carries { what: "gpt, PMBR".into() }]);
        faults.clear();
        judge_signatures(&[], &[0, 0, 7], &mut faults);
        assert_eq!(faults, [BackingFault::Carries { what: "unknown".into() }]);
        faults.clear();
        judge_signatures(&[], &[0; 64], &mut faults);
        assert_eq!(faults, []);
    }
}
