//! Operators, one-time logins and sessions. Hashes only: nothing here opens a door by being read.

use crate::{Store, signed};
use wire::WallClock;

/// Live one-time logins: each is asked for by root or by a logged-in operator; more would be a script gone wrong.
const ONE_TIME_MAX: i64 = 64;
/// Live sessions; beyond it the ones that expire first are ended.
const SESSIONS_MAX: i64 = 1_024;

impl Store {
    /// The password hash of an operator.
    ///
    /// # Errors
    /// The database.
    pub async fn operator_hash(&self, name: &str) -> anyhow::Result<Option<String>> {
        Ok(sqlx::query_scalar("SELECT hash FROM operator WHERE name = ?")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// Sets an operator's password hash, unless a newer one is stored: so that the servers agree in whatever order
    /// they hear of changes.
    ///
    /// # Errors
    /// The database.
    pub async fn put_operator(&self, name: &str, hash: &str, changed_at: WallClock) -> anyhow::Result<()> {
        sqlx::query(
            "INSERT INTO operator (name, hash, changed_at) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE \
             SET hash = ?2, changed_at = ?3 WHERE changed_at <= ?3",
        )
        .bind(name)
        .bind(hash)
        .bind(signed(changed_at.0))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All operators: name, hash, time of the last change.
    ///
    /// # Errors
    /// The database.
    pub async fn operators(&self) -> anyhow::Result<Vec<(String, String, WallClock)>> {
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as("SELECT name, hash, changed_at FROM operator ORDER BY name")
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().map(|(name, hash, at)| (name, hash, WallClock(crate::unsigned(at)))).collect())
    }

    /// Keeps a one-time login.
    ///
    /// # Errors
    /// The database.
    pub async fn put_one_time(
        &self,
        hash: &[u8],
        expires_at: WallClock,
        now: WallClock,
    ) -> anyhow::Result<()> {
        let mut step = self.pool.begin().await?;
        sqlx::query("DELETE FROM one_time WHERE expires_at < ?")
            .bind(signed(now.0))
            .execute(&mut *step)
            .await?;
        sqlx::query("INSERT OR IGNORE INTO one_time (hash, expires_at) VALUES (?, ?)")
            .bind(hash)
            .bind(signed(expires_at.0))
            .execute(&mut *step)
            .await?;
        sqlx::query(
            "DELETE FROM one_time WHERE hash NOT IN (SELECT hash FROM one_time ORDER BY expires_at DESC LIMIT ?)",
        )
        .bind(ONE_TIME_MAX)
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(())
    }

    /// Uses a one-time login; `false` if it is unknown, expired or used.
    ///
    /// # Errors
    /// The database.
    pub async fn use_one_time(&self, hash: &[u8], now: WallClock) -> anyhow::Result<bool> {
        let used = sqlx::query(
            "UPDATE one_time SET used_at = ?1 WHERE hash = ?2 AND used_at IS NULL AND expires_at >= ?1",
        )
        .bind(signed(now.0))
        .bind(hash)
        .execute(&self.pool)
        .await?;
        Ok(used.rows_affected() == 1)
    }

    /// One-time logins that are unused and not expired: hash and time of expiry.
    ///
    /// # Errors
    /// The database.
    pub async fn one_times(&self, now: WallClock) -> anyhow::Result<Vec<(Vec<u8>, WallClock)>> {
        let rows: Vec<(Vec<u8>, i64)> =
            sqlx::query_as("SELECT hash, expires_at FROM one_time WHERE used_at IS NULL AND expires_at >= ?")
                .bind(signed(now.0))
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().map(|(hash, at)| (hash, WallClock(crate::unsigned(at)))).collect())
    }

    /// Keeps a session under the hash of its cookie.
    ///
    /// # Errors
    /// The database.
    pub async fn put_session(
        &self,
        hash: &[u8],
        operator: &str,
        expires_at: WallClock,
        now: WallClock,
    ) -> anyhow::Result<()> {
        let mut step = self.pool.begin().await?;
        sqlx::query("DELETE FROM session WHERE expires_at < ?")
            .bind(signed(now.0))
            .execute(&mut *step)
            .await?;
        sqlx::query("INSERT OR REPLACE INTO session (hash, operator, expires_at) VALUES (?, ?, ?)")
            .bind(hash)
            .bind(operator)
            .bind(signed(expires_at.0))
            .execute(&mut *step)
            .await?;
        sqlx::query(
            "DELETE FROM session WHERE hash NOT IN (SELECT hash FROM session ORDER BY expires_at DESC LIMIT ?)",
        )
        .bind(SESSIONS_MAX)
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(())
    }

    /// The operator of a session that has not expired.
    ///
    /// # Errors
    /// The database.
    pub async fn session(&self, hash: &[u8], now: WallClock) -> anyhow::Result<Option<String>> {
        Ok(sqlx::query_scalar("SELECT operator FROM session WHERE hash = ? AND expires_at >= ?")
            .bind(hash)
            .bind(signed(now.0))
            .fetch_optional(&self.pool)
            .await?)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The database.
    pub async fn end_session(&self, hash: &[u8]) -> anyhow::Result<()> {
        sqlx::query("DELETE FROM session WHERE hash = ?").bind(hash).execute(&self.pool).await?;
        Ok(())
    }
}
