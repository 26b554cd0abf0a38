//! Storing notices and who gets them, in the transaction of what they tell of; and taking one back.
//!
//! The text of a notice is stored once, however many are notified. Each recipient has a narrow row with an id made of
//! the notice's: known before it is written.

use std::collections::{BTreeSet, HashMap};

use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction, Value};

use super::audience::{Account, MAX_OF_SEVERAL_ACTS, Members, too_many};
use crate::{
    domain::{
        id::{LocationId, UserId},
        notification::{Activity, AddressedNotice, Notice},
        time::Timestamp,
    },
    storage::{
        error::DbResult,
        pool::Store,
        read::{members, notifications},
        sql::{Cell, NOTIFICATIONS_OF_A_NOTICE, Number, Rows, Unsigned, statement, with_values},
    },
};

/// Notifications of one statement; SQLite takes 32,766 parameters.
const ROWS_OF_A_STATEMENT: usize = 5_000;

/// A notice that is to be stored.
struct Unstored {
    /// The number of the act it tells of.
    number: usize,
    notice: Notice,
    actor: Option<u64>,
    recipients: Vec<UserId>,
}

/// Stores the notices of some activities, which have the numbers of their acts; returns each with that number.
///
/// # Errors
/// As the database; that too many people have to be told, which a single activity is never refused for.
pub async fn store(
    store: &Store,
    tx: &DatabaseTransaction,
    activities: &[(usize, Activity)],
    members: &Members,
) -> DbResult<Vec<(usize, AddressedNotice)>> {
    if activities.is_empty() {
        return Ok(Vec::new());
    }
    let names = read_names(tx, activities, members).await?;
    let unstored = address(store, activities, members, &names);
    let count = unstored.iter().map(|of| of.recipients.len()).sum::<usize>();
    if activities.len() > 1 && count > MAX_OF_SEVERAL_ACTS {
        return Err(too_many());
    }
    let mut stored = Vec::with_capacity(unstored.len());
    let new_rows = || Rows::new(store.dialect(), "INSERT INTO notification (user_id, id)");
    let (mut rows, mut count) = (new_rows(), 0);
    for Unstored { number, notice, actor, recipients } in unstored {
        let first = insert(tx, &notice, actor).await? * NOTIFICATIONS_OF_A_NOTICE;
        let recipients: Vec<_> = recipients.into_iter().zip(first..).collect();
        for (user, id) in &recipients {
            rows.push([Cell::number(*user), Cell::number(*id)]);
            count += 1;
            if count % ROWS_OF_A_STATEMENT == 0 {
                Rows::send([std::mem::replace(&mut rows, new_rows())], tx).await?;
            }
        }
        stored.push((number, AddressedNotice { notice, recipients }));
    }
    Rows::send([rows], tx).await?;
    Ok(stored)
}

/// Reads the names of the users whom notices will name.
async fn read_names(
    tx: &DatabaseTransaction,
    activities: &[(usize, Activity)],
    members: &Members,
) -> DbResult<HashMap<UserId, String>> {
    // Most acts are on locations that nobody else has to do with.
    let concerns_others = |activity: &&Activity| {
        activity.owner != activity.by
            || !activity.is_for_members()
            || members_of(members, activity).iter().any(|user| *user != activity.by)
    };
    let users: BTreeSet<_> = activities
        .iter()
        .map(|(_, activity)| activity)
        .filter(concerns_others)
        .flat_map(Activity::named_users)
        .collect();
    let users = Vec::from_iter(users);
    Ok(members::read_names(tx, &users).await?.into_iter().collect())
}

