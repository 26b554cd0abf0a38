//! All connections, by the ids of their sessions, for requests that name one; and the end of sessions.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use socketioxide::socket::Sid;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

use super::{connection::Connection, metrics::SocketMetrics, polling::PollingSession, readers::Readers};
use crate::{
    domain::access::Payer,
    net::byte_budget::ByteBudget,
    service::{memory::fair, turns::PerCaller},
};

/// Bytes that may wait for sockets in this process besides what a room keeps for all its members, and those of one
/// user or address, which shrink as it fills.
pub const WAITING_BYTES: usize = 64 * 1024 * 1024;
const WAITING_SHARE: usize = 16 * 1024 * 1024;
/// Connections that are created at once, and so mostly lie side by side: a room goes through those of all its members, and
/// memory that is scattered costs more than all that is done with it.
const AT_ONCE: usize = 64;
/// How long what was said last may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often it is looked whether those who poll have fetched everything.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What all connections share.
#[derive(Debug)]
pub struct Common {
    /// Told when a socket that was sent nothing more, or nothing of what it has missed, has read.
    pub opened: Arc<Notify>,
    /// The sockets that are connected.
    pub sockets: SocketMetrics,
    /// Bytes that wait for sockets.
    pub waiting: ByteBudget<Payer>,
    /// Turns of WebSockets to take in what has come.
    pub readers: PerCaller<Readers>,
    /// Sessions without a connection that are to be ended; holds each session once.
    ending: OnceLock<mpsc::UnboundedSender<PollingSession>>,
}

impl Default for Common {
    fn default() -> Self {
        Self::new(SocketMetrics::default())
    }
}

impl Common {
    fn new(sockets: SocketMetrics) -> Self {
        let waiting = fair(WAITING_BYTES, WAITING_SHARE);
        let readers = PerCaller::default();
        Self { opened: Arc::default(), sockets, waiting, readers, ending: OnceLock::new() }
    }

    /// Has a session ended that has no connection.
    pub fn end_session(&self, session: PollingSession) {
        // Closed at the end of the server, when all sessions end.
        let _ = self.ending.get().map(|ending| ending.send(session));
    }
}

/// The connections by the ids of their sessions.
#[derive(Debug)]
pub struct Connections {
    common: Arc<Common>,
    /// Written when a session begins and when its requests look for it.
    by_session: Mutex<HashMap<Sid, Weak<Connection>>>,
    /// Created, and nobody's yet.
    spare: Mutex<Vec<Arc<Connection>>>,
}

impl Connections {
    /// Creates an empty registry.
    pub fn new(sockets: SocketMetrics) -> Self {
        Self { common: Arc::new(Common::new(sockets)), by_session: Mutex::default(), spare: Mutex::default() }
    }

    /// Told when a socket that was sent nothing more has read.
    pub fn opened(&self) -> Arc<Notify> {
        self.common.opened.clone()
    }

    /// Bytes that wait for sockets.
    pub fn waiting(&self) -> ByteBudget<Payer> {
        self.common.waiting.clone()
    }

    /// Says who ends sessions that have no connection. Once.
    pub fn end_sessions_with(&self, ending: mpsc::UnboundedSender<PollingSession>) {
        let _ = self.common.ending.set(ending);
    }

    /// Ends a connection a moment later: what was said last is to be read.
    pub fn abort_soon(&self, connection: &Arc<Connection>) {
        if connection.is_closing.swap(true, Ordering::Relaxed) {
            return;
        }
        let connection = connection.clone();
        tokio::spawn(async move {
            sleep(LAST_WORDS).await;
            connection.abort();
        });
    }

    /// Creates a connection whose session is not known yet.
    pub fn create(&self) -> Arc<Connection> {
        let mut spare = self.spare.lock();
        if spare.is_empty() {
            spare.extend(std::iter::repeat_with(|| Arc::new(Connection::new(&self.common))).take(AT_ONCE));
        }
        spare.pop().expect("made above")
    }

    /// Waits until those who poll have everything.
    pub async fn wait_until_polled(&self) {
        let is_waiting = |connection: Arc<Connection>| {
            !connection.has_websocket() && !connection.has_read() && !connection.is_aborted()
        };
        while self.by_session.lock().values().filter_map(Weak::upgrade).any(is_waiting) {
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The connection of a session that has one.
    pub fn find(&self, session: &str) -> Option<Arc<Connection>> {
        self.by_session.lock().get(&session.parse().ok()?)?.upgrade()
    }

    /// Names the connection of a session.
    pub fn insert(&self, session: Sid, connection: &Arc<Connection>) {
        let mut connections = self.by_session.lock();
        if connections.len() == connections.capacity() {
            // Before it would grow.
            connections.retain(|_, connection| connection.strong_count() > 0);
        }
        connections.insert(session, Arc::downgrade(connection));
    }

    /// Ends every connection at once.
    pub fn abort_all(&self) {
        self.by_session.lock().values().filter_map(Weak::upgrade).for_each(|connection| connection.abort());
    }
}
