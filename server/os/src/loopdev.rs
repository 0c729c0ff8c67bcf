//! Loop devices with direct I/O: the block device made of a FUSE file (DESIGN section 4). They are global to the kernel.
#![allow(unsafe_code)] // the loop driver is controlled by ioctls that take a C struct

use crate::{Doing, Failure};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const LOOP_CONTROL: &str = "/dev/loop-control";
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// Another process may take the free device first; so often is a free one asked for again.
const ATTACH_TRIES: u32 = 32;

/// struct loop_info64 of <linux/loop.h>.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// struct loop_config of <linux/loop.h>.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// A loop device in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopDevice {
    /// The N of /dev/loopN.
    pub number: u32,
    /// The file behind it, as the kernel shows it (relative to its mount once that is detached).
    pub backing: PathBuf,
}

impl LoopDevice {
    /// Its block device.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        device_path(self.number)
    }
}

/// How a file is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Logical block size: 4096, or 512 for old file systems.
    pub block_size: u32,
    /// Refuse writes.
    pub read_only: bool,
    /// Go past the page cache: always for mirrors; off for backing files that cannot.
    pub direct_io: bool,
}

impl Default for Attach {
    fn default() -> Self {
        Attach { block_size: 4096, read_only: false, direct_io: true }
    }
}

/// Attaches files to block devices. None of these asks the file itself but `attach`.
pub trait LoopDevices: Send + Sync {
    /// Attaches a file to a free device. Hangs as long as whoever serves the file does.
    ///
    /// # Errors
    /// The file cannot be opened, or no device is free.
    fn attach(&self, file: &Path, how: Attach) -> Result<LoopDevice, Failure>;

    /// Lets go of a device; one still in use goes away with its last user. `false` if it was not attached.
    ///
    /// # Errors
    /// The kernel refused.
    fn detach(&self, number: u32) -> Result<bool, Failure>;

    /// All devices in use, on the whole machine.
    ///
    /// # Errors
    /// /sys cannot be read.
    fn list(&self) -> Result<Vec<LoopDevice>, Failure>;

    /// The devices whose file is this one.
    ///
    /// # Errors
    /// /sys cannot be read.
    fn find(&self, file: &Path) -> Result<Vec<LoopDevice>, Failure> {
        Ok(self.list()?.into_iter().filter(|device| device.backing == file).collect())
    }
}

fn device_path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

/// The kernel's loop devices.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostLoops;

fn free_number() -> io::Result<u32> {
    let control = OpenOptions::new().read(true).write(true).open(LOOP_CONTROL)?;
    // SAFETY: the descriptor is open; this request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

fn configure(device: &File, backing: &File, how: Attach) -> io::Result<()> {
    let read_only = if how.read_only { LO_FLAGS_READ_ONLY } else { 0 };
    let direct = if how.direct_io { LO_FLAGS_DIRECT_IO } else { 0 };
    let info = LoopInfo64 {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        sizelimit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: read_only | direct,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let fd = u32::try_from(backing.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let config = LoopConfig { fd, block_size: how.block_size, info, reserved: [0; 8] };
    // SAFETY: the descriptor is open and `config` is a whole struct loop_config that outlives the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl LoopDevices for HostLoops {
    fn attach(&self, file: &Path, how: Attach) -> Result<LoopDevice, Failure> {
        let doing = || format!("attach {} to a loop device", file.display());
        let backing = OpenOptions::new().read(true).write(!how.read_only).open(file).doing(doing)?;
        for _ in 0..ATTACH_TRIES {
            let number = free_number().doing(doing)?;
            let device = OpenOptions::new().read(true).write(!how.read_only).open(device_path(number));
            let device = match device {
                Ok(device) => device,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // its node is still being made
                Err(error) => return Err(error).doing(doing),
            };
            match configure(&device, &backing, how) {
                Ok(()) => return Ok(LoopDevice { number, backing: file.to_owned() }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error).doing(doing),
            }
        }
        Err(io::Error::from(io::ErrorKind::ResourceBusy)).doing(doing)
    }

    fn detach(&self, number: u32) -> Result<bool, Failure> {
        let doing = || format!("detach loop device {number}");
        let device = File::open(device_path(number)).doing(doing)?;
        // SAFETY: the descriptor is open; this request takes no argument.
        match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD, 0) } {
            0 => Ok(true),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENXIO) => Ok(false),
                error => Err(error).doing(doing),
            },
        }
    }

    fn list(&self) -> Result<Vec<LoopDevice>, Failure> {
        // /sys only: LOOP_GET_STATUS64 asks the file's server and would hang with it.
        let entries = fs::read_dir("/sys/block").doing(|| "list /sys/block".into())?;
        let device = |entry: fs::DirEntry| {
            let number = entry.file_name().to_str()?.strip_prefix("loop")?.parse().ok()?;
            let backing = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            Some(LoopDevice { number, backing: PathBuf::from(backing.trim_end_matches('\n')) })
        };
        Ok(entries.flatten().filter_map(device).collect())
    }
}

/// Loop devices in memory.
#[derive(Debug, Default)]
pub struct FakeLoops(Mutex<BTreeMap<u32, PathBuf>>);

impl LoopDevices for FakeLoops {
    fn attach(&self, file: &Path, _how: Attach) -> Result<LoopDevice, Failure> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (0..).find(|number| !table.contains_key(number)).unwrap_or(0);
        table.insert(number, file.to_owned());
        Ok(LoopDevice { number, backing: file.to_owned() })
    }

    fn detach(&self, number: u32) -> Result<bool, Failure> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number).is_some())
    }

    fn list(&self) -> Result<Vec<LoopDevice>, Failure> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(table
            .iter()
            .map(|(number, backing)| LoopDevice { number: *number, backing: backing.clone() })
            .collect())
    }
}
