//! How many locations a list has in all, without counting very many of them for every page.
//!
//! MySQL keeps no number of rows: it counts them. Up to [`COUNTED_ANEW`] that takes no time and is done each time. A
//! larger count is kept for a second; above [`COUNTED`] one list is counted at a time, and its count is kept for
//! longer, in proportion to what it took.

use std::time::Instant;

use sea_orm::{Statement, Value};

use super::listing::{limited_to, seen};
use crate::{
    domain::{access::Caller, error::Result},
    storage::{
        pool::{SEARCH_HINT, Store},
        sql::count,
    },
};

/// Up to so many locations are counted anew for every page.
const COUNTED_ANEW: u64 = 1_000;
/// Up to so many are counted by whoever asks, without a turn.
const COUNTED: u64 = 10_000;
impl Store {
    /// How many locations somebody sees in lists. Exact up to 1,000, from there as it was a moment ago.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub(in crate::storage) async fn total(&self, seen_by: &Caller) -> Result<u64> {
        let list = limited_to(seen_by);
        // Nobody else's list begins with NULL, so a guest's empty one may be kept as well.
        let key = list.as_ref().map(|user| user.unwrap_or(-1));
        if let Some(total) = self.totals.get(key) {
            return Ok(total);
        }
        let (few, started) = (count_of(list, Some(COUNTED + 1)), Instant::now());
        let few =
            self.read_list(|| async { count(&self.list_reader()?, self.statement(&few)).await }).await?;
        if few <= COUNTED {
            if few > COUNTED_ANEW {
                self.totals.insert(key, few, started.elapsed());
            }
            return Ok(few);
        }
        let _turn = self.totals.wait_for_turn().await;
        if let Some(total) = self.totals.get(key) {
            return Ok(total);
        }
        let (all, started) = (count_of(list, None), Instant::now());
        let all = || async { count(&self.list_reader()?, self.statement(&all)).await };
        let total = self.search(all).await?;
        self.totals.insert(key, total, started.elapsed());
        Ok(total)
    }

    fn statement(&self, (sql, values): &(String, Vec<Value>)) -> Statement {
        Statement::from_sql_and_values(self.backend(), sql, values.iter().cloned())
    }
}

/// A query for the length of a list; with `most`, of no more than so many of all locations, or of a user's own.
fn count_of(list: Option<Option<i64>>, most: Option<u64>) -> (String, Vec<Value>) {
    let (rows, values) = match (list, most) {
        (Some(user), most) => seen(user, most),
        (None, Some(most)) => (format!("SELECT id FROM location LIMIT {most}"), Vec::new()),
        (None, None) => ("SELECT id FROM location".to_owned(), Vec::new()),
    };
    (format!("SELECT {SEARCH_HINT} COUNT(*) FROM ({rows}) AS listed"), values)
}
