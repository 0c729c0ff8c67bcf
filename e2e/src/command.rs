//! Child processes with a bound on their time and nothing left behind.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(20);

/// What a finished command said.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs a command in a process group of its own and collects what it says; past `limit` the group is killed.
///
/// # Errors
/// When it cannot be started, or is still running at the limit.
pub fn collect(command: &mut Command, limit: Duration) -> Result<Said> {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let out = reader(child.stdout.take());
    let err = reader(child.stderr.take());
    let status = wait(&mut child, limit);
    if status.is_err() {
        kill_group(&child);
        let _ = child.wait();
    }
    let (out, err) = (text(out), text(err));
    match status {
        Ok(status) => Ok(Said { status, out, err }),
        Err(error) => Err(error.context(format!("{name}\n{out}{err}"))),
    }
}

/// Runs a command that must succeed and returns its standard output.
///
/// # Errors
/// When it fails or takes longer than `limit`; the text holds what it said.
pub fn output(command: &mut Command, limit: Duration) -> Result<String> {
    let said = collect(command, limit)?;
    if !said.status.success() {
        bail!("{command:?} ended with {}\n{}{}", said.status, said.out, said.err);
    }
    Ok(said.out)
}

/// Runs a command whose output goes straight to the screen; true where it succeeded.
///
/// # Errors
/// When it cannot be started.
pub fn shown(command: &mut Command) -> Result<bool> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("start {command:?}"))?;
    Ok(status.success())
}

/// Waits for a child until `limit` has passed.
///
/// # Errors
/// When it is still running then; it is not killed.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context("wait for a child")? {
            return Ok(status);
        }
        if Instant::now() >= end {
            bail!("still running after {} s", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

/// Kills the process group that a child leads.
pub fn kill_group(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn text(handle: JoinHandle<String>) -> String {
    handle.join().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children() {
        let begun = Instant::now();
        let hung =
            collect(Command::new("sh").args(["-c", "sleep 50 & sleep 50"]), Duration::from_millis(200));
        assert!(hung.is_err());
        assert!(begun.elapsed() < Duration::from_secs(40));
    }

    #[test]
    fn a_failing_command_says_why() {
        let error =
            output(Command::new("sh").args(["-c", "echo no such disk >&2; exit 3"]), Duration::from_secs(20));
        assert!(format!("{error:?}").contains("no such disk"));
    }
}
