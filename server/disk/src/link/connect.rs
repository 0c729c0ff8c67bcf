//! Threads that bring an authenticated connection to the twin about: one dials or listens, short-lived ones shake hands.

use super::handshake::{End, Identity, Key, Stranger, shake};
use crate::inbox::{Outbox, Outcome};
use crate::limits::{BACK_OFF, DIAL, HANDSHAKE, HANDSHAKES_MAX, LASTING, LISTEN_AGAIN, STACK_BYTES};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
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
}

/// Brings connections about until dropped.
pub(crate) struct Connector {
    again: Option<SyncSender<()>>,
}

impl Connector {
    /// Starts to dial (lower side) or to listen.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(meeting: Meeting, outbox: Outbox) -> io::Result<Self> {
        let thread = Builder::new().stack_size(STACK_BYTES);
        if meeting.me.side < meeting.twin.side {
            let (again, wanted) = sync_channel(1);
            let _ = again.try_send(());
            thread.name("dial".into()).spawn(move || dial(&meeting, &wanted, &outbox))?;
            Ok(Connector { again: Some(again) })
        } else {
            thread.name("listen".into()).spawn(move || accept(&Arc::new(meeting), &outbox))?;
            Ok(Connector { again: None })
        }
    }

    /// The connection is gone: another one is wanted.
    pub(crate) fn again(&self) {
        if let Some(again) = &self.again {
            // Full means that it is wanted already.
            let _ = again.try_send(());
        }
    }
}

fn challenge() -> io::Result<[u8; 32]> {
    let mut challenge = [0; 32];
    getrandom::fill(&mut challenge).map_err(|_| io::ErrorKind::Other)?;
    Ok(challenge)
}

fn greet(meeting: &Meeting, mut stream: TcpStream, end: End) -> Result<TcpStream, Stranger> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANDSHAKE))?;
    stream.set_write_timeout(Some(HANDSHAKE))?;
    shake(&mut stream, end, meeting.me, meeting.twin, &meeting.key, challenge()?)?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok(stream)
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
        let stream = loop {
            if let Some(stream) = dial_once(meeting, &mut told) {
                break stream;
            }
            if !rest(wanted, &mut pause) {
                return;
            }
        };
        told = false;
        connected = Some(Instant::now());
        outbox.put(Outcome::Linked { stream, dialled: true });
    }
}

/// Waits, longer each time. `false`: the process ends.
fn rest(wanted: &Receiver<()>, pause: &mut Duration) -> bool {
    let ended = wanted.recv_timeout(*pause) == Err(RecvTimeoutError::Disconnected);
    *pause = (*pause * 2).min(BACK_OFF.1);
    !ended
}

fn dial_once(meeting: &Meeting, told: &mut bool) -> Option<TcpStream> {
    for address in &meeting.dial {
        let address = SocketAddr::new(*address, meeting.port);
        let connected = TcpStream::connect_timeout(&address, DIAL);
        match connected.map_err(Stranger::from).and_then(|stream| greet(meeting, stream, End::Dialler)) {
            Ok(stream) => return Some(stream),
            Err(Stranger::Silent(error)) => tracing::debug!(%address, %error, "the twin does not answer"),
            Err(error) => {
                // Once for each outage: dialling goes on several times a second.
                if !std::mem::replace(told, true) {
                    tracing::warn!(%address, %error, "not the twin");
                }
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
        match greet(&meeting, stream, End::Listener) {
            Ok(stream) => outbox.put(Outcome::Linked { stream, dialled: false }),
            Err(Stranger::Silent(error)) => tracing::debug!(%from, %error, "a handshake was not completed"),
            Err(error) => tracing::warn!(%from, %error, "not the twin"),
        }
        counted.fetch_sub(1, Ordering::SeqCst);
    };
    if Builder::new().name("greet".into()).stack_size(STACK_BYTES).spawn(work).is_err() {
        shaking.fetch_sub(1, Ordering::SeqCst);
    }
}
