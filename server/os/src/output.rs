//! What an application prints, kept in a file of bounded size, so that the application outlives whoever reads it.

use crate::{Doing, Failure};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Kept of an application's output: enough for a stack trace and what led to it.
pub const TAIL: u64 = 64 * 1024;
/// At this size the file is cut back to its tail; twice the tail, so that cutting is rare.
const CUT_AT: u64 = 2 * TAIL;

/// Opens the file for an application's standard output and error: always appended, readable by the owner only.
///
/// # Errors
/// The folder is missing or the file system refused.
pub fn open(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .doing(|| format!("open the output file {}", path.display()))
}

/// The last [`TAIL`] bytes.
///
/// # Errors
/// The file is missing or cannot be read.
pub fn tail(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    read().doing(|| format!("read the output file {}", path.display()))
}

/// Cuts the file back to its tail when it has grown beyond twice that. What is printed between reading and cutting is
/// lost: the price for a file that its writer needs nobody to read.
///
/// # Errors
/// The file is missing or cannot be written.
pub fn trim(path: &Path) -> Result<(), Failure> {
    let doing = || format!("trim the output file {}", path.display());
    let mut file = OpenOptions::new().append(true).open(path).doing(doing)?;
    if file.metadata().doing(doing)?.len() <= CUT_AT {
        return Ok(());
    }
    let kept = tail(path)?;
    file.set_len(0).doing(doing)?;
    file.write_all(&kept).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_tail_and_the_writer_goes_on_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut writer = open(&path).unwrap();
        for _ in 0..3 * TAIL / 8 {
            writer.write_all(b"abcdefg\n").unwrap();
        }
        trim(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), TAIL);
        writer.write_all(b"last").unwrap();
        let kept = tail(&path).unwrap();
        assert!(kept.len() as u64 == TAIL && kept.ends_with(b"abcdefg\nlast"));
        assert!(tail(&folder.path().join("none")).is_err());
    }
}
