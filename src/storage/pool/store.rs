//! [`Store`]: the database as the rest of the server sees it.
//!
//! Here it is opened, asked whether it is there, and closed. How it is read is in [`super::reads`], how it is changed
//! in [`super::writes`].

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sea_orm::{DatabaseBackend, DbErr};
use tokio::time::sleep;

use super::{
    address::sqlite_file,
    connections::{ConnectionCounts, Gate},
    health::WriteHealth,
    options::options,
    replaceable::Pool,
    writer_connection::WriterConnection,
};
use crate::{
    budgets::FanOutBudgets,
    domain::error::{Error, Result},
    storage::{
        error::{DbResult, is_in_use, may_come_back},
        read::total_cache::TotalCache,
        sql::Dialect,
    },
};

/// The default of `DATABASE_CONNECTIONS`. SQLite always has so many: it has no server that could run out of them.
const DEFAULT_CONNECTIONS: u32 = 17;
/// The time between two looks at something that is waited for.
pub(in crate::storage) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    /// The connection that writes.
    pub(super) writer: WriterConnection,
    /// The connection for large changes, so that small ones need not wait for them; see [`Store::large_writer`].
    large_writer: WriterConnection,
    /// Connections for reads. They see snapshots and do not wait for the writer: MySQL by MVCC, SQLite by its
    /// write-ahead log.
    pub(super) reads: Arc<Pool>,
    /// Connections for reads of lists and history.
    pub(super) lists: Arc<Pool>,
    /// Held on SQLite by a change outside the writer's queue, which needs the writer's connection: such changes go one
    /// by one, so that at most one is in the writer's way, and none waits for another while its time runs.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// The gate before reads, closed while a writer without a connection takes one from the readers.
    pub(super) gate: Arc<Gate>,
    /// Whether the last change could be committed, for `/readyz`.
    pub(in crate::storage) write_health: Arc<WriteHealth>,
    /// Counts of long lists, which are not taken anew for every page.
    pub(in crate::storage) totals: Arc<TotalCache>,
    /// The budgets that pay for telling people. `None`: it costs nothing.
    pub(in crate::storage) fan_out: Option<Arc<FanOutBudgets>>,
    /// Whether the tables are there. Until then nobody gets a connection.
    pub(super) is_migrated: Arc<AtomicBool>,
}

impl Store {
    /// Prepares the connections, which the first use makes. Creates the folder of a SQLite file.
    ///
    /// # Errors
    /// The driver's error about the URL.
    pub async fn connect(url: &str) -> DbResult<Self> {
        Self::connect_with(url, DEFAULT_CONNECTIONS).await
    }

    /// The same as [`Store::connect`], with at most `connections` (2 or more) to MySQL.
    ///
    /// # Errors
    /// The driver's error about the URL.
    pub async fn connect_with(url: &str, connections: u32) -> DbResult<Self> {
        if let Some(file) = url.strip_prefix("sqlite:") {
            create_folder_of(sqlite_file(file), url)?;
        }
        // No gap locks, so that a new location need not wait for those that move. A row that somebody else has locked
        // holds up the others for a second, not for MySQL's default minute.
        let writing = "SET SESSION transaction_isolation = 'READ-COMMITTED', \
                       innodb_lock_wait_timeout = 1, lock_wait_timeout = 1";
        // Lists read several statements of one snapshot.
        let reading = "SET SESSION transaction_isolation = 'REPEATABLE-READ', lock_wait_timeout = 1";
        let writer = WriterConnection::new(url, writing).await?;
        let is_mysql = writer.pool.backend() == DatabaseBackend::MySql;
        let counts = ConnectionCounts::divide(if is_mysql { connections } else { DEFAULT_CONNECTIONS });
        // SQLite has one writer at a time anyway, and a second connection would only wait for its lock.
        let large_writer = match is_mysql && counts.writers > 1 {
            true => writer.another(url, writing).await?,
            false => writer.clone(),
        };
        let reads = Pool::new(|health| options(url, counts.reads, reading, None, health)).await?;
        let lists = match counts.lists {
            0 => reads.clone(),
            lists => Pool::new(|health| options(url, lists, reading, None, health)).await?,
        };
        Ok(Self {
            writer,
            large_writer,
            reads,
            lists,
            turn: Arc::default(),
            gate: Arc::default(),
            write_health: Arc::default(),
            totals: Arc::default(),
            fan_out: None,
            is_migrated: Arc::default(),
        })
    }

    /// The same, where it costs something to tell people.
    pub fn with_fan_out(self, budgets: Arc<FanOutBudgets>) -> Self {
        Self { fan_out: Some(budgets), ..self }
    }

    /// The kind of database.
    pub(in crate::storage) fn backend(&self) -> DatabaseBackend {
        self.reads.backend()
    }

    /// The dialect of statements over the connection that writes.
    pub(in crate::storage) fn dialect(&self) -> Dialect {
        Dialect { backend: self.backend(), max_packet: self.writer.session.max_packet() }
    }

    /// The same database, written over a connection of its own for large changes. There is none on SQLite, nor where
    /// few connections are allowed.
    pub(in crate::storage) fn large_writer(&self) -> Option<Self> {
        let has_one = !Arc::ptr_eq(&self.writer.pool, &self.large_writer.pool);
        has_one.then(|| Self { writer: self.large_writer.clone(), ..self.clone() })
    }

    /// Whether this error may go away by itself. A server may not be up yet, but a file will not appear.
    pub fn is_away(&self, error: &DbErr) -> bool {
        is_in_use(error) || self.backend() == DatabaseBackend::MySql && may_come_back(error)
    }

    /// Waits until the database gives any answer that is not an error of a database which is away.
    pub async fn wait_until_reachable(&self) {
        let ping = async || self.reads.watch_to_end(async { self.reads.current().ping().await }).await;
        while ping().await.is_err_and(|error| self.is_away(&error)) {
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Checks that the database is there.
    ///
    /// # Errors
    /// `storage_unavailable`.
    pub async fn ping(&self) -> Result<()> {
        self.read(async |db| db.ping().await).await
    }

    /// Whether the tables are there.
    pub fn is_ready(&self) -> bool {
        self.is_migrated.load(Ordering::Acquire)
    }

    /// Closes every connection. SQLite then folds its log back into the file.
    pub async fn close(self) {
        for pool in [self.lists, self.reads, self.large_writer.pool, self.writer.pool] {
            if let Err(error) = pool.current().close().await {
                tracing::warn!(error = %Error::internal(error), "database pool did not close");
            }
        }
    }
}

fn create_folder_of(file: &str, url: &str) -> DbResult<()> {
    if file.is_empty() || file.contains(":memory:") || url.contains("mode=memory") {
        let text = "SQLite needs a file: in memory, readers and writer would not meet";
        return Err(DbErr::Custom(text.into()));
    }
    let Some(folder) = Path::new(file).parent() else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|error| DbErr::Custom(format!("{}: {error}", folder.display())))
}
