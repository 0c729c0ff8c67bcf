//! Golden scenarios: tests/scenarios/pair/*.txt, each what happens to a running pair and exactly what the engines then do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "the scenarios are files")]

mod common;

use common::*;
use wire::{NodeId, Operation};

/// A line of the log as an operator reads it: without times, random ids and what repeats by the clock.
fn readable(line: &str) -> Option<String> {
    let (_, text) = line.split_once(' ')?;
    if text.starts_with("Announce") {
        return None;
    }
    let field = |name: &str| {
        let rest = text.split_once(name)?.1;
        Some(rest.split([',', ' ', '}', ')']).next()?.to_string())
    };
    let word = text.split([' ', '{']).next()?;
    let epoch = || field("epoch: Epoch(").unwrap_or_default();
    let text = match word {
        "order" if text.contains("Activate") => {
            let how = if text.contains("alone: true") { "alone" } else { "with twin" };
            format!("order set#1 Activate epoch {} {how}", epoch())
        }
        "order" if text.contains("LearnEpoch") => format!("order set#1 LearnEpoch epoch {}", epoch()),
        "order" if text.contains("PutOut") => "order set#1 PutOut".into(),
        "event" => match text.split_once(", took_ms").or(text.split_once(", away_ms")) {
            Some((head, _)) => format!("{head} }}"),
            None => text.to_string(),
        },
        "Mount" | "Unmount" => format!("{word} set#{}", field("SetId(")?),
        "ProbeAddress" | "AddAddress" | "RemoveAddress" => format!("{word} {}", field("address: ")?),
        "StartScript" => format!("StartScript {}", field("cause: ")?),
        "StopScript" | "Observe" | "Kill" => word.to_string(),
        _ => text.to_string(),
    };
    Some(text)
}

fn server(word: &str) -> NodeId {
    NodeId(word.parse().unwrap())
}

fn when(world: &mut World, words: &[&str]) {
    match words {
        ["power", "off", n] => world.power_off(server(n)),
        ["power", "on", n] => world.power_on(server(n)),
        ["kill", "node", n] => world.node_kill(server(n)),
        ["start", "node", n] => world.node_start(server(n)),
        ["command", "at", n, "move", "to", to] => {
            let what = Operation::MoveGroup { group: GROUP, to: server(to) };
            assert_eq!(world.command(server(n), what), Ok(()));
        }
        other => panic!("unknown: when {other:?}"),
    }
}

fn run(text: &str, name: &str) {
    let mut world = World::started();
    let mut expected: Vec<(NodeId, Vec<String>)> = Vec::new();
    for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["given", "a", "running", "pair"] => {
                world.until(5_000, "start", |w| w.serves(S1));
                world.until(3_000, "in sync", |w| w.view(S1).sets[0].state == wire::view::SetState::InSync);
                world.run(6_000);
                NodeId::BOTH.into_iter().for_each(|s| world.host(s).log.clear());
            }
            ["when", rest @ ..] => when(&mut world, rest),
            ["wait", "until", n, "serves"] => {
                let server = server(n);
                world.until(5_000, name, |w| w.serves(server));
                world.run(50);
            }
            ["wait", ms] => world.run(ms.parse().unwrap()),
            ["server", n] => expected.push((server(n), Vec::new())),
            _ => expected.last_mut().expect("a server first").1.push(line.trim().to_string()),
        }
    }
    for (server, expected) in expected {
        let found: Vec<String> = world.hosts[&server].log.iter().filter_map(|l| readable(l)).collect();
        assert_eq!(found, expected, "{name}, server {server}");
    }
}

#[test]
fn every_scenario_leads_to_exactly_these_actions() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/pair");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        run(&std::fs::read_to_string(&path).unwrap(), &path.display().to_string());
        count += 1;
    }
    assert!(count >= 4, "{count} scenarios");
}
