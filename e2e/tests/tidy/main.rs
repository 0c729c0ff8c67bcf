//! Holds the architecture without running it: arrows, sizes, first lines, licences, words, message numbers, colours.

#![allow(clippy::expect_used, reason = "a test that cannot read the tree has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::{command, layers, paths};
use serde_json::Value;

mod colours;
mod licences;
mod readme;

/// Lines of a file: above the first a warning, above the second a failure (STYLE.md 7.3).
const LINES_WARN: usize = 600;
const LINES_FAIL: usize = 1000;

/// Which of our crates each of our crates may use (DESIGN.md section 2); anything else is an error.
const ARROWS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("peer", &["wire"]),
    ("engine", &["wire", "peer"]),
    ("mirror", &["wire", "peer"]),
    ("disk", &["mirror", "peer", "os", "wire"]),
    ("os", &["wire"]),
    ("store", &["wire", "engine"]),
    ("node", &["wire", "peer", "engine", "mirror", "os", "store", "disk"]),
    ("sim", &["wire", "peer", "engine", "mirror"]),
    ("web", &["wire", "engine"]),
    ("e2e", &["wire", "peer", "mirror"]),
];

/// All that the pure crates may be built from, however deep. A clock, a socket or a runtime would have to be here.
const PURE_MAY_USE: &[&str] = &[
    "arrayref",
    "arrayvec",
    "blake3",
    "cfg-if",
    "cobs",
    "constant_time_eq",
    "cpufeatures",
    "crc32c",
    "embedded-io",
    "libc",
    "postcard",
    "serde",
    "serde_core",
    "thiserror",
];

/// What the simulator may never contain, however deep: it must replay a seed exactly.
const SIM_NEVER: &[&str] = &["tokio", "axum", "sqlx", "rtnetlink", "io-uring", "rustix", "rand", "getrandom"];

fn metadata() -> Value {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version", "1", "--locked"]).current_dir(paths::root());
    let text = command::output(&mut cargo, Duration::from_secs(300)).expect("cargo metadata");
    serde_json::from_str(&text).expect("cargo metadata speaks JSON")
}

/// The resolved graph without build and test dependencies; a procedural macro is a leaf: it runs in the compiler.
struct Graph {
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
    macros: BTreeSet<String>,
}

