//! The options of pools, and the work on a connection when it is made and when it is given back.
//!
//! A connection that writes gets a mark: a named lock of MySQL that it holds as long as it lives. By that its successor
//! recognises it: MySQL's own number of the connection may be another's after MySQL was started again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sea_orm::{
    ConnectOptions,
    sqlx::{
        self, AssertSqlSafe, Connection, Executor, MySqlConnection, Row,
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};
use tokio::task::spawn_blocking;

use super::replaceable::StepCheck;

/// The time in which a connection must be had. This is longer than any statement may take: a caller whose time runs out
/// while a silent connection is on its way back into the pool has to find out that it is silent. sqlx warns only of
/// what takes longer: on a busy server connections are waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(6);
/// The time for which SQLite waits for another process. It is shorter, so that the error says what was waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);
/// A connection that was idle for so long is pinged before it is used. A ping before every use would be another round
/// trip for each write.
const TRUSTED_IDLE_TIME: Duration = Duration::from_secs(10);
/// The number of prepared statements that each connection to MySQL keeps: more than there are texts (a page of ids has
/// a hundred). A full cache costs each statement a close and a delayed acknowledgement, 40 ms.
const KEPT_STATEMENTS: usize = 256;
/// Rows that SQLite reads ahead of whoever looks at them. Each may have a megabyte; sqlx's default is 50.
const SQLITE_ROW_BUFFER: usize = 4;
/// The `max_allowed_packet` that is assumed until a connection has read the real one. No version of MySQL has a lower
/// default.
const LEAST_MAX_PACKET: usize = 1024 * 1024;

/// Facts about the newest connection that writes; 0 without MySQL.
#[derive(Debug, Default)]
pub struct WriterSession {
    mark: AtomicU64,
    /// `max_allowed_packet`, in bytes.
    max_packet: AtomicUsize,
}

impl WriterSession {
    /// The mark of the newest connection.
    pub fn mark(&self) -> u64 {
        self.mark.load(Ordering::Acquire)
    }

    /// The largest packet that MySQL accepts, in bytes.
    pub fn max_packet(&self) -> usize {
        match self.max_packet.load(Ordering::Acquire) {
            0 => LEAST_MAX_PACKET,
            known => known,
        }
    }

    /// Takes the mark of a new connection, and records it with the largest packet.
    async fn record(&self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        let mark = rand::random_range(1..=u64::MAX);
        let take = format!("SELECT GET_LOCK('{}', 0), @@max_allowed_packet", lock_name(mark));
        let taken = connection.fetch_one(AssertSqlSafe(take)).await?;
        self.mark.store(mark, Ordering::Release);
        self.max_packet.store(taken.try_get_unchecked::<u64, _>(1)? as usize, Ordering::Release);
        Ok(())
    }
}

/// The MySQL lock that the connection with this mark holds as long as it lives.
pub fn lock_name(mark: u64) -> String {
    format!("georoom.writer.{mark:016x}")
}

/// The options of a pool. `writer` is given for a connection that writes, and recorded when that is made.
pub fn options(
    url: &str,
    connections: u32,
    mysql_session: &'static str,
    writer: Option<Arc<WriterSession>>,
    step_check: Arc<StepCheck>,
) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_timeout(ACQUIRE_TIMEOUT)
        // The database may not be there yet.
        .connect_lazy(true)
        .test_before_acquire_if_idle_for(TRUSTED_IDLE_TIME)
        .sqlx_logging(false)
        .map_sqlx_mysql_opts(|mysql| mysql.statement_cache_capacity(KEPT_STATEMENTS))
        .map_sqlx_mysql_pool_opts(move |pool| {
            mysql_pool(pool, mysql_session, writer.clone(), step_check.clone())
        })
        .map_sqlx_sqlite_pool_opts(sqlite_pool)
        .map_sqlx_sqlite_opts(|sqlite| {
            sqlite
                .journal_mode(SqliteJournalMode::Wal)
                // FULL: what was acknowledged survives a power loss, too.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT)
                .row_buffer_size(SQLITE_ROW_BUFFER)
        });
    options
}

fn mysql_pool(
    pool: sqlx::pool::PoolOptions<sqlx::MySql>,
    session: &'static str,
    writer: Option<Arc<WriterSession>>,
    step_check: Arc<StepCheck>,
) -> sqlx::pool::PoolOptions<sqlx::MySql> {
    // A writer's pool is replaced when a statement was dropped, so its connections are not checked one by one.
    let is_writer = writer.is_some();
    pool.acquire_slow_threshold(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            let writer = writer.clone();
            Box::pin(async move {
                spawn_blocking(disable_delay).await.map_err(|error| sqlx::Error::Io(error.into()))?;
                connection.execute(session).await?;
                match writer {
                    Some(writer) => writer.record(connection).await,
                    None => Ok(()),
                }
            })
        })
        .after_release(move |connection, _| {
            let step_check = step_check.clone();
            Box::pin(async move { Ok(is_writer || step_check.may_keep(connection).await) })
        })
}

fn sqlite_pool(pool: sqlx::pool::PoolOptions<sqlx::Sqlite>) -> sqlx::pool::PoolOptions<sqlx::Sqlite> {
    pool.acquire_slow_threshold(ACQUIRE_TIMEOUT).after_release(|connection, _| {
        Box::pin(async move {
            // SQLite ends a transaction by itself on a full disk, for one. sqlx goes on counting it, and would make
            // each later one a part of it, which nobody commits.
            connection.ping().await?;
            Ok(!connection.is_in_transaction())
        })
    })
}

/// Sets `TCP_NODELAY` on connections to MySQL. sqlx leaves it off: the end of a long statement then waits for an
/// acknowledgement, 40 ms.
fn disable_delay() {
    if let Err(error) = nodelay::set_everywhere() {
        tracing::warn!(%error, "long statements will be slow: TCP_NODELAY cannot be set");
    }
}
