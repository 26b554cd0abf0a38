//! Reading locations: one, a page of all, a page of those in a box or near a point.
//!
//! Spatial pages go through the index first and are then tested exactly, row by row as they stream in. A few
//! small rows are kept meanwhile, and answered from; else a few bytes a match, whatever its size, and those of
//! the page are read again from the same snapshot.

use std::{cmp::Ordering, collections::HashMap, fmt::Write as _, sync::Arc};

use futures_util::TryStreamExt;
use geo::{CoordsIter, Geometry};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, Statement, StreamTrait, TransactionTrait, Value,
};

use super::{
    access, area,
    connect::Store,
    entity::location::{self, Entity},
    error::{DbResult, in_time},
    geometry::Plane,
    rows::id_list,
};
use crate::domain::{
    access::Caller, area::Bbox, distance::Near, error::Result, id::LocationId, location::Location,
};

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

/// Where a location stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// Which location.
    pub id: LocationId,
    /// Its newest version.
    pub version: u64,
    /// Counts the changes of its members and shares.
    pub grants: u64,
}

/// The id of a user who sees in lists only what they own or are a member of; `None`: somebody who sees all.
fn limited_to(by: &Caller) -> Option<Value> {
    match by {
        Caller::Anyone(_) | Caller::User { is_admin: true, .. } => None,
        Caller::User { id, .. } => Some((id.get() as i64).into()),
        // NULL is nobody's id.
        Caller::Guest(_) => Some(None::<i64>.into()),
    }
}

/// A query for `id` and `created_at` of what such a user sees, and its values. With `newest`, of their own
/// not more than the newest so many.
fn seen(user: Value, newest: Option<u64>) -> (String, Vec<Value>) {
    let order = newest.map_or("", |_| "ORDER BY created_at DESC, id DESC LIMIT ?");
    let sql = format!(
        "SELECT id, created_at FROM \
           (SELECT id, created_at FROM location WHERE owner_id = ? {order}) AS own \
         UNION SELECT location.id, location.created_at \
           FROM member JOIN location ON location.id = member.location_id WHERE member.user_id = ?"
    );
    (sql, [Some(user.clone()), newest.map(Value::from), Some(user)].into_iter().flatten().collect())
}

/// A geometry with more positions than this is tested off the threads that serve everybody else.
const LARGE: usize = 1_000;
/// So many candidates may be kept whole, if they are small: 4 MiB of bytes at most.
const FEW: usize = 256;
const IS_SMALL: &str = "OCTET_LENGTH(location.geometry) + OCTET_LENGTH(location.properties) <= 16384";

/// A location that has passed an exact test.
struct Passed<T> {
    /// What the test said.
    said: T,
    created_at: i64,
    id: i64,
}

