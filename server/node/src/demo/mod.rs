//! The demo: two real servers, a witness and a client host on one machine, each a host of its own in namespaces.
//!
//! The launcher makes networks and hosts, creates the cluster through the API, passes the pages on to this machine's
//! loopback, and carries out `kill`, `cut` and their like. Everything it makes dies with it or is on record for the next.

mod app;
pub mod control;
mod create;
mod exec;
mod host;
mod init;
mod lan;
mod launch;
mod plan;
mod proxy;
mod record;
mod status;
mod world;

use anyhow::Context as _;
use clap::ValueEnum;
use control::{Act, SOCKET};
use plan::Host;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wire::config::TimingProfile;

/// Bytes of one of the units in sizes.
const UNITS: [(&str, u64); 3] = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
/// A smaller image holds no useful file system beside its control area.
const SIZE_MIN: u64 = 48 << 20;

/// How the mirror's image files are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Backing {
    /// Straight in the file.
    #[default]
    #[value(alias = "file")]
    Plain,
    /// Unflushed writes stay in the process and are lost or torn by a kill, as in a disk's cache.
    Volatile,
    /// As volatile, but a flush does nothing: data must get lost (what proves the tests).
    #[value(alias = "volatile-no-flush")]
    VolatileLying,
}

impl Backing {
    /// The word of `futago node --backing`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Backing::Plain => "plain",
            Backing::Volatile => "volatile",
            Backing::VolatileLying => "volatile-lying",
        }
    }
}

/// The demo's options; without a subcommand it starts.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The demo's folder.
    #[arg(long, global = true, default_value = "futago-demo")]
    dir: PathBuf,
    /// Size of each image file, such as 256M or 1G.
    #[arg(long, default_value = "1G", value_parser = parse_size)]
    size: u64,
    /// How the image files are kept.
    #[arg(long, value_enum, default_value_t)]
    backing: Backing,
    /// A server that was down recovers by itself.
    #[arg(long)]
    auto_recover: bool,
    /// How soon a dead server is found: default (2.0 s), fast (0.3 s) or patient (30 s).
    #[arg(long, default_value = "default", value_parser = parse_timing)]
    timing: TimingProfile,
    /// A second group of nothing but a floating IP, beside the one with disk and application.
    #[arg(long)]
    address_group: bool,
    /// Port of server1's page on 127.0.0.1; 0: any free one.
    #[arg(long, default_value_t = 8441)]
    page1: u16,
    /// Port of server2's page on 127.0.0.1; 0: any free one.
    #[arg(long, default_value_t = 8442)]
    page2: u16,
    /// Port of the application on 127.0.0.1; 0: any free one.
    #[arg(long, default_value_t = 8440)]
    app: u16,
}

impl Default for Args {
    fn default() -> Self {
        Args {
            verb: None,
            dir: "futago-demo".into(),
            size: 1 << 30,
            backing: Backing::default(),
            auto_recover: false,
            timing: TimingProfile::Default,
            address_group: false,
            page1: 8441,
            page2: 8442,
            app: 8440,
        }
    }
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Power loss: every process of a host killed at once, its links down.
    Kill {
        /// server1, server2, witness or client.
        target: String,
    },
    /// A host powered on again, or a cable plugged in again.
    Restart {
        /// A host or a cable.
        target: String,
    },
    /// A cable pulled.
    Cut {
        /// ic1, ic2, public-1, public-2, witness or client.
        target: String,
    },
    /// A cable plugged in again.
    #[command(alias = "heal")]
    Mend {
        /// A cable.
        target: String,
    },
    /// Kill a server's node process and keep it away; what it runs goes on.
    #[command(alias = "hold-node")]
    StopNode {
        /// server1 or server2.
        target: String,
    },
    /// Let it run again.
    #[command(alias = "release-node")]
    StartNode {
        /// server1 or server2.
        target: String,
    },
    /// How the demo stands.
    Status {
        /// As one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Run a command inside a host.
    Exec {
        /// server1, server2, witness or client.
        host: String,
        /// The command and its arguments, behind `--`.
        #[arg(last = true, required = true)]
        words: Vec<String>,
    },
    /// The demo's application.
    #[command(hide = true)]
    App(app::AppArgs),
    /// Makes a host's namespaces.
    #[command(hide = true)]
    HostOuter {
        /// The host's plan.
        plan: String,
    },
    /// A host's pid 1.
    #[command(hide = true)]
    HostInner {
        /// The host's plan.
        plan: String,
    },
    /// Runs a command for `exec`.
    #[command(hide = true)]
    HostExec {
        /// The command and its arguments.
        #[arg(last = true)]
        words: Vec<String>,
    },
}

fn parse_timing(text: &str) -> Result<TimingProfile, String> {
    TimingProfile::by_name(text).ok_or_else(|| "default, fast or patient".into())
}

fn parse_size(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let upper = upper.strip_suffix("IB").unwrap_or(&upper);
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((upper.strip_suffix(unit)?, *bytes)));
    let (number, bytes) = unit.unwrap_or((upper, 1));
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(bytes));
    match size {
        Some(size) if size >= SIZE_MIN && size.is_multiple_of(1 << 20) => Ok(size),
        _ => Err("a size in whole MiB, at least 48M, such as 256M or 1G".into()),
    }
}

