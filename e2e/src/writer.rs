//! The writer on the client host.

/// Entry.
///
/// # Errors
/// Never.
pub fn main(_arguments: &[&str]) -> anyhow::Result<bool> {
    Ok(false)
}
