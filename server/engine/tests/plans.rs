//! Golden plans: tests/scenarios/plan/*.txt, each a situation and the steps that must follow.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "the scenarios are files")]

use engine::plan::{Is, PlanStep, Seen, Target, plan};
use wire::SetId;

fn is(word: &str) -> Is {
    match word {
        "absent" => Is::Absent,
        "present" => Is::Present,
        "unknown" => Is::Unknown,
        other => panic!("{other}: absent, present or unknown"),
    }
}

fn line_of(step: PlanStep) -> String {
    match step {
        PlanStep::Right => "right".into(),
        PlanStep::Activate(set) => format!("activate set {}", set.0),
        PlanStep::Mount(set) => format!("mount set {}", set.0),
        PlanStep::Address(ip) => format!("add {ip}"),
        PlanStep::Start => "start script".into(),
        PlanStep::Stop => "stop script".into(),
        PlanStep::Remove(ip) => format!("remove {ip}"),
        PlanStep::Unmount(set) => format!("unmount set {}", set.0),
        PlanStep::Deactivate(set) => format!("deactivate set {}", set.0),
    }
}

fn check(text: &str) -> (Vec<String>, Vec<String>) {
    let mut seen = Seen { right: false, sets: vec![], mounts: vec![], addresses: vec![], script: Is::Absent };
    let mut target = Target::Down;
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    for line in lines.by_ref() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["want", "up"] => target = Target::Up,
            ["want", "down"] => target = Target::Down,
            ["right", word] => seen.right = *word == "yes",
            ["set", id, word] => seen.sets.push((SetId(id.parse().unwrap()), is(word))),
            ["mount", id, word] => seen.mounts.push((SetId(id.parse().unwrap()), is(word))),
            ["address", ip, word] => seen.addresses.push((ip.parse().unwrap(), is(word))),
            ["script", word] => seen.script = is(word),
            ["plan"] => break,
            other => panic!("unknown line {other:?}"),
        }
    }
    let expected = lines.map(str::to_string).collect();
    (plan(target, &seen).into_iter().map(line_of).collect(), expected)
}

#[test]
fn every_situation_has_its_plan() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/plan");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let (found, expected) = check(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(found, expected, "{}", path.display());
        count += 1;
    }
    assert!(count >= 5, "{count} situations");
}
