//! Changing: transactions over the connection that writes, and small changes over a reader's connection.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, DbErr, IsolationLevel,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::{
    health::Readiness,
    store::{POLL_INTERVAL, Store},
};
use crate::storage::error::{
    DbResult, STATEMENT_TIMEOUT, TRIES, in_time, is_broken, is_deadlock, is_out_of_connections, no_answer,
};

/// The most connections that a writer takes from readers. If these are not enough, other clients get what comes free,
/// and taking more would only leave the readers without any.
const MAX_TAKEN_CONNECTIONS: u32 = 2;
/// The time for which a writer takes connections from readers before it gives up.
const TAKE_TIMEOUT: Duration = Duration::from_millis(2500);

impl Store {
    /// Begins a transaction that may write. First it ends connections that were given up and may have left one open.
    pub(in crate::storage) async fn begin(&self) -> DbResult<DatabaseTransaction> {
        if !self.is_ready() {
            return Err(no_answer());
        }
        let tx = match self.begin_once().await {
            Err(error) if is_out_of_connections(&error) => {
                Box::pin(self.begin_in_place_of_a_reader(error)).await?
            }
            begun => begun?,
        };
        self.writer.end_abandoned(&tx).await?;
        Ok(tx)
    }

    /// Gives up the connection that writes: its other end may not have noticed, and hold locks for hours.
    pub(in crate::storage) fn abandon(&self) {
        self.writer.abandon();
    }

    /// Waits for the connection that writes, not longer than [`STATEMENT_TIMEOUT`]. A connection that breaks, is silent
    /// or read-only is given up.
    pub(in crate::storage) async fn on_writer<T>(
        &self,
        write: impl Future<Output = DbResult<T>>,
    ) -> DbResult<T> {
        let pool = &self.writer.pool;
        let generation = pool.generation();
        match timeout(STATEMENT_TIMEOUT, pool.renew_if_read_only(write)).await {
            Ok(written) => written.inspect_err(|error| {
                if is_broken(error) {
                    self.abandon();
                }
            }),
            Err(_) => {
                self.abandon();
                pool.renew(generation).await;
                Err(no_answer())
            }
        }
    }

    /// Finds out what the database can be used for. Whether it can be written is known from the last change, at no
    /// cost. If that failed, each question tries to write: a load balancer that was told 503 sends no changes, so
    /// nothing else would find out that they succeed again.
    pub async fn readiness(&self) -> Readiness {
        if self.ping().await.is_err() {
            return Readiness::Away;
        }
        if let Some(readiness) = self.write_health.readiness() {
            return readiness;
        }
        // A database without write access refuses this statement, which changes nothing.
        let write = async {
            let tx = self.begin().await?;
            tx.execute_unprepared("UPDATE location SET version = version WHERE id = 0").await?;
            tx.rollback().await
        };
        match self.on_writer(write).await {
            Ok(()) => self.write_health.record_succeeded(),
            Err(error) => self.write_health.record_failed(&error),
        }
        self.write_health.readiness().unwrap_or(Readiness::NoWriter)
    }

    /// Commits a change outside the writer's queue, over a reader's connection where there is one. The change must bear
    /// to be made twice.
    pub(in crate::storage) async fn write_outside_queue<T>(
        &self,
        change: impl for<'a> Fn(&'a DatabaseTransaction) -> BoxFuture<'a, DbResult<T>> + Sync,
    ) -> DbResult<T> {
        let commit_once = async |reader: DatabaseConnection| {
            let tx = match self.backend() {
                // With REPEATABLE READ deleting would lock gaps that the next versions of other locations go into.
                DatabaseBackend::MySql => {
                    reader.begin_with_config(Some(IsolationLevel::ReadCommitted), None).await?
                }
                _ => self.begin().await?,
            };
            let done = change(&tx).await?;
            tx.commit().await?;
            Ok::<_, DbErr>(done)
        };
        let commit = async {
            // SQLite has no other connection that writes than the writer's.
            let _turn = match self.backend() {
                DatabaseBackend::MySql => None,
                _ => Some(self.turn.lock().await),
            };
            let mut tries = 1;
            loop {
                match self.retry(&self.reads, commit_once).await {
                    Err(error) if is_deadlock(&error) && tries < TRIES => tries += 1,
                    done => return done,
                }
            }
        };
        let commit = self.reads.renew_if_read_only(in_time(commit));
        self.reads.renew_if_silent(Box::pin(commit)).await
    }

    async fn begin_once(&self) -> DbResult<DatabaseTransaction> {
        self.writer.pool.current().begin_with_options(immediate()).await
    }

    /// Begins a transaction that may write after MySQL has granted no connection (`error`): closes idle connections of
    /// readers, one at a time and not more than [`MAX_TAKEN_CONNECTIONS`], until MySQL grants one.
    ///
    /// # Errors
    /// Any error of the database; after [`TAKE_TIMEOUT`] that it still grants no connection, because other clients have
    /// them.
    async fn begin_in_place_of_a_reader(&self, error: DbErr) -> DbResult<DatabaseTransaction> {
        if !self.gate.may_take() {
            return Err(error);
        }
        warn!(%error, "MySQL grants no further connection, so a reader gives up its own; set DATABASE_CONNECTIONS lower");
        let until = Instant::now() + TAKE_TIMEOUT;
        let _closed = self.gate.close();
        let mut taken = 0;
        loop {
            if taken < MAX_TAKEN_CONNECTIONS
                && (self.reads.close_idle_connection().await || self.lists.close_idle_connection().await)
            {
                taken += 1;
            }
            let begun = self.begin_once().await;
            let is_refused = begun.as_ref().is_err_and(is_out_of_connections);
            // MySQL may take a moment to see that the other is gone.
            if is_refused && Instant::now() < until {
                sleep(POLL_INTERVAL).await;
                continue;
            }
            self.gate.record_taken(!is_refused);
            return begun;
        }
    }
}

/// SQLite's busy timeout does not help a read that turns into a write, so a transaction begins as one that writes.
pub(super) fn immediate() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..Default::default()
    }
}
