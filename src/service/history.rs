//! What a location was: its versions, page by page, or those a subscriber has missed.

use super::Service;
use crate::domain::{
    access::{Action, Caller},
    error::{Error, Result},
    id::LocationId,
    location::Location,
};

pub use crate::storage::Head;

/// A page of versions, ascending.
#[derive(Debug)]
pub struct Versions {
    /// Features as GeoJSON text.
    pub features: Vec<String>,
    /// The newest version there is.
    pub head: u64,
}

impl Service {
    /// The versions of a location after `since`, at most `limit`, fewer where they are large.
    ///
    /// # Errors
    /// `not_found`, `storage_unavailable`, `internal`.
    pub async fn history(&self, by: &Caller, id: LocationId, since: u64, limit: u64) -> Result<Versions> {
        self.permit(by, id, Action::See).await?;
        let since = match by {
            Caller::Guest(guest) => since.max(guest.from.saturating_sub(1)),
            _ => since,
        };
        let found = self.store.history(id, since, limit).await?;
        let (versions, head) = found.ok_or_else(|| Error::no_location(id))?;
        Ok(Versions { features: versions.iter().map(Location::to_feature).collect(), head })
    }

    /// A location as it stands, the last of a run of versions without a gap; with `from` the run begins
    /// there, or as near to it as history and `limit` allow, else it is the newest version alone.
    ///
    /// # Errors
    /// `not_found`, `storage_unavailable`, `internal`.
    pub async fn newest(&self, id: LocationId, from: Option<u64>, limit: u64) -> Result<Vec<Location>> {
        self.store.newest(id, from, limit).await?.ok_or_else(|| Error::no_location(id))
    }

    /// Where those of some locations that are there stand.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn versions(&self, ids: &[LocationId]) -> Result<Vec<Head>> {
        self.store.versions(ids).await
    }
}
