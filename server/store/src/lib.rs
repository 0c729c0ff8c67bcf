//! What a server must remember: configuration, engine record, events, operators, sessions. The only SQL.
//!
//! SQLite in write-ahead mode with `synchronous = FULL`: a call that returned `Ok` survives the process's death and the
//! loss of power at any later moment. Keys are not here: they lie in files of their own beside the database.

mod access;
mod config;
mod events;
mod record;

pub use events::EVENTS_KEPT;

use anyhow::Context as _;
use sqlx::SqlitePool;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::path::Path;
use std::time::Duration;

/// How long a call waits for the database's lock. Only an operator's own `sqlite3` could hold it; five seconds is long
/// enough for a query of theirs and short enough that the engine learns of the failure.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// One connection: every write is tiny, and SQLite has one writer anyway.
const CONNECTIONS: u32 = 1;

/// Every step of the schema, in order (see `/migrations/README.md`).
const MIGRATIONS: [(i64, &str, &str); 1] =
    [(1, "initial", include_str!("../../../migrations/0001_initial.sql"))];

/// An open store.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database at `path`, creates it if missing, and brings its schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened, is damaged, or a migration failed.
    pub async fn open(path: &Path) -> anyhow::Result<Store> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(LOCK_WAIT);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(LOCK_WAIT)
            .connect_with(options)
            .await
            .with_context(|| format!("open the store {}", path.display()))?;
        let steps = MIGRATIONS.map(|(version, what, sql)| {
            let sql = sqlx::SqlStr::from_static(sql);
            Migration::new(version, what.into(), MigrationType::Simple, sql, false)
        });
        let mut migrator = Migrator::with_migrations(steps.to_vec());
        // A version before this one may have to open a store that a later one expanded.
        migrator.set_ignore_missing(true);
        migrator
            .run(&pool)
            .await
            .with_context(|| format!("bring the schema of {} up to date", path.display()))?;
        Ok(Store { pool })
    }

    /// Closes the database after the calls under way.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// SQLite's integers are signed; every number kept here is far below that bound.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Back from SQLite.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests;
