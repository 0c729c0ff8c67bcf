//! Threads that bring an authenticated connection to the twin about: one dials or listens, short-lived ones shake hands.

use super::handshake::{End, Identity, Key, Line, Stranger, shake};
use super::tls;
use crate::inbox::{Outbox, Outcome};
use crate::limits::{
    BACK_OFF, DIAL, HANDSHAKE, HANDSHAKES_MAX, LANE_AGAIN, LANES_MAX, LASTING, LISTEN_AGAIN, STACK_BYTES,
};
use crate::tls::Tls;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// Who is to be met, and where.
#[derive(Clone)]
pub(crate) struct Meeting {
    pub me: Identity,
    pub twin: Identity,
    pub key: Key,
    /// Own addresses, one for each interconnect.
    pub listen: Vec<IpAddr>,
    /// The twin's, in the same order.
    pub dial: Vec<IpAddr>,
    pub port: u16,
    /// This side wants it encrypted.
    pub encrypt: bool,
    /// This side wants payloads packed.
    pub pack: bool,
}

/// A connection that has proved itself.
type Greeted = (TcpStream, Line, Option<Tls>);

impl Meeting {
    /// Interconnects that both sides have and that are used together.
    fn lanes(&self) -> usize {
        self.dial.len().min(self.listen.len()).min(LANES_MAX)
    }

    fn line(&self, bundle: u64, lane: usize, joins: bool) -> Line {
        let (lane, lanes) = (lane as u8, self.lanes() as u8);
        Line { bundle, lane, lanes, joins, encrypt: self.encrypt, pack: self.pack }
    }
}

/// Lanes of a standing link that have no connection.
struct Missing {
    bundle: u64,
    lanes: Vec<usize>,
}

/// Brings connections about until dropped.
pub(crate) struct Connector {
    /// Of the side that dials: a link is wanted; lanes of it are wanted.
    dials: Option<(SyncSender<()>, Sender<Missing>)>,
    /// Interconnects that both sides have.
    lanes: usize,
}

impl Connector {
    /// Starts to dial (lower side) or to listen.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(meeting: Meeting, outbox: Outbox) -> io::Result<Self> {
        let thread = Builder::new().stack_size(STACK_BYTES);
        let lanes = meeting.lanes();
        if meeting.me.side < meeting.twin.side {
            let (again, wanted) = sync_channel(1);
            let _ = again.try_send(());
            let (more, missing) = channel();
            let (joining, joined) = (meeting.clone(), outbox.clone());
            thread.name("dial".into()).spawn(move || dial(&meeting, &wanted, &outbox))?;
            let thread = Builder::new().stack_size(STACK_BYTES);
            thread.name("lanes".into()).spawn(move || join(&joining, &missing, &joined))?;
            Ok(Connector { dials: Some((again, more)), lanes })
        } else {
            thread.name("listen".into()).spawn(move || accept(&Arc::new(meeting), &outbox))?;
            Ok(Connector { dials: None, lanes })
        }
    }

    /// The connection is gone: another one is wanted.
    pub(crate) fn again(&self) {
        if let Some((again, more)) = &self.dials {
            let _ = more.send(Missing { bundle: 0, lanes: Vec::new() });
            // Full means that it is wanted already.
            let _ = again.try_send(());
        }
    }

    /// Interconnects of the link.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// These lanes of the standing link have no connection: they are dialled until they have one, or none is wanted.
    pub(crate) fn lacks(&self, bundle: u64, lanes: Vec<usize>) {
        if let Some((_, more)) = &self.dials {
            let _ = more.send(Missing { bundle, lanes });
        }
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| io::ErrorKind::Other)?;
    Ok(bytes)
}

fn greet(meeting: &Meeting, mut stream: TcpStream, end: End, line: Line) -> Result<Greeted, Stranger> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANDSHAKE))?;
    stream.set_write_timeout(Some(HANDSHAKE))?;
    let line = shake(&mut stream, end, (meeting.me, meeting.twin), line, &meeting.key, random()?)?;
    let tls = line.encrypt.then(|| tls::shake(&mut stream, end, &meeting.key)).transpose()?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok((stream, line, tls))
}

/// Dials each time the loop wants a connection, over every interconnect in order, until there is one. A connection that did
/// not last (a side is busy activating, or refuses) is followed by a pause like one that did not come about.
fn dial(meeting: &Meeting, wanted: &Receiver<()>, outbox: &Outbox) {
    let mut told = false;
    let mut pause = BACK_OFF.0;
    let mut connected: Option<Instant> = None;
    while wanted.recv().is_ok() {
        if connected.is_none_or(|at| at.elapsed() >= LASTING) {
            pause = BACK_OFF.0;
        } else if !rest(wanted, &mut pause) {
            return;
        }
        let (stream, line, tls) = loop {
            let bundle = random().map(u64::from_le_bytes).unwrap_or_default();
            let mut lanes = (0..meeting.dial.len()).map(|lane| meeting.line(bundle, lane, false));
            if let Some(found) = lanes.find_map(|line| dial_once(meeting, line, &mut told)) {
                break found;
            }
            if !rest(wanted, &mut pause) {
                return;
            }
        };
        told = false;
        connected = Some(Instant::now());
        outbox.put(Outcome::Linked { stream, dialled: true, line, tls });
    }
}

