//! Pages of lists: which locations are on a page is found first, their rows are read in pieces.
//!
//! An ordinary page is one statement, because its rows are small and come with their ids ([`super::entries`]). Between
//! two pieces ([`super::pieces`]) nothing is held in the database: a location is shown as it is when its piece is read,
//! and is left out if it has been deleted meanwhile, if the caller may no longer see it, or if it no longer passes the
//! filter. Spatial pages are found in [`super::search`], totals in [`super::totals`].

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use sea_orm::DatabaseConnection;

use super::{
    entries::{Entry, SMALL_ROW_BYTES, columns, log_unreadable, read_entries, read_rows},
    filter::Filter,
    locations::Page,
    pieces::{PIECE_BYTES, largest_piece, piece_len},
    visible::Visible,
};
use crate::{
    domain::{
        access::Caller,
        error::{Error, Result},
        location::Location,
    },
    storage::{
        error::{DbResult, unreadable},
        pool::{SEARCH_HINT, Store},
        sql::with_values,
    },
};

/// A page of a list, read in pieces with [`Store::read_piece`].
#[derive(Debug)]
pub struct Listing {
    /// The entries that are still to be read, in the order of the page.
    entries: VecDeque<Entry>,
    /// The locations that the caller sees, which is asked again with every row that is read later.
    visible: Visible,
    /// `None`: the list is not spatial.
    filter: Option<Arc<Filter>>,
}

impl Listing {
    /// A page of these entries. It keeps rows of one piece at most; the others are read again in their turn.
    pub fn new(mut entries: Vec<Entry>, visible: Visible, filter: Option<Arc<Filter>>) -> Self {
        let mut kept = 0;
        for entry in &mut entries {
            kept += entry.bytes;
            if kept > PIECE_BYTES {
                entry.row = None;
            }
        }
        Self { entries: entries.into(), visible, filter }
    }

    /// Whether everything is read.
    pub fn is_read(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of its largest piece, as far as is known.
    pub fn largest_piece(&self) -> usize {
        largest_piece(&self.entries.iter().map(|entry| entry.bytes).collect::<Vec<_>>())
    }

    /// Whether the next piece must be read from the database.
    pub fn needs_a_read(&self) -> bool {
        self.entries.iter().take(self.piece_len()).any(|entry| entry.row.is_none())
    }

    fn piece_len(&self) -> usize {
        piece_len(self.entries.iter().map(|entry| entry.bytes))
    }
}

/// A location of a page, and its distance in a list by distance.
pub type Shown = (Location, Option<f64>);

impl Store {
    /// Finds a page of the locations that a caller sees, newest-created first, then the higher id; and counts them all.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn locations(&self, seen_by: &Caller, page: Page) -> Result<(Listing, u64)> {
        let visible = Visible::to(seen_by);
        let read = async |db: DatabaseConnection| read_newest(&db, visible, page).await;
        let mut entries =
            if page.is_deep() { self.search(read).await? } else { self.read_list(read).await? };
        // The database is not asked to sort: MySQL would sort the geometries along, and lacks memory for large ones.
        entries.sort_unstable_by_key(|entry| Reverse((entry.created_at, entry.id)));
        let found = entries.len() as u64;
        let total = if found < page.limit && (found > 0 || page.offset == 0) {
            // The page ends with the list.
            page.offset + found
        } else {
            let least = if found > 0 { page.offset + found } else { 0 };
            self.total(visible).await?.max(least)
        };
        Ok((Listing::new(entries, visible, None), total))
    }

    /// Reads the next piece of a page. A row that cannot be read is left out and logged: it breaks its own location
    /// and not the list.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn read_piece(&self, listing: &mut Listing) -> Result<Vec<Shown>> {
        let piece = listing.piece_len();
        let is_missing = |entry: &&Entry| entry.row.is_none();
        let missing: Vec<_> = listing.entries.iter().take(piece).filter(is_missing).map(|e| e.id).collect();
        let mut rows = HashMap::new();
        if !missing.is_empty() {
            let visible = listing.visible;
            rows = self.read_list(async |db| read_rows(&db, visible, &missing).await).await?;
        }
        let mut shown = Vec::with_capacity(piece);
        for entry in listing.entries.drain(..piece) {
            let Some(row) = entry.row.or_else(|| rows.remove(&entry.id)) else { continue };
            let mut distance_m = entry.distance_m;
            if let Some(filter) = listing.filter.as_ref().filter(|_| row.version != entry.version) {
                match filter.test(Cow::Borrowed(&row.geometry.0)).await.map_err(Error::internal)? {
                    Some(now_m) => distance_m = distance_m.map(|_| now_m),
                    None => continue,
                }
            }
            match Location::try_from(row) {
                Ok(location) => shown.push((location, distance_m)),
                Err(error) => log_unreadable(entry.id, unreadable(error)),
            }
        }
        Ok(shown)
    }
}

/// Reads the entries of a plain page, in no order. It is one statement, which has a snapshot to itself.
async fn read_newest(db: &DatabaseConnection, visible: Visible, page: Page) -> DbResult<Vec<Entry>> {
    let (from, mut values) = match visible.query(Some(page.offset + page.limit)) {
        None => ("location".to_owned(), Vec::new()),
        Some((seen, values)) => (format!("({seen}) AS seen"), values),
    };
    // Only ids are passed over, not rows: the index has these two columns.
    let ids =
        format!("SELECT id AS listed_id FROM {from} ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?");
    values.extend([page.limit.into(), page.offset.into()]);
    let columns = columns(SMALL_ROW_BYTES);
    let sql = format!(
        "SELECT {SEARCH_HINT} {columns} FROM ({ids}) AS page JOIN location ON location.id = page.listed_id"
    );
    read_entries(db, with_values(db, &sql, values)).await
}
