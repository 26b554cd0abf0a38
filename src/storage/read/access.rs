//! Everybody who has rights to a location, read in one snapshot for a room.

use sea_orm::{ConnectionTrait, TransactionTrait};

use super::members::read_roles_of;
use crate::{
    domain::{
        access::Access,
        error::Result,
        id::{LocationId, UserId},
        time::Timestamp,
    },
    storage::{
        error::DbResult,
        pool::Store,
        sql::{Number, Unsigned, statement},
    },
};

impl Store {
    /// Reads everybody who has rights to a location: its owner, its members, and the shares that have not ended. `None`:
    /// there is no such location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn access(&self, id: LocationId) -> Result<Option<Access>> {
        let read = || async {
            let tx = self.reader()?.begin().await?;
            let sql = "SELECT owner_id, grants FROM location WHERE id = ?";
            let Some(row) = tx.query_one_raw(statement(&tx, sql, [id])).await? else { return Ok(None) };
            let (owner, Unsigned(grants)): (UserId, _) = row.try_get_many_by_index()?;
            let members = read_roles_of(&tx, id).await?;
            let sql = "SELECT id, expires_at FROM share WHERE location_id = ? AND expires_at > ?";
            let now = Timestamp::now();
            let shares = tx.query_all_raw(statement(&tx, sql, [Number::from(id), now.into()])).await?;
            let shares = shares.iter().map(|row| row.try_get_many_by_index()).collect::<DbResult<_>>()?;
            tx.commit().await?;
            Ok(Some(Access { owner, members, shares, grants }))
        };
        self.read(read).await
    }
}
