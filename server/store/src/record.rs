//! The engine's durable record: one document, replaced whole.

use crate::Store;
use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

impl Store {
    /// The record as last stored; `None` before the first.
    ///
    /// # Errors
    /// The database, or a record that cannot be read: the engine must not start as if it had none.
    pub async fn record<T: DeserializeOwned>(&self) -> anyhow::Result<Option<T>> {
        let row: Option<String> =
            sqlx::query_scalar("SELECT document FROM record").fetch_optional(&self.pool).await?;
        row.map(|document| serde_json::from_str(&document).context("the stored engine record cannot be read"))
            .transpose()
    }

    /// Replaces the record; durable when this returns.
    ///
    /// # Errors
    /// The database: the old record is then still in place.
    pub async fn put_record<T: Serialize + Sync>(&self, record: &T) -> anyhow::Result<()> {
        sqlx::query("INSERT OR REPLACE INTO record (one, document) VALUES (1, ?)")
            .bind(serde_json::to_string(record)?)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
