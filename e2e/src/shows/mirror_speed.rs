//! How fast the mirrored device is: beside the best durable peer and bare devices, interleaved in one run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Map, json};

use super::Options;
use crate::command;
use crate::fio::{self, Figures, Target, Workload};
use crate::quorum::Quorum;
use crate::report::{Outcome, Table};
use crate::rig::{Plan, Rig};

/// Bytes of every device.
const SIZE: u64 = 1 << 30;
/// Goals of the issue: name of the figure, least value.
const GOALS: &[(&str, f64)] = &[
    ("a", 2.0),
    ("b", 3.0),
    ("c", 1.4),
    ("d", 2.5),
    ("e", 2.2),
    ("b_raw2", 0.5),
    ("qd1_loop", 0.6),
    ("d_loop", 0.75),
    ("e_loop", 0.66),
];
const LIMIT: Duration = Duration::from_secs(120);

/// Every figure of one target and workload, a round each.
type Rounds = BTreeMap<(&'static str, Workload), Vec<Figures>>;

/// `rounds=3 seconds=2`; `only=b,qd1` and `devices=loop,futago` narrow it down while one works on it.
pub fn run(options: &Options) -> Result<Outcome> {
    let rounds = options.figure("rounds", 3)?;
    let seconds = options.figure("seconds", 2)? as f64;
    let listed = |name: &'static str| {
        move |word: &str| options.text(name).is_none_or(|words| words.split(',').any(|one| one == word))
    };
    let (wanted, present) = (listed("only"), listed("devices"));
    let folder = tempfile::Builder::new().prefix("futago-speed-").tempdir()?;
    let mut rig = Rig::new(&Plan { size: SIZE, filled: true, ..Plan::default() })?;
    let image = |name: &str| image(folder.path(), &rig, name);
    let mut targets: Vec<(&'static str, Target)> = Vec::new();
    if present("raw") || present("raw2") {
        let both = vec![image("raw")?, image("raw-2")?];
        targets.push(("raw", Target::Files(both.iter().take(1).cloned().collect())));
        targets.push(("raw2", Target::Files(both)));
    }
    let mut bare = None;
    if present("loop") {
        let attached = bare.insert(Loop::attach(&image("loop")?)?);
        targets.push(("loop", Target::Files(vec![attached.0.clone()])));
    }
    let mut quorum = None;
    if present("quorum") {
        let names = (rig.one.namespace.as_str(), rig.two.namespace.as_str());
        let images = [image("quorum-1")?, image("quorum-2")?];
        let started = quorum.insert(Quorum::start(folder.path(), &images, names, "10.78.1.2")?);
        targets.push(("quorum", Target::Nbd(started.uri())));
    }
    rig.build()?;
    targets.push(("futago", Target::Files(vec![rig.one.device()?.display().to_string()])));
    let mut all = Rounds::new();
    for round in 0..rounds {
        for workload in Workload::ALL.into_iter().filter(|one| wanted(one.name())) {
            for (name, target) in &targets {
                if *name == "raw2" && workload != Workload::B {
                    continue;
                }
                let figures = fio::run(workload, target, SIZE, seconds)
                    .with_context(|| format!("{name}, workload {}", workload.name()))?;
                eprintln!("round {round} {:>3} {name:>7}: {:>8.0} /s", workload.name(), figures.iops);
                all.entry((name, workload)).or_default().push(figures);
            }
        }
    }
    Ok(judge(&all))
}

fn judge(all: &Rounds) -> Outcome {
    let mut table = Table::new(&["workload", "device", "per s", "to loop", "p50 us", "p99 us", "cpu s/100k"]);
    for workload in Workload::ALL {
        for ((name, _), rounds) in all.iter().filter(|((_, of), _)| *of == workload) {
            let middle = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
            let to_loop =
                ratio(all, workload, name, "loop").map_or(String::new(), |ratio| format!("{ratio:.2}"));
            table.row(&[
                workload.name().to_owned(),
                (*name).to_owned(),
                format!("{:.0}", middle(|figures| figures.iops)),
                to_loop,
                format!("{:.0}", middle(|figures| figures.p50_us)),
                format!("{:.0}", middle(|figures| figures.p99_us)),
                format!("{:.2}", middle(|figures| figures.cpu_s)),
            ]);
        }
    }
    table.print();
    let mut facts = Map::new();
    let mut add = |name: String, workload, to| {
        if let Some(ratio) = ratio(all, workload, "futago", to) {
            facts.insert(name, json!((ratio * 1000.0).round() / 1000.0));
        }
    };
    for workload in Workload::ALL {
        if workload != Workload::Qd1 {
            add(workload.name().to_owned(), workload, "quorum");
        }
        if workload != Workload::A {
            add(format!("{}_loop", workload.name()), workload, "loop");
        }
    }
    add("b_raw2".to_owned(), Workload::B, "raw2");
    for workload in [Workload::B, Workload::Qd1] {
        if let Some(rounds) = all.get(&("futago", workload)) {
            let cpu = median(rounds.iter().map(|figures| figures.cpu_s).collect());
            facts.insert(format!("{}_cpu_s", workload.name()), json!((cpu * 100.0).round() / 100.0));
        }
    }
    let mut goals = Table::new(&["figure", "goal", "measured", ""]);
    let mut holds = true;
    for (name, goal) in GOALS {
        let found = facts.get(*name).and_then(serde_json::Value::as_f64);
        let met = found.is_some_and(|found| found >= *goal);
        holds &= met;
        let shown = found.map_or("not measured".to_owned(), |found| format!("{found:.2}"));
        let word = if met { "holds" } else { "MISSED" };
        goals.row(&[(*name).to_owned(), format!("{goal}"), shown, word.to_owned()]);
    }
    println!();
    goals.print();
    Outcome::new(holds, serde_json::Value::Object(facts))
}

/// The median over the rounds of one device's requests a second divided by another's in the same round.
fn ratio(all: &Rounds, workload: Workload, of: &str, to: &str) -> Option<f64> {
    let find = |name: &str| all.iter().find(|((found, at), _)| *found == name && *at == workload);
    let (of, to) = (find(of)?.1, find(to)?.1);
    Some(median(of.iter().zip(to).map(|(of, to)| of.iops / to.iops.max(1.0)).collect()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// An image without holes for a device that is not ours: a copy of ours' random content. Its path.
fn image(folder: &Path, rig: &Rig, name: &str) -> Result<String> {
    let path = folder.join(name);
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", rig.one.image().display())).arg(format!("of={}", path.display()));
    dd.args(["bs=4M", "iflag=skip_bytes,count_bytes", "oflag=direct", "conv=fsync", "status=none"]);
    dd.arg(format!("skip={}", rig.one.data_at()?)).arg(format!("count={SIZE}"));
    command::output(&mut dd, LIMIT)?;
    anyhow::ensure!(fs::metadata(&path)?.len() == SIZE, "{name} has the wrong length");
    Ok(path.display().to_string())
}

/// A bare loop device with direct I/O.
struct Loop(String);

impl Loop {
    fn attach(image: &str) -> Result<Self> {
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show", "--direct-io=on"]).arg(image);
        Ok(Self(command::output(&mut losetup, LIMIT)?.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = command::output(Command::new("losetup").args(["--detach", &self.0]), LIMIT);
    }
}
