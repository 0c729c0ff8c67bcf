//! The block device in the kernel: a FUSE mount with one file, and a loop device over it. Everything here can block, and some
//! of it waits for our own loop: it runs on the worker thread only.

use crate::fuse::wire::NAME;
use crate::inbox::{Outbox, Outcome};
use crate::keeper::client::{FrontRecord, Leaving};
use crate::limits::{ATTACH, CLOSING, JOBS_MAX, STACK_BYTES, WRITE_MAX};
use crate::options::{DiskOptions, Record};
use anyhow::Context as _;
use mirror::action::OpId;
use mirror::input::LocalFault;
use os::bounded::{Outcome as Bounded, bounded};
use os::fuse::{FuseConnections as _, HostFuse};
use os::loopdev::{Attach, HostLoops, LoopDevice, LoopDevices as _};
use os::mount::{HostMounts, Mounts as _};
use rustix::mount::MountFlags;
use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Lazily unmounted at most so often: left-overs of several killed predecessors may lie over one another.
const STACKED_MAX: u32 = 16;

/// Whether a device that a predecessor made is still there, over the file that this mount point shows.
pub(crate) fn is_up(place: &Place, front: &FrontRecord) -> bool {
    let file = place.mount.join(OsStr::from_bytes(NAME));
    HostLoops.find(&file).is_ok_and(|found| found.iter().any(|device| device.number == front.number))
}

/// A device that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Path of the block device.
    pub path: PathBuf,
    /// N of /dev/loopN.
    pub number: u32,
}

/// Where a set's device is made.
#[derive(Clone)]
pub(crate) struct Place {
    /// Mount point of the FUSE file system.
    pub mount: PathBuf,
    /// Where the record for sweeping goes.
    pub record: PathBuf,
    /// Logical block size of the device.
    pub block_size: u32,
}

impl Place {
    /// Of a set that is not served by this process.
    pub(crate) fn of(options: &DiskOptions) -> Place {
        let record = Record::path(&options.state, options.set);
        Place { mount: options.mount.clone(), record, block_size: 0 }
    }
}

/// Withdraws what is left of a set's device here: whoever waits for it gets an error. For node, where a right has ended and no disk
/// process answers. May take long: the kernel may wait.
///
/// # Errors
/// The kernel refuses.
pub fn withdraw(options: &DiskOptions) -> io::Result<()> {
    sweep(&Place::of(options))
}

enum Job {
    Open(OpId),
    Close { op: OpId, abort: bool },
}

/// The worker thread's handle.
pub(crate) struct Worker {
    jobs: SyncSender<Job>,
}

impl Worker {
    /// Starts the thread. Without a device that is taken over (`opened`), what a killed predecessor left is swept first.
    ///
    /// # Errors
    /// No thread can be started, or the mount point cannot be made.
    pub(crate) fn start(
        place: Place,
        outbox: Outbox,
        opened: Option<Opened>,
        leaving: Leaving,
    ) -> anyhow::Result<Self> {
        if opened.is_none() {
            sweep(&place).context("sweep what a killed disk process left")?;
            // Not with a device taken over: a look at its mount point would wait for this process itself.
            std::fs::create_dir_all(&place.mount)
                .with_context(|| format!("make the mount point {}", place.mount.display()))?;
        }
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let thread = std::thread::Builder::new().name("device".into()).stack_size(STACK_BYTES);
        thread.spawn(move || serve(&place, &queue, &outbox, opened, &leaving))?;
        Ok(Worker { jobs })
    }

    /// Makes the device; answered by `FrontMounted`, then `FrontOpened`.
    pub(crate) fn open(&self, op: OpId) {
        let _ = self.jobs.try_send(Job::Open(op));
    }

    /// Withdraws the device; answered by `FrontClosed`.
    pub(crate) fn close(&self, op: OpId, abort: bool) {
        let _ = self.jobs.try_send(Job::Close { op, abort });
    }
}

fn serve(
    place: &Place,
    queue: &Receiver<Job>,
    outbox: &Outbox,
    mut opened: Option<Opened>,
    leaving: &Leaving,
) {
    for job in queue {
        match job {
            Job::Open(op) => {
                let result = match &opened {
                    Some(there) => Ok(there.clone()),
                    None => open(place, outbox, leaving)
                        .map_err(|error| fault(&error, "cannot offer the block device")),
                };
                opened = result.as_ref().ok().cloned();
                if result.is_err() {
                    let _ = sweep(place);
                }
                outbox.put(Outcome::FrontOpened { op, result });
            }
            Job::Close { op, abort } => {
                let result = close(place, opened.as_ref(), abort, leaving);
                let result = result.map_err(|error| fault(&error, "cannot withdraw the block device"));
                if result.is_ok() {
                    opened = None;
                }
                outbox.put(Outcome::FrontClosed { op, result });
            }
        }
    }
}

fn fault(error: &anyhow::Error, what: &str) -> LocalFault {
    let errno = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    let errno = errno.unwrap_or(libc::EIO);
    if errno == libc::EBUSY {
        tracing::debug!(%errno, "{what}: {error:#}");
    } else {
        tracing::warn!(%errno, "{what}: {error:#}");
    }
    LocalFault { errno }
}

