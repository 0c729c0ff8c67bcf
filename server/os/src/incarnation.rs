//! The host's incarnation: random, kept on a tmpfs, so that a new one means the host was down (DESIGN section 6).

use crate::{Doing, Failure};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use wire::Incarnation;

const FILE: &str = "incarnation";

/// The incarnation of this host, created at the first call after the host's start. `folder` must lie on a tmpfs: it is
/// what vanishes with the power. The boot id does not serve: containers and the demo's hosts share it.
///
/// # Errors
/// The folder cannot be made or read, or the kernel has no randomness.
pub fn host_incarnation(folder: &Path) -> Result<Incarnation, Failure> {
    let path = folder.join(FILE);
    let doing = || format!("host incarnation in {}", path.display());
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).doing(doing)?;
    match fs::read(&path) {
        Ok(bytes) => match <[u8; 16]>::try_from(bytes.as_slice()) {
            Ok(bytes) => return Ok(Incarnation(bytes)),
            Err(_) => {
                tracing::warn!(path = %path.display(), "the file of the host incarnation is damaged: a new one is made");
                fs::remove_file(&path).doing(doing)?;
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).doing(doing),
    }
    let fresh = random()?;
    // Written beside and linked into place: of two processes that start at once, both end with the same one.
    let beside = folder.join(format!("{FILE}.{}", std::process::id()));
    fs::write(&beside, fresh.0).doing(doing)?;
    let linked = fs::hard_link(&beside, &path);
    fs::remove_file(&beside).doing(doing)?;
    match linked {
        Ok(()) => Ok(fresh),
        Err(_) => fs::read(&path)
            .and_then(|bytes| {
                <[u8; 16]>::try_from(bytes.as_slice()).map_err(|_| io::ErrorKind::InvalidData.into())
            })
            .map(Incarnation)
            .doing(doing),
    }
}

/// A random incarnation, for a node process or a witness's memory.
///
/// # Errors
/// The kernel has no randomness.
pub fn random() -> Result<Incarnation, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| io::Error::other(error.to_string()))
        .doing(|| "random bytes for an incarnation".into())?;
    Ok(Incarnation(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_while_the_folder_stays_and_is_new_after_it_vanished() {
        let tmp = tempfile::tempdir().unwrap();
        let folder = tmp.path().join("run");
        let first = host_incarnation(&folder).unwrap();
        assert_eq!(host_incarnation(&folder).unwrap(), first);
        fs::remove_dir_all(&folder).unwrap();
        assert_ne!(host_incarnation(&folder).unwrap(), first);
    }

    #[test]
    fn a_damaged_file_is_a_new_incarnation() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join(FILE), b"short").unwrap();
        let fresh = host_incarnation(tmp.path()).unwrap();
        assert_eq!(host_incarnation(tmp.path()).unwrap(), fresh);
    }
}
