//! Removing notifications that are no longer kept: too old, too many of one user, or too many of those told by one
//! other.
//!
//! In small steps beside the writer, like history. Whoever tells people says so, and who has been told much is
//! trimmed; a slow sweep over all users finds what is too old.

use std::{collections::HashMap, future::ready, sync::Arc, time::Duration};

use futures_util::FutureExt;
use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, warn};

use crate::{
    config,
    domain::{event::Event, id::UserId, time::Timestamp},
    metrics::Metrics,
    storage::{
        error::{DbResult, is_closed},
        pool::Store,
        sql::{NOTIFICATIONS_OF_A_NOTICE, count, statement},
    },
    supervise::{Supervisor, watch_channel},
};

/// A user's notifications are trimmed whenever they have so many new ones.
const EVERY: u32 = 64;
/// Users whose new ones are counted; over that the counting begins anew.
const COUNTED: usize = 100_000;
/// Rows of one transaction; users of one page of the sweep.
const STEP: u64 = 256;
const PAGE: u64 = 500;
/// Between two pages, and two transactions, of the sweep.
const PAUSE: Duration = Duration::from_millis(10);
/// Of the notifications of a user, one in so many may tell of one person's deeds: who does much to somebody pushes
/// out what they themselves told, and nobody else's.
const SHARE_OF_AN_ACTOR: u64 = 4;
/// After a failure.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Users that may wait to be trimmed.
const QUEUE: usize = 1_024;

/// The way to the task that removes notifications. It ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Expiry {
    due: mpsc::Sender<u64>,
    /// How many new ones users have had since they were trimmed. Written by whoever tells them.
    new: Arc<Mutex<HashMap<UserId, u32>>>,
}

impl Expiry {
    /// Starts the task.
    pub fn start(store: Store, keep: config::Notifications, metrics: &Metrics, tasks: &Supervisor) -> Self {
        let (due, queue) = mpsc::channel(QUEUE);
        watch_channel(metrics, "expiry", &due);
        tasks.task("expiry").spawn(queue, move |queue| run(store.clone(), keep, queue).boxed());
        Self { due, new: Arc::default() }
    }

    /// Something has happened, of which people may have been told.
    pub fn happened(&self, event: &Event) {
        let Event::Notified(told) = event else { return };
        let mut new = self.new.lock();
        for (user, _) in &told.recipients {
            if new.len() >= COUNTED {
                new.clear();
            }
            // Those before are unknown; and so not all members of a location are due at once.
            let count = new.entry(*user).or_insert_with(|| rand::random_range(0..EVERY));
            *count += 1;
            if *count >= EVERY && self.due.try_send(user.get()).is_ok() {
                *count = 0;
            }
        }
    }
}

async fn run(store: Store, keep: config::Notifications, queue: &mut mpsc::Receiver<u64>) {
    let every = (keep.age / 10).clamp(Duration::from_secs(1), Duration::from_secs(3600));
    let mut sweep = interval(every);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The user the sweep goes on with, while there is one, and what was too old when it began.
    let mut next: Option<(u64, u64)> = None;
    // Until a sweep has looked at all: fewer may be kept than before.
    let mut is_first = true;
    loop {
        let user = tokio::select! {
            received = queue.recv() => match received {
                None => return,
                user => user,
            },
            _ = sweep.tick(), if next.is_none() => None,
            () = ready(()), if next.is_some() => None,
        };
        let done = async {
            match (user, next) {
                (Some(user), _) => store.trim_notifications(user, 0, &keep).await?,
                (None, Some((from, too_old))) => {
                    let user = store.sweep_notifications(from, too_old, is_first, &keep).await?;
                    next = user.map(|user| (user, too_old));
                    is_first &= next.is_some();
                }
                (None, None) => next = Some((0, store.newest_notice_before(cutoff(&keep)).await?)),
            }
            Ok::<(), DbErr>(())
        };
        if let Err(error) = done.await {
            if is_closed(&error) {
                return;
            }
            warn!(%error, "notifications could not be removed; trying again");
            next = None;
            sweep.reset_after(TRY_AGAIN);
        }
    }
}

impl Store {
    /// The newest notice that is older than a time; 0: there is none.
    async fn newest_notice_before(&self, at: u64) -> DbResult<u64> {
        let sql = "SELECT id FROM notice WHERE created_at < ? ORDER BY created_at DESC, id DESC LIMIT 1";
        self.id(sql, [at]).await
    }

    /// Trims those of a page of users who have what is too old, or all of them, and after the last page notices
    /// nobody has any more; returns the user to go on with.
    async fn sweep_notifications(
        &self,
        from: u64,
        too_old: u64,
        of_all: bool,
        keep: &config::Notifications,
    ) -> DbResult<Option<u64>> {
        // A seek in the key for each user, however much they have.
        let sql = match self.backend() {
            DatabaseBackend::MySql => {
                "SELECT user_id, MIN(id) FROM notification WHERE user_id >= ? \
                 GROUP BY user_id ORDER BY user_id LIMIT ?"
            }
            _ => {
                "WITH RECURSIVE told (user_id) AS (\
                   SELECT MIN(user_id) FROM notification WHERE user_id >= ? UNION ALL \
                   SELECT (SELECT MIN(user_id) FROM notification WHERE user_id > told.user_id) \
                   FROM told WHERE user_id IS NOT NULL LIMIT ?) \
                 SELECT user_id, (SELECT MIN(id) FROM notification WHERE user_id = told.user_id) \
                 FROM told WHERE user_id IS NOT NULL"
            }
        };
        let read = || async {
            let db = self.reader()?;
            db.query_all_raw(statement(&db, sql, [from, PAGE])).await
        };
        let mut last = None;
        for row in self.read_raw(read).await? {
            let (user, oldest): (i64, i64) = row.try_get_many_by_index()?;
            last = Some(user as u64);
            if of_all || oldest as u64 / NOTIFICATIONS_OF_A_NOTICE <= too_old {
                self.trim_notifications(user as u64, too_old, keep).await?;
                sleep(PAUSE).await;
            }
        }
        sleep(PAUSE).await;
        if last.is_none() {
            while self.remove_notices(too_old).await? {
                sleep(PAUSE).await;
            }
        }
        Ok(last.map(|user| user + 1))
    }

