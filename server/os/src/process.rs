//! Applications and scripts: started in their own session, known again after node restarted, stopped as a whole.
#![allow(unsafe_code)] // `pre_exec` is the only way to begin a session between fork and exec

use crate::{Doing, Failure, output, proc};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a watched process's output file is looked at; the file may grow meanwhile, the disk is large.
const TRIM_EVERY: Duration = Duration::from_secs(1);
/// After SIGKILL a process without disk waits is gone within milliseconds; one that waits for a held disk is not.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a session that is being stopped.
const STOP_POLL: Duration = Duration::from_millis(10);
/// Processes watched at once: each costs a thread. Groups and disk processes of one server stay far below.
const WATCHED_MAX: usize = 1024;
/// What a script finds its programs by.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process for ever: the pid alone may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid, which is also its session and process group.
    pub pid: u32,
    /// Its start time in clock ticks since boot, from /proc/PID/stat.
    pub started: u64,
}

/// What to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// The program, by path or by name on the search path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment besides PATH; nothing of node's own is passed on.
    pub environment: BTreeMap<String, String>,
    /// Its working folder; `/` if none.
    pub folder: Option<PathBuf>,
    /// Where its output goes, bounded by [`output::trim`]; nowhere if none.
    pub output: Option<PathBuf>,
}

impl Spec {
    /// A script for /bin/sh (F1).
    #[must_use]
    pub fn script(text: &str) -> Self {
        let arguments = vec!["-c".to_owned(), text.to_owned()];
        Spec { program: "/bin/sh".into(), arguments, ..Spec::default() }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It is gone, but was not our child: how it ended is not known.
    Unseen,
}

/// What became of a whole session that was told to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// No process of it is left.
    Gone,
    /// These do not die: they wait in the kernel, as for a held disk. Never to be taken for stopped.
    Unknown(Vec<u32>),
}

/// What became of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It ended in time.
    Exited(Exit),
    /// It did not; its session was killed. What it did until then is unknown.
    TimedOut(Stopped),
}

/// Starts, finds again, waits for and stops processes. All calls block, bounded by their arguments.
pub trait Processes: Send + Sync {
    /// Starts a process in a session of its own that outlives its starter and inherits no descriptor.
    ///
    /// # Errors
    /// The program or a folder is missing, or there are too many processes.
    fn start(&self, spec: &Spec) -> Result<ProcessId, Failure>;

    /// Watches a process that an earlier life of the caller started; `false` if it is gone.
    ///
    /// # Errors
    /// The kernel refused a pidfd, or there are too many processes.
    fn adopt(&self, id: ProcessId, output: Option<PathBuf>) -> Result<bool, Failure>;

    /// Whether exactly this process still lives (a zombie does not).
    fn is_alive(&self, id: ProcessId) -> bool;

    /// Waits for the end; `None` if it still runs after `limit`.
    fn wait(&self, id: ProcessId, limit: Duration) -> Option<Exit>;

    /// SIGTERM to the whole session, SIGKILL after `grace`, and looks that nothing is left.
    fn stop(&self, id: ProcessId, grace: Duration) -> Stopped;

    /// Starts, waits at most `limit`, then stops.
    ///
    /// # Errors
    /// It could not be started.
    fn run(&self, spec: &Spec, limit: Duration) -> Result<Finished, Failure> {
        let id = self.start(spec)?;
        match self.wait(id, limit) {
            Some(exit) => Ok(Finished::Exited(exit)),
            None => Ok(Finished::TimedOut(self.stop(id, Duration::ZERO))),
        }
    }
}

struct Watched {
    exit: Mutex<Option<Exit>>,
    ended: Condvar,
}

type Table = Arc<Mutex<BTreeMap<ProcessId, Arc<Watched>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The processes of this host.
#[derive(Clone, Default)]
pub struct HostProcesses {
    table: Table,
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Whether the process ended within `limit`.
fn ended_within(pidfd: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).ok();
    let mut wanted = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut wanted, limit.as_ref()), Ok(1..))
}

fn exit_of(status: ExitStatus) -> Exit {
    status.code().map(Exit::Code).or_else(|| status.signal().map(Exit::Signal)).unwrap_or(Exit::Unseen)
}

