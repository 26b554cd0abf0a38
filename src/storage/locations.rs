//! Reading locations: one, a page of all, a page of those in a box or near a point.
//!
//! Spatial pages go through the index first and are then tested exactly, row by row as they stream in;
//! what is kept meanwhile is a few bytes a match, whatever the size of the geometries.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use futures_util::TryStreamExt;
use geo::{CoordsIter, Geometry};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, PaginatorTrait, QueryFilter,
    QueryOrder, QueryResult, QuerySelect, Statement, StreamTrait, TransactionTrait,
};

use super::{
    area,
    connect::Store,
    entity::location::{self, Entity},
    geometry::Plane,
    rows::id_list,
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

impl Page {
    /// This part of a whole result.
    fn of<T>(self, all: Vec<T>) -> impl Iterator<Item = T> {
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
        all.into_iter().skip(offset).take(self.limit as usize)
    }
}

/// A geometry with more positions than this is tested off the threads that serve everybody else.
const LARGE: usize = 1_000;

impl Store {
    /// One location, as last committed.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn location(&self, id: LocationId) -> Result<Option<Location>> {
        let read = async || Entity::find_by_id(id.get() as i64).one(&self.reader()?).await;
        self.answered(read).await?.map(Location::try_from).transpose()
    }

    /// The newest versions of those of some locations that are there.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn versions(&self, ids: &[LocationId]) -> Result<Vec<(LocationId, u64)>> {
        self.answered(|| async { versions(&self.reader()?, ids).await }).await
    }

    /// A page of all locations, newest-created first, then higher id; and how many there are.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn locations(&self, page: Page) -> Result<(Vec<Location>, u64)> {
        let read = || async {
            let tx = self.reader()?.begin().await?;
            let total = Entity::find().count(&tx).await?;
            let newest_first =
                Entity::find().order_by_desc(location::Column::CreatedAt).order_by_desc(location::Column::Id);
            let rows = newest_first.offset(page.offset).limit(page.limit).all(&tx).await?;
            tx.commit().await?;
            Ok((rows, total))
        };
        let (rows, total) = self.answered(read).await?;
        Ok((rows.into_iter().map(Location::try_from).collect::<Result<_>>()?, total))
    }

    /// A page of the locations that touch the box, newest-created first, then higher id.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn locations_in(&self, bbox: &Bbox, page: Page) -> Result<Vec<Location>> {
        let read = || async {
            let tx = self.reader()?.begin().await?;
            let exact = bbox.clone();
            let test = move |geometry: &Geometry| exact.intersects(geometry).then_some(());
            let mut found = self.passing(&tx, bbox.rects(), test).await?;
            // Not ORDER BY: MySQL would sort the geometries along, and has not the memory for large ones.
            found.sort_unstable_by_key(|((), created_at, id)| Reverse((*created_at, *id)));
            finish(tx, page.of(found).map(|(_, _, id)| id).collect()).await
        };
        let rows = self.answered(read).await?;
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
        let read = || async {
            let tx = self.reader()?.begin().await?;
            let (exact, bbox) = (near.clone(), bbox.cloned());
            let test = move |geometry: &Geometry| {
                let distance_m = exact.distance_m(geometry)?;
                bbox.as_ref().is_none_or(|bbox| bbox.intersects(geometry)).then_some(distance_m)
            };
            let mut found = self.passing(&tx, &near.rects(), test).await?;
            found.sort_unstable_by(|(a_m, _, a), (b_m, _, b)| a_m.total_cmp(b_m).then(b.cmp(a)));
            let (distances, ids): (Vec<_>, Vec<_>) =
                page.of(found).map(|(distance_m, _, id)| (distance_m, id)).unzip();
            Ok((finish(tx, ids).await?, distances))
        };
        let (rows, distances) = self.answered(read).await?;
        let locations = rows.into_iter().map(Location::try_from);
        locations.zip(distances).map(|(location, distance_m)| Ok((location?, distance_m))).collect()
    }

    /// What of the locations whose index box meets one of `rects` passes the exact test: what the test
    /// says, time of creation, id. Between two candidates others get their turn, and a caller that has
    /// gone away ends it.
    async fn passing<T: Send + 'static>(
        &self,
        tx: &DatabaseTransaction,
        rects: &[geo::Rect],
        test: impl Fn(&Geometry) -> Option<T> + Send + Sync + 'static,
    ) -> DbResult<Vec<(T, i64, i64)>> {
        let (meeting, values) = area::meeting(self.backend(), rects);
        let sql = format!(
            "SELECT location.id, location.created_at, location.geometry FROM ({meeting}) AS met \
             JOIN location ON location.id = met.location_id"
        );
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        let mut candidates = tx.stream_raw(statement).await?;
        let test = Arc::new(test);
        let mut passed = Vec::new();
        while let Some(row) = candidates.try_next().await? {
            let Plane(geometry) = row.try_get("", "geometry")?;
            let said = if geometry.coords_count() <= LARGE {
                test(&geometry)
            } else {
                let test = test.clone();
                let said = tokio::task::spawn_blocking(move || test(&geometry)).await;
                said.map_err(|e| DbErr::Custom(format!("exact test: {e}")))?
            };
            if let Some(said) = said {
                passed.push((said, row.try_get("", "created_at")?, row.try_get("", "id")?));
            }
        }
        Ok(passed)
    }
}

/// See [`Store::versions`].
pub async fn versions(db: &impl ConnectionTrait, ids: &[LocationId]) -> DbResult<Vec<(LocationId, u64)>> {
    let (placeholders, values) = id_list(ids);
    let sql = format!("SELECT id, version FROM location WHERE id IN ({placeholders})");
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let version = |row: QueryResult| {
        let (id, version): (i64, i64) = (row.try_get("", "id")?, row.try_get("", "version")?);
        Ok(LocationId::new(id as u64).map(|id| (id, version as u64)))
    };
    db.query_all_raw(statement).await?.into_iter().filter_map(|row| version(row).transpose()).collect()
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
