//! The simulator's command line: one seed with its trace, many seeds, the register's exhaustive check, bugs put back.

mod engine_cli;
mod mirror_cli;

use sim::bugs;
use sim::register_model::{self, Without};
use sim::register_rules;
use sim::runner;
use sim::trace::Detail;
use sim::world::{Options, World};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
usage: sim SEED [--all]                    one run, traced; --all: heartbeats and disk operations too
       sim --seeds N [--from S] [--fresh] [--jobs J] [--quiet] [--keep-going]
       sim --register                      the register's exhaustive check
       sim --bugs [NAME]                   each bug, or one, put back until it is found
       sim show [--seeds N]                seeds, bugs and register in one run; the last line is JSON
       sim engine ...                      runs that concern the engine most, replays, shrinks: `sim engine` tells its words
       sim mirror ...                      the fast world of two mirrors alone: `sim mirror` tells its words
exit codes: 0 ok, 127 crash, 128 liveness, 129 correctness, 2 wrong arguments";

#[derive(Default)]
struct Arguments {
    seed: Option<u64>,
    seeds: Option<u64>,
    from: Option<u64>,
    jobs: Option<u64>,
    bug: Option<String>,
    words: Vec<String>,
}

impl Arguments {
    fn read() -> Option<Arguments> {
        let mut found = Arguments::default();
        let mut args = std::env::args().skip(1);
        while let Some(word) = args.next() {
            let mut number = || args.next().and_then(|n| n.parse().ok());
            match word.as_str() {
                "--seeds" => found.seeds = Some(number()?),
                "--from" => found.from = Some(number()?),
                "--jobs" => found.jobs = Some(number()?),
                "--fresh" | "--quiet" | "--keep-going" | "--register" | "--bugs" | "--all" | "show" => {
                    found.words.push(word);
                }
                name if found.has("--bugs") => found.bug = Some(name.to_string()),
                other => found.seed = Some(other.parse().ok()?),
            }
        }
        Some(found)
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "mirror") {
        return mirror_cli::main(words.get(1..).unwrap_or_default());
    }
    if words.first().is_some_and(|word| word == "engine") {
        return engine_cli::main(words.get(1..).unwrap_or_default());
    }
    let Some(arguments) = Arguments::read() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if arguments.has("show") {
        show(&arguments)
    } else if arguments.has("--register") {
        let (states, code) = register();
        println!("{}", serde_json::json!({ "register_states": states, "ok": code == 0 }));
        ExitCode::from(code)
    } else if arguments.has("--bugs") {
        let (found, all) = put_back(&arguments);
        println!("{}", serde_json::json!({ "bugs_found": found.len(), "bugs": all, "found": found }));
        ExitCode::from(u8::from(found.len() < all))
    } else if let Some(seed) = arguments.seed {
        one(seed, arguments.has("--all"))
    } else if arguments.seeds.is_some() {
        let (summary, code) = many(&arguments);
        println!("{summary}");
        ExitCode::from(code)
    } else {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    }
}

