//! Pages of lists: which locations are on a page is found first, their rows are read in pieces.
//!
//! What is found is ids and sizes, with the small rows at once, so an ordinary page is one statement. Large rows stay
//! in the database until their piece is read ([`super::pieces`]). Between two pieces nothing is held there: a
//! location is then shown as it stands when its piece is read, and is left out if it has been deleted meanwhile, if
//! the caller may no longer see it, or if it has moved out of the filter. Spatial pages are found in
//! [`super::search`], totals in [`super::totals`].

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use sea_orm::{ConnectionTrait, DatabaseConnection, QueryResult, Statement, Value};

use super::{
    locations::Page,
    pieces::{PIECE_BYTES, largest_piece, piece_len},
    search::Filter,
};
use crate::{
    domain::{
        access::Caller,
        error::{Error, Result},
        location::Location,
    },
    storage::{
        entity::location,
        error::{DbResult, unreadable},
        pool::{SEARCH_HINT, Store},
        sql::padded,
    },
};

/// Rows of at most so many bytes are read together with the ids of their page: a full page of them is one piece.
const SMALL_BYTES: usize = PIECE_BYTES / 100;
/// The bytes of a row that may be many.
pub const BYTES: &str = "(OCTET_LENGTH(location.geometry) + COALESCE(OCTET_LENGTH(location.altitudes), 0) \
                         + OCTET_LENGTH(location.properties))";

/// A location on a page.
#[derive(Debug)]
pub struct Entry {
    /// Its id.
    pub id: i64,
    /// Its version when it was found.
    pub version: i64,
    pub(in crate::storage) created_at: i64,
    /// The bytes of its row when it was found.
    pub(in crate::storage) bytes: usize,
    /// How far away it was then, in a list by distance.
    pub distance_m: Option<f64>,
    /// The row, where that was small.
    pub(in crate::storage) row: Option<location::Model>,
}

/// A page of a list, read in pieces with [`Store::read_piece`].
#[derive(Debug)]
pub struct Listing {
    /// What is still to be read, in the order of the page.
    pub entries: VecDeque<Entry>,
    /// Whether they may still see it is asked with every row that is read later.
    seen_by: Caller,
    /// `None`: a plain list.
    filter: Option<Arc<Filter>>,
}

impl Listing {
    /// A page of these entries. Keeps rows of one piece at most; the others are read again in their turn.
    pub(in crate::storage) fn new(
        mut entries: Vec<Entry>,
        seen_by: &Caller,
        filter: Option<Arc<Filter>>,
    ) -> Self {
        let mut kept = 0;
        for entry in &mut entries {
            kept += entry.bytes;
            if kept > PIECE_BYTES {
                entry.row = None;
            }
        }
        Self { entries: entries.into(), seen_by: seen_by.clone(), filter }
    }

    /// Is everything read?
    pub fn is_read(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of its largest piece, as far as is known.
    pub fn largest_piece(&self) -> usize {
        largest_piece(&self.entries.iter().map(|entry| entry.bytes).collect::<Vec<_>>())
    }

    /// Must the next piece be read from the database?
    pub fn needs_a_read(&self) -> bool {
        self.entries.iter().take(self.piece_len()).any(|entry| entry.row.is_none())
    }

    fn piece_len(&self) -> usize {
        piece_len(self.entries.iter().map(|entry| entry.bytes))
    }
}

/// A location of a page, and how far away it is in a list by distance.
pub type Shown = (Location, Option<f64>);

impl Store {
    /// A page of the locations somebody may see among others, newest-created first, then higher id; and how
    /// many there are.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn locations(&self, seen_by: &Caller, page: Page) -> Result<(Listing, u64)> {
        let mut entries = match page.is_deep() {
            true => self.search(async || newest(&self.list_reader()?, seen_by, page).await).await?,
            false => self.read_list(async || newest(&self.list_reader()?, seen_by, page).await).await?,
        };
        // Not ORDER BY: MySQL would sort the geometries along, and has not the memory for large ones.
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse((entry.created_at, entry.id)));
        let found = entries.len() as u64;
        let total = if found < page.limit && (found > 0 || page.offset == 0) {
            // The page ends with the list.
            page.offset + found
        } else {
            let least = if found > 0 { page.offset + found } else { 0 };
            self.total(seen_by).await?.max(least)
        };
        Ok((Listing::new(entries, seen_by, None), total))
    }

    /// Reads the next piece of a page. A row that cannot be read is left out and logged: it breaks its own location
    /// and not the list.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn read_piece(&self, listing: &mut Listing) -> Result<Vec<Shown>> {
        let piece_len = listing.piece_len();
        let missing: Vec<_> = listing
            .entries
            .iter()
            .take(piece_len)
            .filter(|entry| entry.row.is_none())
            .map(|e| e.id)
            .collect();
        let mut rows = match missing.is_empty() {
            true => HashMap::new(),
            false => {
                let seen_by = &listing.seen_by;
                self.read_list(async || rows_of(&self.list_reader()?, seen_by, &missing).await).await?
            }
        };
        let mut piece = Vec::with_capacity(piece_len);
        for entry in listing.entries.drain(..piece_len) {
            let Some(row) = entry.row.or_else(|| rows.remove(&entry.id)) else { continue };
            let mut distance_m = entry.distance_m;
            if let Some(filter) = listing.filter.as_ref().filter(|_| row.version != entry.version) {
                match filter.test(Cow::Borrowed(&row.geometry.0)).await.map_err(Error::internal)? {
                    Some(now_m) => distance_m = distance_m.map(|_| now_m),
                    None => continue,
                }
            }
            match Location::try_from(row) {
                Ok(location) => piece.push((location, distance_m)),
                Err(error) => log_unreadable(entry.id, unreadable(error)),
            }
        }
        Ok(piece)
    }
}

