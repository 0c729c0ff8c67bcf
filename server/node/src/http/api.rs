//! The API that page, command line and demo use: each handler translates, none decides.

use super::auth::{self, OPERATOR, Operator, PASSWORD_MAX, PASSWORD_MIN};
use super::error::Fault;
use super::listen::Caller;
use crate::app::{App, wall_clock};
use crate::change::{self, RegisterSet, SetMode};
use crate::create::{self, CreateCluster};
use crate::data::secret_hash;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;
use wire::command::Operation;
use wire::{ClusterConfig, ClusterView, Command, CommandId, NodeId, Reply, Revision};

/// For the demo's launcher: switching a host off and on takes some seconds.
const DEMO_LIMIT: Duration = Duration::from_secs(30);

type AppState = State<Arc<App>>;

/// A login.
#[derive(Deserialize)]
pub struct Login {
    password: String,
}

/// A one-time login, shown once.
#[derive(Serialize, Deserialize)]
pub struct OneTime {
    /// To be typed at either server's page.
    pub password: String,
}

/// What a page knows before it is logged in.
#[derive(Serialize)]
pub struct Session {
    logged_in: bool,
    server: SessionServer,
    cluster: bool,
    demo: bool,
    version: &'static str,
    page_of_twin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pairing_code: Option<String>,
}

#[derive(Serialize)]
struct SessionServer {
    id: Option<NodeId>,
    name: String,
}

/// `GET /api/session`.
pub async fn session(State(app): AppState, operator: Option<Operator>) -> Result<Json<Session>, Fault> {
    let running = app.running();
    let twin = running
        .as_ref()
        .and_then(|running| running.config().server(running.me.twin()).map(|s| s.page.clone()));
    let pairing_code = match (&operator, &running) {
        (Some(_), None) => Some(app.pairing.code()?),
        _ => None,
    };
    Ok(Json(Session {
        logged_in: operator.is_some(),
        server: SessionServer { id: running.as_ref().map(|running| running.me), name: app.name() },
        cluster: running.is_some(),
        demo: app.demo_control.is_some(),
        version: env!("CARGO_PKG_VERSION"),
        page_of_twin: twin,
        pairing_code,
    }))
}

/// `POST /api/login`.
pub async fn log_in(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Json(login): Json<Login>,
) -> Result<Response, Fault> {
    auth::same_origin(&headers)?;
    let secret = auth::log_in(&app, &caller, &login.password).await?;
    with_cookie(&app, Some(&secret))
}

/// `DELETE /api/session`.
pub async fn log_out(State(app): AppState, _: Operator, headers: HeaderMap) -> Result<Response, Fault> {
    if let Some(cookie) = auth::session_cookie(&app, &headers) {
        app.store.end_session(&secret_hash(&cookie)).await?;
    }
    with_cookie(&app, None)
}

