//! The other ends of the keeper's socket: node, which has processes started, and a disk process, which leaves all that its
//! successor needs.

use super::record;
use super::socket;
pub(crate) use super::wire::FrontRecord;
use super::wire::{FromKeeper, ToKeeper, dial, receive, send};
use crate::guard::Guarded;
use crate::limits::{KEEPER_AGAIN, KEEPER_ANSWER, KEEPER_START, STACK_BYTES};
use crate::options::DiskOptions;
use anyhow::{Context as _, bail};
use mirror::Kept;
use os::process::{HostProcesses, Processes as _, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Sees to it that a keeper lives for this state folder: starts this program's `keeper` if none answers.
///
/// # Errors
/// The program cannot be started, or its socket does not appear.
pub fn ensure(state: &Path) -> anyhow::Result<()> {
    reach(state).map(|_| ())
}

/// Has the keeper start a set's process, if none lives. Gives the pid of the one that does.
///
/// # Errors
/// There is no keeper and none can be started, or it could not start the process.
pub fn start(options: &DiskOptions) -> anyhow::Result<u32> {
    let connection = reach(&options.state)?;
    send(&connection, &ToKeeper::Start { options: Box::new(options.clone()) }, &[])?;
    match receive(&connection, KEEPER_ANSWER)? {
        Some((FromKeeper::Runs { pid }, _)) => Ok(pid),
        Some((FromKeeper::Refused { reason }, _)) => bail!("the keeper refuses: {reason}"),
        Some((FromKeeper::Inheritance { .. } | FromKeeper::Noted, _)) => {
            bail!("the keeper answers something else")
        }
        None => bail!("the keeper closed the connection"),
    }
}

/// A connection to the keeper, which is started if need be.
fn reach(state: &Path) -> anyhow::Result<OwnedFd> {
    let path = socket(state);
    if let Ok(connection) = dial(&path) {
        return Ok(connection);
    }
    let mut spec = Spec {
        program: std::env::current_exe().context("find the program's own file")?,
        arguments: vec!["keeper".into(), state.display().to_string()],
        output: Some(state.join("keeper.log")),
        ..Spec::default()
    };
    if let Ok(level) = std::env::var("RUST_LOG") {
        spec.environment.insert("RUST_LOG".into(), level);
    }
    HostProcesses::default().start(&spec).context("start the keeper")?;
    let end = Instant::now() + KEEPER_START;
    loop {
        match dial(&path) {
            Ok(connection) => return Ok(connection),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("no keeper at {}", path.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// What a process finds when it begins.
#[derive(Default)]
pub(crate) struct Inheritance {
    /// What the one before it kept.
    pub kept: Kept,
    /// The front end that is still up, and its descriptor.
    pub front: Option<(FrontRecord, OwnedFd)>,
    /// What is guarded.
    pub guarded: Guarded,
}

/// What is to be left to a successor.
#[derive(Default)]
struct Estate {
    front: Option<(FrontRecord, OwnedFd)>,
    guarded: Guarded,
}

/// A disk process's handle of its keeper. Without one (tests, tools) everything is kept in vain.
pub(crate) struct Keeping {
    record: Option<OwnedFd>,
    last: Kept,
    estate: Arc<Mutex<Estate>>,
    changed: Option<SyncSender<bool>>,
}

/// A thread's handle of the same.
#[derive(Clone)]
pub(crate) struct Leaving {
    estate: Arc<Mutex<Estate>>,
    changed: Option<SyncSender<bool>>,
}

impl Leaving {
    /// The front end is up, or about to go.
    pub(crate) fn front(&self, front: Option<(FrontRecord, OwnedFd)>) {
        self.estate.lock().unwrap_or_else(PoisonError::into_inner).front = front;
        self.tell();
    }

    fn tell(&self) {
        if let Some(changed) = &self.changed {
            // Full means that the newest state is sent anyhow.
            let _ = changed.try_send(true);
        }
    }
}

/// Takes what a dead process of this set left. Nothing, where there is no keeper.
///
/// # Errors
/// Another process of the set lives.
pub(crate) fn inherit(options: &DiskOptions) -> anyhow::Result<(Inheritance, Option<OwnedFd>)> {
    if !options.kept {
        return Ok((Inheritance::default(), None));
    }
    match ask(options) {
        Ok(Ok((inheritance, connection))) => Ok((inheritance, Some(connection))),
        Ok(Err(reason)) => bail!("the keeper refuses: {reason}"),
        Err(error) => {
            tracing::warn!("no keeper: this process cannot be replaced before there is one: {error:#}");
            Ok((Inheritance::default(), None))
        }
    }
}

fn ask(options: &DiskOptions) -> anyhow::Result<Result<(Inheritance, OwnedFd), String>> {
    let connection = reach(&options.state)?;
    send(&connection, &ToKeeper::Inherit { options: Box::new(options.clone()) }, &[])?;
    match receive(&connection, KEEPER_ANSWER)? {
        Some((FromKeeper::Inheritance { front, guarded }, with)) => {
            let mut with = with.into_iter();
            let kept = with.next().and_then(record::read).unwrap_or_default();
            let front = front.zip(with.next());
            Ok(Ok((Inheritance { kept, front, guarded }, connection)))
        }
        Some((FromKeeper::Refused { reason }, _)) => Ok(Err(reason)),
        Some((FromKeeper::Runs { .. } | FromKeeper::Noted, _)) | None => bail!("it does not answer"),
    }
}

impl Keeping {
    /// Begins to leave things: a thread tells the keeper, and makes a new one where it died.
    ///
    /// # Errors
    /// No memory file, or no thread.
    pub(crate) fn start(
        options: &DiskOptions,
        connection: Option<OwnedFd>,
        front: Option<(FrontRecord, OwnedFd)>,
        guarded: Guarded,
    ) -> anyhow::Result<Self> {
        let estate = Arc::new(Mutex::new(Estate { front, guarded }));
        let (mut record, mut changed) = (None, None);
        if options.kept {
            let file = record::create().context("make the memory file")?;
            let (sender, queue) = sync_channel(1);
            let teller = Teller {
                options: options.clone(),
                record: file.try_clone()?,
                estate: estate.clone(),
                connection,
            };
            let thread = std::thread::Builder::new().name("keeping".into()).stack_size(STACK_BYTES);
            thread.spawn(move || teller.run(&queue))?;
            (record, changed) = (Some(file), Some(sender));
        }
        Ok(Keeping { record, last: Kept::default(), estate, changed })
    }

    /// For the threads that change what is left.
    pub(crate) fn leaving(&self) -> Leaving {
        Leaving { estate: self.estate.clone(), changed: self.changed.clone() }
    }

    /// All is set up: the keeper takes it from here.
    pub(crate) fn begin(&self) {
        self.leaving().tell();
    }

    /// What must outlive this process, before anything is done that depends on it.
    pub(crate) fn note(&mut self, kept: Kept) {
        let Some(record) = &self.record else { return };
        if kept != self.last {
            match record::write(record, &kept) {
                Ok(()) => self.last = kept,
                Err(error) => tracing::warn!(%error, "what a successor needs is not kept"),
            }
        }
    }

    /// What is guarded has changed.
    pub(crate) fn guarded(&self, guarded: &Guarded) {
        self.estate.lock().unwrap_or_else(PoisonError::into_inner).guarded = guarded.clone();
        self.leaving().tell();
    }

    /// The process ends in order: nobody is to follow it.
    pub(crate) fn end(&self, options: &DiskOptions) {
        if !options.kept {
            return;
        }
        let told = dial(&socket(&options.state)).map_err(anyhow::Error::from).and_then(|connection| {
            send(&connection, &ToKeeper::Leaves { set: options.set }, &[])?;
            // Not before it knows: the death that follows would be taken for a kill.
            receive::<FromKeeper>(&connection, KEEPER_ANSWER).map(drop)
        });
        if let Err(error) = told {
            tracing::debug!("no keeper to be told of the end: {error:#}");
        }
    }
}

/// Tells the keeper, for the life of the process.
struct Teller {
    options: DiskOptions,
    record: OwnedFd,
    estate: Arc<Mutex<Estate>>,
    connection: Option<OwnedFd>,
}

impl Teller {
    fn run(mut self, queue: &Receiver<bool>) {
        let mut due = false;
        loop {
            match queue.recv_timeout(KEEPER_AGAIN) {
                Ok(_) => due = true,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.connection.as_ref().is_some_and(ended) {
                self.connection = None;
                tracing::warn!("the keeper is gone: a new one is told everything");
                due = true;
            }
            if due {
                match self.tell() {
                    Ok(()) => due = false,
                    Err(error) => {
                        self.connection = None;
                        tracing::debug!("the keeper is not told: {error:#}");
                    }
                }
            }
        }
    }

    fn tell(&mut self) -> anyhow::Result<()> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => reach(&self.options.state)?,
        };
        {
            let estate = self.estate.lock().unwrap_or_else(PoisonError::into_inner);
            let state = ToKeeper::State {
                options: Box::new(self.options.clone()),
                front: estate.front.as_ref().map(|(record, _)| record.clone()),
                guarded: estate.guarded.clone(),
            };
            let mut with = vec![self.record.as_fd()];
            with.extend(estate.front.as_ref().map(|(_, descriptor)| descriptor.as_fd()));
            send(&connection, &state, &with)?;
        }
        self.connection = Some(connection);
        Ok(())
    }
}

/// The keeper says nothing after its first answer: what is readable is its end.
fn ended(connection: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(connection, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}
