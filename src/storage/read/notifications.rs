//! The notifications of a user: listed, counted, read.

use sea_orm::{ConnectionTrait, DatabaseBackend, FromQueryResult, TransactionTrait};

use super::locations::Page;
use crate::{
    domain::{error::Result, id::UserId, time::Timestamp},
    storage::{
        error::domain_error,
        pool::Store,
        sql::{NOTIFICATIONS_OF_A_NOTICE, count, statement},
    },
};

/// A notification as its user sees it.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Notification {
    /// Of this user's alone.
    pub id: i64,
    /// What happened, for programs.
    pub kind: String,
    /// Which location it happened to.
    pub location_id: Option<i64>,
    /// What happened, for people.
    pub message: String,
    /// The same as a JSON object.
    pub fields: String,
    /// When it happened, in milliseconds.
    pub created_at: i64,
    /// When it was read, in milliseconds; `None`: not yet.
    pub read_at: Option<i64>,
}

/// A page of notifications.
#[derive(Clone, Debug)]
pub struct Notifications {
    /// Newest first.
    pub page: Vec<Notification>,
    /// Of all pages.
    pub total: u64,
    /// Not read yet, whether they are listed or not.
    pub unread: u64,
}

impl Store {
    /// A page of a user's notifications, newest first; only the unread ones, or all.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn notifications(&self, of: UserId, unread_only: bool, page: Page) -> Result<Notifications> {
        let read = || async {
            let tx = self.reader()?.begin().await?;
            let counted = |and| format!("SELECT COUNT(*) FROM notification WHERE user_id = ? {and}");
            let unread = count(&tx, statement(&tx, &counted("AND read_at IS NULL"), [of.get()])).await?;
            let total = match unread_only {
                true => unread,
                false => count(&tx, statement(&tx, &counted(""), [of.get()])).await?,
            };
            let rest = match unread_only {
                true => "AND told.read_at IS NULL ORDER BY told.id DESC LIMIT ? OFFSET ?",
                false => "ORDER BY told.id DESC LIMIT ? OFFSET ?",
            };
            let values = [of.get(), page.limit, page.offset];
            let page = Notification::find_by_statement(statement(&tx, &select(&tx, rest), values));
            let page = page.all(&tx).await?;
            tx.commit().await?;
            Ok(Notifications { page, total, unread })
        };
        self.read(read).await
    }

    /// Notes that a notification is read; `None`: its user has no such one.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn read_notification(&self, of: UserId, id: u64) -> Result<Option<Notification>> {
        let now = Timestamp::now().as_millis() as u64;
        self.write_outside_queue(move |tx| {
            Box::pin(async move {
                let sql =
                    "UPDATE notification SET read_at = ? WHERE user_id = ? AND id = ? AND read_at IS NULL";
                tx.execute_raw(statement(tx, sql, [now, of.get(), id])).await?;
                let found = statement(tx, &select(tx, "AND told.id = ?"), [of.get(), id]);
                Notification::find_by_statement(found).one(tx).await
            })
        })
        .await
        .map_err(domain_error)
    }

    /// Notes that a user has read all there are.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn read_notifications(&self, of: UserId) -> Result<()> {
        let now = Timestamp::now().as_millis() as u64;
        self.write_outside_queue(move |tx| {
            Box::pin(async move {
                let sql = "UPDATE notification SET read_at = ? WHERE user_id = ? AND read_at IS NULL";
                tx.execute_raw(statement(tx, sql, [now, of.get()])).await.map(drop)
            })
        })
        .await
        .map_err(domain_error)
    }
}

/// A query for notifications of a user, who is its first value.
pub fn select(db: &impl ConnectionTrait, rest: &str) -> String {
    // In this order, whatever the tables' sizes say.
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
