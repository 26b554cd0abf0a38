//! Removing notifications that are no longer kept: too old, too many of one user, or too many about one other user's
//! activities; and the notices that nobody has any more.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseConnection};
use tokio::{sync::mpsc, time::sleep};
use tracing::debug;

use super::sweeper::{self, SWEEP_PAUSE, Subject};
use crate::{
    config,
    domain::{event::Event, id::UserId, time::Timestamp},
    metrics::Metrics,
    storage::{
        error::DbResult,
        pool::Store,
        sql::{NOTIFICATIONS_OF_A_NOTICE, Unsigned, numbers, optional_number, statement},
    },
    supervise::Supervisor,
};

/// A user's notifications are trimmed whenever they have so many new ones.
const TRIM_INTERVAL: u32 = 64;
/// Users whose new notifications are counted. Over that the counting begins anew.
const MAX_COUNTED_USERS: usize = 100_000;
/// Rows that are removed by one transaction.
const MAX_STEP_ROWS: u64 = 256;
/// Users of whom a sweep reads the oldest notifications by one statement.
const PAGE_USERS: u64 = 500;
/// A user's notifications about the activities of one other user may be one in so many of all. So whoever does much to
/// somebody pushes out notifications about themselves, and about nobody else.
const ACTOR_SHARE: u64 = 4;

/// Sends the users who may have too many notifications to the task that removes them. The task ends when the last one
/// is dropped.
#[derive(Clone, Debug)]
pub struct NotificationSweeper {
    users: mpsc::Sender<u64>,
    /// The number of new notifications of each user since they were trimmed. Written by the writer.
    new: Arc<Mutex<HashMap<UserId, u32>>>,
}

impl NotificationSweeper {
    /// Starts the task.
    pub fn start(store: Store, keep: config::Notifications, metrics: &Metrics, tasks: &Supervisor) -> Self {
        let rows = NotificationRows { store, keep, has_swept_all: false };
        Self { users: sweeper::start(rows, metrics, tasks), new: Arc::default() }
    }

    /// Counts the notifications that an event has brought to users.
    pub fn record_event(&self, event: &Event) {
        let Event::Notified(notice) = event else { return };
        let mut new = self.new.lock();
        for (user, _) in &notice.recipients {
            if new.len() >= MAX_COUNTED_USERS {
                new.clear();
            }
            // How many they had before is not known; and a random number keeps all members of a location from being
            // due at once.
            let count = new.entry(*user).or_insert_with(|| rand::random_range(0..TRIM_INTERVAL));
            *count += 1;
            if *count >= TRIM_INTERVAL && self.users.try_send(user.get()).is_ok() {
                *count = 0;
            }
        }
    }
}

struct NotificationRows {
    store: Store,
    keep: config::Notifications,
    /// Whether a sweep has looked at all users: fewer notifications may be kept than before the start.
    has_swept_all: bool,
}

/// The place where a sweep goes on.
#[derive(Clone, Copy)]
pub struct SweepPosition {
    /// The first user that it has not looked at.
    user: u64,
    /// The newest notice that was too old when the sweep began.
    newest_too_old: u64,
}

impl Subject for NotificationRows {
    const NAME: &'static str = "expiry";
    const FAILURE: &'static str = "notifications could not be removed; trying again";
    const TRIMMED_TOGETHER: usize = 1;

    /// A user's id.
    type Item = u64;
    type Position = SweepPosition;

    fn max_age(&self) -> Option<Duration> {
        Some(self.keep.age)
    }

    async fn begin_sweep(&mut self) -> DbResult<SweepPosition> {
        let age_ms = i64::try_from(self.keep.age.as_millis()).unwrap_or(i64::MAX);
        let oldest_kept_ms = Timestamp::now().as_millis().saturating_sub(age_ms).max(0) as u64;
        let sql = "SELECT id FROM notice WHERE created_at < ? ORDER BY created_at DESC, id DESC LIMIT 1";
        let newest_too_old = self.read_id(sql, [oldest_kept_ms]).await?.unwrap_or(0);
        Ok(SweepPosition { user: 0, newest_too_old })
    }

    async fn sweep(&mut self, from: SweepPosition) -> DbResult<Option<SweepPosition>> {
        let SweepPosition { user, newest_too_old } = from;
        let page = self.read_oldest(user).await?;
        for (user, oldest) in &page {
            if !self.has_swept_all || oldest / NOTIFICATIONS_OF_A_NOTICE <= newest_too_old {
                self.trim_user(*user, newest_too_old).await?;
                sleep(SWEEP_PAUSE).await;
            }
        }
        sleep(SWEEP_PAUSE).await;
        let Some((last, _)) = page.last() else {
            while self.remove_some_notices(newest_too_old).await? {
                sleep(SWEEP_PAUSE).await;
            }
            self.has_swept_all = true;
            return Ok(None);
        };
        Ok(Some(SweepPosition { user: last + 1, newest_too_old }))
    }

    async fn trim(&mut self, users: &[u64]) -> DbResult<()> {
        for user in users {
            self.trim_user(*user, 0).await?;
        }
        Ok(())
    }
}

