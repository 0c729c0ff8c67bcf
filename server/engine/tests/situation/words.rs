//! The words of a situation: the cluster below `given`, and what happens after `when`.

use crate::common::{MS, World, config as base};
use wire::config::{GroupConfig, MountConfig, SetConfig};
use wire::rules::{Failover, GroupRules, StopFailure};
use wire::{ClusterConfig, GroupId, NodeId, Operation, SetId};

/// Groups are called A, B, ...
pub fn group(word: &str) -> GroupId {
    let letter = word.bytes().next().filter(|b| word.len() == 1 && b.is_ascii_uppercase());
    GroupId(u16::from(letter.unwrap_or_else(|| panic!("{word}: a group is one capital letter")) - b'A') + 1)
}

/// The name of a group.
pub fn letter(group: GroupId) -> String {
    char::from(b'A' + u8::try_from(group.0).unwrap() - 1).to_string()
}

fn server(word: &str) -> NodeId {
    assert!(word == "1" || word == "2", "{word}: a server is 1 or 2");
    NodeId(word.parse().unwrap())
}

fn servers(word: &str) -> Vec<NodeId> {
    if word == "both" { NodeId::BOTH.to_vec() } else { vec![server(word)] }
}

/// The cluster.
pub fn config(given: &[String]) -> ClusterConfig {
    let mut config = base();
    let set = config.sets.remove(0);
    let files = config.groups.remove(0);
    for line in given {
        let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
        match words.as_slice() {
            ["group", name, "at", "home", "on", home, rest @ ..] => {
                add_group(&mut config, (&files, &set), group(name), server(home), rest);
            }
            ["no", "witness"] => config.witness = None,
            ["recovery", "automatic"] => config.auto_recover = true,
            other => panic!("given {other:?}: not understood"),
        }
    }
    assert_eq!(config.faults(), [], "the cluster of a situation is a valid one");
    config
}

fn add_group(
    config: &mut ClusterConfig,
    (files, data): (&GroupConfig, &SetConfig),
    id: GroupId,
    home: NodeId,
    words: &[&str],
) {
    let (mut sets, mut addresses) = (1_u16, 1_u8);
    let mut made = GroupConfig {
        id,
        name: letter(id),
        policy: vec![home, home.twin()],
        rules: GroupRules::default(),
        ..files.clone()
    };
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let mut number = || words.next().expect("a number").parse::<u16>().expect("a number");
        match word {
            "only" => made.policy.truncate(1),
            "manual" => made.auto_start = false,
            "exclusive" => made.rules.failover = Failover::Exclusive,
            "failback" => made.rules.failback = true,
            "fences" => made.rules.stop_failure = StopFailure::Fence,
            "sets" => sets = number(),
            "addresses" => addresses = u8::try_from(number()).unwrap(),
            "retries" => made.rules.retries = u8::try_from(number()).unwrap(),
            "takeovers" => made.rules.takeovers = u8::try_from(number()).unwrap(),
            "minutes" => made.rules.period_minutes = number(),
            other => panic!("group {other}: not understood"),
        }
    }
    let ids: Vec<SetId> = (0..sets).map(|n| SetId(id.0 * 10 + n)).collect();
    made.mounts = ids
        .iter()
        .map(|set| MountConfig { set: *set, point: format!("/mnt/{}", set.0), ..files.mounts[0].clone() })
        .collect();
    made.addresses = (0..addresses).map(|n| [10, 1, id.0.try_into().unwrap(), 100 + n].into()).collect();
    config.sets.extend(ids.iter().map(|set| SetConfig {
        id: *set,
        name: format!("set{}", set.0),
        group: id,
        backing: [format!("/a{}", set.0), format!("/b{}", set.0)],
        port: 29_100 + set.0,
        source: home,
        ..data.clone()
    }));
    config.groups.push(made);
}

/// What must be so before anything is switched on.
pub fn prepare(world: &mut World, given: &[String]) {
    if given.iter().any(|line| line == "no witness") {
        world.witness_off();
    }
}

