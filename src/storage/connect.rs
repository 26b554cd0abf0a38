//! Opening the database: the pools, their settings and why.

use std::{path::Path, time::Duration};

use sea_orm::{
    ConnectOptions, Database, DatabaseBackend, DatabaseConnection, DbErr,
    sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous},
};
use sea_orm_migration::MigratorTrait;
use tokio::time::timeout;

use super::error::domain_error;
use crate::domain::error::{Error, Result};

/// Reads that may run side by side.
const READ_CONNECTIONS: u32 = 16;
/// How long a caller waits for a connection before the database counts as away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the database could not be opened or migrated.
pub type ConnectError = DbErr;

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    /// One connection, so that SQLite never meets itself at its write lock and commits have one order.
    pub(super) write: DatabaseConnection,
    /// Snapshots beside the writer: MySQL by MVCC, SQLite by its write-ahead log.
    pub(super) read: DatabaseConnection,
}

impl Store {
    /// Connects; creates a SQLite file's folder.
    ///
    /// # Errors
    /// What the driver says: the caller names the setting.
    pub async fn connect(url: &str) -> std::result::Result<Self, ConnectError> {
        if let Some(file) = url.strip_prefix("sqlite:") {
            let file = file.trim_start_matches("//").split('?').next().unwrap_or_default();
            if file.is_empty() || file.contains(":memory:") || url.contains("mode=memory") {
                return Err(DbErr::Custom(
                    "SQLite needs a file: in memory, readers and writer would not meet".into(),
                ));
            }
            if let Some(folder) = Path::new(file).parent() {
                std::fs::create_dir_all(folder)
                    .map_err(|e| DbErr::Custom(format!("{}: {e}", folder.display())))?;
            }
        }
        let write = match Database::connect(options(url, 1)).await {
            Ok(write) => write,
            // A pool that ran out of time does not say why.
            Err(e) => return Err(reason(url).await.unwrap_or(e)),
        };
        Ok(Self { write, read: Database::connect(options(url, READ_CONNECTIONS)).await? })
    }

    /// Runs the migrations this database has not seen.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn migrate(&self) -> std::result::Result<(), ConnectError> {
        migrations::Migrator::up(&self.write, None).await
    }

    /// Is the database there?
    ///
    /// # Errors
    /// `storage_unavailable`.
    pub async fn ping(&self) -> Result<()> {
        self.read.ping().await.map_err(domain_error)
    }

    pub(super) fn backend(&self) -> DatabaseBackend {
        self.read.get_database_backend()
    }

    /// Closes every connection; SQLite folds its log back into the file.
    pub async fn close(self) {
        for pool in [self.read, self.write] {
            if let Err(e) = pool.close().await {
                tracing::warn!(error = %Error::internal(e), "database pool did not close");
            }
        }
    }
}

/// Why MySQL takes no connection, if it says.
async fn reason(url: &str) -> Option<ConnectError> {
    use sea_orm::sqlx::{Connection, MySqlConnection};

    let connection = timeout(ACQUIRE_TIMEOUT, MySqlConnection::connect(url)).await.ok()?;
    connection.err().map(|e| DbErr::Custom(e.to_string()))
}

fn options(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_timeout(ACQUIRE_TIMEOUT)
        // A ping before every use would be a round trip more for each write.
        .test_before_acquire_if_idle_for(Duration::from_secs(10))
        .sqlx_logging(false)
        // More than there are texts (a page of ids has a hundred): a full cache costs each statement a
        // close and a delayed acknowledgement, 40 ms.
        .map_sqlx_mysql_opts(|mysql| mysql.statement_cache_capacity(256))
        .map_sqlx_sqlite_opts(|sqlite| {
            sqlite
                .journal_mode(SqliteJournalMode::Wal)
                // FULL: what was acknowledged survives power loss too.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(ACQUIRE_TIMEOUT)
        });
    options
}