impl NotificationRows {
    /// The next users from `user` on and their oldest notifications, by a seek in the key for each user, however many
    /// they have.
    async fn read_oldest(&self, user: u64) -> DbResult<Vec<(u64, u64)>> {
        let sql = match self.store.backend() {
            DatabaseBackend::MySql => {
                "SELECT user_id, MIN(id) FROM notification WHERE user_id >= ? \
                 GROUP BY user_id ORDER BY user_id LIMIT ?"
            }
            _ => {
                "WITH RECURSIVE recipient (user_id) AS (\
                   SELECT MIN(user_id) FROM notification WHERE user_id >= ? UNION ALL \
                   SELECT (SELECT MIN(user_id) FROM notification WHERE user_id > recipient.user_id) \
                   FROM recipient WHERE user_id IS NOT NULL LIMIT ?) \
                 SELECT user_id, (SELECT MIN(id) FROM notification WHERE user_id = recipient.user_id) \
                 FROM recipient WHERE user_id IS NOT NULL"
            }
        };
        let read = async |db: DatabaseConnection| {
            let rows = db.query_all_raw(statement(&db, sql, [user, PAGE_USERS])).await?;
            let oldest = rows.iter().map(|row| {
                let (Unsigned(user), Unsigned(oldest)) = row.try_get_many_by_index()?;
                Ok((user, oldest))
            });
            oldest.collect()
        };
        self.store.read_raw(read).await
    }

    /// Removes the notifications of a user that are too many, and those of notices up to `newest_too_old`, step by
    /// step.
    async fn trim_user(&self, user: u64, newest_too_old: u64) -> DbResult<()> {
        // Notifications that come meanwhile do not count: they would push out others before their actor's share of them
        // is trimmed.
        let newest = self.read_id("SELECT MAX(id) FROM notification WHERE user_id = ?", [user]).await?;
        self.trim_actors(user, (self.keep.count / ACTOR_SHARE).max(1)).await?;
        let sql = "SELECT id FROM notification WHERE user_id = ? AND id <= ? \
                   ORDER BY id DESC LIMIT 1 OFFSET ?";
        let one_too_many = self.read_id(sql, [user, newest.unwrap_or(0), self.keep.count]).await?;
        let last_too_old = (newest_too_old + 1) * NOTIFICATIONS_OF_A_NOTICE - 1;
        let cut = one_too_many.unwrap_or(0).max(last_too_old);
        let sql = "SELECT MAX(id) FROM (SELECT id FROM notification WHERE user_id = ? AND id <= ? \
                   ORDER BY id LIMIT ?) AS oldest";
        while let Some(last) = self.read_id(sql, [user, cut, MAX_STEP_ROWS]).await? {
            let delete = "DELETE FROM notification WHERE user_id = ? AND id <= ?".to_owned();
            let removed = self.remove(delete, [user, last]).await?;
            debug!(user, removed, "notifications were removed");
            if removed < MAX_STEP_ROWS {
                break;
            }
        }
        Ok(())
    }

    /// Removes the oldest of a user's notifications about each actor of whom there are more than `most`.
    async fn trim_actors(&self, user: u64, most: u64) -> DbResult<()> {
        let (join, divided_by) = match self.store.backend() {
            DatabaseBackend::MySql => ("STRAIGHT_JOIN", "DIV"),
            _ => ("CROSS JOIN", "/"),
        };
        let rows = format!(
            "FROM notification {join} notice \
               ON notice.id = notification.id {divided_by} {NOTIFICATIONS_OF_A_NOTICE} \
             WHERE notification.user_id = ?"
        );
        let sql = format!(
            "SELECT notice.actor_id {rows} AND notice.actor_id IS NOT NULL \
             GROUP BY notice.actor_id HAVING COUNT(*) > ?"
        );
        for actor in self.read_ids(&sql, [user, most]).await? {
            let sql = format!(
                "SELECT notification.id {rows} AND notice.actor_id = ? \
                 ORDER BY notification.id DESC LIMIT ? OFFSET ?"
            );
            loop {
                let surplus = self.read_ids(&sql, [user, actor, MAX_STEP_ROWS, most]).await?;
                if !surplus.is_empty() {
                    let ids = surplus.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
                    let delete = format!("DELETE FROM notification WHERE user_id = ? AND id IN ({ids})");
                    let removed = self.remove(delete, [user]).await?;
                    debug!(user, actor, removed, "notifications of one person's actions were removed");
                }
                if (surplus.len() as u64) < MAX_STEP_ROWS {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Removes some of the notices up to `newest_too_old`. Returns `true` if there may be more.
    async fn remove_some_notices(&self, newest_too_old: u64) -> DbResult<bool> {
        let sql = "SELECT MAX(id) FROM (SELECT id FROM notice WHERE id <= ? ORDER BY id LIMIT ?) AS oldest";
        let Some(last) = self.read_id(sql, [newest_too_old, MAX_STEP_ROWS]).await? else { return Ok(false) };
        let removed = self.remove("DELETE FROM notice WHERE id <= ?".to_owned(), [last]).await?;
        Ok(removed == MAX_STEP_ROWS)
    }

    /// Runs a statement that removes rows; returns how many they were.
    async fn remove<const N: usize>(&self, sql: String, values: [u64; N]) -> DbResult<u64> {
        let removed = self.store.write_outside_queue(move |tx| {
            let sql = sql.clone();
            Box::pin(async move { Ok(tx.execute_raw(statement(tx, &sql, values)).await?.rows_affected()) })
        });
        removed.await
    }

    async fn read_ids<const N: usize>(&self, sql: &str, values: [u64; N]) -> DbResult<Vec<u64>> {
        self.store.read_raw(async |db| numbers(&db, statement(&db, sql, values)).await).await
    }

    async fn read_id<const N: usize>(&self, sql: &str, values: [u64; N]) -> DbResult<Option<u64>> {
        self.store.read_raw(async |db| optional_number(&db, statement(&db, sql, values)).await).await
    }
}
