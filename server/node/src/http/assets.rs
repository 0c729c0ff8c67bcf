//! The embedded page: compressed as the browser likes it, named contents kept for ever, the rest asked again by etag.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};

/// One embedded file.
pub struct Asset {
    path: &'static str,
    etag: &'static str,
    immutable: bool,
    plain: &'static [u8],
    gzip: &'static [u8],
    brotli: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The file of this path; a path without an extension is the page's own, so it gets the page.
pub async fn serve(uri: Uri, headers: HeaderMap) -> Response {
    let wanted = uri.path();
    let find = |path: &str| {
        ASSETS.binary_search_by(|asset| asset.path.cmp(path)).ok().and_then(|place| ASSETS.get(place))
    };
    let of_page = !wanted.rsplit('/').next().is_some_and(|last| last.contains('.'));
    let Some(asset) = find(wanted).or_else(|| find("/index.html").filter(|_| of_page)) else {
        return (StatusCode::NOT_FOUND, "There is no such page.").into_response();
    };
    let unchanged =
        headers.get(header::IF_NONE_MATCH).is_some_and(|etag| etag.as_bytes() == asset.etag.as_bytes());
    let (body, encoding) = if unchanged { (&[][..], None) } else { pick(asset, &headers) };
    let mut response = Response::new(Body::from(body));
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let keep = if asset.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    let out = response.headers_mut();
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    out.insert(header::ETAG, HeaderValue::from_static(asset.etag));
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(asset.path)));
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(encoding) = encoding {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

fn pick(asset: &'static Asset, headers: &HeaderMap) -> (&'static [u8], Option<&'static str>) {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    let takes =
        |name: &str| accepted.split(',').any(|part| part.split(';').next().is_some_and(|n| n.trim() == name));
    if takes("br") && asset.brotli.len() < asset.plain.len() {
        (asset.brotli, Some("br"))
    } else if takes("gzip") && asset.gzip.len() < asset.plain.len() {
        (asset.gzip, Some("gzip"))
    } else {
        (asset.plain, None)
    }
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("json" | "webmanifest") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
