//! A command run inside a host of the demo, as at its console: `futago demo exec HOST -- COMMAND`.

use anyhow::Context as _;
use os::namespace::{self, Kind};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Exit code of a command ended by a signal, as shells have it: 128 and the signal's number.
const BY_SIGNAL: i32 = 128;

/// A command that will run in the host whose pid 1 this is, in its freezer too: a power loss takes it along.
/// It is one process more, which moves in and starts the command there (a pid namespace is entered by children only).
///
/// # Errors
/// The host is dead.
pub fn command(init: u32, cgroup: &Path, words: &[String]) -> anyhow::Result<Command> {
    let kinds = [Kind::Time, Kind::Pid, Kind::Uts, Kind::Network, Kind::Mount];
    let namespaces =
        kinds.map(|kind| namespace::open(init, kind)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["demo", "host-exec", "--"]).args(words);
    let group = fs::OpenOptions::new()
        .write(true)
        .open(cgroup.join("cgroup.procs"))
        .context("open the host's freezer")?;
    namespace::join_for(&mut command, namespaces, group);
    Ok(command)
}

/// The stage inside: starts the command as a child and ends as it ends.
///
/// # Errors
/// The command cannot be started.
pub fn inside(words: &[String]) -> anyhow::Result<ExitCode> {
    let [program, arguments @ ..] = words else { anyhow::bail!("give a command behind --") };
    let mut command = Command::new(program);
    command.args(arguments);
    namespace::fork_for(&mut command);
    let status = command.status().with_context(|| format!("start {program}"))?;
    Ok(exit_code(status))
}

/// The exit code that stands for how a command ended.
#[must_use]
pub fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| BY_SIGNAL + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
