//! Which of two writers commits a change: large ones have their own, so that a small one waits only for small ones.
//!
//! All changes of one location that wait at the same time go the same way. Else a small one, and with it everybody's
//! in its transaction, would wait for the row that a large one has locked.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::{id::LocationId, location::LARGE_BODY};

/// The way of a change to the database.
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
    /// Written when a change comes and when it is settled; held for one look-up. Only of locations that have some, so
    /// the queue bounds it.
    pending: Mutex<HashMap<LocationId, Pending>>,
    /// Told when the last small change of a location is settled for which a large one waits.
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
    lane: Lane,
}

impl Lanes {
    /// Decides the way of a change with a body of so many bytes; `None`: of a location that is not there yet. It must
    /// wait for [`Passage::free`] before it goes on.
    pub fn enter(&self, location: Option<LocationId>, bytes: usize) -> Passage {
        let lane = if bytes > LARGE_BODY { Lane::Large } else { Lane::Small };
        match location {
            // In one step: else a large one could begin before a small one is counted.
            Some(id) => self.count(id, |pending| if pending.large > 0 { Lane::Large } else { lane }),
            None => Passage { lanes: self.clone(), location, lane },
        }
    }

    /// Keeps later changes of a location behind what is on this way.
    pub fn hold(&self, id: LocationId, lane: Lane) -> Passage {
        self.count(id, |_| lane)
    }

    fn count(&self, id: LocationId, lane: impl FnOnce(&Pending) -> Lane) -> Passage {
        let mut all = self.0.pending.lock();
        let pending = all.entry(id).or_default();
        let lane = lane(pending);
        *pending.of(lane) += 1;
        Passage { lanes: self.clone(), location: Some(id), lane }
    }
}

impl Pending {
    fn of(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Small => &mut self.small,
            Lane::Large => &mut self.large,
        }
    }
}

impl Passage {
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Waits until the small changes of its location are settled that came before a large one.
    pub async fn free(&self) {
        let Some(id) = self.location.filter(|_| self.lane == Lane::Large) else { return };
        let Shared { pending, cleared } = &*self.lanes.0;
        loop {
            let told = cleared.notified();
            if pending.lock().get(&id).is_none_or(|pending| pending.small == 0) {
                return;
            }
            told.await;
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let Some(id) = self.location else { return };
        let mut all = self.lanes.0.pending.lock();
        let Some(pending) = all.get_mut(&id) else { return };
        *pending.of(self.lane) -= 1;
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
        let enter = |location, bytes| {
            let passage = lanes.enter(location, bytes);
            let is_free = passage.free().now_or_never().is_some();
            (passage.lane(), is_free, passage)
        };
        let (lane, is_free, first) = enter(here, LARGE_BODY);
        assert_eq!((lane, is_free), (Lane::Small, true));
        let (lane, is_free, large) = enter(here, LARGE_BODY + 1);
        assert_eq!((lane, is_free), (Lane::Large, false), "a small one is before it");
        let (lane, is_free, behind) = enter(here, 100);
        assert_eq!((lane, is_free), (Lane::Large, false));
        for (location, bytes, expected) in [
            (there, 100, Lane::Small),
            (there, LARGE_BODY + 1, Lane::Large),
            (None, LARGE_BODY + 1, Lane::Large),
            (None, 100, Lane::Small),
        ] {
            let (lane, is_free, _) = enter(location, bytes);
            assert_eq!((lane, is_free), (expected, true), "{location:?}, {bytes}");
        }
        let (waits, ()) = tokio::join!(large.free(), async { drop(first) });
        assert_eq!(waits, ());
        assert!(behind.free().now_or_never().is_some());
        drop(large);
        assert_eq!(enter(here, 100).0, Lane::Large, "as long as one is there");
        drop(behind);
        assert_eq!(enter(here, 100).0, Lane::Small);
        assert!(lanes.0.pending.lock().is_empty());
    }
}
