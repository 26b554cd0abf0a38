//! The notifications of a user: listing, counting, and marking them as read.
//!
//! A mark does not wait in the writer's queue: it concerns nobody else, and may be made twice.

use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseConnection, FromQueryResult, TransactionTrait};

use super::locations::Page;
use crate::{
    domain::{error::Result, id::UserId, time::Timestamp},
    storage::{
        error::domain_error,
        pool::Store,
        sql::{NOTIFICATIONS_OF_A_NOTICE, Number, count, statement},
    },
};

/// A notification as its user sees it.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Notification {
    /// The id, which no notification of another user has.
    pub id: i64,
    /// The kind of activity, for programs.
    pub kind: String,
    /// The location of the activity.
    pub location_id: Option<i64>,
    /// The activity in words, for people.
    pub message: String,
    /// The activity as a JSON object.
    pub fields: String,
    /// The time of the activity.
    pub created_at: Timestamp,
    /// The time at which the user read it. `None`: they have not yet.
    pub read_at: Option<Timestamp>,
}

/// A page of notifications.
#[derive(Clone, Debug)]
pub struct Notifications {
    /// The notifications on the page, newest first.
    pub page: Vec<Notification>,
    /// The number of notifications on all pages.
    pub total: u64,
    /// The number of unread notifications, whether they are listed or not.
    pub unread: u64,
}

impl Store {
    /// Reads a page of a user's notifications, newest first: only the unread ones, or all.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn notifications(&self, user: UserId, unread_only: bool, page: Page) -> Result<Notifications> {
        let read = async |db: DatabaseConnection| {
            let tx = db.begin().await?;
            let counted = |and| format!("SELECT COUNT(*) FROM notification WHERE user_id = ? {and}");
            let unread = count(&tx, statement(&tx, &counted("AND read_at IS NULL"), [user])).await?;
            let total = match unread_only {
                true => unread,
                false => count(&tx, statement(&tx, &counted(""), [user])).await?,
            };
            let rest = match unread_only {
                true => "AND told.read_at IS NULL ORDER BY told.id DESC LIMIT ? OFFSET ?",
                false => "ORDER BY told.id DESC LIMIT ? OFFSET ?",
            };
            let values = [Number::from(user), page.limit.into(), page.offset.into()];
            let page = Notification::find_by_statement(statement(&tx, &select(&tx, rest), values));
            let page = page.all(&tx).await?;
            tx.commit().await?;
            Ok(Notifications { page, total, unread })
        };
        self.read(read).await
    }

    /// Marks a notification as read, unless it is, and reads it. `None`: the user has no such notification.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn read_notification(&self, user: UserId, id: u64) -> Result<Option<Notification>> {
        let now = Number::from(Timestamp::now());
        self.write_outside_queue(move |tx| {
            Box::pin(async move {
                let sql =
                    "UPDATE notification SET read_at = ? WHERE user_id = ? AND id = ? AND read_at IS NULL";
                tx.execute_raw(statement(tx, sql, [now, user.into(), id.into()])).await?;
                let found = statement(tx, &select(tx, "AND told.id = ?"), [Number::from(user), id.into()]);
                Notification::find_by_statement(found).one(tx).await
            })
        })
        .await
        .map_err(domain_error)
    }

    /// Marks all notifications of a user as read.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn read_notifications(&self, user: UserId) -> Result<()> {
        let now = Number::from(Timestamp::now());
        self.write_outside_queue(move |tx| {
            Box::pin(async move {
                let sql = "UPDATE notification SET read_at = ? WHERE user_id = ? AND read_at IS NULL";
                tx.execute_raw(statement(tx, sql, [now, user.into()])).await.map(drop)
            })
        })
        .await
        .map_err(domain_error)
    }
}

/// A query for notifications of a user. The user is its first value, `rest` stands behind the condition for that.
pub fn select(db: &impl ConnectionTrait, rest: &str) -> String {
    // The tables are joined in this order, whatever their sizes suggest.
    let (join, divided_by) = match db.get_database_backend() {
        DatabaseBackend::MySql => ("STRAIGHT_JOIN", "DIV"),
        _ => ("CROSS JOIN", "/"),
    };
    format!(
        "SELECT told.id, notice.kind, notice.location_id, notice.message, notice.fields, notice.created_at, \
           told.read_at FROM notification AS told \
         {join} notice ON notice.id = told.id {divided_by} {NOTIFICATIONS_OF_A_NOTICE} WHERE told.user_id = ? {rest}"
    )
}
