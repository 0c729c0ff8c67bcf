//! A network namespace held by a descriptor: work done inside it by a thread that enters it; sockets made there stay there.

use crate::link::Network;
use crate::namespace::{self, Kind};
use crate::{Doing, Failure};
use rustix::process::getpid;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

/// A network namespace; it lives as long as this or a process in it does.
#[derive(Debug)]
pub struct NetNamespace(OwnedFd);

impl NetNamespace {
    /// Makes an empty one, its loopback switched on.
    ///
    /// # Errors
    /// Not root, or the kernel refused.
    pub fn create() -> Result<Self, Failure> {
        let made = on_thread(|| {
            namespace::unshare(&[Kind::Network])?;
            let path = "/proc/thread-self/ns/net";
            std::fs::File::open(path).map(OwnedFd::from).doing(|| format!("open {path}"))
        })??;
        let space = NetNamespace(made);
        space.run(|network| network.set_up("lo", true))??;
        Ok(space)
    }

    /// That of a process.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of_process(pid: u32) -> Result<Self, Failure> {
        namespace::open(pid, Kind::Network).map(NetNamespace)
    }

    /// That of the calling process.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn own() -> Result<Self, Failure> {
        Self::of_process(getpid().as_raw_nonzero().get().unsigned_abs())
    }

    /// Runs `work` on a thread inside the namespace.
    ///
    /// # Errors
    /// The namespace cannot be entered, no netlink socket, or `work` panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce(&mut Network) -> T + Send) -> Result<T, Failure> {
        on_thread(|| {
            namespace::enter(&self.0)?;
            Ok(work(&mut Network::open()?))
        })?
    }

    /// Opens a TCP connection from inside.
    ///
    /// # Errors
    /// Refused, or no answer within `limit`.
    pub fn connect(&self, address: SocketAddr, limit: Duration) -> Result<TcpStream, Failure> {
        self.run(|_| TcpStream::connect_timeout(&address, limit))?.doing(|| format!("connect to {address}"))
    }

    /// Listens inside.
    ///
    /// # Errors
    /// The address is taken or not of that namespace.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener, Failure> {
        self.run(|_| TcpListener::bind(address))?.doing(|| format!("listen on {address}"))
    }
}

impl AsFd for NetNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    let done =
        thread::scope(|scope| thread::Builder::new().spawn_scoped(scope, work).map(|thread| thread.join()));
    done.and_then(|joined| joined.map_err(|_| io::Error::other("the thread panicked")))
        .doing(|| "work in a network namespace".into())
}
