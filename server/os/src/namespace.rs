//! Namespaces of a test host: made for one's children, entered by a thread, with a clock of its own.
#![allow(unsafe_code)] // unshare(2) and work between fork and exec; each says why it holds

use crate::{Doing, Failure};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, Signal, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// A kind of namespace, named as in /proc/PID/ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Mounts.
    Mount,
    /// Network.
    Network,
    /// Host name.
    Uts,
    /// Process ids; entering it counts for children only.
    Pid,
    /// Clock offsets; entering it counts for children only.
    Time,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Kind::Mount => "mnt",
            Kind::Network => "net",
            Kind::Uts => "uts",
            Kind::Pid => "pid",
            Kind::Time => "time",
        }
    }

    fn flag(self) -> UnshareFlags {
        match self {
            Kind::Mount => UnshareFlags::NEWNS,
            Kind::Network => UnshareFlags::NEWNET,
            Kind::Uts => UnshareFlags::NEWUTS,
            Kind::Pid => UnshareFlags::NEWPID,
            Kind::Time => UnshareFlags::NEWTIME,
        }
    }
}

/// Opens a namespace of a process.
///
/// # Errors
/// The process is gone.
pub fn open(pid: u32, kind: Kind) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/{pid}/ns/{}", kind.file());
    File::open(&path).map(OwnedFd::from).doing(|| format!("open {path}"))
}

/// Moves the calling thread (for pid and time: its children) into new namespaces. `Mount` and `Uts` need a thread that
/// shares no file-system state with others in this process: a single-threaded program or one just begun.
///
/// # Errors
/// Not root, or the kernel refused.
pub fn unshare(kinds: &[Kind]) -> Result<(), Failure> {
    let flags = kinds.iter().fold(UnshareFlags::empty(), |flags, kind| flags | kind.flag());
    // SAFETY: no flag here unshares memory or descriptors, so nothing this process holds changes its meaning for others.
    unsafe { unshare_unsafe(flags) }.doing(|| format!("make namespaces {kinds:?}"))
}

/// Moves the calling thread (for pid and time: its children) into a namespace. `Mount` and `Time` need a single-threaded program.
///
/// # Errors
/// Not root, or the kernel refused.
pub fn enter(namespace: &OwnedFd) -> Result<(), Failure> {
    move_into_link_name_space(namespace.as_fd(), None).doing(|| "enter a namespace".into())
}

/// Sets how far the clocks of the time namespace made for one's children run ahead, in whole seconds (CLOCK_MONOTONIC and
/// CLOCK_BOOTTIME alike); only before the first child.
///
/// # Errors
/// A child exists already, or the clock would be negative.
pub fn set_clock_offset(seconds: i64) -> Result<(), Failure> {
    let text = format!("monotonic {seconds} 0\nboottime {seconds} 0\n");
    fs::write("/proc/self/timens_offsets", text).doing(|| format!("set the clock offset to {seconds} s"))
}

/// Keeps mounts made from here on out of the namespace this one was copied from; those made there still arrive here not at all.
///
/// # Errors
/// The kernel refused.
pub fn make_mounts_private() -> Result<(), Failure> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).doing(|| "make the mounts private".into())
}

/// Sets the host name of the calling thread's uts namespace.
///
/// # Errors
/// Not root.
pub fn set_host_name(name: &str) -> Result<(), Failure> {
    rustix::system::sethostname(name.as_bytes()).doing(|| format!("set the host name to {name}"))
}

/// Lets the kernel kill this process when the **thread** that started it ends. Fails if that has happened already, so a
/// parent killed in between does not leave an orphan.
///
/// # Errors
/// The parent is gone, or the kernel refused.
pub fn die_with_parent(parent: u32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).doing(|| "bind this process to its parent".into())?;
    let now = rustix::process::getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs());
    if now == Some(parent) || (parent == 0 && now.is_none()) {
        return Ok(());
    }
    Err(io::Error::from(io::ErrorKind::BrokenPipe)).doing(|| "the parent is gone".into())
}

/// Makes std fork rather than vfork for this command: a child that leaves for another time namespace may not share its
/// parent's memory, not even until its exec.
pub fn fork_for(command: &mut Command) {
    // SAFETY: the closure does nothing; its presence alone chooses fork.
    unsafe { command.pre_exec(|| Ok(())) };
}

/// Lets a command run in these namespaces (for pid and time: its children), and in the cgroup whose `cgroup.procs` this is.
pub fn join_for(command: &mut Command, namespaces: Vec<OwnedFd>, cgroup: File) {
    // SAFETY: between fork and exec only system calls are made, on descriptors the closure owns.
    unsafe {
        command.pre_exec(move || {
            (&cgroup).write_all(b"0")?;
            for namespace in &namespaces {
                move_into_link_name_space(namespace.as_fd(), None)?;
            }
            Ok(())
        })
    };
}
