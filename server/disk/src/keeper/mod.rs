//! What outlives a killed disk process (C12): one small process for each server that holds its descriptors, starts its
//! successor and has the guard's power where nobody else is left.
//!
//! ```text
//! node ──Start──> keeper ──starts──> disk process
//!                   ^  │ pidfd: it died                       ┌ the memory file: lease, what is in flight where (`record`)
//!                   │  └──starts──> successor <──Inheritance──┤ /dev/fuse, and which loop device is over it
//!                   └── State, with the same descriptors ─────┘ what is guarded
//! ```
//! Each of keeper and disk process holds all there is, so either is made again from the other: a killed keeper is started by
//! node, or by a disk process, and hears from every disk process anew. A lock in the state folder lets only one live.

pub(crate) mod client;
pub(crate) mod record;
mod serve;
mod wire;

pub use client::{ensure, start};
pub use serve::keep;

use std::path::{Path, PathBuf};

/// The keeper's socket in a server's state folder.
#[must_use]
pub fn socket(state: &Path) -> PathBuf {
    state.join("keeper.sock")
}
