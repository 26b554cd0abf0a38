//! Whether the last change could be committed, and for how long that is believed.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sea_orm::DbErr;

use crate::storage::error::{is_unreachable, may_come_back};

/// The time for which a failed change counts without a new attempt. The attempt would not notice some causes, such as a
/// full disk.
const FAILURE_LIFETIME: Duration = Duration::from_secs(1);

/// The use that can be made of the database at the moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Readiness {
    /// Reads and changes.
    Ready,
    /// Reads only: the database refuses changes, because it is read-only or its disk is full.
    ReadsOnly,
    /// Reads only: there is no connection for changes.
    NoWriter,
    /// Neither: the database is away.
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

    /// The use of the database according to the last change. `None` after a failure that is too old to be believed.
    pub fn readiness(&self) -> Option<Readiness> {
        match *self.0.lock() {
            None => Some(Readiness::Ready),
            Some(failure) if failure.at.elapsed() < FAILURE_LIFETIME => Some(failure.readiness),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnAcquireErr, RuntimeErr, sqlx};

    use super::*;

    #[test]
    fn the_last_change_says_whether_the_next_may_succeed() {
        let health = WriteHealth::default();
        assert_eq!(health.readiness(), Some(Readiness::Ready));
        health.record_failed(&DbErr::Custom("a row that makes no sense".into()));
        assert_eq!(health.readiness(), Some(Readiness::Ready), "this says nothing about other changes");
        health.record_failed(&DbErr::ConnectionAcquire(ConnAcquireErr::Timeout));
        assert_eq!(health.readiness(), Some(Readiness::NoWriter));
        health.record_succeeded();
        assert_eq!(health.readiness(), Some(Readiness::Ready));
        health.record_failed(&DbErr::Exec(RuntimeErr::SqlxError(sqlx::Error::WorkerCrashed.into())));
        assert_eq!(health.readiness(), Some(Readiness::NoWriter));
        if let Some(failure) = &mut *health.0.lock() {
            failure.at -= FAILURE_LIFETIME;
        }
        assert_eq!(health.readiness(), None, "another attempt is due");
    }
}
