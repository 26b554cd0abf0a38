//! Making users members of locations, and ending that.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use super::grant::{Granted, Held, Made, Try, Worked};
use crate::{
    domain::{
        access::{Caller, Payer, Role},
        error::{Code, Error, Result},
        id::{LocationId, UserId},
        notification::ActivityKind,
        time::Timestamp,
    },
    storage::{
        pool::Store,
        read::members,
        sql::{count, statement},
    },
};

/// Of one location.
const MAX_MEMBERS: u64 = 10_000;

impl Store {
    /// Makes a user a member of a location, or gives a member another role.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `invalid_member`, `too_many_members`, `rate_limited`, `storage_unavailable`,
    /// `internal`.
    pub async fn set_member(
        &self,
        by: &Caller,
        payer: Option<Payer>,
        id: LocationId,
        user: UserId,
        role: Role,
    ) -> Result<Granted<()>> {
        let (store, is_paid_for) = (self.clone(), Arc::new(AtomicBool::new(false)));
        self.grant(by, payer, id, move |tx, held| {
            let (store, is_paid_for) = (store.clone(), is_paid_for.clone());
            let pay = move |pair_payer| match is_paid_for.swap(true, Ordering::Relaxed) {
                // Another try of the same change.
                true => Ok(()),
                false => store.may_concern(pair_payer, user),
            };
            Box::pin(async move { set(tx, held, user, role, pay).await })
        })
        .await
    }

    /// Ends a membership, others' or one's own.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `storage_unavailable`, `internal`.
    pub async fn remove_member(
        &self,
        by: &Caller,
        payer: Option<Payer>,
        id: LocationId,
        user: UserId,
    ) -> Result<Granted<()>> {
        self.grant(by, payer, id, move |tx, held| Box::pin(remove(tx, held, user))).await
    }
}

/// `pay`: draws on what its argument may do to the user.
async fn set(
    tx: &DatabaseTransaction,
    held: &Held,
    user: UserId,
    role: Role,
    pay: impl FnOnce(Option<Payer>) -> Result<()>,
) -> Worked<Made<()>> {
    held.may_change(None)?;
    let (id, number) = (held.id, number(role)?);
    if user == held.owner {
        let detail = format!("user {user} made location {id} and cannot be a member of it");
        return Err(Error::new(Code::InvalidMember, detail).into());
    }
    let (location, user_id, now) = (id.get(), user.get(), held.now.as_millis() as u64);
    let was = members::role(tx, id, user).await?;
    if was == Some(role) {
        return Ok(held.unchanged());
    }
    pay(held.pair_payer)?;
    let kind = match was {
        Some(_) => {
            let sql = "UPDATE member SET role = ? WHERE location_id = ? AND user_id = ?";
            tx.execute_raw(statement(tx, sql, [number, location, user_id])).await?;
            ActivityKind::RoleChanged(user, role)
        }
        None => {
            let sql = "SELECT COUNT(*) FROM member WHERE location_id = ?";
            if count(tx, statement(tx, sql, [location])).await? >= MAX_MEMBERS {
                let detail = format!("location {id} has {MAX_MEMBERS} members, the most there may be");
                return Err(Error::new(Code::TooManyMembers, detail).into());
            }
            let sql = "INSERT INTO member (location_id, user_id, role, added_at) VALUES (?, ?, ?, ?)";
            tx.execute_raw(statement(tx, sql, [location, user_id, number, now])).await?;
            ActivityKind::MemberAdded(user, role)
        }
    };
    held.made(tx, (), Some(kind)).await
}

async fn remove(tx: &DatabaseTransaction, held: &Held, user: UserId) -> Worked<Made<()>> {
    let key = [held.id.get(), user.get()];
    let sql = "SELECT added_at FROM member WHERE location_id = ? AND user_id = ?";
    let added_at = tx.query_one_raw(statement(tx, sql, key)).await?;
    let added_at: Option<i64> = added_at.map(|row| row.try_get_by_index(0)).transpose()?;
    if added_at.is_none() && held.at == Try::Unsure {
        // Not a question of rights: who has removed themselves has none any more.
        return Ok(held.unchanged());
    }
    held.may_change(Some(user))?;
    let Some(added_at) = added_at else {
        let detail = format!("user {user} is no member of location {}", held.id);
        return Err(Error::new(Code::NotFound, detail).into());
    };
    let sql = "DELETE FROM member WHERE location_id = ? AND user_id = ?";
    tx.execute_raw(statement(tx, sql, key)).await?;
    held.made(tx, (), Some(ActivityKind::MemberRemoved(user, Timestamp::from_millis(added_at)))).await
}

/// A role as a row has it.
fn number(role: Role) -> Result<u64> {
    match role {
        Role::Viewer => Ok(1),
        Role::Editor => Ok(2),
        Role::Guest | Role::Owner => {
            Err(Error::new(Code::InvalidMember, "a member is a viewer or an editor").at("/role"))
        }
    }
}
