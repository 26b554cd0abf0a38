//! The acts: what a caller may do to locations, the same through both doors.
//!
//! Knows no HTTP and no sockets. Each act is one function; the doors extract, call it and reply.

pub mod history;
mod live;
pub mod locations;

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

pub use live::{Current, Live};

use crate::{
    config::History,
    domain::{error::Result, event::Event},
    storage::{Retention, Store, Writer},
};

/// Events on their way to the rooms. Full: the writer waits, and with it new commits.
const EVENTS: usize = 1_024;

/// Everything the doors can ask for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Service {
    store: Store,
    writer: Writer,
    live: Arc<OnceLock<Box<dyn Live>>>,
}

impl Service {
    /// Starts the writer on a migrated database, and the removal of history that is no longer kept; also
    /// returns what the writer will say has happened.
    pub fn start(store: Store, keep: History) -> (Self, mpsc::Receiver<Event>) {
        let (events, happened) = mpsc::channel(EVENTS);
        let writer = Writer::start(store.clone(), events, Retention::start(store.clone(), keep));
        (Self { store, writer, live: Arc::default() }, happened)
    }

    /// Is the database there?
    ///
    /// # Errors
    /// `storage_unavailable`.
    pub async fn ready(&self) -> Result<()> {
        self.store.ping().await
    }
}
