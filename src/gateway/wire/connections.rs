//! The registry of connections by the ids of their sessions, for requests that name a session.
//!
//! A connection belongs to its session; the registry holds it weakly.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use socketioxide::socket::Sid;
use tokio::{sync::mpsc, time::sleep};

use super::{common::Common, connection::Connection, metrics::SocketMetrics, polling::PollingSession};

/// Time for a client to read the last packet before its connection is aborted.
const CLOSE_DELAY: Duration = Duration::from_secs(1);
/// Interval between two checks whether polling clients have fetched everything.
const POLLED_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// All connections of this process.
#[derive(Debug)]
pub struct Connections {
    pub common: Arc<Common>,
    /// A session that begins writes it; a request that names a session reads it.
    by_session: Mutex<HashMap<Sid, Weak<Connection>>>,
}

impl Connections {
    /// Creates an empty registry, and the receiver of the polling sessions that must be ended.
    pub fn new(metrics: SocketMetrics) -> (Self, mpsc::UnboundedReceiver<PollingSession>) {
        let (common, session_ends) = Common::new(metrics);
        (Self { common: Arc::new(common), by_session: Mutex::default() }, session_ends)
    }

    /// Creates a connection whose session is not known yet.
    pub fn create(&self) -> Arc<Connection> {
        Arc::new(Connection::new(&self.common))
    }

    /// Registers the connection of a session.
    pub fn insert(&self, session: Sid, connection: &Arc<Connection>) {
        let mut connections = self.by_session.lock();
        if connections.len() == connections.capacity() {
            // The map would grow next, and entries whose connections are gone may make room.
            connections.retain(|_, connection| connection.strong_count() > 0);
        }
        connections.insert(session, Arc::downgrade(connection));
    }

    /// Returns the connection of a session.
    pub fn find(&self, session: &str) -> Option<Arc<Connection>> {
        self.by_session.lock().get(&session.parse().ok()?)?.upgrade()
    }

    /// Aborts a connection after a delay, in which its client may read the last packet.
    pub fn abort_soon(&self, connection: &Arc<Connection>) {
        if connection.begin_closing() {
            let connection = connection.clone();
            tokio::spawn(async move {
                sleep(CLOSE_DELAY).await;
                connection.abort();
            });
        }
    }

    /// Aborts all connections.
    pub fn abort_all(&self) {
        self.by_session.lock().values().filter_map(Weak::upgrade).for_each(|connection| connection.abort());
    }

    /// Waits until polling clients have fetched everything that they were sent.
    pub async fn wait_until_polled(&self) {
        let is_waiting = |connection: Arc<Connection>| {
            !connection.is_websocket() && !connection.has_read_all() && !connection.is_aborted()
        };
        while self.by_session.lock().values().filter_map(Weak::upgrade).any(is_waiting) {
            sleep(POLLED_CHECK_INTERVAL).await;
        }
    }
}
