//! The row of a location, and the location of the domain that is made of it.

use sea_orm::{DbErr, QueryResult};

use super::geometry::{Altitudes, Plane};
use crate::domain::{
    error,
    geometry::Geometry,
    id::{LocationId, UserId},
    location::Location,
    properties::Properties,
    time::Timestamp,
};

/// The columns of a [`Row`], in its order.
pub const COLUMNS: &str = "location.id, location.owner_id, location.version, location.geometry, \
                           location.altitudes, location.properties, location.updated_by, \
                           location.created_at, location.updated_at, location.area";

/// The number of [`COLUMNS`].
pub const WIDTH: usize = 10;

#[derive(Debug)]
pub struct Row {
    pub id: i64,
    pub owner_id: i64,
    pub version: i64,
    pub geometry: Plane,
    pub altitudes: Option<Altitudes>,
    pub properties: String,
    pub updated_by: i64,
    pub created_at: i64,
    pub updated_at: i64,
    pub area: Option<Vec<u8>>,
}

impl Row {
    /// Reads a row of [`COLUMNS`] by position: looking for their names in each row takes time.
    pub fn from_columns(row: &QueryResult) -> Result<Self, DbErr> {
        let (
            id,
            owner_id,
            version,
            geometry,
            altitudes,
            properties,
            updated_by,
            created_at,
            updated_at,
            area,
        ) = row.try_get_many_by_index()?;
        Ok(Self {
            id,
            owner_id,
            version,
            geometry,
            altitudes,
            properties,
            updated_by,
            created_at,
            updated_at,
            area,
        })
    }
}

impl TryFrom<Row> for Location {
    type Error = error::Error;

    fn try_from(row: Row) -> error::Result<Self> {
        let altitudes = row.altitudes.as_ref().map(|altitudes| altitudes.0.as_slice());
        Ok(Self {
            id: u64::try_from(row.id).ok().and_then(LocationId::new).ok_or_else(|| stored("id", row.id))?,
            owner: user("owner_id", row.owner_id)?,
            version: u64::try_from(row.version).map_err(|_| stored("version", row.version))?,
            geometry: Geometry::from_parts(&row.geometry.0, altitudes),
            properties: Properties::from_stored(row.properties).map_err(|error| of_row(row.id, &error))?,
            updated_by: user("updated_by", row.updated_by)?,
            created_at: Timestamp::from_millis(row.created_at),
            updated_at: Timestamp::from_millis(row.updated_at),
        })
    }
}

fn user(column: &'static str, id: i64) -> error::Result<UserId> {
    u64::try_from(id).ok().and_then(UserId::new).ok_or_else(|| stored(column, id))
}

/// The error of a row, with the location's id for the log.
fn of_row(id: i64, error: &error::Error) -> error::Error {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    error::Error::internal(format!("location {id}: {cause}"))
}

fn stored(column: &'static str, value: i64) -> error::Error {
    error::Error::internal(format!("location.{column} holds {value}"))
}
