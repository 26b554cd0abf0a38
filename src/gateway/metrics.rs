//! What the gateway counts.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::rooms::{READS, Rooms, room::Tally};
use crate::{
    metrics::{Counter, Metrics, Seconds},
    service::refusals::Refusals,
};

/// What rooms have sent and the gateway has refused. Made once for all.
#[derive(Debug)]
pub struct Counts {
    deliveries: Counter,
    join_deliveries: Counter,
    conflated: Counter,
    put_to_send: Seconds,
    /// Rooms that the sweep found to lack something.
    pub healed: Counter,
    /// Times that all who have to do with a location were read.
    pub access_reads: Counter,
    /// Of events and handshakes.
    pub refusals: Refusals,
}

impl Counts {
    /// Nothing yet.
    pub fn start(metrics: &Metrics) -> Self {
        Self {
            deliveries: metrics
                .counter("deliveries", "Versions sent to members of their rooms, one for each member"),
            join_deliveries: metrics
                .counter("join_deliveries", "Versions sent to who joins: the current one, or those missed"),
            conflated: metrics.counter(
                "conflated",
                "Versions that a member was not sent, because it did not read and then got a newer one",
            ),
            put_to_send: metrics.seconds(
                "put_to_send",
                "From a PUT whose body has come to its having been sent to the members of its room",
            ),
            healed: metrics.counter("sweep_healed", "Rooms that the sweep found to have missed a commit"),
            access_reads: metrics
                .counter("access_reads", "Times that all members and share links of a location were read"),
            refusals: Refusals::at("gateway", metrics),
        }
    }

    /// A room has sent so much.
    pub fn sent(&self, Tally { live, joining, conflated }: Tally) {
        // An addition of nothing costs as much as any other.
        for (count, more) in
            [(&self.deliveries, live), (&self.join_deliveries, joining), (&self.conflated, conflated)]
        {
            if more > 0 {
                count.inc_by(more);
            }
        }
    }

    /// The members of a room were sent what a PUT has made, so long after its body had come.
    pub fn sent_after(&self, time: Duration) {
        self.put_to_send.observe(time);
    }
}

/// What a scrape looks up.
pub fn watch(rooms: &Arc<Rooms>, metrics: &Metrics) {
    let look = |look: fn(&Rooms) -> usize| {
        let rooms = Arc::downgrade(rooms);
        move || Weak::upgrade(&rooms).map_or(0, |rooms| look(&rooms))
    };
    metrics.watch("rooms", "Rooms with somebody in them or on the way in", look(Rooms::len));
    metrics.watch("rooms_behind", "Rooms that owe a member something, or lack versions", look(Rooms::behind));
    metrics.queue("room_reads", READS, look(Rooms::reading));
}
