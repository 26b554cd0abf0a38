//! Counts of long lists that were taken a moment ago.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::MutexGuard;

/// How long a count of more is kept at least.
const KEPT: Duration = Duration::from_secs(1);
/// It is kept for so many times what it took, so that counting takes at most a twentieth of one connection.
const KEPT_TIMES: u32 = 20;

/// Counts of long lists: of everything (`None`), or of what one user sees.
#[derive(Debug, Default)]
pub struct TotalCache {
    /// Written after each count. Those that are not good any more are removed then, so it is bounded by how many
    /// counts of over [`COUNTED_ANEW`] rows fit into the time they are kept.
    kept: Mutex<HashMap<Option<i64>, Total>>,
    /// Held while a long list is counted: one at a time, and whoever waits finds the count of who was before.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
struct Total {
    locations: u64,
    good_until: Instant,
}

impl TotalCache {
    /// Waits until nobody else counts a long list, and keeps others waiting until the result is dropped.
    pub async fn wait_for_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The length of a list, if it was counted not too long ago.
    pub fn get(&self, list: Option<i64>) -> Option<u64> {
        let kept = self.kept.lock();
        kept.get(&list).filter(|total| Instant::now() < total.good_until).map(|total| total.locations)
    }

    /// Keeps the length of a list that took so long to count.
    pub fn insert(&self, list: Option<i64>, locations: u64, took: Duration) {
        let now = Instant::now();
        let mut kept = self.kept.lock();
        kept.retain(|_, total| now < total.good_until);
        kept.insert(list, Total { locations, good_until: now + KEPT.max(took * KEPT_TIMES) });
    }
}
