//! What the two servers say to each other of a change, known by their certificates.

use super::{
    Pending, Room, Tongue, abandon, all_possible, apply, hold, hold_pending, look, prepare, touched,
};
use crate::app::{App, Running};
use crate::client::{Answer, post_as_peer};
use crate::heartbeat::ends;
use crate::http::error::{Fault, FaultBody};
use crate::http::listen::Caller;
use crate::tls::Pin;
use anyhow::Context as _;
use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use wire::ClusterConfig;

/// Between two looks whether a change of the other server's waits for its answer.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Look at the disks of the new sets; nothing is changed.
    Look { config: ClusterConfig, replace: bool, lang: Tongue },
    /// Write it down and make the control areas.
    Prepare { config: ClusterConfig, replace: bool, lang: Tongue },
    /// It is made: make it here too.
    Make { version: u64 },
    /// It did not come about: take it back.
    Abandon { version: u64 },
    /// What became of the change that you led?
    Outcome { version: u64 },
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Say {
    /// As ordered.
    Done,
    /// What was found at the new sets' disks.
    Rooms(Vec<Room>),
    /// It is made: this is the configuration in force.
    Made(Box<ClusterConfig>),
    /// It did not come about, and never will.
    Abandoned,
    /// Ask again.
    UnderWay,
}

/// Asks the other server, over one path after the other.
///
/// # Errors
/// What it refused, field by field; or that it cannot be reached.
pub async fn ask_twin(app: &App, running: &Running, ask: &Ask) -> Result<Say, Fault> {
    let config = running.config();
    let server = config.server(running.me.twin()).context("there is no other server")?;
    let port = server.address.port();
    let over_links = config.links.iter().map(|link| SocketAddr::new(ends(link, running.me).1, port));
    let mut last = anyhow::anyhow!("it has no address");
    for address in over_links.chain([server.address]) {
        let pin = Pin::Fingerprint(server.fingerprint.clone());
        match post_as_peer(address, pin, &app.identity, "/peer/change", ask).await {
            Ok((answer, _)) => return understand(&server.name, &answer),
            Err(fault) => last = fault,
        }
    }
    Err(Fault::Elsewhere(format!(
        "{} does not answer, and a change needs both servers: {last:#}",
        server.name
    )))
}

fn understand(name: &str, answer: &Answer) -> Result<Say, Fault> {
    if let Ok(body) = serde_json::from_slice::<FaultBody>(&answer.body)
        && !answer.status.is_success()
    {
        if !body.faults.is_empty() {
            return Err(Fault::Config(body.faults));
        }
        return Err(Fault::Conflict(format!("{name}: {}", body.reason)));
    }
    answer.json().map_err(|fault| Fault::Elsewhere(format!("{name}: {fault:#}")))
}

/// `POST /peer/change`.
///
/// # Errors
/// The caller is not the other server, or what was asked is refused.
pub async fn answer(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(ask): Json<Ask>,
) -> Result<Json<Say>, Fault> {
    let running = app.running().ok_or(Fault::NotFound("this server is in no cluster"))?;
    let config = running.config();
    let pinned = config.server(running.me.twin()).map(|server| server.fingerprint.as_str());
    if pinned.is_none() || pinned != caller.fingerprint.as_deref() {
        return Err(Fault::Forbidden("this certificate is not of the other server of this cluster"));
    }
    // To the end, whatever becomes of the connection.
    let work = tokio::spawn(async move { reply(&app, &running, ask).await });
    Ok(Json(work.await.map_err(anyhow::Error::from)??))
}

async fn reply(app: &App, running: &Running, ask: Ask) -> Result<Say, Fault> {
    let busy = || Fault::Conflict("another change of the configuration is under way there".into());
    match ask {
        Ask::Look { config, replace, lang } => {
            Ok(Say::Rooms(look(running, &config, replace, lang.into()).await?))
        }
        Ask::Prepare { config, replace, lang } => {
            let _alone = app.changing.try_lock().map_err(|_| busy())?;
            let faults = config.faults();
            if !faults.is_empty() {
                return Err(Fault::Config(faults));
            }
            hold(running, touched(&running.config(), &config)).await?;
            let prepared = prepare_for_twin(app, running, &config, replace, lang).await;
            hold_pending(&app.data, running).await?;
            prepared
        }
        Ask::Make { version } => {
            let _alone = app.changing.lock().await;
            let pending = Pending::read(&app.data)?.filter(|it| it.by != running.me);
            if let Some(pending) = pending.filter(|it| it.config.version == version) {
                apply(app, running, pending.config).await?;
            }
            hold_pending(&app.data, running).await?;
            Ok(Say::Done)
        }
        Ask::Abandon { version } => {
            let _alone = app.changing.lock().await;
            abandon(app, running, version)?;
            hold_pending(&app.data, running).await?;
            Ok(Say::Done)
        }
        Ask::Outcome { version } => {
            // Held, so that it is not made between the look and the answer.
            let Ok(_alone) = app.changing.try_lock() else { return Ok(Say::UnderWay) };
            let config = running.config();
            Ok(if config.version >= version { Say::Made(Box::new(config)) } else { Say::Abandoned })
        }
    }
}

async fn prepare_for_twin(
    app: &App,
    running: &Running,
    config: &ClusterConfig,
    replace: bool,
    lang: Tongue,
) -> Result<Say, Fault> {
    all_possible(running, config, lang.into()).await?;
    look(running, config, replace, lang.into()).await?;
    prepare(app, running, config, running.me.twin(), replace).await?;
    Ok(Say::Done)
}

/// For ever: a change that the other server led and that this one has not heard the end of is asked about.
pub async fn ask_until_clear(app: Arc<App>) {
    while let Some(running) = app.running() {
        sleep(ASK_EVERY).await;
        if let Err(fault) = ask(&app, &running).await {
            tracing::debug!("what became of the change is not known yet: {fault:?}");
        }
        if running.turns.is_closed() {
            return;
        }
    }
}

async fn ask(app: &App, running: &Running) -> Result<(), Fault> {
    let Ok(_alone) = app.changing.try_lock() else { return Ok(()) };
    let Some(pending) = Pending::read(&app.data)?.filter(|it| it.by != running.me) else { return Ok(()) };
    let version = pending.config.version;
    let said = ask_twin(app, running, &Ask::Outcome { version }).await?;
    heard(app, running, version, said).await?;
    Ok(hold_pending(&app.data, running).await?)
}

async fn heard(app: &App, running: &Running, version: u64, said: Say) -> Result<(), Fault> {
    match said {
        Say::Made(config) => {
            tracing::info!(version, "the other server's change was made");
            Ok(apply(app, running, *config).await?)
        }
        Say::Abandoned => {
            tracing::info!(version, "the other server's change did not come about: taken back");
            Ok(abandon(app, running, version)?)
        }
        Say::Done | Say::Rooms(_) | Say::UnderWay => Ok(()),
    }
}
