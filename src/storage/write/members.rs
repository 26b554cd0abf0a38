//! The acts on members: giving a user a role, and ending a membership.

use std::sync::Arc;

use sea_orm::ConnectionTrait;

use super::{
    act::Failure,
    audience::{Account, ChangedRights, RightsEffect},
    notifications::{self, Beginning},
    transaction::Transaction,
};
use crate::{
    domain::{
        access::{RightsChange, Role},
        error::{Code, Error, Result},
        event::{ListChange, RemovalReason},
        id::UserId,
        location::Committed,
        notification::ActivityKind,
        time::Timestamp,
    },
    storage::{
        read::members,
        sql::{Number, count, statement},
    },
};

/// Members that a location may have.
const MAX_MEMBERS: u64 = 10_000;
/// A membership that the same caller begins and ends within this time is taken back: the member is notified of
/// neither, unless they have read of the first.
const TAKEN_BACK_MS: i64 = 60_000;
/// A connection that has not read of a membership is not closed for it if the same caller ends it within this time:
/// nobody has asked for what was sent of it. Phones take seconds to read.
const FRESH_MS: i64 = 10_000;

/// Makes a user a member of a location, or gives a member another role.
pub async fn set(
    tx: &Transaction<'_>,
    account: Account,
    location: &Arc<Committed>,
    (user, role): (UserId, Role),
    is_paid: &mut bool,
) -> std::result::Result<ChangedRights, Failure> {
    let id = location.id;
    let (change, number) = (RightsChange::Member(user, Some(role)), role_number(role)?);
    if user == location.owner {
        let detail = format!("user {user} made location {id} and cannot be a member of it");
        return Err(Error::new(Code::InvalidMember, detail).into());
    }
    let before = members::read_role(&tx.tx, id, user).await?;
    if before == Some(role) {
        return Ok((change, None));
    }
    if !*is_paid {
        tx.store.take_for_person(account.pair_payer, user)?;
        *is_paid = true;
    }
    let [location_id, user_id, number] = [Number::from(id), user.into(), number.into()];
    if before.is_some() {
        let sql = "UPDATE member SET role = ? WHERE location_id = ? AND user_id = ?";
        tx.tx.execute_raw(statement(&tx.tx, sql, [number, location_id, user_id])).await?;
        let activity = Some(ActivityKind::RoleChanged(user, role));
        return Ok((change, Some(RightsEffect { activity, ..Default::default() })));
    }
    let sql = "SELECT COUNT(*) FROM member WHERE location_id = ?";
    if count(&tx.tx, statement(&tx.tx, sql, [location_id])).await? >= MAX_MEMBERS {
        let detail = format!("location {id} has {MAX_MEMBERS} members, the most there may be");
        return Err(Error::new(Code::TooManyMembers, detail).into());
    }
    let sql = "INSERT INTO member (location_id, user_id, role, added_at) VALUES (?, ?, ?, ?)";
    tx.tx.execute_raw(statement(&tx.tx, sql, [location_id, user_id, number, tx.now.into()])).await?;
    let activity = Some(ActivityKind::MemberAdded(user, role));
    let list = Some((user, ListChange::Created(location.clone())));
    Ok((change, Some(RightsEffect { activity, list, except: None })))
}

/// Ends a membership.
pub async fn remove(
    tx: &Transaction<'_>,
    (by, account): (UserId, Account),
    location: &Committed,
    user: UserId,
) -> std::result::Result<ChangedRights, Failure> {
    let key = [Number::from(location.id), user.into()];
    let sql = "SELECT added_at FROM member WHERE location_id = ? AND user_id = ?";
    let Some(row) = tx.tx.query_one_raw(statement(&tx.tx, sql, key)).await? else {
        let detail = format!("user {user} is no member of location {}", location.id);
        return Err(Error::new(Code::NotFound, detail).into());
    };
    let added_at: Timestamp = row.try_get_by_index(0)?;
    let sql = "DELETE FROM member WHERE location_id = ? AND user_id = ?";
    tx.tx.execute_raw(statement(&tx.tx, sql, key)).await?;
    let lasted_ms = tx.now.as_millis() - added_at.as_millis();
    let beginning = match user != by && lasted_ms < TAKEN_BACK_MS {
        true => notifications::take_back(&tx.tx, location.id, (by, account), user, added_at).await?,
        false => Beginning::default(),
    };
    let change = ListChange::Deleted(location.id, removal_reason(beginning, lasted_ms));
    let effect = RightsEffect {
        activity: Some(ActivityKind::MemberRemoved(user, added_at)),
        list: Some((user, change)),
        except: beginning.is_taken_back.then_some(user),
    };
    Ok((RightsChange::Member(user, None), Some(effect)))
}

/// Decides why a former member no longer sees the location.
fn removal_reason(beginning: Beginning, lasted_ms: i64) -> RemovalReason {
    match beginning.is_by_the_same && lasted_ms < FRESH_MS {
        true => RemovalReason::TakenBack,
        false => RemovalReason::Withdrawn,
    }
}

/// A role as the column has it.
fn role_number(role: Role) -> Result<u64> {
    match role {
        Role::Viewer => Ok(1),
        Role::Editor => Ok(2),
        Role::Guest | Role::Owner => {
            Err(Error::new(Code::InvalidMember, "a member is a viewer or an editor").at("/role"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_its_giver_takes_away_within_moments_is_taken_back() {
        let beginning = |is_by_the_same| Beginning { is_by_the_same, is_taken_back: false };
        for (is_by_the_same, lasted_ms, reason) in [
            (true, 0, RemovalReason::TakenBack),
            (true, FRESH_MS - 1, RemovalReason::TakenBack),
            (true, FRESH_MS, RemovalReason::Withdrawn),
            (false, 0, RemovalReason::Withdrawn),
        ] {
            assert_eq!(removal_reason(beginning(is_by_the_same), lasted_ms), reason, "{lasted_ms}");
        }
    }
}
