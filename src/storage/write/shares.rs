//! The acts on share links: making and revoking one, and counting uses.

use std::fmt::Write as _;

use sea_orm::{ConnectionTrait, DatabaseBackend, Value};

use super::{
    act::{Done, Failure, NewShare, ShareUses},
    audience::{ChangedRights, RightsEffect},
    transaction::Transaction,
};
use crate::{
    domain::{
        access::RightsChange,
        error::{Code, Error},
        id::{LocationId, ShareId},
        location::Location,
        notification::ActivityKind,
    },
    storage::sql::{Number, count, statement, with_values},
};

/// Share links that a location may have, apart from those that have ended.
const MAX_SHARES: u64 = 1_000;
/// The time for which a share link that has ended is remembered, so that whoever comes with it is told so.
const REMEMBERED_MS: i64 = 24 * 60 * 60 * 1_000;

/// Makes a share link, and forgets those of the location that ended long ago.
pub async fn create(
    tx: &Transaction<'_>,
    location: &Location,
    new: &NewShare,
) -> Result<ChangedRights, Failure> {
    let (id, now) = (Number::from(location.id), tx.now.as_millis());
    let sql = "DELETE FROM share WHERE location_id = ? AND expires_at <= ?";
    tx.tx.execute_raw(statement(&tx.tx, sql, [id, (now - REMEMBERED_MS).into()])).await?;
    let sql = "SELECT COUNT(*) FROM share WHERE location_id = ? AND expires_at > ?";
    if count(&tx.tx, statement(&tx.tx, sql, [id, now.into()])).await? >= MAX_SHARES {
        let detail = format!("location {} has {MAX_SHARES} shares, the most there may be", location.id);
        return Err(Error::new(Code::TooManyShares, detail).into());
    }
    let sql = "INSERT INTO share (location_id, token_hash, label, password_hash, from_version, created_at, \
                 expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let values: [Value; 7] = [
        id.into(),
        new.token_hash.to_vec().into(),
        new.label.clone().into(),
        new.password_hash.clone().into(),
        Number::from(location.version).into(),
        now.into(),
        Number::from(new.expires_at).into(),
    ];
    let share = ShareId(tx.tx.execute_raw(with_values(&tx.tx, sql, values)).await?.last_insert_id());
    let activity = Some(ActivityKind::ShareCreated(new.expires_at));
    let effect = RightsEffect { activity, ..Default::default() };
    Ok((RightsChange::Share(share, Some(new.expires_at)), Some(effect)))
}

/// Revokes a share link.
pub async fn revoke(tx: &Transaction<'_>, id: LocationId, share: ShareId) -> Result<ChangedRights, Failure> {
    let sql = "DELETE FROM share WHERE id = ? AND location_id = ?";
    let deleted = tx.tx.execute_raw(statement(&tx.tx, sql, [Number::from(share), id.into()])).await?;
    if deleted.rows_affected() == 0 {
        let detail = format!("location {id} has no share {}", share.0);
        return Err(Error::new(Code::NotFound, detail).into());
    }
    Ok((RightsChange::Share(share, None), Some(RightsEffect::default())))
}

/// Adds to the uses of share links, each of which is given once.
pub async fn count_uses(tx: &mut Transaction<'_>, used: &[ShareUses]) -> Result<Done, Failure> {
    if !used.is_empty() {
        tx.tx.execute_unprepared(&counting(tx.dialect.backend, used)).await?;
        tx.has_written = true;
    }
    Ok(Done::Recorded)
}

/// The statement that counts uses.
fn counting(backend: DatabaseBackend, used: &[ShareUses]) -> String {
    let (mut counts, mut times, mut ids) = (String::new(), String::new(), String::new());
    for ShareUses { share: ShareId(id), count, last_at } in used {
        let _ = write!(counts, " WHEN {id} THEN {count}");
        let _ = write!(times, " WHEN {id} THEN {}", last_at.as_millis());
        let _ = write!(ids, "{}{id}", if ids.is_empty() { "" } else { "," });
    }
    let greatest = match backend {
        DatabaseBackend::MySql => "GREATEST",
        _ => "MAX",
    };
    format!(
        "UPDATE share SET uses = uses + CASE id{counts} END, \
           last_used_at = {greatest}(COALESCE(last_used_at, 0), CASE id{times} END) WHERE id IN ({ids})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    #[test]
    fn uses_of_several_shares_are_counted_by_one_statement() {
        let uses = |share, count, last_at| ShareUses {
            share: ShareId(share),
            count,
            last_at: Timestamp::from_millis(last_at),
        };
        assert_eq!(
            counting(DatabaseBackend::MySql, &[uses(7, 2, 1_000), uses(9, 1, 2_000)]),
            "UPDATE share SET uses = uses + CASE id WHEN 7 THEN 2 WHEN 9 THEN 1 END, \
             last_used_at = GREATEST(COALESCE(last_used_at, 0), CASE id WHEN 7 THEN 1000 WHEN 9 THEN 2000 END) \
             WHERE id IN (7,9)"
        );
    }
}
