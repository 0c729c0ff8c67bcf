//! What signals do to the disk process: a terminal's are ignored, SIGTERM comes as a readable descriptor.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// Ignores SIGINT, SIGHUP and SIGPIPE (a terminal's Ctrl-C is meant for the launcher) and turns SIGTERM into a descriptor that
/// becomes readable. To be called before any thread is started, so that all inherit the mask.
///
/// # Errors
/// The kernel refused.
pub(crate) fn prepare() -> io::Result<OwnedFd> {
    for ignored in [libc::SIGINT, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: SIG_IGN is no handler, so nothing of ours runs in a signal's context.
        unsafe { libc::signal(ignored, libc::SIG_IGN) };
    }
    // SAFETY: a zeroed sigset_t is valid storage for sigemptyset; all calls get pointers to this local.
    let descriptor = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
