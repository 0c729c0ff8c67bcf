//! A running demo: the built program with two servers, a witness and a client host, driven through its own commands.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use wire::command::Operation;
use wire::ids::NodeId;
use wire::view::{ClusterView, GroupState, ServerState, SetState};

use crate::leftovers::Leftovers;
use crate::writer::Told;
use crate::{command, paths};

/// From the start of the program to two normal servers with an equal mirror.
pub const START: Duration = Duration::from_secs(120);
/// For the demo to take everything away after Ctrl-C.
const END: Duration = Duration::from_secs(60);
/// One of the program's commands.
const COMMAND: Duration = Duration::from_secs(30);
/// Between two looks at the cluster.
const POLL: Duration = Duration::from_millis(50);

/// How the demo is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Size of each image file in MiB.
    pub size_mib: u64,
    /// The backing, as the launcher's option names it; nothing for the usual one.
    pub backing: Option<&'static str>,
    /// Whether a server that was down recovers by itself.
    pub auto_recover: bool,
    /// How soon a dead server is found, as the launcher's option names it.
    pub timing: &'static str,
    /// A second group of nothing but a floating IP.
    pub address_group: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { size_mib: 128, backing: None, auto_recover: false, timing: "default", address_group: false }
    }
}

/// A running demo. It ends with this value; [`Lab::end`] also checks what it leaves.
pub struct Lab {
    program: PathBuf,
    /// There until the folder is handed on.
    folder: Option<tempfile::TempDir>,
    launcher: Child,
    before: Leftovers,
    _alone: File,
}

