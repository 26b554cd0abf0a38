//! Finding the page of a spatial list: through the index first, then by an exact test of each candidate.
//!
//! A few small candidates are kept whole and answered from, in one statement. Else a few bytes are kept of each
//! match, whatever its size, of no more matches than the page can need. Searches have connections and a total time of
//! their own ([`Store::search`]); whose turn it is, the service decides.

use std::{borrow::Cow, cmp::Ordering, collections::HashMap, fmt::Write as _, sync::Arc};

use futures_util::TryStreamExt;
use geo::{CoordsIter, Geometry};
use sea_orm::{DatabaseTransaction, DbErr, Statement, StreamTrait, TransactionTrait};

use super::{
    listing::{Entry, Listing, columns, entries_of, entry, limited_to, log_unreadable, seen},
    locations::Page,
};
use crate::{
    domain::{
        access::Caller,
        area::Bbox,
        distance::Near,
        error::{Code, Error, Result},
    },
    heavy,
    storage::{
        error::DbResult,
        geometry::Plane,
        index,
        pool::{SEARCH_HINT, Store},
    },
};

/// A geometry with more positions than this is tested off the threads that serve everybody else: where each edge is
/// equally near, a thousand take tens of milliseconds.
const LARGE: usize = 16;
/// So many candidates may be kept whole, if they are small: 4 MiB of bytes at most.
const FEW: usize = 256;
/// The bytes of a candidate that is small.
const FEW_BYTES: usize = 16 * 1024;
/// So many matches may come before the end of a page, and are kept while it is found: some 5 MiB.
const MAX_RANKED: usize = 200_000;

/// What a location must touch to be in a list: a box, a circle, or both.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The box.
    pub bbox: Option<Bbox>,
    /// The circle; the list is then by distance from its centre.
    pub near: Option<Near>,
}

impl Filter {
    /// `None`: the geometry does not pass. Else how far away it is, which is 0 where nobody asks.
    fn exact(&self, geometry: &Geometry) -> Option<f64> {
        let distance_m = self.near.as_ref().map_or(Some(0.0), |near| near.distance_m(geometry))?;
        self.bbox.as_ref().is_none_or(|bbox| bbox.intersects(geometry)).then_some(distance_m)
    }

    /// The same, off the threads that serve everybody else where it takes long.
    pub(in crate::storage) async fn test(
        self: &Arc<Self>,
        geometry: Cow<'_, Geometry>,
    ) -> DbResult<Option<f64>> {
        if geometry.coords_count() <= LARGE {
            return Ok(self.exact(&geometry));
        }
        let (filter, geometry) = (self.clone(), geometry.into_owned());
        let tested = heavy::run(move || filter.exact(&geometry)).await;
        tested.map_err(|e| DbErr::Custom(format!("exact test: {e}")))
    }

    /// By distance, or newest first; then higher id.
    fn order(&self, a: &Passed, b: &Passed) -> Ordering {
        match self.near {
            Some(_) => a.distance_m.total_cmp(&b.distance_m).then(b.id.cmp(&a.id)),
            None => (b.created_at, b.id).cmp(&(a.created_at, a.id)),
        }
    }
}

/// A location that has passed the exact test.
struct Passed {
    distance_m: f64,
    created_at: i64,
    id: i64,
}

/// The first so many of what passes, in the order of a filter.
struct Ranking<'a> {
    filter: &'a Filter,
    wanted: usize,
    /// At most twice as many as are wanted, or as may be kept.
    passed: Vec<Passed>,
}

impl Ranking<'_> {
    /// `false`: the page is too deep, more would have to be kept.
    fn push(&mut self, passed: Passed) -> bool {
        self.passed.push(passed);
        if self.wanted <= MAX_RANKED / 2 && self.passed.len() >= 2 * self.wanted {
            self.passed.select_nth_unstable_by(self.wanted - 1, |a, b| self.filter.order(a, b));
            self.passed.truncate(self.wanted);
        }
        self.passed.len() <= MAX_RANKED
    }

    fn page(mut self, page: Page) -> Vec<Passed> {
        // Not ORDER BY: MySQL would sort the geometries along, and has not the memory for large ones.
        self.passed.sort_unstable_by(|a, b| self.filter.order(a, b));
        let offset = usize::try_from(page.offset).unwrap_or(usize::MAX);
        self.passed.into_iter().skip(offset).take(page.limit as usize).collect()
    }
}

