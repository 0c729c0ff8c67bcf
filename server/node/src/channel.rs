//! Ordered channels between members: websockets over mutual TLS with pinned certificates. The lower id dials the other
//! server; each server dials the witness. A channel that is silent is closed and dialled anew, over the next link.

use crate::app::Access;
use crate::client::connect;
use crate::tls::{Identity, PEER_NAME, Pin};
use anyhow::Context as _;
use axum::extract::ws as server;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _, future::ready};
use hyper::body::Bytes;
use peer::cluster::{CLUSTER_BYTES_MAX, ClusterMessage};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::{self as client, protocol::WebSocketConfig};

/// Packets waiting to be sent: some seconds of gossip; more means that nobody reads, and messages may be lost anyway.
const WAITING_MAX: usize = 1_024;
/// Between two signs of life.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
/// Without any sign the channel is closed: six of them were lost.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// For one packet to be taken by the network.
const SEND_LIMIT: Duration = Duration::from_secs(3);
/// To be connected over one link; the next one is tried after it.
const DIAL_LIMIT: Duration = Duration::from_millis(1_500);
/// Between two rounds of dialling, growing up to the second one.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What travels.
pub enum Packet {
    /// A message of the engine, or of the configuration's exchange.
    Message(ClusterMessage),
    /// Logins.
    Access(Access),
}

/// What happens on a channel, for its owner.
pub enum Happened {
    /// It is open.
    Opened,
    /// It is closed.
    Closed,
    /// Something came.
    Came(Packet),
}

/// The sending end; none while closed.
#[derive(Clone, Default)]
pub struct Channel(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    out: Option<mpsc::Sender<Packet>>,
    /// Counts openings: an ended connection must not close its successor.
    opening: u64,
}

impl Channel {
    /// Sends; `false` if it is closed or nobody reads: the packet is dropped, as any may be.
    pub fn send(&self, packet: Packet) -> bool {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.out.as_ref().is_some_and(|out| out.try_send(packet).is_ok())
    }

    fn open(&self) -> (u64, mpsc::Receiver<Packet>) {
        let (out, waiting) = mpsc::channel(WAITING_MAX);
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.opening += 1;
        slot.out = Some(out); // the one before, if any, ends as its sender is dropped
        (slot.opening, waiting)
    }

    /// Whether it was still the present one.
    fn close(&self, opening: u64) -> bool {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let present = slot.opening == opening;
        if present {
            slot.out = None;
        }
        present
    }
}

/// One frame of either websocket library.
enum Frame {
    Binary(Bytes),
    Text(String),
    Alive,
    End,
}

/// Serves a connection that the other side dialled, until it ends.
pub async fn accept(channel: &Channel, socket: server::WebSocket, happened: &mpsc::Sender<Happened>) {
    let (out, come) = socket.split();
    let come = come.map(|message| match message {
        Ok(server::Message::Binary(bytes)) => Frame::Binary(bytes),
        Ok(server::Message::Text(text)) => Frame::Text(text.as_str().to_string()),
        Ok(server::Message::Ping(_) | server::Message::Pong(_)) => Frame::Alive,
        Ok(server::Message::Close(_)) | Err(_) => Frame::End,
    });
    let out = out.with(|frame| {
        ready(Ok::<_, axum::Error>(match frame {
            Frame::Binary(bytes) => server::Message::Binary(bytes),
            Frame::Text(text) => server::Message::Text(text.into()),
            Frame::Alive => server::Message::Ping(Bytes::new()),
            Frame::End => server::Message::Close(None),
        }))
    });
    converse(channel, come, out, happened).await;
}

