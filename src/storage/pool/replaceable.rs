//! A pool of connections that can be replaced as a whole, and that finds connections to MySQL on which an answer is
//! left that nobody has read.
//!
//! A read that is dropped before its end, because its caller has gone away or its time was up, may leave one: sqlx
//! forgets those to PREPARE, and would give them to the next user of the connection, for rows. So after such a read
//! each connection that is given back is asked something new, until none can be left that was in use by then.

use std::{
    mem,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use sea_orm::{
    ConnectOptions, Database, DatabaseBackend, DatabaseConnection,
    sqlx::{self, AssertSqlSafe, Executor, MySqlConnection, Row},
};
use tokio::time::timeout;

use crate::storage::error::{DbResult, is_read_only, is_silence};

/// The time that closing an idle connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// After a read that was dropped, connections are checked until so many were given back and so much time has passed.
/// The connection of that read is given back at once, by a task that need only get its turn.
const SUSPECTED_RELEASES: u32 = 100;
const SUSPECTED_TIME: Duration = Duration::from_secs(10);
/// The time that a connection has to show that it is in step.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// A pool that can be replaced.
#[derive(Debug)]
pub struct Pool {
    options: ConnectOptions,
    /// The number of replacements so far, and the current pool. It is replaced when its connections have fallen silent,
    /// which TCP alone would notice after minutes, or have become read-only, which they stay.
    current: RwLock<(u64, DatabaseConnection)>,
    pub step_check: Arc<StepCheck>,
}

impl Pool {
    /// Makes a pool with these options. It does not connect yet.
    pub async fn new(options: impl FnOnce(Arc<StepCheck>) -> ConnectOptions) -> DbResult<Arc<Self>> {
        let step_check = Arc::<StepCheck>::default();
        let options = options(step_check.clone());
        let current = RwLock::new((0, Database::connect(options.clone()).await?));
        Ok(Arc::new(Self { options, current, step_check }))
    }

    /// The connections to use now.
    pub fn current(&self) -> DatabaseConnection {
        self.current.read().1.clone()
    }

    /// The number of replacements so far.
    pub fn generation(&self) -> u64 {
        self.current.read().0
    }

    /// The database that the pool connects to.
    pub fn backend(&self) -> DatabaseBackend {
        self.current.read().1.get_database_backend()
    }

    /// Waits for something that a connection of this pool is asked. If it is dropped before its end, connections are
    /// checked for an answer that nobody has read.
    pub async fn watch_to_end<T>(&self, read: impl Future<Output = T>) -> T {
        let read = pin!(read);
        // Declared after the read, so it is dropped before the read gives its connection back.
        let unfinished = Unfinished(&self.step_check);
        let answer = read.await;
        mem::forget(unfinished);
        answer
    }

    /// Waits for a read, and replaces the pool if it was met with silence.
    pub async fn renew_if_silent<T>(&self, read: impl Future<Output = DbResult<T>>) -> DbResult<T> {
        let generation = self.generation();
        let answer = read.await;
        if answer.as_ref().is_err_and(is_silence) {
            self.renew(generation).await;
        }
        answer
    }

    /// Waits for a change, and replaces the pool if its connections allow none.
    pub async fn renew_if_read_only<T>(&self, change: impl Future<Output = DbResult<T>>) -> DbResult<T> {
        let generation = self.generation();
        let changed = change.await;
        if changed.as_ref().is_err_and(is_read_only) {
            self.renew(generation).await;
        }
        changed
    }

    /// Replaces the pool of that generation, unless somebody has done so already.
    pub async fn renew(&self, generation: u64) {
        let is_due = self.generation() == generation && self.backend() == DatabaseBackend::MySql;
        // It does not connect yet.
        if is_due && let Ok(new) = Box::pin(Database::connect(self.options.clone())).await {
            let mut current = self.current.write();
            if current.0 == generation {
                *current = (generation + 1, new);
            }
        }
    }

    /// Closes one idle connection to MySQL. Returns `false` if there is none.
    pub async fn close_idle_connection(&self) -> bool {
        let idle = self.current().get_mysql_connection_pool().try_acquire();
        match idle {
            Some(idle) => timeout(CLOSE_TIMEOUT, idle.close()).await.is_ok(),
            None => false,
        }
    }
}

/// Whether the connections of a pool are to be checked when they are given back.
#[derive(Debug, Default)]
pub struct StepCheck {
    /// The present suspicion, written when a read is dropped and when a connection is given back.
    suspicion: Mutex<Option<Suspicion>>,
}

#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Instant,
    releases: u32,
}

/// A read under way. Dropped before it has ended, it raises the suspicion.
struct Unfinished<'a>(&'a StepCheck);

impl StepCheck {
    /// Makes connections be checked when they are given back from now on.
    pub fn raise_suspicion(&self) {
        *self.suspicion.lock() = Some(Suspicion { since: Instant::now(), releases: 0 });
    }

    /// Decides whether a connection that is given back is to be checked.
    fn is_due(&self, now: Instant) -> bool {
        let mut suspicion = self.suspicion.lock();
        let Some(Suspicion { since, releases }) = &mut *suspicion else { return false };
        if *releases >= SUSPECTED_RELEASES && now.duration_since(*since) >= SUSPECTED_TIME {
            *suspicion = None;
            return false;
        }
        *releases += 1;
        true
    }

    /// Decides whether the pool may keep a connection that is given back. One that is broken, silent, or still answers
    /// the dropped read (such as that it took too long) goes without further ado.
    pub async fn may_keep(&self, connection: &mut MySqlConnection) -> bool {
        !self.is_due(Instant::now())
            || matches!(timeout(CHECK_TIMEOUT, is_in_step(connection)).await, Ok(Ok(true)))
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.raise_suspicion();
    }
}

/// Asks something that no earlier answer fits.
async fn is_in_step(connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let question = NEXT.fetch_add(1, Ordering::Relaxed);
    let answer = connection.fetch_one(AssertSqlSafe(format!("SELECT {question}"))).await?;
    Ok(answer.try_get_unchecked::<u64, _>(0)? == question)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_checked_for_a_while_after_a_read_that_was_dropped() {
        let check = StepCheck::default();
        let now = Instant::now();
        mem::forget(Unfinished(&check));
        assert!(!check.is_due(now), "no read was dropped");
        drop(Unfinished(&check));
        let late = Instant::now() + SUSPECTED_TIME;
        for release in 0..SUSPECTED_RELEASES {
            assert!(check.is_due(late), "{release}");
        }
        assert!(check.is_due(now), "many releases, but too early");
        assert!(!check.is_due(late));
        assert!(!check.is_due(now), "the suspicion is over");
    }
}
