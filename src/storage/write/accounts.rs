//! Writing down what users call themselves.

use sea_orm::DatabaseBackend;

use crate::{
    domain::{error::Result, id::UserId, time::Timestamp},
    storage::{
        pool::Store,
        sql::{Cell, Rows},
    },
};

impl Store {
    /// Keeps users' names instead of those they had.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn name_users(&self, users: &[(UserId, &str)]) -> Result<()> {
        if users.is_empty() {
            return Ok(());
        }
        let tail = match self.backend() {
            DatabaseBackend::MySql => {
                " AS new ON DUPLICATE KEY UPDATE name = new.name, updated_at = new.updated_at"
            }
            _ => " ON CONFLICT (id) DO UPDATE SET name = excluded.name, updated_at = excluded.updated_at",
        };
        let mut rows = Rows::new(self.dialect(), "INSERT INTO account (id, name, updated_at)", tail);
        let now = Cell::Int(Timestamp::now().as_millis());
        for (id, name) in users {
            rows.push([Cell::Int(id.get() as i64), Cell::Text(name), now]);
        }
        self.transact(move |tx, _| {
            let rows = rows.clone();
            Box::pin(async move { Ok(Rows::send([rows], tx).await?) })
        })
        .await
    }
}