impl Store {
    /// A page of the locations somebody may see among others that pass a filter: nearest first, or newest-created
    /// first, then higher id.
    ///
    /// # Errors
    /// `invalid_parameter` where the page is too deep; `storage_unavailable`, `internal`.
    pub async fn locations_in(&self, seen_by: &Caller, filter: Filter, page: Page) -> Result<Listing> {
        let filter = Arc::new(filter);
        let rects = match (&filter.near, &filter.bbox) {
            (Some(near), _) => near.rects(),
            (None, Some(bbox)) => bbox.rects().to_vec(),
            (None, None) => Vec::new(),
        };
        let search = || async {
            match self.few_passing(seen_by, &rects, &filter, page).await? {
                None => self.passing(seen_by, &rects, &filter, page).await,
                few => Ok(few),
            }
        };
        let Some(mut entries) = self.search(search).await? else {
            let detail = "too many locations come before this page; ask for a smaller area";
            return Err(Error::new(Code::InvalidParameter, detail));
        };
        if filter.near.is_none() {
            entries.iter_mut().for_each(|entry| entry.distance_m = None);
        }
        Ok(Listing::new(entries, seen_by, Some(filter)))
    }

    /// A query for locations somebody may see whose index box meets one of `rects`.
    fn candidates(&self, columns: &str, seen_by: &Caller, rects: &[geo::Rect], limit: &str) -> Statement {
        let (meeting, mut values) = index::meeting(self.backend(), rects);
        let mut sql = format!(
            "SELECT {SEARCH_HINT} {columns} FROM ({meeting}) AS met \
             JOIN location ON location.id = met.location_id"
        );
        if let Some(user) = limited_to(seen_by) {
            let (seen, more) = seen(user, None);
            let _ = write!(sql, " JOIN ({seen}) AS seen ON seen.id = met.location_id");
            values.extend(more);
        }
        sql.push_str(limit);
        Statement::from_sql_and_values(self.backend(), sql, values)
    }

    /// The page from candidates that were read whole, in one round trip: a statement has a snapshot to itself.
    /// `None`: there are too many candidates, or too large ones, to keep them all.
    async fn few_passing(
        &self,
        seen_by: &Caller,
        rects: &[geo::Rect],
        filter: &Arc<Filter>,
        page: Page,
    ) -> DbResult<Option<Vec<Entry>>> {
        let limit = format!(" LIMIT {}", FEW + 1);
        let statement = self.candidates(&columns(FEW_BYTES), seen_by, rects, &limit);
        let lister = self.list_reader()?;
        let mut candidates = self.wait_in_search(lister.stream_raw(statement)).await?;
        let mut ranking = Ranking { filter, wanted: usize::MAX, passed: Vec::new() };
        let (mut seen, mut entries) = (0, HashMap::new());
        while let Some(row) = self.wait_in_search(candidates.try_next()).await? {
            let entry = entry(&row, FEW_BYTES)?;
            seen += 1;
            if seen > FEW || entry.bytes > FEW_BYTES {
                return Ok(None);
            }
            let Some(row) = &entry.row else {
                log_unreadable(entry.id, "its columns");
                continue;
            };
            if let Some(distance_m) = filter.test(Cow::Borrowed(&row.geometry.0)).await? {
                ranking.push(Passed { distance_m, created_at: entry.created_at, id: entry.id });
                entries.insert(entry.id, entry);
            }
            // As in `ranked`.
            tokio::task::consume_budget().await;
        }
        Ok(Some(in_order(ranking.page(page), entries)))
    }

