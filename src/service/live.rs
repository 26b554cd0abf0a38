//! What is known without the database, because somebody is listening.

use std::{pin::pin, time::Duration};

use tokio::time::timeout;

use super::Service;
use crate::domain::{
    access::{Caller, Payer},
    error::{Code, Error, Result},
    id::{LocationId, UserId},
    presence::ActiveUsers,
};

/// How long the database may take before what a live room knows will do. Longer than a room takes to hear of
/// what was acknowledged.
const PATIENCE: Duration = Duration::from_secs(1);

/// A location as it stands.
#[derive(Debug)]
pub struct Current {
    /// As in its properties.
    pub version: u64,
    /// GeoJSON text.
    pub feature: String,
}

/// Those who are told of every update, and know who else is.
pub trait Live: std::fmt::Debug + Send + Sync {
    /// A location somebody is listening to, as they were last told; whether the caller may see it is known too.
    fn current(&self, by: &Caller, id: LocationId) -> Option<Result<Current>>;

    /// How many sockets whoever updates a location pays for, and how many bytes the last update had for each. None for
    /// a caller of whom it is known that they may not update it. Asked at every PUT.
    fn audience(&self, by: &Caller, id: LocationId) -> (usize, usize);

    /// Everybody who is connected, or was a moment ago.
    fn active(&self) -> ActiveUsers;

    /// A token has said anew what a user is called, see [`Service::name_said`].
    fn called(&self, user: UserId);
}

impl Service {
    /// Tells whom to ask where the database cannot be. Once.
    pub fn know(&self, live: impl Live + 'static) {
        let _ = self.live.set(Box::new(live));
    }

    /// Everybody who is connected, or was a moment ago.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn active_users(&self, by: &Caller) -> Result<ActiveUsers> {
        match by {
            Caller::Anyone(_) | Caller::User { is_admin: true, .. } => {
                Ok(self.live.get().map(|live| live.active()).unwrap_or_default())
            }
            _ => Err(Error::new(Code::Forbidden, "only admins see who is connected")),
        }
    }

    /// Pays for what a caller is about to do to a location, by all who are told of it.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn pay(&self, by: &Caller, payer: Payer, id: LocationId, bytes: usize) -> Result<()> {
        let (members, last_bytes) = self.live.get().map_or((0, 0), |live| live.audience(by, id));
        // A change of properties has a small body, and all of the Feature is sent.
        self.limits.deliver(payer, members, bytes.max(last_bytes))
    }

    /// What the database says, unless it is away or slow and a live room knows.
    pub(super) async fn or_live(
        &self,
        by: &Caller,
        id: LocationId,
        stored: impl Future<Output = Result<Current>>,
    ) -> Result<Current> {
        let live = || self.live.get()?.current(by, id);
        let mut stored = pin!(stored);
        match timeout(PATIENCE, &mut stored).await {
            Ok(Err(error)) if error.code == Code::StorageUnavailable => live().unwrap_or(Err(error)),
            Ok(said) => said,
            Err(_) => match live() {
                Some(known) => known,
                None => stored.await,
            },
        }
    }
}
