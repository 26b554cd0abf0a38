//! The state that all acts share, how it is started, and its port to the gateway.
//!
//! A file of its own below the acts, so that their files import it and not each other.

use std::{
    fmt::Debug,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc};

use super::{
    events::EventSender,
    limits::{self, Limits},
    memory::Memory,
    names::Names,
    passwords::Passwords,
    reads::Reads,
    searches::Searches,
    write_behind::{self, WriteBehind},
};
use crate::{
    config::{self, History, Notifications},
    domain::{
        access::Caller,
        error::Result,
        event::Event,
        id::{LocationId, UserId},
        presence::ActiveUsers,
        token::Keys,
    },
    metrics::Metrics,
    storage::{HistorySweeper, NotificationSweeper, Readiness, Store, Writer},
    supervise::Supervisor,
};

/// The time for which an answer of the database about its readiness is believed.
const READINESS_MAX_AGE: Duration = Duration::from_millis(200);

/// Everything the doors can ask for: the acts are its methods.
#[derive(Debug)]
pub struct Service {
    pub(super) store: Store,
    pub(super) writer: Writer,
    /// Events on their way to the gateway.
    pub events: EventSender,
    /// The keys that tokens are signed with; `None`: open mode.
    pub(super) keys: Option<Keys>,
    live: OnceLock<Box<dyn LiveRooms>>,
    /// The names of users.
    pub names: Arc<Names>,
    pub(super) write_behind: Arc<WriteBehind>,
    pub(super) passwords: Passwords,
    /// The last answer of the database to what it can be used for, and when it came. Locked while the database is
    /// asked, so that it is asked once however many want to know.
    readiness: Mutex<Option<(Instant, Readiness)>>,
    pub(super) searches: Searches,
    pub(super) reads: Reads,
    /// The limits on callers.
    pub limits: Arc<Limits>,
    /// The memory that requests and answers hold.
    pub memory: Memory,
    /// The metrics of the process.
    pub metrics: Metrics,
    /// Watches the tasks that everything depends on.
    pub tasks: Supervisor,
}

impl Service {
    /// Starts the writer and the sweepers on a migrated database; also returns the events that the gateway handles.
    pub fn start(
        store: Store,
        history: History,
        notifications: Notifications,
        keys: Option<Keys>,
        limits: &config::Limits,
    ) -> (Arc<Self>, mpsc::Receiver<Event>) {
        let metrics = Metrics::default();
        let tasks = Supervisor::start(&metrics);
        let quotas = limits.quotas.as_ref();
        let (memory, searches) = (Memory::start(quotas, &metrics), Searches::start(quotas, &metrics));
        let reads = Reads::new(quotas.is_some());
        let limits = Limits::new(limits, &metrics);
        let forgotten = Arc::downgrade(&limits);
        tasks.task("limits").spawn(forgotten, |limits| limits::forget(limits.clone()).boxed());
        let store = store.with_fan_out(limits.fan_out());
        let (events, receiver) = EventSender::new(&metrics);
        let retention = HistorySweeper::start(store.clone(), history, &metrics, &tasks);
        let expiry = NotificationSweeper::start(store.clone(), notifications, &metrics, &tasks);
        let channel = events.channel().clone();
        let writer = Writer::start(store.clone(), channel, retention, expiry, &metrics, &tasks);
        let names = Arc::new(Names::new(store.clone(), writer.clone()));
        let write_behind = Arc::new(WriteBehind::new(names.clone(), writer.clone()));
        let kept = Arc::downgrade(&write_behind);
        tasks.task("ledger").spawn(kept, |kept| write_behind::run(kept.clone()).boxed());
        let service = Self {
            store,
            writer,
            events,
            keys,
            live: OnceLock::new(),
            names,
            write_behind,
            passwords: Passwords::default(),
            readiness: Mutex::default(),
            searches,
            reads,
            limits,
            memory,
            metrics,
            tasks,
        };
        (Arc::new(service), receiver)
    }

    /// Hands in the gateway, once.
    pub fn set_live_rooms(&self, live: impl LiveRooms + 'static) {
        let _ = self.live.set(Box::new(live));
    }

    /// The gateway, once it has started.
    pub(super) fn live_rooms(&self) -> Option<&dyn LiveRooms> {
        self.live.get().map(|live| &**live)
    }

    /// Asks what the database can be used for, unless that is known.
    pub async fn readiness(&self) -> Readiness {
        let mut last = self.readiness.lock().await;
        match *last {
            Some((at, readiness)) if at.elapsed() < READINESS_MAX_AGE => readiness,
            _ => {
                let readiness = self.store.readiness().await;
                *last = Some((Instant::now(), readiness));
                readiness
            }
        }
    }

    /// Writes what has waited for a quiet moment.
    pub async fn finish(&self) {
        if let Err(error) = self.write_behind.write().await {
            tracing::warn!(%error, "uses of share links and names of users were not written");
        }
    }
}

/// A location as it stands.
#[derive(Debug)]
pub struct Current {
    /// The version in its properties.
    pub version: u64,
    /// The Feature as GeoJSON text.
    pub feature: String,
}

/// The sockets that a change of a location is sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoomSize {
    /// The number of sockets that the author of the change pays for.
    pub sockets: usize,
    /// The size of the update that was sent last, in bytes.
    pub update_bytes: usize,
}

/// The gateway, as the service knows it: what rooms and connections know without the database.
///
/// The service stands below the gateway and cannot import it, so the gateway hands itself in. Reads turn to it while
/// the database is away; writes ask it how many sockets a change is sent to, and charge for that.
pub trait LiveRooms: Debug + Send + Sync {
    /// Reads a location that somebody listens to, as it was last sent to them; `None`: nobody does, or the room cannot
    /// tell whether the caller may see it.
    fn current(&self, by: &Caller, id: LocationId) -> Option<Result<Current>>;

    /// Counts the sockets that a change by this caller is sent to. None where it is known that the caller may not
    /// change the location. Called for every PUT.
    fn room_size(&self, by: &Caller, id: LocationId) -> RoomSize;

    /// Lists the users who are connected, or were a moment ago.
    fn active_users(&self) -> ActiveUsers;

    /// A token has given a user another name.
    fn rename(&self, user: UserId);
}
