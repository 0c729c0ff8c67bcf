//! The program `futago`: server, disk process, witness, demo and command line in one.

mod app;
mod backing;
mod brain;
mod change;
mod channel;
mod cli;
mod client;
mod create;
mod data;
mod demo;
mod disks;
mod guard;
mod heartbeat;
mod http;
mod node;
mod pairing;
mod peers;
mod perform;
mod readings;
mod steps;
mod tls;
mod witness;

use clap::Parser;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Two servers, one mirrored disk, one service that goes on. Without a command: the demo on this machine.
#[derive(Parser)]
#[command(name = "futago", version)]
struct Program {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Two servers, a witness and a client as hosts of their own on this machine.
    Demo(demo::Args),
    /// A server's node process.
    Node(node::NodeOptions),
    /// The third vote.
    Witness(witness::WitnessOptions),
    /// A mirror set's process; started by the node process.
    #[command(hide = true)]
    Disk {
        /// Options as JSON, or `@` and the file that holds them.
        options: String,
    },
    /// Writes a fresh control area onto a backing; for tests of the data path alone.
    #[command(hide = true)]
    DiskFormat {
        /// Options as JSON.
        options: String,
    },
    /// Shows the older version that a copy's backing keeps as a read-only block device, until SIGTERM (needs root).
    ShowOld {
        /// The backing, as the configuration names it on this server.
        backing: std::path::PathBuf,
        /// An empty folder for the device's front end, made if it is not there.
        mount: std::path::PathBuf,
    },
    /// Holds what a killed disk process leaves and starts its successor; started by the node process, or by a disk process.
    #[command(hide = true)]
    Keeper {
        /// The server's state folder.
        state: std::path::PathBuf,
    },
    #[command(flatten)]
    Operator(cli::Command),
}

fn main() -> ExitCode {
    let program = Program::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr) // what a command prints is read by programs
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match run(program) {
        Ok(code) => code,
        Err(fault) => {
            eprintln!("futago: {fault:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(program: Program) -> anyhow::Result<ExitCode> {
    match program.command {
        None => demo::run(demo::Args::default()),
        Some(Command::Demo(args)) => demo::run(args),
        Some(Command::Disk { options }) => {
            let options = match options.strip_prefix('@') {
                Some(file) => std::fs::read_to_string(file)?,
                None => options,
            };
            disk::run(serde_json::from_str(&options)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::DiskFormat { options }) => {
            disk::format(&serde_json::from_str(&options)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::ShowOld { backing, mount }) => {
            disk::show_old(&backing, &mount, |device| println!("{}", device.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Keeper { state }) => {
            disk::keeper::keep(&state)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Node(options)) => block_on(node::run(options)),
        Some(Command::Witness(options)) => block_on(witness::run(options)),
        Some(Command::Operator(command)) => block_on(cli::run(command)),
    }
}

/// Heartbeats must not wait behind the applications of a busy server: every thread of ours goes before them.
const NICENESS: i32 = -10;

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let prefer = || {
        // Refused without the right to it (command line, tests): they need no preference.
        let _ = rustix::process::setpriority_process(None, NICENESS);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_start(prefer).build()?;
    let result = runtime.block_on(work);
    // A call that hangs in the kernel behind a held disk must not keep the process.
    runtime.shutdown_background();
    result
}
