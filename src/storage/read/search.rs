//! Finding the page of a spatial list: through the index first, then by an exact test of each candidate.
//!
//! A few small candidates are kept whole and answered from, in one statement. Otherwise a few bytes are kept of each
//! match, whatever its size, and of no more matches than the page can need. Searches have connections and a total time
//! of their own ([`Store::search`]); the service gives turns.

use std::{borrow::Cow, collections::HashMap, fmt::Write as _, sync::Arc};

use futures_util::TryStreamExt;
use sea_orm::{DatabaseConnection, DatabaseTransaction, Statement, StreamTrait, TransactionTrait};

use super::{
    entries::{Entry, columns, log_unreadable, read_entries_of},
    filter::{Filter, Match, Ranking},
    listing::Listing,
    locations::Page,
    visible::Visible,
};
use crate::{
    domain::{
        access::Caller,
        error::{Code, Error, Result},
    },
    storage::{
        error::DbResult,
        geometry::Plane,
        index,
        pool::{SEARCH_HINT, Store},
    },
};

/// The most candidates that are kept whole if each is small: 4 MiB of bytes at most.
const MAX_WHOLE_CANDIDATES: usize = 256;
/// The most bytes of a candidate that is kept whole.
const MAX_WHOLE_BYTES: usize = 16 * 1024;

/// A search under way.
struct Search<'a> {
    store: &'a Store,
    visible: Visible,
    rects: Vec<geo::Rect>,
    filter: Arc<Filter>,
    page: Page,
}

impl Store {
    /// Finds a page of the locations that a caller sees and that pass a filter: nearest first, or newest-created first
    /// without a circle; then the higher id.
    ///
    /// # Errors
    /// `invalid_parameter` where the page is too deep; `storage_unavailable`, `internal`.
    pub async fn locations_in(&self, seen_by: &Caller, filter: Filter, page: Page) -> Result<Listing> {
        let (visible, filter) = (Visible::to(seen_by), Arc::new(filter));
        let search = Search { store: self, visible, rects: filter.rects(), filter: filter.clone(), page };
        let Some(mut entries) = self.search(|db| search.find(db)).await? else {
            let detail = "too many locations come before this page; ask for a smaller area";
            return Err(Error::new(Code::InvalidParameter, detail));
        };
        if filter.near.is_none() {
            entries.iter_mut().for_each(|entry| entry.distance_m = None);
        }
        Ok(Listing::new(entries, visible, Some(filter)))
    }
}

impl Search<'_> {
    /// Finds the page. `None`: it is too deep.
    async fn find(&self, db: DatabaseConnection) -> DbResult<Option<Vec<Entry>>> {
        match self.find_among_few(&db).await? {
            None => self.find_among_many(&db).await,
            few => Ok(few),
        }
    }

    /// A query for visible locations whose index box meets one of the rectangles.
    fn candidates(&self, columns: &str, limit: &str) -> Statement {
        let backend = self.store.backend();
        let (meeting, mut values) = index::meeting(backend, &self.rects);
        let mut sql = format!(
            "SELECT {SEARCH_HINT} {columns} FROM ({meeting}) AS met \
             JOIN location ON location.id = met.location_id"
        );
        if let Some((seen, more)) = self.visible.query(None) {
            let _ = write!(sql, " JOIN ({seen}) AS seen ON seen.id = met.location_id");
            values.extend(more);
        }
        sql.push_str(limit);
        Statement::from_sql_and_values(backend, sql, values)
    }

    /// Finds the page among candidates that are read whole, in one round trip: a statement has a snapshot to itself.
    /// `None`: there are too many candidates, or too large ones, to keep them all.
    async fn find_among_few(&self, db: &DatabaseConnection) -> DbResult<Option<Vec<Entry>>> {
        let limit = format!(" LIMIT {}", MAX_WHOLE_CANDIDATES + 1);
        let statement = self.candidates(&columns(MAX_WHOLE_BYTES), &limit);
        let mut candidates = self.store.wait_in_search(db.stream_raw(statement)).await?;
        let mut ranking = Ranking::new(&self.filter, usize::MAX);
        let (mut seen, mut entries) = (0, HashMap::new());
        while let Some(row) = self.store.wait_in_search(candidates.try_next()).await? {
            let entry = Entry::from_columns(&row, MAX_WHOLE_BYTES)?;
            seen += 1;
            if seen > MAX_WHOLE_CANDIDATES || entry.bytes > MAX_WHOLE_BYTES {
                return Ok(None);
            }
            let Some(row) = &entry.row else {
                log_unreadable(entry.id, "its columns");
                continue;
            };
            if let Some(distance_m) = self.filter.test(Cow::Borrowed(&row.geometry.0)).await? {
                ranking.push(Match { distance_m, created_at: entry.created_at, id: entry.id });
                entries.insert(entry.id, entry);
            }
            // As in `rank`.
            tokio::task::consume_budget().await;
        }
        Ok(Some(in_order(ranking.page(self.page), entries)))
    }

    /// Finds the page among candidates of any number and size. Between two of them others get their turn, and the
    /// search ends when its caller has gone away. `None`: the page is too deep.
    async fn find_among_many(&self, db: &DatabaseConnection) -> DbResult<Option<Vec<Entry>>> {
        // A snapshot, so that what is found is what is shown, as far as it is read with the page.
        let tx = self.store.wait_in_search(db.begin()).await?;
        let Some(ranking) = self.rank(&tx).await? else { return Ok(None) };
        let page = ranking.page(self.page);
        let ids: Vec<_> = page.iter().map(|found| found.id).collect();
        let entries = self.store.wait_in_search(read_entries_of(&tx, &ids)).await?;
        self.store.wait_in_search(tx.commit()).await?;
        Ok(Some(in_order(page, entries.into_iter().map(|entry| (entry.id, entry)).collect())))
    }

    async fn rank(&self, tx: &DatabaseTransaction) -> DbResult<Option<Ranking<'_>>> {
        let wanted = usize::try_from(self.page.offset + self.page.limit).unwrap_or(usize::MAX);
        let mut ranking = Ranking::new(&self.filter, wanted);
        let statement = self.candidates("location.id, location.created_at, location.geometry", "");
        let mut candidates = self.store.wait_in_search(tx.stream_raw(statement)).await?;
        while let Some(row) = self.store.wait_in_search(candidates.try_next()).await? {
            let (id, created_at): (i64, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let Ok(Plane(geometry)) = row.try_get_by_index(2) else {
                log_unreadable(id, "its geometry");
                continue;
            };
            if let Some(distance_m) = self.filter.test(Cow::Owned(geometry)).await?
                && !ranking.push(Match { distance_m, created_at, id })
            {
                self.store.give_up_search();
                return Ok(None);
            }
            // The rows that have come already are there at once: without this the loop would keep its thread.
            tokio::task::consume_budget().await;
        }
        Ok(Some(ranking))
    }
}

/// The entries of matches, in their order and with their distances.
fn in_order(page: Vec<Match>, mut entries: HashMap<i64, Entry>) -> Vec<Entry> {
    let entry =
        |found: Match| Some(Entry { distance_m: Some(found.distance_m), ..entries.remove(&found.id)? });
    page.into_iter().filter_map(entry).collect()
}
