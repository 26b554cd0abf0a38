//! Reading history: a page of it, or as much of its end as a subscriber may be sent.
//!
//! A row may be anything from a hundred bytes to a megabyte, so sizes are read first and then no more rows
//! than memory is meant for.

use sea_orm::{ConnectionTrait, DatabaseBackend, FromQueryResult, Statement, TransactionTrait, Value};

use super::{
    connect::Store,
    entity::location,
    error::{DbResult, unreadable},
    locations,
    rows::Rows,
};
use crate::domain::{error::Result, id::LocationId, location::Location};

/// Geometries and properties of one page, in the database's bytes.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;

/// A statement that adds versions: location_id, version, geometry, altitudes, properties, updated_by,
/// updated_at.
pub fn rows(backend: DatabaseBackend) -> Rows {
    let insert = "INSERT INTO history \
        (location_id, version, geometry, altitudes, properties, updated_by, updated_at)";
    Rows::new(backend, insert, "")
}

/// One version, if it is kept.
pub async fn version(db: &impl ConnectionTrait, id: LocationId, version: u64) -> DbResult<Option<Location>> {
    Ok(between(db, id, version, version).await?.pop())
}

/// The versions from `first` to `last` that are kept, ascending.
async fn between(
    db: &impl ConnectionTrait,
    id: LocationId,
    first: u64,
    last: u64,
) -> DbResult<Vec<Location>> {
    let sql = "SELECT location.id, location.owner_id, history.version, history.geometry, history.altitudes, \
                 history.properties, history.updated_by, location.created_at, history.updated_at, \
                 NULL AS area \
               FROM history JOIN location ON location.id = history.location_id \
               WHERE history.location_id = ? AND history.version BETWEEN ? AND ? ORDER BY history.version";
    let values = [id.get(), first, last].map(|n| Value::from(n as i64));
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let rows = location::Model::find_by_statement(statement).all(db).await?;
    rows.into_iter().map(|row| Location::try_from(row).map_err(unreadable)).collect()
}

/// A version and how many bytes it takes.
#[derive(FromQueryResult)]
struct Size {
    version: i64,
    bytes: i64,
}

/// In which order versions are counted.
#[derive(Clone, Copy)]
enum Order {
    OldestFirst,
    NewestFirst,
}

impl Store {
    /// A page of a location's history after version `since`, ascending: at most `limit` versions, fewer
    /// where they are large; and the location's newest version. `None`: there is no such location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn history(
        &self,
        id: LocationId,
        since: u64,
        limit: u64,
    ) -> Result<Option<(Vec<Location>, u64)>> {
        let read = || async {
            let tx = self.reader()?.begin().await?;
            let head = locations::versions(&tx, &[id]).await?.pop();
            let versions = run(&tx, id, since + 1, limit, Order::OldestFirst).await?;
            tx.commit().await?;
            Ok(head.map(|head| (versions, head.version)))
        };
        self.answered(read).await
    }

    /// A location as it stands, the last of a run of versions without a gap. With `from`, the run begins
    /// there, or as near to it as is kept and `limit` versions and some megabytes allow; else it is the
    /// newest alone. `None`: there is no such location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn newest(
        &self,
        id: LocationId,
        from: Option<u64>,
        limit: u64,
    ) -> Result<Option<Vec<Location>>> {
        if let Some(from) = from {
            let read = || async {
                // A snapshot, so that nothing is removed between sizes and versions.
                let tx = self.reader()?.begin().await?;
                let versions = run(&tx, id, from, limit, Order::NewestFirst).await?;
                tx.commit().await?;
                Ok(versions)
            };
            let versions = self.answered(read).await?;
            if !versions.is_empty() {
                return Ok(Some(versions));
            }
        }
        Ok(self.location(id).await?.map(|location| vec![location]))
    }
}

/// Versions, ascending: of those from `first` on, the oldest that may be read at once, or the newest without
/// a gap.
async fn run(
    db: &impl ConnectionTrait,
    id: LocationId,
    first: u64,
    limit: u64,
    order: Order,
) -> DbResult<Vec<Location>> {
    let direction = match order {
        Order::OldestFirst => "ASC",
        Order::NewestFirst => "DESC",
    };
    let sql = format!(
        "SELECT version, OCTET_LENGTH(geometry) + COALESCE(OCTET_LENGTH(altitudes), 0) \
           + OCTET_LENGTH(properties) AS bytes \
         FROM history WHERE location_id = ? AND version >= ? ORDER BY version {direction} LIMIT ?"
    );
    let values = [id.get(), first, limit].map(|n| Value::from(n as i64));
    let sizes =
        Size::find_by_statement(Statement::from_sql_and_values(db.get_database_backend(), sql, values));
    let sizes = sizes.all(db).await?;
    let mut bytes = 0;
    let fit = sizes.iter().take_while(|size| {
        let before = bytes;
        bytes += size.bytes as u64;
        before == 0 || bytes <= PAGE_BYTES
    });
    let fit: Vec<_> = fit.map(|size| size.version as u64).collect();
    let (Some(first), Some(last)) = (fit.iter().min(), fit.iter().max()) else {
        return Ok(Vec::new());
    };
    let mut versions = between(db, id, *first, *last).await?;
    // A writer that knows of no history would leave gaps.
    let gap = versions.windows(2).rposition(|pair| pair[0].version + 1 != pair[1].version);
    if let (Some(gap), Order::NewestFirst) = (gap, order) {
        versions.drain(..=gap);
    }
    Ok(versions)
}
