//! Removing history that is no longer kept: by number, by age, and that of locations that are gone. The rows of writers
//! that have ended go with it.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction};
use tokio::{sync::mpsc, time::sleep};
use tracing::debug;

use super::sweeper::{self, SWEEP_PAUSE, Subject};
use crate::{
    config::History,
    domain::{id::LocationId, time::Timestamp},
    metrics::Metrics,
    storage::{
        error::DbResult,
        pool::Store,
        sql::{Number, Unsigned, numbers, optional_number, statement},
    },
    supervise::Supervisor,
};

/// A location is trimmed whenever it has this many new versions.
const TRIM_INTERVAL: u64 = 64;
/// Versions of one location that are removed by one statement.
const MAX_STEP_ROWS: u64 = 64;
/// Locations of which a sweep reads the oldest versions by one statement.
const PAGE_LOCATIONS: u64 = 500;
/// A row of `writer` that was not written for so long belongs to a writer that has ended. A writer whose row is removed
/// all the same makes a new one with its next transaction.
const MAX_WRITER_AGE_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// A location whose history may be too long.
#[derive(Clone, Copy, Debug)]
pub struct Trimmed {
    id: u64,
    /// The newest version. `None`: the location is gone, and no history of it is kept.
    newest: Option<u64>,
}

/// Sends the locations whose history may be too long to the task that removes it. The task ends when the last one is
/// dropped.
#[derive(Clone, Debug)]
pub struct HistorySweeper {
    items: mpsc::Sender<Trimmed>,
}

impl HistorySweeper {
    /// Starts the task.
    pub fn start(store: Store, keep: History, metrics: &Metrics, tasks: &Supervisor) -> Self {
        Self { items: sweeper::start(HistoryRows { store, keep }, metrics, tasks) }
    }

    /// Reports a committed version of a location.
    pub fn record_version(&self, id: LocationId, version: u64) {
        if version.is_multiple_of(TRIM_INTERVAL) {
            let _ = self.items.try_send(Trimmed { id: id.get(), newest: Some(version) });
        }
    }

    /// Reports a location that was removed.
    pub fn record_removed(&self, id: LocationId) {
        let _ = self.items.try_send(Trimmed { id: id.get(), newest: None });
    }
}

struct HistoryRows {
    store: Store,
    keep: History,
}

/// The oldest version of a location that is kept, and its newest version.
struct Oldest {
    id: u64,
    version: u64,
    updated_at: Timestamp,
    newest: Option<u64>,
}

impl Subject for HistoryRows {
    const NAME: &'static str = "retention";
    const FAILURE: &'static str = "history could not be removed; trying again";
    const TRIMMED_TOGETHER: usize = 4;

    type Item = Trimmed;
    /// The last location that the sweep has looked at.
    type Position = u64;

    fn max_age(&self) -> Option<Duration> {
        self.keep.age
    }

    async fn begin_sweep(&mut self) -> DbResult<u64> {
        self.remove_old_writers().await?;
        Ok(0)
    }

    async fn sweep(&mut self, after: u64) -> DbResult<Option<u64>> {
        let page = self.read_oldest(after).await?;
        let too_old = oldest_kept_time(&self.keep);
        let due: Vec<_> = page.iter().filter_map(|oldest| oldest.due(&self.keep, too_old)).collect();
        for some in due.chunks(Self::TRIMMED_TOGETHER) {
            self.trim(some).await?;
            sleep(SWEEP_PAUSE).await;
        }
        Ok(page.last().map(|oldest| oldest.id))
    }

    async fn trim(&mut self, items: &[Trimmed]) -> DbResult<()> {
        let mut left = items.to_vec();
        while !left.is_empty() {
            let step = self.store.write_outside_queue(|tx| {
                let (items, keep) = (left.clone(), self.keep);
                Box::pin(async move {
                    let mut left = Vec::new();
                    for item in items {
                        if remove_some(tx, item, &keep).await? {
                            left.push(item);
                        }
                    }
                    Ok(left)
                })
            });
            left = step.await?;
        }
        Ok(())
    }
}

impl HistoryRows {
    /// Removes the rows of writers that ended long ago. Each lane of each process has one.
    async fn remove_old_writers(&self) -> DbResult<()> {
        let oldest = (Timestamp::now().as_millis() - MAX_WRITER_AGE_MS) as u64;
        // Read first: a DELETE that looks for them would wait for the rows of all writers.
        let sql = "SELECT id FROM writer WHERE committed_at < ?";
        let old = self.store.read_raw(async |db| numbers(&db, statement(&db, sql, [oldest])).await);
        for id in old.await? {
            let remove = self.store.write_outside_queue(move |tx| {
                let sql = "DELETE FROM writer WHERE id = ? AND committed_at < ?";
                Box::pin(async move { tx.execute_raw(statement(tx, sql, [id, oldest])).await })
            });
            remove.await?;
        }
        Ok(())
    }

