//! The acts: what a caller may do to locations, the same through both doors.
//!
//! Knows no HTTP and no sockets. Each act is one function; the doors extract, call it and reply.

pub mod access;
pub mod features;
pub mod history;
pub mod limits;
mod live_rooms;
pub mod locations;
pub mod members;
pub mod memory;
pub mod notifications;
mod passwords;
mod reads;
pub mod refusals;
mod searches;
pub mod shares;
pub mod turns;
mod write_behind;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

pub use live_rooms::{Current, LiveRooms, RoomSize};

use features::Pieces;
use limits::Limits;
use memory::Memory;
use passwords::Passwords;
use reads::Reads;
use searches::Searches;
use turns::CallerTurns;
use write_behind::WriteBehind;

use crate::{
    config::{self, History, Notifications},
    domain::{error::Result, event::Event, id::UserId, token::Keys},
    metrics::Metrics,
    storage::{self, Expiry, Readiness, Retention, Store, Writer},
    supervise::Supervisor,
};

/// Events on their way to the rooms. Full: the writer waits, and with it new commits.
const EVENTS: usize = 1_024;
/// Lists of members or of share links that are read for one caller at once. Each is paid for before the next begins.
const LISTS_OF_A_CALLER: usize = 2;
/// How long it is believed what the database can be used for.
const PINGED: Duration = Duration::from_millis(200);
/// How long an answer waits for the gateway to handle the events before it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything the doors can ask for.
#[derive(Debug)]
pub struct Service {
    store: Store,
    writer: Writer,
    /// To the gateway; the writer sends into the same channel.
    events: mpsc::Sender<Event>,
    /// The number of the next [`Event::Mark`].
    next_mark: AtomicU64,
    /// The highest mark that the gateway has reported.
    settled: watch::Sender<u64>,
    expiry: Expiry,
    /// `None`: open mode.
    keys: Option<Keys>,
    live: OnceLock<Box<dyn LiveRooms>>,
    write_behind: Arc<WriteBehind>,
    passwords: Passwords,
    /// When the database was last asked what it can be used for, and what it said.
    pinged: tokio::sync::Mutex<Option<(Instant, Readiness)>>,
    searches: Searches,
    pieces: Pieces,
    reads: Reads,
    /// Of lists of members and of share links.
    lists: CallerTurns,
    /// On every caller.
    pub limits: Arc<Limits>,
    /// What requests and answers hold in memory.
    pub memory: Memory,
    /// What is counted.
    pub metrics: Metrics,
    /// Watches the tasks that everybody lives by.
    pub tasks: Supervisor,
}

impl Service {
    /// Starts the writer on a migrated database, and the removal of what is no longer kept; also
    /// returns what the writer will say has happened.
    pub fn start(
        store: Store,
        keep: History,
        keep_notifications: Notifications,
        keys: Option<Keys>,
        limits: &config::Limits,
    ) -> (Arc<Self>, mpsc::Receiver<Event>) {
        let metrics = Metrics::default();
        let tasks = Supervisor::start(&metrics);
        let quotas = limits.quotas.as_ref();
        let limits = Limits::new(limits, &metrics);
        let forgotten = Arc::downgrade(&limits);
        tasks.task("limits").spawn(forgotten, |limits| limits::forget(limits.clone()).boxed());
        let memory = Memory::start(quotas, &metrics);
        let searches = Searches::start(quotas, &metrics);
        let store = store.with_fan_out(limits.fan_out());
        let (events, happened) = mpsc::channel(EVENTS);
        storage::watch_channel(&metrics, "forwarder", &events);
        let retention = Retention::start(store.clone(), keep, &metrics, &tasks);
        let expiry = Expiry::start(store.clone(), keep_notifications, &metrics, &tasks);
        let writer =
            Writer::start(store.clone(), events.clone(), retention, expiry.clone(), &metrics, &tasks);
        let write_behind = Arc::<WriteBehind>::default();
        let kept = (Arc::downgrade(&write_behind), store.clone());
        tasks.task("ledger").spawn(kept, |(write_behind, store)| {
            write_behind::run(write_behind.clone(), store.clone()).boxed()
        });
        let service = Self {
            store,
            writer,
            events,
            next_mark: AtomicU64::new(1),
            settled: watch::Sender::default(),
            expiry,
            keys,
            live: OnceLock::new(),
            write_behind,
            passwords: Passwords::default(),
            pinged: tokio::sync::Mutex::default(),
            searches,
            pieces: Pieces::default(),
            reads: Reads::new(quotas.is_some()),
            lists: CallerTurns::new(LISTS_OF_A_CALLER),
            limits,
            memory,
            metrics,
            tasks,
        };
        (Arc::new(service), happened)
    }

    /// Sends an event that comes from no change in the database to the gateway.
    pub async fn publish(&self, event: Event) {
        // Closed at the end, when all sockets are told to go.
        let _ = self.events.send(event).await;
    }

    /// What users are called by the last token that said so; of several names of one the first counts.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn names(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>> {
        self.store.names_of(users).await
    }

    /// What a user is called by the last token that said so here, if that is not too long ago.
    pub fn name_said(&self, user: UserId) -> Option<String> {
        let (mut named, _) = self.store.names.of(&[user]);
        named.pop().map(|(_, name)| name)
    }

    /// Waits until the gateway has handled every event sent so far, at most [`SETTLE_TIMEOUT`]. Whoever is then told
    /// that a location or a right has ended finds nobody in the room who should not be there.
    pub async fn wait_until_settled(&self) {
        // Taken after the caller's own events were sent: so each mark comes after the events of all lower numbers.
        let mark = self.next_mark.fetch_add(1, Ordering::Relaxed);
        let mut settled = self.settled.subscribe();
        let answer = async {
            // The channel is closed at the end, when all sockets are disconnected.
            if self.events.send(Event::Mark(mark)).await.is_ok() {
                let _ = settled.wait_for(|settled| *settled >= mark).await;
            }
        };
        let _ = timeout(SETTLE_TIMEOUT, answer).await;
    }

    /// Records that the gateway has handled every event before a mark.
    pub fn record_settled(&self, mark: u64) {
        self.settled.send_if_modified(|settled| {
            let is_newer = mark > *settled;
            *settled = mark.max(*settled);
            is_newer
        });
    }

    /// Writes what has waited for a quiet moment.
    pub async fn finish(&self) {
        if let Err(error) = self.write_behind.write(&self.store).await {
            tracing::warn!(%error, "uses of share links and names of users were not written");
        }
    }

    /// What can the database be used for?
    pub async fn readiness(&self) -> Readiness {
        let mut last = self.pinged.lock().await;
        match *last {
            // However many ask.
            Some((at, readiness)) if at.elapsed() < PINGED => readiness,
            _ => {
                let readiness = self.store.readiness().await;
                *last = Some((Instant::now(), readiness));
                readiness
            }
        }
    }
}
