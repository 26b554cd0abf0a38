//! Dividing connections to MySQL between writers and readers, and holding readers back while a writer has none.
//!
//! An account or a server may grant fewer connections than `DATABASE_CONNECTIONS`. After connections are lost, the
//! readers, which are more, reconnect first and would keep all of them: nothing could be written until a restart.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

/// After a writer has taken connections in vain, no writer takes more for so long.
const TAKE_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The number of connections for each use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnectionCounts {
    /// Writers: one, and another for large changes where there is one to spare.
    pub writers: u32,
    /// Reads that may run side by side: rooms, single locations, members, notifications.
    pub reads: u32,
    /// Reads of lists and history; 0: they share the connections for reads. With connections of their own they never
    /// delay a read of one row, however long they take. By default two are for searches and two for pieces of pages, as
    /// the service gives turns, and two are left for short reads.
    pub lists: u32,
}

impl ConnectionCounts {
    /// Divides `connections`, which is 2 or more.
    pub fn divide(connections: u32) -> Self {
        let writers = if connections < 4 { 1 } else { 2 };
        let readers = connections.saturating_sub(writers).max(1);
        let lists = if readers == 1 { 0 } else { (readers * 2 / 5).max(1) };
        Self { writers, reads: readers - lists, lists }
    }
}

/// Holds back new reads while a writer waits for a connection of theirs. Holds the number of waiting writers; reads
/// wait until it is 0, each at most as long as its own timeout.
#[derive(Debug, Default)]
pub struct Gate {
    waiting: watch::Sender<u32>,
    /// The time at which a writer last took connections in vain. Set by that writer, cleared by one that succeeds.
    failed_at: Mutex<Option<Instant>>,
}

/// Keeps the gate closed until it is dropped.
pub struct Closed<'a>(&'a Gate);

impl Gate {
    /// Waits until no writer waits for a connection.
    pub async fn wait_until_open(&self) {
        if *self.waiting.borrow() > 0 {
            // The sender is here: it cannot be gone.
            let _ = self.waiting.subscribe().wait_for(|closed| *closed == 0).await;
        }
    }

    /// May a writer take connections from readers? It may not until [`TAKE_AGAIN_AFTER`] after one did so in vain.
    pub fn may_take(&self) -> bool {
        self.failed_at.lock().is_none_or(|at| at.elapsed() >= TAKE_AGAIN_AFTER)
    }

    /// Records whether a writer that took connections got one for itself.
    pub fn record_taken(&self, has_succeeded: bool) {
        *self.failed_at.lock() = (!has_succeeded).then(Instant::now);
    }

    /// Closes the gate until the result is dropped.
    pub fn close(&self) -> Closed<'_> {
        self.waiting.send_modify(|closed| *closed += 1);
        Closed(self)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|closed| *closed -= 1);
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
            assert_eq!(
                ConnectionCounts::divide(connections),
                ConnectionCounts { writers, reads, lists },
                "{connections}"
            );
            assert_eq!(writers + reads + lists, connections);
        }
    }

    #[test]
    fn reads_wait_as_long_as_any_writer_takes_connections() {
        let gate = Gate::default();
        assert!(gate.wait_until_open().now_or_never().is_some());
        let (first, second) = (gate.close(), gate.close());
        let mut waits = Box::pin(gate.wait_until_open());
        drop(first);
        assert!(waits.as_mut().now_or_never().is_none());
        drop(second);
        assert!(waits.now_or_never().is_some());
    }
}