/// Dials the lanes that the standing link lacks, again and again; what is wanted last counts.
fn join(meeting: &Meeting, missing: &Receiver<Missing>, outbox: &Outbox) {
    let mut wanted = Missing { bundle: 0, lanes: Vec::new() };
    let mut told = false;
    loop {
        let news = if wanted.lanes.is_empty() {
            missing.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            missing.recv_timeout(LANE_AGAIN)
        };
        match news {
            Ok(news) => wanted = missing.try_iter().last().unwrap_or(news),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let bundle = wanted.bundle;
        wanted.lanes.retain(|lane| {
            let found = dial_once(meeting, meeting.line(bundle, *lane, true), &mut told);
            let Some((stream, line, tls)) = found else { return true };
            outbox.put(Outcome::Linked { stream, dialled: true, line, tls });
            false
        });
    }
}

/// Waits, longer each time. `false`: the process ends.
fn rest(wanted: &Receiver<()>, pause: &mut Duration) -> bool {
    let ended = wanted.recv_timeout(*pause) == Err(RecvTimeoutError::Disconnected);
    *pause = (*pause * 2).min(BACK_OFF.1);
    !ended
}

fn dial_once(meeting: &Meeting, line: Line, told: &mut bool) -> Option<Greeted> {
    let address = SocketAddr::new(*meeting.dial.get(usize::from(line.lane))?, meeting.port);
    let connected = TcpStream::connect_timeout(&address, DIAL).map_err(Stranger::from);
    match connected.and_then(|stream| greet(meeting, stream, End::Dialler, line)) {
        Ok(found) => return Some(found),
        Err(Stranger::Silent(error)) => tracing::debug!(%address, %error, "the twin does not answer"),
        Err(error) => {
            // Once for each outage: dialling goes on several times a second.
            if !std::mem::replace(told, true) {
                tracing::warn!(%address, %error, "not the twin");
            }
        }
    }
    None
}

fn open_listener(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // An interconnect that is down at the start has no address yet.
    sockopt::set_ip_freebind(&socket, true)?;
    bind(&socket, &SocketAddr::new(address, port))?;
    listen(&socket, HANDSHAKES_MAX as i32)?;
    Ok(TcpListener::from(socket))
}

fn accept(meeting: &Arc<Meeting>, outbox: &Outbox) {
    let mut closed = meeting.listen.clone();
    let mut open: Vec<TcpListener> = Vec::new();
    let shaking = Arc::new(AtomicUsize::new(0));
    let mut told = false;
    loop {
        closed.retain(|address| match open_listener(*address, meeting.port) {
            Ok(listener) => {
                open.push(listener);
                false
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%address, port = meeting.port, %error, "cannot listen for the twin; trying on");
                }
                true
            }
        });
        let mut watched: Vec<PollFd<'_>> = open.iter().map(|one| PollFd::new(one, PollFlags::IN)).collect();
        let again = Timespec::try_from(LISTEN_AGAIN).ok();
        let wait = if closed.is_empty() { None } else { again.as_ref() };
        if poll(&mut watched, wait).is_err() {
            continue;
        }
        for listener in &open {
            while let Ok((stream, from)) = listener.accept() {
                receive(meeting, stream, from, outbox, &shaking);
            }
        }
    }
}

/// Shakes hands on a thread of its own, so that a silent stranger holds nobody up.
fn receive(
    meeting: &Arc<Meeting>,
    stream: TcpStream,
    from: SocketAddr,
    outbox: &Outbox,
    shaking: &Arc<AtomicUsize>,
) {
    if shaking.fetch_add(1, Ordering::SeqCst) >= HANDSHAKES_MAX {
        shaking.fetch_sub(1, Ordering::SeqCst);
        return;
    }
    let (meeting, outbox, counted) = (meeting.clone(), outbox.clone(), shaking.clone());
    let work = move || {
        match greet(&meeting, stream, End::Listener, meeting.line(0, 0, false)) {
            Ok((stream, line, tls)) => outbox.put(Outcome::Linked { stream, dialled: false, line, tls }),
            Err(Stranger::Silent(error)) => tracing::debug!(%from, %error, "a handshake was not completed"),
            Err(error) => tracing::warn!(%from, %error, "not the twin"),
        }
        counted.fetch_sub(1, Ordering::SeqCst);
    };
    if Builder::new().name("greet".into()).stack_size(STACK_BYTES).spawn(work).is_err() {
        shaking.fetch_sub(1, Ordering::SeqCst);
    }
}
