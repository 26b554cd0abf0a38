//! The acts that change who may see or change a location: its members and share links.
//!
//! Their common part is here: who may do it, the count of such changes, and what people are told. Each act itself
//! is in [`super::members`] or [`super::shares`].

use sea_orm::ConnectionTrait;

use super::{
    act::{Done, Failure, Rights, RightsRequest},
    audience::{Account, RightsEffect},
    members, shares,
    transaction::Transaction,
};
use crate::{
    domain::{id::LocationId, location::Location},
    storage::{
        error::DbResult,
        sql::{count, statement},
    },
};

/// Carries out a change of rights under the lock of its location, so that later changes are decided by it.
pub async fn apply(tx: &mut Transaction<'_>, number: usize, act: &mut Rights) -> Result<Done, Failure> {
    let location = tx.locations.permit(act.location, &act.by, act.action())?.location.clone();
    tx.store.check_debt(act.payer)?;
    let account = Account::new(&act.by, act.payer);
    let (change, effect) = match &mut act.request {
        RightsRequest::SetMember(new) => members::set(tx, account, &location, new).await?,
        RightsRequest::RemoveMember(user) => {
            members::remove(tx, (act.by.user(), account), &location, *user).await?
        }
        RightsRequest::CreateShare(new) => shares::create(tx, &location, new).await?,
        RightsRequest::RevokeShare(share) => shares::revoke(tx, location.id, *share).await?,
    };
    let grants = count_change(tx, location.id, effect.is_some()).await?;
    if let Some(effect) = effect {
        tx.has_written = true;
        record(tx, number, (act, account), &location, effect);
    }
    Ok(Done::Rights { change, grants })
}

/// Reads the number of changes of a location's rights, and counts another one if there is one.
async fn count_change(tx: &Transaction<'_>, id: LocationId, is_another: bool) -> DbResult<u64> {
    if is_another {
        let sql = "UPDATE location SET grants = grants + 1 WHERE id = ?";
        tx.tx.execute_raw(statement(&tx.tx, sql, [id.get()])).await?;
    }
    let sql = "SELECT grants FROM location WHERE id = ?";
    count(&tx.tx, statement(&tx.tx, sql, [id.get()])).await
}

/// Records what people are told of a change of rights.
fn record(
    tx: &mut Transaction<'_>,
    number: usize,
    (act, account): (&Rights, Account),
    location: &Location,
    RightsEffect { activity, list, except }: RightsEffect,
) {
    if let Some((user, change)) = list {
        tx.effects.change_list_of(number, account, user, change);
    }
    if let Some(kind) = activity {
        let mut activity = account.activity(&act.by, location, location.properties.name(), kind, tx.now);
        activity.except = except;
        tx.effects.record_activity(number, activity);
    }
}