/// Dials until it is connected, serves, and dials again, for ever. The addresses are tried in turn.
pub async fn keep(
    channel: Channel,
    addresses: Vec<SocketAddr>,
    pin: Pin,
    identity: &Identity,
    happened: mpsc::Sender<Happened>,
) {
    let mut pause = BACK_OFF.0;
    while !happened.is_closed() {
        for address in &addresses {
            let dialled = timeout(DIAL_LIMIT, dial(*address, pin.clone(), identity)).await;
            match dialled.context("not in time").and_then(|dialled| dialled) {
                Ok(socket) => {
                    pause = BACK_OFF.0;
                    serve_dialled(&channel, socket, &happened).await;
                    break;
                }
                Err(fault) => tracing::debug!(%address, "not connected: {fault:#}"),
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(BACK_OFF.1);
    }
}

type Dialled = tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

async fn dial(address: SocketAddr, pin: Pin, identity: &Identity) -> anyhow::Result<Dialled> {
    let stream = connect(&address.to_string(), PEER_NAME, pin, Some(identity)).await?;
    let limits = WebSocketConfig::default()
        .max_message_size(Some(CLUSTER_BYTES_MAX))
        .max_frame_size(Some(CLUSTER_BYTES_MAX));
    let path = format!("wss://{PEER_NAME}/peer/channel");
    let (socket, _) = tokio_tungstenite::client_async_with_config(path, stream, Some(limits)).await?;
    Ok(socket)
}

async fn serve_dialled(channel: &Channel, socket: Dialled, happened: &mpsc::Sender<Happened>) {
    let (out, come) = socket.split();
    let come = come.map(|message| match message {
        Ok(client::Message::Binary(bytes)) => Frame::Binary(bytes),
        Ok(client::Message::Text(text)) => Frame::Text(text.as_str().to_string()),
        Ok(client::Message::Ping(_) | client::Message::Pong(_)) => Frame::Alive,
        Ok(client::Message::Close(_) | client::Message::Frame(_)) | Err(_) => Frame::End,
    });
    let out = out.with(|frame| {
        ready(Ok::<_, client::Error>(match frame {
            Frame::Binary(bytes) => client::Message::Binary(bytes),
            Frame::Text(text) => client::Message::Text(text.into()),
            Frame::Alive => client::Message::Ping(Bytes::new()),
            Frame::End => client::Message::Close(None),
        }))
    });
    converse(channel, come, out, happened).await;
}

async fn converse<E>(
    channel: &Channel,
    come: impl Stream<Item = Frame>,
    out: impl Sink<Frame, Error = E>,
    happened: &mpsc::Sender<Happened>,
) {
    let (mut come, mut out) = (std::pin::pin!(come), std::pin::pin!(out));
    let (opening, mut waiting) = channel.open();
    if happened.send(Happened::Opened).await.is_err() {
        return;
    }
    let mut alive = interval(ALIVE_EVERY);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = tokio::time::Instant::now();
    let reason = loop {
        tokio::select! {
            frame = come.next() => {
                heard = tokio::time::Instant::now();
                match frame {
                    None | Some(Frame::End) => break "ended by the other side",
                    Some(Frame::Alive) => {}
                    Some(frame) => match unpack(frame) {
                        Ok(packet) => if happened.send(Happened::Came(packet)).await.is_err() { break "stopped" },
                        Err(fault) => {
                            tracing::warn!("a packet is not understood: {fault:#}");
                            break "not understood";
                        }
                    },
                }
            }
            packet = waiting.recv() => {
                let Some(packet) = packet else { break "replaced by a newer one" };
                match pack(packet) {
                    Ok(frame) => if !matches!(timeout(SEND_LIMIT, out.send(frame)).await, Ok(Ok(()))) {
                        break "cannot send";
                    },
                    Err(fault) => tracing::warn!("a packet cannot be sent: {fault:#}"),
                }
            }
            _ = alive.tick() => {
                if heard.elapsed() > SILENCE_MAX { break "silent" }
                if !matches!(timeout(SEND_LIMIT, out.send(Frame::Alive)).await, Ok(Ok(()))) { break "cannot send" }
            }
        }
    };
    tracing::info!(reason, "channel closed");
    if channel.close(opening) {
        let _ = happened.send(Happened::Closed).await;
    }
}

fn pack(packet: Packet) -> anyhow::Result<Frame> {
    Ok(match packet {
        Packet::Message(message) => Frame::Binary(peer::cluster::encode(&message)?.into()),
        Packet::Access(access) => Frame::Text(serde_json::to_string(&access)?),
    })
}

fn unpack(frame: Frame) -> anyhow::Result<Packet> {
    match frame {
        Frame::Binary(bytes) => Ok(Packet::Message(peer::cluster::decode(&bytes)?)),
        Frame::Text(text) => Ok(Packet::Access(serde_json::from_str(&text)?)),
        Frame::Alive | Frame::End => anyhow::bail!("no packet"),
    }
}
