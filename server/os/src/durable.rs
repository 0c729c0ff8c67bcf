//! Small files that are either the old or the new content after a power loss, never a mixture.

use crate::{Doing, Failure};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes `content` to `path` durably: beside it first, flushed, renamed over it, and the folder flushed too.
/// Readable by the owner only: such files hold keys and state.
///
/// # Errors
/// Any step the file system refused; the old content is then still in place.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let doing = || format!("store {}", path.display());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let beside = folder.join(name);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).doing(doing)?;
    file.write_all(content).doing(doing)?;
    file.sync_all().doing(doing)?;
    fs::rename(&beside, path).doing(doing)?;
    sync_folder(folder)
}

/// Flushes a folder, so that names created, renamed or removed in it survive a power loss.
///
/// # Errors
/// The file system refused.
pub fn sync_folder(folder: &Path) -> Result<(), Failure> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .doing(|| format!("flush folder {}", folder.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn replaces_the_content_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        super::write(&path, b"one").unwrap();
        super::write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(super::write(&folder.path().join("no/such"), b"x").is_err());
    }
}
