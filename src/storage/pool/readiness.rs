//! Whether the database can be read and written, for `/readyz`.
//!
//! Whether it can be written is known from the last change, at no cost. If that failed, each question tries to write:
//! a load balancer that was told 503 sends no changes, so nothing else would find out that they succeed again.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, DbErr};

use super::connect::Store;
use crate::storage::error::{is_unreachable, may_come_back};

/// How long a failed change counts without a new try. The try would not notice some causes, such as a full disk.
const BELIEVED: Duration = Duration::from_secs(1);

/// What the database can be used for at the moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Readiness {
    /// Reads and changes.
    Ready,
    /// Reads only: the database refuses changes, because it is read-only or its disk is full.
    ReadsOnly,
    /// Reads only: there is no connection for changes.
    NoWriter,
    /// Nothing.
    Away,
}

/// The result of the last change. Written by the writers after each transaction, read by `/readyz`.
#[derive(Debug, Default)]
pub struct WriteHealth(Mutex<Option<Failure>>);

#[derive(Clone, Copy, Debug)]
struct Failure {
    at: Instant,
    readiness: Readiness,
}

impl WriteHealth {
    /// Records that a transaction was committed.
    pub fn record_succeeded(&self) {
        *self.0.lock() = None;
    }

    /// Records that a transaction failed. An error of that change alone says nothing about others and is ignored.
    pub fn record_failed(&self, error: &DbErr) {
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
    /// Asks what the database can be used for.
    pub async fn readiness(&self) -> Readiness {
        if self.ping().await.is_err() {
            return Readiness::Away;
        }
        match self.writes.last() {
            None => Readiness::Ready,
            Some(failure) if failure.at.elapsed() < BELIEVED => failure.readiness,
            Some(_) => match self.written(self.try_to_write()).await {
                Ok(()) => {
                    self.writes.record_succeeded();
                    Readiness::Ready
                }
                Err(error) => {
                    self.writes.record_failed(&error);
                    self.writes.last().map_or(Readiness::Ready, |failure| failure.readiness)
                }
            },
        }
    }

    /// Runs a statement that a database without write access refuses, and that changes nothing.
    async fn try_to_write(&self) -> Result<(), DbErr> {
        let tx = self.begin().await?;
        tx.execute_unprepared("UPDATE location SET version = version WHERE id = 0").await?;
        tx.rollback().await
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnAcquireErr, RuntimeErr, sqlx};

    use super::*;

    #[test]
    fn the_last_change_says_whether_the_next_may_succeed() {
        let writes = WriteHealth::default();
        let readiness = || writes.last().map(|failure| failure.readiness);
        assert_eq!(readiness(), None);
        // Of one change alone.
        writes.record_failed(&DbErr::Custom("a row that makes no sense".into()));
        assert_eq!(readiness(), None);
        writes.record_failed(&DbErr::ConnectionAcquire(ConnAcquireErr::Timeout));
        assert_eq!(readiness(), Some(Readiness::NoWriter));
        writes.record_succeeded();
        assert_eq!(readiness(), None);
        writes.record_failed(&DbErr::Exec(RuntimeErr::SqlxError(sqlx::Error::WorkerCrashed.into())));
        assert_eq!(readiness(), Some(Readiness::NoWriter));
    }
}
