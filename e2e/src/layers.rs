//! The layers of `cargo x test`: what each runs, in order, with its time.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::report::Table;
use crate::{command, packages, paths};

/// Seeds of the simulator that every run repeats.
const FIXED_SEEDS: u64 = 500;
/// Seeds of the mirror's own world that no run had before: some ten seconds.
const MIRROR_SEEDS: u64 = 10_000;
/// Seeds of the simulator that no run had before; the first is printed.
const FRESH_SEEDS: u64 = 50;

/// One layer: it passes or the run stops.
struct Layer {
    name: &'static str,
    what: &'static str,
    needs_root: bool,
    run: fn() -> Result<()>,
}

const LAYERS: &[Layer] = &[
    Layer { name: "fmt", what: "formatting", needs_root: false, run: fmt },
    Layer { name: "clippy", what: "lints of the program and the tests", needs_root: false, run: clippy },
    Layer { name: "web", what: "lints of the page, for wasm32", needs_root: false, run: web },
    Layer { name: "pure", what: "the pure crates build for wasm32", needs_root: false, run: pure },
    Layer { name: "test", what: "tests of every crate, and the tidy test", needs_root: true, run: test },
    Layer { name: "sim", what: "the simulator on fixed and fresh seeds", needs_root: false, run: sim },
    Layer { name: "build", what: "the real program with its page", needs_root: false, run: build },
    Layer { name: "e2e", what: "the program on real hosts", needs_root: true, run: e2e },
    Layer { name: "browser", what: "the page in Chromium", needs_root: true, run: browser },
];

/// The crates without input and output (DESIGN.md section 2).
pub const PURE: [&str; 4] = ["wire", "peer", "engine", "mirror"];

/// `cargo x test [--only LAYER]... | --list`: true where every layer passed.
///
/// # Errors
/// When the arguments name no layer, or something needed cannot be installed.
pub fn main(arguments: &[&str]) -> Result<bool> {
    if arguments == ["--list"] {
        let mut table = Table::new(&["layer", "what it runs"]);
        for layer in LAYERS {
            table.row(&[layer.name, layer.what]);
        }
        table.print();
        return Ok(true);
    }
    let chosen = choose(arguments)?;
    heading("install", "what the layers need");
    packages::install()?;
    let mut table = Table::new(&["layer", "minutes", "result"]);
    let begun = Instant::now();
    let mut failed = None;
    let mut passed = 0;
    for layer in chosen {
        heading(layer.name, layer.what);
        let layer_begun = Instant::now();
        let result = run(layer);
        let minutes = minutes(layer_begun.elapsed());
        match result {
            Ok(()) => {
                passed += 1;
                table.row(&[layer.name, &minutes, "passed"]);
            }
            Err(error) => {
                table.row(&[layer.name, &minutes, "FAILED"]);
                failed = Some((layer.name, error));
                break;
            }
        }
    }
    heading("times", "minutes of each layer");
    table.row(&["all", &minutes(begun.elapsed()), ""]);
    table.print();
    if let Some((name, error)) = &failed {
        println!("\nFAILED in layer {name}: {error:#}\nalone: cargo x test --only {name}");
    }
    println!("layers: {passed} passed, {} failed", u8::from(failed.is_some()));
    Ok(failed.is_none())
}

fn choose(arguments: &[&str]) -> Result<Vec<&'static Layer>> {
    let mut chosen = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let name = match (*word, rest.next()) {
            ("--only", Some(name)) => name,
            _ => bail!("cargo x test [--only LAYER]... | --list"),
        };
        let layer = LAYERS.iter().find(|layer| layer.name == *name);
        chosen.push(layer.with_context(|| format!("no layer {name}: see cargo x test --list"))?);
    }
    if chosen.is_empty() { Ok(LAYERS.iter().collect()) } else { Ok(chosen) }
}

fn run(layer: &Layer) -> Result<()> {
    if layer.needs_root && !rustix::process::geteuid().is_root() {
        bail!("this layer makes network namespaces, mounts and loop devices: run it as root");
    }
    (layer.run)()
}

fn heading(name: &str, what: &str) {
    println!("\n===== {name}: {what}");
}

fn minutes(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() / 60.0)
}

