//! Writes a fresh control area onto a backing, once, when a mirror set is created.

use crate::backing::exclusive;
use crate::limits::LARGE_BYTES;
use crate::options::FormatOptions;
use crate::ring::memory::Buffer;
use anyhow::{Context as _, bail};
use mirror::layout::{
    AreaReader, ControlArea, Format, FreshArea, LayoutFault, SUPERBLOCKS_BYTES, Superblock, UNIT,
    control_bytes, store_bytes, superblock,
};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use wire::backing::CONTROL_BYTES_MIN;
use wire::{NodeId, SetId};

/// Formats a backing. One that already is this very set's is left as it is. The data is not touched.
///
/// # Errors
/// It carries another mirror set, is too small, in use, or cannot be written.
pub fn format(options: &FormatOptions) -> anyhow::Result<()> {
    let FormatOptions { cluster, set, side, size, .. } = *options;
    let name = options.backing.display();
    let file = taken(&options.backing, true)?;
    let data_end = control_bytes(size) + size;
    make_room(&file, data_end).with_context(|| format!("make {name} long enough"))?;
    let store = store_room(&file, data_end, options.store.unwrap_or_else(|| store_bytes(size)))
        .with_context(|| format!("make room for older versions on {name}"))?;
    let fresh = FreshArea::new(Format { cluster, set, side, size })?.with_store(store);
    match look(&file, fresh.length().min(fresh.head().max(LOOKED_AT)))
        .with_context(|| format!("read {name}"))?
    {
        Found::Ours(old) => {
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
        Found::Newer(fault) if !options.replace => bail!("{name}: {fault}"),
        Found::Data if !options.replace => {
            bail!("{name} carries data of something else: name another backing, or order it to be replaced");
        }
        Found::Newer(_) | Found::Data | Found::Nothing => {}
    }
    write_area(&file, &fresh).with_context(|| format!("write the control area of {name}"))
}

/// A backing that nobody else uses, made where it may be.
fn taken(backing: &Path, create: bool) -> anyhow::Result<File> {
    let name = backing.display();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .custom_flags(exclusive(backing))
        .open(backing)
        .with_context(|| format!("open the backing {name}"))?;
    flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("{name} is in use by a disk process"))?;
    Ok(file)
}

/// So much of the place of a control area is looked at for data of something else, or all that is to be written: the whole
/// area of 1 TiB would take long to read.
const LOOKED_AT: u64 = 8 << 20;

/// What lies where the control area is to be.
enum Found {
    Ours(Box<Superblock>),
    Newer(LayoutFault),
    Data,
    Nothing,
}

fn look(file: &File, length: u64) -> anyhow::Result<Found> {
    let mut head = [0; SUPERBLOCKS_BYTES];
    file.read_exact_at(&mut head, 0)?;
    let mut reader = AreaReader::new();
    match reader.feed(&head) {
        Ok(()) => {
            if let Some(superblock) = reader.superblock() {
                return Ok(Found::Ours(Box::new(superblock.clone())));
            }
        }
        Err(fault @ LayoutFault::Newer { .. }) => return Ok(Found::Newer(fault)),
        Err(LayoutFault::Foreign | LayoutFault::Short { .. } | LayoutFault::Size) => {}
    }
    let mut data = false;
    pieces(0, length, |offset, piece| {
        file.read_exact_at(piece, offset)?;
        data |= piece.iter().any(|byte| *byte != 0);
        Ok(())
    })?;
    Ok(if data { Found::Data } else { Found::Nothing })
}

/// Everything but the superblocks first, with zeros in their place: what is half written is no control area.
fn write_area(file: &File, fresh: &FreshArea) -> anyhow::Result<()> {
    file.write_all_at(&[0; SUPERBLOCKS_BYTES], 0)?;
    file.sync_data()?;
    pieces(SUPERBLOCKS_BYTES as u64, fresh.head(), |offset, piece| {
        fresh.fill(offset, piece);
        file.write_all_at(piece, offset)
    })?;
    file.sync_data()?;
    let mut head = [0; SUPERBLOCKS_BYTES];
    fresh.fill(0, &mut head);
    file.write_all_at(&head, 0)?;
    file.sync_all()?;
    Ok(())
}

