//! Removing history that is no longer kept: by number, by age, and that of locations that are gone.
//!
//! In small steps on another connection than the writer's, so that the writer hardly notices. The
//! writer says which locations have moved on; a slow sweep over all finds what was missed, is too old, or
//! was left by a process that ended.

use std::{future::ready, time::Duration};

use futures_util::FutureExt;
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, FromQueryResult, Statement, Value,
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, warn};

use crate::{
    config::History,
    domain::{id::LocationId, time::Timestamp},
    metrics::Metrics,
    storage::{error::is_closed, pool::Store},
    supervise::{Supervisor, watch_channel},
};

/// A location is trimmed whenever it has this many new versions.
const EVERY: u64 = 64;
/// Rows of one statement.
const STEP: u64 = 64;
/// Locations of one transaction; of one page of the sweep.
const TOGETHER: usize = 4;
const PAGE: u64 = 500;
/// Between two transactions of the sweep.
const PAUSE: Duration = Duration::from_millis(10);
/// After a failure.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Locations that may wait. One more is forgotten: its next versions, or the sweep, bring it back.
const QUEUE: usize = 1_024;

/// A location whose history may be too long.
#[derive(Clone, Copy, Debug)]
struct Due {
    id: i64,
    /// Its newest version; `None`: it is gone, and so is all of its history.
    head: Option<u64>,
}

/// The way to the task that removes history. It ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Retention {
    due: mpsc::Sender<Due>,
}

impl Retention {
    /// Starts the task.
    pub fn start(store: Store, keep: History, metrics: &Metrics, tasks: &Supervisor) -> Self {
        let (due, queue) = mpsc::channel(QUEUE);
        watch_channel(metrics, "retention", &due);
        tasks.task("retention").spawn(queue, move |queue| run(store.clone(), keep, queue).boxed());
        Self { due }
    }

    /// Records that a location has a new version.
    pub fn record_version(&self, id: LocationId, version: u64) {
        if version.is_multiple_of(EVERY) {
            self.send(Due { id: id.get() as i64, head: Some(version) });
        }
    }

    /// Records that a location was removed.
    pub fn record_removed(&self, id: LocationId) {
        self.send(Due { id: id.get() as i64, head: None });
    }

    fn send(&self, due: Due) {
        // Full: the sweep will find it.
        let _ = self.due.try_send(due);
    }
}

async fn run(store: Store, keep: History, queue: &mut mpsc::Receiver<Due>) {
    let every = keep.age.map_or(Duration::MAX, |age| age / 10);
    let mut sweep = interval(every.clamp(Duration::from_secs(1), Duration::from_secs(3600)));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Where the sweep is, while there is one.
    let mut after = None;
    let mut due = Vec::with_capacity(TOGETHER);
    loop {
        let page = tokio::select! {
            received = queue.recv_many(&mut due, TOGETHER) => {
                if received == 0 {
                    return;
                }
                None
            }
            _ = sweep.tick(), if after.is_none() => {
                after = Some(0);
                continue;
            }
            () = ready(()), if after.is_some() => after,
        };
        let done = async {
            if let Some(last) = page {
                after = store.due_after(last, &keep, &mut due).await?;
            }
            for due in due.chunks(TOGETHER) {
                store.trim(due, &keep).await?;
                if page.is_some() {
                    sleep(PAUSE).await;
                }
            }
            Ok::<(), DbErr>(())
        };
        if let Err(error) = done.await {
            if is_closed(&error) {
                return;
            }
            warn!(%error, "history could not be removed; trying again");
            after = None;
            sweep.reset_after(TRY_AGAIN);
        }
        due.clear();
    }
}

#[derive(FromQueryResult)]
struct Oldest {
    id: i64,
    version: i64,
    updated_at: i64,
    head: Option<i64>,
}

