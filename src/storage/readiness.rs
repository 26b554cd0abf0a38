//! Can the database be read, and can it be written? What `/readyz` tells.
//!
//! Whether it can be written the last change says, which costs nothing. After one that failed, writing is tried anew
//! by whoever asks: a load balancer may send no changes until it is told that they succeed again.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sea_orm::DbErr;

use super::{
    connect::Store,
    error::{is_unreachable, may_come_back},
};

/// How long the last change that failed is believed. Some failures, as of a full disk, no trial shows.
const BELIEVED: Duration = Duration::from_secs(1);

/// What the database can be used for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Readiness {
    /// Everything.
    Ready,
    /// Reads. Changes are refused by the database, such as one that is read-only or has no disk space.
    ReadsOnly,
    /// Reads, as far as that: there is no connection for changes.
    NoWriter,
    /// Nothing.
    Away,
}

/// How the last change went.
#[derive(Debug, Default)]
pub struct Writes(Mutex<Option<Failure>>);

#[derive(Clone, Copy, Debug)]
struct Failure {
    at: Instant,
    readiness: Readiness,
}

impl Writes {
    /// A change was committed.
    pub fn succeeded(&self) {
        *self.0.lock() = None;
    }

    /// A change failed. What is wrong with one change alone says nothing about others.
    pub fn failed(&self, error: &DbErr) {
        let readiness = match is_unreachable(error) {
            true => Readiness::NoWriter,
            false if may_come_back(error) => Readiness::ReadsOnly,
            false => return,
        };
        *self.0.lock() = Some(Failure { at: Instant::now(), readiness });
    }

    fn last(&self) -> Option<Failure> {
        *self.0.lock()
    }
}

impl Store {
    /// What the database can be used for now.
    pub async fn readiness(&self) -> Readiness {
        if self.ping().await.is_err() {
            return Readiness::Away;
        }
        match self.writes.last() {
            None => Readiness::Ready,
            Some(failure) if failure.at.elapsed() < BELIEVED => failure.readiness,
            Some(_) => match self.written(self.try_to_write()).await {
                Ok(()) => {
                    self.writes.succeeded();
                    Readiness::Ready
                }
                Err(error) => {
                    self.writes.failed(&error);
                    self.writes.last().map_or(Readiness::Ready, |failure| failure.readiness)
                }
            },
        }
    }

    /// Changes nothing, in a transaction that could.
    async fn try_to_write(&self) -> Result<(), DbErr> {
        let tx = self.begin().await?;
        sea_orm::ConnectionTrait::execute_unprepared(
            &tx,
            "UPDATE location SET version = version WHERE id = 0",
        )
        .await?;
        tx.rollback().await
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnAcquireErr, RuntimeErr, sqlx};

    use super::*;

    #[test]
    fn the_last_change_says_whether_the_next_may_succeed() {
        let writes = Writes::default();
        let readiness = || writes.last().map(|failure| failure.readiness);
        assert_eq!(readiness(), None);
        // Of one change alone.
        writes.failed(&DbErr::Custom("a row that makes no sense".into()));
        assert_eq!(readiness(), None);
        writes.failed(&DbErr::ConnectionAcquire(ConnAcquireErr::Timeout));
        assert_eq!(readiness(), Some(Readiness::NoWriter));
        writes.succeeded();
        assert_eq!(readiness(), None);
        writes.failed(&DbErr::Exec(RuntimeErr::SqlxError(sqlx::Error::WorkerCrashed.into())));
        assert_eq!(readiness(), Some(Readiness::NoWriter));
    }
}
