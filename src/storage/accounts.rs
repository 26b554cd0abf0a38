//! What users call themselves.

use sea_orm::{ConnectionTrait, DatabaseBackend};

use super::{
    access::{statement, user},
    connect::Store,
    error::DbResult,
    rows::{Cell, Rows},
};
use crate::domain::{error::Result, id::UserId, time::Timestamp};

/// Characters of a name; what is longer is cut.
const LONGEST: usize = 255;

/// Users of one statement.
const TOGETHER: usize = 1_000;

impl Store {
    /// What users are called; only those who are known to be called something.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn names(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>> {
        let mut names = Vec::new();
        for some in users.chunks(TOGETHER) {
            let marks = vec!["?"; some.len()].join(", ");
            let sql = format!("SELECT id, name FROM account WHERE id IN ({marks})");
            let read = || async {
                let db = self.reader()?;
                let rows = db.query_all_raw(statement(&db, &sql, some.iter().map(|user| user.get()))).await?;
                let name = rows.iter().map(|row| {
                    let (id, name): (i64, String) = row.try_get_many_by_index()?;
                    Ok((user(id)?, name))
                });
                name.collect::<DbResult<Vec<_>>>()
            };
            names.append(&mut self.answered(read).await?);
        }
        Ok(names)
    }

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
        let mut rows = Rows::new(self.backend(), "INSERT INTO account (id, name, updated_at)", tail);
        let now = Cell::Int(Timestamp::now().as_millis());
        for (id, name) in users {
            let name = name.char_indices().nth(LONGEST).map_or(*name, |(end, _)| &name[..end]);
            rows.push([Cell::Int(id.get() as i64), Cell::Text(name), now]);
        }
        self.transact(move |tx, _| {
            let rows = rows.clone();
            Box::pin(async move { Ok(Rows::send([rows], tx).await?) })
        })
        .await
    }
}
