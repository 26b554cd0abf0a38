//! Facts about a connection that writes, recorded when it is made.
//!
//! The mark of a connection is a named lock of MySQL that it holds as long as it lives. By that its successor recognises
//! it: MySQL's own number of the connection may be another's after MySQL was started again.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use sea_orm::sqlx::{self, AssertSqlSafe, Executor, MySqlConnection, Row};

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

    /// MySQL's `max_allowed_packet` when the connection was made, in bytes.
    pub fn max_packet(&self) -> usize {
        self.max_packet.load(Ordering::Acquire)
    }

    /// Takes the mark of a new connection, and records it with the largest packet.
    pub async fn record(&self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
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
