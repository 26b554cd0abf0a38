//! The acts on locations: creating, moving, reading, listing and deleting them, and reading their history.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{
    features::{Features, Rest},
    state::{Current, RoomSize, Service},
};
use crate::{
    domain::{
        access::{Action, Caller, Payer},
        error::{Code, Error, Result},
        id::LocationId,
        location::{Committed, Location, NewLocation, Update},
        properties::renamed,
    },
    storage::{Filter, Page},
};

pub use crate::storage::Head;

/// The time for which a read waits for the database before the version that a live room has is good enough. Longer
/// than a room takes to hear of an acknowledged change.
const DATABASE_PATIENCE: Duration = Duration::from_secs(1);

impl Service {
    /// Creates a location.
    ///
    /// # Errors
    /// `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn create_location(&self, new: NewLocation, payer: Payer) -> Result<Arc<Committed>> {
        self.limits.charge_delivery(payer, 0, new.size)?;
        self.writer.create(new, Some(payer)).await
    }

    /// Moves a location or changes its properties. Once that is committed, its room is told.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `properties_too_large`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn update_location(
        &self,
        update: Update,
        payer: Payer,
        received_at: Instant,
    ) -> Result<Arc<Committed>> {
        self.charge_change(&update.by, payer, update.id, update.size)?;
        if update.patch.as_ref().is_some_and(|patch| renamed(patch).is_some()) {
            self.names.write_of(&[update.by.user()]).await?;
        }
        self.writer.update(update, Some(payer), received_at).await
    }

    /// Deletes a location. Once this returns, its room is closed.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn delete_location(&self, by: Caller, payer: Payer, id: LocationId) -> Result<()> {
        self.charge_change(&by, payer, id, 0)?;
        self.names.write_of(&[by.user()]).await?;
        self.writer.delete(by, Some(payer), id).await?;
        self.events.wait_until_settled().await;
        Ok(())
    }

    /// Reads a location as it was committed last; without the database, as its live room has it.
    ///
    /// # Errors
    /// `not_found`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn location(&self, (by, payer): (&Caller, Payer), id: LocationId) -> Result<Current> {
        self.limits.check_rows(payer)?;
        let stored = async {
            let _turn = self.reads.turn(payer).await?;
            self.permit(by, id, Action::See).await?;
            let location = self.store.location(id).await?.ok_or_else(|| Error::no_location(id))?;
            Ok(Current { version: location.version, feature: location.to_feature() })
        };
        let current = self.stored_or_live(by, id, stored).await?;
        self.limits.record_text(payer, current.feature.len());
        Ok(current)
    }

    /// Reads the newest version of a location that the caller may see: one or two rows by an index, and no geometry.
    ///
    /// # Errors
    /// `not_found`, `storage_unavailable`, `internal`.
    pub async fn version(&self, (by, payer): (&Caller, Payer), id: LocationId) -> Result<u64> {
        let stored = async {
            let _turn = self.reads.turn(payer).await?;
            let version = match self.look_up(by, id, Action::See).await? {
                None => self.store.versions(&[id]).await?.pop().map(|head| head.version),
                known => known,
            };
            let version = version.ok_or_else(|| Error::no_location(id))?;
            Ok(Current { version, feature: String::new() })
        };
        Ok(self.stored_or_live(by, id, stored).await?.version)
    }

    /// Finds a page of locations; also counts all of them if there is no filter.
    ///
    /// # Errors
    /// `forbidden`, `invalid_parameter`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn list_locations(
        self: &Arc<Self>,
        (by, payer): (Caller, Payer),
        page: Page,
        filter: Option<Filter>,
    ) -> Result<(Features, Option<u64>)> {
        if let Caller::Guest(guest) = by {
            let detail = format!("the share link is of location {} and of no list", guest.location);
            return Err(Error::new(Code::Forbidden, detail));
        }
        self.limits.check_rows(payer)?;
        let turn = match filter.is_some() || page.is_deep() {
            true => Some(self.searches.turn(payer).await?),
            false => None,
        };
        let (listing, total) = match filter {
            Some(filter) => (self.store.locations_in(&by, filter, page).await?, None),
            None => {
                let (listing, total) = self.store.locations(&by, page).await?;
                (listing, Some(total))
            }
        };
        // Reading what was found is no search.
        drop(turn);
        Ok((Features::new(self, by, payer, Rest::List(listing))?, total))
    }

    /// Reads the versions of a location after `since`, ascending, at most `limit`; and the newest there is.
    ///
    /// # Errors
    /// `not_found`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn history(
        self: &Arc<Self>,
        (by, payer): (Caller, Payer),
        id: LocationId,
        since: u64,
        limit: u64,
    ) -> Result<(Features, u64)> {
        self.limits.check_rows(payer)?;
        self.permit(&by, id, Action::See).await?;
        let since = match &by {
            Caller::Guest(guest) => since.max(guest.from.saturating_sub(1)),
            _ => since,
        };
        let page = self.store.history(id, since, limit).await?.ok_or_else(|| Error::no_location(id))?;
        let head = page.head;
        Ok((Features::new(self, by, payer, Rest::History(id, page))?, head))
    }

    /// Reads a run of versions without a gap that ends with the newest. With `from` the run begins there, or as near to
    /// it as history and `limit` allow; else it is the newest version alone.
    ///
    /// # Errors
    /// `not_found`, `storage_unavailable`, `internal`.
    pub async fn newest(&self, id: LocationId, from: Option<u64>, limit: u64) -> Result<Vec<Location>> {
        self.store.newest(id, from, limit).await?.ok_or_else(|| Error::no_location(id))
    }

    /// Reads the newest versions of those of some locations that exist.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn versions(&self, ids: &[LocationId]) -> Result<Vec<Head>> {
        self.store.versions(ids).await
    }

    /// Charges a caller for sending a change of a location to everybody in its room, before the change is made.
    ///
    /// # Errors
    /// `rate_limited`.
    fn charge_change(&self, by: &Caller, payer: Payer, id: LocationId, body_bytes: usize) -> Result<()> {
        let size = self.live_rooms().map_or_else(RoomSize::default, |live| live.room_size(by, id));
        // A change of properties has a small body, and yet the whole Feature is sent.
        self.limits.charge_delivery(payer, size.sockets, body_bytes.max(size.update_bytes))
    }

    /// Waits for what the database says, unless it is away or slow and a live room has the location.
    async fn stored_or_live(
        &self,
        by: &Caller,
        id: LocationId,
        stored: impl Future<Output = Result<Current>>,
    ) -> Result<Current> {
        let live = || self.live_rooms()?.current(by, id);
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
