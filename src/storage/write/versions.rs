//! Versions of locations that a transaction writes, in the database's terms.
//!
//! However many there are, they take few statements: one for all rows of `location`, one for all of `history`.

use std::{collections::HashSet, sync::Arc, time::Instant};

use geo::Rect;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Value};

use super::{act::Failure, locked::LockedLocation};
use crate::{
    domain::{
        area::{covers, roomy},
        error::Result,
        geometry::Geometry,
        id::LocationId,
        location::{Committed, Location, NewLocation, Update},
        properties::Properties,
        time::Timestamp,
    },
    storage::{
        error::DbResult,
        geometry::{Altitudes, Plane},
        index,
        read::history,
        sql::{Cell, Dialect, Number, Rows, statement, with_values},
    },
};

/// A version to be written.
struct Version {
    location: Arc<Committed>,
    shape: Shape,
}

/// A geometry as the columns of a row have it.
struct Shape {
    plane: Vec<u8>,
    altitudes: Option<Vec<u8>>,
}

/// The versions of a transaction, collected until all its acts are carried out.
pub struct Versions {
    dialect: Dialect,
    now: Timestamp,
    written: Vec<Version>,
    /// Boxes of new locations, which are found by them from the start.
    areas: Rows,
    /// Locations to remove. Their versions of this transaction are not written.
    pub removed: HashSet<LocationId>,
}

impl Versions {
    /// Begins with none.
    pub fn new(dialect: Dialect, now: Timestamp) -> Self {
        let areas = index::rows(dialect);
        Self { dialect, now, written: Vec::new(), areas, removed: HashSet::new() }
    }

    /// Inserts a new location, whose id the database gives. Its history and its box are written with the others.
    pub async fn create(
        &mut self,
        tx: &DatabaseTransaction,
        new: &NewLocation,
    ) -> std::result::Result<Arc<Committed>, Failure> {
        let plane = Plane(new.geometry.plane());
        let shape = Shape::encode(&new.geometry, &plane, &new.properties, self.dialect)?;
        let area = roomy(&plane.0);
        let sql = "INSERT INTO location (owner_id, updated_by, version, geometry, altitudes, properties, created_at, \
                     updated_at, area) VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?)";
        let [owner, now] = [Number::from(new.owner), self.now.into()].map(Value::from);
        let values = [
            owner.clone(),
            owner,
            shape.plane.clone().into(),
            shape.altitudes.clone().into(),
            new.properties.as_str().into(),
            now.clone(),
            now,
            index::to_bytes(&area).into(),
        ];
        let id = LocationId::new(tx.execute_raw(with_values(tx, sql, values)).await?.last_insert_id());
        let id = id.ok_or_else(|| DbErr::Custom("the database gave an id that is none".into()))?;
        let location = Arc::new(Committed::from(new.to_location(id, self.now)));
        index::push(&mut self.areas, id, &area);
        self.written.push(Version { location: location.clone(), shape });
        Ok(location)
    }

    /// Makes the next version of a locked location.
    ///
    /// # Errors
    /// `properties_too_large`, `payload_too_large`, `internal`.
    pub fn update(
        &mut self,
        row: &mut LockedLocation,
        update: &Update,
        received_at: Instant,
    ) -> Result<Arc<Committed>> {
        let location = Arc::new(Committed::received(row.location.updated(update, self.now)?, received_at));
        let plane = Plane(location.geometry.plane());
        let has_left = update.geometry.is_some() && !row.area.is_some_and(|area| covers(&area, &plane.0));
        let shape = Shape::encode(&location.geometry, &plane, &location.properties, self.dialect)?;
        if has_left {
            row.area = Some(roomy(&plane.0));
            row.has_left_area = true;
        }
        row.location = location.clone();
        row.newest = Some(self.written.len());
        self.written.push(Version { location: location.clone(), shape });
        Ok(location)
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty() && self.removed.is_empty()
    }

