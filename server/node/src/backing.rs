//! This server's backings: looked at before a set takes them, remembered as they were, and looked at again before a disk process
//! opens them (C2, [8.5]).

use crate::data::DataDir;
use crate::disks;
use crate::http::error::Fault;
use anyhow::Context as _;
use mirror::layout::{control_bytes, released, superblock};
use os::blockdev::{BlockDevices, HostBlockDevices};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wire::backing::{BackingFault, BackingFound, BackingKind, BackingShape};
use wire::text::{self, Lang};
use wire::{ClusterConfig, NodeId, SetId};

/// Between two looks at a disk that its old process still has for itself.
const LET_GO: Duration = Duration::from_millis(50);

/// Whose copy a backing is, or is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster as control areas name it.
    pub cluster: [u8; 16],
    /// The mirror set.
    pub set: SetId,
    /// The server.
    pub side: NodeId,
    /// Bytes of data.
    pub size: u64,
}

/// What is at a path, and why it could not become (or stay) this copy's backing.
#[must_use]
pub fn look(devices: &dyn BlockDevices, path: &Path, owner: Owner) -> BackingFound {
    let inspected = devices.inspect(path);
    let mut found = inspected.found;
    let mut needed = control_bytes(owner.size) + owner.size;
    if let Ok(block) = superblock(&inspected.head) {
        // Ours begins with no signature that anybody else knows.
        found.faults.retain(|fault| !matches!(fault, BackingFault::Carries { .. }));
        let of = Owner { cluster: block.cluster, set: block.set, side: block.side, size: block.size };
        if of == owner {
            // One that an older version made has a smaller area.
            needed = block.data_at() + block.size;
        } else {
            found.faults.push(BackingFault::OtherSet { set: block.set, side: block.side });
        }
    }
    if let Some(block) = released(&inspected.head) {
        found.faults.retain(|fault| !matches!(fault, BackingFault::Carries { .. }));
        found.faults.push(BackingFault::Released { set: block.set, side: block.side });
    }
    // An image file is made as long as it must be.
    let fixed = found.shape.as_ref().is_some_and(|shape| shape.kind != BackingKind::File);
    if fixed && found.bytes < needed {
        found.faults.push(BackingFault::TooSmall { needed, found: found.bytes });
    }
    found
}

/// Why a backing is not taken, for a person; nothing if it is.
#[must_use]
pub fn refuse(lang: Lang, path: &Path, found: &BackingFound, replace: bool) -> Option<String> {
    if found.is_usable(replace) {
        return None;
    }
    let name = path.display().to_string();
    let hard: Vec<&BackingFault> = found.faults.iter().filter(|fault| !fault.is_confirmable()).collect();
    // What can be confirmed is worth a word only where nothing else is in the way.
    let told = if hard.is_empty() { found.faults.iter().collect() } else { hard };
    let sentences: Vec<String> =
        told.into_iter().map(|fault| text::backing_fault(lang, &name, fault)).collect();
    Some(sentences.join(" "))
}

/// Where the shape of a set's backing here is remembered.
#[must_use]
pub fn shape_file(data: &DataDir, set: SetId) -> PathBuf {
    data.file(&format!("backing-{}.json", set.0))
}

/// Looks at every set's backing here, makes the control areas, and remembers what was taken. With `replace` a person has
/// confirmed that what is on the backings is lost.
///
/// # Errors
/// A backing is refused, with every reason; or its control area cannot be made. Nothing was written then unless to a backing
/// before the one that failed.
pub async fn prepare(
    data: &DataDir,
    config: &ClusterConfig,
    me: NodeId,
    cluster: [u8; 16],
    replace: bool,
) -> Result<(), Fault> {
    let wanted: Vec<(PathBuf, Owner)> = config
        .sets
        .iter()
        .map(|set| (disks::backing_of(set, me), Owner { cluster, set: set.id, side: me, size: set.size }))
        .collect();
    let looked = wanted.clone();
    let refused = tokio::task::spawn_blocking(move || {
        let host = HostBlockDevices::default();
        let reason =
            |(path, owner): &(PathBuf, Owner)| refuse(Lang::En, path, &look(&host, path, *owner), replace);
        looked.iter().filter_map(reason).collect::<Vec<String>>()
    });
    let refused = refused.await.context("look at the disks")?;
    if !refused.is_empty() {
        return Err(Fault::Conflict(refused.join(" ")));
    }
    disks::format(config, me, cluster, replace).await?;
    for (path, owner) in wanted {
        remember(data, owner.set, &path)?;
    }
    Ok(())
}