impl Store {
    /// One location, as last committed.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn location(&self, id: LocationId) -> Result<Option<Location>> {
        let read = async || Entity::find_by_id(id.get() as i64).one(&self.reader()?).await;
        self.answered(read).await?.map(Location::try_from).transpose()
    }

    /// Where those of some locations stand that are there.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn versions(&self, ids: &[LocationId]) -> Result<Vec<Head>> {
        self.answered(|| async { versions(&self.reader()?, ids).await }).await
    }

    /// A page of the locations somebody may see among others, newest-created first, then higher id; and how
    /// many there are.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn locations(&self, seen_by: &Caller, page: Page) -> Result<(Vec<Location>, u64)> {
        let read = || async {
            let tx = self.reader()?.begin().await?;
            if let Some(user) = limited_to(seen_by) {
                let total = count_seen(&tx, user.clone()).await?;
                let ids = newest_seen(&tx, user, page).await?;
                return Ok((finish(tx, ids).await?, total));
            }
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

    /// A page of the locations somebody may see among others that touch the box, newest-created first, then higher id.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn locations_in(&self, seen_by: &Caller, bbox: &Bbox, page: Page) -> Result<Vec<Location>> {
        let read = || {
            let exact = bbox.clone();
            let test = move |geometry: &Geometry| exact.intersects(geometry).then_some(());
            let newest_first =
                |a: &Passed<()>, b: &Passed<()>| (b.created_at, b.id).cmp(&(a.created_at, a.id));
            self.found(seen_by, bbox.rects(), test, newest_first, page)
        };
        let found = self.computed(read).await?;
        found.into_iter().map(|(row, ())| Location::try_from(row)).collect()
    }

    /// A page of the locations somebody may see among others within the radius (and the box, if there is
    /// one), nearest first, then higher id, each with its distance in metres.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn locations_near(
        &self,
        seen_by: &Caller,
        near: &Near,
        bbox: Option<&Bbox>,
        page: Page,
    ) -> Result<Vec<(Location, f64)>> {
        let rects = near.rects();
        let read = || {
            let (exact, bbox) = (near.clone(), bbox.cloned());
            let test = move |geometry: &Geometry| {
                let distance_m = exact.distance_m(geometry)?;
                bbox.as_ref().is_none_or(|bbox| bbox.intersects(geometry)).then_some(distance_m)
            };
            let nearest_first =
                |a: &Passed<f64>, b: &Passed<f64>| a.said.total_cmp(&b.said).then(b.id.cmp(&a.id));
            self.found(seen_by, &rects, test, nearest_first, page)
        };
        let found = self.computed(read).await?;
        found.into_iter().map(|(row, distance_m)| Ok((Location::try_from(row)?, distance_m))).collect()
    }

    /// A page of what of the locations somebody may see has an index box that meets one of `rects`, and passes
    /// the exact test; with what the test said.
    async fn found<T: Send + 'static>(
        &self,
        seen_by: &Caller,
        rects: &[geo::Rect],
        test: impl Fn(&Geometry) -> Option<T> + Send + Sync + 'static,
        order: impl Fn(&Passed<T>, &Passed<T>) -> Ordering,
        page: Page,
    ) -> DbResult<Vec<(location::Model, T)>> {
        if let Some(mut few) = self.few_passing(seen_by, rects, &test).await? {
            few.sort_unstable_by(|(_, a), (_, b)| order(a, b));
            return Ok(page.of(few).map(|(row, passed)| (row, passed.said)).collect());
        }
        let tx = in_time(self.reader()?.begin()).await?;
        let mut all = self.passing(&tx, seen_by, rects, test).await?;
        // Not ORDER BY: MySQL would sort the geometries along, and has not the memory for large ones.
        all.sort_unstable_by(order);
        let (ids, said): (Vec<_>, Vec<_>) = page.of(all).map(|passed| (passed.id, passed.said)).unzip();
        Ok(in_time(finish(tx, ids)).await?.into_iter().zip(said).collect())
    }

    /// A query for locations somebody may see whose index box meets one of `rects`.
    fn candidates(&self, columns: &str, seen_by: &Caller, rects: &[geo::Rect], limit: &str) -> Statement {
        let (meeting, mut values) = area::meeting(self.backend(), rects);
        let mut sql = format!(
            "SELECT {columns} FROM ({meeting}) AS met JOIN location ON location.id = met.location_id"
        );
        if let Some(user) = limited_to(seen_by) {
            let (seen, more) = seen(user, None);
            let _ = write!(sql, " JOIN ({seen}) AS seen ON seen.id = met.location_id");
            values.extend(more);
        }
        sql.push_str(limit);
        Statement::from_sql_and_values(self.backend(), sql, values)
    }

    /// What passes, whole, in one round trip: a statement has a snapshot to itself. `None`: there are too many
    /// candidates, or too large ones, to keep them all.
    async fn few_passing<T>(
        &self,
        seen_by: &Caller,
        rects: &[geo::Rect],
        test: impl Fn(&Geometry) -> Option<T>,
    ) -> DbResult<Option<Vec<(location::Model, Passed<T>)>>> {
        // What is large stays in the database: whatever that sends has to be read, wanted or not.
        let columns = location::COLUMNS.split(", ").map(|column| match column {
            "location.geometry" | "location.altitudes" | "location.properties" => {
                format!("CASE WHEN {IS_SMALL} THEN {column} END")
            }
            _ => column.to_owned(),
        });
        let columns: Vec<_> = columns.chain([IS_SMALL.to_owned()]).collect();
        let limit = format!(" LIMIT {}", FEW + 1);
        let statement = self.candidates(&columns.join(", "), seen_by, rects, &limit);
        let reader = self.reader()?;
        let mut candidates = in_time(reader.stream_raw(statement)).await?;
        let (mut seen, mut passed) = (0, Vec::new());
        while let Some(row) = in_time(candidates.try_next()).await? {
            let is_small: i64 = row.try_get_by_index(columns.len() - 1)?;
            seen += 1;
            if seen > FEW || is_small == 0 {
                return Ok(None);
            }
            let row = location::Model::from_columns(&row)?;
            if let Some(said) = test(&row.geometry.0) {
                let passing = Passed { said, created_at: row.created_at, id: row.id };
                passed.push((row, passing));
            }
        }
        Ok(Some(passed))
    }

    /// What passes, of any number and size. Between two candidates others get their turn, and a caller that has
    /// gone away ends it.
    async fn passing<T: Send + 'static>(
        &self,
        tx: &DatabaseTransaction,
        seen_by: &Caller,
        rects: &[geo::Rect],
        test: impl Fn(&Geometry) -> Option<T> + Send + Sync + 'static,
    ) -> DbResult<Vec<Passed<T>>> {
        let columns = "location.id, location.created_at, location.geometry";
        let statement = self.candidates(columns, seen_by, rects, "");
        let mut candidates = in_time(tx.stream_raw(statement)).await?;
        let test = Arc::new(test);
        let mut passed = Vec::new();
        while let Some(row) = in_time(candidates.try_next()).await? {
            let Plane(geometry) = row.try_get("", "geometry")?;
            let said = if geometry.coords_count() <= LARGE {
                test(&geometry)
            } else {
                let test = test.clone();
                let said = tokio::task::spawn_blocking(move || test(&geometry)).await;
                said.map_err(|e| DbErr::Custom(format!("exact test: {e}")))?
            };
            if let Some(said) = said {
                let (created_at, id) = (row.try_get("", "created_at")?, row.try_get("", "id")?);
                passed.push(Passed { said, created_at, id });
            }
        }
        Ok(passed)
    }
}

