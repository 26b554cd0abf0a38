//! The counters of all rooms together: what they have sent, left out and read.
//!
//! Sizes of rooms are not counted: a scrape looks at them (`registry.rs`).

use std::time::Duration;

use super::room::Tally;
use crate::metrics::{Counter, Metrics, Seconds};

/// The counters of all rooms together.
#[derive(Debug)]
pub struct RoomMetrics {
    deliveries: Counter,
    join_deliveries: Counter,
    conflated: Counter,
    put_to_send: Seconds,
    /// Counts rooms that the sweep found to lack something.
    pub healed: Counter,
    /// Counts reads of all rights to a location.
    pub access_reads: Counter,
}

impl RoomMetrics {
    /// Creates the counters.
    pub fn start(metrics: &Metrics) -> Self {
        Self {
            deliveries: metrics
                .counter("deliveries", "Versions sent to members of rooms, counted for each member"),
            join_deliveries: metrics.counter(
                "join_deliveries",
                "Versions sent to sockets that join: the current version, or the missed ones",
            ),
            conflated: metrics.counter(
                "conflated",
                "Versions not sent to a member, because it did not read and then got a newer one",
            ),
            put_to_send: metrics.seconds(
                "put_to_send",
                "Time from a PUT's complete body until it was sent to the members of its room",
            ),
            healed: metrics.counter("sweep_healed", "Rooms that missed a commit until the sweep found it"),
            access_reads: metrics
                .counter("access_reads", "Reads of all members and share links of a location for its room"),
        }
    }

    /// Counts what a room has sent.
    pub fn record(&self, Tally { live, joining, conflated }: Tally) {
        // An addition of nothing costs as much as any other.
        for (count, more) in
            [(&self.deliveries, live), (&self.join_deliveries, joining), (&self.conflated, conflated)]
        {
            if more > 0 {
                count.inc_by(more);
            }
        }
    }

    /// Records the time from when a PUT's body was complete until its version was sent to all members.
    pub fn record_latency(&self, time: Duration) {
        self.put_to_send.observe(time);
    }
}
