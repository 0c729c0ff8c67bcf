//! The websocket: says hello, applies what comes, asks again after a gap, connects again by itself.

use crate::api;
use crate::browser;
use crate::page::Page;
use crate::state::{Need, RETRY_FIRST_MS, RETRY_MAX_MS};
use leptos::prelude::*;
use leptos::task::spawn_local;
use std::cell::RefCell;
use std::time::Duration;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{CloseEvent, Event, MessageEvent, WebSocket};
use wire::feed::{FEED_VERSION, Feed, FromPage, Hello};

/// A connection on which nothing came for so long is given up: the server sends a pulse each second.
const SILENCE_MS: u64 = 5_000;
/// Rest between two reloads by itself.
const RELOAD_REST_MS: f64 = 30_000.0;
/// How often the page looks at its clock.
const TICK: Duration = Duration::from_millis(500);

struct Connection {
    socket: WebSocket,
    since: u64,
    _message: Closure<dyn FnMut(MessageEvent)>,
    _open: Closure<dyn FnMut(Event)>,
    _close: Closure<dyn FnMut(CloseEvent)>,
}

thread_local! {
    /// The one connection of this page.
    static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// Keeps the page's clock, and gives up a connection on which nothing comes. Called once.
pub fn keep_time(page: Page) {
    set_interval(
        move || {
            let now = browser::now_ms();
            page.now.set(now);
            let heard = page.state.with_untracked(|s| s.last_data).unwrap_or(0);
            CONNECTION.with_borrow(|c| {
                if let Some(open) = c.as_ref().filter(|c| now.saturating_sub(heard.max(c.since)) > SILENCE_MS)
                {
                    let _ = open.socket.close();
                }
            });
        },
        TICK,
    );
}

/// Sends a message; `false` when there is no open connection.
pub fn send(message: &FromPage) -> bool {
    let Ok(text) = serde_json::to_string(message) else { return false };
    CONNECTION.with_borrow(|c| {
        let open = c.as_ref().filter(|c| c.socket.ready_state() == WebSocket::OPEN);
        open.is_some_and(|c| c.socket.send_with_str(&text).is_ok())
    })
}

/// Connects; from then on by itself again, as long as the person is signed in.
pub fn connect(page: Page) {
    let busy = |c: &Connection| matches!(c.socket.ready_state(), WebSocket::CONNECTING | WebSocket::OPEN);
    if CONNECTION.with_borrow(|c| c.as_ref().is_some_and(busy)) {
        return;
    }
    let Ok(socket) = WebSocket::new(&browser::feed_address()) else {
        return later(page);
    };
    let message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
        if let Some(text) = event.data().as_string() {
            received(page, &text);
        }
    });
    let open = Closure::<dyn FnMut(Event)>::new(move |_| {
        page.retry_ms.set(RETRY_FIRST_MS);
        page.state.update(|s| s.opened());
        send(&FromPage::Hello(Hello { version: FEED_VERSION }));
    });
    let close = Closure::<dyn FnMut(CloseEvent)>::new(move |_| {
        page.state.update(|s| s.closed());
        look_at_session(page);
        later(page);
    });
    socket.set_onmessage(Some(message.as_ref().unchecked_ref()));
    socket.set_onopen(Some(open.as_ref().unchecked_ref()));
    socket.set_onclose(Some(close.as_ref().unchecked_ref()));
    let since = browser::now_ms();
    let connection = Connection { socket, since, _message: message, _open: open, _close: close };
    CONNECTION.set(Some(connection));
}

fn received(page: Page, text: &str) {
    let Ok(message) = serde_json::from_str::<Feed>(text) else {
        // A message of another version: load the page that fits the server.
        return reload();
    };
    let now = browser::now_ms();
    let need = page.change(|s| s.feed(message, now)).flatten();
    page.now.set(now);
    match need {
        Some(Need::Again) => {
            send(&FromPage::Again);
        }
        Some(Need::Reload) => reload(),
        None => {}
    }
}

/// Loads the page that fits the server, at most once in a while: a server that never fits must not make it flicker.
fn reload() {
    let now = js_sys::Date::now();
    let last = browser::remembered("reloaded").and_then(|at| at.parse::<f64>().ok()).unwrap_or(0.0);
    if now - last < RELOAD_REST_MS {
        return;
    }
    browser::remember("reloaded", &now.to_string());
    let _ = window().location().reload();
}

/// Connects again after the wait, which grows; a page without a session waits for the person instead.
fn later(page: Page) {
    let wait = page.retry_ms.get_untracked();
    page.retry_ms.set((wait * 2).min(RETRY_MAX_MS));
    set_timeout(
        move || {
            if page.session.with_untracked(|s| s.as_ref().is_some_and(|s| s.logged_in)) {
                connect(page);
            } else {
                CONNECTION.set(None);
            }
        },
        Duration::from_millis(wait),
    );
}

/// A refused connection may mean that the session ended: then the login page is shown.
fn look_at_session(page: Page) {
    spawn_local(async move {
        if let Ok(session) = api::session().await {
            page.session.set(Some(session));
        }
    });
}
