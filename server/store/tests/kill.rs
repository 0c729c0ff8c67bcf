//! A writer killed by -9 at any moment loses nothing that it was told is stored.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use store::Store;
use wire::{Event, EventKind, NodeId, WallClock};

/// Set in the child: the folder of the store to write to.
const FOLDER: &str = "FUTAGO_STORE_KILL_TEST";
/// Lives of the writer.
const ROUNDS: u64 = 20;

fn event(number: u64) -> Event {
    Event { origin: NodeId(1), number, at: WallClock(number), kind: EventKind::WitnessLost }
}

/// Not a test of its own: the process that the test below starts and kills.
#[tokio::test]
async fn writer() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let store = Store::open(&std::path::Path::new(&folder).join("store.db")).await.unwrap();
    let mut number = store.record::<u64>().await.unwrap().unwrap_or(0);
    let mut out = std::io::stdout();
    loop {
        number += 1;
        store.put_event(&event(number)).await.unwrap();
        store.put_record(&number).await.unwrap();
        writeln!(out, "stored {number}").unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn every_acknowledged_record_is_there_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbered = |line: &str| line.rsplit_once("stored ").and_then(|(_, n)| n.parse::<u64>().ok());
        let mut acknowledged = 0;
        // The moment of the kill differs in each round: after some lines, and some busy microseconds into the next write.
        let mut left = 1 + round * 7 % 23;
        while left > 0 {
            if let Some(number) = numbered(&lines.next().unwrap().unwrap()) {
                acknowledged = number;
                left -= 1;
            }
        }
        for spin in 0..round * 4_000 {
            std::hint::black_box(spin);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            acknowledged = numbered(&line).unwrap_or(acknowledged);
        }
        let store = Store::open(&folder.path().join("store.db")).await.unwrap();
        let record = store.record::<u64>().await.unwrap().unwrap();
        assert!(record >= acknowledged, "round {round}: {record} < {acknowledged}");
        let newest = store.last_event_number(NodeId(1)).await.unwrap();
        assert!(newest >= record && newest <= record + 1, "round {round}: event {newest}, record {record}");
        let events = store.events(100_000).await.unwrap();
        assert_eq!(events.len() as u64, newest, "round {round}: an event is missing");
        store.close().await;
    }
}
