//! Counts connected sockets, and what they were not sent because they did not read.
//!
//! What rooms count is in `gateway/metrics.rs`.

use crate::metrics::{Counter, Gauge, Metrics};

/// Sockets that are connected, by transport.
#[derive(Debug, Default)]
pub struct SocketMetrics {
    websocket: Gauge,
    polling: Gauge,
    /// Connections that were ended because nobody read from them.
    pub given_up: Counter,
    /// Events of lists that gave way, because too much waited for the socket.
    pub unlisted: Counter,
}

impl SocketMetrics {
    /// None yet.
    pub fn start(metrics: &Metrics) -> Self {
        let sockets = metrics.gauges("sockets", "Connected sockets, by transport");
        let over = |transport| sockets.of("transport", transport);
        let given_up = metrics.counter(
            "given_up_sockets",
            "Connections ended because their client did not read what it was sent",
        );
        let unlisted = metrics.counter(
            "list_events_dropped",
            "Events of lists not sent to a socket, because it did not read and too much waited for it",
        );
        Self { websocket: over("websocket"), polling: over("polling"), given_up, unlisted }
    }

    /// Those over WebSocket, or those who poll.
    pub fn over(&self, is_websocket: bool) -> &Gauge {
        if is_websocket { &self.websocket } else { &self.polling }
    }
}
