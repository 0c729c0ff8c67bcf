//! The two image files of a mirror, read past every cache and compared block by block.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The mirror's block.
pub const BLOCK: usize = 4096;
/// Read at once.
const CHUNK: usize = 256 * BLOCK;

/// How many blocks of data differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Blocks compared.
    pub blocks: u64,
    /// Blocks that differ.
    pub different: u64,
}

/// Compares two images from `skip` bytes on (the control area before it differs by its nature), for `length` bytes.
///
/// # Errors
/// When one cannot be read, or is shorter.
pub fn compare(one: &Path, other: &Path, skip: u64, length: u64) -> Result<Compared> {
    let (one, other) = (Image::open(one)?, Image::open(other)?);
    let (mut first, mut second) = (aligned(), aligned());
    let mut compared = Compared { blocks: 0, different: 0 };
    let mut done = 0;
    while done < length {
        let size = CHUNK.min(usize::try_from(length - done)?);
        let (a, b) = (one.read(&mut first, skip + done, size)?, other.read(&mut second, skip + done, size)?);
        for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
            compared.blocks += 1;
            compared.different += u64::from(a != b);
        }
        done += u64::try_from(size)?;
    }
    Ok(compared)
}

struct Image(File, String);

/// Room for a chunk at an address that direct I/O accepts.
fn aligned() -> Vec<u8> {
    vec![0; CHUNK + BLOCK]
}

impl Image {
    fn open(path: &Path) -> Result<Self> {
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits())?;
        let file = OpenOptions::new().read(true).custom_flags(direct).open(path);
        Ok(Self(file.with_context(|| format!("open {}", path.display()))?, path.display().to_string()))
    }

    fn read<'a>(&self, room: &'a mut [u8], at: u64, size: usize) -> Result<&'a [u8]> {
        let begin = room.as_ptr().align_offset(BLOCK);
        let part = room.get_mut(begin..begin + size).context("room for a chunk")?;
        let read = self.0.read_at(part, at).with_context(|| format!("read {}", self.1))?;
        ensure!(read == size, "{} ends at {}", self.1, at + u64::try_from(read)?);
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_block_is_found_and_the_control_area_left_out() {
        // Direct I/O needs a real file system: the target folder's.
        let folder = tempfile::tempdir_in(crate::paths::target().unwrap()).unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let mut bytes = vec![7; 2 * CHUNK];
        std::fs::write(&one, &bytes).unwrap();
        bytes[0] = 1;
        bytes[CHUNK + 5] = 1;
        std::fs::write(&other, &bytes).unwrap();
        let length = u64::try_from(2 * CHUNK - BLOCK).unwrap();
        let compared = compare(&one, &other, BLOCK as u64, length).unwrap();
        assert_eq!(compared, Compared { blocks: 511, different: 1 });
    }
}