/// Cargo in the work tree, its output on the screen.
fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(arguments).envs(environment.iter().copied()).current_dir(paths::root());
    if !command::shown(&mut cargo)? {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

/// With this set the node crate embeds an empty page and builds no wasm.
const NO_PAGE: (&str, &str) = ("FUTAGO_WEB", "skip");

fn fmt() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])
}

fn clippy() -> Result<()> {
    let arguments =
        ["clippy", "--locked", "--workspace", "--exclude", "web", "--all-targets", "--", "-D", "warnings"];
    cargo(&arguments, &[NO_PAGE])
}

/// Same profile and folder as the build script's own build of the page, so that both share what they compile.
fn web() -> Result<()> {
    let folder = paths::target()?.join("wasm");
    let folder = folder.to_str().context("the target folder's name is not UTF-8")?;
    let mut arguments = vec!["clippy", "--locked", "-p", "web", "--target", "wasm32-unknown-unknown"];
    arguments.extend(["--profile", "wasm-release", "--target-dir", folder, "--", "-D", "warnings"]);
    cargo(&arguments, &[])
}

fn pure() -> Result<()> {
    let mut arguments = vec!["check", "--locked", "--target", "wasm32-unknown-unknown"];
    for name in PURE {
        arguments.extend(["-p", name]);
    }
    cargo(&arguments, &[])
}

/// nextest where it is installed, else cargo's own runner: the same tests.
fn runner() -> &'static [&'static str] {
    let version = command::collect(Command::new("cargo-nextest").arg("--version"), Duration::from_secs(60));
    if version.is_ok_and(|said| said.status.success()) { &["nextest", "run"] } else { &["test"] }
}

fn test() -> Result<()> {
    let mut arguments = runner().to_vec();
    arguments.extend(["--locked", "--workspace", "--exclude", "e2e"]);
    cargo(&arguments, &[NO_PAGE])?;
    let mut arguments = runner().to_vec();
    arguments.extend(["--locked", "-p", "e2e", "--lib", "--test", "tidy"]);
    cargo(&arguments, &[])
}

fn sim() -> Result<()> {
    let fresh = fresh_seed()?;
    println!("fixed seeds 1..={FIXED_SEEDS}, then {FRESH_SEEDS} fresh ones from {fresh}");
    for (from, count) in [(1, FIXED_SEEDS), (fresh, FRESH_SEEDS)] {
        let (from, count, jobs) = (from.to_string(), count.to_string(), jobs());
        let mut arguments = vec!["run", "--locked", "--release", "-p", "sim", "--", "--from", &from];
        arguments.extend(["--seeds", &count, "--jobs", &jobs, "--quiet"]);
        cargo(&arguments, &[])?;
    }
    let (from, count, jobs) = (fresh.to_string(), MIRROR_SEEDS.to_string(), jobs());
    let mut arguments = vec!["run", "--locked", "--release", "-p", "sim", "--", "mirror", "--from", &from];
    arguments.extend(["--seeds", &count, "--jobs", &jobs]);
    cargo(&arguments, &[])
}

/// One job for each processor.
#[must_use]
pub fn jobs() -> String {
    std::thread::available_parallelism().map_or(1, usize::from).to_string()
}

/// A seed nobody chose; 48 bits, so that it is easy to type.
fn fresh_seed() -> Result<u64> {
    let mut bytes = [0; 8];
    let mut random = std::fs::File::open("/dev/urandom").context("open /dev/urandom")?;
    std::io::Read::read_exact(&mut random, &mut bytes[..6]).context("read /dev/urandom")?;
    Ok(u64::from_le_bytes(bytes))
}

/// Builds the program with its page.
///
/// # Errors
/// When it does not build.
pub fn build() -> Result<()> {
    cargo(&["build", "--locked", "--release"], &[])
}

/// Tests that share the machine's loop devices and namespaces, one at a time.
fn machine_tests(only: &[&str]) -> Result<()> {
    paths::program()?;
    let mut arguments = vec!["test", "--locked", "-p", "e2e"];
    for test in only {
        arguments.extend(["--test", test]);
    }
    arguments.extend(["--", "--test-threads=1", "--nocapture"]);
    cargo(&arguments, &[])
}

fn e2e() -> Result<()> {
    machine_tests(&["crash", "failover", "processes", "links", "launcher"])
}

fn browser() -> Result<()> {
    machine_tests(&["page"])
}
