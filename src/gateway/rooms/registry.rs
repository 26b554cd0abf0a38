//! The registry of rooms: which rooms exist, and everything that tasks share of a room.
//!
//! A room exists while somebody is in it or on the way in. The files beside this one, each an `impl Rooms`, use it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Instant,
};

use parking_lot::Mutex;
use socketioxide::socket::Sid;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::{
    presence::Presence,
    rights::Rights,
    room::{Room, Tally},
};
use crate::{
    config::Timings,
    domain::{
        access::Payer,
        error::{Error, Result},
        id::{LocationId, UserId},
    },
    gateway::{people::directory::Directory, socket::outbox::Subscriber, wire::connection::Connection},
    metrics::{Counter, Metrics, Seconds},
    service::{Service, turns::CallerTurns},
    supervise::Task,
};

/// Limits the reads of all rooms that run at once. Requests have the database's other connections.
const MAX_READS: usize = 8;
/// Limits the reads of one caller that run at once.
const MAX_CALLER_READS: usize = MAX_READS / 2;

pub struct Rooms {
    pub(super) service: Arc<Service>,
    pub(super) directory: Arc<Directory>,
    /// The live rooms. Written when a room's first member enters or its last one leaves. This lock is taken before a
    /// room's locks, and never held while anything is sent.
    pub(super) rooms: Mutex<HashMap<LocationId, Arc<SharedRoom>>>,
    /// Rooms that owe their members something, or lack versions themselves. The event loop tries them again.
    pub(super) behind: Mutex<HashSet<LocationId>>,
    /// Rooms that have not gone through all of their members, each once. They have their turns one after the other.
    pub(super) unfinished: Mutex<VecDeque<Arc<SharedRoom>>>,
    pub turn_needed: Notify,
    /// Rooms whose presence is to be announced, each once. Written when somebody enters or leaves; taken last.
    pub(super) due: Mutex<HashSet<LocationId>>,
    pub due_added: Notify,
    pub(super) reads: Reads,
    pub(super) metrics: RoomMetrics,
    pub(super) timings: Timings,
    /// The task that sends to rooms, and the one that compares them with the database. Both catch a panic over one
    /// room, so that the others go on.
    pub(super) event_loop: Task,
    pub(super) sweep: Task,
}

/// A room that many tasks use. Of its locks, `rights` is taken before `state`, and `state` before `presence`.
pub(super) struct SharedRoom {
    pub(super) id: LocationId,
    /// The versions and members. Held while an update is sent to the members.
    pub(super) state: Mutex<Room<Sid, Member>>,
    /// The users of the members. Every PUT asks how many sockets it pays for, and must not wait for `state`.
    pub(super) presence: Mutex<Presence>,
    /// The rights to the location. Held while somebody enters or is taken out.
    pub(super) rights: Mutex<Rights>,
    /// The last read from the database. A task that reads holds this lock, and reads for all that wait for it.
    pub(super) last_read: tokio::sync::Mutex<Option<LastRead>>,
    /// Held by the task that fills the room's gap.
    pub(super) backfilling: tokio::sync::Mutex<()>,
    /// The room is among those that wait for a turn. Written under the lock of `state`.
    pub(super) has_turn: AtomicBool,
    /// The bytes of the newest Feature, roughly: the cost of sending another.
    pub(super) feature_bytes: AtomicUsize,
}

pub(super) struct Member {
    /// The connection of the outbox. A position for a socket that keeps up goes straight to it.
    pub(super) connection: Arc<Connection>,
    pub(super) subscriber: Subscriber,
    /// The user that it counts for. A guest (`None`) is sent positions and nothing else.
    pub(super) occupant: Option<UserId>,
}

impl SharedRoom {
    fn new(id: LocationId) -> Self {
        Self {
            id,
            state: Mutex::default(),
            presence: Mutex::default(),
            rights: Mutex::default(),
            last_read: Default::default(),
            backfilling: Default::default(),
            has_turn: AtomicBool::default(),
            feature_bytes: AtomicUsize::default(),
        }
    }
}

impl Rooms {
    /// Creates an empty registry, whose sizes a scrape of the metrics then looks at.
    pub fn start(service: Arc<Service>, directory: Arc<Directory>, timings: Timings) -> Arc<Self> {
        let started = Arc::new(Self {
            metrics: RoomMetrics::new(&service.metrics),
            event_loop: service.tasks.task("forwarder"),
            sweep: service.tasks.task("sweep"),
            service,
            directory,
            rooms: Mutex::default(),
            behind: Mutex::default(),
            unfinished: Mutex::default(),
            turn_needed: Notify::new(),
            due: Mutex::default(),
            due_added: Notify::new(),
            reads: Reads::new(),
            timings,
        });
        let read = |read: fn(&Self) -> usize| {
            let rooms = Arc::downgrade(&started);
            move || rooms.upgrade().map_or(0, |rooms| read(&rooms))
        };
        let live = read(|rooms| rooms.rooms.lock().len());
        let behind = read(|rooms| rooms.behind.lock().len());
        let metrics = &started.service.metrics;
        metrics.watch("rooms", "Rooms with a member or somebody joining", live);
        metrics.watch("rooms_behind", "Rooms that owe a member something or lack versions", behind);
        metrics.queue("room_reads", MAX_READS, read(|rooms| MAX_READS - rooms.reads.all.available_permits()));
        started
    }

