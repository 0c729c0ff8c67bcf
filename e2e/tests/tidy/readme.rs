//! What the README says is so: its example of a cluster is understood, its list of shows is the real one.

use std::path::Path;

use serde_json::Value;
use wire::config::{ClusterConfig, ServerConfig, TimingConfig, WitnessConfig};
use wire::ids::NodeId;

use crate::{read, word};

fn example() -> Value {
    let readme = read(Path::new("README.md"));
    let (_, rest) = readme.split_once("```json\n").expect("an example in the README");
    let (text, _) = rest.split_once("```").expect("the end of the example");
    serde_json::from_str(text).expect("the example is JSON")
}

#[test]
fn the_example_of_a_cluster_has_no_fault() {
    let example = example();
    let server = |id, side: &Value| ServerConfig {
        id: NodeId(id),
        name: word(&side["name"]),
        address: word(&side["address"]).parse().expect("a server's address"),
        page: format!("https://{}", word(&side["address"])),
        fingerprint: String::new(),
    };
    let part = |name: &str| example[name].clone();
    let config = ClusterConfig {
        version: 1,
        name: word(&example["name"]),
        servers: vec![server(1, &example["this"]), server(2, &example["twin"])],
        links: serde_json::from_value(part("links")).expect("links"),
        witness: Some(WitnessConfig {
            name: word(&example["witness"]["name"]),
            address: word(&example["witness"]["address"]).parse().expect("the witness's address"),
            fingerprint: String::new(),
        }),
        sets: serde_json::from_value(part("sets")).expect("sets"),
        groups: serde_json::from_value(part("groups")).expect("groups"),
        timing: TimingConfig::default(),
        auto_recover: part("auto_recover").as_bool().expect("auto_recover"),
    };
    assert_eq!(config.faults(), vec![]);
}

#[test]
fn the_list_of_shows_is_the_real_one() {
    let readme = read(Path::new("README.md"));
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<Vec<_>>(), e2e::shows::names());
}

#[test]
fn every_file_the_readme_links_to_is_there() {
    let readme = read(Path::new("README.md"));
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(e2e::paths::root().join(link).exists(), "the README links to {link}");
    }
}