/// Writes the notices and finds their recipients. A person to whom the caller may tell no more for now is left out:
/// the act is carried out all the same, and their lists show it.
fn address(
    store: &Store,
    activities: &[(usize, Activity)],
    members: &Members,
    names: &HashMap<UserId, String>,
) -> Vec<Unstored> {
    let name = |user: UserId| names.get(&user).map(String::as_str);
    let mut unstored = Vec::new();
    for (number, activity) in activities {
        let actor = activity.pair_payer.map(|_| activity.by.get());
        for (notice, mut recipients) in activity.notices(members_of(members, activity), name) {
            recipients.retain(|user| {
                activity.is_prepaid_for(*user) || store.take_for_person(activity.pair_payer, *user).is_ok()
            });
            if !recipients.is_empty() {
                unstored.push(Unstored { number: *number, notice, actor, recipients });
            }
        }
    }
    unstored
}

fn members_of<'a>(members: &'a Members, activity: &Activity) -> &'a [UserId] {
    members.get(&activity.location).map_or(&[], Vec::as_slice)
}

/// Stores a notice; returns its id. `actor` is the user whose acts fill only a share of each recipient's
/// notifications; `None`: an admin's token, which belongs to the app's own backend.
async fn insert(tx: &DatabaseTransaction, notice: &Notice, actor: Option<u64>) -> DbResult<u64> {
    let sql = "INSERT INTO notice (kind, actor_id, location_id, message, fields, created_at) \
               VALUES (?, ?, ?, ?, ?, ?)";
    let values = [
        notice.kind.into(),
        Number::or_null(actor),
        Number::from(notice.location).into(),
        notice.message.as_str().into(),
        notice.fields.as_str().into(),
        Number::from(notice.at).into(),
    ];
    Ok(tx.execute_raw(with_values(tx, sql, values)).await?.last_insert_id())
}

/// The beginning of a membership that is being ended, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Beginning {
    /// The same caller has begun it.
    pub is_by_the_same: bool,
    /// The member had not read of it, and the notice of it has been removed.
    pub is_taken_back: bool,
}

/// Finds out whether the caller who ends a membership has begun it so recently that its `member_added` is still there.
/// If the member has not read that yet, it is removed, with changes of the role since: together with the end it says
/// nothing any more.
pub async fn take_back(
    tx: &DatabaseTransaction,
    id: LocationId,
    (by, account): (UserId, Account),
    member: UserId,
    added_at: Timestamp,
) -> DbResult<Beginning> {
    let actor = Number::or_null(account.pair_payer.map(|_| by.get()));
    let (join, is_actor) = match tx.get_database_backend() {
        DatabaseBackend::MySql => ("STRAIGHT_JOIN", "notice.actor_id <=> ?"),
        _ => ("CROSS JOIN", "notice.actor_id IS ?"),
    };
    let sql = format!(
        "SELECT told.id, told.read_at FROM notice {join} notification AS told \
           ON told.id >= notice.id * {NOTIFICATIONS_OF_A_NOTICE} \
             AND told.id < (notice.id + 1) * {NOTIFICATIONS_OF_A_NOTICE} \
         WHERE notice.created_at = ? AND notice.location_id = ? AND {is_actor} \
           AND notice.kind = 'member_added' AND told.user_id = ?"
    );
    let [added_at, id, user] = [Number::from(added_at), id.into(), member.into()].map(Value::from);
    let added = with_values(tx, &sql, [added_at, id.clone(), actor.clone(), user.clone()]);
    let Some(row) = tx.query_one_raw(added).await? else { return Ok(Beginning::default()) };
    let (Unsigned(first), read_at): (_, Option<Timestamp>) = row.try_get_many_by_index()?;
    if read_at.is_none() {
        let unread = format!(
            "AND told.id >= ? AND told.read_at IS NULL AND notice.location_id = ? AND {is_actor} \
             AND notice.kind IN ('member_added', 'role_changed')"
        );
        let values = [user, Number::from(first).into(), id, actor];
        let delete = "DELETE FROM notification WHERE user_id = ? AND id = ?";
        for row in tx.query_all_raw(with_values(tx, &notifications::select(tx, &unread), values)).await? {
            let Unsigned(told) = row.try_get_by_index(0)?;
            tx.execute_raw(statement(tx, delete, [Number::from(member), told.into()])).await?;
        }
    }
    Ok(Beginning { is_by_the_same: true, is_taken_back: read_at.is_none() })
}