    /// The page from candidates of any number and size. Between two of them others get their turn, and a caller that
    /// has gone away ends it. `None`: the page is too deep.
    async fn passing(
        &self,
        seen_by: &Caller,
        rects: &[geo::Rect],
        filter: &Arc<Filter>,
        page: Page,
    ) -> DbResult<Option<Vec<Entry>>> {
        // A snapshot, so that what is found is what is shown, as far as it is read with the page.
        let tx = self.wait_in_search(self.list_reader()?.begin()).await?;
        let wanted = usize::try_from(page.offset + page.limit).unwrap_or(usize::MAX);
        let ranking = Ranking { filter, wanted, passed: Vec::new() };
        let Some(ranking) = self.ranked(&tx, seen_by, rects, filter, ranking).await? else { return Ok(None) };
        let page = ranking.page(page);
        let ids: Vec<_> = page.iter().map(|passed| passed.id).collect();
        let entries = self.wait_in_search(entries_of(&tx, &ids)).await?;
        self.wait_in_search(tx.commit()).await?;
        Ok(Some(in_order(page, entries.into_iter().map(|entry| (entry.id, entry)).collect())))
    }

    async fn ranked<'a>(
        &self,
        tx: &DatabaseTransaction,
        seen_by: &Caller,
        rects: &[geo::Rect],
        filter: &Arc<Filter>,
        mut ranking: Ranking<'a>,
    ) -> DbResult<Option<Ranking<'a>>> {
        let columns = "location.id, location.created_at, location.geometry";
        let statement = self.candidates(columns, seen_by, rects, "");
        let mut candidates = self.wait_in_search(tx.stream_raw(statement)).await?;
        while let Some(row) = self.wait_in_search(candidates.try_next()).await? {
            let (id, created_at): (i64, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let Ok(Plane(geometry)) = row.try_get_by_index(2) else {
                log_unreadable(id, "its geometry");
                continue;
            };
            if let Some(distance_m) = filter.test(Cow::Owned(geometry)).await?
                && !ranking.push(Passed { distance_m, created_at, id })
            {
                return Ok(None);
            }
            // The rows that have come already are there at once: without this the loop would keep its thread.
            tokio::task::consume_budget().await;
        }
        Ok(Some(ranking))
    }
}

/// The entries of what passed, in its order and with its distances.
fn in_order(page: Vec<Passed>, mut entries: HashMap<i64, Entry>) -> Vec<Entry> {
    let entry =
        |passed: Passed| Some(Entry { distance_m: Some(passed.distance_m), ..entries.remove(&passed.id)? });
    page.into_iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_keeps_what_a_page_needs_and_not_everything() {
        let filter = Filter { bbox: None, near: Near::parse("0,0", "1").ok() };
        let ranked = |wanted: usize, count: usize| {
            let mut ranking = Ranking { filter: &filter, wanted, passed: Vec::new() };
            // Far ones first.
            let mut fits = true;
            for n in (0..count).rev() {
                fits &= ranking.push(Passed { distance_m: n as f64, created_at: 0, id: n as i64 });
                assert!(ranking.passed.len() <= wanted.saturating_mul(2).min(MAX_RANKED + 1));
                if !fits {
                    return None;
                }
            }
            let page = ranking.page(Page { offset: wanted as u64 - 3, limit: 3 });
            Some(page.iter().map(|passed| passed.id).collect::<Vec<_>>())
        };
        assert_eq!(ranked(3, 10), Some(vec![0, 1, 2]));
        assert_eq!(ranked(20, 1_000), Some(vec![17, 18, 19]));
        assert_eq!(ranked(20, 18), Some(vec![17]));
        assert_eq!(ranked(20, 5), Some(vec![]));
        assert_eq!(ranked(1 << 40, 1_000), Some(vec![]), "deep, and few match");
        assert_eq!(ranked(1 << 40, MAX_RANKED + 1), None, "deep, and many match");
        assert_eq!(ranked(MAX_RANKED / 2, MAX_RANKED + 1).map(|page| page.len()), Some(3));
    }
}
