//! From this machine's own loopback into a host of the demo: the pages and the application, for the user's own browser.

use anyhow::Context as _;
use os::netns::NetNamespace;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// To be connected inside the host.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Connections at once through one proxy: a browser opens six, and the shows ask in parallel.
const CONNECTIONS_MAX: usize = 128;
/// Bytes moved at once.
const CHUNK: usize = 64 * 1024;

/// Where connections go: a host's network while it runs.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<Option<Arc<NetNamespace>>>>);

impl Gate {
    /// Connections go into this network from here on; `None`: they are closed.
    pub fn set(&self, net: Option<Arc<NetNamespace>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = net;
    }

    fn get(&self) -> Option<Arc<NetNamespace>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Listens on a port of the loopback and passes connections on to `target` inside the gate's network.
/// Returns where it listens: port 0 becomes a free one.
///
/// # Errors
/// The port is taken.
pub fn start(port: u16, gate: Gate, target: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| {
        format!("listen on 127.0.0.1:{port}: choose another port (--page1, --page2, --app)")
    })?;
    let address = listener.local_addr()?;
    let running = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        for stream in listener.incoming().flatten() {
            if running.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
                running.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (gate, running) = (gate.clone(), Arc::clone(&running));
            let pass = move || {
                if let Err(error) = pass(&stream, &gate, target) {
                    tracing::debug!(%error, "a connection into the demo ended");
                }
                running.fetch_sub(1, Ordering::SeqCst);
            };
            if let Err(error) = thread::Builder::new().name("proxy".into()).spawn(pass) {
                tracing::warn!(%error, "no thread for a connection into the demo");
            }
        }
    };
    thread::Builder::new().name(format!("proxy {port}")).spawn(accept)?;
    Ok(address)
}

fn pass(here: &TcpStream, gate: &Gate, target: SocketAddr) -> anyhow::Result<()> {
    let net = gate.get().context("the host is down")?;
    let there = net.connect(target, CONNECT_LIMIT)?;
    // Held no longer: a dead host's network must be free to go.
    drop(net);
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    let (back_from, back_to) = (there.try_clone()?, here.try_clone()?);
    let back = thread::Builder::new().name("proxy back".into()).spawn(move || copy(&back_from, &back_to))?;
    copy(here, &there)?;
    back.join().map_err(|_| io::Error::other("a proxy thread panicked"))??;
    Ok(())
}

/// Moves bytes until one side ends, then lets the other side know.
fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let moved = loop {
        match from.read(&mut chunk) {
            Ok(0) => break Ok(()),
            Ok(count) => {
                if let Err(error) = to.write_all(chunk.get(..count).unwrap_or_default()) {
                    break Err(error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    let _ = to.shutdown(Shutdown::Write);
    if moved.is_err() {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
    moved
}
