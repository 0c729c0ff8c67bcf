//! Every route on one page, with what surrounds them: headers for safety, limits, one log line for a panic.

use super::{api, assets, ws};
use crate::app::App;
use crate::{change, peers};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, map_response};
use axum::response::Response;
use axum::routing::{get, post};
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;

/// A configuration at every limit is 8 MiB.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The page needs its own files, its feed, and the other server's `/healthz`; nothing else may run or be framed.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self' https: wss:; manifest-src 'self'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'";

/// The routes of a node.
pub fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route("/session", get(api::session).delete(api::log_out))
        .route("/login", post(api::log_in))
        .route("/logins", post(api::make_one_time))
        .route("/password", post(api::set_password))
        .route("/code", get(api::code))
        .route("/cluster", get(api::cluster).post(api::create))
        .route("/view", get(api::view))
        .route("/command", post(api::command))
        .route("/sets", post(api::register))
        .route("/sets/mode", post(api::set_mode))
        .route("/feed", get(ws::feed))
        .route("/demo", get(api::demo_status).post(api::demo))
        .fallback(api::unknown)
        .layer(axum::middleware::from_fn(no_store));
    let peers = Router::new()
        .route("/hello", post(peers::hello))
        .route("/prepare", post(peers::prepare))
        .route("/join", post(peers::join))
        .route("/change", post(change::answer))
        .route("/channel", get(peers::channel))
        .fallback(api::unknown);
    Router::new()
        .nest("/api", api)
        .nest("/peer", peers)
        .route("/healthz", get(api::healthz))
        .fallback(assets::serve)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(map_response(safe))
        .layer(CatchPanicLayer::new())
        .with_state(app)
}

async fn no_store(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn safe(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
