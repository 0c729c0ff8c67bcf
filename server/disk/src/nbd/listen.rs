//! Where clients of the export come in: listeners, and a thread for each handshake until it is done.

use super::handshake::{Ended, Export, negotiate};
use super::wire::Agreed;
use crate::inbox::{Outbox, Outcome};
use crate::limits::{NBD_CONNECTIONS_MAX, NBD_HANDSHAKE, NBD_HANDSHAKES_MAX, STACK_BYTES};
use crate::options::ExportOptions;
use crate::ring::Ring;
use crate::tls::Tls;
use crate::token::Token;
use rustix::net::sockopt::{Timeout, set_ip_freebind, set_socket_keepalive, set_socket_reuseaddr};
use rustix::net::sockopt::{set_socket_timeout, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, bind, listen, socket_with};
use rustix::net::{SocketAddrAny, SocketAddrUnix};
use rustls::ServerConfig;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections that wait to be accepted: more than the loop lets stand between two turns.
const BACKLOG: i32 = 16;

/// Who has entered: what was agreed, and the encryption.
pub(crate) type Client = (OwnedFd, Agreed, Option<Tls>);

/// A handshake's end.
#[derive(Debug)]
pub(crate) struct Entered {
    term: u32,
    result: Result<Client, Ended>,
}

/// The listeners of an export.
pub(crate) struct Door {
    options: ExportOptions,
    export: Arc<Export>,
    tls: Option<Arc<ServerConfig>>,
    outbox: Outbox,
    listeners: Vec<OwnedFd>,
    /// Counts openings: what an earlier one let in is not taken any more.
    term: u32,
    handshakes: usize,
}

impl Door {
    /// With `tls`, clients on TCP must speak it; those on the unix socket are root's own.
    pub(crate) fn new(
        options: ExportOptions,
        size: u64,
        preferred: u32,
        tls: Option<Arc<ServerConfig>>,
        outbox: Outbox,
    ) -> Self {
        let export = Export { name: options.name.clone(), size, preferred };
        Door { options, export: Arc::new(export), tls, outbox, listeners: Vec::new(), term: 0, handshakes: 0 }
    }

    /// Listens at every configured place.
    pub(crate) fn open(&mut self, ring: &mut Ring<Token>) -> io::Result<()> {
        self.close();
        let unix = self.options.unix.iter().map(|path| listen_unix(path));
        let tcp = self.options.tcp.iter().map(listen_tcp);
        self.listeners = unix.chain(tcp).collect::<io::Result<_>>()?;
        for (index, listener) in (0..).zip(&self.listeners) {
            ring.poll(Token::NbdListener { term: self.term, index }, listener.as_fd());
        }
        Ok(())
    }

    /// Listens no more.
    pub(crate) fn close(&mut self) {
        self.term += 1;
        if !self.listeners.is_empty()
            && let Some(path) = &self.options.unix
        {
            let _ = std::fs::remove_file(path);
        }
        for listener in self.listeners.drain(..) {
            // Wakes the poll that still holds it.
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
    }

    /// As clients name them.
    pub(crate) fn places(&self) -> Vec<String> {
        if self.listeners.is_empty() {
            return Vec::new();
        }
        let name = &self.export.name;
        let unix =
            self.options.unix.iter().map(|path| format!("nbd+unix:///{name}?socket={}", path.display()));
        let scheme = if self.tls.is_some() { "nbds" } else { "nbd" };
        let tcp = self.options.tcp.iter().map(|address| format!("{scheme}://{address}/{name}"));
        unix.chain(tcp).collect()
    }

    /// Lets in who waits, as far as there is room.
    pub(crate) fn knocked(
        &mut self,
        term: u32,
        index: u32,
        ended: bool,
        ring: &mut Ring<Token>,
        inside: usize,
    ) {
        let Some(listener) = self.listeners.get(index as usize).filter(|_| term == self.term) else { return };
        if ended {
            ring.poll(Token::NbdListener { term, index }, listener.as_fd());
        }
        while let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC) {
            if self.handshakes >= NBD_HANDSHAKES_MAX || inside + self.handshakes >= NBD_CONNECTIONS_MAX {
                tracing::info!("a client of the export is turned away: too many are connected");
                continue;
            }
            let (export, outbox) = (self.export.clone(), self.outbox.clone());
            // The unix socket's listener is the first.
            let unix = self.options.unix.is_some() && index == 0;
            let tls = self.tls.clone().filter(|_| !unix);
            let thread = std::thread::Builder::new().name("nbd".into()).stack_size(STACK_BYTES);
            let started = thread.spawn(move || {
                let result = meet(socket, &export, tls.as_ref());
                outbox.put(Outcome::NbdEntered(Entered { term, result }));
            });
            self.handshakes += usize::from(started.is_ok());
        }
    }

    /// The client that a handshake let in.
    pub(crate) fn entered(&mut self, entered: Entered) -> Option<Client> {
        self.handshakes = self.handshakes.saturating_sub(1);
        match entered.result {
            Ok(client) => Some(client).filter(|_| entered.term == self.term),
            Err(ended) => {
                tracing::debug!(%ended, "a client of the export did not enter");
                None
            }
        }
    }
}

fn listen_unix(path: &std::path::Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Whoever can connect can write to the disk.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn listen_tcp(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    // A floating address comes up only after the disk it leads to.
    set_ip_freebind(&socket, true)?;
    bind(&socket, &SocketAddrAny::from(*address))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn meet(socket: OwnedFd, export: &Export, tls: Option<&Arc<ServerConfig>>) -> Result<Client, Ended> {
    // Neither exists on a unix socket. A client whose host died is found out by the kernel.
    let _ = set_tcp_nodelay(&socket, true);
    let _ = set_socket_keepalive(&socket, true);
    let mut timed = Timed { socket, end: Instant::now() + NBD_HANDSHAKE };
    let (agreed, tls) = negotiate(&mut timed, export, tls)?;
    for side in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&timed.socket, side, None).map_err(io::Error::from)?;
    }
    Ok((timed.socket, agreed, tls))
}

/// A socket on which everything together must be over by an instant.
struct Timed {
    socket: OwnedFd,
    end: Instant,
}

impl Timed {
    fn limit(&self, side: Timeout) -> io::Result<()> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(set_socket_timeout(&self.socket, side, Some(left))?)
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.limit(Timeout::Recv)?;
        Ok(rustix::io::read(&self.socket, into)?)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.limit(Timeout::Send)?;
        Ok(rustix::net::send(&self.socket, bytes, rustix::net::SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
