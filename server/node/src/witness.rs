//! `futago witness`: the third vote, a small process on a third machine. Its record is durable before it answers.

use crate::channel::{self, Channel, Happened, Packet};
use crate::data::DataDir;
use crate::http::auth::WrongLogins;
use crate::http::error::Fault;
use crate::http::listen::{self, Caller};
use crate::node::{HAPPENED_MAX, host_name};
use crate::pairing::Pairing;
use crate::peers::{Hello, HelloAnswer, Role, WitnessJoin};
use crate::tls::Identity;
use anyhow::Context as _;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use engine::witness::{Witness, WitnessAction, WitnessRecord};
use peer::cluster::CLUSTER_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use wire::NodeId;

/// Options of `futago witness`.
#[derive(Clone, Debug, clap::Args)]
pub struct WitnessOptions {
    /// Folder of the witness's key and memory; made if missing.
    #[arg(long)]
    pub data: PathBuf,
    /// Where to answer the servers.
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Name shown when it is paired.
    #[arg(long, default_value_t = host_name())]
    pub name: String,
}

/// Whose third vote it is.
#[derive(Clone, Serialize, Deserialize)]
struct Members {
    cluster: String,
    servers: [String; 2],
}

struct Process {
    name: String,
    data: DataDir,
    pairing: Pairing,
    wrong: WrongLogins,
    members: Mutex<Option<Members>>,
    channels: [Channel; 2],
    heard: mpsc::Sender<(NodeId, Happened)>,
}

impl Process {
    fn members(&self) -> Option<Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn channel(&self, server: NodeId) -> &Channel {
        let [first, second] = &self.channels;
        if server == NodeId(1) { first } else { second }
    }
}

/// Runs until a signal ends it.
///
/// # Errors
/// The folder or the listening address cannot be used, or the memory is damaged.
pub async fn run(options: WitnessOptions) -> anyhow::Result<ExitCode> {
    let data = DataDir::open(&options.data)?;
    let identity = Identity::open(&data, &options.name)?;
    let listener = listen::bind(options.listen).await?;
    let members: Option<Members> = read(&data.file("members.json"))?;
    let record: Option<WitnessRecord> = match read(&data.file("witness.json")) {
        Ok(record) => record,
        Err(fault) => {
            // A damaged memory is a lost one: a new incarnation, which votes only after both servers introduced themselves.
            tracing::warn!("{fault:#}: a new incarnation begins");
            None
        }
    };
    let pairing = Pairing::of(&data, &identity.fingerprint);
    if members.is_none() {
        println!("This witness belongs to no cluster yet.");
        println!("Pairing code:    {}", pairing.code()?);
    }
    let (heard, turns) = mpsc::channel(HAPPENED_MAX);
    let process = Arc::new(Process {
        name: options.name,
        data,
        pairing,
        wrong: WrongLogins::default(),
        members: Mutex::new(members),
        channels: [Channel::default(), Channel::default()],
        heard,
    });
    let witness = Witness::new(record, os::incarnation::random()?);
    let voting = tokio::spawn(vote(process.clone(), witness, turns));
    let routes = Router::new()
        .route("/peer/hello", post(hello))
        .route("/peer/join", post(join))
        .route("/peer/channel", get(serve))
        .route("/healthz", get(healthz))
        .with_state(process);
    tracing::info!(address = %options.listen, "witness answers");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        ended = listen::serve(listener, &identity, routes) => ended?,
        ended = voting => ended??,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
        }
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(fault).with_context(|| format!("read {}", path.display())),
    }
}

