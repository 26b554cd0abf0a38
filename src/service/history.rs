//! The history of a location: its versions page by page, or those that a subscriber has missed.

use std::sync::Arc;

use super::{features::Features, state::Service};
use crate::domain::{
    access::{Action, Caller, Payer},
    error::{Error, Result},
    id::LocationId,
    location::Location,
};

pub use crate::storage::Head;

impl Service {
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
        Ok((Features::of_history(self, by, payer, (id, page))?, head))
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
}