fn with_cookie(app: &App, secret: Option<&[u8]>) -> Result<Response, Fault> {
    let cookie = HeaderValue::from_str(&auth::set_cookie(app, secret)).map_err(anyhow::Error::from)?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// `POST /api/logins`: a fresh one-time login, good once on each server.
pub async fn make_one_time(State(app): AppState, _: Operator) -> Result<Json<OneTime>, Fault> {
    let password = auth::make_one_time(&app).await?;
    app.share_access().await;
    Ok(Json(OneTime { password }))
}

/// `POST /api/password`.
pub async fn set_password(
    State(app): AppState,
    _: Operator,
    Json(login): Json<Login>,
) -> Result<StatusCode, Fault> {
    if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&login.password.len()) {
        return Err(Fault::Field("password", format!("use {PASSWORD_MIN} to {PASSWORD_MAX} characters")));
    }
    let hash = auth::hash_password(login.password).await?;
    app.store.put_operator(OPERATOR, &hash, wall_clock()).await?;
    app.share_access().await;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/code`: the pairing code of a server that is in no cluster.
pub async fn code(State(app): AppState, _: Operator) -> Result<Json<serde_json::Value>, Fault> {
    if app.running().is_some() {
        return Err(Fault::Conflict("this server is in a cluster: it can be taken into no other".into()));
    }
    Ok(Json(serde_json::json!({ "code": app.pairing.code()? })))
}

/// `GET /api/cluster`.
pub async fn cluster(State(app): AppState, _: Operator) -> Result<Json<ClusterConfig>, Fault> {
    let running = app.running().ok_or_else(no_cluster)?;
    Ok(Json(running.config()))
}

/// `POST /api/cluster`.
pub async fn create(
    State(app): AppState,
    _: Operator,
    Json(wanted): Json<CreateCluster>,
) -> Result<(StatusCode, Json<ClusterConfig>), Fault> {
    // To the end, whatever becomes of the connection: half a creation is worse than an unheard answer.
    let work = tokio::spawn(async move { create::create(&app, wanted).await });
    let config = work.await.map_err(anyhow::Error::from)??;
    Ok((StatusCode::CREATED, Json(config)))
}

/// `POST /api/sets`: registers a mirror set.
pub async fn register(
    State(app): AppState,
    _: Operator,
    Json(wanted): Json<RegisterSet>,
) -> Result<(StatusCode, Json<ClusterConfig>), Fault> {
    let work = tokio::spawn(async move { change::register(&app, wanted).await });
    let config = work.await.map_err(anyhow::Error::from)??;
    Ok((StatusCode::CREATED, Json(config)))
}

/// `POST /api/sets/mode`: changes when the writes of a mirror set are acknowledged.
pub async fn set_mode(
    State(app): AppState,
    _: Operator,
    Json(wanted): Json<SetMode>,
) -> Result<Json<ClusterConfig>, Fault> {
    let work = tokio::spawn(async move { change::set_mode(&app, wanted).await });
    Ok(Json(work.await.map_err(anyhow::Error::from)??))
}

/// `GET /api/view`.
pub async fn view(State(app): AppState, _: Operator) -> Result<Json<ClusterView>, Fault> {
    let view = app.views.borrow().clone().ok_or_else(no_cluster)?;
    Ok(Json(ClusterView::clone(&view)))
}

fn no_cluster() -> Fault {
    Fault::Conflict(
        "there is no cluster yet: create one on this server, or take it into one by its pairing code".into(),
    )
}

/// An operator's order by the API; without a revision it is for the present one.
#[derive(Deserialize)]
pub struct Order {
    what: Operation,
    revision: Option<Revision>,
}

/// `POST /api/command`.
pub async fn command(
    State(app): AppState,
    _: Operator,
    Json(order): Json<Order>,
) -> Result<Json<Reply>, Fault> {
    let present = app.views.borrow().as_ref().map_or(Revision(0), |view| view.revision);
    let id = u64::from_le_bytes(crate::data::random::<8>()?) >> 11; // JavaScript's numbers hold 53 bits
    let command =
        Command { id: CommandId(id), revision: order.revision.unwrap_or(present), what: order.what };
    Ok(Json(app.command(command).await))
}

/// `GET /healthz`: whether this server answers, for the page of the other one too; no login, nothing to know.
pub async fn healthz(State(app): AppState) -> impl IntoResponse {
    let running = app.running();
    let body = serde_json::json!({
        "server": app.name(),
        "id": running.as_ref().map(|running| running.me),
        "cluster": running.is_some(),
        "role": "node",
    });
    ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::CACHE_CONTROL, "no-store")], Json(body))
}

/// `GET /api/demo`.
pub async fn demo_status(app: AppState, operator: Operator) -> Result<Json<serde_json::Value>, Fault> {
    demo(app, operator, Json(serde_json::json!({ "act": "status" }))).await
}

/// `POST /api/demo`: handed on to the launcher of the demo as one line, its answer as one line.
pub async fn demo(
    State(app): AppState,
    _: Operator,
    Json(order): Json<serde_json::Value>,
) -> Result<Json<serde_json::Value>, Fault> {
    let socket = app.demo_control.as_ref().ok_or(Fault::NotFound("this is no demo"))?;
    let talk = async {
        let mut stream = UnixStream::connect(socket).await?;
        let line = format!("{order}\n");
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(&mut stream).read_line(&mut answer).await?;
        anyhow::Ok(serde_json::from_str(&answer)?)
    };
    let answer = timeout(DEMO_LIMIT, talk).await.map_err(anyhow::Error::from).and_then(|answer| answer);
    answer
        .map(Json)
        .map_err(|fault| Fault::Elsewhere(format!("the demo's launcher does not answer: {fault}")))
}

/// A path that is none of the API's.
pub async fn unknown() -> Fault {
    Fault::NotFound("there is no such path in this version's API")
}