/// The task that owns the vote: one happening at a time, stored before anything that depends on it is sent.
async fn vote(
    process: Arc<Process>,
    mut witness: Witness,
    mut turns: mpsc::Receiver<(NodeId, Happened)>,
) -> anyhow::Result<()> {
    loop {
        for action in witness.take_actions() {
            match action {
                WitnessAction::Store { token, record } => {
                    let path = process.data.file("witness.json");
                    let text = serde_json::to_vec(&record)?;
                    match tokio::task::spawn_blocking(move || os::durable::write(&path, &text)).await? {
                        Ok(()) => witness.handle_stored(token),
                        Err(fault) => {
                            witness.handle_store_failed();
                            return Err(
                                anyhow::Error::from(fault).context("the witness cannot store its memory")
                            );
                        }
                    }
                }
                // In order: whatever it waits for was stored just before.
                WitnessAction::Send { to, message, .. } => {
                    process.channel(to).send(Packet::Message(message));
                }
            }
        }
        let Some((server, happened)) = turns.recv().await else { return Ok(()) };
        match happened {
            Happened::Opened => witness.channel_opened(server),
            Happened::Closed => witness.channel_closed(server),
            Happened::Came(Packet::Message(message)) => witness.handle(server, message),
            Happened::Came(Packet::Access(_)) => {}
        }
    }
}

type ProcessState = State<Arc<Process>>;

fn admit(process: &Process, caller: &Caller, secret: &str) -> Result<(), Fault> {
    let from = caller.address.ip();
    process.wrong.check(from)?;
    if process.members().is_some() {
        return Err(Fault::Conflict("this witness belongs to a cluster already".into()));
    }
    if caller.fingerprint.is_none() || !process.pairing.knows(secret) {
        process.wrong.count(from);
        return Err(Fault::Forbidden(
            "the pairing code is wrong, used or expired: `futago code` shows the present one",
        ));
    }
    Ok(())
}

async fn hello(
    State(process): ProcessState,
    Extension(caller): Extension<Caller>,
    Json(hello): Json<Hello>,
) -> Result<Json<HelloAnswer>, Fault> {
    admit(&process, &caller, &hello.secret)?;
    Ok(Json(HelloAnswer { role: Role::Witness, name: process.name.clone() }))
}

async fn join(
    State(process): ProcessState,
    Extension(caller): Extension<Caller>,
    Json(order): Json<WitnessJoin>,
) -> Result<Json<serde_json::Value>, Fault> {
    admit(&process, &caller, &order.secret)?;
    let members = Members { cluster: order.cluster, servers: order.servers };
    let text = serde_json::to_vec(&members).map_err(anyhow::Error::from)?;
    os::durable::write(&process.data.file("members.json"), &text).map_err(anyhow::Error::from)?;
    process.pairing.used()?;
    tracing::info!(cluster = %members.cluster, "this witness belongs to a cluster");
    *process.members.lock().unwrap_or_else(PoisonError::into_inner) = Some(members);
    Ok(Json(serde_json::json!({})))
}

async fn serve(
    State(process): ProcessState,
    Extension(caller): Extension<Caller>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Fault> {
    let members = process.members().ok_or(Fault::NotFound("this witness belongs to no cluster"))?;
    let place =
        members.servers.iter().position(|server| Some(server.as_str()) == caller.fingerprint.as_deref());
    let server = match place {
        Some(0) => NodeId(1),
        Some(_) => NodeId(2),
        None => return Err(Fault::Forbidden("this certificate is not of a server of this cluster")),
    };
    let upgrade = upgrade.max_message_size(CLUSTER_BYTES_MAX).max_frame_size(CLUSTER_BYTES_MAX);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let (happened, mut heard) = mpsc::channel::<Happened>(HAPPENED_MAX);
        let turns = process.heard.clone();
        tokio::spawn(async move {
            while let Some(happened) = heard.recv().await {
                if turns.send((server, happened)).await.is_err() {
                    return;
                }
            }
        });
        channel::accept(process.channel(server), socket, &happened).await;
    }))
}

async fn healthz(State(process): ProcessState) -> impl IntoResponse {
    let cluster = process.members().is_some();
    Json(serde_json::json!({ "server": process.name, "cluster": cluster, "role": "witness" }))
}