impl Lab {
    /// Starts the demo and waits until both servers are normal, the group runs and its mirror is equal.
    ///
    /// # Errors
    /// When the program is not built, another lab runs, or the cluster does not get there in time.
    pub fn start(setup: &Setup) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("futago-lab-").tempdir().context("a folder for the demo")?;
        let before = Leftovers::look(&paths::program()?);
        Self::start_again(setup, folder, before)
    }

    /// Starts the demo in a folder where one ran before; `before` is what the machine held before that one.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn start_again(setup: &Setup, folder: tempfile::TempDir, before: Leftovers) -> Result<Self> {
        let alone = alone()?;
        let program = paths::program()?;
        let mut launcher = Command::new(&program);
        launcher.arg("demo").arg("--dir").arg(folder.path());
        launcher.args([
            "--size",
            &format!("{}M", setup.size_mib),
            "--page1",
            "0",
            "--page2",
            "0",
            "--app",
            "0",
        ]);
        if let Some(backing) = setup.backing {
            launcher.args(["--backing", backing]);
        }
        if setup.auto_recover {
            launcher.arg("--auto-recover");
        }
        launcher.args(["--timing", setup.timing]);
        if setup.address_group {
            launcher.arg("--address-group");
        }
        let said =
            File::create(folder.path().join("launcher.out")).context("a file for what the demo says")?;
        let said_wrong = said.try_clone().context("the same file")?;
        launcher.stdin(Stdio::null()).stdout(said).stderr(said_wrong).process_group(0);
        let launcher = launcher.spawn().context("start the demo")?;
        let mut lab = Self { program, folder: Some(folder), launcher, before, _alone: alone };
        match lab.wait_healthy(START) {
            Ok(_) => Ok(lab),
            Err(error) => {
                let kept = lab.keep("not-started")?;
                let said = lab.said();
                lab.stop_launcher();
                Err(error.context(format!("{said}\nrecords: {}", kept.display())))
            }
        }
    }

    /// The demo's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new("/nonexistent"), tempfile::TempDir::path)
    }

    /// What the launcher has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        let said = fs::read_to_string(self.folder().join("launcher.out")).unwrap_or_default();
        format!("the demo said:\n{said}")
    }

    /// One of the demo's own commands, such as `kill server1`.
    ///
    /// # Errors
    /// When it fails; the text holds what it said.
    pub fn demo(&self, words: &[&str]) -> Result<String> {
        let mut demo = Command::new(&self.program);
        demo.arg("demo").args(words).arg("--dir").arg(self.folder());
        command::output(&mut demo, COMMAND)
    }

    /// The demo as it says itself.
    ///
    /// # Errors
    /// When no demo answers.
    pub fn status(&self) -> Result<Status> {
        let text = self.demo(&["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("the demo's status is {text:?}"))
    }

    /// Waits until something can be read off the demo's status.
    ///
    /// # Errors
    /// When it does not come in time; the text holds the last status.
    pub fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Status) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            let status = self.status();
            if let Ok(status) = &status
                && let Some(found) = look(status)
            {
                return Ok(found);
            }
            if let Some(ended) = self.launcher.try_wait().context("look at the launcher")? {
                bail!("the demo ended with {ended}");
            }
            if Instant::now() >= end {
                bail!("{what}: not within {} s\n{}", limit.as_secs(), describe(&status));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for two normal servers, a running group and an equal mirror; the server where the group runs.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait_healthy(&mut self, limit: Duration) -> Result<NodeId> {
        self.wait("two normal servers, a running group, an equal mirror", limit, Status::healthy)
    }

    /// Ends the demo as Ctrl-C does, then checks that nothing is left and that no log holds an error.
    ///
    /// # Errors
    /// When something is left, a log holds an error, or the demo does not end in time.
    pub fn end(mut self) -> Result<()> {
        signal(&self.launcher, rustix::process::Signal::INT)?;
        let status = command::wait(&mut self.launcher, END).with_context(|| self.said())?;
        if !status.success() {
            bail!("after Ctrl-C the demo ended with {status}\n{}", self.said());
        }
        let left = Leftovers::look(&self.program).since(&self.before, self.folder());
        if !left.is_empty() {
            bail!("Ctrl-C left behind:\n{}", left.join("\n"));
        }
        let errors = errors(self.folder())?;
        if !errors.is_empty() {
            bail!("errors in the logs:\n{}", errors.join("\n"));
        }
        Ok(())
    }

    /// A one-time login for a server's page.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn login(&self, server: NodeId) -> Result<String> {
        let mut login = self.exec(&format!("server{}", server.0));
        let said = command::output(
            login.arg(&self.program).args(["login", "--data"]).arg(self.data(server)),
            COMMAND,
        )?;
        Ok(said.split_whitespace().last().unwrap_or_default().to_owned())
    }

    /// The data folder of a server.
    fn data(&self, server: NodeId) -> PathBuf {
        self.folder().join(format!("server{}", server.0))
    }

    /// Kills the launcher with `kill -9`, so that it takes nothing away; the folder and what the machine held before.
    ///
    /// # Errors
    /// When it was gone already, or left nothing that a sweep could be tried on.
    pub fn kill_launcher(mut self) -> Result<(tempfile::TempDir, Leftovers)> {
        self.launcher.kill().context("kill the launcher")?;
        self.launcher.wait().context("the launcher ends")?;
        let left = Leftovers::look(&self.program).since(&self.before, self.folder());
        if left.is_empty() {
            bail!("a killed launcher left nothing: there is nothing to sweep");
        }
        Ok((self.folder.take().context("the demo's folder")?, self.before.clone()))
    }

    /// Recovers a server where one waits for it, and waits until the pair is healthy.
    ///
    /// # Errors
    /// When it does not come so far.
    pub fn heal(&mut self) -> Result<()> {
        let limit = Duration::from_secs(180);
        let waits = self.wait("a healthy pair, or a server to recover", limit, |status| {
            if status.healthy().is_some() {
                return Some(None);
            }
            let view = status
                .views()
                .find(|view| view.groups.iter().any(|group| group.active == Some(view.server)))?;
            let waits = view
                .servers
                .iter()
                .find(|one| one.state == ServerState::RestartedAfterDown && !one.recovering)?;
            Some(Some((view.server, waits.id)))
        })?;
        if let Some((at, server)) = waits {
            self.operate(at, Operation::RecoverServer { server })?;
        }
        self.wait_healthy(limit)?;
        Ok(())
    }

    /// Keeps all records of the demo below `e2e/out`, for what went wrong to be understood.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub fn keep(&self, name: &str) -> Result<PathBuf> {
        let kept = paths::out()?.join(name);
        let _ = fs::remove_dir_all(&kept);
        for log in logs(self.folder())? {
            let to = kept.join(log.strip_prefix(self.folder()).unwrap_or(&log));
            fs::create_dir_all(to.parent().unwrap_or(&kept)).context("a folder for the records")?;
            fs::copy(&log, &to).with_context(|| format!("keep {}", log.display()))?;
        }
        Ok(kept)
    }

    fn stop_launcher(&mut self) {
        if matches!(self.launcher.try_wait(), Ok(None)) {
            let _ = signal(&self.launcher, rustix::process::Signal::INT);
            if command::wait(&mut self.launcher, END).is_err() {
                let _ = self.launcher.kill();
                let _ = self.launcher.wait();
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Not ended in order: something went wrong, and the records are gone with the folder.
        if matches!(self.launcher.try_wait(), Ok(None))
            && let Ok(kept) = self.keep("last-failure")
        {
            println!("records of what went wrong: {}", kept.display());
        }
        self.stop_launcher();
    }
}

/// The demo as `futago demo status --json` tells it.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Status {
    /// Where the demo's application answers: the floating IP and its port.
    pub service: SocketAddr,
    /// The login of every page.
    pub password: String,
    /// Both servers, by ascending id.
    pub servers: Vec<Server>,
}

