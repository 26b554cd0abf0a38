//! A pool of connections that can be replaced as a whole, and that checks connections which may be out of step.

use std::{pin::pin, sync::Arc, time::Duration};

use parking_lot::RwLock;
use sea_orm::{ConnectOptions, Database, DatabaseBackend, DatabaseConnection};
use tokio::time::timeout;

use super::in_step::StepCheck;
use crate::storage::error::{DbResult, is_read_only, is_silence};

/// The time that closing an idle connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A pool that can be replaced.
#[derive(Debug)]
pub struct Pool {
    options: ConnectOptions,
    /// The number of replacements so far, and the current pool. It is replaced when its connections have fallen silent,
    /// which TCP alone would notice after minutes, or have become read-only, which they stay.
    current: RwLock<(u64, DatabaseConnection)>,
    step_check: Arc<StepCheck>,
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
        let unfinished = self.step_check.begin();
        let answer = read.await;
        unfinished.end();
        answer
    }

    /// Makes connections be checked that are given back from now on. Before a read is given up whose rest is long, this
    /// closes its connection if it does not get over the rest in time.
    pub fn check_releases(&self) {
        self.step_check.raise_suspicion();
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
