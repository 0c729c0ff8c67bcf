//! `failover-gap`: how long users wait when the active server loses power, and when a group is moved, beside the peers.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use wire::command::Operation;
use wire::ids::{GroupId, NodeId};
use wire::view::{GroupState, PartKind};

use super::Options;
use crate::lab::{Lab, Setup};
use crate::peers::{self, Peer};
use crate::probe::{Gap, Prober};
use crate::report::{Outcome, Table, spread};
use crate::scenes;
use crate::writer::now_us;

/// Power losses with each profile, as the claim asks.
const RUNS: u64 = 20;
/// Runs of each peer: each is set up anew (Pacemaker for half a minute), and their figures are known to spread little.
const PEER_RUNS: u64 = 3;
/// Moves of each group with each profile.
const MOVES: u64 = 5;
/// Minutes of the fast profile under load, without a fault.
const MINUTES: u64 = 30;
/// Processes that do nothing but compute meanwhile.
const LOAD: usize = 4;

/// Goals in milliseconds, from detection to service and as a whole (the peers: Pacemaker 6613, keepalived 3091 by default).
const DEFAULT_MS: u64 = 2_300;
const FAST_MS: u64 = 600;
const REST_DISK_MS: u64 = 150;
const REST_ADDRESS_MS: u64 = 25;
const MOVE_DISK_MS: u64 = 250;
const MOVE_ADDRESS_MS: u64 = 30;

/// The group with disk, address and application, and the one with an address only.
const DISK: GroupId = GroupId(1);
const ADDRESS: GroupId = GroupId(2);
/// Where they answer: the demo's floating IPs.
const DISK_SERVICE: &str = "10.77.0.100:8080";
const ADDRESS_SERVICE: &str = "10.77.0.101:7007";
/// Behind the end of a gap, so that a second one would be seen.
const TAIL: Duration = Duration::from_millis(500);

/// The show.
///
/// # Errors
/// When a run does not come to its end.
pub fn run(options: &Options) -> Result<Outcome> {
    let runs = options.figure("runs", RUNS)?;
    let peer_runs = options.figure("peers", PEER_RUNS)?;
    let minutes = options.figure("minutes", MINUTES)?;
    let usual = Measured::take("default", runs)?;
    let fast = Measured::take("fast", runs)?;
    let mut table = Table::new(&["who", "runs", "gap ms min", "median", "max", "moves data"]);
    row(&mut table, "futago, default: disk, address, application", &usual.disk, "yes");
    row(&mut table, "futago, default: address only", &usual.address, "no");
    row(&mut table, "futago, fast: disk, address, application", &fast.disk, "yes");
    row(&mut table, "futago, fast: address only", &fast.address, "no");
    let peers = [Peer::Keepalived(1_000), Peer::Keepalived(100), Peer::Pacemaker(0), Peer::Pacemaker(1_000)];
    let mut gaps = [const { Vec::new() }; 4];
    for number in 1..=peer_runs {
        for (peer, gaps) in peers.iter().zip(&mut gaps) {
            let gap = peers::power_loss(*peer)?.ms();
            println!("peer run {number}: {}: {gap} ms", peer.title());
            gaps.push(gap);
        }
    }
    for (peer, gaps) in peers.iter().zip(&gaps) {
        row(&mut table, &peer.title(), gaps, "no");
    }
    let (false_failovers, put_out) = soak(minutes)?;
    println!();
    table.print();
    let rest_disk = median(&[usual.rest_disk.clone(), fast.rest_disk.clone()].concat());
    let rest_address = median(&[usual.rest_address.clone(), fast.rest_address.clone()].concat());
    let move_disk = median(&[usual.move_disk.clone(), fast.move_disk.clone()].concat());
    let move_address = median(&[usual.move_address.clone(), fast.move_address.clone()].concat());
    let (default_ms, fast_ms) = (median(&usual.disk), median(&fast.disk));
    let mut goals = Table::new(&["figure", "median ms", "goal"]);
    let figures = [
        ("default_ms", default_ms, DEFAULT_MS),
        ("fast_ms", fast_ms, FAST_MS),
        ("rest_disk_ms", rest_disk, REST_DISK_MS),
        ("rest_address_ms", rest_address, REST_ADDRESS_MS),
        ("move_disk_ms", move_disk, MOVE_DISK_MS),
        ("move_address_ms", move_address, MOVE_ADDRESS_MS),
        ("false_failovers", false_failovers, 0),
    ];
    for (name, found, goal) in figures {
        goals.row(&[name.to_owned(), found.to_string(), goal.to_string()]);
    }
    println!();
    goals.print();
    println!(
        "\nrest: from the product's own verdict to the first answer. Fast profile under load {LOAD}: {minutes} min, \
         {false_failovers} false failovers, the standby put out {put_out} times"
    );
    let holds = figures.iter().all(|(_, found, goal)| found <= goal) && runs > 0 && minutes >= MINUTES;
    let peer = |index: usize| gaps.get(index).map(|gaps| median(gaps));
    let facts = json!({
        "runs": runs, "default_ms": default_ms, "fast_ms": fast_ms, "rest_disk_ms": rest_disk,
        "rest_address_ms": rest_address, "move_disk_ms": move_disk, "move_address_ms": move_address,
        "false_failovers": false_failovers, "soak_minutes": minutes, "standby_put_out": put_out,
        "default_address_ms": median(&usual.address), "fast_address_ms": median(&fast.address),
        "keepalived_default_ms": peer(0), "keepalived_fast_ms": peer(1),
        "pacemaker_default_ms": peer(2), "pacemaker_token1000_ms": peer(3),
    });
    Ok(Outcome::new(holds, facts))
}