/// The id of a user who sees in lists only what they own or are a member of; `None`: somebody who sees all.
/// `Some(None)`: nobody's id, for somebody who sees nothing.
pub fn limited_to(by: &Caller) -> Option<Option<i64>> {
    match by {
        Caller::Anyone(_) | Caller::User { is_admin: true, .. } => None,
        Caller::User { id, .. } => Some(Some(id.get() as i64)),
        Caller::Guest(_) => Some(None),
    }
}

/// A query for `id` and `created_at` of what such a user sees, and its values. With `newest`, of their own
/// not more than the newest so many.
pub fn seen(user: Option<i64>, newest: Option<u64>) -> (String, Vec<Value>) {
    let order = newest.map_or("", |_| "ORDER BY created_at DESC, id DESC LIMIT ?");
    let sql = format!(
        "SELECT id, created_at FROM \
           (SELECT id, created_at FROM location WHERE owner_id = ? {order}) AS own \
         UNION SELECT location.id, location.created_at \
           FROM member JOIN location ON location.id = member.location_id WHERE member.user_id = ?"
    );
    let user = Value::from(user);
    (sql, [Some(user.clone()), newest.map(Value::from), Some(user)].into_iter().flatten().collect())
}

/// The entries of a plain page, in no order. One statement, which has a snapshot to itself.
async fn newest(db: &DatabaseConnection, seen_by: &Caller, page: Page) -> DbResult<Vec<Entry>> {
    let (from, mut values) = match limited_to(seen_by) {
        None => ("location".to_owned(), Vec::new()),
        Some(user) => {
            let (seen, values) = seen(user, Some(page.offset + page.limit));
            (format!("({seen}) AS seen"), values)
        }
    };
    // Only ids: the rows that are passed over are not read, the index has these two columns.
    let ids =
        format!("SELECT id AS listed_id FROM {from} ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?");
    values.extend([page.limit.into(), page.offset.into()]);
    let columns = columns(SMALL_BYTES);
    let sql = format!(
        "SELECT {SEARCH_HINT} {columns} FROM ({ids}) AS page JOIN location ON location.id = page.listed_id"
    );
    entries(db, Statement::from_sql_and_values(db.get_database_backend(), sql, values), SMALL_BYTES).await
}

/// The entries of these locations, in no order.
pub async fn entries_of(db: &impl ConnectionTrait, ids: &[i64]) -> DbResult<Vec<Entry>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let (placeholders, values) = padded(ids.iter().map(|id| *id as u64));
    let sql = format!("SELECT {} FROM location WHERE id IN ({placeholders})", columns(SMALL_BYTES));
    entries(db, Statement::from_sql_and_values(db.get_database_backend(), sql, values), SMALL_BYTES).await
}

async fn entries(db: &impl ConnectionTrait, statement: Statement, small: usize) -> DbResult<Vec<Entry>> {
    let rows = db.query_all_raw(statement).await?;
    rows.iter().map(|row| entry(row, small)).collect()
}

/// The columns of an [`entry`]: those of a location and its bytes. What is large stays in the database: whatever
/// that sends has to be read, wanted or not.
pub fn columns(small: usize) -> String {
    let columns = location::COLUMNS.split(", ").map(|column| match column {
        "location.geometry" | "location.altitudes" | "location.properties" => {
            format!("CASE WHEN {BYTES} <= {small} THEN {column} END")
        }
        _ => column.to_owned(),
    });
    columns.chain([BYTES.to_owned()]).collect::<Vec<_>>().join(", ")
}

/// One row of [`columns`], with the row itself where that is small. A small one that cannot be read is found out
/// when its piece is read.
pub fn entry(row: &QueryResult, small: usize) -> DbResult<Entry> {
    let bytes: i64 = row.try_get_by_index(location::WIDTH)?;
    let bytes = bytes as usize;
    let model = (bytes <= small).then(|| location::Model::from_columns(row).ok()).flatten();
    let (id, version) = (row.try_get_by_index(0)?, row.try_get_by_index(2)?);
    Ok(Entry { id, version, created_at: row.try_get_by_index(7)?, bytes, distance_m: None, row: model })
}

/// Those of some rows that are there and that the caller may still see in lists.
async fn rows_of(
    db: &DatabaseConnection,
    seen_by: &Caller,
    ids: &[i64],
) -> DbResult<HashMap<i64, location::Model>> {
    let (placeholders, mut values) = padded(ids.iter().map(|id| *id as u64));
    let mut sql = format!("SELECT {} FROM location WHERE id IN ({placeholders})", location::COLUMNS);
    if let Some(user) = limited_to(seen_by) {
        sql.push_str(
            " AND (owner_id = ? OR EXISTS (SELECT 1 FROM member \
               WHERE member.location_id = location.id AND member.user_id = ?))",
        );
        values.extend([Value::from(user), Value::from(user)]);
    }
    let rows =
        db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    let mut by_id = HashMap::with_capacity(rows.len());
    for row in rows {
        let id = row.try_get_by_index(0)?;
        match location::Model::from_columns(&row) {
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
