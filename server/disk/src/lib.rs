//! The data path of one mirror set on one server, in a process of its own: block device, local disk, link to the twin.

pub mod control;
mod limits;
mod options;

pub use options::{DiskOptions, FormatOptions, Record};

/// Formats a backing. One that already is this very set's is left as it is. The data is not touched.
///
/// # Errors
/// It carries another mirror set, is too small, in use, or cannot be written.
pub fn format(_options: &FormatOptions) -> anyhow::Result<()> {
    anyhow::bail!("the data path is not part of this build")
}

/// Runs the data path of one mirror set until it is told to end, or has fenced itself.
///
/// # Errors
/// The backing, the sockets or the ring cannot be had; or the ring broke.
pub fn run(_options: DiskOptions) -> anyhow::Result<()> {
    anyhow::bail!("the data path is not part of this build")
}
