//! Readiness: the database is asked at most a few times a second what it can be used for.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::storage::{Readiness, Store};

/// The time for which an answer of the database is believed.
const MAX_AGE: Duration = Duration::from_millis(200);

/// The last answer, and when it came. Locked while the database is asked, so that it is asked once however many want
/// to know.
#[derive(Debug, Default)]
pub struct ReadinessCache(Mutex<Option<(Instant, Readiness)>>);

impl ReadinessCache {
    /// Asks what the database can be used for, unless that is known.
    pub async fn read(&self, store: &Store) -> Readiness {
        let mut last = self.0.lock().await;
        match *last {
            Some((at, readiness)) if at.elapsed() < MAX_AGE => readiness,
            _ => {
                let readiness = store.readiness().await;
                *last = Some((Instant::now(), readiness));
                readiness
            }
        }
    }
}