/// How many locations such a user sees.
async fn count_seen(db: &impl ConnectionTrait, user: Value) -> DbResult<u64> {
    let (seen, values) = seen(user, None);
    let sql = format!("SELECT COUNT(*) FROM ({seen}) AS seen");
    access::count(db, Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await
}

/// The ids of a page of them.
async fn newest_seen(db: &impl ConnectionTrait, user: Value, page: Page) -> DbResult<Vec<i64>> {
    let (seen, mut values) = seen(user, Some(page.offset + page.limit));
    let sql = format!("SELECT id FROM ({seen}) AS seen ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?");
    values.extend([page.limit.into(), page.offset.into()]);
    let rows =
        db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// See [`Store::versions`].
pub async fn versions(db: &impl ConnectionTrait, ids: &[LocationId]) -> DbResult<Vec<Head>> {
    let (placeholders, values) = id_list(ids);
    let sql = format!("SELECT id, version, grants FROM location WHERE id IN ({placeholders})");
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let mut heads = Vec::with_capacity(ids.len());
    for row in db.query_all_raw(statement).await? {
        let (id, version, grants): (i64, i64, i64) = row.try_get_many_by_index()?;
        let (version, grants) = (version as u64, grants as u64);
        heads.extend(LocationId::new(id as u64).map(|id| Head { id, version, grants }));
    }
    Ok(heads)
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
