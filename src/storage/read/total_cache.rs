//! The lengths of long lists, as they were counted a moment ago.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::visible::Visible;

/// The least time for which a length is kept.
const MIN_LIFETIME: Duration = Duration::from_secs(1);
/// A length is kept for so many times what it took to count, so counting takes at most a twentieth of one connection.
const LIFETIME_FACTOR: u32 = 20;

/// Lengths of long lists.
#[derive(Debug, Default)]
pub struct TotalCache {
    /// The totals by list, written after each count. Totals that are out of date are removed then, so the map is
    /// bounded by the number of long lists that can be counted while they are kept.
    totals: Mutex<HashMap<Visible, Total>>,
    /// Held while a very long list is counted: one at a time, and whoever waits finds the total of the one before.
    pub turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
struct Total {
    locations: u64,
    good_until: Instant,
}

impl TotalCache {
    /// The length of a list, if it was counted not too long before `now`.
    pub fn get(&self, list: Visible, now: Instant) -> Option<u64> {
        let totals = self.totals.lock();
        totals.get(&list).filter(|total| now < total.good_until).map(|total| total.locations)
    }

    /// Keeps the length of a list, for which counting took so long.
    pub fn insert(&self, list: Visible, locations: u64, took: Duration, now: Instant) {
        let mut totals = self.totals.lock();
        totals.retain(|_, total| now < total.good_until);
        let good_until = now + MIN_LIFETIME.max(took * LIFETIME_FACTOR);
        totals.insert(list, Total { locations, good_until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_kept_in_proportion_to_what_it_took() {
        let (cache, now) = (TotalCache::default(), Instant::now());
        let later = |ms| now + Duration::from_millis(ms);
        cache.insert(Visible::All, 5_000, Duration::from_millis(10), now);
        cache.insert(Visible::Nothing, 20_000, Duration::from_millis(100), now);
        let get = |ms| [Visible::All, Visible::Nothing].map(|list| cache.get(list, later(ms)));
        assert_eq!(get(0), [Some(5_000), Some(20_000)]);
        assert_eq!(get(1_000), [None, Some(20_000)]);
        assert_eq!(get(2_000), [None, None]);
        cache.insert(Visible::All, 5_001, Duration::ZERO, later(2_000));
        assert_eq!(cache.totals.lock().len(), 1, "what is out of date is removed");
    }
}
