//! Reading one location, and where some of them stand. Lists are in [`super::listing`].

use sea_orm::{ConnectionTrait, EntityTrait, Statement};

use crate::{
    domain::{error::Result, id::LocationId, location::Location},
    storage::{entity::location::Entity, error::DbResult, pool::Store, sql::id_list},
};

/// Which part of a result: rows to pass over, rows to take.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Rows before this page.
    pub offset: u64,
    /// Rows of this page at most.
    pub limit: u64,
}

/// A page that begins after so many rows counts as deep: they are all passed over, if only in an index.
const DEEP: u64 = 10_000;

impl Page {
    /// Does it take a search to find where the page begins?
    pub fn is_deep(self) -> bool {
        self.offset > DEEP
    }
}

/// Where a location stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// Which location.
    pub id: LocationId,
    /// Its newest version.
    pub version: u64,
    /// Counts the changes of its members and shares.
    pub grants: u64,
}

impl Store {
    /// One location, as last committed.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn location(&self, id: LocationId) -> Result<Option<Location>> {
        let read = async || Entity::find_by_id(id.get() as i64).one(&self.reader()?).await;
        self.read(read).await?.map(Location::try_from).transpose()
    }

    /// Where those of some locations stand that are there.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn versions(&self, ids: &[LocationId]) -> Result<Vec<Head>> {
        self.read(|| async { versions(&self.reader()?, ids).await }).await
    }
}

/// See [`Store::versions`].
pub async fn versions(db: &impl ConnectionTrait, ids: &[LocationId]) -> DbResult<Vec<Head>> {
    let (placeholders, values) = id_list(ids);
    let sql = format!("SELECT id, version, grants FROM location WHERE id IN ({placeholders})");
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let mut heads = Vec::with_capacity(ids.len());
    for row in db.query_all_raw(statement).await? {
        let (id, version, grants): (i64, i64, i64) = row.try_get_many_by_index()?;
        let (version, grants) = (version as u64, grants as u64);
        heads.extend(LocationId::new(id as u64).map(|id| Head { id, version, grants }));
    }
    Ok(heads)
}
