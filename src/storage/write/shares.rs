//! Making share links, ending them, counting their uses.

use std::fmt::Write as _;

use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction, Statement, Value};

use super::grant::{Granted, Held, Made, Try, Worked};
use crate::{
    domain::{
        access::{Caller, Payer},
        error::{Code, Error, Result},
        id::{LocationId, ShareId},
        notification::ActivityKind,
        time::Timestamp,
    },
    storage::{
        pool::Store,
        read::shares::by_hash,
        sql::{count, statement},
    },
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

impl Store {
    /// Makes a share; returns its id.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `too_many_shares`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn create_share(&self, by: &Caller, new: NewShare) -> Result<Granted<ShareId>> {
        let (location, payer) = (new.location, new.payer);
        self.grant(by, payer, location, move |tx, held| Box::pin(create(tx, held, new.clone()))).await
    }

    /// Ends a share.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `storage_unavailable`, `internal`.
    pub async fn revoke_share(&self, by: &Caller, id: LocationId, share: ShareId) -> Result<Granted<()>> {
        self.grant(by, None, id, move |tx, held| Box::pin(revoke(tx, held, share))).await
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
        return Ok(Made { value: ShareId(made.id as u64), grants: held.grants, kind: None });
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
    held.made(tx, share, Some(ActivityKind::ShareCreated(new.expires_at))).await
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