    pub(super) fn room(&self, id: LocationId) -> Option<Arc<SharedRoom>> {
        self.rooms.lock().get(&id).cloned()
    }

    /// Removes a room from the registry if nobody is in it or on the way in.
    pub(super) fn remove_if_empty(&self, room: &Arc<SharedRoom>) {
        let mut rooms = self.rooms.lock();
        let is_listed = rooms.get(&room.id).is_some_and(|listed| Arc::ptr_eq(listed, room));
        if is_listed && room.state.lock().is_empty() {
            rooms.remove(&room.id);
        }
    }
}

pub(super) struct RoomMetrics {
    deliveries: Counter,
    join_deliveries: Counter,
    conflated: Counter,
    pub(super) put_to_send: Seconds,
    pub(super) healed: Counter,
    pub(super) access_reads: Counter,
}

impl RoomMetrics {
    fn new(metrics: &Metrics) -> Self {
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

    pub(super) fn record(&self, Tally { live, joining, conflated }: Tally) {
        // An addition of nothing costs as much as any other.
        for (count, more) in
            [(&self.deliveries, live), (&self.join_deliveries, joining), (&self.conflated, conflated)]
        {
            if more > 0 {
                count.inc_by(more);
            }
        }
    }
}

/// A caller that is about to join. While this exists the room exists, is told of updates, and remembers those after
/// `since`.
pub(super) struct Entrant<'a> {
    rooms: &'a Rooms,
    pub(super) room: Arc<SharedRoom>,
    since: Option<u64>,
}

impl<'a> Entrant<'a> {
    /// Makes the room if there is none.
    pub(super) fn new(rooms: &'a Rooms, id: LocationId, since: Option<u64>) -> Self {
        let mut listed = rooms.rooms.lock();
        let room = listed.entry(id).or_insert_with(|| Arc::new(SharedRoom::new(id))).clone();
        room.state.lock().add_entrant(since);
        Self { rooms, room, since }
    }

    /// Keeps a room that exists from being removed.
    pub(super) fn of_existing(rooms: &'a Rooms, id: LocationId) -> Option<Self> {
        // The list is held until the room knows of the entrant: the room could be removed in between.
        let listed = rooms.rooms.lock();
        let room = listed.get(&id)?.clone();
        room.state.lock().add_entrant(None);
        Some(Self { rooms, room, since: None })
    }
}

impl Drop for Entrant<'_> {
    fn drop(&mut self) {
        self.room.state.lock().remove_entrant(self.since, Instant::now());
        self.rooms.remove_if_empty(&self.room);
    }
}

/// The reads that run or wait, no more than there are sockets: each has one event at work. Of those that run one caller
/// has a share: however many of its sockets ask, others' joins find a place. A reader waits for its share before a
/// room's turn, so that nobody holds a turn while waiting for the share.
pub(super) struct Reads {
    all: Semaphore,
    of_callers: CallerTurns,
}

pub(super) struct LastRead {
    pub(super) began_at: Instant,
    pub(super) has_succeeded: bool,
}

impl Reads {
    fn new() -> Self {
        Self { all: Semaphore::new(MAX_READS), of_callers: CallerTurns::new(MAX_CALLER_READS) }
    }

    /// Waits until another read may run.
    ///
    /// # Errors
    /// `internal`.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>> {
        self.all.acquire().await.map_err(Error::internal)
    }

    /// Waits until the caller may ask for another read.
    ///
    /// # Errors
    /// `internal`.
    pub(super) async fn share(&self, payer: Payer) -> Result<OwnedSemaphorePermit> {
        self.of_callers.wait(payer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_caller_leaves_others_a_place() {
        let reads = Reads::new();
        let [eve, ada] = [1, 2].map(|id| Payer::User(UserId::new(id).unwrap()));
        let mut held = Vec::new();
        for _ in 0..MAX_CALLER_READS {
            held.push((reads.share(eve).await.unwrap(), reads.permit().await.unwrap()));
        }
        let _ada = (reads.share(ada).await.unwrap(), reads.permit().await.unwrap());
        assert_eq!(MAX_READS - reads.all.available_permits(), MAX_CALLER_READS + 1);
    }
}
