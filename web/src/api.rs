//! The server's HTTP interface as far as the page needs it: session, login, health of the twin, the demo's acts.

use serde::Deserialize;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, Request, RequestInit, RequestMode, Response};
use wire::ids::SetId;
use wire::text::Lang;
use wire::traffic::WriteMode;

/// An answer that takes longer is none.
const LIMIT_MS: u32 = 10_000;
/// A change of the configuration asks both servers.
const CHANGE_LIMIT_MS: u32 = 60_000;
/// The twin must answer at once to be offered.
const HEALTH_LIMIT_MS: u32 = 1_500;

/// Whom the page talks to, and who talks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Session {
    /// The browser is signed in.
    pub logged_in: bool,
    /// The server.
    pub server: SessionServer,
    /// It belongs to a cluster.
    pub cluster: bool,
    /// It was started by the demo.
    pub demo: bool,
    /// While there is no cluster: what makes this server a twin.
    pub pairing_code: Option<String>,
    /// Where the twin's page is.
    pub page_of_twin: Option<String>,
}

/// The server of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SessionServer {
    /// Its name.
    pub name: String,
}

/// What was refused.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    reason: String,
}

/// The server did not answer, or the network is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

async fn call(method: &str, url: &str, body: Option<String>, limit_ms: u32) -> Result<(u16, String), Away> {
    let options = RequestInit::new();
    options.set_method(method);
    options.set_mode(RequestMode::Cors);
    options.set_signal(Some(&AbortSignal::timeout_with_u32(limit_ms)));
    if let Some(body) = &body {
        options.set_body(&JsValue::from_str(body));
    }
    let request = Request::new_with_str_and_init(url, &options).map_err(|_| Away)?;
    if body.is_some() {
        request.headers().set("content-type", "application/json").map_err(|_| Away)?;
    }
    let answer =
        JsFuture::from(leptos::prelude::window().fetch_with_request(&request)).await.map_err(|_| Away)?;
    let answer: Response = answer.dyn_into().map_err(|_| Away)?;
    let text = JsFuture::from(answer.text().map_err(|_| Away)?).await.map_err(|_| Away)?;
    Ok((answer.status(), text.as_string().unwrap_or_default()))
}

/// Who is signed in where.
///
/// # Errors
/// When the server does not answer, or not in this language.
pub async fn session() -> Result<Session, Away> {
    let (status, text) = call("GET", "/api/session", None, LIMIT_MS).await?;
    if status != 200 {
        return Err(Away);
    }
    serde_json::from_str(&text).map_err(|_| Away)
}

/// Signs in with a password; the status of the answer.
///
/// # Errors
/// When the server does not answer.
pub async fn login(password: &str) -> Result<u16, Away> {
    let body = serde_json::json!({ "password": password }).to_string();
    Ok(call("POST", "/api/login", Some(body), LIMIT_MS).await?.0)
}

/// Signs out.
///
/// # Errors
/// When the server does not answer.
pub async fn logout() -> Result<(), Away> {
    call("DELETE", "/api/session", None, LIMIT_MS).await.map(|_| ())
}

/// Whether a server's page answers just now. `page`: its address.
pub async fn healthy(page: &str) -> bool {
    let url = format!("{}/healthz", page.trim_end_matches('/'));
    call("GET", &url, None, HEALTH_LIMIT_MS).await.is_ok_and(|(status, _)| status == 200)
}

/// Changes when the writes of a mirror set are acknowledged; the reason if it was refused.
///
/// # Errors
/// When the server does not answer.
pub async fn set_mode(set: SetId, mode: WriteMode, lang: Lang) -> Result<Option<String>, Away> {
    let body = serde_json::json!({ "set": set, "mode": mode, "lang": lang.tag() }).to_string();
    let (status, text) = call("POST", "/api/sets/mode", Some(body), CHANGE_LIMIT_MS).await?;
    let reason = || serde_json::from_str::<Refused>(&text).unwrap_or_default().reason;
    Ok((status >= 400).then(reason))
}

/// Lets the demo do something to a server or link; the reason if it was not done.
///
/// # Errors
/// When the server does not answer.
pub async fn demo(act: &str, target: &str) -> Result<Option<String>, Away> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Answer {
        error: Option<String>,
        reason: Option<String>,
    }
    let body = serde_json::json!({ "act": act, "target": target }).to_string();
    let (status, text) = call("POST", "/api/demo", Some(body), LIMIT_MS).await?;
    let answer: Answer = serde_json::from_str(&text).unwrap_or_default();
    let reason = answer.error.or(answer.reason);
    Ok(if status >= 400 { Some(reason.unwrap_or_else(|| status.to_string())) } else { reason })
}
