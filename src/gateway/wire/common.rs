//! State that all connections of this process share: budgets, counters, and the queue of sessions to end.
//!
//! Each connection holds it by an `Arc`; the registry in `connections.rs` makes it.

use std::sync::Arc;

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
    /// Polling sessions to end, each once. Nothing receives them when the server ends, and all sessions with it.
    pub session_ends: mpsc::UnboundedSender<PollingSession>,
}

impl Default for Common {
    fn default() -> Self {
        Self::new(SocketMetrics::default()).0
    }
}

impl Common {
    /// Creates the shared state, and the receiver of the sessions to end.
    pub fn new(metrics: SocketMetrics) -> (Self, mpsc::UnboundedReceiver<PollingSession>) {
        let (session_ends, ended) = mpsc::unbounded_channel();
        let waiting = fair(WAITING_BYTES, WAITING_SHARE);
        let read_turns = PerCaller::default();
        (Self { opened: Arc::default(), metrics, waiting, read_turns, session_ends }, ended)
    }
}
