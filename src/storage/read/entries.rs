//! The entries of a page: which locations are on it, with the small rows at once.
//!
//! A large row stays in the database until its piece is read: whatever the database sends has to be read, wanted or
//! not.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DatabaseConnection, QueryResult, Statement};

use super::{pieces::PIECE_BYTES, visible::Visible};
use crate::storage::{
    error::DbResult,
    row::{COLUMNS, Row, WIDTH},
    sql::{Unsigned, number_list, with_values},
};

/// Rows of at most so many bytes are read together with the ids of their page: a full page of them is one piece.
pub const SMALL_ROW_BYTES: usize = PIECE_BYTES / 100;
/// The bytes of those columns of a row that may be long.
const ROW_BYTES: &str = "(OCTET_LENGTH(location.geometry) + COALESCE(OCTET_LENGTH(location.altitudes), 0) \
                         + OCTET_LENGTH(location.properties))";

/// A location on a page. Its id is as the row has it: one that makes no sense breaks its own location and not the list.
#[derive(Debug)]
pub struct Entry {
    pub id: i64,
    /// The version when it was found.
    pub version: i64,
    pub created_at: i64,
    /// The bytes of the row when it was found.
    pub bytes: usize,
    /// The distance then, in a list by distance.
    pub distance_m: Option<f64>,
    /// The row, if that was small.
    pub row: Option<Row>,
}

impl Entry {
    /// Reads an entry from a row of [`columns`]. A small row that cannot be read is found out when its piece is read.
    pub fn from_columns(row: &QueryResult, small: usize) -> DbResult<Self> {
        let Unsigned(bytes) = row.try_get_by_index(WIDTH)?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let small_row = (bytes <= small).then(|| Row::from_columns(row).ok()).flatten();
        let (id, version) = (row.try_get_by_index(0)?, row.try_get_by_index(2)?);
        Ok(Self {
            id,
            version,
            created_at: row.try_get_by_index(7)?,
            bytes,
            distance_m: None,
            row: small_row,
        })
    }
}

/// The columns of an [`Entry`]: those of a location, the long ones only in rows of at most `small` bytes, and its
/// bytes.
pub fn columns(small: usize) -> String {
    let columns = COLUMNS.split(", ").map(|column| match column {
        "location.geometry" | "location.altitudes" | "location.properties" => {
            format!("CASE WHEN {ROW_BYTES} <= {small} THEN {column} END")
        }
        _ => column.to_owned(),
    });
    columns.chain([ROW_BYTES.to_owned()]).collect::<Vec<_>>().join(", ")
}

/// Reads the entries that a statement for [`columns`] with [`SMALL_ROW_BYTES`] finds.
pub async fn read_entries(db: &impl ConnectionTrait, statement: Statement) -> DbResult<Vec<Entry>> {
    let rows = db.query_all_raw(statement).await?;
    rows.iter().map(|row| Entry::from_columns(row, SMALL_ROW_BYTES)).collect()
}

/// Reads the entries of these locations, in no order.
pub async fn read_entries_of(db: &impl ConnectionTrait, ids: &[i64]) -> DbResult<Vec<Entry>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let (placeholders, values) = number_list(ids.iter().copied());
    let sql = format!("SELECT {} FROM location WHERE id IN ({placeholders})", columns(SMALL_ROW_BYTES));
    read_entries(db, with_values(db, &sql, values)).await
}

/// Reads those of some rows that are still there and still visible. One that cannot be read is left out and logged.
pub async fn read_rows(
    db: &DatabaseConnection,
    visible: Visible,
    ids: &[i64],
) -> DbResult<HashMap<i64, Row>> {
    let (placeholders, mut values) = number_list(ids.iter().copied());
    let mut sql = format!("SELECT {COLUMNS} FROM location WHERE id IN ({placeholders})");
    if let Some(user) = visible.user() {
        sql.push_str(
            " AND (owner_id = ? OR EXISTS (SELECT 1 FROM member \
               WHERE member.location_id = location.id AND member.user_id = ?))",
        );
        values.extend([user.clone(), user]);
    }
    let rows = db.query_all_raw(with_values(db, &sql, values)).await?;
    let mut by_id = HashMap::with_capacity(rows.len());
    for row in rows {
        let id = row.try_get_by_index(0)?;
        match Row::from_columns(&row) {
            Ok(row) => drop(by_id.insert(id, row)),
            Err(error) => log_unreadable(id, error),
        }
    }
    Ok(by_id)
}

/// Logs a location that lists leave out, and why.
pub fn log_unreadable(id: i64, why: impl std::fmt::Display) {
    tracing::error!(id, %why, "the row of a location cannot be read; lists leave it out");
}
