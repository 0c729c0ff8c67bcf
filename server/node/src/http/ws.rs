//! The feed to one page: snapshot, then what changed; a sign of life each second. The brain publishes views at most once in
//! 50 ms.
//!
//! A page that reads slowly is not queued for: it gets the difference from what it last got to what is, when it can take it.

use super::auth::Operator;
use crate::app::{App, wall_clock};
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use wire::feed::{Delta, FEED_VERSION, Feed, FromPage};
use wire::{ClusterView, Reply, Revision};

/// Between two signs of life.
const PULSE: Duration = Duration::from_secs(1);
/// For the page's first message, and for it to take one of ours.
const PATIENCE: Duration = Duration::from_secs(10);
/// A page sends commands only: small ones.
const FROM_PAGE_BYTES_MAX: usize = 64 * 1024;
/// Replies under way to one page: as many as commands a page may have waiting.
const REPLIES_MAX: usize = 16;

/// `GET /api/feed`.
pub async fn feed(State(app): State<Arc<App>>, _: Operator, upgrade: WebSocketUpgrade) -> Response {
    upgrade.max_message_size(FROM_PAGE_BYTES_MAX).max_frame_size(FROM_PAGE_BYTES_MAX).on_upgrade(
        move |socket| async move {
            if let Err(end) = converse(app, socket).await {
                tracing::debug!("feed ended: {end:#}");
            }
        },
    )
}

struct Page {
    socket: WebSocket,
    shown: Option<Arc<ClusterView>>,
}

async fn converse(app: Arc<App>, socket: WebSocket) -> anyhow::Result<()> {
    let mut page = Page { socket, shown: None };
    match timeout(PATIENCE, page.next()).await?? {
        Some(FromPage::Hello(hello)) if hello.version == FEED_VERSION => {}
        Some(_) => return page.send(&Feed::Reload).await,
        None => return Ok(()),
    }
    let (replies_in, mut replies) = mpsc::channel::<Reply>(REPLIES_MAX);
    let mut views = app.views.subscribe();
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let view = views.borrow_and_update().clone();
    page.show(view).await?;
    loop {
        tokio::select! {
            said = page.next() => match said? {
                None => return Ok(()),
                Some(FromPage::Again) => {
                    page.shown = None;
                    let view = views.borrow_and_update().clone();
                    page.show(view).await?;
                }
                Some(FromPage::Hello(_)) => anyhow::bail!("a second greeting"),
                Some(FromPage::Command(command)) => {
                    let (app, replies_in) = (app.clone(), replies_in.clone());
                    tokio::spawn(async move {
                        let reply = app.command(command).await;
                        let _ = replies_in.send(reply).await;
                    });
                }
            },
            Some(reply) = replies.recv() => page.send(&Feed::Reply(reply)).await?,
            changed = views.changed() => {
                changed?;
                let view = views.borrow_and_update().clone();
                page.show(view).await?;
            }
            _ = pulse.tick() => {
                let revision = page.shown.as_ref().map_or(Revision(0), |view| view.revision);
                page.send(&Feed::Pulse { at: wall_clock(), revision }).await?;
            }
        }
    }
}

impl Page {
    /// The next message; `None` when the page has gone.
    async fn next(&mut self) -> anyhow::Result<Option<FromPage>> {
        loop {
            match self.socket.recv().await {
                Some(Ok(Message::Text(text))) => return Ok(Some(serde_json::from_str(&text)?)),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => anyhow::bail!("a binary message"),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
            }
        }
    }

    async fn show(&mut self, view: Option<Arc<ClusterView>>) -> anyhow::Result<()> {
        let Some(view) = view else {
            self.shown = None;
            return self.send(&Feed::NoCluster).await;
        };
        let delta = self.shown.as_ref().and_then(|shown| {
            let follows = view.revision == Revision(shown.revision.0 + 1);
            follows.then(|| Delta::between(shown, &view)).flatten().filter(|delta| !delta.reshaped)
        });
        let unchanged = self.shown.as_ref().is_some_and(|shown| shown.revision == view.revision);
        match delta {
            _ if unchanged => Ok(()),
            Some(delta) => {
                self.shown = Some(view);
                self.send(&Feed::Delta(Box::new(delta))).await
            }
            None => {
                self.shown = Some(view.clone());
                self.send(&Feed::Snapshot(Box::new(ClusterView::clone(&view)))).await
            }
        }
    }

    async fn send(&mut self, feed: &Feed) -> anyhow::Result<()> {
        let text = Utf8Bytes::from(serde_json::to_string(feed)?);
        timeout(PATIENCE, self.socket.send(Message::Text(text))).await??;
        Ok(())
    }
}
