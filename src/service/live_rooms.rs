//! The service's port to the gateway: what rooms and connections know without the database.
//!
//! The service stands below the gateway and cannot import it, so the gateway hands itself in as [`LiveRooms`]. Reads
//! turn to it while the database is away; writes ask it how many sockets a change is sent to, and charge for that.

use std::{pin::pin, time::Duration};

use tokio::time::timeout;

use super::Service;
use crate::domain::{
    access::{Caller, Payer},
    error::{Code, Error, Result},
    id::{LocationId, UserId},
    presence::ActiveUsers,
};

/// How long a read waits for the database before the version that a live room has is good enough. Longer than a room
/// takes to hear of an acknowledged change.
const DATABASE_PATIENCE: Duration = Duration::from_secs(1);

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

/// The gateway, as the service knows it.
pub trait LiveRooms: std::fmt::Debug + Send + Sync {
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

impl Service {
    /// Hands in the gateway, once.
    pub fn set_live_rooms(&self, live: impl LiveRooms + 'static) {
        let _ = self.live.set(Box::new(live));
    }

    /// Lists the users who are connected, or were a moment ago.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn active_users(&self, by: &Caller) -> Result<ActiveUsers> {
        match by {
            Caller::Anyone(_) | Caller::User { is_admin: true, .. } => {
                Ok(self.live.get().map(|live| live.active_users()).unwrap_or_default())
            }
            _ => Err(Error::new(Code::Forbidden, "only admins see who is connected")),
        }
    }

    /// Charges a caller for sending a change of a location to everybody in its room, before the change is made.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn charge_change(
        &self,
        by: &Caller,
        payer: Payer,
        id: LocationId,
        body_bytes: usize,
    ) -> Result<()> {
        let size = self.live.get().map_or_else(RoomSize::default, |live| live.room_size(by, id));
        // A change of properties has a small body, and yet the whole Feature is sent.
        self.limits.charge_delivery(payer, size.sockets, body_bytes.max(size.update_bytes))
    }

    /// Waits for what the database says, unless it is away or slow and a live room has the location.
    pub(super) async fn stored_or_live(
        &self,
        by: &Caller,
        id: LocationId,
        stored: impl Future<Output = Result<Current>>,
    ) -> Result<Current> {
        let live = || self.live.get()?.current(by, id);
        let mut stored = pin!(stored);
        match timeout(DATABASE_PATIENCE, &mut stored).await {
            Ok(Err(error)) if error.code == Code::StorageUnavailable => live().unwrap_or(Err(error)),
            Ok(answer) => answer,
            Err(_) => match live() {
                Some(current) => current,
                None => stored.await,
            },
        }
    }
}
