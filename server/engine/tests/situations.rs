//! Situations: tests/situations/*/*.txt, each a cluster, what happens to it, and what the real engines then make of it.
//!
//! A file is for operators to read; the words are told in tests/situations/README.md. What a file expects is compared line by
//! line. `FUTAGO_SITUATIONS=write` writes what the engines do into the files instead: for a reviewer's eyes, never for a pass.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "the situations are files")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "two threads run them, and they are listed"
)]

mod common;
mod situation;

use situation::{Situation, run};
use std::path::{Path, PathBuf};

/// So many the issue asks for.
const LEAST: usize = 150;
/// The situations of the seed's own table [6.2.5] lie in this folder.
const NINE: &str = "nine/";

fn files() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/situations");
    let folders = std::fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path());
    let texts = folders.filter(|path| path.is_dir()).flat_map(|folder| {
        let inside = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        inside.filter(|path| path.extension().is_some_and(|e| e == "txt")).collect::<Vec<_>>()
    });
    let mut all: Vec<PathBuf> = texts.collect();
    all.sort();
    all
}

fn short(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name).unwrap().to_string_lossy().into_owned();
    format!("{folder}/{}", path.file_stem().unwrap().to_string_lossy())
}

/// Runs a file; what differs, or what stopped it.
fn verdict(path: &Path, write: bool) -> Result<String, String> {
    let text = std::fs::read_to_string(path).unwrap();
    let caught = std::panic::catch_unwind(|| {
        let situation = Situation::read(&text);
        let found = run(&situation);
        (situation.title.clone(), situation.with(&found))
    });
    let (title, found) = caught.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.unwrap_or_else(|| "it panicked".to_string())
    })?;
    if found != text && write {
        std::fs::write(path, &found).unwrap();
    } else if found != text {
        let differs = text.lines().zip(found.lines()).find(|(a, b)| a != b);
        return Err(format!("{title}\n  first difference: {differs:?}\nwhat the engines do:\n{found}"));
    }
    Ok(title)
}

#[test]
fn every_situation_comes_out_as_its_file_says() {
    let files = files();
    let write = std::env::var("FUTAGO_SITUATIONS").is_ok_and(|word| word == "write");
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = std::sync::Mutex::new(vec![None; files.len()]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(path) = files.get(place) else { return };
                    let result = verdict(path, write);
                    results.lock().unwrap()[place] = Some(result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let (mut green, mut nine, mut red) = (0, std::collections::BTreeSet::new(), Vec::new());
    for (path, result) in files.iter().zip(results) {
        match result.unwrap() {
            Ok(title) => {
                green += 1;
                nine.extend(short(path).strip_prefix(NINE).and_then(|name| name.chars().next()));
                println!("situation {}: {title}", short(path));
            }
            Err(why) => {
                println!("situation {}: RED", short(path));
                red.push(format!("{}: {why}", short(path)));
            }
        }
    }
    println!("situations {{\"files\":{},\"green\":{green},\"seeds_nine\":{}}}", files.len(), nine.len());
    assert!(red.is_empty(), "{} situations differ\n{}", red.len(), red.join("\n"));
    assert!(files.len() >= LEAST, "{} situations", files.len());
}

#[test]
fn every_title_is_its_own() {
    let mut titles: Vec<String> =
        files().iter().map(|path| Situation::read(&std::fs::read_to_string(path).unwrap()).title).collect();
    titles.sort();
    let all = titles.len();
    titles.dedup();
    assert_eq!(titles.len(), all, "two situations with the same title");
    assert!(
        titles.iter().all(|t| (20..=160).contains(&t.len())),
        "a title is one line that says what happens"
    );
}
