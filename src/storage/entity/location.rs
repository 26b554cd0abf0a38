//! The row of a location, and the location of the domain that is made of it.

use sea_orm::entity::prelude::*;

use crate::{
    domain::{
        error,
        geometry::Geometry,
        id::{LocationId, UserId},
        location::Location,
        properties::Properties,
        time::Timestamp,
    },
    storage::geometry::{Altitudes, Plane},
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "location")]
pub struct Model {
    #[sea_orm(primary_key)]
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

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The columns that [`Model::from_columns`] reads, in its order.
pub const COLUMNS: &str = "location.id, location.owner_id, location.version, location.geometry, \
                           location.altitudes, location.properties, location.updated_by, \
                           location.created_at, location.updated_at, location.area";

/// The number of [`COLUMNS`].
pub const WIDTH: usize = 10;

impl Model {
    /// Reads a row of [`COLUMNS`] by position: looking for their names in each row takes time.
    pub fn from_columns(row: &QueryResult) -> Result<Self, DbErr> {
        Ok(Self {
            id: row.try_get_by_index(0)?,
            owner_id: row.try_get_by_index(1)?,
            version: row.try_get_by_index(2)?,
            geometry: row.try_get_by_index(3)?,
            altitudes: row.try_get_by_index(4)?,
            properties: row.try_get_by_index(5)?,
            updated_by: row.try_get_by_index(6)?,
            created_at: row.try_get_by_index(7)?,
            updated_at: row.try_get_by_index(8)?,
            area: row.try_get_by_index(9)?,
        })
    }
}

impl TryFrom<Model> for Location {
    type Error = error::Error;

    fn try_from(row: Model) -> error::Result<Self> {
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
