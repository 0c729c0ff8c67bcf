//! The keeper process: one thread that waits for messages, deaths and the ends of leases; what may hang in the kernel is done
//! by threads of their own.

use super::record;
use super::socket;
use super::wire::{FromKeeper, FrontRecord, ToKeeper, listener, receive, send};
use crate::device::{Place, sweep};
use crate::guard::{Guarded, drop_addresses, fence_all};
use crate::harden::harden;
use crate::limits::{
    DEATHS_MAX, DEATHS_WITHIN, KEEPER_CONNECTIONS, KEEPER_LOOK, KEEPER_SLACK, KEEPER_TAKE, STACK_BYTES,
};
use crate::options::DiskOptions;
use anyhow::Context as _;
use mirror::Kept;
use os::clock::{BootClock, Clock as _};
use os::process::{HostProcesses, Processes as _, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::net::{SocketFlags, accept_with, sockopt::socket_peercred};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use wire::SetId;

/// Runs a server's keeper for ever; ends at once where another one lives.
///
/// # Errors
/// The state folder or the socket cannot be used.
pub fn keep(state: &Path) -> anyhow::Result<()> {
    let _ = rustix::process::setsid();
    std::fs::create_dir_all(state).with_context(|| format!("make the folder {}", state.display()))?;
    let Some(_only) = only(state)? else {
        tracing::debug!("another keeper lives");
        return Ok(());
    };
    // It acts where others cannot: it waits neither behind applications nor for memory.
    harden();
    let program = std::env::current_exe().context("find the program's own file")?;
    let listener = listener(&socket(state))?;
    let mut keeper = Keeper {
        program,
        listener,
        connections: Vec::new(),
        sets: BTreeMap::new(),
        processes: HostProcesses::default(),
    };
    tracing::info!("keeper ready");
    loop {
        keeper.turn()?;
    }
}

/// The lock that lets only one keeper live; a dying one's is free when it is gone.
fn only(state: &Path) -> anyhow::Result<Option<File>> {
    let path = state.join("keeper.lock");
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let end = Instant::now() + Duration::from_millis(200);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).context("lock the keeper's file"),
        }
    }
}

/// One mirror set.
#[derive(Default)]
struct Set {
    /// Its process, while it lives.
    process: Option<Process>,
    record: Option<OwnedFd>,
    front: Option<(FrontRecord, OwnedFd)>,
    guarded: Guarded,
    options: Option<DiskOptions>,
    deaths: VecDeque<Instant>,
    /// At the end of the present lease the addresses were dropped.
    dropped: bool,
    /// The set was fenced from here: its record counts for nothing more.
    fenced: bool,
}

struct Process {
    pid: u32,
    handle: OwnedFd,
}

struct Keeper {
    program: std::path::PathBuf,
    listener: OwnedFd,
    connections: Vec<OwnedFd>,
    sets: BTreeMap<SetId, Set>,
    processes: HostProcesses,
}

impl Keeper {
    fn turn(&mut self) -> anyhow::Result<()> {
        let (new, spoken, dead) = self.wait()?;
        // The clock first: whatever else has come may be old.
        self.judge_leases();
        for set in dead {
            self.died(set);
        }
        // From the last on, so that a place taken away moves no other.
        for place in spoken.into_iter().rev() {
            if !self.hear(place) {
                self.connections.remove(place);
            }
        }
        if new && let Ok(connection) = accept_with(&self.listener, SocketFlags::CLOEXEC) {
            if self.connections.len() >= KEEPER_CONNECTIONS {
                tracing::warn!(limit = KEEPER_CONNECTIONS, "too many connections: the oldest is closed");
                self.connections.remove(0);
            }
            self.connections.push(connection);
        }
        Ok(())
    }

    /// Waits for a connection, for messages (by place), for deaths (by set), or for the next end of a lease.
    fn wait(&self) -> anyhow::Result<(bool, Vec<usize>, Vec<SetId>)> {
        let living: Vec<(SetId, &OwnedFd)> =
            self.sets.iter().filter_map(|(id, set)| Some((*id, &set.process.as_ref()?.handle))).collect();
        let mut watched = vec![PollFd::new(&self.listener, PollFlags::IN)];
        watched.extend(self.connections.iter().map(|one| PollFd::new(one, PollFlags::IN)));
        watched.extend(living.iter().map(|(_, handle)| PollFd::new(*handle, PollFlags::IN)));
        let limit = Timespec::try_from(self.patience())?;
        match poll(&mut watched, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait"),
        }
        let mut ready = watched.iter().map(|one| !one.revents().is_empty());
        let new = ready.next().unwrap_or(false);
        let spoken = (0..self.connections.len()).filter(|_| ready.next().unwrap_or(false)).collect();
        let dead = living.iter().filter(|_| ready.next().unwrap_or(false)).map(|(id, _)| *id).collect();
        Ok((new, spoken, dead))
    }

