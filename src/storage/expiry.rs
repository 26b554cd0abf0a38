//! Removing notifications that are no longer kept: too old, or too many of one user.
//!
//! In small steps beside the writer, like history. The writer says who has been told something; a slow sweep
//! over all users finds what was missed and what is too old.

use std::{collections::HashMap, future::ready, sync::Arc, time::Duration};

use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, warn};

use super::{access::statement, connect::Store, error::DbResult, notices::OF_ONE_NOTICE};
use crate::{
    config,
    domain::{event::Event, id::UserId, time::Timestamp},
};

/// A user's notifications are trimmed whenever they have so many new ones.
const EVERY: u32 = 64;
/// Users whose new ones are counted; over that the counting begins anew, and the sweep finds what is missed.
const COUNTED: usize = 100_000;
/// Rows of one transaction; users of one page of the sweep.
const STEP: u64 = 256;
const PAGE: u64 = 500;
/// Between two pages, and two transactions, of the sweep.
const PAUSE: Duration = Duration::from_millis(10);
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
    pub fn start(store: Store, keep: config::Notifications) -> Self {
        let (due, queue) = mpsc::channel(QUEUE);
        tokio::spawn(run(store, keep, queue));
        Self { due, new: Arc::default() }
    }

    /// Something has happened, of which people may have been told.
    pub fn happened(&self, event: &Event) {
        let Event::Notified(told) = event else { return };
        let mut new = self.new.lock();
        for (user, _) in &told.to {
            if new.len() >= COUNTED {
                new.clear();
            }
            let count = new.entry(*user).or_default();
            *count += 1;
            if *count >= EVERY && self.due.try_send(user.get()).is_ok() {
                new.remove(user);
            }
        }
    }
}

async fn run(store: Store, keep: config::Notifications, mut queue: mpsc::Receiver<u64>) {
    let every = (keep.age / 10).clamp(Duration::from_secs(1), Duration::from_secs(3600));
    let mut sweep = interval(every);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The user the sweep goes on with, while there is one, and what was too old when it began.
    let mut next: Option<(u64, u64)> = None;
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
                    let user = store.sweep_notifications(from, too_old, &keep).await?;
                    next = user.map(|user| (user, too_old));
                }
                (None, None) => next = Some((0, store.newest_notice_before(cutoff(&keep)).await?)),
            }
            Ok::<(), DbErr>(())
        };
        if let Err(error) = done.await {
            warn!(%error, "notifications could not be removed; trying again");
            next = None;
            sweep.reset_after(TRY_AGAIN);
        }
    }
}

impl Store {
    /// The newest notice that is older than a time; 0: there is none.
    async fn newest_notice_before(&self, at: u64) -> DbResult<u64> {
        let db = self.reader()?;
        let sql = "SELECT id FROM notice WHERE created_at < ? ORDER BY created_at DESC, id DESC LIMIT 1";
        id(&db, statement(&db, sql, [at])).await
    }

    /// Trims those of a page of users who have too much, and after the last page notices nobody has any more;
    /// returns the user to go on with.
    async fn sweep_notifications(
        &self,
        from: u64,
        too_old: u64,
        keep: &config::Notifications,
    ) -> DbResult<Option<u64>> {
        let db = self.reader()?;
        let sql = "SELECT user_id, COUNT(*), MIN(id) FROM notification WHERE user_id >= ? \
                   GROUP BY user_id ORDER BY user_id LIMIT ?";
        let mut last = None;
        for row in db.query_all_raw(statement(&db, sql, [from, PAGE])).await? {
            let (user, all, oldest): (i64, i64, i64) = row.try_get_many_by_index()?;
            last = Some(user as u64);
            if all as u64 > keep.count || oldest as u64 / OF_ONE_NOTICE <= too_old {
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
        let db = self.reader()?;
        let sql = "SELECT id FROM notification WHERE user_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?";
        let one_too_many = id(&db, statement(&db, sql, [user, keep.count])).await?;
        let cut = one_too_many.max((too_old + 1) * OF_ONE_NOTICE - 1);
        let sql = "SELECT MAX(id) FROM (SELECT id FROM notification WHERE user_id = ? AND id <= ? \
                   ORDER BY id LIMIT ?) AS oldest";
        loop {
            let last = id(&db, statement(&db, sql, [user, cut, STEP])).await?;
            if last == 0 {
                return Ok(());
            }
            let delete = "DELETE FROM notification WHERE user_id = ? AND id <= ?";
            let removed = self.removed(delete, [user, last]).await?;
            debug!(user, removed, "notifications removed");
            if removed < STEP {
                return Ok(());
            }
        }
    }

    /// Removes some of the notices that are too old; `true` if there may be more.
    async fn remove_notices(&self, too_old: u64) -> DbResult<bool> {
        let db = self.reader()?;
        let sql = "SELECT MAX(id) FROM (SELECT id FROM notice WHERE id <= ? ORDER BY id LIMIT ?) AS oldest";
        let last = id(&db, statement(&db, sql, [too_old, STEP])).await?;
        let removed = self.removed("DELETE FROM notice WHERE id <= ?", [last]).await?;
        Ok(removed == STEP)
    }

    async fn removed<const N: usize>(&self, sql: &str, numbers: [u64; N]) -> DbResult<u64> {
        let delete = async {
            let tx = self.begin_beside_the_writer().await?;
            let removed = tx.execute_raw(statement(&tx, sql, numbers)).await?.rows_affected();
            tx.commit().await?;
            Ok(removed)
        };
        self.changed(delete).await
    }
}

/// The id a statement asks for; 0: there is none.
async fn id(db: &DatabaseConnection, statement: Statement) -> DbResult<u64> {
    let row = db.query_one_raw(statement).await?;
    // The greatest of none is null.
    let id = row.map(|row| row.try_get_by_index::<Option<i64>>(0)).transpose()?.flatten();
    Ok(id.unwrap_or_default() as u64)
}

/// What happened before this is not kept, in milliseconds since 1970.
fn cutoff(keep: &config::Notifications) -> u64 {
    let age_ms = i64::try_from(keep.age.as_millis()).unwrap_or(i64::MAX);
    Timestamp::now().as_millis().saturating_sub(age_ms).max(0) as u64
}
