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
    domain::notification::Activity,
    storage::sql::{count, statement},
};

/// Carries out a change of rights under the lock of its location, so that later changes are decided by it.
pub async fn apply(tx: &mut Transaction<'_>, number: usize, act: &mut Rights) -> Result<Done, Failure> {
    let location = tx.locations.permit(act.location, &act.by, act.action())?.location.clone();
    tx.store.check_debt(act.payer)?;
    let account = Account::new(&act.by, act.payer);
    let (change, effect) = match &mut act.request {
        RightsRequest::SetMember { user, role, is_paid } => {
            members::set(tx, account, &location, (*user, *role), is_paid).await?
        }
        RightsRequest::RemoveMember(user) => {
            members::remove(tx, (act.by.user(), account), &location, *user).await?
        }
        RightsRequest::CreateShare(new) => shares::create(tx, &location, new).await?,
        RightsRequest::RevokeShare(share) => shares::revoke(tx, location.id, *share).await?,
    };
    if let Some(RightsEffect { activity, list, except }) = effect {
        tx.has_written = true;
        let sql = "UPDATE location SET grants = grants + 1 WHERE id = ?";
        tx.tx.execute_raw(statement(&tx.tx, sql, [act.location])).await?;
        if let Some((user, change)) = list {
            tx.effects.change_list_of(number, account, user, change);
        }
        if let Some(kind) = activity {
            let name = location.properties.name();
            let activity = account.activity(&act.by, &location, name, kind, tx.now);
            tx.effects.record_activity(number, Activity { except, ..activity });
        }
    }
    let sql = "SELECT grants FROM location WHERE id = ?";
    let grants = count(&tx.tx, statement(&tx.tx, sql, [act.location])).await?;
    Ok(Done::Rights { change, grants })
}
