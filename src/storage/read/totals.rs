//! Counting the locations of a whole list, but not very many of them for every page.
//!
//! MySQL keeps no number of rows: it counts them. Up to [`MAX_UNCACHED`] that takes no time and is done each time. A
//! larger total is kept for a second. Above [`MAX_QUICK`] one list is counted at a time, and its total is kept for
//! longer, in proportion to what it took ([`super::total_cache`]).

use std::time::Instant;

use sea_orm::DatabaseConnection;

use super::visible::Visible;
use crate::{
    domain::error::Result,
    storage::{
        error::DbResult,
        pool::{SEARCH_HINT, Store},
        sql::{count, with_values},
    },
};

/// A list with at most so many locations is counted anew for every page.
const MAX_UNCACHED: u64 = 1_000;
/// A list with at most so many locations is counted without waiting for a turn.
const MAX_QUICK: u64 = 10_000;

impl Store {
    /// Counts the locations that somebody sees in lists: exactly up to 1,000, above that as they were a moment ago.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub(in crate::storage) async fn total(&self, visible: Visible) -> Result<u64> {
        let known = || self.totals.get(visible, Instant::now());
        if let Some(total) = known() {
            return Ok(total);
        }
        let started = Instant::now();
        let few = self.read_list(|db| count_visible(db, visible, Some(MAX_QUICK + 1))).await?;
        if few <= MAX_QUICK {
            if few > MAX_UNCACHED {
                self.totals.insert(visible, few, started.elapsed(), Instant::now());
            }
            return Ok(few);
        }
        let _turn = self.totals.turn.lock().await;
        if let Some(total) = known() {
            return Ok(total);
        }
        let started = Instant::now();
        let total = self.search(|db| count_visible(db, visible, None)).await?;
        self.totals.insert(visible, total, started.elapsed(), Instant::now());
        Ok(total)
    }
}

/// Counts visible locations; with `most`, no more than so many of all locations, or of a user's own.
async fn count_visible(db: DatabaseConnection, visible: Visible, most: Option<u64>) -> DbResult<u64> {
    let (rows, values) = visible.query(most).unwrap_or_else(|| {
        let limit = most.map(|most| format!("LIMIT {most}")).unwrap_or_default();
        (format!("SELECT id FROM location {limit}"), Vec::new())
    });
    let sql = format!("SELECT {SEARCH_HINT} COUNT(*) FROM ({rows}) AS listed");
    count(&db, with_values(&db, &sql, values)).await
}
