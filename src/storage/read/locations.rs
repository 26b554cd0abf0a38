//! Reading one location, and the newest versions of several. Lists are in [`super::listing`].

use sea_orm::{ConnectionTrait, DatabaseConnection};

use crate::{
    domain::{error::Result, id::LocationId, location::Location},
    storage::{
        error::{DbResult, domain_error},
        pool::Store,
        row::{COLUMNS, Row},
        sql::{Unsigned, number_list, statement, with_values},
    },
};

/// A part of a result: the rows of a page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The number of rows before the page.
    pub offset: u64,
    /// The most rows on the page.
    pub limit: u64,
}

/// A page that begins after more rows than this is deep: all of them are passed over, if only in an index.
const MAX_SHALLOW_OFFSET: u64 = 10_000;

impl Page {
    /// Whether it takes a search to find where the page begins.
    pub fn is_deep(self) -> bool {
        self.offset > MAX_SHALLOW_OFFSET
    }
}

/// The newest version of a location.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// The location.
    pub id: LocationId,
    /// The newest version of the location.
    pub version: u64,
    /// The number of changes of its members and shares.
    pub grants: u64,
}

impl Store {
    /// Reads a location as it was last committed.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn location(&self, id: LocationId) -> Result<Option<Location>> {
        let sql = format!("SELECT {COLUMNS} FROM location WHERE id = ?");
        let read = async |db: DatabaseConnection| db.query_one_raw(statement(&db, &sql, [id])).await;
        let row = self.read(read).await?.map(|row| Row::from_columns(&row)).transpose();
        row.map_err(domain_error)?.map(Location::try_from).transpose()
    }

    /// Reads the newest versions of those locations that are there.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn versions(&self, ids: &[LocationId]) -> Result<Vec<Head>> {
        self.read(async |db| read_heads(&db, ids).await).await
    }
}

/// Reads the newest versions of those locations that are there.
pub async fn read_heads(db: &impl ConnectionTrait, ids: &[LocationId]) -> DbResult<Vec<Head>> {
    let (placeholders, values) = number_list(ids.iter().copied());
    let sql = format!("SELECT id, version, grants FROM location WHERE id IN ({placeholders})");
    let rows = db.query_all_raw(with_values(db, &sql, values)).await?;
    let head = rows.iter().map(|row| {
        let (id, Unsigned(version), Unsigned(grants)) = row.try_get_many_by_index()?;
        Ok(Head { id, version, grants })
    });
    head.collect()
}
