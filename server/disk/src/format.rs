//! Writes a fresh control area onto a backing, once, when a mirror set is created.

use crate::backing::exclusive;
use crate::options::FormatOptions;
use anyhow::{Context as _, bail};
use mirror::layout::{ControlArea, Format, LayoutFault, control_bytes};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};

/// Formats a backing. One that already is this very set's is left as it is. The data is not touched.
///
/// # Errors
/// It carries another mirror set, is too small, in use, or cannot be written.
pub fn format(options: &FormatOptions) -> anyhow::Result<()> {
    let FormatOptions { cluster, set, side, size, .. } = *options;
    let name = options.backing.display();
    let fresh = mirror::layout::format(Format { cluster, set, side, size })?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(exclusive(&options.backing))
        .open(&options.backing)
        .with_context(|| format!("open the backing {name}"))?;
    flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("{name} is in use by a disk process"))?;
    make_room(&file, control_bytes(size) + size).with_context(|| format!("make {name} long enough"))?;
    let mut found = vec![0; fresh.len()];
    file.read_exact_at(&mut found, 0).with_context(|| format!("read {name}"))?;
    match ControlArea::read(&found) {
        Ok(area) => {
            let old = area.superblock;
            if (old.cluster, old.set, old.side, old.size) == (cluster, set, side, size) {
                return Ok(());
            }
            if !options.replace {
                bail!(
                    "{name} already carries {} of {} with {} bytes: name another backing, or order it to be replaced",
                    old.set,
                    old.side,
                    old.size
                );
            }
        }
        Err(LayoutFault::Short { .. }) if !options.replace => {
            bail!(
                "{name} already carries a larger mirror set: name another backing, or order it to be replaced"
            );
        }
        Err(LayoutFault::Foreign) if !options.replace && found.iter().any(|byte| *byte != 0) => {
            bail!("{name} carries data of something else: name another backing, or order it to be replaced");
        }
        Err(LayoutFault::Short { .. } | LayoutFault::Foreign | LayoutFault::Size) => {}
    }
    file.write_all_at(&fresh, 0).with_context(|| format!("write the control area of {name}"))?;
    file.sync_all().with_context(|| format!("flush {name}"))?;
    Ok(())
}

/// Makes an image file long enough; a device must be so already.
fn make_room(file: &File, needed: u64) -> anyhow::Result<()> {
    let length = (&*file).seek(SeekFrom::End(0))?;
    if length >= needed {
        return Ok(());
    }
    if file.metadata()?.file_type().is_block_device() {
        bail!("it has {length} bytes, {needed} are needed: choose a smaller size");
    }
    match fallocate(file.as_fd(), FallocateFlags::empty(), 0, needed) {
        Ok(()) => Ok(()),
        // A file system that cannot reserve: the file is sparse, and its disk must not fill up.
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(file.set_len(needed)?),
        Err(error) => Err(std::io::Error::from(error).into()),
    }
}

/// Reads the control area of a backing opened with direct I/O or without.
pub(crate) fn read_control(mut file: &File, size: u64) -> anyhow::Result<Vec<u8>> {
    let length = usize::try_from(control_bytes(size)).context("the size is too large for this machine")?;
    let mut buffer = crate::ring::memory::Buffer::new(length).context("no memory for the control area")?;
    file.seek(SeekFrom::Start(0))?;
    let bytes = buffer.bytes_mut().get_mut(..length).unwrap_or_default();
    file.read_exact(bytes).context("read the control area: is the backing large enough?")?;
    Ok(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{NodeId, SetId};

    fn options(folder: &tempfile::TempDir) -> FormatOptions {
        FormatOptions {
            backing: folder.path().join("image"),
            cluster: [7; 16],
            set: SetId(1),
            side: NodeId(1),
            size: 4 << 20,
            replace: false,
        }
    }

    #[test]
    fn formats_once_leaves_its_own_alone_and_refuses_another_sets() {
        let folder = tempfile::tempdir().unwrap();
        let mine = options(&folder);
        format(&mine).unwrap();
        let image = std::fs::read(&mine.backing).unwrap();
        assert_eq!(image.len() as u64, control_bytes(mine.size) + mine.size);
        let read = ControlArea::read(&image).unwrap();
        assert_eq!((read.superblock.set, read.superblock.side), (SetId(1), NodeId(1)));
        format(&mine).unwrap();
        assert_eq!(std::fs::read(&mine.backing).unwrap(), image);
        let other = FormatOptions { set: SetId(2), ..mine };
        let refused = format(&other).unwrap_err().to_string();
        assert!(refused.contains("already carries set#1"), "{refused}");
        format(&FormatOptions { replace: true, ..other }).unwrap();
    }

    #[test]
    fn a_disk_with_anything_on_it_is_not_taken_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let mine = options(&folder);
        let mut strange = vec![0; 1 << 20];
        strange[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
        std::fs::write(&mine.backing, &strange).unwrap();
        let refused = format(&mine).unwrap_err().to_string();
        assert!(refused.contains("something else"), "{refused}");
        assert!(std::fs::read(&mine.backing).unwrap().starts_with(&strange));
        format(&FormatOptions { replace: true, ..mine }).unwrap();
    }
}
