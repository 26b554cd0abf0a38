//! Which of two writers commits a change: large ones have their own, so that a small one waits only for small ones.
//!
//! All changes of one location that wait at the same time go the same way. Else a small one, and with it everybody's
//! in its transaction, would wait for the row that a large one has locked.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::id::LocationId;

/// A body beyond this makes a change large: the database takes some milliseconds for it.
const LARGE: usize = 32 * 1024;

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
    /// Decides the way of a change with a body of so many bytes; `None`: of a location that is not there yet. A large
    /// one waits here until the small ones of its location that came before are settled.
    pub async fn enter(&self, location: Option<LocationId>, bytes: usize) -> Passage {
        let is_large = bytes > LARGE;
        let Some(id) = location else {
            let lane = if is_large { Lane::Large } else { Lane::Small };
            return Passage { lanes: self.clone(), location, lane };
        };
        let lane = {
            let mut all = self.0.pending.lock();
            let pending = all.entry(id).or_default();
            let lane = if is_large || pending.large > 0 { Lane::Large } else { Lane::Small };
            *pending.of(lane) += 1;
            lane
        };
        let passage = Passage { lanes: self.clone(), location, lane };
        if lane == Lane::Large {
            self.wait_for_small(id).await;
        }
        passage
    }

    async fn wait_for_small(&self, id: LocationId) {
        loop {
            let cleared = self.0.cleared.notified();
            if self.0.pending.lock().get(&id).is_none_or(|pending| pending.small == 0) {
                return;
            }
            cleared.await;
        }
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
}

impl Drop for Passage {
    fn drop(&mut self) {
        let Some(id) = self.location else { return };
        let mut all = self.lanes.0.pending.lock();
        let Some(pending) = all.get_mut(&id) else { return };
        *pending.of(self.lane) -= 1;
        match pending {
            Pending { small: 0, large: 0 } => _ = all.remove(&id),
            Pending { small: 0, .. } => self.lanes.0.cleared.notify_waiters(),
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
        let enter = |location, bytes| Box::pin(lanes.enter(location, bytes));
        let first = enter(here, 100).await;
        assert_eq!(first.lane(), Lane::Small);
        let (mut large, mut behind) = (enter(here, LARGE + 1), enter(here, 100));
        assert!((&mut large).now_or_never().is_none(), "a small one is before it");
        assert!((&mut behind).now_or_never().is_none());
        assert_eq!(enter(there, 100).await.lane(), Lane::Small);
        assert_eq!(enter(there, LARGE + 1).await.lane(), Lane::Large);
        assert_eq!(enter(None, LARGE + 1).await.lane(), Lane::Large);
        assert_eq!(enter(None, LARGE).await.lane(), Lane::Small);
        drop(first);
        let large = large.await;
        let behind = behind.await;
        assert_eq!((large.lane(), behind.lane()), (Lane::Large, Lane::Large));
        drop(large);
        assert_eq!(enter(here, 100).await.lane(), Lane::Large, "as long as one is there");
        drop(behind);
        assert_eq!(enter(here, 100).await.lane(), Lane::Small);
        assert!(lanes.0.pending.lock().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_up_nobody() {
        let lanes = Lanes::default();
        let here = LocationId::new(1);
        let first = lanes.enter(here, 100).await;
        let mut large = Box::pin(lanes.enter(here, LARGE + 1));
        assert!((&mut large).now_or_never().is_none());
        drop(large);
        assert_eq!(lanes.enter(here, 100).await.lane(), Lane::Small);
        drop(first);
        assert!(lanes.0.pending.lock().is_empty());
    }
}