/// Remembers a backing's shape.
///
/// # Errors
/// The folder cannot be written.
pub fn remember(data: &DataDir, set: SetId, path: &Path) -> anyhow::Result<()> {
    if let Ok(shape) = HostBlockDevices::default().shape(path) {
        os::durable::write(&shape_file(data, set), &serde_json::to_vec(&shape)?)?;
    }
    Ok(())
}

/// Whether a backing is what was registered: one whose size or partition table changed is refused [8.5].
///
/// # Errors
/// It is not; the sentence says what to do.
pub fn unchanged(devices: &dyn BlockDevices, remembered: &Path, path: &Path) -> anyhow::Result<()> {
    let Ok(before) = std::fs::read(remembered) else { return Ok(()) };
    let before: BackingShape = serde_json::from_slice(&before).context("understand the backing's record")?;
    // One that is not there is not opened either, and says so then.
    let Ok(shape) = devices.shape(path) else { return Ok(()) };
    if shape != before {
        let name = path.display().to_string();
        anyhow::bail!("{}", text::backing_fault(Lang::En, &name, &BackingFault::Changed));
    }
    Ok(())
}

/// Takes the disk that is at a backing's place: looked at, a fresh control area made, its shape remembered. The old process may
/// need a moment to let go of it.
///
/// # Errors
/// The disk is refused, with every reason, or cannot be written.
pub fn exchange(options: &disk::DiskOptions, shape_file: &Path, until: Instant) -> anyhow::Result<()> {
    let key = std::fs::read(&options.key_file).context("read the cluster key")?;
    let key: [u8; 32] = key.try_into().map_err(|_| anyhow::anyhow!("the cluster key is damaged"))?;
    let (set, side, size) = (options.set, options.side, options.size);
    let owner = Owner { cluster: disks::cluster_id(&key), set, side, size };
    let path = options.backing.as_path();
    let found = loop {
        let found = look(&HostBlockDevices::default(), path, owner);
        if !found.faults.contains(&BackingFault::InUse) || Instant::now() >= until {
            break found;
        }
        std::thread::sleep(LET_GO);
    };
    if let Some(reason) = refuse(Lang::En, path, &found, true) {
        anyhow::bail!("{reason}");
    }
    if found.shape.is_some() {
        disk::clear(path)?;
    }
    let backing = options.backing.clone();
    let order =
        disk::FormatOptions { backing, cluster: owner.cluster, set, side, size, replace: true, store: None };
    disk::format(&order)?;
    let shape = HostBlockDevices::default().shape(path).map_err(|fault| {
        anyhow::anyhow!("{}", text::backing_fault(Lang::En, &path.display().to_string(), &fault))
    })?;
    os::durable::write(shape_file, &serde_json::to_vec(&shape)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use os::blockdev::{FakeBlockDevices, Inspected};

    const SIZE: u64 = 4 << 20;
    const MINE: Owner = Owner { cluster: [7; 16], set: SetId(1), side: NodeId(1), size: SIZE };

    fn disk(bytes: u64, faults: Vec<BackingFault>, head: Vec<u8>) -> Inspected {
        let shape = BackingShape { kind: BackingKind::Disk, bytes, start: 0, partitions: Vec::new() };
        Inspected { found: BackingFound { shape: Some(shape), bytes, faults }, head }
    }

    fn found(inspected: Inspected) -> BackingFound {
        let devices = FakeBlockDevices::default();
        devices.put(Path::new("/dev/sdx"), inspected);
        look(&devices, Path::new("/dev/sdx"), MINE)
    }

    fn area(owner: Owner) -> Vec<u8> {
        let Owner { cluster, set, side, size } = owner;
        mirror::layout::format(mirror::layout::Format { cluster, set, side, size }).unwrap()
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_with_what_is_needed_and_found() {
        let needed = control_bytes(SIZE) + SIZE;
        assert!(found(disk(needed, vec![], vec![0; 8192])).faults.is_empty());
        let small = found(disk(needed - 1, vec![], vec![0; 8192]));
        assert_eq!(small.faults, [BackingFault::TooSmall { needed, found: needed - 1 }]);
        assert!(!small.is_usable(true), "no confirmation makes a disk larger");
        let said = refuse(Lang::En, Path::new("/dev/sdx"), &small, true).unwrap();
        assert!(said.contains("/dev/sdx") && said.contains("M-3215"), "{said}");
    }

    #[test]
    fn another_sets_copy_is_taken_only_once_its_loss_is_confirmed_and_the_own_one_at_once() {
        let unknown = || vec![BackingFault::Carries { what: "unknown".into() }];
        assert!(
            found(disk(64 << 20, unknown(), area(MINE))).faults.is_empty(),
            "made before, by the same order"
        );
        for other in [
            Owner { set: SetId(2), ..MINE },
            Owner { cluster: [8; 16], ..MINE },
            Owner { side: NodeId(2), ..MINE },
        ] {
            let found = found(disk(64 << 20, unknown(), area(other)));
            assert_eq!(found.faults, [BackingFault::OtherSet { set: other.set, side: other.side }]);
            assert!(!found.is_usable(false) && found.is_usable(true));
        }
    }

    #[test]
    fn what_was_released_is_told_and_taken_only_on_a_persons_word() {
        let mut area = area(MINE);
        let marked = mirror::layout::release(&area).unwrap();
        area[..marked.len()].copy_from_slice(&marked);
        let found = found(disk(64 << 20, vec![BackingFault::Carries { what: "unknown".into() }], area));
        assert_eq!(found.faults, [BackingFault::Released { set: SetId(1), side: NodeId(1) }]);
        assert!(!found.is_usable(false) && found.is_usable(true));
    }

    #[test]
    fn a_reason_that_no_confirmation_removes_is_told_alone() {
        let faults = vec![
            BackingFault::Mounted { point: "/srv".into() },
            BackingFault::Carries { what: "ext4".into() },
        ];
        let said =
            refuse(Lang::En, Path::new("/dev/sdx"), &found(disk(64 << 20, faults, vec![1])), true).unwrap();
        assert!(said.contains("/srv") && !said.contains("ext4"), "{said}");
    }

    #[test]
    fn a_disk_that_was_partitioned_or_resized_since_is_not_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let remembered = folder.path().join("backing.json");
        let path = Path::new("/dev/sdx");
        let devices = FakeBlockDevices::default();
        devices.put(path, disk(64 << 20, vec![], vec![]));
        unchanged(&devices, &remembered, path).unwrap();
        std::fs::write(&remembered, serde_json::to_vec(&devices.shape(path).unwrap()).unwrap()).unwrap();
        unchanged(&devices, &remembered, path).unwrap();
        devices.put(path, disk(65 << 20, vec![], vec![]));
        let said = unchanged(&devices, &remembered, path).unwrap_err().to_string();
        assert!(said.contains("changed") && said.contains("M-3216"), "{said}");
        let mut parted = disk(64 << 20, vec![], vec![]);
        parted.found.shape.as_mut().unwrap().partitions.push((2048, 4096));
        devices.put(path, parted);
        assert!(unchanged(&devices, &remembered, path).is_err());
    }

    #[test]
    fn an_exchanged_disk_gets_a_fresh_control_area_whatever_was_on_it_but_not_while_somebody_uses_it() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, [9; 32]).unwrap();
        let image = folder.path().join("image");
        let options: disk::DiskOptions = serde_json::from_value(serde_json::json!({
            "set": 1, "side": 2, "size": SIZE, "backing": image, "control": folder.path().join("c"),
            "listen": [], "twin": [], "port": 1, "mount": folder.path(), "incarnation": "00000000000000000000000000000001",
            "key_file": key, "state": folder.path(),
        }))
        .unwrap();
        let shape = folder.path().join("shape.json");
        let soon = || Instant::now() + Duration::from_millis(200);
        let owner =
            Owner { cluster: disks::cluster_id(&[9; 32]), set: SetId(1), side: NodeId(2), size: SIZE };
        // The same set's old copy, with a history; then another set's; then a file system's.
        for before in [area(owner), area(MINE), vec![7; 1 << 20]] {
            let mut before = before;
            before.resize(usize::try_from(control_bytes(SIZE) + SIZE).unwrap(), 5);
            std::fs::write(&image, &before).unwrap();
            exchange(&options, &shape, soon()).unwrap();
            let after = std::fs::read(&image).unwrap();
            let head = superblock(&after).unwrap();
            assert_eq!((head.set, head.side, head.counter), (SetId(1), NodeId(2), 2), "made anew");
            assert!(shape.exists());
        }
        let user = std::fs::File::open(&image).unwrap();
        rustix::fs::flock(&user, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let said = exchange(&options, &shape, soon()).unwrap_err().to_string();
        assert!(said.contains("M-3212"), "{said}");
    }
}
