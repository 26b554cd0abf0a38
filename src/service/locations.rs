//! Making, moving, reading, listing and removing locations.

use std::sync::Arc;

use super::{Current, Service};
use crate::{
    domain::{
        access::{Action, Caller, Whose},
        area::Bbox,
        distance::Near,
        error::{Code, Error, Result},
        id::LocationId,
        location::{Committed, Location, NewLocation, Update},
    },
    storage::Page,
};

/// What a list asks for.
#[derive(Debug)]
pub struct Query {
    /// Which page of the result.
    pub page: Page,
    /// Only what touches this box.
    pub bbox: Option<Bbox>,
    /// Only what is within a radius, nearest first.
    pub near: Option<Near>,
}

/// A page of Features, and how many there are in all if nothing was filtered.
#[derive(Debug)]
pub struct Listed {
    /// Features as GeoJSON text.
    pub features: Vec<String>,
    /// Of all pages.
    pub total: Option<u64>,
}

impl Service {
    /// Makes a location.
    ///
    /// # Errors
    /// `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn create_location(&self, new: NewLocation) -> Result<Arc<Committed>> {
        new.whose.map_or(Ok(()), |whose| self.limits.deliver(whose, 0, 0))?;
        self.writer.create(new).await
    }

    /// Moves a location or changes its properties; once committed, its room hears of it.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `properties_too_large`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn update_location(&self, update: Update) -> Result<Arc<Committed>> {
        update.whose.map_or(Ok(()), |whose| self.pay(whose, update.id, update.size))?;
        self.writer.update(update).await
    }

    /// Removes a location; once this returns, its room is closed.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn delete_location(&self, by: Caller, whose: Whose, id: LocationId) -> Result<()> {
        self.pay(whose, id, 0)?;
        self.writer.delete(by, Some(whose), id).await?;
        self.taken_in().await;
        Ok(())
    }

    /// A location as last committed; without the database, as its live room has it.
    ///
    /// # Errors
    /// `not_found`, `storage_unavailable`, `internal`.
    pub async fn location(&self, by: &Caller, id: LocationId) -> Result<Current> {
        let stored = async {
            self.permit(by, id, Action::See).await?;
            let location = self.store.location(id).await?.ok_or_else(|| Error::no_location(id))?;
            Ok(Current { version: location.version, feature: location.to_feature() })
        };
        self.or_live(by, id, stored).await
    }

    /// A page of locations.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn list_locations(&self, by: &Caller, query: Query) -> Result<Listed> {
        if let Caller::Guest(guest) = by {
            let detail = format!("the share link is of location {} and of no list", guest.location);
            return Err(Error::new(Code::Forbidden, detail));
        }
        let Query { page, bbox, near } = query;
        let features = |locations: Vec<Location>| locations.iter().map(Location::to_feature).collect();
        Ok(match (near, bbox) {
            (Some(near), bbox) => {
                let found = self.store.locations_near(by, &near, bbox.as_ref(), page).await?;
                let features = found.iter().map(|(location, distance_m)| location.to_feature_at(*distance_m));
                Listed { features: features.collect::<Result<_>>()?, total: None }
            }
            (None, Some(bbox)) => {
                Listed { features: features(self.store.locations_in(by, &bbox, page).await?), total: None }
            }
            (None, None) => {
                let (locations, total) = self.store.locations(by, page).await?;
                Listed { features: features(locations), total: Some(total) }
            }
        })
    }
}
