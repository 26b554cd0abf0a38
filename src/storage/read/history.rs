//! Reading history: a page of it in pieces, or as much of its end as a subscriber may be sent.
//!
//! A row may be anything from a hundred bytes to a megabyte, so sizes are read first and then no more rows
//! than memory is meant for ([`super::pieces`]).

use std::collections::VecDeque;

use sea_orm::{ConnectionTrait, FromQueryResult, Statement, TransactionTrait, Value};

use super::{
    locations,
    pieces::{largest_piece, piece_len},
};
use crate::{
    domain::{
        error::{Error, Result},
        id::LocationId,
        location::Location,
    },
    storage::{
        entity::location,
        error::{DbResult, unreadable},
        pool::Store,
        sql::{Dialect, Rows},
    },
};

/// Geometries and properties of the versions that a subscriber is sent at once, in the database's bytes.
const RUN_BYTES: u64 = 4 * 1024 * 1024;

/// A statement that adds versions: location_id, version, geometry, altitudes, properties, updated_by,
/// updated_at.
pub fn rows(dialect: Dialect) -> Rows {
    let insert = "INSERT INTO history \
        (location_id, version, geometry, altitudes, properties, updated_by, updated_at)";
    Rows::new(dialect, insert, "")
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
#[derive(Clone, Copy, Debug, FromQueryResult)]
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

/// A page of a location's history, ascending, read in pieces with [`Store::read_versions`].
#[derive(Debug)]
pub struct Past {
    id: LocationId,
    /// The location's newest version.
    pub head: u64,
    /// Versions that are still to be read.
    sizes: VecDeque<Size>,
    /// The first piece, which is read in the snapshot that the versions are found in.
    first: Vec<Location>,
    /// The bytes of its largest piece.
    pub largest_piece: usize,
}

impl Past {
    /// Is everything read?
    pub fn is_read(&self) -> bool {
        self.first.is_empty() && self.sizes.is_empty()
    }

    /// Must the next piece be read from the database?
    pub fn needs_a_read(&self) -> bool {
        self.first.is_empty() && !self.sizes.is_empty()
    }

    /// The versions of the next piece.
    fn next_piece(&mut self) -> Vec<u64> {
        let len = piece_len(self.sizes.iter().map(|size| size.bytes as usize));
        self.sizes.drain(..len).map(|size| size.version as u64).collect()
    }
}

impl Store {
    /// A page of a location's history after version `since`, ascending, at most `limit` versions. `None`: there is
    /// no such location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn history(&self, id: LocationId, since: u64, limit: u64) -> Result<Option<Past>> {
        let read = || async {
            let tx = self.list_reader()?.begin().await?;
            let Some(head) = locations::versions(&tx, &[id]).await?.pop() else { return Ok(None) };
            let sizes = sizes(&tx, id, since + 1, limit, Order::OldestFirst).await?;
            let bytes: Vec<_> = sizes.iter().map(|size| size.bytes as usize).collect();
            let mut past = Past {
                id,
                head: head.version,
                sizes: sizes.into(),
                first: Vec::new(),
                largest_piece: largest_piece(&bytes),
            };
            let piece = past.next_piece();
            if let (Some(first), Some(last)) = (piece.first(), piece.last()) {
                past.first = between(&tx, id, *first, *last).await?;
            }
            tx.commit().await?;
            Ok(Some(past))
        };
        self.read_list(read).await
    }

    /// Reads the next piece of a page of history.
    ///
    /// # Errors
    /// `internal` where a version has been removed since it was found, with its location or because of its age:
    /// without it the page would have a hole. `storage_unavailable`.
    pub async fn read_versions(&self, past: &mut Past) -> Result<Vec<Location>> {
        if !past.first.is_empty() {
            return Ok(std::mem::take(&mut past.first));
        }
        let (id, piece) = (past.id, past.next_piece());
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else { return Ok(Vec::new()) };
        let versions =
            self.read_list(async || between(&self.list_reader()?, id, *first, *last).await).await?;
        if versions.iter().map(|location| location.version).ne(piece.iter().copied()) {
            return Err(Error::internal(format!(
                "versions {first} to {last} of location {id} are not all there any more"
            )));
        }
        Ok(versions)
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
                let versions = run(&tx, id, from, limit).await?;
                tx.commit().await?;
                Ok(versions)
            };
            let versions = self.read(read).await?;
            if !versions.is_empty() {
                return Ok(Some(versions));
            }
        }
        Ok(self.location(id).await?.map(|location| vec![location]))
    }
}

/// The newest versions without a gap, from `first` on, ascending; as many as may be read at once.
async fn run(db: &impl ConnectionTrait, id: LocationId, first: u64, limit: u64) -> DbResult<Vec<Location>> {
    let sizes = sizes(db, id, first, limit, Order::NewestFirst).await?;
    let mut bytes = 0;
    let fit = sizes.iter().take_while(|size| {
        let before = bytes;
        bytes += size.bytes as u64;
        before == 0 || bytes <= RUN_BYTES
    });
    let fit: Vec<_> = fit.map(|size| size.version as u64).collect();
    let (Some(first), Some(last)) = (fit.iter().min(), fit.iter().max()) else {
        return Ok(Vec::new());
    };
    let mut versions = between(db, id, *first, *last).await?;
    // A writer that knows of no history would leave gaps.
    let gap = versions.windows(2).rposition(|pair| pair[0].version + 1 != pair[1].version);
    if let Some(gap) = gap {
        versions.drain(..=gap);
    }
    Ok(versions)
}

/// At most `limit` versions from `first` on, and their sizes.
async fn sizes(
    db: &impl ConnectionTrait,
    id: LocationId,
    first: u64,
    limit: u64,
    order: Order,
) -> DbResult<Vec<Size>> {
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
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    Size::find_by_statement(statement).all(db).await
}