impl Graph {
    fn read(metadata: &Value) -> Self {
        let mut graph = Self { names: BTreeMap::new(), edges: BTreeMap::new(), macros: BTreeSet::new() };
        for package in list(&metadata["packages"]) {
            let id = word(&package["id"]);
            graph.names.insert(id.clone(), word(&package["name"]));
            let kinds: Vec<&Value> =
                list(&package["targets"]).iter().flat_map(|target| list(&target["kind"])).collect();
            if kinds.iter().any(|kind| *kind == "proc-macro") {
                graph.macros.insert(id);
            }
        }
        for node in list(&metadata["resolve"]["nodes"]) {
            let normal = list(&node["deps"])
                .iter()
                .filter(|edge| list(&edge["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()))
                .map(|edge| word(&edge["pkg"]))
                .collect();
            graph.edges.insert(word(&node["id"]), normal);
        }
        graph
    }

    fn id(&self, name: &str) -> &str {
        // Ours have no registry in their id.
        let own = |(id, found): &(&String, &String)| found.as_str() == name && id.starts_with("path+");
        self.names.iter().find(own).map(|(id, _)| id.as_str()).unwrap_or_else(|| panic!("no crate {name}"))
    }

    fn direct(&self, name: &str) -> BTreeSet<&str> {
        let edges = self.edges.get(self.id(name)).map(Vec::as_slice).unwrap_or_default();
        edges.iter().map(|id| self.names[id].as_str()).collect()
    }

    fn deep(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![self.id(name)];
        while let Some(id) = open.pop() {
            for next in self.edges.get(id).map(Vec::as_slice).unwrap_or_default() {
                if !self.macros.contains(next) && seen.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        seen.iter().map(|id| self.names[*id].as_str()).collect()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Files in git and those not yet added, but not ignored ones.
fn files() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(paths::root());
    let text = command::output(&mut git, Duration::from_secs(60)).expect("git ls-files");
    let files: Vec<PathBuf> =
        text.lines().map(PathBuf::from).filter(|file| paths::root().join(file).is_file()).collect();
    assert!(files.len() > 50, "git ls-files found only {} files", files.len());
    files
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let rust = files().into_iter().filter(|file| file.extension().is_some_and(|end| end == "rs"));
    rust.map(|file| (file.clone(), read(&file))).collect()
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(paths::root().join(file))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn crates_use_only_what_the_arrows_allow() {
    let graph = Graph::read(&metadata());
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let members: BTreeSet<&str> =
        graph.names.iter().filter(|(id, _)| id.starts_with("path+")).map(|(_, name)| name.as_str()).collect();
    assert_eq!(members, ours, "the crates of the workspace and those the arrows know");
    for (name, allowed) in ARROWS {
        let used: BTreeSet<&str> = graph.direct(name).intersection(&ours).copied().collect();
        let forbidden: Vec<&&str> = used.iter().filter(|used| !allowed.contains(used)).collect();
        assert!(forbidden.is_empty(), "{name} uses {forbidden:?}; DESIGN.md section 2 allows {allowed:?}");
    }
}

#[test]
fn pure_crates_are_built_from_nothing_that_does_input_or_output() {
    let graph = Graph::read(&metadata());
    for name in layers::PURE {
        let strangers: Vec<&str> = graph
            .deep(name)
            .into_iter()
            .filter(|used| !PURE_MAY_USE.contains(used) && !layers::PURE.contains(used))
            .collect();
        assert!(strangers.is_empty(), "{name} is pure, but is built from {strangers:?}");
    }
    let in_sim: Vec<&str> = graph.deep("sim").into_iter().filter(|used| SIM_NEVER.contains(used)).collect();
    assert!(in_sim.is_empty(), "the simulator is built from {in_sim:?}");
}

#[test]
fn every_pure_crate_bans_clocks_effects_and_hash_order() {
    for name in layers::PURE {
        let text = read(&Path::new("server").join(name).join("clippy.toml"));
        for banned in [
            "std::time::Instant::now",
            "std::time::SystemTime::now",
            "std::fs::read",
            "std::net::TcpStream",
            "std::process::Command",
            "std::thread::spawn",
            "std::collections::HashMap",
            "std::collections::HashSet",
        ] {
            assert!(
                text.contains(&format!("\"{banned}\"")),
                "server/{name}/clippy.toml does not ban {banned}"
            );
        }
    }
}

#[test]
fn files_are_short_and_begin_with_a_sentence() {
    let mut faults = Vec::new();
    for (file, text) in rust_files() {
        let lines = text.lines().count();
        if lines > LINES_FAIL {
            faults.push(format!("{}: {lines} lines, split it by noun", file.display()));
        } else if lines > LINES_WARN {
            println!("long: {} has {lines} lines", file.display());
        }
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") {
            faults.push(format!("{}: the first line is not a //! sentence", file.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_holds_a_banned_word() {
    // Put together here, so that this file does not hold them itself.
    let words: Vec<String> = [
        ("FIX", "ME"),
        ("XX", "X"),
        ("TO", "DO"),
        ("todo", "!("),
        ("unimplemented", "!("),
        ("static.crates", ".io"),
        ("index.crates", ".io"),
        ("registry.npmjs", ".org"),
        ("deb.debian", ".org"),
        ("pypi", ".org"),
    ]
    .iter()
    .map(|(first, second)| format!("{first}{second}"))
    .collect();
    let mut faults = Vec::new();
    for file in files() {
        let skipped = file.starts_with("e2e/vendor") || file.ends_with("Cargo.lock");
        let Ok(text) = std::fs::read_to_string(paths::root().join(&file)) else { continue };
        if skipped {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                faults.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_message_number_is_used_once() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for file in ["server/wire/src/alert.rs", "server/wire/src/command.rs"] {
        for line in read(Path::new(file)).lines() {
            let Some((name, number)) = line.trim().split_once("=> ") else { continue };
            let number = number.trim_end_matches(',');
            if number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()) {
                let earlier = seen.insert(number.to_owned(), name.to_owned());
                assert!(earlier.is_none(), "M-{number} is {} and {name}", earlier.unwrap_or_default());
            }
        }
    }
    assert!(seen.len() > 40, "found only {} message numbers: have they moved?", seen.len());
}
