//! Finds connections to MySQL on which an answer is left that nobody has read.
//!
//! A read that is dropped before its end, because its caller has gone away or its time was up, may leave one: sqlx
//! forgets those to PREPARE, and would give them to the next user of the connection, for rows. So after such a read
//! each connection that is given back is asked something new, until none can be left that was in use by then.

use std::{
    mem,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sea_orm::sqlx::{self, AssertSqlSafe, Executor, MySqlConnection, Row};
use tokio::time::timeout;

/// After a read that was dropped, connections are checked until so many were given back and so much time has passed.
/// The connection of that read is given back at once, by a task that need only get its turn.
const SUSPECTED_RELEASES: u32 = 100;
const SUSPECTED_TIME: Duration = Duration::from_secs(10);
/// The time that a connection has to show that it is in step.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

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
pub struct Unfinished<'a>(&'a StepCheck);

impl StepCheck {
    /// Begins a read.
    pub fn begin(&self) -> Unfinished<'_> {
        Unfinished(self)
    }

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

    /// Decides whether the pool may keep a connection that is given back.
    ///
    /// # Errors
    /// The connection is broken or silent.
    pub async fn may_keep(&self, connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
        if !self.is_due(Instant::now()) {
            return Ok(true);
        }
        timeout(CHECK_TIMEOUT, is_in_step(connection)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

impl Unfinished<'_> {
    /// Ends a read: all its answers are read.
    pub fn end(self) {
        mem::forget(self);
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
        check.begin().end();
        assert!(!check.is_due(now), "no read was dropped");
        drop(check.begin());
        let late = Instant::now() + SUSPECTED_TIME;
        for release in 0..SUSPECTED_RELEASES {
            assert!(check.is_due(late), "{release}");
        }
        assert!(check.is_due(now), "many releases, but too early");
        assert!(!check.is_due(late));
        assert!(!check.is_due(now), "the suspicion is over");
    }
}
