//! Counters of connected sockets, and of events and connections that were dropped because a client did not read.
//!
//! Rooms count what they send themselves.

use crate::metrics::{Counter, Gauge, Metrics};

/// Counts sockets of this process.
#[derive(Debug, Default)]
pub struct SocketMetrics {
    websocket: Gauge,
    polling: Gauge,
    /// Connections ended because their client did not read.
    pub given_up: Counter,
    /// List events that were dropped because too much waited for their socket.
    pub dropped_list_events: Counter,
}

impl SocketMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let sockets = metrics.gauges("sockets", "Connected sockets, by transport");
        let over = |transport| sockets.of("transport", transport);
        let given_up = metrics.counter(
            "given_up_sockets",
            "Connections ended because their client did not read what it was sent",
        );
        let dropped_list_events = metrics.counter(
            "list_events_dropped",
            "Events of lists not sent to a socket, because it did not read and too much waited for it",
        );
        Self { websocket: over("websocket"), polling: over("polling"), given_up, dropped_list_events }
    }

    /// Returns the gauge of connected sockets over WebSocket, or of those over long-polling.
    pub fn connected(&self, is_websocket: bool) -> &Gauge {
        if is_websocket { &self.websocket } else { &self.polling }
    }
}
