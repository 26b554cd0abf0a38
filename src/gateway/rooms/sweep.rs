//! The sweep: compares all rooms with the database now and then, so that a room recovers also from an update or a
//! change of rights that never reached it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tracing::{debug, info};

use super::registry::Rooms;
use crate::{domain::id::LocationId, service::history::Head};

/// The time between two sweeps. A lost version is noticed after at most two of them.
const SWEEP_INTERVAL: Duration = Duration::from_millis(1_500);
/// Limits the rooms of one read.
const MAX_ROOMS_PER_READ: usize = 1_024;

/// The newest version of each live room's location; `None`: the location does not exist.
type Heads = HashMap<LocationId, Option<u64>>;

impl Rooms {
    /// Sweeps for ever. A version that the database has in one sweep and a room lacks in the next one was lost; what is
    /// still on its way is not read in vain.
    pub async fn sweep(&self) {
        let mut before = Heads::new();
        loop {
            sleep(SWEEP_INTERVAL).await;
            let heads = self.read_heads().await;
            for (id, seen) in std::mem::take(&mut before) {
                self.sweep.catch(|| match seen {
                    None if heads.get(&id) == Some(&None) => self.close_deleted(id),
                    Some(version) if self.record_committed(id, version) => {
                        info!(room = %id, version, "a room missed a commit; the sweep found it");
                        self.behind.lock().insert(id);
                    }
                    _ => {}
                });
            }
            before = heads;
        }
    }

    /// Reads the heads of all live rooms, and the rights of those that have not been told of a change.
    async fn read_heads(&self) -> Heads {
        let live: Vec<_> = self.rooms.lock().values().cloned().collect();
        for room in &live {
            self.sweep.catch(|| room.state.lock().forget_unneeded(Instant::now()));
        }
        let live: Vec<_> = live.iter().map(|room| room.id).collect();
        let mut heads = Heads::new();
        for ids in live.chunks(MAX_ROOMS_PER_READ) {
            // Without the database there is nothing to compare with.
            let Ok(found) = self.service.versions(ids).await else { continue };
            heads.extend(ids.iter().map(|id| (*id, None)));
            heads.extend(found.iter().map(|head| (head.id, Some(head.version))));
            for head in found.iter().filter(|head| self.has_old_rights(head)) {
                let refreshed = self.sweep.catch_async(self.refresh_rights(head.id)).await;
                if let Some(Err(error)) = refreshed {
                    debug!(room = %head.id, %error, "rights could not be read for a room");
                }
            }
        }
        heads
    }

    /// Records that a version is committed. It returns `true` if the room lacks it.
    fn record_committed(&self, id: LocationId, version: u64) -> bool {
        let Some(room) = self.room(id) else { return false };
        let mut state = room.state.lock();
        let had_gap = state.has_gap();
        let has_gap = state.record_committed(version);
        if has_gap && !had_gap {
            self.metrics.healed.inc();
        }
        has_gap
    }

    /// Checks whether rights were changed without the room having been told.
    fn has_old_rights(&self, head: &Head) -> bool {
        self.room(head.id).is_some_and(|room| room.rights.lock().are_older_than(head.grants))
    }
}
