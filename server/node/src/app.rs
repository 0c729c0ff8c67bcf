//! What the parts of one node process share, before and after it belongs to a cluster.

use crate::brain::Turn;
use crate::channel::{Channel, Packet};
use crate::data::DataDir;
use crate::http::auth::WrongLogins;
use crate::node::NodeOptions;
use crate::pairing::Pairing;
use crate::tls::Identity;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::Store;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;
use wire::{
    ClusterConfig, ClusterView, Command, Incarnation, NodeId, Refusal, RefusalKind, Reply, WallClock,
};

/// The engine answers a command within its own turn; only a stuck process takes longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// One node process.
pub struct App {
    /// What it was started with.
    pub options: NodeOptions,
    /// Its folder.
    pub data: DataDir,
    /// Its key and certificate.
    pub identity: Identity,
    /// Its memory.
    pub store: Store,
    /// Opens the API to root of this host.
    pub token: String,
    /// How it is taken into a cluster.
    pub pairing: Pairing,
    /// Slows guessing down.
    pub wrong_logins: WrongLogins,
    /// The picture every page shows; none before the cluster exists.
    pub views: watch::Sender<Option<Arc<ClusterView>>>,
    /// Where the demo's launcher listens.
    pub demo_control: Option<PathBuf>,
    /// Held while a cluster is being made here, so that two requests do not make two.
    pub creating: Mutex<()>,
    /// Held while the configuration of a running cluster is changed from here, or prepared for the other server.
    pub changing: Mutex<()>,
    /// Set once this server belongs to a cluster.
    pub cluster: OnceLock<Arc<Running>>,
}

/// The part that exists once this server belongs to a cluster.
pub struct Running {
    /// This server.
    pub me: NodeId,
    /// Shared by the members.
    pub key: [u8; 32],
    /// In force.
    pub shared: RwLock<ClusterConfig>,
    /// To the brain.
    pub turns: mpsc::Sender<Turn>,
    /// To the other server.
    pub twin: Channel,
    /// To the witness.
    pub witness: Channel,
    /// Life of this host.
    pub host: Incarnation,
    /// Life of this process.
    pub node: Incarnation,
}

/// Logins as they travel to the other server: hashes only.
#[derive(Serialize, Deserialize)]
pub struct Access {
    /// Name, hash, last change.
    pub operators: Vec<(String, String, WallClock)>,
    /// Hash in hexadecimal, expiry.
    pub one_times: Vec<(String, WallClock)>,
}

impl Running {
    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> ClusterConfig {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl App {
    /// The part that exists once this server belongs to a cluster.
    #[must_use]
    pub fn running(&self) -> Option<Arc<Running>> {
        self.cluster.get().cloned()
    }

    /// The name people know this server by.
    #[must_use]
    pub fn name(&self) -> String {
        let configured =
            self.running().and_then(|r| r.config().server(r.me).map(|server| server.name.clone()));
        configured.unwrap_or_else(|| self.options.name.clone())
    }

    /// Gives an operator's command to the engine and waits for its one reply.
    pub async fn command(&self, command: Command) -> Reply {
        let id = command.id;
        let refuse = |kind| Reply { id, result: Err(Refusal { kind }) };
        let Some(running) = self.running() else { return refuse(RefusalKind::NoCluster) };
        let (answer, answered) = oneshot::channel();
        if running.turns.try_send(Turn::Command(command, answer)).is_err() {
            return refuse(RefusalKind::TooMany);
        }
        match timeout(ANSWER_LIMIT, answered).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) | Err(_) => refuse(RefusalKind::EngineHalted),
        }
    }

    /// The logins of this server.
    ///
    /// # Errors
    /// The store.
    pub async fn access(&self) -> anyhow::Result<Access> {
        let one_times = self.store.one_times(wall_clock()).await?;
        Ok(Access {
            operators: self.store.operators().await?,
            one_times: one_times.into_iter().map(|(hash, at)| (crate::data::hex(&hash), at)).collect(),
        })
    }

    /// Takes the other server's logins over; what is newer here stays.
    ///
    /// # Errors
    /// The store.
    pub async fn take_access(&self, access: &Access) -> anyhow::Result<()> {
        for (name, hash, changed_at) in &access.operators {
            self.store.put_operator(name, hash, *changed_at).await?;
        }
        for (hash, expires_at) in &access.one_times {
            if let Some(hash) = crate::data::unhex(hash) {
                self.store.put_one_time(&hash, *expires_at, wall_clock()).await?;
            }
        }
        Ok(())
    }

    /// Tells the other server of this one's logins, if it can be reached; it is told at each meeting anyway.
    pub async fn share_access(&self) {
        let Some(running) = self.running() else { return };
        match self.access().await {
            Ok(access) => {
                running.twin.send(Packet::Access(access));
            }
            Err(fault) => tracing::warn!("logins are not shared: {fault:#}"),
        }
    }
}

/// Wall-clock time, for people.
#[must_use]
pub fn wall_clock() -> WallClock {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallClock(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