/// One server of the demo.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Server {
    /// 1 or 2.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its page, as this machine's own browser reaches it.
    pub page: String,
    /// Whether the host runs: not killed as by power loss.
    pub alive: bool,
    /// Its image file.
    pub image: PathBuf,
    /// Its manager, as seen from here.
    pub node_pid: Option<i32>,
    /// Its data path, as seen from here.
    pub disk_pid: Option<i32>,
    /// What outlives it, as seen from here.
    pub keeper_pid: Option<i32>,
    /// The cluster as it sees it; nothing while it does not answer.
    pub view: Option<ClusterView>,
}

impl Status {
    /// One server.
    ///
    /// # Errors
    /// When there is none with this id.
    pub fn server(&self, id: NodeId) -> Result<&Server> {
        self.servers.iter().find(|server| server.id == id).with_context(|| format!("no {id}"))
    }

    /// The views of the servers that answer.
    pub fn views(&self) -> impl Iterator<Item = &ClusterView> {
        self.servers.iter().filter_map(|server| server.view.as_ref())
    }

    /// Where the group runs, if every server that answers says the same and it runs.
    #[must_use]
    pub fn active(&self) -> Option<NodeId> {
        let mut found = None;
        for view in self.views() {
            let group = view.groups.first()?;
            if group.state != GroupState::Running || found.is_some_and(|other| Some(other) != group.active) {
                return None;
            }
            found = group.active;
        }
        found
    }

    /// Where the group runs, when both servers answer and say: all normal, in sync, running.
    #[must_use]
    pub fn healthy(&self) -> Option<NodeId> {
        let well = |view: &ClusterView| {
            view.servers.iter().all(|server| server.state == ServerState::Normal && !server.recovering)
                && !view.sets.is_empty()
                && view.sets.iter().all(|set| set.state == SetState::InSync)
        };
        (self.views().count() == 2 && self.views().all(well)).then(|| self.active()).flatten()
    }
}

fn describe(status: &Result<Status>) -> String {
    let status = match status {
        Ok(status) => status,
        Err(error) => return format!("{error:#}"),
    };
    let mut text = String::new();
    for server in &status.servers {
        text.push_str(&format!("{} (host {}): ", server.name, if server.alive { "runs" } else { "is dead" }));
        match &server.view {
            None => text.push_str("no answer"),
            Some(view) => {
                let states: Vec<String> =
                    view.servers.iter().map(|s| format!("{} {:?}", s.name, s.state)).collect();
                let groups: Vec<String> = view
                    .groups
                    .iter()
                    .map(|g| format!("{} {:?} on {:?} {:?}", g.name, g.state, g.active, g.steps))
                    .collect();
                let sets: Vec<String> =
                    view.sets.iter().map(|s| format!("{} {:?}", s.name, s.state)).collect();
                text.push_str(&format!("{}; {}; {}", states.join(", "), groups.join(", "), sets.join(", ")));
                if let Some(halted) = &view.halted {
                    text.push_str(&format!("; HALTED: {halted}"));
                }
            }
        }
        text.push('\n');
    }
    text
}

/// Lines with an error in any log below a folder: an ERROR is what must fail a test.
///
/// # Errors
/// When a log cannot be read.
pub fn errors(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in logs(folder)? {
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let text = String::from_utf8_lossy(&text);
        let bad = text.lines().filter(|line| line.contains("ERROR") || line.contains("panicked at"));
        found.extend(bad.map(|line| format!("{}: {line}", path.display())));
    }
    Ok(found)
}

/// Every record below a folder: logs, and what the launcher and the writers said.
fn logs(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let entry = entry.context("read a folder")?;
            let (path, kind) = (entry.path(), entry.file_type().context("what is it")?);
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|end| end == "log" || end == "out") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// One lab at a time on a machine: loop devices and namespaces are the whole kernel's.
fn alone() -> Result<File> {
    let path = std::env::temp_dir().join("futago-lab.lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let end = Instant::now() + Duration::from_secs(600);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(200)),
            Err(error) => return Err(error).context("another lab runs on this machine"),
        }
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) -> Result<()> {
    signal_pid(i32::try_from(child.id()).context("a pid")?, signal)
}

/// Sends a signal to one process by its number.
///
/// # Errors
/// When there is no such process.
pub fn signal_pid(pid: i32, signal: rustix::process::Signal) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).context("a pid")?;
    rustix::process::kill_process(pid, signal).context("send a signal")
}

/// The writer, running on the client host; it ends with this value.
pub struct Writer {
    child: Child,
    told: PathBuf,
    read: u64,
    rest: String,
}

impl Lab {
    /// A command that runs inside a host of the demo; its words are to be added.
    #[must_use]
    pub fn exec(&self, host: &str) -> Command {
        let mut exec = Command::new(&self.program);
        exec.args(["demo", "exec", host, "--dir"]).arg(self.folder()).arg("--");
        exec
    }

