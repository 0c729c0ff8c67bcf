//! Heartbeats: a datagram on every link's own address and interface, authenticated, never heard twice.

use crate::app::Running;
use crate::brain::Turn;
use engine::Input;
use os::linkstate::{HostLinks, LinkStates as _};
use peer::heartbeat::{HEARTBEAT_BYTES_MAX, Heartbeat, ReplayGuard, decode, encode};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::sleep;
use wire::config::LinkConfig;
use wire::{ClusterConfig, LinkId, NodeId};

/// Until the address of a link is there (an interface that comes up late), it is tried so often.
const BIND_PAUSE: Duration = Duration::from_millis(500);

/// The sending side of every link.
#[derive(Clone)]
pub struct Heartbeats {
    links: Arc<BTreeMap<LinkId, Link>>,
    counter: Arc<AtomicU64>,
    key: [u8; 32],
}

struct Link {
    own: SocketAddr,
    twin: SocketAddr,
    socket: Mutex<Option<Arc<UdpSocket>>>,
}

/// This server's end of a link first, then the other's.
#[must_use]
pub fn ends(link: &LinkConfig, me: NodeId) -> (IpAddr, IpAddr) {
    let [first, second] = link.addresses;
    if me == NodeId(1) { (first, second) } else { (second, first) }
}

impl Heartbeats {
    /// Opens a socket on each link, now or when its address is there, and hands on what comes.
    #[must_use]
    pub fn open(config: &ClusterConfig, running: &Arc<Running>) -> Heartbeats {
        let port = |id| config.server(id).map_or(0, |server| server.address.port());
        let (me, twin) = (running.me, running.me.twin());
        let links = config.links.iter().map(|link| {
            let (own, other) = ends(link, me);
            let (own, twin) = (SocketAddr::new(own, port(me)), SocketAddr::new(other, port(twin)));
            (link.id, Link { own, twin, socket: Mutex::new(None) })
        });
        let heartbeats = Heartbeats {
            links: Arc::new(links.collect()),
            counter: Arc::new(AtomicU64::new(1)),
            key: running.key,
        };
        for id in heartbeats.links.keys() {
            tokio::spawn(heartbeats.clone().listen(*id, running.clone()));
        }
        heartbeats
    }

    /// Sends one; a link that is away loses it.
    pub fn send(&self, link: LinkId, beat: &Heartbeat) {
        let Some(link) = self.links.get(&link) else { return };
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let socket = link.socket.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (encode(beat, counter, &self.key), socket) {
            (Ok(bytes), Some(socket)) => {
                if let Err(fault) = socket.try_send_to(&bytes, link.twin) {
                    tracing::trace!(to = %link.twin, "heartbeat not sent: {fault}");
                }
            }
            (Err(fault), _) => tracing::error!("a heartbeat cannot be written: {fault}"),
            (Ok(_), None) => {}
        }
    }

    async fn listen(self, id: LinkId, running: Arc<Running>) {
        let Some(link) = self.links.get(&id) else { return };
        let mut guard = ReplayGuard::default();
        let mut buffer = [0; HEARTBEAT_BYTES_MAX + 1];
        loop {
            let socket = match bind(link.own).await {
                Ok(socket) => Arc::new(socket),
                Err(fault) => {
                    tracing::debug!(address = %link.own, "no heartbeats over this link yet: {fault:#}");
                    sleep(BIND_PAUSE).await;
                    continue;
                }
            };
            *link.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket.clone());
            loop {
                let (length, from) = match socket.recv_from(&mut buffer).await {
                    Ok(came) => came,
                    // A datagram of ours met a closed port: the other node process is away.
                    Err(fault) if fault.kind() == std::io::ErrorKind::ConnectionRefused => continue,
                    Err(fault) => {
                        tracing::debug!(address = %link.own, "socket opened anew: {fault}");
                        break;
                    }
                };
                match decode(buffer.get(..length).unwrap_or_default(), &self.key) {
                    Ok((counter, beat)) if beat.from == running.me.twin() && guard.admit(&beat, counter) => {
                        // With a full queue the engine is minutes behind; a lost heartbeat is the smaller harm.
                        let _ =
                            running.turns.try_send(Turn::Input(Input::HeartbeatReceived { link: id, beat }));
                    }
                    Ok(_) => tracing::debug!(%from, "a heartbeat that came before"),
                    Err(fault) => tracing::debug!(%from, "a datagram that is no heartbeat of ours: {fault}"),
                }
            }
            *link.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
            sleep(BIND_PAUSE).await;
        }
    }
}

/// Bound to the interface too: a heartbeat says that this cable works, not that some route exists.
async fn bind(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let states = tokio::task::spawn_blocking(|| HostLinks.read()).await??;
    let interface = states
        .into_iter()
        .find(|state| state.addresses.contains(&address.ip()))
        .ok_or_else(|| anyhow::anyhow!("no interface has the address {}", address.ip()))?;
    let socket = UdpSocket::bind(address).await?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    Ok(socket)
}
