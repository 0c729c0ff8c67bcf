//! `sim mirror ...`: the world of two mirrors: one seed, many, bugs put back, the pattern of the rejoin, all of it.

use serde_json::json;
use sim::pair::{self, Ended, Focus, Options};
use std::process::ExitCode;
use std::time::Instant;
use wire::traffic::WriteMode;

const USAGE: &str = "\
usage: sim mirror SEED [--bug NAME] [--whole]      one run, traced; a failing one is shrunk first, but for --whole
       sim mirror --seeds N [--from S] [--fresh] [--jobs J] [--keep-going] [--bug NAME]
                  [--focus disk|set-back|right|old] [--mode M]
       sim mirror --bugs [--jobs J]                each bug put back until it is found
       sim mirror --rejoin [--seeds N] [--from S] [--near K] [--jobs J]
                                                   the standby returns to a survivor with a map: every fault after every
                                                   step of N schedules, and every second one after each of the K next steps
       sim mirror show [--seeds N] [--jobs J]      seeds and bugs; the last line is JSON
the mode is one of sync (unless said), semi, async, changing
exit codes: 0 ok, 1 a bug not found, 2 wrong arguments, 129 a failing seed";

/// Seeds of a run that names no number.
const SEEDS: u64 = 10_000;
/// Of the seeds of synchronous sets so many for one of another mode.
const MODES_PART: u64 = 4;
/// A failing seed.
const FAILED: u8 = 129;

#[derive(Default)]
struct Arguments {
    seed: Option<u64>,
    seeds: Option<u64>,
    from: Option<u64>,
    jobs: Option<u64>,
    near: Option<u64>,
    bug: Option<String>,
    focus: Option<String>,
    mode: WriteMode,
    changing: bool,
    words: Vec<String>,
}

impl Arguments {
    fn read(words: &[String]) -> Option<Arguments> {
        let mut found = Arguments::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|n| n.parse().ok());
            match word.as_str() {
                "--seeds" => found.seeds = Some(number()?),
                "--from" => found.from = Some(number()?),
                "--jobs" => found.jobs = Some(number()?),
                "--near" => found.near = Some(number()?),
                "--focus" => found.focus = Some(words.next()?.clone()),
                "--mode" => {
                    let word = words.next()?;
                    found.changing = word == "changing";
                    found.mode = match word.as_str() {
                        "changing" => WriteMode::Synchronous,
                        "sync" => WriteMode::Synchronous,
                        "semi" => WriteMode::SemiSynchronous,
                        "async" => WriteMode::Asynchronous,
                        _ => return None,
                    };
                }
                "--bug" => found.bug = Some(words.next()?.clone()),
                "--fresh" | "--keep-going" | "--bugs" | "--rejoin" | "--whole" | "show" => {
                    found.words.push(word.clone());
                }
                other => found.seed = Some(other.parse().ok()?),
            }
        }
        Some(found)
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }

    fn seeds(&self) -> u64 {
        self.seeds.unwrap_or(SEEDS)
    }

    fn jobs(&self) -> u64 {
        self.jobs.unwrap_or(1)
    }

    fn first(&self) -> u64 {
        self.from.unwrap_or_else(|| if self.has("--fresh") { crate::fresh() } else { 1 })
    }

    fn options(&self) -> Option<Options> {
        let (mode, changing) = (self.mode, self.changing);
        let focus = match self.focus.as_deref() {
            None => None,
            Some("disk") => Some(Focus::BadDisk),
            Some("set-back") => Some(Focus::SetBack),
            Some("right") => Some(Focus::Right),
            Some("old") => Some(Focus::Old),
            Some(_) => return None,
        };
        let Some(name) = &self.bug else {
            return Some(Options { focus, mode, changing, ..Options::default() });
        };
        let bug = pair::bugs().into_iter().find(|bug| bug.name == name)?;
        Some(Options { bug: bug.faults, focus: bug.focus, mode, changing, ..Options::default() })
    }
}

/// Runs the command line behind `sim mirror`.
pub fn main(words: &[String]) -> ExitCode {
    let arguments = Arguments::read(words);
    let Some((arguments, options)) =
        arguments.and_then(|found| found.options().map(|options| (found, options)))
    else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if arguments.has("show") {
        show(&arguments)
    } else if arguments.has("--bugs") {
        let (found, all) = put_back(&arguments);
        println!("{}", json!({ "bugs_found": found.len(), "bugs": all, "found": found }));
        ExitCode::from(u8::from(found.len() < all))
    } else if arguments.has("--rejoin") {
        rejoin(&arguments)
    } else if let Some(seed) = arguments.seed {
        one(seed, &arguments, &options)
    } else if arguments.seeds.is_some() {
        let (summary, failed) = many(&arguments, &options, arguments.seeds());
        println!("{summary}");
        ExitCode::from(if failed { FAILED } else { 0 })
    } else {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    }
}

fn one(seed: u64, arguments: &Arguments, options: &Options) -> ExitCode {
    let small = if arguments.has("--whole") { None } else { pair::shrink(seed, options) };
    let ended = match small {
        Some(small) => {
            println!(
                "seed {seed}, without faults {:?}, requests {:?}",
                small.options.without, small.options.requests
            );
            small.ended
        }
        None => pair::run(seed, Options { traced: true, ..options.clone() }),
    };
    ended.lines.iter().for_each(|line| println!("{line}"));
    match &ended.failure {
        None => {
            println!("seed {seed}: ok, {}", text_of(&ended));
            ExitCode::SUCCESS
        }
        Some(failure) => {
            println!("seed {seed}: {failure}");
            ExitCode::from(FAILED)
        }
    }
}

