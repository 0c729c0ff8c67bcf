//! A change that is cut off between any two steps is taken back or made, never half.

use super::*;
use mirror::layout::control_bytes;

const SIZE: u64 = 4 << 20;
const KEY: [u8; 32] = [5; 32];
const ONE: NodeId = NodeId(1);

fn config(version: u64, image: &Path) -> ClusterConfig {
    let path = image.display().to_string();
    serde_json::from_value(serde_json::json!({
        "version": version, "name": "pair", "servers": [], "links": [], "witness": null, "groups": [],
        "timing": wire::config::TimingConfig::default(), "auto_recover": false,
        "sets": [{ "id": 101, "name": "new", "group": 101, "backing": [path, path], "size": SIZE, "port": 7789, "source": 1 }],
    }))
    .unwrap()
}

fn format(image: &Path) {
    let (backing, cluster) = (image.to_path_buf(), disks::cluster_id(&KEY));
    let order = disk::FormatOptions {
        backing,
        cluster,
        set: SetId(101),
        side: ONE,
        size: SIZE,
        replace: true,
        store: None,
    };
    disk::format(&order).unwrap();
}

fn pending(data: &DataDir, image: &Path, by: NodeId, existed: bool) {
    let taken = vec![Taken { set: SetId(101), path: image.to_path_buf(), existed }];
    Pending { config: config(2, image), by, taken }.write(data).unwrap();
}

fn is_copy(image: &Path) -> bool {
    fs::read(image).is_ok_and(|bytes| superblock(&bytes).is_ok())
}

#[test]
fn what_this_server_led_and_had_not_stored_is_taken_back_at_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::open(folder.path()).unwrap();
    let image = folder.path().join("image");
    // Before the area was made; after it; half made; and on a disk that was there before.
    for (made, existed) in [(0, false), (1, false), (2, false), (1, true)] {
        let _ = fs::remove_file(&image);
        if existed {
            fs::write(&image, vec![0; usize::try_from(control_bytes(SIZE) + SIZE).unwrap()]).unwrap();
        }
        pending(&data, &image, ONE, existed);
        match made {
            1 => format(&image),
            2 => fs::write(&image, vec![0; 1 << 20]).unwrap(),
            _ => {}
        }
        recover(&data, &config(1, &image), ONE, &KEY).unwrap();
        assert!(Pending::read(&data).unwrap().is_none());
        assert_eq!(image.exists(), existed);
        assert!(!is_copy(&image));
    }
}

#[test]
fn what_is_stored_stays_and_of_the_other_servers_change_nothing_is_decided_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::open(folder.path()).unwrap();
    let image = folder.path().join("image");
    pending(&data, &image, ONE, false);
    format(&image);
    recover(&data, &config(2, &image), ONE, &KEY).unwrap();
    assert!(Pending::read(&data).unwrap().is_none() && is_copy(&image), "made");
    pending(&data, &image, NodeId(2), false);
    recover(&data, &config(1, &image), ONE, &KEY).unwrap();
    assert!(Pending::read(&data).unwrap().is_some() && is_copy(&image), "the other one is asked");
}

#[test]
fn another_sets_copy_is_never_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::open(folder.path()).unwrap();
    let image = folder.path().join("image");
    let (backing, cluster) = (image.clone(), [9; 16]);
    let order = disk::FormatOptions {
        backing,
        cluster,
        set: SetId(1),
        side: ONE,
        size: SIZE,
        replace: true,
        store: None,
    };
    disk::format(&order).unwrap();
    pending(&data, &image, ONE, true);
    recover(&data, &config(1, &image), ONE, &KEY).unwrap();
    assert!(is_copy(&image));
}
