//! The routes that only other members use: pairing by the one-time code, and the channel by pinned certificate.

use crate::app::{Access, App};
use crate::channel::{self, Happened};
use crate::http::error::Fault;
use crate::http::listen::Caller;
use crate::{backing, create, data, node};
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::Response;
use axum::{Extension, Json};
use peer::cluster::CLUSTER_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::mpsc;
use wire::{ClusterConfig, NodeId};

/// What kind of process answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A server's node process.
    Node,
    /// A witness.
    Witness,
}

/// "I was shown your code."
#[derive(Serialize, Deserialize)]
pub struct Hello {
    /// Of the code.
    pub secret: String,
}

/// Answer to [`Hello`].
#[derive(Serialize, Deserialize)]
pub struct HelloAnswer {
    /// What kind of process this is.
    pub role: Role,
    /// The name it was started with.
    pub name: String,
}

/// "Look whether this fits you, and make the control areas on your disks."
#[derive(Serialize, Deserialize)]
pub struct Prepare {
    /// Of the code.
    pub secret: String,
    /// Which server you will be.
    pub you: NodeId,
    /// What you will belong to.
    pub config: ClusterConfig,
    /// How the control areas name the cluster.
    pub cluster: [u8; 16],
    /// Overwrite other sets' control areas.
    pub replace: bool,
}

/// "Belong to this cluster."
#[derive(Serialize, Deserialize)]
pub struct Join {
    /// Of the code.
    pub secret: String,
    /// Which server you are.
    pub you: NodeId,
    /// The configuration.
    pub config: ClusterConfig,
    /// The cluster's key, hexadecimal.
    pub key: String,
    /// Who may log in.
    pub access: Access,
}

/// "Be the third vote of this cluster."
#[derive(Serialize, Deserialize)]
pub struct WitnessJoin {
    /// Of the code.
    pub secret: String,
    /// Its name.
    pub cluster: String,
    /// Fingerprints of server 1 and 2.
    pub servers: [String; 2],
}

type AppState = State<Arc<App>>;

/// Only a process that shows a certificate and knows the code in force goes on.
fn admit(app: &App, caller: &Caller, secret: &str) -> Result<(), Fault> {
    let from = caller.address.ip();
    app.wrong_logins.check(from)?;
    if app.running().is_some() {
        return Err(Fault::Conflict("this server is in a cluster already".into()));
    }
    if caller.fingerprint.is_none() || !app.pairing.knows(secret) {
        app.wrong_logins.count(from);
        return Err(Fault::Forbidden(
            "the pairing code is wrong, used or expired: `futago code` shows the present one",
        ));
    }
    Ok(())
}

/// `POST /peer/hello`.
pub async fn hello(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    Json(hello): Json<Hello>,
) -> Result<Json<HelloAnswer>, Fault> {
    admit(&app, &caller, &hello.secret)?;
    Ok(Json(HelloAnswer { role: Role::Node, name: app.name() }))
}

/// `POST /peer/prepare`.
pub async fn prepare(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    Json(order): Json<Prepare>,
) -> Result<Json<serde_json::Value>, Fault> {
    admit(&app, &caller, &order.secret)?;
    check(&app, &caller, order.you, &order.config)?;
    backing::prepare(&app.data, &order.config, order.you, order.cluster, order.replace).await?;
    Ok(Json(serde_json::json!({})))
}

/// `POST /peer/join`.
pub async fn join(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    Json(order): Json<Join>,
) -> Result<Json<serde_json::Value>, Fault> {
    admit(&app, &caller, &order.secret)?;
    check(&app, &caller, order.you, &order.config)?;
    let key: Option<[u8; 32]> = data::unhex(&order.key).and_then(|key| key.try_into().ok());
    let key = key.ok_or_else(|| Fault::Field("key", "32 bytes in hexadecimal".into()))?;
    app.take_access(&order.access).await?;
    create::settle(&app, &order.config, order.you, &key).await?;
    Ok(Json(serde_json::json!({})))
}

fn check(app: &App, caller: &Caller, you: NodeId, config: &ClusterConfig) -> Result<(), Fault> {
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(Fault::Config(faults));
    }
    let pinned = |id| config.server(id).map(|server| server.fingerprint.as_str());
    if pinned(you) != Some(app.identity.fingerprint.as_str())
        || pinned(you.twin()) != caller.fingerprint.as_deref()
    {
        return Err(Fault::Field(
            "config.servers",
            "the fingerprints of the two servers that are pairing".into(),
        ));
    }
    Ok(())
}

/// `GET /peer/channel`: the other server of the cluster, known by its certificate.
pub async fn channel(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Fault> {
    let running = app.running().ok_or(Fault::NotFound("this server is in no cluster"))?;
    let config = running.config();
    let pinned = config.server(running.me.twin()).map(|server| server.fingerprint.as_str());
    if pinned.is_none() || pinned != caller.fingerprint.as_deref() {
        return Err(Fault::Forbidden("this certificate is not of the other server of this cluster"));
    }
    let upgrade = upgrade.max_message_size(CLUSTER_BYTES_MAX).max_frame_size(CLUSTER_BYTES_MAX);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let (happened, heard) = mpsc::channel::<Happened>(node::HAPPENED_MAX);
        tokio::spawn(node::feed_brain(app, engine::input::Party::Twin, heard));
        channel::accept(&running.twin, socket, &happened).await;
    }))
}