/// Goes through a range in pieces of a buffer's length.
fn pieces(
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, &mut [u8]) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut buffer = Buffer::new(LARGE_BYTES).context("no memory for the control area")?;
    let mut at = from;
    while at < to {
        let length = (to - at).min(LARGE_BYTES as u64);
        each(at, buffer.bytes_mut().get_mut(..length as usize).unwrap_or_default())?;
        at += length;
    }
    Ok(())
}

/// Clears a control area: nobody takes the backing for a copy of a mirror set any more. The data is not touched.
///
/// # Errors
/// It is in use, or cannot be written.
pub fn clear(backing: &Path) -> anyhow::Result<()> {
    let name = backing.display();
    let file = taken(backing, false)?;
    let area = usize::try_from(CONTROL_BYTES_MIN)?;
    let length = (&file).seek(SeekFrom::End(0))?;
    let area = area.min(usize::try_from(length).unwrap_or(area));
    file.write_all_at(&vec![0; area], 0).with_context(|| format!("clear the control area of {name}"))?;
    file.sync_all().with_context(|| format!("flush {name}"))?;
    Ok(())
}

/// Marks a control area as released: it is no copy of a mirror set any more, and is not taken for a blank disk either. The data is
/// not touched. One that is released already, or not this very copy's, is left as it is.
///
/// # Errors
/// It is in use, or cannot be read or written.
pub fn release(backing: &Path, cluster: [u8; 16], set: SetId, side: NodeId) -> anyhow::Result<()> {
    let name = backing.display();
    let file = taken(backing, false)?;
    let mut head = [0; SUPERBLOCKS_BYTES];
    file.read_exact_at(&mut head, 0).with_context(|| format!("read {name}"))?;
    let mine = superblock(&head).is_ok_and(|it| (it.cluster, it.set, it.side) == (cluster, set, side));
    if let Some(marked) = mirror::layout::release(&head).filter(|_| mine) {
        file.write_all_at(&marked, 0).with_context(|| format!("mark the control area of {name}"))?;
        file.sync_all().with_context(|| format!("flush {name}"))?;
    }
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

/// Room behind the data for what a rebuild overwrites: an image file is made longer, without space of its own until it is
/// used (a disk that is full then costs the undo, not the rebuild); a device has what is left of it. Gives its bytes.
fn store_room(file: &File, data_end: u64, wanted: u64) -> anyhow::Result<u64> {
    let wanted = wanted / UNIT as u64 * UNIT as u64;
    let length = (&*file).seek(SeekFrom::End(0))?;
    if length >= data_end + wanted || file.metadata()?.file_type().is_block_device() {
        return Ok(wanted.min((length - data_end) / UNIT as u64 * UNIT as u64));
    }
    file.set_len(data_end + wanted)?;
    Ok(wanted)
}

/// Reads the control area of a backing opened with direct I/O or without, if it is the one `wanted`.
pub(crate) fn read_control(
    file: &File,
    wanted: impl FnOnce(&Superblock) -> anyhow::Result<()>,
) -> anyhow::Result<ControlArea> {
    let mut reader = AreaReader::new();
    let mut feed = |offset: u64, piece: &mut [u8]| {
        file.read_exact_at(piece, offset)?;
        reader.feed(piece).map_err(std::io::Error::other)
    };
    pieces(0, SUPERBLOCKS_BYTES as u64, &mut feed)
        .context("read the control area: is the backing large enough?")?;
    let from = reader.taken();
    if let Some(superblock) = reader.superblock() {
        wanted(superblock)?;
    }
    let to = reader.needed();
    let feed = |offset: u64, piece: &mut [u8]| {
        file.read_exact_at(piece, offset)?;
        reader.feed(piece).map_err(std::io::Error::other)
    };
    pieces(from, to, feed).context("read the control area: is the backing large enough?")?;
    Ok(reader.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(folder: &tempfile::TempDir) -> FormatOptions {
        FormatOptions {
            backing: folder.path().join("image"),
            cluster: [7; 16],
            set: SetId(1),
            side: NodeId(1),
            size: 4 << 20,
            replace: false,
            store: None,
        }
    }

    #[test]
    fn formats_once_leaves_its_own_alone_and_refuses_another_sets() {
        let folder = tempfile::tempdir().unwrap();
        let mine = options(&folder);
        format(&mine).unwrap();
        let image = std::fs::read(&mine.backing).unwrap();
        assert_eq!(image.len() as u64, control_bytes(mine.size) + mine.size + store_bytes(mine.size));
        let read = ControlArea::read(&image).unwrap();
        assert_eq!((read.superblock.set, read.superblock.side), (SetId(1), NodeId(1)));
        assert_eq!(read.superblock.store, store_bytes(mine.size));
        format(&mine).unwrap();
        assert_eq!(std::fs::read(&mine.backing).unwrap(), image);
        let other = FormatOptions { set: SetId(2), ..mine };
        let refused = format(&other).unwrap_err().to_string();
        assert!(refused.contains("already carries set#1"), "{refused}");
        format(&FormatOptions { replace: true, ..other }).unwrap();
    }

    /// Formatted again over bits that were set: none of them is left, and nothing of a crash in between is taken for an area.
    #[test]
    fn a_replaced_area_has_nothing_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let mine = FormatOptions { size: 1 << 30, ..options(&folder) };
        format(&mine).unwrap();
        let fresh = std::fs::read(&mine.backing).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&mine.backing).unwrap();
        let area = |file: &File| read_control(file, |_| Ok(()));
        assert_eq!(area(&file).unwrap().torn_pages, 0);
        file.write_all_at(&[7; 3 * 4096], 512 * 1024).unwrap();
        assert_eq!(area(&file).unwrap().torn_pages, 3);
        format(&FormatOptions { set: SetId(9), replace: true, ..mine.clone() }).unwrap();
        format(&FormatOptions { replace: true, ..mine.clone() }).unwrap();
        assert_eq!(std::fs::read(&mine.backing).unwrap()[..1 << 20], fresh[..1 << 20]);
        file.write_all_at(&[0; SUPERBLOCKS_BYTES], 0).unwrap();
        assert!(area(&file).unwrap_err().to_string().contains("control area"));
    }

    #[test]
    fn a_released_copy_keeps_its_data_and_is_taken_again_only_on_a_persons_word() {
        let folder = tempfile::tempdir().unwrap();
        let mine = options(&folder);
        format(&mine).unwrap();
        let file = OpenOptions::new().write(true).open(&mine.backing).unwrap();
        file.write_all_at(b"data", control_bytes(mine.size)).unwrap();
        let whole = std::fs::read(&mine.backing).unwrap();
        release(&mine.backing, mine.cluster, SetId(9), mine.side).unwrap();
        assert_eq!(std::fs::read(&mine.backing).unwrap(), whole, "another set's is left alone");
        release(&mine.backing, mine.cluster, mine.set, mine.side).unwrap();
        release(&mine.backing, mine.cluster, mine.set, mine.side).unwrap();
        let image = std::fs::read(&mine.backing).unwrap();
        assert!(ControlArea::read(&image).is_err());
        assert_eq!(image[SUPERBLOCKS_BYTES..], whole[SUPERBLOCKS_BYTES..]);
        assert!(format(&mine).is_err());
        format(&FormatOptions { replace: true, ..mine.clone() }).unwrap();
        assert_eq!(&std::fs::read(&mine.backing).unwrap()[control_bytes(mine.size) as usize..][..4], b"data");
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
