//! The two lanes of changes: large changes have their own, so that a small one waits only for small ones.
//!
//! All changes of one location that wait at the same time take the same lane. Otherwise a small one, and with it all
//! others in its transaction, would wait for the row that a large one has locked; and the two lanes could publish
//! versions of one location in the wrong order.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::id::LocationId;

/// A lane to the database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lane {
    Small,
    Large,
}

/// The changes under way, by location. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lanes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The lock is held for one look-up, when a change comes and when it is settled. Only locations with changes under
    /// way have an entry, so the queue bounds the map.
    pending: Mutex<HashMap<LocationId, Pending>>,
    /// It is notified when the last small change of a location is settled for which a large one waits.
    cleared: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    small: usize,
    large: usize,
}

/// A change under way, until this is dropped.
#[derive(Debug)]
pub struct Passage {
    lanes: Lanes,
    location: Option<LocationId>,
    pub lane: Lane,
}

impl Lanes {
    /// Decides the lane of a change; `None`: it is of no location that is there. It must wait for
    /// [`Passage::wait_for_small_ones`] before it goes on.
    pub fn enter(&self, location: Option<LocationId>, is_large: bool) -> Passage {
        let lane = if is_large { Lane::Large } else { Lane::Small };
        match location {
            // In one step: else a large one could begin before a small one is counted.
            Some(id) => self.count(id, |pending| if pending.large > 0 { Lane::Large } else { lane }),
            None => Passage { lanes: self.clone(), location, lane },
        }
    }

    /// Keeps later changes of a location behind what is in this lane.
    pub fn hold(&self, id: LocationId, lane: Lane) -> Passage {
        self.count(id, |_| lane)
    }

    fn count(&self, id: LocationId, lane: impl FnOnce(&Pending) -> Lane) -> Passage {
        let mut all = self.0.pending.lock();
        let pending = all.entry(id).or_default();
        let lane = lane(pending);
        *pending.in_lane(lane) += 1;
        Passage { lanes: self.clone(), location: Some(id), lane }
    }
}

impl Pending {
    fn in_lane(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Small => &mut self.small,
            Lane::Large => &mut self.large,
        }
    }
}

impl Passage {
    /// Waits until the small changes of its location that came before a large one are settled.
    pub async fn wait_for_small_ones(&self) {
        let Some(id) = self.location.filter(|_| self.lane == Lane::Large) else { return };
        let Shared { pending, cleared } = &*self.lanes.0;
        loop {
            let notified = cleared.notified();
            if pending.lock().get(&id).is_none_or(|pending| pending.small == 0) {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let Some(id) = self.location else { return };
        let mut all = self.lanes.0.pending.lock();
        let Some(pending) = all.get_mut(&id) else { return };
        *pending.in_lane(self.lane) -= 1;
        match pending {
            Pending { small: 0, large: 0 } => _ = all.remove(&id),
            Pending { small: 0, .. } if self.lane == Lane::Small => self.lanes.0.cleared.notify_waiters(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn changes_of_one_location_follow_each_other() {
        let lanes = Lanes::default();
        let [here, there] = [1, 2].map(LocationId::new);
        let enter = |location, is_large| {
            let passage = lanes.enter(location, is_large);
            let is_free = passage.wait_for_small_ones().now_or_never().is_some();
            (passage.lane, is_free, passage)
        };
        let (lane, is_free, first) = enter(here, false);
        assert_eq!((lane, is_free), (Lane::Small, true));
        let (lane, is_free, large) = enter(here, true);
        assert_eq!((lane, is_free), (Lane::Large, false), "a small one is before it");
        let (lane, is_free, behind) = enter(here, false);
        assert_eq!((lane, is_free), (Lane::Large, false));
        for (location, is_large, expected) in [
            (there, false, Lane::Small),
            (there, true, Lane::Large),
            (None, true, Lane::Large),
            (None, false, Lane::Small),
        ] {
            let (lane, is_free, _) = enter(location, is_large);
            assert_eq!((lane, is_free), (expected, true), "{location:?}, {is_large}");
        }
        let (waits, ()) = tokio::join!(large.wait_for_small_ones(), async { drop(first) });
        assert_eq!(waits, ());
        assert!(behind.wait_for_small_ones().now_or_never().is_some());
        drop(large);
        assert_eq!(enter(here, false).0, Lane::Large, "as long as one is there");
        drop(behind);
        assert_eq!(enter(here, false).0, Lane::Small);
        assert!(lanes.0.pending.lock().is_empty());
    }
}