    /// Starts a writer on a host and waits for its first acknowledged increment.
    ///
    /// # Errors
    /// When it cannot be started, or nothing is acknowledged.
    pub fn writer(&self, host: &str) -> Result<Writer> {
        let service = self.status()?.service;
        let told = self.folder().join(format!("writer-{host}.told"));
        let out = File::create(&told).context("a file for what the writer tells")?;
        let mut exec = self.exec(host);
        exec.arg(paths::x()?).args(["writer", &service.to_string()]);
        exec.stdin(Stdio::piped()).stdout(out).process_group(0);
        let child = exec.spawn().context("start the writer")?;
        let mut writer = Writer { child, told, read: 0, rest: String::new() };
        writer.wait_for_more(Duration::from_secs(20))?;
        Ok(writer)
    }
}

impl Lab {
    /// Gives a server an operator's command.
    ///
    /// # Errors
    /// When it is refused; the text holds the reason.
    pub fn operate(&self, at: NodeId, what: Operation) -> Result<String> {
        let what = serde_json::to_string(&what).context("write an operation")?;
        let mut command = self.exec(&format!("server{}", at.0));
        command.arg(&self.program).args(["command", &what, "--data"]).arg(self.data(at));
        command::output(&mut command, COMMAND)
    }

    /// Where the group's file system is mounted, on the server where it runs.
    ///
    /// # Errors
    /// When no server answers.
    pub fn mount_point(&self) -> Result<String> {
        let point = self.status()?.views().find_map(|view| view.groups.first()?.mounts.first().cloned());
        point.context("the group has no mount point")
    }

    /// What a server's manager has logged.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn node_log(&self, server: NodeId) -> Result<String> {
        let path = self.data(server).join("node.log");
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Whether the group's file system on a server is gone or refuses to be written.
    ///
    /// # Errors
    /// When the server's host cannot be asked.
    pub fn refuses_writes(&self, on: NodeId) -> Result<bool> {
        let point = self.mount_point()?;
        // Where it is unmounted, a file written there would lie beside the mirror: that is refused as well.
        let script = format!(
            "grep -q ' {point} ' /proc/self/mounts && dd if=/dev/zero of={point}/probe bs=4096 count=1 conv=fsync"
        );
        let mut write = self.exec(&format!("server{}", on.0));
        match command::collect(write.args(["sh", "-c", &script]), COMMAND) {
            Ok(said) => Ok(!said.status.success()),
            // Held for good: as good as refused.
            Err(_) => Ok(true),
        }
    }
}

impl Writer {
    /// What it told since the last call.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn told(&mut self) -> Result<Vec<Told>> {
        let mut file = File::open(&self.told).context("open what the writer told")?;
        file.seek(SeekFrom::Start(self.read)).context("go on reading")?;
        let mut text = String::new();
        let length = file.read_to_string(&mut text).context("read what the writer told")?;
        self.read += u64::try_from(length).context("a length")?;
        let text = std::mem::take(&mut self.rest) + &text;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.rest = text[whole..].to_owned();
        Ok(text[..whole].lines().filter_map(Told::read).collect())
    }

    /// Waits until it tells of at least one more acknowledged increment, and returns all it told meanwhile.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn wait_for_more(&mut self, limit: Duration) -> Result<Vec<Told>> {
        self.wait_until("an acknowledged increment", limit, |told| {
            told.iter().any(|one| matches!(one, Told::Acknowledged { .. }))
        })
    }

    /// Waits until it tells of an increment that this server's application acknowledged since the last call, and returns
    /// all it told meanwhile.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn wait_for_answer(&mut self, from: NodeId, limit: Duration) -> Result<Vec<Told>> {
        self.wait_until(&format!("an increment acknowledged by {from}"), limit, |told| {
            told.iter().any(|one| matches!(one, Told::Acknowledged { by, .. } if *by == from))
        })
    }

    /// Waits until what it has told since the last call is enough, and returns it.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        enough: impl Fn(&[Told]) -> bool,
    ) -> Result<Vec<Told>> {
        let end = Instant::now() + limit;
        let mut told = Vec::new();
        loop {
            told.extend(self.told()?);
            if enough(&told) {
                return Ok(told);
            }
            if let Some(ended) = self.child.try_wait().context("look at the writer")? {
                bail!("the writer ended with {ended}");
            }
            if Instant::now() >= end {
                bail!("{what}: not within {} s, only {:?}", limit.as_secs(), told.last());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Ends it and returns the rest of what it told.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(mut self) -> Result<Vec<Told>> {
        drop(self.child.stdin.take());
        command::wait(&mut self.child, Duration::from_secs(10)).context("the writer")?;
        self.told()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if command::wait(&mut self.child, Duration::from_secs(3)).is_err() {
            command::kill_group(&self.child);
            let _ = self.child.wait();
        }
    }
}
