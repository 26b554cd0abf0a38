//! How the connections that MySQL grants are divided, and how a writer comes by its own when there are no more.
//!
//! An account or a server may grant fewer connections than `DATABASE_CONNECTIONS`, and after connections were lost
//! whoever asks first has them: readers, of whom there are more. Without what is here they would keep them for good,
//! and nothing could be written.

use sea_orm::{DatabaseTransaction, DbErr, TransactionTrait};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::warn;

use super::{
    connect::{LOOK_AGAIN, Store, immediate},
    error::{DbResult, STATEMENT_TIMEOUT, is_out_of_connections},
};

/// How many connections there are for what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Writers: one, and another for large changes where there is one to spare.
    pub writers: u32,
    /// Reads that may run side by side: rooms, single locations, members, notifications.
    pub reads: u32,
    /// Reads of lists and of history; 0: over the connections for reads. However long they take and however large their
    /// rows are, a read of one row never waits for them. With the default two are for searches and two for pieces of
    /// pages, as the service gives turns, and two are left for what is short.
    pub lists: u32,
}

impl Shares {
    /// Divides so many connections, of which the least is 2.
    pub fn of(connections: u32) -> Self {
        let writers = if connections < 4 { 1 } else { 2 };
        let readers = connections.saturating_sub(writers).max(1);
        let lists = if readers == 1 { 0 } else { (readers * 2 / 5).max(1) };
        Self { writers, reads: readers - lists, lists }
    }
}

/// Where reads wait while a writer takes connections from them. The number of such writers.
#[derive(Debug)]
pub struct Gate(watch::Sender<u32>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

/// Keeps reads waiting until it is dropped.
struct Closed<'a>(&'a Gate);

impl Gate {
    /// Waits until reads may ask for connections.
    pub async fn pass(&self) {
        if *self.0.borrow() > 0 {
            // The sender is here: it cannot be gone.
            let _ = self.0.subscribe().wait_for(|closed| *closed == 0).await;
        }
    }

    fn close(&self) -> Closed<'_> {
        self.0.send_modify(|closed| *closed += 1);
        Closed(self)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|closed| *closed -= 1);
    }
}

impl Store {
    /// Begins a transaction that may write instead of one that reads: closes connections of readers, one after the other
    /// as they come free, until MySQL grants one. `error`: why it did not.
    ///
    /// # Errors
    /// What the database says; that there is still none after some time, which others may have.
    pub(super) async fn begin_before_readers(&self, error: DbErr) -> DbResult<DatabaseTransaction> {
        warn!(%error, "MySQL grants no further connection, so a reader gives up its own; set DATABASE_CONNECTIONS lower");
        let until = Instant::now() + STATEMENT_TIMEOUT / 2;
        let _closed = self.gate.close();
        loop {
            let [reads, lists] = self.read_pools();
            let _is_closed = reads.close_idle().await || lists.close_idle().await;
            match self.writing().begin_with_options(immediate()).await {
                // MySQL may take a moment to see that the other is gone.
                Err(error) if is_out_of_connections(&error) && Instant::now() < until => {
                    sleep(LOOK_AGAIN).await
                }
                begun => return begun,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn every_connection_has_its_use_and_a_writer_its_own() {
        for (connections, writers, reads, lists) in [
            (2, 1, 1, 0),
            (3, 1, 1, 1),
            (4, 2, 1, 1),
            (5, 2, 2, 1),
            (10, 2, 5, 3),
            (17, 2, 9, 6),
            (100, 2, 59, 39),
        ] {
            assert_eq!(Shares::of(connections), Shares { writers, reads, lists }, "{connections}");
            assert_eq!(writers + reads + lists, connections);
        }
    }

    #[test]
    fn reads_wait_as_long_as_any_writer_takes_connections() {
        let gate = Gate::default();
        assert!(gate.pass().now_or_never().is_some());
        let (first, second) = (gate.close(), gate.close());
        let mut waits = Box::pin(gate.pass());
        drop(first);
        assert!(waits.as_mut().now_or_never().is_none());
        drop(second);
        assert!(waits.now_or_never().is_some());
    }
}
