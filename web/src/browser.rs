//! What the page asks of its browser: clocks, storage, preferences, its own address.

use leptos::prelude::*;
use wire::text::Lang;

/// The page's clock in milliseconds: monotonic, so that sleep or a set clock does not fool the staleness rule.
#[must_use]
pub fn now_ms() -> u64 {
    let now = window().performance().map_or(0.0, |p| p.now());
    // The clock never runs below zero nor near 2^53 ms.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded as said")]
    let ms = now as u64;
    ms
}

/// Minutes that the reader's clock is ahead of UTC.
#[must_use]
pub fn minutes_east() -> i32 {
    #[allow(clippy::cast_possible_truncation, reason = "time zones are within a day")]
    let east = -js_sys::Date::new_0().get_timezone_offset() as i32;
    east
}

/// A number that no other page of this cluster chooses: 52 random bits.
#[must_use]
pub fn random_id() -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^52")]
    let id = (js_sys::Math::random() * 4_503_599_627_370_496.0) as u64;
    id
}

/// Something the person chose in this browser before.
#[must_use]
pub fn remembered(key: &str) -> Option<String> {
    window().local_storage().ok().flatten()?.get_item(key).ok().flatten()
}

/// Remembers a choice in this browser; one that forbids storage forgets it, and nothing else is lost.
pub fn remember(key: &str, value: &str) {
    if let Ok(Some(storage)) = window().local_storage() {
        let _ = storage.set_item(key, value);
    }
}

/// The language the person chose, or else the one the browser asks for.
#[must_use]
pub fn language() -> Lang {
    let asked = || window().navigator().language().unwrap_or_default();
    Lang::from_tag(&remembered("language").unwrap_or_else(asked))
}

/// Sets an attribute of the document: `lang`, `data-theme`.
pub fn mark_document(name: &str, value: &str) {
    if let Some(root) = document().document_element() {
        let _ = root.set_attribute(name, value);
    }
}

/// Whether the system asks for a dark page.
#[must_use]
pub fn prefers_dark() -> bool {
    window().match_media("(prefers-color-scheme: dark)").ok().flatten().is_some_and(|m| m.matches())
}

/// Puts the focus on an element by its id, if it is there.
pub fn focus(id: &str) {
    use wasm_bindgen::JsCast;
    let found = document().get_element_by_id(id);
    if let Some(element) = found.and_then(|e| e.dyn_into::<web_sys::HtmlElement>().ok()) {
        let _ = element.focus();
    }
}

/// The address of this server's feed.
#[must_use]
pub fn feed_address() -> String {
    let location = window().location();
    let scheme = if location.protocol().is_ok_and(|p| p == "https:") { "wss" } else { "ws" };
    format!("{scheme}://{}/api/feed", location.host().unwrap_or_default())
}