fn one(seed: u64, all: bool) -> ExitCode {
    let detail = if all { Detail::All } else { Detail::Steps };
    let mut world = World::new(seed, Options { detail, print: true, ..Options::default() });
    world.run();
    let simulated = world.queue.now() as f64 / 1e6;
    match &world.failure {
        None => {
            println!("seed {seed}: ok, {} events in {simulated:.1} simulated seconds", world.events);
            ExitCode::SUCCESS
        }
        Some(failure) => {
            for (host, (set, disk)) in
                world.hosts.iter().enumerate().flat_map(|(i, h)| h.disks.iter().map(move |d| (i + 1, d)))
            {
                println!("server{host} {set}: {:?}", disk.mirror.status());
            }
            println!("seed {seed}: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// A seed nobody chose: the clock's.
pub(crate) fn fresh() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |d| d.as_secs().wrapping_mul(1_000_000))
}

fn many(arguments: &Arguments) -> (serde_json::Value, u8) {
    let from = arguments.from.unwrap_or_else(|| if arguments.has("--fresh") { fresh() } else { 1 });
    let seeds = arguments.seeds.unwrap_or(100);
    let began = Instant::now();
    let (mut done, mut events, mut failures, mut code) = (0_u64, 0_u64, Vec::new(), 0_u8);
    println!("seeds {from} to {}", from + seeds - 1);
    runner::run_many(from, seeds, arguments.jobs.unwrap_or(1), &Options::default(), |ended| {
        done += 1;
        events += ended.events;
        if let Some(failure) = &ended.failure {
            println!("seed {}: {}", ended.seed, failure.to_string().chars().take(300).collect::<String>());
            failures.push(ended.seed);
            code = code.max(failure.code());
        } else if !arguments.has("--quiet") && done.is_multiple_of(500) {
            println!("{done} seeds, {:.0} a second", done as f64 / began.elapsed().as_secs_f64());
        }
        arguments.has("--keep-going") || ended.failure.is_none()
    });
    let seconds = began.elapsed().as_secs_f64();
    let summary = serde_json::json!({
        "seeds": done,
        "failures": failures.len(),
        "failed_seeds": failures,
        "events": events,
        "seconds": (seconds * 10.0).round() / 10.0,
        "seeds_per_s": (done as f64 / seconds * 10.0).round() / 10.0,
    });
    (summary, code)
}

fn register() -> (usize, u8) {
    let mut states = 0;
    for bounds in register_rules::FULL {
        let began = Instant::now();
        let verdict = register_model::check(bounds, Without::default());
        states += verdict.states;
        println!("register, {bounds:?}: {} states in {:.1} s", verdict.states, began.elapsed().as_secs_f64());
        if let Some((broken, way)) = verdict.broken {
            println!("{broken:?} after {} steps:", way.len());
            way.iter().for_each(|step| println!("  {step:?}"));
            return (states, 129);
        }
        if !verdict.complete {
            println!("not complete: more states than {}", bounds.states);
            return (states, 128);
        }
    }
    for rule in register_rules::rules() {
        let name = rule.name;
        match register_rules::find(&rule) {
            Some((states, broken, steps)) => {
                println!("without {name}: {broken:?} in {steps} steps, {states} states")
            }
            None => {
                println!("without {name}: NOT FOUND");
                return (states, 129);
            }
        }
    }
    (states, 0)
}

fn put_back(arguments: &Arguments) -> (Vec<serde_json::Value>, usize) {
    let mut found = Vec::new();
    let mut bugs = bugs::all();
    bugs.retain(|(name, _)| arguments.bug.as_deref().is_none_or(|wanted| wanted == *name));
    for (name, bug) in &bugs {
        let ended = bugs::find(*bug, bugs::SEEDS, arguments.jobs.unwrap_or(1));
        match ended {
            Some((tried, ended)) => {
                let failure = ended.failure.map(|f| f.to_string()).unwrap_or_default();
                println!(
                    "{name}: found by seed {} (of {tried}): {}",
                    ended.seed,
                    failure.chars().take(160).collect::<String>()
                );
                found.push(serde_json::json!({ "bug": name, "seed": ended.seed, "seeds": tried }));
            }
            None => println!("{name}: not found in {} seeds", bugs::SEEDS),
        }
    }
    (found, bugs.len())
}

fn show(arguments: &Arguments) -> ExitCode {
    let (mut summary, code) = many(arguments);
    let (found, all) = put_back(arguments);
    let (states, register_code) = register();
    if let Some(fields) = summary.as_object_mut() {
        fields.insert("bugs_found".into(), found.len().into());
        fields.insert("bugs".into(), all.into());
        fields.insert("register_states".into(), states.into());
    }
    println!("{summary}");
    ExitCode::from(code.max(register_code).max(u8::from(found.len() < all)))
}
