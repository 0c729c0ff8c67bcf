//! `sim engine ...`: many runs of the kind that concerns the engine most, a failing run as a file, its replay and its shrink.

use sim::bugs;
use sim::runner;
use sim::shrink::{self, Run, Small};
use sim::trace::Detail;
use sim::world::{Bugs, Options, World};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
usage: sim engine SEED [--all]                     one run, traced
       sim engine --seeds N [--from S] [--jobs J]  many
       sim engine shrink SEED [--bug NAME] [FILE]  a failing run made smaller; FILE: written there
       sim engine replay FILE [--all] [--step N]   a run from its file; --step: so many events at a time, Enter goes on
       sim engine show [--seeds N] [--jobs J]      seeds, bugs, a shrink in one run; the last line is JSON";
/// Wanted words come with a number.
const NUMBERS: [&str; 4] = ["--seeds", "--from", "--jobs", "--step"];
/// Between two lines of progress, in seconds.
const PROGRESS_S: u64 = 15;
/// The bug whose failing run is shrunk for a show.
const SHOWN_BUG: &str = "never_fence";
/// Seeds of which the longest shrink is shown: the first that fail with that bug.
const SHRINKS: usize = 3;
/// Microseconds of an hour.
const HOUR: f64 = 3_600e6;

/// What the words say.
#[derive(Default)]
struct Words {
    plain: Vec<String>,
    numbers: Vec<(String, u64)>,
    bug: Option<String>,
    all: bool,
}

impl Words {
    fn read(words: &[String]) -> Option<Words> {
        let mut found = Words::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--all" => found.all = true,
                "--bug" => found.bug = Some(words.next()?.clone()),
                number if NUMBERS.contains(&number) => {
                    found.numbers.push((number.to_string(), words.next()?.parse().ok()?));
                }
                _ => found.plain.push(word.clone()),
            }
        }
        Some(found)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.numbers.iter().find(|(given, _)| given == name).map(|(_, value)| *value)
    }

    fn options(&self) -> Option<Options> {
        let bugs = match &self.bug {
            None => Bugs::default(),
            Some(name) => bugs::all().into_iter().find(|(known, _)| known == name)?.1,
        };
        Some(Options { engine: true, bugs, ..Options::default() })
    }
}

