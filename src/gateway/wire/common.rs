//! State that all connections of this process share: budgets, counters, and the queue of sessions to end.
//!
//! Each connection holds it by an `Arc`; the registry in `connections.rs` makes it.

use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, mpsc};

use super::{metrics::SocketMetrics, polling::PollingSession, read_turns::ReadTurns};
use crate::{
    domain::access::Payer,
    net::byte_budget::ByteBudget,
    service::{memory::fair, turns::PerCaller},
};

/// Bytes that may wait for sockets in this process. What a room keeps for all its members is not among them.
const WAITING_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that may wait for the sockets of one user or address. This share shrinks as the budget fills.
const WAITING_SHARE: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub struct Common {
    /// The event loop waits here until a connection may be sent more again.
    pub opened: Arc<Notify>,
    pub metrics: SocketMetrics,
    /// The budget of bytes that wait for sockets.
    pub waiting: ByteBudget<Payer>,
    /// The rounds in which the WebSockets of each caller read.
    pub read_turns: PerCaller<ReadTurns>,
    /// Polling sessions to end, each once. It is closed when the server ends, and all sessions with it.
    session_ends: OnceLock<mpsc::UnboundedSender<PollingSession>>,
}

impl Default for Common {
    fn default() -> Self {
        Self::new(SocketMetrics::default())
    }
}

impl Common {
    pub fn new(metrics: SocketMetrics) -> Self {
        let waiting = fair(WAITING_BYTES, WAITING_SHARE);
        let read_turns = PerCaller::default();
        Self { opened: Arc::default(), metrics, waiting, read_turns, session_ends: OnceLock::new() }
    }

    /// Sets the queue of sessions to end, once.
    pub fn set_session_ends(&self, queue: mpsc::UnboundedSender<PollingSession>) {
        let _ = self.session_ends.set(queue);
    }

    /// Queues a polling session to be ended.
    pub fn end_session(&self, session: PollingSession) {
        let _ = self.session_ends.get().map(|queue| queue.send(session));
    }
}
