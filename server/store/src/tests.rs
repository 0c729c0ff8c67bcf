//! Tests of the store's rules in one process; its survival of kill -9 is in `tests/kill.rs`.

use super::*;
use wire::config::{ServerConfig, TimingConfig};
use wire::{ClusterConfig, Event, EventKind, NodeId, WallClock};

async fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store.db")).await.unwrap();
    (folder, store)
}

fn config(version: u64) -> ClusterConfig {
    let server = |id: u8| ServerConfig {
        id: NodeId(id),
        name: format!("server{id}"),
        address: ([127, 0, 0, id], 8443).into(),
        page: format!("https://127.0.0.{id}:8443"),
        fingerprint: "00".into(),
    };
    ClusterConfig {
        version,
        name: "c".into(),
        servers: vec![server(1), server(2)],
        links: Vec::new(),
        witness: None,
        sets: Vec::new(),
        groups: Vec::new(),
        timing: TimingConfig::default(),
        auto_recover: false,
    }
}

#[tokio::test]
async fn the_highest_version_of_the_configuration_rules_and_none_is_rewritten() {
    let (_folder, store) = open().await;
    assert_eq!(store.config().await.unwrap(), None);
    for version in [1, 3, 2] {
        store.put_config(&config(version), NodeId(2), WallClock(9)).await.unwrap();
    }
    store.put_config(&config(3), NodeId(2), WallClock(10)).await.unwrap();
    assert_eq!(store.config().await.unwrap(), Some((config(3), NodeId(2))));
    let other = ClusterConfig { auto_recover: true, ..config(3) };
    assert!(store.put_config(&other, NodeId(2), WallClock(9)).await.is_err());
    assert_eq!(store.config().await.unwrap(), Some((config(3), NodeId(2))));
}

#[tokio::test]
async fn records_and_events_outlive_a_reopening() {
    let (folder, store) = open().await;
    assert_eq!(store.record::<Vec<u8>>().await.unwrap(), None);
    store.put_record(&vec![1, 2]).await.unwrap();
    store.put_record(&vec![3]).await.unwrap();
    for number in 1..=3 {
        let event = Event { origin: NodeId(1), number, at: WallClock(number), kind: EventKind::WitnessUp };
        assert!(store.put_event(&event).await.unwrap());
        assert!(!store.put_event(&event).await.unwrap());
    }
    store.close().await;
    let again = Store::open(&folder.path().join("store.db")).await.unwrap();
    assert_eq!(again.record::<Vec<u8>>().await.unwrap(), Some(vec![3]));
    assert_eq!(again.last_event_number(NodeId(1)).await.unwrap(), 3);
    assert_eq!(again.last_event_number(NodeId(2)).await.unwrap(), 0);
    let numbers: Vec<u64> = again.events(2).await.unwrap().iter().map(|event| event.number).collect();
    assert_eq!(numbers, [3, 2]);
}

#[tokio::test]
async fn events_beyond_the_bound_are_dropped() {
    let (_folder, store) = open().await;
    let event =
        |number| Event { origin: NodeId(1), number, at: WallClock(number), kind: EventKind::WitnessUp };
    store.put_event(&event(1)).await.unwrap();
    store.put_event(&event(EVENTS_KEPT + 256 - EVENTS_KEPT % 256)).await.unwrap();
    assert_eq!(store.events(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_one_time_login_is_good_once_and_for_its_time() {
    let (_folder, store) = open().await;
    store.put_one_time(b"a", WallClock(100), WallClock(1)).await.unwrap();
    store.put_one_time(b"b", WallClock(100), WallClock(1)).await.unwrap();
    assert!(!store.use_one_time(b"x", WallClock(50)).await.unwrap());
    assert!(!store.use_one_time(b"a", WallClock(101)).await.unwrap());
    assert!(store.use_one_time(b"a", WallClock(50)).await.unwrap());
    assert!(!store.use_one_time(b"a", WallClock(51)).await.unwrap());
    assert_eq!(store.one_times(WallClock(60)).await.unwrap(), [(b"b".to_vec(), WallClock(100))]);
}

#[tokio::test]
async fn sessions_expire_and_end_and_passwords_go_forward_only() {
    let (_folder, store) = open().await;
    store.put_session(b"s", "admin", WallClock(100), WallClock(1)).await.unwrap();
    assert_eq!(store.session(b"s", WallClock(100)).await.unwrap().as_deref(), Some("admin"));
    assert_eq!(store.session(b"s", WallClock(101)).await.unwrap(), None);
    store.end_session(b"s").await.unwrap();
    assert_eq!(store.session(b"s", WallClock(50)).await.unwrap(), None);
    store.put_operator("admin", "new", WallClock(20)).await.unwrap();
    store.put_operator("admin", "old", WallClock(10)).await.unwrap();
    assert_eq!(store.operator_hash("admin").await.unwrap().as_deref(), Some("new"));
}