/// The words after `engine`.
pub(crate) fn main(words: &[String]) -> ExitCode {
    let usage = || {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    };
    let Some(words) = Words::read(words) else { return usage() };
    let Some(options) = words.options() else { return usage() };
    let plain: Vec<&str> = words.plain.iter().map(String::as_str).collect();
    match plain.as_slice() {
        ["show"] => show(&words),
        ["replay", file] => replay(file, &words),
        ["shrink", seed, rest @ ..] => match seed.parse() {
            Ok(seed) => shrunk(seed, &words, &options, rest.first().copied()),
            Err(_) => usage(),
        },
        [] if words.number("--seeds").is_some() => {
            let (facts, failed) = many(&words);
            println!("{facts}");
            ExitCode::from(u8::from(failed))
        }
        [seed] => match seed.parse() {
            Ok(seed) => traced(seed, &Options { detail: detail(&words), print: true, ..options }, 0),
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn detail(words: &Words) -> Detail {
    if words.all { Detail::All } else { Detail::Steps }
}

/// A run with its trace; `step`: so many events at a time.
fn traced(seed: u64, options: &Options, step: u64) -> ExitCode {
    let mut world = World::new(seed, options.clone());
    world.stop_every = step;
    world.run();
    let seconds = world.queue.now() as f64 / 1e6;
    match &world.failure {
        None => {
            println!("seed {seed}: ok, {} events in {seconds:.1} simulated seconds", world.events);
            ExitCode::SUCCESS
        }
        Some(failure) => {
            println!("seed {seed}: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn many(words: &Words) -> (serde_json::Value, bool) {
    let from = words.number("--from").unwrap_or(1);
    let seeds = words.number("--seeds").unwrap_or(100);
    let began = Instant::now();
    let (mut done, mut events, mut simulated, mut failures) = (0_u64, 0_u64, 0_f64, Vec::new());
    let mut next = PROGRESS_S;
    let options = Options { engine: true, ..Options::default() };
    runner::run_many(from, seeds, words.number("--jobs").unwrap_or(1), &options, |ended| {
        done += 1;
        events += ended.events;
        simulated += ended.simulated as f64 / HOUR;
        if let Some(failure) = &ended.failure {
            println!("seed {}: {}", ended.seed, failure.to_string().chars().take(300).collect::<String>());
            failures.push(ended.seed);
        }
        let seconds = began.elapsed();
        if seconds.as_secs() >= next {
            next = seconds.as_secs() + PROGRESS_S;
            let rate = done as f64 / seconds.as_secs_f64();
            println!("{done} of {seeds} seeds, {rate:.0} a second, {simulated:.0} cluster-hours");
        }
        true
    });
    let seconds = began.elapsed().as_secs_f64();
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let failed = !failures.is_empty();
    let facts = serde_json::json!({
        "seeds": done,
        "violations": failures.len(),
        "failed_seeds": failures,
        "events": events,
        "cluster_hours": rounded(simulated),
        "seeds_per_s": rounded(done as f64 / seconds),
        "cluster_hours_per_s": rounded(simulated / seconds),
    });
    (facts, failed)
}

/// The file of a smaller run.
fn file_of(seed: u64, bug: Option<&str>, small: &Small) -> Run {
    let ended = small.ended.failure.as_ref().map_or_else(|| "ok".to_string(), ToString::to_string);
    Run { seed, engine: true, bug: bug.map(str::to_string), plan: small.plan.clone(), ended }
}

fn shrunk(seed: u64, words: &Words, options: &Options, file: Option<&str>) -> ExitCode {
    let Some(small) = shrink::shrink(seed, options) else {
        println!("seed {seed} does not fail");
        return ExitCode::from(1);
    };
    tell_small(seed, options, &small);
    let Some(file) = file else { return ExitCode::SUCCESS };
    let text = serde_json::to_string_pretty(&file_of(seed, words.bug.as_deref(), &small)).unwrap_or_default();
    match std::fs::write(file, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{file}: {error}");
            ExitCode::from(1)
        }
    }
}

fn tell_small(seed: u64, options: &Options, small: &Small) {
    let plan = shrink::plan_of(seed, options);
    println!(
        "seed {seed}: from {} faults in {:.1} s to {} in {:.1} s, {} runs",
        plan.faults.len(),
        plan.until as f64 / 1e6,
        small.plan.faults.len(),
        small.plan.until as f64 / 1e6,
        small.runs
    );
    for (at, fault) in &small.plan.faults {
        println!("  {:>10.6} s  {fault:?}", *at as f64 / 1e6);
    }
    if let Some(failure) = &small.ended.failure {
        println!("  then: {}", failure.to_string().chars().take(300).collect::<String>());
    }
}

fn replay(file: &str, words: &Words) -> ExitCode {
    let read = std::fs::read(file).map_err(|error| error.to_string());
    let run: Run = match read.and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string())) {
        Ok(run) => run,
        Err(error) => {
            println!("{file}: {error}");
            return ExitCode::from(2);
        }
    };
    let bugs = run.bug.as_ref().and_then(|name| bugs::all().into_iter().find(|(known, _)| known == name));
    let bugs = bugs.map_or_else(Bugs::default, |(_, bugs)| bugs);
    println!("seed {}, {} faults; it ended with: {}", run.seed, run.plan.faults.len(), run.ended);
    let (plan, detail) = (Some(run.plan), detail(words));
    let options = Options { detail, print: true, bugs, plan, engine: run.engine };
    traced(run.seed, &options, words.number("--step").unwrap_or(0))
}

/// Bugs put back until each is found; how many were.
fn found_bugs(jobs: u64) -> (usize, usize) {
    let bugs = bugs::all();
    let mut found = 0;
    for (name, bug) in &bugs {
        match bugs::find(*bug, bugs::SEEDS, jobs) {
            Some((tried, ended)) => {
                found += 1;
                let failure = ended.failure.map(|f| f.to_string()).unwrap_or_default();
                let failure: String = failure.chars().take(120).collect();
                println!("{name}: found by seed {} (of {tried}): {failure}", ended.seed);
            }
            None => println!("{name}: NOT FOUND in {} seeds", bugs::SEEDS),
        }
    }
    (found, bugs.len())
}

/// The longest shrink of the first failing seeds with a bug put back.
fn longest_shrink() -> Option<serde_json::Value> {
    let (_, bug) = bugs::all().into_iter().find(|(name, _)| *name == SHOWN_BUG)?;
    let options = Options { engine: true, bugs: bug, ..Options::default() };
    let mut failing = Vec::new();
    let jobs = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    runner::run_many(1, bugs::SEEDS, jobs, &options, |ended| {
        failing.extend(ended.failure.is_some().then_some(ended.seed));
        failing.len() < SHRINKS
    });
    let all = failing.into_iter().filter_map(|seed| Some((seed, shrink::shrink(seed, &options)?)));
    let (seed, small) = all.max_by_key(|(_, small)| small.runs)?;
    println!("\n{SHOWN_BUG} put back, the longest shrink of {SHRINKS} failing runs:");
    tell_small(seed, &options, &small);
    let plan = shrink::plan_of(seed, &options);
    Some(serde_json::json!({
        "bug": SHOWN_BUG,
        "seed": seed,
        "runs": small.runs,
        "faults_before": plan.faults.len(),
        "faults_after": small.plan.faults.len(),
        "seconds_before": (plan.until as f64 / 1e5).round() / 10.0,
        "seconds_after": (small.plan.until as f64 / 1e5).round() / 10.0,
    }))
}

fn show(words: &Words) -> ExitCode {
    let (mut facts, failed) = many(words);
    println!();
    let (found, all) = found_bugs(words.number("--jobs").unwrap_or(1));
    let shrink = longest_shrink();
    let shrunk = shrink.is_some();
    if let Some(fields) = facts.as_object_mut() {
        fields.insert("bugs".into(), all.into());
        fields.insert("bugs_found".into(), found.into());
        fields.insert("shrink".into(), shrink.unwrap_or_default());
    }
    println!("{facts}");
    ExitCode::from(u8::from(failed || found < all || !shrunk))
}
