//! An older version of a copy, kept since a rebuild overwrote it, as a read-only block device of its own (DESIGN 5, E7).
//!
//! A process of its own beside the disk process: it needs nothing of it and does not slow its loop. It reads the backing
//! directly: a block as it is, unless the store has it. That is right without a word between the two, because a header is in
//! the store before its blocks are overwritten: after a block was read, the headers written since are looked at, and a block
//! that was overwritten meanwhile is found in one of them. That the version is still kept is looked at after that: it ends
//! in the superblock before anything is overwritten unkept.

mod version;

use crate::device::{Place, attach, mount_fuse, sweep};
use crate::front::{FrontEnd as _, Numbers, Taken, Wanted};
use crate::fuse::Front;
use crate::fuse::wire::NAME;
use crate::pools::Pools;
use crate::ring::signal;
use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, poll};
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use version::Version;

/// Slots: a reader of an older version is a person with a tool.
const SLOTS: (usize, usize) = (16, 4);

/// Offers the older version that `backing` keeps as a read-only block device, told to `ready`, over a front end of its own
/// at `mount` (an empty folder, made if it is not there). Until SIGTERM.
///
/// # Errors
/// No version is kept there, or the kernel refuses the mount.
pub fn show_old(backing: &Path, mount: &Path, ready: impl FnOnce(&Path)) -> anyhow::Result<()> {
    let ended = signal::prepare().context("watch for SIGTERM")?;
    let version = Version::open(backing)?;
    let place =
        Place { mount: mount.to_path_buf(), record: mount.with_extension("front.json"), block_size: 4096 };
    sweep(&place).context("sweep what an earlier look has left")?;
    std::fs::create_dir_all(mount).with_context(|| format!("make the mount point {}", mount.display()))?;
    let descriptor = mount_fuse(&place)?;
    let front = Front::new(descriptor, 1, version.size());
    let pools = Pools::sized(SLOTS.0, SLOTS.1).context("no memory for requests")?;
    // Attaching waits for the answers of the thread.
    let served =
        std::thread::Builder::new().name("old".into()).spawn(move || serve(front, version, &pools))?;
    let device = attach(mount.join(OsStr::from_bytes(NAME)), place.block_size, true);
    let shown = device.map(|device| {
        ready(&device.path());
        wait(&ended);
    });
    sweep(&place).context("withdraw the older version")?;
    let _ = served.join();
    shown
}

fn wait(ended: &OwnedFd) {
    while poll(&mut [PollFd::new(ended, PollFlags::IN)], None) == Err(rustix::io::Errno::INTR) {}
}

/// Answers the kernel until the connection ends.
fn serve(mut front: Front, mut version: Version, pools: &Pools) {
    let mut numbers = Numbers(0);
    loop {
        match front.take(&mut numbers, pools) {
            Taken::Wanted(wanted) => {
                let errno = read(&mut front, &mut version, wanted);
                let _ = front.answer(wanted.request(), errno, &mut numbers);
            }
            Taken::Served => {}
            // Everything is answered at once: a slot is always free.
            Taken::Empty | Taken::Stalled => {
                let descriptor = front.descriptor();
                let _ = poll(&mut [PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)], None);
            }
            Taken::Ended => return,
        }
    }
}

fn read(front: &mut Front, version: &mut Version, wanted: Wanted) -> i32 {
    let Wanted::Read(request, range) = wanted else {
        // A flush has nothing to do; nothing is written here.
        return if matches!(wanted, Wanted::Flush(_)) { 0 } else { libc::EROFS };
    };
    let Some(mut buffer) = front.room(request) else { return libc::EIO };
    let into = buffer.bytes_mut().get_mut(..range.length as usize).unwrap_or_default();
    match version.read(range.offset, into) {
        Ok(()) => {
            front.filled(request, Arc::new(buffer));
            0
        }
        Err(error) => {
            tracing::warn!("the older version cannot be read: {error:#}");
            libc::EIO
        }
    }
}