    /// Writes everything: boxes that were left, locations, history, and `last`; then removes what is to be removed.
    pub async fn write(
        self,
        tx: &DatabaseTransaction,
        locations: impl Iterator<Item = &LockedLocation>,
        last: Rows,
    ) -> DbResult<()> {
        let Self { dialect, written, mut areas, removed, .. } = self;
        let (mut rows, mut history) = (location_rows(dialect), history::rows(dialect));
        for row in locations {
            let Some(newest) = row.newest else { continue };
            if let Some(area) = row.area.as_ref().filter(|_| row.has_left_area) {
                index::push(&mut areas, row.location.id, area);
            }
            written[newest].push_location(&mut rows, row.area.as_ref());
            rows.send_full(tx).await?;
        }
        for version in written.iter().filter(|version| !removed.contains(&version.location.id)) {
            version.push_history(&mut history);
            history.send_full(tx).await?;
        }
        Rows::send([areas, rows, history, last], tx).await?;
        for id in removed {
            remove(tx, id).await?;
        }
        Ok(())
    }
}

impl Shape {
    /// Encodes a geometry, and checks that a row with it and these properties fits into one packet.
    fn encode(geometry: &Geometry, plane: &Plane, properties: &Properties, dialect: Dialect) -> Result<Self> {
        let plane = plane.to_bytes();
        let altitudes = geometry.altitudes().map(|altitudes| Altitudes(altitudes).to_bytes());
        let altitude_bytes = altitudes.as_ref().map_or(0, Vec::len);
        dialect.check_row(plane.len() + altitude_bytes + properties.as_str().len())?;
        Ok(Self { plane, altitudes })
    }
}

impl Version {
    /// The cells that `location` and `history` share: geometry, altitudes, properties, updated_by.
    fn state(&self) -> [Cell<'_>; 4] {
        let Location { properties, updated_by, .. } = &**self.location;
        [
            Cell::Bytes(&self.shape.plane),
            self.shape.altitudes.as_deref().map_or(Cell::Null, Cell::Bytes),
            Cell::Text(properties.as_str()),
            Cell::number(*updated_by),
        ]
    }

    fn push_location(&self, rows: &mut Rows, area: Option<&Rect>) {
        let Location { id, owner, version, created_at, updated_at, .. } = &**self.location;
        let [geometry, altitudes, properties, updated_by] = self.state();
        let [id, owner, version] = [Cell::number(*id), Cell::number(*owner), Cell::number(*version)];
        let [created_at, updated_at] = [Cell::number(*created_at), Cell::number(*updated_at)];
        let area = area.map(index::to_bytes);
        let area = area.as_deref().map_or(Cell::Null, Cell::Bytes);
        rows.push([
            id, owner, version, geometry, altitudes, properties, updated_by, created_at, updated_at, area,
        ]);
    }

    fn push_history(&self, rows: &mut Rows) {
        let Location { id, version, updated_at, .. } = &**self.location;
        let [geometry, altitudes, properties, updated_by] = self.state();
        let [id, version, updated_at] =
            [Cell::number(*id), Cell::number(*version), Cell::number(*updated_at)];
        rows.push([id, version, geometry, altitudes, properties, updated_by, updated_at]);
    }
}

/// A statement that rewrites locations that are there; its rows are made by [`Version::push_location`].
fn location_rows(dialect: Dialect) -> Rows {
    let insert = "INSERT INTO location \
        (id, owner_id, version, geometry, altitudes, properties, updated_by, created_at, updated_at, area)";
    let updates = "version = excluded.version, geometry = excluded.geometry, altitudes = excluded.altitudes, \
                   properties = excluded.properties, updated_by = excluded.updated_by, \
                   updated_at = excluded.updated_at, area = excluded.area";
    Rows::upsert(dialect, insert, updates)
}

/// Removes a location, its members and its share links. Its history is removed later, in small steps.
async fn remove(tx: &DatabaseTransaction, id: LocationId) -> DbResult<()> {
    for sql in [
        "DELETE FROM location WHERE id = ?",
        "DELETE FROM member WHERE location_id = ?",
        "DELETE FROM share WHERE location_id = ?",
    ] {
        tx.execute_raw(statement(tx, sql, [id])).await?;
    }
    index::delete(tx, id).await
}
