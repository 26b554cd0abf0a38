//! The exact test of a spatial list, and the ranking of what passes it.

use std::{borrow::Cow, cmp::Ordering, sync::Arc};

use geo::{CoordsIter, Geometry};
use sea_orm::DbErr;

use super::locations::Page;
use crate::{
    domain::{area::Bbox, distance::Near},
    heavy,
    storage::error::DbResult,
};

/// A geometry with more positions than this is tested off the threads that serve everybody else: where each edge is
/// equally near, a thousand take tens of milliseconds.
const MAX_LIGHT_POSITIONS: usize = 16;
/// The most matches that may come before the end of a page. They are kept while it is found: some 5 MiB.
const MAX_RANKED: usize = 200_000;

/// A box, a circle, or both: a location must touch them to be in a list.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The box.
    pub bbox: Option<Bbox>,
    /// The circle. The list is then by distance from its centre.
    pub near: Option<Near>,
}

impl Filter {
    /// Rectangles that together hold every location which can pass.
    pub fn rects(&self) -> Vec<geo::Rect> {
        match (&self.near, &self.bbox) {
            (Some(near), _) => near.rects(),
            (None, Some(bbox)) => bbox.rects().to_vec(),
            (None, None) => Vec::new(),
        }
    }

    /// Tests a geometry. Returns its distance, which is 0 if there is no circle. `None`: it does not pass. What takes
    /// long is done off the threads that serve everybody else.
    pub async fn test(self: &Arc<Self>, geometry: Cow<'_, Geometry>) -> DbResult<Option<f64>> {
        if geometry.coords_count() <= MAX_LIGHT_POSITIONS {
            return Ok(self.test_now(&geometry));
        }
        let (filter, geometry) = (self.clone(), geometry.into_owned());
        let tested = heavy::run(move || filter.test_now(&geometry)).await;
        tested.map_err(|e| DbErr::Custom(format!("exact test: {e}")))
    }

    fn test_now(&self, geometry: &Geometry) -> Option<f64> {
        let distance_m = self.near.as_ref().map_or(Some(0.0), |near| near.distance_m(geometry))?;
        self.bbox.as_ref().is_none_or(|bbox| bbox.intersects(geometry)).then_some(distance_m)
    }

    /// Nearest first, or newest-created first without a circle; then the higher id.
    fn order(&self, a: &Match, b: &Match) -> Ordering {
        match self.near {
            Some(_) => a.distance_m.total_cmp(&b.distance_m).then(b.id.cmp(&a.id)),
            None => (b.created_at, b.id).cmp(&(a.created_at, a.id)),
        }
    }
}

/// A location that has passed the exact test.
pub struct Match {
    pub distance_m: f64,
    pub created_at: i64,
    pub id: i64,
}

/// The first matches in the order of a filter.
pub struct Ranking<'a> {
    filter: &'a Filter,
    /// As many are wanted. At most twice as many are kept, or [`MAX_RANKED`].
    wanted: usize,
    matches: Vec<Match>,
}

impl<'a> Ranking<'a> {
    /// A ranking of the first `wanted` matches.
    pub fn new(filter: &'a Filter, wanted: usize) -> Self {
        Self { filter, wanted, matches: Vec::new() }
    }

    /// Adds a match. Returns `false` if the page is too deep: more matches would have to be kept.
    pub fn push(&mut self, found: Match) -> bool {
        self.matches.push(found);
        if self.wanted <= MAX_RANKED / 2 && self.matches.len() >= 2 * self.wanted {
            self.matches.select_nth_unstable_by(self.wanted - 1, |a, b| self.filter.order(a, b));
            self.matches.truncate(self.wanted);
        }
        self.matches.len() <= MAX_RANKED
    }

    /// The matches of a page, in order.
    pub fn page(mut self, page: Page) -> Vec<Match> {
        // The database is not asked to sort: MySQL would sort the geometries along, and lacks memory for large ones.
        self.matches.sort_unstable_by(|a, b| self.filter.order(a, b));
        let offset = usize::try_from(page.offset).unwrap_or(usize::MAX);
        self.matches.into_iter().skip(offset).take(page.limit as usize).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_keeps_what_a_page_needs_and_not_everything() {
        let filter = Filter { bbox: None, near: Near::parse("0,0", "1").ok() };
        let ranked = |wanted: usize, count: usize| {
            let mut ranking = Ranking::new(&filter, wanted);
            // Far ones first.
            let mut fits = true;
            for n in (0..count).rev() {
                fits &= ranking.push(Match { distance_m: n as f64, created_at: 0, id: n as i64 });
                assert!(ranking.matches.len() <= wanted.saturating_mul(2).min(MAX_RANKED + 1));
                if !fits {
                    return None;
                }
            }
            let page = ranking.page(Page { offset: wanted as u64 - 3, limit: 3 });
            Some(page.iter().map(|found| found.id).collect::<Vec<_>>())
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