fn median(figures: &[u64]) -> u64 {
    spread(figures).1
}

fn row(table: &mut Table, who: &str, gaps: &[u64], data: &str) {
    let (least, middle, most) = spread(gaps);
    let cells = [gaps.len() as u64, least, middle, most].map(|figure| figure.to_string());
    let [count, least, middle, most] = cells;
    table.row(&[who.to_owned(), count, least, middle, most, data.to_owned()]);
}

/// The figures of one profile, in milliseconds.
#[derive(Debug, Default)]
struct Measured {
    disk: Vec<u64>,
    address: Vec<u64>,
    rest_disk: Vec<u64>,
    rest_address: Vec<u64>,
    move_disk: Vec<u64>,
    move_address: Vec<u64>,
}

impl Measured {
    fn take(timing: &'static str, runs: u64) -> Result<Measured> {
        let mut found = Measured::default();
        let mut scene = Scene::start(timing)?;
        for number in 1..=runs {
            if let Err(error) = scene.power_loss(number, &mut found) {
                let kept = scene.lab.keep(&format!("failover-gap-{timing}"))?;
                return Err(error.context(format!("{timing}, run {number}: records: {}", kept.display())));
            }
        }
        for _ in 0..MOVES.min(runs) {
            found.move_disk.push(scene.moved(DISK)?);
            found.move_address.push(scene.moved(ADDRESS)?);
        }
        println!("{timing}: moves: disk {:?} ms, address {:?} ms\n", found.move_disk, found.move_address);
        scene.end()?;
        Ok(found)
    }
}

/// A lab with both groups and an echo for the one that is an address only.
struct Scene {
    timing: &'static str,
    lab: Lab,
    echoes: Vec<(NodeId, Child)>,
}

impl Scene {
    fn start(timing: &'static str) -> Result<Scene> {
        let setup = Setup { auto_recover: true, timing, address_group: true, ..Setup::default() };
        let lab = Lab::start(&setup)?;
        let mut scene = Scene { timing, lab, echoes: Vec::new() };
        for server in NodeId::BOTH {
            scene.echo(server)?;
        }
        Ok(scene)
    }

    /// Starts the echo on a server: it dies with its host.
    fn echo(&mut self, server: NodeId) -> Result<()> {
        self.echoes.retain_mut(|(on, child)| {
            let ended = *on == server;
            if ended {
                let _ = child.kill();
                let _ = child.wait();
            }
            !ended
        });
        let mut echo = self.lab.exec(&scenes::name(server));
        echo.arg(crate::paths::x()?).args(["echo", ADDRESS_SERVICE, &scenes::name(server)]);
        echo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.echoes.push((server, echo.spawn().context("start the echo")?));
        Ok(())
    }

    fn probe(&self, group: GroupId) -> Result<Prober> {
        let address = if group == DISK { DISK_SERVICE } else { ADDRESS_SERVICE };
        let told = self.lab.folder().join(format!("probe-{}.told", group.0));
        Prober::start(self.lab.exec("client"), address, told)
    }

    /// Waits until the pair is healthy and both groups run on one server; that one.
    fn settled(&mut self) -> Result<NodeId> {
        let active = self.lab.wait_healthy(scenes::RECOVER)?;
        let beside =
            self.lab.wait("the address group runs", scenes::RECOVER, |status| running(status, ADDRESS))?;
        if beside != active {
            self.lab.operate(active, Operation::MoveGroup { group: ADDRESS, to: active })?;
            self.lab.wait("the address group follows", scenes::TAKE_OVER, |status| {
                (running(status, ADDRESS) == Some(active)).then_some(())
            })?;
        }
        Ok(active)
    }

