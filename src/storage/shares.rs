//! Share links: what they show, until when, and how often they were used.

use std::fmt::Write as _;

use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction, FromQueryResult, Statement, Value};

use super::{
    access::{Granted, Held, Made, Try, Worked, count, statement},
    connect::Store,
    error::DbResult,
};
use crate::domain::{
    access::{Caller, Guest, Payer, ShareId},
    error::{Code, Error, Result},
    id::LocationId,
    notification::Deed,
    time::Timestamp,
};

/// Of one location, and not ended.
const MAX_SHARES: u64 = 1_000;
/// How long a share that has ended is known to have been one.
const REMEMBERED_MS: i64 = 24 * 60 * 60 * 1_000;

/// A share to be made.
#[derive(Clone, Debug)]
pub struct NewShare {
    /// Of which location.
    pub location: LocationId,
    /// Who pays if many have to be told of it; `None`: nobody.
    pub payer: Option<Payer>,
    /// What its maker calls it.
    pub label: Option<String>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Of the password, if one is asked for.
    pub password_hash: Option<String>,
    /// Of the link's secret.
    pub token_hash: [u8; 32],
}

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

#[derive(FromQueryResult)]
struct Row {
    id: i64,
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
    /// Makes a share; returns its id.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `too_many_shares`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn create_share(&self, by: &Caller, new: NewShare) -> Result<Granted<ShareId>> {
        let (location, payer) = (new.location, new.payer);
        self.grant(by, payer, location, move |tx, held| Box::pin(create(tx, held, new.clone()))).await
    }

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
        Ok(self.answered(read).await? > 0)
    }

    /// Ends a share.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `storage_unavailable`, `internal`.
    pub async fn revoke_share(&self, by: &Caller, id: LocationId, share: ShareId) -> Result<Granted<()>> {
        self.grant(by, None, id, move |tx, held| Box::pin(revoke(tx, held, share))).await
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
        Ok(self.answered(read).await?.into_iter().map(share).collect())
    }

    /// The share with this hash of its secret; it may have ended.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn share_by_hash(&self, token_hash: &[u8; 32]) -> Result<Option<StoredShare>> {
        let row = self.answered(|| async { by_hash(&self.reader()?, token_hash).await }).await?;
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

    /// Adds to the uses of shares, each given once, and when it was used last. Whether they were counted may
    /// remain unknown; then rather not than twice.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn count_uses(&self, used: &[(ShareId, u64, Timestamp)]) -> Result<()> {
        if used.is_empty() {
            return Ok(());
        }
        let (mut uses, mut last, mut ids) = (String::new(), String::new(), String::new());
        for (ShareId(id), more, at) in used {
            let _ = write!(uses, " WHEN {id} THEN {more}");
            let _ = write!(last, " WHEN {id} THEN {}", at.as_millis());
            let _ = write!(ids, "{}{id}", if ids.is_empty() { "" } else { "," });
        }
        let greatest = match self.backend() {
            DatabaseBackend::MySql => "GREATEST",
            _ => "MAX",
        };
        let sql = format!(
            "UPDATE share SET uses = uses + CASE id{uses} END, \
               last_used_at = {greatest}(COALESCE(last_used_at, 0), CASE id{last} END) WHERE id IN ({ids})"
        );
        self.transact(move |tx, at| {
            let sql = sql.clone();
            Box::pin(async move {
                if at == Try::Clean {
                    tx.execute_unprepared(&sql).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

async fn create(tx: &DatabaseTransaction, held: &Held, new: NewShare) -> Worked<Made<ShareId>> {
    if held.at == Try::Unsure
        && let Some(made) = by_hash(tx, &new.token_hash).await?
    {
        return Ok(Made { value: ShareId(made.id as u64), grants: held.grants, deed: None });
    }
    held.may_change(None)?;
    let (id, now) = (held.id.get(), held.now.as_millis());
    let sql = "DELETE FROM share WHERE location_id = ? AND expires_at <= ?";
    tx.execute_raw(statement(tx, sql, [id, (now - REMEMBERED_MS) as u64])).await?;
    let sql = "SELECT COUNT(*) FROM share WHERE location_id = ? AND expires_at > ?";
    if count(tx, statement(tx, sql, [id, now as u64])).await? >= MAX_SHARES {
        let detail = format!("location {id} has {MAX_SHARES} shares, the most there may be");
        return Err(Error::new(Code::TooManyShares, detail).into());
    }
    let sql = "INSERT INTO share (location_id, token_hash, label, password_hash, from_version, created_at, \
                 expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let values: [Value; 7] = [
        (id as i64).into(),
        new.token_hash.to_vec().into(),
        new.label.into(),
        new.password_hash.into(),
        (held.version as i64).into(),
        now.into(),
        new.expires_at.as_millis().into(),
    ];
    let insert = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    let share = ShareId(tx.execute_raw(insert).await?.last_insert_id());
    held.made(tx, share, Some(Deed::Shared(new.expires_at))).await
}

async fn revoke(tx: &DatabaseTransaction, held: &Held, share: ShareId) -> Worked<Made<()>> {
    held.may_change(None)?;
    let sql = "DELETE FROM share WHERE id = ? AND location_id = ?";
    let deleted = tx.execute_raw(statement(tx, sql, [share.0, held.id.get()])).await?;
    match (deleted.rows_affected(), held.at) {
        (0, Try::Unsure) => Ok(held.unchanged()),
        (0, Try::Clean) => {
            let detail = format!("location {} has no share {}", held.id, share.0);
            Err(Error::new(Code::NotFound, detail).into())
        }
        _ => held.made(tx, (), None).await,
    }
}

async fn by_hash(db: &impl ConnectionTrait, token_hash: &[u8; 32]) -> DbResult<Option<Row>> {
    let sql = format!("SELECT {COLUMNS} FROM share WHERE token_hash = ?");
    let values = [token_hash.to_vec().into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    Row::find_by_statement(statement).one(db).await
}
