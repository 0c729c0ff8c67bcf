//! The configuration with its versions, and which server this is.

use crate::{Store, signed};
use anyhow::Context as _;
use wire::{ClusterConfig, NodeId, WallClock};

/// Versions kept: enough to see what changed and to go back (E1).
const VERSIONS_KEPT: i64 = 50;

impl Store {
    /// The configuration in force and this server's id; `None` before the cluster exists.
    ///
    /// # Errors
    /// The database, or a document that cannot be read.
    pub async fn config(&self) -> anyhow::Result<Option<(ClusterConfig, NodeId)>> {
        let row: Option<(String, i64)> =
            sqlx::query_as("SELECT document, node FROM config, identity ORDER BY version DESC LIMIT 1")
                .fetch_optional(&self.pool)
                .await?;
        let Some((document, node)) = row else { return Ok(None) };
        let config = serde_json::from_str(&document).context("the stored configuration cannot be read")?;
        let node = u8::try_from(node).context("the stored server id is not 1 or 2")?;
        Ok(Some((config, NodeId(node))))
    }

    /// Stores a version of the configuration and this server's id, in one step.
    ///
    /// # Errors
    /// The database; a version that is already stored with another content.
    pub async fn put_config(
        &self,
        config: &ClusterConfig,
        node: NodeId,
        at: WallClock,
    ) -> anyhow::Result<()> {
        let document = serde_json::to_string(config)?;
        let mut step = self.pool.begin().await?;
        let kept: Option<String> = sqlx::query_scalar("SELECT document FROM config WHERE version = ?")
            .bind(signed(config.version))
            .fetch_optional(&mut *step)
            .await?;
        if kept.is_some_and(|kept| kept != document) {
            anyhow::bail!("configuration version {} is stored with another content", config.version);
        }
        sqlx::query("INSERT OR IGNORE INTO config (version, document, stored_at) VALUES (?, ?, ?)")
            .bind(signed(config.version))
            .bind(document)
            .bind(signed(at.0))
            .execute(&mut *step)
            .await?;
        sqlx::query("INSERT OR REPLACE INTO identity (one, node) VALUES (1, ?)")
            .bind(i64::from(node.0))
            .execute(&mut *step)
            .await?;
        sqlx::query("DELETE FROM config WHERE version <= (SELECT MAX(version) FROM config) - ?")
            .bind(VERSIONS_KEPT)
            .execute(&mut *step)
            .await?;
        step.commit().await?;
        Ok(())
    }
}
