//! Loop devices, file systems and FUSE connections on the real kernel, in a mount namespace of the test's own.
#![allow(clippy::unwrap_used)] // helpers of tests, where the lint's own exception does not reach

mod support;

use os::fuse::{FuseConnections as _, HostFuse};
use os::loopdev::{Attach, HostLoops, LoopDevice, LoopDevices as _};
use os::mount::{FileSystem, HostMounts, Mounts as _};
use os::namespace::Kind;
use os::process::{HostProcesses, Processes as _, Spec};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;
use support::{wait_for, with_namespaces};

const IMAGE: u64 = 64 << 20;

/// Detaches whatever the test did.
struct Attached(LoopDevice);

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = HostLoops.detach(self.0.number);
    }
}

fn image(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("image");
    File::create(&path).unwrap().set_len(IMAGE).unwrap();
    path
}

fn block_size(device: &LoopDevice) -> String {
    let path = format!("/sys/block/loop{}/queue/logical_block_size", device.number);
    fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn a_loop_device_has_the_block_size_asked_for_is_found_by_its_file_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path());
    for (size, text) in [(4096, "4096"), (512, "512")] {
        let how = Attach { block_size: size, ..Attach::default() };
        let device = Attached(HostLoops.attach(&path, how).unwrap());
        assert_eq!(block_size(&device.0), text);
        assert_eq!(HostLoops.find(&path).unwrap(), std::slice::from_ref(&device.0));
        let direct = format!("/sys/block/loop{}/loop/dio", device.0.number);
        assert_eq!(fs::read_to_string(direct).unwrap().trim(), "1");
        assert!(HostLoops.detach(device.0.number).unwrap());
        wait_for("the device to go", || HostLoops.find(&path).unwrap().is_empty());
        assert!(!HostLoops.detach(device.0.number).unwrap());
    }
}

#[test]
fn a_new_file_system_is_mounted_held_and_unmounted() {
    with_namespaces(&[Kind::Mount], || {
        let folder = tempfile::tempdir().unwrap();
        let device = Attached(HostLoops.attach(&image(folder.path()), Attach::default()).unwrap());
        let point = folder.path().join("mnt");
        let limit = Duration::from_secs(60);
        assert!(
            HostMounts.mount(&device.0.path(), &point, FileSystem::Ext4).is_err(),
            "nothing is on it yet"
        );
        HostMounts.make(&device.0.path(), FileSystem::Ext4, limit).unwrap();
        HostMounts.mount(&device.0.path(), &point, FileSystem::Ext4).unwrap();
        let mounted = HostMounts.mounted_at(&point).unwrap().unwrap();
        assert_eq!(
            (mounted.source, mounted.device),
            (device.0.path().display().to_string(), (7, device.0.number))
        );

        let held = File::create(point.join("file")).unwrap();
        let me = std::process::id();
        assert!(HostMounts.holders(&point).unwrap().iter().any(|holder| holder.pid == me));
        assert!(HostMounts.unmount(&point).is_err(), "a busy file system is not unmounted");
        drop(held);
        // A child of a test beside this one holds a copy of every descriptor until it has run exec.
        wait_for("the holder to go", || HostMounts.holders(&point).unwrap().is_empty());
        assert!(HostMounts.unmount(&point).unwrap());
        assert!(!HostMounts.unmount(&point).unwrap());
        assert_eq!(HostMounts.mounted_at(&point).unwrap(), None);

        HostMounts.mount(&device.0.path(), &point, FileSystem::Ext4).unwrap();
        let held = File::open(point.join("file")).unwrap();
        assert!(HostMounts.unmount_lazily(&point).unwrap());
        assert_eq!(HostMounts.mounted_at(&point).unwrap(), None);
        drop(held);
    });
}

#[test]
fn mkfs_that_cannot_work_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    let error = HostMounts.make(&none, FileSystem::Ext4, Duration::from_secs(60)).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

#[test]
fn a_silent_fuse_server_is_numbered_and_cut_off_without_asking_it() {
    with_namespaces(&[Kind::Mount], || {
        let folder = tempfile::tempdir().unwrap();
        let point = folder.path().canonicalize().unwrap();
        let mut server = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        mount("test", &point, "fuse.futago-test", MountFlags::empty(), options.as_c_str()).unwrap();
        let number = HostFuse.number(&point).unwrap().unwrap();
        assert!(HostFuse.list().unwrap().contains(&number));
        // This server never answers: whoever asks hangs until the connection is cut.
        let asked = point.clone();
        let asking = std::thread::spawn(move || fs::metadata(asked.join("x")).is_err());
        assert!(server.read(&mut [0; 8192 * 16]).unwrap() > 0);
        assert!(HostFuse.abort(number).unwrap());
        assert!(asking.join().unwrap());
        let ended = server.read(&mut [0; 8192 * 16]).unwrap_err();
        assert_eq!(ended.raw_os_error(), Some(19), "ENODEV");
        unmount(&point, UnmountFlags::DETACH).unwrap();
        drop(server);
        wait_for("the connection to go", || !HostFuse.list().unwrap().contains(&number));
        assert!(!HostFuse.abort(number).unwrap());
        assert_eq!(HostFuse.number(&point).unwrap(), None);
    });
}

#[test]
fn another_process_is_named_as_holder() {
    with_namespaces(&[Kind::Mount], || {
        let folder = tempfile::tempdir().unwrap();
        let point = folder.path().canonicalize().unwrap();
        mount("test", &point, "tmpfs", MountFlags::empty(), None).unwrap();
        let processes = HostProcesses::default();
        let spec = Spec { folder: Some(point.clone()), ..Spec::script("exec sleep 600") };
        let id = processes.start(&spec).unwrap();
        let names = || HostMounts.holders(&point).unwrap();
        wait_for("the holder to be named", || names().iter().any(|h| h.pid == id.pid && h.name == "sleep"));
        processes.stop(id, Duration::ZERO);
        wait_for("the holder to go", || names().is_empty());
        unmount(&point, UnmountFlags::empty()).unwrap();
    });
}
