//! A host of the demo from inside: the process that makes its namespaces, and its pid 1, which keeps one program running.

use anyhow::{Context as _, bail};
use os::namespace::{self, Kind};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long pid 1 sleeps between looks at its children.
const LOOK: Duration = Duration::from_millis(20);
/// A program that ended is started again after this, as by systemd's `Restart=always` with `RestartSec=200ms`.
const RESTART_AFTER: Duration = Duration::from_millis(200);
/// Lines of orders that wait: the launcher sends one at a time.
const ORDERS_MAX: usize = 8;

/// What a host is made of; the launcher gives it as one JSON argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// The launcher's pid: the host dies with it.
    pub launcher: u32,
    /// Its freezer group.
    pub cgroup: PathBuf,
    /// Seconds its clocks are ahead.
    pub clock_offset: i64,
    /// Folders that lose everything with the power: a tmpfs is mounted on each.
    pub volatile: Vec<PathBuf>,
    /// The program kept running and its arguments; nothing for a host that only waits for orders.
    pub program: Vec<String>,
    /// Where the program's output goes.
    pub log: PathBuf,
}

/// What the launcher tells pid 1, one word a line. The end of the line means that the launcher is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The cables are plugged: start.
    Go,
    /// Kill the program and keep it away.
    Hold,
    /// Let it run again.
    Release,
}

impl Order {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Order::Go => "go",
            Order::Hold => "hold",
            Order::Release => "release",
        }
    }
}

/// The outer process: joins the freezer, makes pid and time namespaces, starts pid 1 in them and waits for it.
///
/// # Errors
/// The launcher is gone, or the kernel refused a namespace.
pub fn outer(text: &str) -> anyhow::Result<ExitCode> {
    let plan: Plan = serde_json::from_str(text).context("read the host's plan")?;
    namespace::die_with_parent(plan.launcher)?;
    fs::write(plan.cgroup.join("cgroup.procs"), "0").context("join the host's freezer")?;
    namespace::unshare(&[Kind::Pid, Kind::Time])?;
    namespace::set_clock_offset(plan.clock_offset)?;
    let mut inner = Command::new(std::env::current_exe()?);
    inner.args(["demo", "host-inner", text]);
    namespace::fork_for(&mut inner);
    let mut inner = inner.spawn().context("start pid 1")?;
    say(&format!("pid {}", inner.id()))?;
    let status = inner.wait()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Pid 1: makes the other namespaces, reports, waits for its cables, then keeps the program running and reaps orphans.
///
/// # Errors
/// Not pid 1, or the kernel refused a namespace or mount.
pub fn inner(text: &str) -> anyhow::Result<ExitCode> {
    let plan: Plan = serde_json::from_str(text).context("read the host's plan")?;
    if std::process::id() != 1 {
        bail!("host-inner is pid 1 of a demo host and nothing else");
    }
    namespace::die_with_parent(0)?;
    namespace::unshare(&[Kind::Mount, Kind::Network, Kind::Uts])?;
    namespace::make_mounts_private()?;
    namespace::set_host_name(&plan.name)?;
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    mount("proc", "/proc", "proc", safe | MountFlags::NOEXEC, None).context("mount /proc")?;
    for folder in &plan.volatile {
        let doing = || format!("mount a tmpfs on {}", folder.display());
        fs::create_dir_all(folder).with_context(doing)?;
        mount("tmpfs", folder, "tmpfs", safe, c"size=64m,mode=700").with_context(doing)?;
    }
    let orders = listen()?;
    say("ready")?;
    match orders.recv() {
        Ok(Order::Go) => Ok(keep(&plan, &orders)),
        Ok(Order::Hold | Order::Release) | Err(_) => Ok(ExitCode::FAILURE),
    }
}

/// Reads orders from the launcher until it is gone.
fn listen() -> io::Result<Receiver<Order>> {
    let (sender, orders) = sync_channel(ORDERS_MAX);
    thread::Builder::new().name("orders".into()).spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let order =
                [Order::Go, Order::Hold, Order::Release].into_iter().find(|order| order.word() == line);
            if order.is_some_and(|order| sender.send(order).is_err()) {
                return;
            }
        }
    })?;
    Ok(orders)
}

/// Where the program stands.
enum Program {
    Running(Pid),
    /// To be started then.
    Waiting(Instant),
    /// Kept away, or none to keep.
    Held,
}

/// Returns when the launcher is gone: with pid 1 the kernel kills every process of the host.
fn keep(plan: &Plan, orders: &Receiver<Order>) -> ExitCode {
    let mut program = if plan.program.is_empty() { Program::Held } else { Program::Waiting(Instant::now()) };
    loop {
        match orders.recv_timeout(LOOK) {
            Ok(Order::Hold) => {
                if let Program::Running(pid) = program {
                    let _ = kill_process(pid, Signal::KILL); // it may have ended by itself
                }
                program = Program::Held;
            }
            Ok(Order::Go | Order::Release) => {
                if matches!(program, Program::Held) && !plan.program.is_empty() {
                    program = Program::Waiting(Instant::now());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return ExitCode::SUCCESS,
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if matches!(program, Program::Running(running) if running == pid) {
                eprintln!("{}: the program ended ({status:?}) and is started again", plan.name);
                program = Program::Waiting(Instant::now() + RESTART_AFTER);
            }
        }
        if matches!(program, Program::Waiting(when) if when <= Instant::now()) {
            program = match start(plan) {
                Ok(pid) => Program::Running(pid),
                Err(error) => {
                    eprintln!("{}: {error:#}", plan.name);
                    Program::Waiting(Instant::now() + RESTART_AFTER)
                }
            };
        }
    }
}

/// Starts the program. Its end is seen by `wait`, with that of every orphan.
fn start(plan: &Plan) -> anyhow::Result<Pid> {
    let [program, arguments @ ..] = plan.program.as_slice() else { bail!("no program") };
    let log = OpenOptions::new().create(true).append(true).open(&plan.log)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().with_context(|| format!("start {program}"))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.context("the kernel gave no pid")
}
