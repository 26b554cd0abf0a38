//! Reading locations: one, a page of all, a page of those in a box or near a point.
//!
//! Spatial pages go through the index first and are then tested exactly, row by row as they stream in;
//! what is kept meanwhile is a few bytes a match, whatever the size of the geometries.

use std::collections::HashMap;

use futures_util::{Stream, StreamExt, TryStreamExt};
use geo::CoordsIter;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, Statement, StreamTrait, TransactionTrait,
};

use super::{
    area,
    connect::Store,
    entity::location::{self, Entity},
    error::domain_error,
    geometry::Plane,
};
use crate::domain::{area::Bbox, distance::Near, error::Result, id::LocationId, location::Location};

type DbResult<T> = std::result::Result<T, DbErr>;

/// Which part of a result: rows to pass over, rows to take.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Rows before this page.
    pub offset: u64,
    /// Rows of this page at most.
    pub limit: u64,
}

/// A location that the index found and the filter has yet to test.
struct Candidate {
    id: i64,
    created_at: i64,
    geometry: geo::Geometry,
}

impl Store {
    /// One location, as last committed.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn location(&self, id: LocationId) -> Result<Option<Location>> {
        let row = Entity::find_by_id(id.get() as i64).one(&self.read).await.map_err(domain_error)?;
        row.map(Location::try_from).transpose()
    }

    /// A page of all locations, newest-created first, then higher id; and how many there are.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn locations(&self, page: Page) -> Result<(Vec<Location>, u64)> {
        let newest_first =
            Entity::find().order_by_desc(location::Column::CreatedAt).order_by_desc(location::Column::Id);
        let read = async {
            let tx = self.read.begin().await?;
            let total = Entity::find().count(&tx).await?;
            let rows = newest_first.offset(page.offset).limit(page.limit).all(&tx).await?;
            tx.commit().await?;
            Ok((rows, total))
        };
        let (rows, total) = read.await.map_err(domain_error)?;
        Ok((rows.into_iter().map(Location::try_from).collect::<Result<_>>()?, total))
    }

    /// A page of the locations that touch the box, newest-created first, then higher id.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn locations_in(&self, bbox: &Bbox, page: Page) -> Result<Vec<Location>> {
        let read = async {
            let tx = self.read.begin().await?;
            let mut within = Vec::new();
            let mut candidates = self.candidates(&tx, bbox.rects()).await?;
            while let Some(Candidate { id, created_at, geometry }) = candidates.try_next().await? {
                let bbox = bbox.clone();
                if exactly(geometry, move |geometry| bbox.intersects(geometry)).await? {
                    within.push((created_at, id));
                }
            }
            drop(candidates);
            // Not ORDER BY: MySQL would sort the geometries along, and has not the memory for large ones.
            within.sort_unstable_by(|a, b| b.cmp(a));
            let skipped = within.into_iter().skip(usize::try_from(page.offset).unwrap_or(usize::MAX));
            finish(tx, skipped.take(page.limit as usize).map(|(_, id)| id).collect()).await
        };
        let rows = read.await.map_err(domain_error)?;
        rows.into_iter().map(Location::try_from).collect()
    }

    /// A page of the locations within the radius (and the box, if there is one), nearest first, then
    /// higher id, each with its distance in metres.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn locations_near(
        &self,
        near: &Near,
        bbox: Option<&Bbox>,
        page: Page,
    ) -> Result<Vec<(Location, f64)>> {
        let read = async {
            let tx = self.read.begin().await?;
            let mut within = Vec::new();
            let mut candidates = self.candidates(&tx, &near.rects()).await?;
            while let Some(Candidate { id, geometry, .. }) = candidates.try_next().await? {
                let (near, bbox) = (near.clone(), bbox.cloned());
                let distance_m = exactly(geometry, move |geometry| {
                    near.distance_m(geometry).filter(|_| bbox.is_none_or(|bbox| bbox.intersects(geometry)))
                });
                within.extend(distance_m.await?.map(|distance_m| (distance_m, id)));
            }
            drop(candidates);
            within.sort_unstable_by(|(a_m, a), (b_m, b)| a_m.total_cmp(b_m).then(b.cmp(a)));
            let skipped = within.into_iter().skip(usize::try_from(page.offset).unwrap_or(usize::MAX));
            let (distances, ids): (Vec<_>, Vec<_>) = skipped.take(page.limit as usize).unzip();
            Ok((finish(tx, ids).await?, distances))
        };
        let (rows, distances) = read.await.map_err(domain_error)?;
        let locations = rows.into_iter().map(Location::try_from);
        locations.zip(distances).map(|(location, distance_m)| Ok((location?, distance_m))).collect()
    }

    /// Every location whose index box meets one of `rects`, as a stream.
    async fn candidates<'a>(
        &self,
        tx: &'a DatabaseTransaction,
        rects: &[geo::Rect],
    ) -> DbResult<impl Stream<Item = DbResult<Candidate>> + 'a> {
        let (meeting, values) = area::meeting(self.backend(), rects);
        let sql = format!(
            "SELECT location.id, location.created_at, location.geometry FROM ({meeting}) AS met \
             JOIN location ON location.id = met.location_id"
        );
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        let rows = tx.stream_raw(statement).await?;
        Ok(rows.map(|row| {
            let row = row?;
            let Plane(geometry) = row.try_get("", "geometry")?;
            Ok(Candidate { id: row.try_get("", "id")?, created_at: row.try_get("", "created_at")?, geometry })
        }))
    }
}

/// A geometry with more positions than this is tested off the threads that serve everybody else.
const LARGE: usize = 1_000;

/// Tests a candidate; between two, others get their turn, and a caller that has gone away ends it.
async fn exactly<T: Send + 'static>(
    geometry: geo::Geometry,
    test: impl FnOnce(&geo::Geometry) -> T + Send + 'static,
) -> DbResult<T> {
    if geometry.coords_count() <= LARGE {
        return Ok(test(&geometry));
    }
    let tested = tokio::task::spawn_blocking(move || test(&geometry)).await;
    tested.map_err(|e| DbErr::Custom(format!("exact test: {e}")))
}

/// The rows of `ids`, in that order, from the snapshot they were found in; and the end of the transaction.
async fn finish(tx: DatabaseTransaction, ids: Vec<i64>) -> DbResult<Vec<location::Model>> {
    let rows = match ids.is_empty() {
        true => Vec::new(),
        false => Entity::find().filter(location::Column::Id.is_in(ids.iter().copied())).all(&tx).await?,
    };
    tx.commit().await?;
    let mut by_id: HashMap<i64, location::Model> = rows.into_iter().map(|row| (row.id, row)).collect();
    Ok(ids.iter().filter_map(|id| by_id.remove(id)).collect())
}
