//! `first-light`: a clean clone, one command, and the browser shows two servers, the active group and an equal mirror.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::json;

use super::Options;
use crate::browser::{Browser, DESK};
use crate::leftovers::Leftovers;
use crate::report::{Outcome, Table};
use crate::{command, lab, page, paths};

/// A cold build on two busy cores.
const BUILD: Duration = Duration::from_secs(3_000);
/// From the built program to a healthy page.
const PAGE: Duration = Duration::from_secs(180);

/// The show; `clone=FOLDER` takes a clone that is there, warm or cold, instead of a fresh one.
///
/// # Errors
/// When the program does not build or the page does not come.
pub fn run(options: &Options) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let clone = match options.text("clone") {
        Some(given) => Path::new(given).canonicalize().with_context(|| format!("clone={given}"))?,
        None => fresh_clone(folder.path())?,
    };
    let said = folder.path().join("said");
    let begun = Instant::now();
    let mut run = Command::new("cargo");
    run.args(["run", "--release"]).current_dir(&clone).env_remove("CARGO_TARGET_DIR").stdin(Stdio::null());
    run.stdout(File::create(&said)?).stderr(File::options().append(true).open(&said)?).process_group(0);
    let before = Leftovers::look(&clone.join("target/release/futago"));
    let mut program = run.spawn().context("start cargo")?;
    let seen = see(&mut program, &said, &clone, begun);
    if seen.is_err() {
        println!("{}", fs::read_to_string(&said).unwrap_or_default());
    }
    lab::signal_pid(i32::try_from(program.id())?, Signal::INT)?;
    let ended = command::wait(&mut program, Duration::from_secs(60));
    let times = seen?;
    let left = Leftovers::look(&clone.join("target/release/futago")).since(&before, &clone);
    let clean = ended?.success() && left.is_empty();
    if !clean {
        println!("Ctrl-C left behind: {left:?}");
    }
    let mut table = Table::new(&["from nothing to", "seconds"]);
    table.row(&["the program is built", &times.built_s.to_string()]);
    table.row(&["both addresses printed", &times.printed_s.to_string()]);
    table.row(&["the page is healthy", &times.healthy_s.to_string()]);
    table.print();
    let facts = json!({
        "built_s": times.built_s, "printed_s": times.printed_s, "healthy_s": times.healthy_s,
        "clean_after_ctrl_c": clean, "fresh_clone": options.text("clone").is_none(),
    });
    Ok(Outcome::new(clean, facts))
}

/// A clone of what is committed.
fn fresh_clone(folder: &Path) -> Result<PathBuf> {
    let clone = folder.join("futago");
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", "--no-hardlinks"]).arg(paths::root()).arg(&clone);
    command::output(&mut git, Duration::from_secs(120))?;
    Ok(clone)
}

struct Times {
    built_s: u64,
    printed_s: u64,
    healthy_s: u64,
}

/// Follows the command until the page that it names is healthy.
fn see(program: &mut Child, said: &Path, clone: &Path, begun: Instant) -> Result<Times> {
    let built = clone.join("target/release/futago");
    until(program, "the program is built", BUILD, || built.exists().then_some(()))?;
    let built_s = begun.elapsed().as_secs();
    let (address, password) =
        until(program, "the addresses and the login", PAGE, || read_said(&fs::read_to_string(said).ok()?))?;
    let printed_s = begun.elapsed().as_secs();
    page::drive(async {
        let browser = Browser::start(DESK).await?;
        browser.open(&address).await?;
        browser.see(&page::part("login-password")).await?.send_keys(&password).await?;
        browser.see(&page::part("login-submit")).await?.click().await?;
        page::see_healthy(&browser, PAGE).await?;
        browser.picture(&paths::out()?.join("first-light.png")).await?;
        browser.end().await
    })?;
    Ok(Times { built_s, printed_s, healthy_s: begun.elapsed().as_secs() })
}

/// The first page's address and the one-time login, as the demo prints them for a person.
fn read_said(said: &str) -> Option<(String, String)> {
    let address = said.split_whitespace().find(|word| word.starts_with("https://"))?;
    let (_, login) = said.split_once("one-time login")?;
    // The whole greeting has come once its last line has.
    said.contains("Ctrl-C").then_some(())?;
    Some((address.to_owned(), login.split_whitespace().next()?.to_owned()))
}

fn until<T>(
    program: &mut Child,
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if let Some(ended) = program.try_wait()? {
            bail!("{what}: cargo run ended with {ended}");
        }
        if Instant::now() >= end {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
