//! Reading: each read has its time, is tried again where that helps, and replaces connections that have fallen silent.

use std::time::Duration;

use futures_util::TryFutureExt;
use sea_orm::DatabaseConnection;
use tokio::time::{Instant, sleep, timeout};

use super::{
    replaceable::Pool,
    store::{POLL_INTERVAL, Store},
};
use crate::{
    domain::error::{Code, Error, Result},
    storage::error::{DbResult, TRIES, domain_error, in_time, is_broken, is_out_of_connections, no_answer},
};

/// The time of a search from its first statement until everything on the page is found.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Stands behind the first SELECT of a search and repeats [`SEARCH_TIMEOUT`]: MySQL then stops the statement by itself
/// when nobody waits for it any more.
pub(in crate::storage) const SEARCH_HINT: &str = "/*+ MAX_EXECUTION_TIME(5000) */";
/// The time for which a read waits if MySQL grants no connection: one of this process's own may come free.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

impl Store {
    /// Waits for what `read` reads over a connection for reads.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub(in crate::storage) fn read<T, F>(
        &self,
        read: impl Fn(DatabaseConnection) -> F,
    ) -> impl Future<Output = Result<T>>
    where
        F: Future<Output = DbResult<T>>,
    {
        self.read_raw(read).map_err(domain_error)
    }

    /// The same as [`Store::read`], with the database's own errors.
    pub(in crate::storage) fn read_raw<T, F>(
        &self,
        read: impl Fn(DatabaseConnection) -> F,
    ) -> impl Future<Output = DbResult<T>>
    where
        F: Future<Output = DbResult<T>>,
    {
        // Boxed: every request that might read would else carry the read's kilobytes in its future.
        self.reads.renew_if_silent(Box::pin(in_time(self.retry(&self.reads, read))))
    }

    /// Waits for what `read` reads over a connection for reads of lists.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub(in crate::storage) async fn read_list<T, F>(
        &self,
        read: impl Fn(DatabaseConnection) -> F,
    ) -> Result<T>
    where
        F: Future<Output = DbResult<T>>,
    {
        let read = Box::pin(in_time(self.retry(&self.lists, read)));
        self.lists.renew_if_silent(read).await.map_err(domain_error)
    }

    /// Waits for what `search` finds over a connection for reads of lists. It computes besides waiting for the
    /// database, and is stopped with its statement when both together take too long.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub(in crate::storage) async fn search<T, F>(&self, search: impl Fn(DatabaseConnection) -> F) -> Result<T>
    where
        F: Future<Output = DbResult<T>>,
    {
        let search = Box::pin(self.retry(&self.lists, search));
        let found = timeout(SEARCH_TIMEOUT, self.lists.renew_if_silent(search));
        found.await.map_or_else(|_| Err(too_long()), |found| found.map_err(domain_error))
    }

    /// Waits for one answer of a search that reads several, not longer than for any other statement.
    pub(in crate::storage) async fn wait_in_search<T>(
        &self,
        answer: impl Future<Output = DbResult<T>>,
    ) -> DbResult<T> {
        in_time(self.lists.watch_to_end(answer)).await
    }

    /// Prepares giving up a search in the middle of many rows, all of which the next user of its connection would have
    /// to pass over: the connection is closed if it does not get over them in time.
    pub(in crate::storage) fn give_up_search(&self) {
        self.lists.step_check.raise_suspicion();
    }

    /// Reads over `pool`. A connection that broke while it was idle fails at its next use, so the read is tried again
    /// over others. If MySQL grants no connection, it waits for one.
    pub(super) async fn retry<T, F>(&self, pool: &Pool, read: impl Fn(DatabaseConnection) -> F) -> DbResult<T>
    where
        F: Future<Output = DbResult<T>>,
    {
        let (mut tries, until) = (1, Instant::now() + CONNECTION_TIMEOUT);
        loop {
            self.gate.wait_until_open().await;
            // Until the tables are there nobody gets a connection.
            let attempt =
                async { read(self.is_ready().then(|| pool.current()).ok_or_else(no_answer)?).await };
            match pool.watch_to_end(attempt).await {
                Err(error) if is_broken(&error) && tries < TRIES => tries += 1,
                Err(error) if is_out_of_connections(&error) && Instant::now() < until => {
                    sleep(POLL_INTERVAL).await
                }
                done => return done,
            }
        }
    }
}

fn too_long() -> Error {
    let detail =
        "the list takes too long to find; ask for a smaller area, or for a page nearer to the beginning";
    Error::new(Code::StorageUnavailable, detail).after(SEARCH_TIMEOUT)
}