fn command(spec: &Spec) -> Result<Command, Failure> {
    let mut command = Command::new(&spec.program);
    command.args(&spec.arguments).env_clear().env("PATH", SEARCH_PATH).envs(&spec.environment);
    command.current_dir(spec.folder.as_deref().unwrap_or("/".as_ref())).stdin(Stdio::null());
    match &spec.output {
        Some(path) => {
            let file = output::open(path)?;
            let twin = file.try_clone().doing(|| "duplicate a descriptor".into())?;
            command.stdout(file).stderr(twin);
        }
        None => {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
    }
    // SAFETY: between fork and exec only two system calls are made, both async-signal-safe, on no memory of ours.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            // Everything is opened close-on-exec; this holds it against descriptors inherited from whoever started us.
            match libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    Ok(command)
}

impl HostProcesses {
    /// Watches by a thread of its own: reaps a child, trims its output, tells those who wait.
    fn watch(
        &self,
        id: ProcessId,
        pidfd: OwnedFd,
        mut child: Option<Child>,
        output: Option<PathBuf>,
    ) -> Result<(), Failure> {
        let watched = Arc::new(Watched { exit: Mutex::new(None), ended: Condvar::new() });
        {
            let mut table = lock(&self.table);
            table.retain(|_, watched| lock(&watched.exit).is_none());
            if table.len() >= WATCHED_MAX {
                return Err(io::Error::other("too many processes"))
                    .doing(|| format!("watch process {}", id.pid));
            }
            table.insert(id, Arc::clone(&watched));
        }
        let work = move || {
            while !ended_within(&pidfd, TRIM_EVERY) {
                if let Some(Err(error)) = output.as_deref().map(output::trim) {
                    tracing::warn!(pid = id.pid, %error, "output not trimmed");
                }
            }
            let status = child.as_mut().map(Child::wait);
            let exit = match status {
                Some(Ok(status)) => exit_of(status),
                Some(Err(_)) | None => Exit::Unseen,
            };
            *lock(&watched.exit) = Some(exit);
            watched.ended.notify_all();
        };
        let named = thread::Builder::new().name(format!("watch {}", id.pid)).stack_size(256 * 1024);
        named.spawn(work).map(drop).doing(|| format!("watch process {}", id.pid))
    }
}

impl Processes for HostProcesses {
    fn start(&self, spec: &Spec) -> Result<ProcessId, Failure> {
        let doing = || format!("start {}", spec.program.display());
        let child = command(spec)?.spawn().doing(doing)?;
        let pid = child.id();
        // Ours and not yet reaped: neither the pid nor its entry can vanish before the watcher waits.
        let stat = proc::stat(pid).ok_or(io::Error::from(io::ErrorKind::NotFound)).doing(doing)?;
        let id = ProcessId { pid, started: stat.started };
        let pidfd = pidfd(pid).doing(doing)?;
        self.watch(id, pidfd, Some(child), spec.output.clone())?;
        Ok(id)
    }

    fn adopt(&self, id: ProcessId, output: Option<PathBuf>) -> Result<bool, Failure> {
        if lock(&self.table).contains_key(&id) {
            return Ok(self.is_alive(id));
        }
        let pidfd = match pidfd(id.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(false),
            Err(error) => return Err(error).doing(|| format!("watch process {}", id.pid)),
        };
        // Looked at after the pidfd is held: the pid can no more be another's.
        if !self.is_alive(id) {
            return Ok(false);
        }
        self.watch(id, pidfd, None, output)?;
        Ok(true)
    }

    fn is_alive(&self, id: ProcessId) -> bool {
        proc::stat(id.pid).is_some_and(|stat| stat.started == id.started && !stat.is_dead())
    }

    fn wait(&self, id: ProcessId, limit: Duration) -> Option<Exit> {
        let watched = lock(&self.table).get(&id).cloned();
        let Some(watched) = watched else {
            return (!self.is_alive(id)).then_some(Exit::Unseen);
        };
        let exit = lock(&watched.exit);
        let waited = watched.ended.wait_timeout_while(exit, limit, |exit| exit.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn stop(&self, id: ProcessId, grace: Duration) -> Stopped {
        if !grace.is_zero() && signal_until_gone(id, Signal::TERM, grace).is_empty() {
            return Stopped::Gone;
        }
        let left = signal_until_gone(id, Signal::KILL, KILL_LIMIT);
        if left.is_empty() { Stopped::Gone } else { Stopped::Unknown(left) }
    }
}

/// The session's living processes. Its number cannot be another's while it is used by any of them; once the leader's pid
/// belongs to a younger process, the session is gone.
fn members(id: ProcessId) -> Vec<u32> {
    match proc::stat(id.pid) {
        Some(stat) if stat.started != id.started => Vec::new(),
        Some(_) | None => proc::session(id.pid),
    }
}

/// Signals every member, newcomers too (once each, SIGKILL again and again), until none is left or `limit` is over.
fn signal_until_gone(id: ProcessId, signal: Signal, limit: Duration) -> Vec<u32> {
    let until = Instant::now() + limit;
    let mut told: Vec<u32> = Vec::new();
    loop {
        let left = members(id);
        if left.is_empty() || Instant::now() >= until {
            return left;
        }
        for pid in left {
            if (signal == Signal::KILL || !told.contains(&pid)) && send(id, pid, signal) {
                told.push(pid);
            }
        }
        thread::sleep(STOP_POLL);
    }
}

/// Signals one member by its pidfd, after looking again that it still belongs to the session.
fn send(id: ProcessId, pid: u32, signal: Signal) -> bool {
    let Ok(pidfd) = pidfd(pid) else { return false };
    if proc::stat(pid).is_none_or(|stat| stat.session != id.pid) {
        return false;
    }
    match pidfd_send_signal(&pidfd, signal) {
        Ok(()) | Err(Errno::SRCH) => true,
        Err(error) => {
            tracing::warn!(pid, %error, "signal not delivered");
            false
        }
    }
}

/// Processes in memory: they live until a test ends them; `run` answers what a test said for that program's arguments.
#[derive(Debug, Default)]
pub struct FakeProcesses(Mutex<FakeTable>);

#[derive(Debug, Default)]
struct FakeTable {
    started: Vec<(ProcessId, Spec)>,
    ended: BTreeMap<ProcessId, Exit>,
    results: BTreeMap<Vec<String>, Finished>,
    unstoppable: bool,
}

impl FakeProcesses {
    /// What `run` answers for these arguments; `Exited(Code(0))` if nothing was said.
    pub fn set_result(&self, arguments: &[String], result: Finished) {
        lock(&self.0).results.insert(arguments.to_vec(), result);
    }

    /// The process ends like this.
    pub fn end(&self, id: ProcessId, exit: Exit) {
        lock(&self.0).ended.insert(id, exit);
    }

    /// From here on `stop` answers `Unknown`, as with processes that wait for a held disk.
    pub fn set_unstoppable(&self, unstoppable: bool) {
        lock(&self.0).unstoppable = unstoppable;
    }

    /// Everything started so far, in order.
    pub fn started(&self) -> Vec<(ProcessId, Spec)> {
        lock(&self.0).started.clone()
    }
}

impl Processes for FakeProcesses {
    fn start(&self, spec: &Spec) -> Result<ProcessId, Failure> {
        let mut table = lock(&self.0);
        let number = u32::try_from(table.started.len()).unwrap_or(u32::MAX);
        let id = ProcessId { pid: 1000 + number, started: u64::from(number) };
        table.started.push((id, spec.clone()));
        Ok(id)
    }

    fn adopt(&self, id: ProcessId, _output: Option<PathBuf>) -> Result<bool, Failure> {
        Ok(self.is_alive(id))
    }

    fn is_alive(&self, id: ProcessId) -> bool {
        let table = lock(&self.0);
        table.started.iter().any(|(known, _)| *known == id) && !table.ended.contains_key(&id)
    }

    fn wait(&self, id: ProcessId, _limit: Duration) -> Option<Exit> {
        lock(&self.0).ended.get(&id).copied()
    }

    fn stop(&self, id: ProcessId, _grace: Duration) -> Stopped {
        let mut table = lock(&self.0);
        if table.unstoppable {
            return Stopped::Unknown(vec![id.pid]);
        }
        table.ended.entry(id).or_insert(Exit::Signal(libc::SIGTERM));
        Stopped::Gone
    }

    fn run(&self, spec: &Spec, _limit: Duration) -> Result<Finished, Failure> {
        let id = self.start(spec)?;
        let mut table = lock(&self.0);
        let said = table.results.get(&spec.arguments).cloned().unwrap_or(Finished::Exited(Exit::Code(0)));
        let exit = match said {
            Finished::Exited(exit) => exit,
            Finished::TimedOut(_) => Exit::Signal(libc::SIGKILL),
        };
        table.ended.insert(id, exit);
        Ok(said)
    }
}
