//! Making a cluster, ordered at one server: it meets the other server and the witness by their pairing codes, sees that
//! everything fits on both sides, and only then changes anything.

use crate::app::{Access, App, wall_clock};
use crate::client::post_as_peer;
use crate::data::{hex, random};
use crate::http::error::{Fault, FaultBody};
use crate::peers::{Hello, HelloAnswer, Join, Prepare, Role, WitnessJoin};
use crate::tls::Pin;
use crate::{backing, disks, node, pairing};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use wire::config::{GroupConfig, LinkConfig, ServerConfig, SetConfig, TimingChoice, WitnessConfig};
use wire::{ClusterConfig, NodeId};

/// What an operator gives to make a cluster. The server it is given to becomes server 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateCluster {
    /// Cluster name (A2).
    pub name: String,
    /// The server that is asked.
    pub this: NewServer,
    /// The other one.
    pub twin: NewServer,
    /// The third vote, if there is one.
    #[serde(default)]
    pub witness: Option<NewWitness>,
    /// Heartbeat paths.
    pub links: Vec<LinkConfig>,
    /// Mirror sets.
    #[serde(default)]
    pub sets: Vec<SetConfig>,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<GroupConfig>,
    /// Intervals, or the word of a profile (`default`, `fast`, `patient`); the defaults if absent.
    #[serde(default)]
    pub timing: Option<TimingChoice>,
    /// Whether a server that was down recovers by itself (A4).
    #[serde(default)]
    pub auto_recover: bool,
    /// Overwrite the control areas of other mirror sets on the backings: those sets are lost.
    #[serde(default)]
    pub replace_disks: bool,
}

/// A server to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewServer {
    /// Host name (A2).
    pub name: String,
    /// Where the other members reach its node process.
    pub address: SocketAddr,
    /// Its page as a browser reaches it; `https://` and the address if absent.
    #[serde(default)]
    pub page: Option<String>,
    /// Its pairing code; the server that is asked needs none.
    #[serde(default)]
    pub code: String,
}

/// A witness to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewWitness {
    /// The name people see.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its pairing code.
    pub code: String,
}

/// A member that was met.
struct Met {
    address: SocketAddr,
    secret: String,
    fingerprint: String,
    what: &'static str,
}

/// Makes the cluster; on success this server runs in it.
///
/// # Errors
/// Every fault found, before anything is changed; or which member did not do its part.
pub async fn create(app: &Arc<App>, wanted: CreateCluster) -> Result<ClusterConfig, Fault> {
    let _alone = app.creating.lock().await;
    if app.running().is_some() {
        return Err(Fault::Conflict("this server is in a cluster already".into()));
    }
    let twin = meet(app, &wanted.twin.code, wanted.twin.address, Role::Node).await?;
    let witness = match &wanted.witness {
        Some(witness) => Some(meet(app, &witness.code, witness.address, Role::Witness).await?),
        None => None,
    };
    let config = document(app, &wanted, &twin, witness.as_ref());
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(Fault::Config(faults));
    }
    let me = NodeId(1);
    let key = random::<32>()?;
    let (cluster, replace) = (disks::cluster_id(&key), wanted.replace_disks);
    let order =
        Prepare { secret: twin.secret.clone(), you: me.twin(), config: config.clone(), cluster, replace };
    ask::<serde_json::Value>(app, &twin, "/peer/prepare", &order).await?;
    backing::prepare(&app.data, &config, me, cluster, replace).await?;
    if let Some(witness) = &witness {
        let servers = [app.identity.fingerprint.clone(), twin.fingerprint.clone()];
        let order = WitnessJoin { secret: witness.secret.clone(), cluster: config.name.clone(), servers };
        ask::<serde_json::Value>(app, witness, "/peer/join", &order).await?;
    }
    let access: Access = app.access().await?;
    let order =
        Join { secret: twin.secret.clone(), you: me.twin(), config: config.clone(), key: hex(&key), access };
    ask::<serde_json::Value>(app, &twin, "/peer/join", &order).await?;
    settle(app, &config, me, &key).await?;
    Ok(config)
}

