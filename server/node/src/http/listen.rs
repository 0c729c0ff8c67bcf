//! Accepts TLS connections, tells peers from people by the name they ask for, and serves the routes on them.

use crate::tls::{self, Identity, PEER_NAME};
use anyhow::Context as _;
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::server::Acceptor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;

/// Connections at once: some hundred pages and command lines; each costs about 50 kB.
const CONNECTIONS_MAX: usize = 512;
/// For the TLS handshake and for the head of a request.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed, for instance because no descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its address.
    pub address: SocketAddr,
    /// Of its certificate, when it came as a peer.
    pub fingerprint: Option<Arc<str>>,
}

/// Opens the listening socket.
///
/// # Errors
/// The address is in use or not of this host.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listen on {address}: give another --listen"))
}

/// Serves for ever.
///
/// # Errors
/// Key and certificate do not fit.
pub async fn serve(listener: TcpListener, identity: &Identity, router: Router) -> anyhow::Result<()> {
    let (page, peer) = (identity.page_config()?, identity.peer_config()?);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return Ok(()) };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(fault) => {
                tracing::warn!("accept: {fault}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (page, peer, router) = (page.clone(), peer.clone(), router.clone());
        tokio::spawn(async move {
            if let Err(fault) = converse(stream, address, page, peer, router).await {
                tracing::debug!(%address, "connection ended: {fault:#}");
            }
            drop(place);
        });
    }
}

async fn converse(
    stream: TcpStream,
    address: SocketAddr,
    page: Arc<rustls::ServerConfig>,
    peer: Arc<rustls::ServerConfig>,
    router: Router,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let greeting = async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let as_peer = start.client_hello().server_name() == Some(PEER_NAME);
        start.into_stream(if as_peer { peer } else { page }).await
    };
    let stream = timeout(GREETING_LIMIT, greeting).await.context("no TLS greeting in time")??;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let fingerprint = shown.map(|certificate| tls::fingerprint(certificate).into());
    let service = TowerToHyperService::new(router.layer(Extension(Caller { address, fingerprint })));
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(GREETING_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}
