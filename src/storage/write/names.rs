//! The act that stores what users call themselves.

use sea_orm::DatabaseBackend;

use super::{
    act::{Done, Failure},
    transaction::Transaction,
};
use crate::{
    domain::id::UserId,
    storage::sql::{Cell, Rows},
};

/// Stores users' names instead of those they had.
pub async fn store(tx: &mut Transaction<'_>, users: &[(UserId, String)]) -> Result<Done, Failure> {
    let tail = match tx.dialect.backend() {
        DatabaseBackend::MySql => {
            " AS new ON DUPLICATE KEY UPDATE name = new.name, updated_at = new.updated_at"
        }
        _ => " ON CONFLICT (id) DO UPDATE SET name = excluded.name, updated_at = excluded.updated_at",
    };
    let mut rows = Rows::new(tx.dialect, "INSERT INTO account (id, name, updated_at)", tail);
    let now = Cell::number(tx.now);
    for (id, name) in users {
        rows.push([Cell::number(*id), Cell::Text(name), now]);
    }
    Rows::send([rows], &tx.tx).await?;
    tx.has_written = true;
    Ok(Done::Recorded)
}