    fn power_loss(&mut self, number: u64, found: &mut Measured) -> Result<()> {
        let victim = self.settled()?;
        let winner = victim.twin();
        let (by_victim, by_winner) = (scenes::name(victim), scenes::name(winner));
        let probes = [self.probe(DISK)?, self.probe(ADDRESS)?];
        for probe in &probes {
            probe.wait_for(0, scenes::TAKE_OVER, |by| by == by_victim)?;
        }
        // Another phase of every timer in each run.
        std::thread::sleep(Duration::from_millis(300 + now_us() % 1_000));
        let cut_us = now_us();
        self.lab.demo(&["kill", &by_victim])?;
        for probe in &probes {
            probe.wait_for(cut_us, scenes::TAKE_OVER, |by| by == by_winner)?;
        }
        std::thread::sleep(TAIL);
        let gaps = [0, 1].map(|index: usize| Gap::longest(&probes[index].heard().ok()?, cut_us));
        drop(probes);
        let [Some(disk), Some(address)] = gaps else { anyhow::bail!("the probes told nothing") };
        ensure!(
            disk.by == by_winner && address.by == by_winner,
            "the gap ended elsewhere: {disk:?} {address:?}"
        );
        let (judged_us, parts) = self.verdict(winner)?;
        let rest = |gap: &Gap| (gap.end_us.saturating_sub(judged_us) + 500) / 1_000;
        println!(
            "{} run {number}: {by_victim} lost: disk {} ms (rest {}), address {} ms (rest {}); {parts}",
            self.timing,
            disk.ms(),
            rest(&disk),
            address.ms(),
            rest(&address)
        );
        found.disk.push(disk.ms());
        found.address.push(address.ms());
        found.rest_disk.push(rest(&disk));
        found.rest_address.push(rest(&address));
        self.lab.demo(&["restart", &by_victim])?;
        self.lab.wait_healthy(scenes::RECOVER)?;
        self.echo(victim)
    }

    /// When the winner judged the victim (microseconds since 1970), and where its time went by its own incident record.
    fn verdict(&mut self, winner: NodeId) -> Result<(u64, String)> {
        let incident = self.lab.wait("the incident's record", scenes::TAKE_OVER, |status| {
            let view = status.server(winner).ok()?.view.as_ref()?;
            view.incident.clone().filter(|one| one.total_ms.is_some())
        })?;
        let detection = incident.parts.iter().find(|part| part.kind == PartKind::Detection);
        let detection_ms = detection.context("a detection")?.ms;
        let parts: Vec<String> =
            incident.parts.iter().map(|part| format!("{:?} {}", part.kind, part.ms)).collect();
        Ok(((incident.began.0 + detection_ms) * 1_000, parts.join(", ")))
    }

    /// Moves a group to the other server; the gap in milliseconds.
    fn moved(&mut self, group: GroupId) -> Result<u64> {
        self.lab.wait_healthy(scenes::RECOVER)?;
        let from = self.lab.wait("the group runs", scenes::RECOVER, |status| running(status, group))?;
        let probe = self.probe(group)?;
        let (by_old, by_new) = (scenes::name(from), scenes::name(from.twin()));
        probe.wait_for(0, scenes::TAKE_OVER, |by| by == by_old)?;
        std::thread::sleep(Duration::from_millis(300));
        let ordered_us = now_us();
        self.lab.operate(from, Operation::MoveGroup { group, to: from.twin() })?;
        probe.wait_for(ordered_us, scenes::TAKE_OVER, |by| by == by_new)?;
        std::thread::sleep(TAIL);
        Ok(Gap::longest(&probe.heard()?, ordered_us).context("the probe told nothing")?.ms())
    }

    fn end(mut self) -> Result<()> {
        self.settled()?;
        for (_, echo) in &mut self.echoes {
            let _ = echo.kill();
            let _ = echo.wait();
        }
        self.lab.end()
    }
}

/// Where a group runs, if both servers say the same.
fn running(status: &crate::lab::Status, group: GroupId) -> Option<NodeId> {
    let said: Vec<Option<NodeId>> = status
        .views()
        .map(|view| {
            let found = view.groups.iter().find(|one| one.id == group)?;
            found.active.filter(|_| found.state == GroupState::Running)
        })
        .collect();
    match said.as_slice() {
        [one, other] if one == other => *one,
        _ => None,
    }
}

/// The fast profile under load without any fault: terms that began and failovers told, and how often the standby was put out.
fn soak(minutes: u64) -> Result<(u64, u64)> {
    if minutes == 0 {
        return Ok((0, 0));
    }
    let mut scene = Scene::start("fast")?;
    scene.settled()?;
    let before = terms(&mut scene.lab)?;
    let load = Load::begin(LOAD)?;
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_secs(1));
    }
    let after = terms(&mut scene.lab)?;
    let logs =
        NodeId::BOTH.map(|server| scene.lab.node_log(server)).into_iter().collect::<Result<String>>()?;
    let told =
        |word: &str| logs.lines().filter(|line| line.contains("event: ") && line.contains(word)).count();
    let failed_over = after.saturating_sub(before).max(told("GroupFailedOver") as u64);
    let put_out = told("MirrorAlone") as u64;
    drop(load);
    if failed_over > 0 {
        println!("records of the false failovers: {}", scene.lab.keep("failover-gap-load")?.display());
    }
    scene.end()?;
    Ok((failed_over, put_out))
}

/// The terms of all groups together: each change of a holder raises one.
fn terms(lab: &mut Lab) -> Result<u64> {
    lab.wait("a view", scenes::TAKE_OVER, |status| {
        status.views().map(|view| view.groups.iter().map(|group| group.epoch.0).sum()).max()
    })
}

/// Processes that compute; they end with this value.
struct Load(Vec<Child>);

impl Load {
    fn begin(count: usize) -> Result<Load> {
        let spin = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().context("start a load");
        (0..count).map(|_| spin()).collect::<Result<_>>().map(Load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