fn text_of(ended: &Ended) -> String {
    format!(
        "{} events, {:.2} simulated seconds, {} requests, {} writes acknowledged, {} terms, {} rebuilds, {} faults",
        ended.events,
        ended.simulated as f64 / 1e6,
        ended.requests,
        ended.acknowledged,
        ended.switches,
        ended.rebuilds,
        ended.planned
    )
}

fn many(arguments: &Arguments, options: &Options, seeds: u64) -> (serde_json::Value, bool) {
    let from = arguments.first();
    println!("seeds {from} to {}", from + seeds - 1);
    let began = Instant::now();
    let (mut done, mut sum, mut failed) = (0_u64, Ended::default(), Vec::new());
    pair::run_many(
        seeds,
        arguments.jobs(),
        |place| pair::run(from + place, options.clone()),
        |ended| {
            done += 1;
            sum.events += ended.events;
            sum.simulated += ended.simulated;
            sum.acknowledged += ended.acknowledged;
            sum.switches += ended.switches;
            sum.rebuilds += ended.rebuilds;
            sum.planned += ended.planned;
            if let Some(failure) = &ended.failure {
                println!("seed {}: {}", ended.seed, failure.chars().take(300).collect::<String>());
                failed.push(ended.seed);
            } else if done.is_multiple_of(20_000) {
                println!("{done} seeds, {:.0} a second", done as f64 / began.elapsed().as_secs_f64());
            }
            arguments.has("--keep-going") || ended.failure.is_none()
        },
    );
    let seconds = began.elapsed().as_secs_f64();
    let summary = json!({
        "seeds": done,
        "violations": failed.len(),
        "failed_seeds": failed,
        "events": sum.events,
        "simulated_hours": (sum.simulated as f64 / 3.6e8).round() / 10.0,
        "acknowledged": sum.acknowledged,
        "terms": sum.switches,
        "rebuilds": sum.rebuilds,
        "faults": sum.planned,
        "run_s": (seconds * 10.0).round() / 10.0,
        "seeds_per_s": (done as f64 / seconds).round(),
    });
    (summary, !failed.is_empty())
}

fn name(bug: &pair::Bug) -> String {
    match bug.mode {
        _ if bug.changing => format!("{} (changing)", bug.name),
        WriteMode::Synchronous => bug.name.into(),
        WriteMode::SemiSynchronous => format!("{} (semi)", bug.name),
        WriteMode::Asynchronous => format!("{} (async)", bug.name),
    }
}

fn put_back(arguments: &Arguments) -> (Vec<serde_json::Value>, usize) {
    let mut found = Vec::new();
    let all = pair::bugs();
    for bug in &all {
        match pair::find_bug(*bug, pair::BUG_SEEDS, arguments.jobs()) {
            Some((tried, ended)) => {
                let failure: String = ended.failure.unwrap_or_default().chars().take(120).collect();
                println!("{:28} seed {:>6}: {failure}", name(bug), ended.seed);
                found.push(json!({ "bug": name(bug), "seed": ended.seed, "seeds": tried }));
            }
            None => println!("{:28} NOT FOUND in {} seeds", name(bug), pair::BUG_SEEDS),
        }
    }
    (found, all.len())
}

fn rejoin(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let (from, near) = (arguments.first(), arguments.near.unwrap_or(0));
    let explored = pair::explore_rejoin(from, arguments.seeds.unwrap_or(1), near, arguments.jobs());
    for pair::Failing { seed, faults, failure } in explored.failures.iter().take(3) {
        let options = Options { rejoin: Some(faults.clone()), traced: true, ..Options::default() };
        pair::run(*seed, options).lines.iter().for_each(|line| println!("{line}"));
        println!("seed {seed}, {faults:?}: {failure}");
    }
    let summary = json!({
        "schedules": arguments.seeds.unwrap_or(1),
        "steps": explored.steps,
        "interleavings": explored.runs,
        "violations": explored.failures.len(),
        "run_s": (began.elapsed().as_secs_f64() * 10.0).round() / 10.0,
    });
    println!("{summary}");
    ExitCode::from(if explored.failures.is_empty() { 0 } else { FAILED })
}

fn show(arguments: &Arguments) -> ExitCode {
    let (mut summary, mut failed) = many(arguments, &Options::default(), arguments.seeds());
    let others = [
        ("semi", WriteMode::SemiSynchronous, false),
        ("async", WriteMode::Asynchronous, false),
        ("changing", WriteMode::Synchronous, true),
    ];
    for (name, mode, changing) in others {
        let options = Options { mode, changing, ..Options::default() };
        let (other, wrong) = many(arguments, &options, arguments.seeds() / MODES_PART);
        failed |= wrong;
        if let Some(fields) = summary.as_object_mut() {
            fields.insert(format!("{name}_seeds"), other["seeds"].clone());
            fields.insert(format!("{name}_violations"), other["violations"].clone());
        }
    }
    let (found, all) = put_back(arguments);
    if let Some(fields) = summary.as_object_mut() {
        fields.insert("bugs_found".into(), found.len().into());
        fields.insert("bugs".into(), all.into());
        fields.insert("found".into(), found.clone().into());
    }
    println!("{summary}");
    ExitCode::from(if failed { FAILED } else { u8::from(found.len() < all) })
}