    /// Until the next end of a lease that is known; those that are renewed are looked at again then.
    fn patience(&self) -> Duration {
        let now = BootClock.now();
        let ends = self.sets.values().filter_map(|set| {
            let kept = set.kept()?;
            let until = kept.lease.flatten().filter(|until| *until > now);
            let fence = kept.fence_at.map(|at| at.plus(KEEPER_SLACK)).filter(|at| *at > now);
            until.into_iter().chain(fence).min()
        });
        let next = ends.min().map_or(KEEPER_LOOK, |at| Duration::from_micros(at.since(now)));
        next.clamp(Duration::from_millis(1), KEEPER_LOOK)
    }

    // ---- what is said

    /// `false`: the connection is of no further use.
    fn hear(&mut self, place: usize) -> bool {
        let Some(connection) = self.connections.get(place) else { return false };
        let from = socket_peercred(connection).map(|who| who.pid);
        let (message, with) = match receive::<ToKeeper>(connection, KEEPER_TAKE) {
            Ok(Some(came)) => came,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!("a message is not understood: connection closed: {error:#}");
                return false;
            }
        };
        let from = from.ok();
        match message {
            ToKeeper::Start { options } => {
                let answer = self.start(*options);
                self.answer(place, &answer, None)
            }
            ToKeeper::Inherit { options } => self.bequeath(place, from, *options),
            ToKeeper::State { options, front, guarded } => {
                let id = options.set;
                self.watch(id, from);
                let set = self.sets.entry(id).or_default();
                let mut with = with.into_iter();
                set.record = with.next();
                set.front = front.zip(with.next());
                set.options = Some(*options);
                set.guarded = guarded;
                (set.dropped, set.fenced) = (false, false);
                true
            }
            ToKeeper::Leaves { set } => {
                // Its deaths are not forgotten: one that ends in order may still be looping.
                if let Some(set) = self.sets.get_mut(&set) {
                    (set.record, set.front, set.options) = (None, None, None);
                    set.guarded = Guarded::default();
                }
                self.answer(place, &FromKeeper::Noted, None)
            }
        }
    }

    fn answer(&self, place: usize, answer: &FromKeeper, of: Option<SetId>) -> bool {
        let Some(connection) = self.connections.get(place) else { return false };
        let set = of.and_then(|of| self.sets.get(&of));
        let mut with: Vec<BorrowedFd<'_>> = Vec::new();
        if let Some(record) = set.and_then(|set| set.record.as_ref()) {
            with.push(record.as_fd());
            with.extend(set.and_then(|set| set.front.as_ref()).map(|(_, descriptor)| descriptor.as_fd()));
        }
        let sent = send(connection, answer, &with);
        if let Err(error) = &sent {
            tracing::warn!("an answer is not taken: {error:#}");
        }
        sent.is_ok()
    }

    fn bequeath(&mut self, place: usize, from: Option<Pid>, options: DiskOptions) -> bool {
        let id = options.set;
        let set = self.sets.entry(id).or_default();
        let other = set.process.as_ref().filter(|process| Some(process.pid) != pid_number(from));
        if let Some(other) = other.filter(|other| !is_dead(&other.handle)) {
            let reason = format!("process {} of {id} lives", other.pid);
            return self.answer(place, &FromKeeper::Refused { reason }, None);
        }
        // Of a set that was fenced nothing is handed on.
        let whole = !set.fenced && set.record.is_some();
        let front = set.front.as_ref().filter(|_| whole).map(|(record, _)| record.clone());
        let guarded = if whole { set.guarded.clone() } else { Guarded::default() };
        set.options = Some(options);
        self.watch(id, from);
        self.answer(place, &FromKeeper::Inheritance { front, guarded }, whole.then_some(id))
    }

    /// This process is the set's from here on.
    fn watch(&mut self, id: SetId, from: Option<Pid>) {
        let Some(pid) = from else { return };
        let set = self.sets.entry(id).or_default();
        if set.process.as_ref().is_some_and(|process| Some(process.pid) == pid_number(Some(pid))) {
            return;
        }
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => {
                set.process = pid_number(Some(pid)).map(|pid| Process { pid, handle });
            }
            Err(error) => tracing::warn!(%id, %error, "a disk process cannot be watched"),
        }
    }

    // ---- life and death

    fn start(&mut self, options: DiskOptions) -> FromKeeper {
        let id = options.set;
        let set = self.sets.entry(id).or_default();
        if let Some(process) = set.process.as_ref().filter(|process| !is_dead(&process.handle)) {
            return FromKeeper::Runs { pid: process.pid };
        }
        match self.spawn(&options) {
            Ok(pid) => FromKeeper::Runs { pid },
            Err(error) => FromKeeper::Refused { reason: format!("{error:#}") },
        }
    }

    fn spawn(&mut self, options: &DiskOptions) -> anyhow::Result<u32> {
        let mut spec = Spec {
            program: self.program.clone(),
            arguments: vec!["disk".into(), serde_json::to_string(options)?],
            output: options.log.clone(),
            ..Spec::default()
        };
        if let Ok(level) = std::env::var("RUST_LOG") {
            spec.environment.insert("RUST_LOG".into(), level);
        }
        let id = self.processes.start(&spec)?;
        self.watch(options.set, Pid::from_raw(id.pid as i32));
        Ok(id.pid)
    }

    fn died(&mut self, id: SetId) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        let Some(process) = set.process.take() else { return };
        // Without options it left in order.
        let Some(options) = set.options.clone() else { return };
        let now = Instant::now();
        set.deaths.retain(|at| now.duration_since(*at) < DEATHS_WITHIN);
        set.deaths.push_back(now);
        let kept = set.kept().unwrap_or_default();
        if kept.fenced {
            // It may have died in the middle of it.
            self.fence(id);
        } else if set.deaths.len() >= DEATHS_MAX {
            tracing::warn!(%id, deaths = set.deaths.len(), "its disk processes die one after another: it is given up");
            set.front = None;
            aside("sweep", move || {
                if let Err(error) = sweep(&Place::of(&options)) {
                    tracing::warn!(%error, "the block device cannot be withdrawn");
                }
            });
            return;
        }
        let Some(set) = self.sets.get(&id) else { return };
        let serving = set.front.is_some();
        match self.spawn(&options) {
            Ok(pid) => tracing::info!(%id, dead = process.pid, pid, serving, "a disk process died: replaced"),
            Err(error) => tracing::warn!(%id, "a disk process died and cannot be replaced: {error:#}"),
        }
    }

    // ---- leases

    /// Drops addresses at the end of a lease, fences at its bound: whatever node and disk process do, dead or stopped.
    fn judge_leases(&mut self) {
        let now = BootClock.now();
        let mut late = Vec::new();
        for (id, set) in &mut self.sets {
            let Some(kept) = set.kept() else { continue };
            let ended = kept.serving && kept.lease.flatten().is_some_and(|until| until <= now);
            if ended && !set.dropped && !set.guarded.addresses.is_empty() {
                let addresses = set.guarded.addresses.clone();
                aside("drop", move || drop_addresses(&addresses));
            }
            set.dropped = ended;
            // One that lives does it itself, unless it stands still.
            let slack = if set.process.is_some() { KEEPER_SLACK } else { 0 };
            if kept.serving && kept.fence_at.is_some_and(|at| at.plus(slack) <= now) {
                late.push(*id);
            }
        }
        for id in late {
            tracing::warn!(%id, "its lease has ended and nobody has acted: fenced by the keeper");
            self.fence(id);
        }
    }

    /// Ends everything of a set: the process if it lives, its device, what is guarded.
    fn fence(&mut self, id: SetId) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        if let Some(process) = &set.process {
            let _ = pidfd_send_signal(&process.handle, Signal::KILL);
        }
        (set.fenced, set.front, set.record) = (true, None, None);
        let guarded = std::mem::take(&mut set.guarded);
        if let Some(options) = set.options.clone() {
            aside("fence", move || fence_all(&Place::of(&options), &guarded));
        }
    }
}

impl Set {
    fn kept(&self) -> Option<Kept> {
        self.record.as_ref().filter(|_| !self.fenced).and_then(record::read)
    }
}

/// What may hang in the kernel holds nobody up.
fn aside(name: &str, work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().name(name.into()).stack_size(STACK_BYTES);
    if let Err(error) = thread.spawn(work) {
        tracing::warn!(%error, name, "no thread");
    }
}

fn pid_number(pid: Option<Pid>) -> Option<u32> {
    pid.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
}

fn is_dead(handle: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}