    /// The oldest versions of the next locations after `after`, by a seek in the key for each location, however many
    /// versions it has.
    async fn read_oldest(&self, after: u64) -> DbResult<Vec<Oldest>> {
        let sql = match self.store.backend() {
            // MySQL skips from group to group.
            DatabaseBackend::MySql => {
                "SELECT oldest.id, oldest.version, history.updated_at, location.version AS newest \
                 FROM (SELECT location_id AS id, MIN(version) AS version FROM history \
                       WHERE location_id > ? GROUP BY location_id ORDER BY location_id LIMIT ?) AS oldest \
                 JOIN history ON history.location_id = oldest.id AND history.version = oldest.version \
                 LEFT JOIN location ON location.id = oldest.id ORDER BY oldest.id"
            }
            _ => {
                "WITH RECURSIVE kept (id) AS (\
                   SELECT MIN(location_id) FROM history WHERE location_id > ? UNION ALL \
                   SELECT (SELECT MIN(location_id) FROM history WHERE location_id > kept.id) \
                   FROM kept WHERE id IS NOT NULL LIMIT ?) \
                 SELECT kept.id, history.version, history.updated_at, location.version AS newest \
                 FROM kept JOIN history ON history.location_id = kept.id AND history.version = \
                   (SELECT MIN(version) FROM history WHERE location_id = kept.id) \
                 LEFT JOIN location ON location.id = kept.id WHERE kept.id IS NOT NULL ORDER BY kept.id"
            }
        };
        let read = async |db: DatabaseConnection| {
            let rows = db.query_all_raw(statement(&db, sql, [after, PAGE_LOCATIONS])).await?;
            let oldest = rows.iter().map(|row| {
                let (Unsigned(id), Unsigned(version), updated_at, newest) = row.try_get_many_by_index()?;
                let newest = Option::<Unsigned>::map(newest, |Unsigned(newest)| newest);
                Ok(Oldest { id, version, updated_at, newest })
            });
            oldest.collect()
        };
        self.store.read_raw(read).await
    }
}

impl Oldest {
    /// The location, if not all of its history is kept.
    fn due(&self, keep: &History, too_old: Timestamp) -> Option<Trimmed> {
        let is_due = self.newest.is_none_or(|newest| {
            let is_too_old = self.version < newest && self.updated_at < too_old;
            is_too_old || self.version + keep.versions <= newest
        });
        is_due.then_some(Trimmed { id: self.id, newest: self.newest })
    }
}

/// Removes some of the oldest versions of a location. Returns `true` if there may be more.
async fn remove_some(tx: &DatabaseTransaction, item: Trimmed, keep: &History) -> DbResult<bool> {
    let Trimmed { id, newest } = item;
    let oldest = statement(tx, "SELECT MIN(version) FROM history WHERE location_id = ?", [id]);
    let Some(first) = optional_number(tx, oldest).await? else { return Ok(false) };
    let last = first + MAX_STEP_ROWS - 1;
    let newest_too_old = match (newest, keep.age) {
        (Some(_), Some(_)) => {
            let sql = "SELECT MAX(version) FROM history \
                       WHERE location_id = ? AND version BETWEEN ? AND ? AND updated_at < ?";
            let values = [Number::from(id), first.into(), last.into(), oldest_kept_time(keep).into()];
            optional_number(tx, statement(tx, sql, values)).await?
        }
        _ => None,
    };
    let Some(cut) = last_removed(first, last, newest, newest_too_old, keep.versions) else {
        return Ok(false);
    };
    let sql = "DELETE FROM history WHERE location_id = ? AND version BETWEEN ? AND ?";
    tx.execute_raw(statement(tx, sql, [id, first, cut])).await?;
    debug!(location = id, first, last = cut, "versions were removed from history");
    Ok(cut == last)
}

/// The last version to remove of those from `first` to `last`, if there is one. The newest version of a location that
/// is there (`newest`) always stays; of the others those that are too old, or too many beside `kept` versions, go.
fn last_removed(
    first: u64,
    last: u64,
    newest: Option<u64>,
    newest_too_old: Option<u64>,
    kept: u64,
) -> Option<u64> {
    let cut = match newest {
        None => last,
        Some(newest) => {
            let too_many = newest.saturating_sub(kept);
            too_many.max(newest_too_old.unwrap_or(0)).min(newest.saturating_sub(1)).min(last)
        }
    };
    (cut >= first).then_some(cut)
}

/// Versions before this time are not kept.
fn oldest_kept_time(keep: &History) -> Timestamp {
    let age_ms = keep.age.map_or(i64::MAX, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    Timestamp::from_millis(Timestamp::now().as_millis().saturating_sub(age_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_stays_and_others_go_by_number_and_age() {
        for (first, last, newest, too_old, kept, expected) in [
            (1, 64, None, None, 10, Some(64)),
            (1, 64, Some(5), None, 10, None),
            (1, 64, Some(10), None, 10, None),
            (1, 64, Some(11), None, 10, Some(1)),
            (1, 64, Some(1_000), None, 10, Some(64)),
            (1, 64, Some(5), Some(3), 10, Some(3)),
            (1, 64, Some(5), Some(5), 10, Some(4)),
            (5, 68, Some(5), Some(5), 10, None),
            (1, 64, Some(20), Some(3), 10, Some(10)),
            (1, 64, Some(20), Some(13), 10, Some(13)),
        ] {
            let removed = last_removed(first, last, newest, too_old, kept);
            assert_eq!(removed, expected, "{first} {newest:?} {too_old:?}");
        }
    }
}
