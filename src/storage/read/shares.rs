//! Reading share links: those of a location, and the one that a secret opens.

use sea_orm::{ConnectionTrait, DatabaseConnection};

use crate::{
    domain::{
        access::Guest,
        error::Result,
        id::{LocationId, ShareId},
        time::Timestamp,
    },
    storage::{
        pool::Store,
        sql::{Number, Unsigned, count, statement, with_values},
    },
};

/// A share as those who manage the location see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The id, which no other share ever gets.
    pub id: ShareId,
    /// The label that its maker gave it.
    pub label: Option<String>,
    /// The time at which it was made.
    pub created_at: Timestamp,
    /// The time at which it ends.
    pub expires_at: Timestamp,
    /// Whether it has a password.
    pub has_password: bool,
    /// The number of its uses.
    pub uses: u64,
    /// The time of its last use.
    pub last_used_at: Option<Timestamp>,
}

/// A share as somebody finds it who has its link.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredShare {
    /// The guest that the link makes of its user. The share may have ended.
    pub guest: Guest,
    /// The hash of its password, if it has one.
    pub password_hash: Option<String>,
}

impl Store {
    /// Reads whether a share link still opens its location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn is_shared(&self, guest: &Guest) -> Result<bool> {
        let read = async |db: DatabaseConnection| {
            let sql = "SELECT COUNT(*) FROM share WHERE id = ? AND location_id = ? AND expires_at > ?";
            let values = [Number::from(guest.share), guest.location.into(), Timestamp::now().into()];
            count(&db, statement(&db, sql, values)).await
        };
        Ok(self.read(read).await? > 0)
    }

    /// Reads the shares of a location that have not ended, oldest first.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn shares(&self, id: LocationId) -> Result<Vec<Share>> {
        let sql = "SELECT id, label, created_at, expires_at, password_hash, uses, last_used_at \
                   FROM share WHERE location_id = ? AND expires_at > ? ORDER BY id";
        let read = async |db: DatabaseConnection| {
            let values = [Number::from(id), Timestamp::now().into()];
            let rows = db.query_all_raw(statement(&db, sql, values)).await?;
            let share = rows.iter().map(|row| {
                let (id, label, created_at, expires_at, password_hash, Unsigned(uses), last_used_at) =
                    row.try_get_many_by_index()?;
                let has_password = Option::<String>::is_some(&password_hash);
                Ok(Share { id, label, created_at, expires_at, has_password, uses, last_used_at })
            });
            share.collect()
        };
        self.read(read).await
    }

    /// Reads the share with this hash of its secret. It may have ended.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn share_by_hash(&self, token_hash: &[u8; 32]) -> Result<Option<StoredShare>> {
        let sql =
            "SELECT id, location_id, from_version, expires_at, password_hash FROM share WHERE token_hash = ?";
        let read = async |db: DatabaseConnection| {
            let row = db.query_one_raw(with_values(&db, sql, [token_hash.to_vec().into()])).await?;
            let share = row.map(|row| {
                let (share, location, Unsigned(from), expires_at, password_hash) =
                    row.try_get_many_by_index()?;
                Ok(StoredShare { guest: Guest { share, location, from, expires_at }, password_hash })
            });
            share.transpose()
        };
        self.read(read).await
    }
}