/// Keeps configuration and key, and begins to work as this member.
///
/// # Errors
/// The store or the folder.
pub async fn settle(
    app: &Arc<App>,
    config: &ClusterConfig,
    me: NodeId,
    key: &[u8; 32],
) -> anyhow::Result<()> {
    os::durable::write(&app.data.cluster_key_file(), key)?;
    app.store.put_config(config, me, wall_clock()).await?;
    if let Err(fault) = app.pairing.used() {
        tracing::debug!("no pairing code to remove: {fault:#}");
    }
    tracing::info!(cluster = %config.name, server = %me, "this server belongs to a cluster");
    node::begin(app, config.clone(), me, *key).await
}

fn document(app: &App, wanted: &CreateCluster, twin: &Met, witness: Option<&Met>) -> ClusterConfig {
    let server = |id: u8, new: &NewServer, fingerprint: &str| ServerConfig {
        id: NodeId(id),
        name: new.name.clone(),
        address: new.address,
        page: new.page.clone().unwrap_or_else(|| format!("https://{}", new.address)),
        fingerprint: fingerprint.to_string(),
    };
    let witness = wanted.witness.as_ref().zip(witness).map(|(new, met)| WitnessConfig {
        name: new.name.clone(),
        address: new.address,
        fingerprint: met.fingerprint.clone(),
    });
    ClusterConfig {
        version: 1,
        name: wanted.name.clone(),
        servers: vec![
            server(1, &wanted.this, &app.identity.fingerprint),
            server(2, &wanted.twin, &twin.fingerprint),
        ],
        links: wanted.links.clone(),
        witness,
        sets: wanted.sets.clone(),
        groups: wanted.groups.clone(),
        timing: wanted.timing.map(TimingChoice::config).unwrap_or_default(),
        auto_recover: wanted.auto_recover,
    }
}

async fn meet(app: &App, code: &str, address: SocketAddr, role: Role) -> Result<Met, Fault> {
    let (field, what) = match role {
        Role::Node => ("twin.code", "the other server"),
        Role::Witness => ("witness.code", "the witness"),
    };
    let code = pairing::read(code).ok_or_else(|| {
        Fault::Field(field, format!("type the pairing code as {what} shows it (`futago code`)"))
    })?;
    let hello = Hello { secret: code.secret.clone() };
    let met = post_as_peer(address, code.pin, &app.identity, "/peer/hello", &hello).await;
    let (answer, fingerprint) =
        met.map_err(|fault| Fault::Elsewhere(format!("{what} at {address}: {fault:#}")))?;
    let met = Met { address, secret: code.secret, fingerprint, what };
    let answer: HelloAnswer = understand(&met, &answer)?;
    if answer.role != role {
        return Err(Fault::Field(field, format!("this is not the code of {what}")));
    }
    Ok(met)
}

async fn ask<T: DeserializeOwned>(
    app: &App,
    met: &Met,
    path: &str,
    order: &(impl Serialize + Sync),
) -> Result<T, Fault> {
    let pin = Pin::Fingerprint(met.fingerprint.clone());
    let asked = post_as_peer(met.address, pin, &app.identity, path, order).await;
    let (answer, _) =
        asked.map_err(|fault| Fault::Elsewhere(format!("{} at {}: {fault:#}", met.what, met.address)))?;
    understand(met, &answer)
}

fn understand<T: DeserializeOwned>(met: &Met, answer: &crate::client::Answer) -> Result<T, Fault> {
    if let Ok(body) = serde_json::from_slice::<FaultBody>(&answer.body)
        && !answer.status.is_success()
    {
        return Err(Fault::Elsewhere(format!("{} says: {}", met.what, body.reason)));
    }
    answer.json().map_err(|fault| Fault::Elsewhere(format!("{}: {fault:#}", met.what)))
}

#[cfg(test)]
mod tests;
