//! Events of both servers, the newest of them kept.

use crate::{Store, signed, unsigned};
use anyhow::Context as _;
use wire::{Event, NodeId, WallClock};

/// Events kept for each server: some weeks of a busy cluster, about 5 MB.
pub const EVENTS_KEPT: u64 = 20_000;
/// Old events are removed at every so many-th, so that an ordinary one is a single insert.
const SWEEP_EVERY: u64 = 256;

impl Store {
    /// Stores an event; the same one again changes nothing. Tells whether it was new.
    ///
    /// # Errors
    /// The database.
    pub async fn put_event(&self, event: &Event) -> anyhow::Result<bool> {
        let put = sqlx::query("INSERT OR IGNORE INTO event (origin, number, at, kind) VALUES (?, ?, ?, ?)")
            .bind(i64::from(event.origin.0))
            .bind(signed(event.number))
            .bind(signed(event.at.0))
            .bind(serde_json::to_string(&event.kind)?)
            .execute(&self.pool)
            .await?;
        if event.number.is_multiple_of(SWEEP_EVERY) {
            sqlx::query("DELETE FROM event WHERE origin = ? AND number <= ?")
                .bind(i64::from(event.origin.0))
                .bind(signed(event.number.saturating_sub(EVENTS_KEPT)))
                .execute(&self.pool)
                .await?;
        }
        Ok(put.rows_affected() == 1)
    }

    /// The newest events, newest first. An event of a kind unknown to this version is left out.
    ///
    /// # Errors
    /// The database.
    pub async fn events(&self, limit: usize) -> anyhow::Result<Vec<Event>> {
        let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(
            "SELECT origin, number, at, kind FROM event ORDER BY at DESC, origin, number DESC LIMIT ?",
        )
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await?;
        let mut events = Vec::with_capacity(rows.len());
        for (origin, number, at, kind) in rows {
            let Ok(kind) = serde_json::from_str(&kind) else {
                tracing::warn!(origin, number, "a stored event of an unknown kind is not shown");
                continue;
            };
            let origin = NodeId(u8::try_from(origin).context("an event's origin is not a server")?);
            events.push(Event { origin, number: unsigned(number), at: WallClock(unsigned(at)), kind });
        }
        Ok(events)
    }

    /// The number of this origin's newest event, 0 before the first.
    ///
    /// # Errors
    /// The database.
    pub async fn last_event_number(&self, origin: NodeId) -> anyhow::Result<u64> {
        let number: Option<i64> = sqlx::query_scalar("SELECT MAX(number) FROM event WHERE origin = ?")
            .bind(i64::from(origin.0))
            .fetch_one(&self.pool)
            .await?;
        Ok(number.map_or(0, unsigned))
    }
}