impl Store {
    /// Which of the next locations after `last` have history that is no longer kept; returns the last one
    /// looked at, `None` at the end.
    async fn due_after(&self, last: i64, keep: &History, due: &mut Vec<Due>) -> Result<Option<i64>, DbErr> {
        // A seek in the key for each location, however many versions it has: MySQL skips from group to group.
        let sql = match self.backend() {
            DatabaseBackend::MySql => {
                "SELECT oldest.id, oldest.version, history.updated_at, location.version AS head \
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
                 SELECT kept.id, history.version, history.updated_at, location.version AS head \
                 FROM kept JOIN history ON history.location_id = kept.id AND history.version = \
                   (SELECT MIN(version) FROM history WHERE location_id = kept.id) \
                 LEFT JOIN location ON location.id = kept.id WHERE kept.id IS NOT NULL ORDER BY kept.id"
            }
        };
        let values = [Value::from(last), Value::from(PAGE)];
        let page = Statement::from_sql_and_values(self.backend(), sql, values);
        let read = || async { Oldest::find_by_statement(page.clone()).all(&self.reader()?).await };
        let page = self.read_raw(read).await?;
        let too_old = cutoff(keep);
        due.extend(page.iter().filter_map(|oldest| {
            let head = oldest.head.map(|head| head as u64);
            let is_due = head.is_none_or(|head| {
                let version = oldest.version as u64;
                version + keep.versions <= head || version < head && oldest.updated_at < too_old
            });
            is_due.then_some(Due { id: oldest.id, head })
        }));
        Ok(page.last().map(|oldest| oldest.id))
    }

    /// Removes what is no longer kept of some locations, step by step.
    async fn trim(&self, due: &[Due], keep: &History) -> Result<(), DbErr> {
        let mut due = due.to_vec();
        while !due.is_empty() {
            let steps = self.write_outside_queue(|tx| {
                let (due, keep) = (due.clone(), *keep);
                Box::pin(async move {
                    let mut left = Vec::new();
                    for due in due {
                        if step(tx, due, &keep).await? {
                            left.push(due);
                        }
                    }
                    Ok(left)
                })
            });
            due = steps.await?;
        }
        Ok(())
    }
}

/// Removes some of the oldest versions of a location; `true` if there may be more.
async fn step(tx: &DatabaseTransaction, due: Due, keep: &History) -> Result<bool, DbErr> {
    let Due { id, head } = due;
    let version = async |sql: &str, values: &[i64]| {
        let values = values.iter().copied().map(Value::from);
        let row = tx.query_one_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values));
        let version = row.await?.map(|row| row.try_get::<Option<i64>>("", "version")).transpose()?;
        Ok::<_, DbErr>(version.flatten())
    };
    let oldest = "SELECT MIN(version) AS version FROM history WHERE location_id = ?";
    let Some(first) = version(oldest, &[id]).await? else { return Ok(false) };
    let last = first + STEP as i64 - 1;
    let cut = match head.map(|head| head as i64) {
        None => last,
        Some(head) => {
            let by_age = match keep.age {
                None => None,
                Some(_) => {
                    let too_old = "SELECT MAX(version) AS version FROM history \
                                   WHERE location_id = ? AND version BETWEEN ? AND ? AND updated_at < ?";
                    version(too_old, &[id, first, last, cutoff(keep)]).await?
                }
            };
            let by_number = head.saturating_sub_unsigned(keep.versions);
            by_number.max(by_age.unwrap_or(0)).min(head - 1).min(last)
        }
    };
    if cut < first {
        return Ok(false);
    }
    let sql = "DELETE FROM history WHERE location_id = ? AND version BETWEEN ? AND ?";
    let values = [id, first, cut].map(Value::from);
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    debug!(location = id, first, last = cut, "versions were removed from history");
    Ok(cut == last)
}

/// Older than this is not kept, in milliseconds since 1970.
fn cutoff(keep: &History) -> i64 {
    let age_ms = keep.age.map_or(i64::MAX, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    Timestamp::now().as_millis().saturating_sub(age_ms)
}
