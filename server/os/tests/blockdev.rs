//! Every reason for which a disk is not taken, on the kernel's real devices: loops, partitions, mounts, swap, signatures (C2).
#![allow(clippy::unwrap_used)] // helpers of tests, where the lint's own exception does not reach

mod support;

use os::blockdev::{BlockDevices as _, HostBlockDevices};
use os::loopdev::{Attach, HostLoops, LoopDevice, LoopDevices as _};
use os::mount::{FileSystem, HostMounts, Mounts as _, table};
use os::namespace::Kind;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{wait_for, with_namespaces};
use wire::backing::{BackingFault, BackingFound, BackingKind};

/// Larger than the smallest xfs.
const IMAGE: u64 = 400 << 20;

/// A loop device over a file of its own; let go with all that lies on it.
struct Disk {
    device: LoopDevice,
    folder: tempfile::TempDir,
}

impl Disk {
    fn new() -> Disk {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(IMAGE).unwrap();
        let how = Attach { block_size: 512, direct_io: false, ..Attach::default() };
        Disk { device: HostLoops.attach(&image, how).unwrap(), folder }
    }

    fn path(&self) -> PathBuf {
        self.device.path()
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn found(&self) -> BackingFound {
        look(&self.path())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path = self.path();
        let _ = Command::new("swapoff").arg(&path).stderr(std::process::Stdio::null()).status();
        let _ = Command::new("partx").arg("--delete").arg(&path).stderr(std::process::Stdio::null()).status();
        let _ = HostLoops.detach(self.device.number);
    }
}

fn look(path: &Path) -> BackingFound {
    HostBlockDevices::default().inspect(path).found
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    let mut command = Command::new(program);
    command.args(arguments).arg(path).stdout(std::process::Stdio::null());
    assert!(command.status().unwrap().success(), "{program} {arguments:?} {}", path.display());
}

fn carries(found: &BackingFound) -> String {
    match found.faults.as_slice() {
        [BackingFault::Carries { what }] => what.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_disk_is_taken_and_told_by_kind_and_size() {
    let disk = Disk::new();
    let found = disk.found();
    assert_eq!((found.faults.as_slice(), found.bytes), ([].as_slice(), IMAGE));
    let shape = found.shape.unwrap();
    assert_eq!((shape.kind, shape.bytes, shape.partitions.len()), (BackingKind::Disk, IMAGE, 0));
    let behind = look(&disk.image());
    assert_eq!(
        behind.faults,
        [BackingFault::Held { by: disk.path().display().to_string() }],
        "the file behind it"
    );
}

#[test]
fn file_systems_swap_space_and_unknown_data_are_taken_only_once_their_loss_is_confirmed() {
    let disk = Disk::new();
    for (program, arguments, what) in [
        ("mkfs.ext4", ["-q", "-F"].as_slice(), "ext4"),
        ("mkfs.xfs", &["-q", "-f"], "xfs"),
        ("mkswap", &["-q", "-f"], "swap"),
    ] {
        run("wipefs", &["--all", "--quiet"], &disk.path());
        run(program, arguments, &disk.path());
        let found = disk.found();
        assert_eq!(carries(&found), what);
        assert!(!found.is_usable(false) && found.is_usable(true), "{what}");
    }
    run("wipefs", &["--all", "--quiet"], &disk.path());
    fs::OpenOptions::new().write(true).open(disk.path()).unwrap().write_all_at(&[7; 4096], 65_536).unwrap();
    assert_eq!(carries(&disk.found()), "unknown");
}

#[test]
fn a_mounted_disk_is_refused_with_its_mount_point_also_where_only_a_partition_is_mounted() {
    with_namespaces(&[Kind::Mount], || {
        let disk = Disk::new();
        let point = disk.folder.path().join("mnt");
        run("mkfs.ext4", &["-q", "-F"], &disk.path());
        HostMounts.mount(&disk.path(), &point, FileSystem::Ext4).unwrap();
        let found = disk.found();
        assert!(
            found.faults.contains(&BackingFault::Mounted { point: point.display().to_string() }),
            "{found:?}"
        );
        assert!(!found.is_usable(true));
        HostMounts.unmount(&point).unwrap();
        assert_eq!(carries(&disk.found()), "ext4");

        let first = partition(&disk);
        run("mkfs.ext4", &["-q", "-F"], &first);
        HostMounts.mount(&first, &point, FileSystem::Ext4).unwrap();
        let mounted = BackingFault::Mounted { point: point.display().to_string() };
        assert!(disk.found().faults.contains(&mounted) && look(&first).faults.contains(&mounted));
        HostMounts.unmount(&point).unwrap();
    });
}

/// Two partitions; the first one's device.
fn partition(disk: &Disk) -> PathBuf {
    let layout = disk.folder.path().join("layout");
    fs::write(&layout, "label: gpt\nsize=100M\nsize=100M\n").unwrap();
    let mut sfdisk = Command::new("sfdisk");
    // Written into the file behind the device: the kernel is told by partx, for this loop driver scans none itself.
    sfdisk.args(["--quiet", "--wipe", "always"]).arg(disk.path()).stdin(File::open(&layout).unwrap());
    sfdisk.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    assert!(sfdisk.status().unwrap().success());
    let first = PathBuf::from(format!("{}p1", disk.path().display()));
    wait_for("the partition", || {
        // Refused as long as the kernel is still letting go of an earlier use of the device.
        let mut told = Command::new("partx");
        told.arg("--update").arg(disk.path()).stderr(std::process::Stdio::null());
        told.status().is_ok_and(|status| status.success()) && first.exists()
    });
    first
}

#[test]
fn a_partition_is_taken_and_its_disk_carries_a_partition_table_that_is_part_of_its_shape() {
    let disk = Disk::new();
    let first = partition(&disk);
    let found = look(&first);
    assert!(found.faults.is_empty(), "{found:?}");
    let shape = found.shape.unwrap();
    assert_eq!((shape.kind, shape.bytes, shape.start), (BackingKind::Partition, 100 << 20, 2048));
    let whole = disk.found();
    assert!(carries(&whole).contains("gpt"));
    assert_eq!(whole.shape.unwrap().partitions.len(), 2);
}

#[test]
fn swap_space_in_use_is_refused() {
    let disk = Disk::new();
    run("mkswap", &["-q"], &disk.path());
    run("swapon", &["--priority", "0"], &disk.path());
    let found = disk.found();
    run("swapoff", &[], &disk.path());
    assert!(found.faults.contains(&BackingFault::Swap) && !found.is_usable(true), "{found:?}");
    assert!(!disk.found().faults.contains(&BackingFault::Swap));
}

#[test]
fn members_of_lvm_and_of_arrays_are_refused_by_their_signatures_on_the_disk_and_on_its_partitions() {
    let disk = Disk::new();
    run("pvcreate", &["--yes", "--quiet"], &disk.path());
    assert_eq!(disk.found().faults, [BackingFault::Lvm]);
    assert!(!disk.found().is_usable(true));
    run("pvremove", &["--yes", "--quiet"], &disk.path());
    run("wipefs", &["--all", "--quiet"], &disk.path());

    let first = partition(&disk);
    run("pvcreate", &["--yes", "--quiet"], &first);
    assert!(disk.found().faults.contains(&BackingFault::Lvm), "a physical volume on a partition of it");
    run("wipefs", &["--all", "--quiet"], &first);
    member_of_an_array(&first);
    assert_eq!(look(&first).faults, [BackingFault::Raid]);
}

/// The superblock of version 1.2 of a member, as the kernel's md writes it: there is no md driver on every machine.
fn member_of_an_array(path: &Path) {
    let mut block = vec![0; 1024];
    block[0..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
    block[4..8].copy_from_slice(&1_u32.to_le_bytes());
    block[16..32].copy_from_slice(&[5; 16]);
    block[32..37].copy_from_slice(b"array");
    block[128..136].copy_from_slice(&2048_u64.to_le_bytes());
    block[144..152].copy_from_slice(&8_u64.to_le_bytes());
    let sum: u64 =
        block[..256].chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    block[216..220].copy_from_slice(&(sum as u32).to_le_bytes());
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(&block, 4096).unwrap();
}

#[test]
fn the_disk_of_the_root_file_system_is_refused_and_a_loop_over_a_file_on_it_is_not() {
    let root = table("1").unwrap().into_iter().rev().find(|mount| mount.point == Path::new("/")).unwrap();
    let source = Path::new(&root.source);
    assert!(source.starts_with("/dev") && source.exists(), "this machine's root is on no disk: {root:?}");
    let found = look(source);
    assert!(found.faults.contains(&BackingFault::Root), "{found:?}");
    assert!(!found.is_usable(true));
    assert!(Disk::new().found().faults.is_empty());
}

#[test]
fn a_device_that_another_program_has_for_itself_is_refused() {
    let disk = Disk::new();
    let kept = File::open(disk.path()).unwrap();
    rustix::fs::flock(&kept, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(disk.found().faults, [BackingFault::InUse]);
    drop(kept);
    assert_eq!(disk.found().faults, []);
}

#[test]
fn read_only_devices_missing_ones_and_what_is_no_disk_are_refused() {
    let disk = Disk::new();
    HostLoops.detach(disk.device.number).unwrap();
    wait_for("the device to go", || HostLoops.find(&disk.image()).unwrap().is_empty());
    let how = Attach { read_only: true, direct_io: false, ..Attach::default() };
    let device = HostLoops.attach(&disk.image(), how).unwrap();
    let found = look(&device.path());
    HostLoops.detach(device.number).unwrap();
    assert_eq!(found.faults, [BackingFault::ReadOnly]);
    assert_eq!(look(Path::new("/dev/no-such-disk")).faults, [BackingFault::Missing]);
    assert_eq!(look(&disk.folder.path().join("no/folder")).faults, [BackingFault::Missing]);
    assert_eq!(look(Path::new("/dev/zero")).faults, [BackingFault::NotADisk]);
    assert_eq!(look(disk.folder.path()).faults, [BackingFault::NotADisk]);
    assert_eq!(look(&disk.folder.path().join("new-image")).faults, [], "it would be made");
}

/// The kernel's tables as they are, with one disk's word changed: this machine has no disk that can be taken out.
#[test]
fn removable_disks_and_those_that_the_kernel_has_stacked_something_on_are_refused() {
    let disk = Disk::new();
    let sys = disk.folder.path().join("sys");
    let number = fs::read_to_string(format!("/sys/block/loop{}/dev", disk.device.number)).unwrap();
    let folder = sys.join("devices/disk");
    fs::create_dir_all(sys.join("dev/block")).unwrap();
    for (holder, uuid, expected) in [
        (None, "", BackingFault::Removable),
        (Some("dm-0"), "LVM-abc", BackingFault::Lvm),
        (Some("md127"), "", BackingFault::Raid),
        (Some("bcache0"), "", BackingFault::Held { by: "/dev/bcache0".into() }),
    ] {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("holders")).unwrap();
        fs::write(folder.join("dev"), &number).unwrap();
        fs::write(folder.join("removable"), if holder.is_none() { "1\n" } else { "0\n" }).unwrap();
        if let Some(holder) = holder {
            fs::create_dir_all(sys.join("block").join(holder).join("dm")).unwrap();
            fs::write(sys.join("block").join(holder).join("dm/uuid"), uuid).unwrap();
            fs::create_dir(folder.join("holders").join(holder)).unwrap();
        }
        let link = sys.join("dev/block").join(number.trim());
        let _ = fs::remove_file(&link);
        symlink(&folder, &link).unwrap();
        let host = HostBlockDevices::with_tables(&sys, Path::new("/proc/swaps"));
        assert_eq!(host.inspect(&disk.path()).found.faults, [expected]);
    }
}

/// Whoever serves another loop device's file may not answer: the file is known by its name and never asked about.
#[test]
fn files_behind_other_loop_devices_are_compared_by_name_only() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().canonicalize().unwrap().join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let sys = folder.path().join("sys");
    fs::create_dir_all(sys.join("block/loop9/loop")).unwrap();
    let behind = |path: &Path| {
        fs::write(sys.join("block/loop9/loop/backing_file"), format!("{}\n", path.display())).unwrap();
        HostBlockDevices::with_tables(&sys, Path::new("/proc/swaps")).inspect(&image).found.faults
    };
    let link = folder.path().join("link");
    symlink(&image, &link).unwrap();
    assert_eq!(behind(&link), [], "asking would have found out that it is the same file");
    assert_eq!(behind(&image), [BackingFault::Held { by: "/dev/loop9".into() }]);
}