pub(crate) fn mount_fuse(place: &Place) -> anyhow::Result<OwnedFd> {
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/fuse");
    let device = OwnedFd::from(device.context("open /dev/fuse: is FUSE in this kernel?")?);
    let settings =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,max_read={WRITE_MAX}", device.as_raw_fd());
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    let settings = CString::new(settings)?;
    rustix::mount::mount("futago", &place.mount, "fuse.futago", flags, settings.as_c_str())
        .map_err(io::Error::from)
        .with_context(|| format!("mount the front end at {}", place.mount.display()))?;
    Ok(device)
}

fn open(place: &Place, outbox: &Outbox, leaving: &Leaving) -> anyhow::Result<Opened> {
    let pid = std::process::id();
    let descriptor = mount_fuse(place)?;
    // From here on the loop must serve: opening the file waits for its answer to INIT.
    let left = descriptor.try_clone()?;
    outbox.put(Outcome::FrontMounted { descriptor });
    let connection = HostFuse.number(&place.mount)?;
    let mut record = Record { pid, mount: place.mount.clone(), connection, device: None };
    write_record(place, &record)?;
    let device = attach(place.mount.join(OsStr::from_bytes(NAME)), place.block_size, false)?;
    record.device = Some(device.number);
    write_record(place, &record)?;
    // The keeper has it before anybody uses it.
    leaving.front(Some((FrontRecord { path: device.path(), number: device.number }, left)));
    Ok(Opened { path: device.path(), number: device.number })
}

/// A loop device over a front end's file, which must be served meanwhile.
pub(crate) fn attach(file: PathBuf, block_size: u32, read_only: bool) -> anyhow::Result<LoopDevice> {
    let how = Attach { block_size, read_only, direct_io: true };
    match bounded(ATTACH, move || HostLoops.attach(&file, how)) {
        Bounded::Done(device) => Ok(device?),
        Bounded::Unknown => {
            Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)).context("attach the loop device")
        }
    }
}

fn write_record(place: &Place, record: &Record) -> anyhow::Result<()> {
    Ok(os::durable::write(&place.record, &serde_json::to_vec(record)?)?)
}

fn close(place: &Place, opened: Option<&Opened>, abort: bool, leaving: &Leaving) -> anyhow::Result<()> {
    if abort {
        leaving.front(None);
        sweep(place)?;
        return Ok(());
    }
    if let Some(opened) = opened {
        let held = claim(opened)?;
        // Nobody uses it any more: there is nothing for a successor to go on with.
        leaving.front(None);
        HostLoops.detach(opened.number)?;
        drop(held);
        wait_detached(place)?;
    }
    unmount(place)?;
    let _ = std::fs::remove_file(&place.record);
    Ok(())
}

/// Claims the device, so that nobody can mount it any more. Whoever mounts or claims it keeps that from working; whoever has
/// it open without claiming it (a tool, a probe) could go on writing to it. Both are given a moment: a file system that
/// was just unmounted lets go of it a little later.
fn claim(opened: &Opened) -> anyhow::Result<File> {
    let end = Instant::now() + CLOSING;
    loop {
        let claimed = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&opened.path);
        let holder = opener(&opened.path);
        match (claimed, holder) {
            (Ok(claimed), None) => return Ok(claimed),
            (Ok(_), Some(pid)) if Instant::now() >= end => {
                let name = os::proc::name(pid).unwrap_or_default();
                return Err(io::Error::from_raw_os_error(libc::EBUSY))
                    .with_context(|| format!("{} is open in process {pid} ({name})", opened.path.display()));
            }
            (Err(error), _) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("{} is in use", opened.path.display()));
            }
            (Ok(_) | Err(_), _) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// A process other than this one that has the device open.
fn opener(device: &Path) -> Option<u32> {
    let own = std::process::id();
    os::proc::pids().into_iter().filter(|pid| *pid != own).find(|pid| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
        files.is_ok_and(|files| {
            files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == device))
        })
    })
}

/// The kernel lets go of the file with the device's last user, a moment after the detach.
fn wait_detached(place: &Place) -> anyhow::Result<()> {
    let file = place.mount.join(OsStr::from_bytes(NAME));
    let end = Instant::now() + ATTACH;
    while !HostLoops.find(&file)?.is_empty() {
        if Instant::now() >= end {
            return Err(io::Error::from_raw_os_error(libc::EBUSY)).context("the loop device does not let go");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn unmount(place: &Place) -> anyhow::Result<()> {
    if HostMounts.unmount(&place.mount).is_err() {
        HostMounts.unmount_lazily(&place.mount)?;
    }
    Ok(())
}

/// Cuts whatever is left of the set's device: the connection ends with errors, the loop goes with its last user.
pub(crate) fn sweep(place: &Place) -> io::Result<()> {
    let file = place.mount.join(OsStr::from_bytes(NAME));
    let numbers = HostLoops.find(&file).map_err(io::Error::other)?;
    for _ in 0..STACKED_MAX {
        if let Ok(Some(number)) = HostFuse.number(&place.mount) {
            HostFuse.abort(number).map_err(io::Error::other)?;
        }
        if !HostMounts.unmount_lazily(&place.mount).map_err(io::Error::other)? {
            break;
        }
    }
    for device in numbers {
        HostLoops.detach(device.number).map_err(io::Error::other)?;
    }
    let _ = std::fs::remove_file(&place.record);
    Ok(())
}
