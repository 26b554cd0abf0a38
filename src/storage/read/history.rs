//! Reading history: a page of it in pieces, or as much of its end as a subscriber may be sent.
//!
//! A row may be anything from a hundred bytes to a megabyte, so sizes are read first and then no more rows
//! than memory is meant for ([`super::pieces`]).

use std::collections::VecDeque;

use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};

use super::{
    locations::read_heads,
    pieces::{largest_piece, piece_len},
};
use crate::{
    domain::{
        error::{Error, Result},
        id::LocationId,
        location::Location,
    },
    storage::{
        error::{DbResult, unreadable},
        pool::Store,
        row::Row,
        sql::{Dialect, Number, Rows, Unsigned, statement},
    },
};

/// The bytes in the database of the versions that a subscriber is sent at once, at most.
const MAX_RUN_BYTES: usize = 4 * 1024 * 1024;

/// A statement that adds versions: location_id, version, geometry, altitudes, properties, updated_by,
/// updated_at.
pub fn rows(dialect: Dialect) -> Rows {
    let insert = "INSERT INTO history \
        (location_id, version, geometry, altitudes, properties, updated_by, updated_at)";
    Rows::new(dialect, insert)
}

/// Reads the versions from `first` to `last` that are kept, ascending.
async fn read_between(
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
    let values = [Number::from(id), first.into(), last.into()];
    let rows = db.query_all_raw(statement(db, sql, values)).await?;
    rows.iter().map(|row| Location::try_from(Row::from_columns(row)?).map_err(unreadable)).collect()
}

/// A version that is kept, and its bytes in the database.
#[derive(Clone, Copy, Debug)]
struct Size {
    version: u64,
    bytes: usize,
}

/// A page of a location's history, ascending, read in pieces with [`Store::read_versions`].
#[derive(Debug)]
pub struct Past {
    id: LocationId,
    /// The location's newest version.
    pub head: u64,
    /// The versions that are still to be read.
    sizes: VecDeque<Size>,
    /// The first piece, which is read in the snapshot that the versions are found in.
    first: Vec<Location>,
    /// The bytes of its largest piece.
    pub largest_piece: usize,
}

impl Past {
    /// Whether everything is read.
    pub fn is_read(&self) -> bool {
        self.first.is_empty() && self.sizes.is_empty()
    }

    /// Whether the next piece must be read from the database.
    pub fn needs_a_read(&self) -> bool {
        self.first.is_empty() && !self.sizes.is_empty()
    }

    /// Takes the versions of the next piece.
    fn take_piece(&mut self) -> Vec<u64> {
        let len = piece_len(self.sizes.iter().map(|size| size.bytes));
        self.sizes.drain(..len).map(|size| size.version).collect()
    }
}

impl Store {
    /// Finds a page of a location's history after version `since`, ascending, at most `limit` versions. `None`: there
    /// is no such location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn history(&self, id: LocationId, since: u64, limit: u64) -> Result<Option<Past>> {
        let find = async |db: DatabaseConnection| {
            let tx = db.begin().await?;
            let Some(head) = read_heads(&tx, &[id]).await?.pop() else { return Ok(None) };
            let sizes = read_sizes(&tx, id, since + 1, limit, "ASC").await?;
            let bytes: Vec<_> = sizes.iter().map(|size| size.bytes).collect();
            let largest_piece = largest_piece(&bytes);
            let (head, sizes, first) = (head.version, sizes.into(), Vec::new());
            let mut past = Past { id, head, sizes, first, largest_piece };
            let piece = past.take_piece();
            if let (Some(first), Some(last)) = (piece.first(), piece.last()) {
                past.first = read_between(&tx, id, *first, *last).await?;
            }
            tx.commit().await?;
            Ok(Some(past))
        };
        self.read_list(find).await
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
        let (id, piece) = (past.id, past.take_piece());
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else { return Ok(Vec::new()) };
        let versions = self.read_list(async |db| read_between(&db, id, *first, *last).await).await?;
        if versions.iter().map(|location| location.version).ne(piece.iter().copied()) {
            return Err(Error::internal(format!(
                "versions {first} to {last} of location {id} are not all there any more"
            )));
        }
        Ok(versions)
    }

    /// Reads a run of versions of a location without a gap, up to its newest version. With `from`, the run begins
    /// there, or as near to it as is kept and `limit` versions and `MAX_RUN_BYTES` allow; otherwise it is the newest
    /// alone. `None`: there is no such location.
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
            let read = async |db: DatabaseConnection| {
                // A snapshot, so that nothing is removed between sizes and versions.
                let tx = db.begin().await?;
                let versions = read_run(&tx, id, from, limit).await?;
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

/// Reads the newest versions without a gap, from `first` on, ascending; as many as may be read at once.
async fn read_run(
    db: &impl ConnectionTrait,
    id: LocationId,
    first: u64,
    limit: u64,
) -> DbResult<Vec<Location>> {
    let sizes = read_sizes(db, id, first, limit, "DESC").await?;
    let (Some(first), Some(newest)) = (first_of_run(&sizes), sizes.first()) else { return Ok(Vec::new()) };
    read_between(db, id, first, newest.version).await
}

/// The first version of the run that ends with the newest: it has no gap, and not more than [`MAX_RUN_BYTES`] unless
/// the newest version alone has more. `sizes` begins with the newest.
fn first_of_run(sizes: &[Size]) -> Option<u64> {
    let newest = sizes.first()?.version;
    let mut bytes = 0_usize;
    let run = (0..).zip(sizes).take_while(|(nth, size)| {
        bytes = bytes.saturating_add(size.bytes);
        // A process that knew of no history would have left gaps.
        size.version + nth == newest && (*nth == 0 || bytes <= MAX_RUN_BYTES)
    });
    run.last().map(|(_, size)| size.version)
}

/// Reads at most `limit` versions from `first` on, and their sizes: the oldest first (`ASC`) or the newest (`DESC`).
async fn read_sizes(
    db: &impl ConnectionTrait,
    id: LocationId,
    first: u64,
    limit: u64,
    direction: &str,
) -> DbResult<Vec<Size>> {
    let sql = format!(
        "SELECT version, OCTET_LENGTH(geometry) + COALESCE(OCTET_LENGTH(altitudes), 0) \
           + OCTET_LENGTH(properties) AS bytes \
         FROM history WHERE location_id = ? AND version >= ? ORDER BY version {direction} LIMIT ?"
    );
    let values = [Number::from(id), first.into(), limit.into()];
    let rows = db.query_all_raw(statement(db, &sql, values)).await?;
    let size = rows.iter().map(|row| {
        let (Unsigned(version), Unsigned(bytes)) = row.try_get_many_by_index()?;
        Ok(Size { version, bytes: usize::try_from(bytes).unwrap_or(usize::MAX) })
    });
    size.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_with_the_newest_version_and_has_no_gap() {
        const HALF: usize = MAX_RUN_BYTES / 2;
        for (versions, expected) in [
            (&[][..], None),
            (&[(7, 10)], Some(7)),
            (&[(7, 10), (6, 10), (5, 10)], Some(5)),
            (&[(7, 10), (6, 10), (4, 10), (3, 10)], Some(6)),
            (&[(7, 3 * MAX_RUN_BYTES), (6, 10)], Some(7)),
            (&[(7, HALF), (6, HALF), (5, 1)], Some(6)),
        ] {
            let sizes: Vec<_> = versions.iter().map(|&(version, bytes)| Size { version, bytes }).collect();
            assert_eq!(first_of_run(&sizes), expected, "{versions:?}");
        }
    }
}