/// Runs the demo or one of its commands. Must be called before the program has a second thread: it makes namespaces.
///
/// # Errors
/// What went wrong, in a sentence a person can act on.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let socket = |dir: &Path| control::Client::new(&dir.join(SOCKET));
    let order = |act, target: &str| socket(&args.dir).order(act, target).map(|_| ExitCode::SUCCESS);
    match &args.verb {
        None => launch::launch(&args),
        Some(Verb::Kill { target }) => order(Act::Kill, target),
        Some(Verb::Restart { target }) => order(Act::Restart, target),
        Some(Verb::Cut { target }) => order(Act::Cut, target),
        Some(Verb::Mend { target }) => order(Act::Mend, target),
        Some(Verb::StopNode { target }) => order(Act::StopNode, target),
        Some(Verb::StartNode { target }) => order(Act::StartNode, target),
        Some(Verb::Status { json }) => print_status(&socket(&args.dir), *json),
        Some(Verb::Exec { host, words }) => run_in(&socket(&args.dir), host, words),
        Some(Verb::App(args)) => app::run(args),
        Some(Verb::HostOuter { plan }) => init::outer(plan),
        Some(Verb::HostInner { plan }) => init::inner(plan),
        Some(Verb::HostExec { words }) => exec::inside(words),
    }
}

fn ask_status(client: &control::Client) -> anyhow::Result<status::Status> {
    serde_json::from_value(client.order(Act::Status, "")?)
        .context("the demo runs another version of this program")
}

fn print_status(client: &control::Client, json: bool) -> anyhow::Result<ExitCode> {
    let status = ask_status(client)?;
    if json {
        println!("{}", serde_json::to_string(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    for server in &status.servers {
        let state = if server.alive { "on" } else { "off" };
        println!("{}  {state}  {}", server.name, server.page);
        for group in server.view.iter().flat_map(|view| &view.groups) {
            println!("  group {}: {:?} on {:?}", group.name, group.state, group.active);
        }
        for set in server.view.iter().flat_map(|view| &view.sets) {
            println!("  mirror set {}: {:?}", set.name, set.state);
        }
    }
    println!("application  {}  ({} on the public LAN)", status.app, status.service);
    Ok(ExitCode::SUCCESS)
}

fn run_in(client: &control::Client, host: &str, words: &[String]) -> anyhow::Result<ExitCode> {
    let wanted = Host::by_name(host).with_context(|| format!("{host} is no host of the demo"))?;
    let status = ask_status(client)?;
    let known = status.hosts.iter().find(|known| known.name == wanted.name());
    let (init, cgroup) =
        known.and_then(|known| Some((known.init?, &known.cgroup))).context("that host is down")?;
    let ended = exec::command(init, cgroup, words)?.status().context("run the command")?;
    Ok(exec::exit_code(ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        assert_eq!(parse_size("128MiB"), Ok(128 << 20));
        assert_eq!(parse_size("67108864"), Ok(64 << 20));
        for wrong in ["", "G", "1", "10M", "1000000001", "99999999999999G", "-1G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
