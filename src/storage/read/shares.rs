//! Share links: what they show, until when, and how often they were used.

use sea_orm::{ConnectionTrait, FromQueryResult, Statement};

use crate::{
    domain::{
        access::Guest,
        error::{Error, Result},
        id::{LocationId, ShareId},
        time::Timestamp,
    },
    storage::{
        error::DbResult,
        pool::Store,
        sql::{count, statement},
    },
};

/// A share as those who manage the location see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// Never another's.
    pub id: ShareId,
    /// What its maker calls it.
    pub label: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Whether a password is asked for.
    pub has_password: bool,
    /// How often it was used.
    pub uses: u64,
    /// When it was used last.
    pub last_used_at: Option<Timestamp>,
}

/// What the secret of a link opens.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredShare {
    /// What whoever has it is; it may have ended.
    pub guest: Guest,
    /// Of the password, if one is asked for.
    pub password_hash: Option<String>,
}

/// A row of a share.
#[derive(FromQueryResult)]
pub struct Row {
    pub id: i64,
    location_id: i64,
    label: Option<String>,
    password_hash: Option<String>,
    from_version: i64,
    created_at: i64,
    expires_at: i64,
    uses: i64,
    last_used_at: Option<i64>,
}

const COLUMNS: &str = "id, location_id, label, password_hash, from_version, created_at, expires_at, uses, \
                       last_used_at";

impl Store {
    /// Does a share link still open its location?
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn is_shared(&self, guest: &Guest) -> Result<bool> {
        let read = async || {
            let db = self.reader()?;
            let sql = "SELECT COUNT(*) FROM share WHERE id = ? AND location_id = ? AND expires_at > ?";
            let now = Timestamp::now().as_millis() as u64;
            count(&db, statement(&db, sql, [guest.share.0, guest.location.get(), now])).await
        };
        Ok(self.read(read).await? > 0)
    }

    /// The shares of a location that have not ended, oldest first.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn shares(&self, id: LocationId) -> Result<Vec<Share>> {
        let sql = format!("SELECT {COLUMNS} FROM share WHERE location_id = ? AND expires_at > ? ORDER BY id");
        let read = || async {
            let db = self.reader()?;
            let now = Timestamp::now().as_millis() as u64;
            Row::find_by_statement(statement(&db, &sql, [id.get(), now])).all(&db).await
        };
        let share = |row: Row| Share {
            id: ShareId(row.id as u64),
            label: row.label,
            created_at: Timestamp::from_millis(row.created_at),
            expires_at: Timestamp::from_millis(row.expires_at),
            has_password: row.password_hash.is_some(),
            uses: row.uses as u64,
            last_used_at: row.last_used_at.map(Timestamp::from_millis),
        };
        Ok(self.read(read).await?.into_iter().map(share).collect())
    }

    /// The share with this hash of its secret; it may have ended.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn share_by_hash(&self, token_hash: &[u8; 32]) -> Result<Option<StoredShare>> {
        let row = self.read(|| async { by_hash(&self.reader()?, token_hash).await }).await?;
        let Some(row) = row else { return Ok(None) };
        let location = LocationId::new(row.location_id as u64);
        let location = location.ok_or_else(|| Error::internal("share.location_id is that of no location"))?;
        let guest = Guest {
            share: ShareId(row.id as u64),
            location,
            from: row.from_version as u64,
            expires_at: Timestamp::from_millis(row.expires_at),
        };
        Ok(Some(StoredShare { guest, password_hash: row.password_hash }))
    }
}

/// The row of a share with this hash of its secret.
pub async fn by_hash(db: &impl ConnectionTrait, token_hash: &[u8; 32]) -> DbResult<Option<Row>> {
    let sql = format!("SELECT {COLUMNS} FROM share WHERE token_hash = ?");
    let values = [token_hash.to_vec().into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    Row::find_by_statement(statement).one(db).await
}
