//! What the servers ask of the Linux kernel: one narrow trait a file, the real thing and a fake beside it.
//!
//! Everything here blocks and needs no runtime: the disk process's guard calls it from plain threads, node through
//! `spawn_blocking`. Calls that can hang with a held disk (mount, unmount, mkfs) go through [`bounded::bounded`].
//! `unsafe` is allowed in single modules only, each with its reason.

pub mod address;
pub mod blockdev;
pub mod bounded;
pub mod cgroup;
pub mod clock;
pub mod durable;
pub mod fuse;
pub mod incarnation;
pub mod link;
pub mod linkstate;
pub mod loopdev;
pub mod memory;
pub mod memory_limit;
pub mod mount;
pub mod namespace;
mod netlink;
pub mod netns;
pub mod output;
mod packet;
pub mod proc;
pub mod process;
pub mod tcp;

use std::io;

/// A kernel call that failed: what was tried, on what, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Failure {
    /// What was tried, with the name of the thing it was tried on.
    pub what: String,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Names what was tried, so that an error tells a person where to look.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure { what: what(), source: error.into() })
    }
}
