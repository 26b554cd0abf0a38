//! Who has to do with a location.

use sea_orm::{ConnectionTrait, TransactionTrait};

use super::members;
use crate::{
    domain::{
        access::Access,
        error::Result,
        id::{LocationId, ShareId},
        time::Timestamp,
    },
    storage::{
        error::DbResult,
        pool::Store,
        sql::{statement, user},
    },
};

impl Store {
    /// Everybody who has to do with a location: its owner, members, the shares that have not ended. `None`:
    /// there is no such location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn access(&self, id: LocationId) -> Result<Option<Access>> {
        let read = || async {
            let tx = self.reader()?.begin().await?;
            let sql = "SELECT owner_id, grants FROM location WHERE id = ?";
            let Some(row) = tx.query_one_raw(statement(&tx, sql, [id.get()])).await? else {
                return Ok(None);
            };
            let (owner, grants): (i64, i64) = row.try_get_many_by_index()?;
            let members = members::of(&tx, id).await?;
            let sql = "SELECT id, expires_at FROM share WHERE location_id = ? AND expires_at > ?";
            let now = Timestamp::now().as_millis() as u64;
            let shares = tx.query_all_raw(statement(&tx, sql, [id.get(), now])).await?;
            let shares = shares.iter().map(|row| {
                let (id, expires_at): (i64, i64) = row.try_get_many_by_index()?;
                Ok((ShareId(id as u64), Timestamp::from_millis(expires_at)))
            });
            let access = Access {
                owner: user(owner)?,
                members,
                shares: shares.collect::<DbResult<_>>()?,
                grants: grants as u64,
            };
            tx.commit().await?;
            Ok(Some(access))
        };
        self.read(read).await
    }
}