/// One thing happens.
pub fn happen(world: &mut World, what: &str, refused: &mut Vec<String>) {
    let words: Vec<&str> = what.split_whitespace().collect();
    match words.as_slice() {
        ["all", "runs"] => {
            NodeId::BOTH.into_iter().for_each(|s| world.power_on(s));
            super::rest(world);
            super::forget(world);
        }
        ["all", "rests"] => {
            super::rest(world);
            super::forget(world);
        }
        ["power", "on", which] => servers(which).into_iter().for_each(|s| world.power_on(s)),
        ["power", "off", which] => servers(which).into_iter().for_each(|s| world.power_off(s)),
        ["node", "process", "of", n, "killed"] => world.node_kill(server(n)),
        ["node", "process", "of", n, "started"] => world.node_start(server(n)),
        ["cables", "cut"] => world.cut_all(),
        ["cables", "mended"] => world.mend(),
        ["witness", "off"] => world.witness_off(),
        ["witness", "on"] => world.witness_on(),
        ["witness", "unreachable", "from", n] => world.cut_witness(server(n)),
        ["witness", "reachable", "from", n] => {
            world.witness_reach.insert(server(n));
            world.witness_on();
        }
        [seconds, "s", "pass"] => world.run(seconds.parse::<u64>().unwrap() * 1_000),
        [ms, "ms", "pass"] => world.run(ms.parse().unwrap()),
        ["on", n, rest @ ..] => on_host(world, server(n), rest),
        ["stranger", "takes", "address", "of", name] => {
            let config = world.config.group(group(name)).unwrap();
            world.strangers.extend(config.addresses.clone());
        }
        ["stranger", "leaves"] => world.strangers.clear(),
        ["operator", "at", n, rest @ ..] => order(world, server(n), rest, refused),
        other => panic!("when {other:?}: not understood"),
    }
}

/// A step of a group on a server goes wrong: `mount of A fails`, `mount of A fails 2 times`, `mount of A hangs`.
fn on_host(world: &mut World, on: NodeId, words: &[&str]) {
    let (name, rest) = match words {
        ["stop", "script", rest @ ..] => ("StopScript", rest),
        ["start", "script", rest @ ..] => ("StartScript", rest),
        ["mount", rest @ ..] => ("Mount", rest),
        ["unmount", rest @ ..] => ("Unmount", rest),
        ["address", rest @ ..] => ("AddAddress", rest),
        ["removal", "of", "address", rest @ ..] => ("RemoveAddress", rest),
        ["disk", rest @ ..] => ("disk", rest),
        ["everything", "works"] => {
            let host = world.host(on);
            (host.fails, host.hangs) = Default::default();
            host.disks.values_mut().for_each(|disk| disk.refuse = None);
            return;
        }
        other => panic!("on {other:?}: not understood"),
    };
    let ["of", letter, what @ ..] = rest else { panic!("of which group: {rest:?}") };
    let id = group(letter);
    let set = world.config.sets.iter().find(|s| s.group == id).map(|s| s.id).unwrap();
    match (name, what) {
        ("disk", ["refuses"]) => {
            let reason = "the disk is not ready".to_string();
            let fault = peer::control::OrderFault::Io { reason };
            world.host(on).disks.get_mut(&set).unwrap().refuse = Some(fault);
        }
        ("disk", ["breaks"]) => world.break_disk(on, set),
        ("disk", ["process", "ends"]) => world.lose_disk(on, set),
        ("disk", ["process", "returns"]) => world.restart_disk(on, set),
        ("disk", other) => panic!("disk {other:?}: not understood"),
        (name, ["fails"]) => {
            world.host(on).fails.insert((name.into(), id), u32::MAX);
        }
        (name, ["fails", times, "times"]) => {
            world.host(on).fails.insert((name.into(), id), times.parse().unwrap());
        }
        (name, ["hangs"]) => {
            world.host(on).hangs.insert((name.into(), id));
        }
        (_, other) => panic!("{other:?}: not understood"),
    }
}

fn operation(words: &[&str]) -> Operation {
    match words {
        ["starts", name, "on", n] => Operation::StartGroup { group: group(name), on: server(n) },
        ["stops", "the", "cluster"] => Operation::StopCluster,
        ["starts", "the", "cluster"] => Operation::StartCluster,
        ["stops", "server", n] => Operation::StopServer { server: server(n) },
        ["starts", "server", n] => Operation::StartServer { server: server(n) },
        ["recovers", "server", n] => Operation::RecoverServer { server: server(n) },
        ["builds", "copy", "of", name, "on", n] => {
            Operation::BuildSet { set: SetId(group(name).0 * 10), to: server(n) }
        }
        ["stops", name] => Operation::StopGroup { group: group(name) },
        ["moves", name, "to", n] => Operation::MoveGroup { group: group(name), to: server(n) },
        ["keeps", name] => Operation::KeepGroup { group: group(name) },
        ["frees", name] => Operation::FreeGroup { group: group(name) },
        ["begins", "maintenance"] => Operation::Maintain { on: true },
        ["ends", "maintenance"] => Operation::Maintain { on: false },
        other => panic!("operator {other:?}: not understood"),
    }
}

fn order(world: &mut World, at: NodeId, words: &[&str], refused: &mut Vec<String>) {
    // Somebody gives an order for what he looked at before.
    let (late, words) = match words {
        ["late", rest @ ..] => (true, rest),
        all => (false, all),
    };
    let revision = if late { wire::Revision(1) } else { world.view(at).revision };
    let what = operation(words);
    if let Err(kind) = world.command_of(at, what, revision) {
        let said = wire::text::refusal(wire::text::Lang::En, kind);
        refused.push(format!("refused {}: {}. {}.", said.number, said.why, said.first));
    }
    world.run(MS / 100);
}