    /// Removes what a user has too much of, step by step.
    async fn trim_notifications(
        &self,
        user: u64,
        too_old: u64,
        keep: &config::Notifications,
    ) -> DbResult<()> {
        // What one person adds from here on would be counted before their share of it is trimmed.
        let newest = self.id("SELECT MAX(id) FROM notification WHERE user_id = ?", [user]).await?;
        self.trim_actors(user, (keep.count / SHARE_OF_AN_ACTOR).max(1)).await?;
        let sql = "SELECT id FROM notification WHERE user_id = ? AND id <= ? \
                   ORDER BY id DESC LIMIT 1 OFFSET ?";
        let one_too_many = self.id(sql, [user, newest, keep.count]).await?;
        let cut = one_too_many.max((too_old + 1) * NOTIFICATIONS_OF_A_NOTICE - 1);
        let sql = "SELECT MAX(id) FROM (SELECT id FROM notification WHERE user_id = ? AND id <= ? \
                   ORDER BY id LIMIT ?) AS oldest";
        loop {
            let last = self.id(sql, [user, cut, STEP]).await?;
            if last == 0 {
                return Ok(());
            }
            let delete = "DELETE FROM notification WHERE user_id = ? AND id <= ?";
            let removed = self.removed(delete, [user, last]).await?;
            debug!(user, removed, "notifications were removed");
            if removed < STEP {
                return Ok(());
            }
        }
    }

    /// Removes of each person who did more than `most` that a user was told of what is oldest.
    async fn trim_actors(&self, user: u64, most: u64) -> DbResult<()> {
        let (join, div) = match self.backend() {
            DatabaseBackend::MySql => ("STRAIGHT_JOIN", "DIV"),
            _ => ("CROSS JOIN", "/"),
        };
        let told = format!(
            "FROM notification AS told {join} notice ON notice.id = told.id {div} {NOTIFICATIONS_OF_A_NOTICE} \
             WHERE told.user_id = ?"
        );
        let sql = format!(
            "SELECT notice.actor_id {told} AND notice.actor_id IS NOT NULL \
             GROUP BY notice.actor_id HAVING COUNT(*) > ?"
        );
        for actor in self.ids(&sql, [user, most]).await? {
            let sql = format!(
                "SELECT told.id {told} AND notice.actor_id = ? ORDER BY told.id DESC LIMIT ? OFFSET ?"
            );
            loop {
                let surplus = self.ids(&sql, [user, actor, STEP, most]).await?;
                let removed = surplus.len() as u64;
                if let Some(first) = surplus.first() {
                    let ids = surplus.iter().fold(first.to_string(), |ids, id| format!("{ids},{id}"));
                    let delete = format!("DELETE FROM notification WHERE user_id = ? AND id IN ({ids})");
                    self.removed(delete, [user]).await?;
                    debug!(user, actor, removed, "notifications of one person's actions were removed");
                }
                if removed < STEP {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Removes some of the notices that are too old; `true` if there may be more.
    async fn remove_notices(&self, too_old: u64) -> DbResult<bool> {
        let sql = "SELECT MAX(id) FROM (SELECT id FROM notice WHERE id <= ? ORDER BY id LIMIT ?) AS oldest";
        let last = self.id(sql, [too_old, STEP]).await?;
        if last == 0 {
            return Ok(false);
        }
        let removed = self.removed("DELETE FROM notice WHERE id <= ?", [last]).await?;
        Ok(removed == STEP)
    }

    async fn removed<const N: usize>(&self, sql: impl Into<String>, numbers: [u64; N]) -> DbResult<u64> {
        let sql = sql.into();
        self.write_outside_queue(move |tx| {
            let sql = sql.clone();
            Box::pin(async move { Ok(tx.execute_raw(statement(tx, &sql, numbers)).await?.rows_affected()) })
        })
        .await
    }

    /// The ids a statement asks for.
    async fn ids<const N: usize>(&self, sql: &str, numbers: [u64; N]) -> DbResult<Vec<u64>> {
        let read = || async {
            let db = self.reader()?;
            let rows = db.query_all_raw(statement(&db, sql, numbers)).await?;
            rows.iter().map(|row| Ok(row.try_get_by_index::<i64>(0)? as u64)).collect::<DbResult<Vec<_>>>()
        };
        self.read_raw(read).await
    }

    /// The id a statement asks for; 0: there is none.
    async fn id<const N: usize>(&self, sql: &str, numbers: [u64; N]) -> DbResult<u64> {
        let read = || async {
            let db = self.reader()?;
            count(&db, statement(&db, sql, numbers)).await
        };
        self.read_raw(read).await
    }
}

/// What happened before this is not kept, in milliseconds since 1970.
fn cutoff(keep: &config::Notifications) -> u64 {
    let age_ms = i64::try_from(keep.age.as_millis()).unwrap_or(i64::MAX);
    Timestamp::now().as_millis().saturating_sub(age_ms).max(0) as u64
}
