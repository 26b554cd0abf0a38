//! Members of locations: who they are and what they may do.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, Statement, Value};

use super::{
    access::{Granted, Held, Made, Try, Worked, count, statement, user},
    connect::Store,
    error::DbResult,
};
use crate::domain::{
    access::{Caller, Payer, Role},
    error::{Code, Error, Result},
    id::{LocationId, UserId},
    notification::Deed,
    time::Timestamp,
};

/// Of one location.
const MAX_MEMBERS: u64 = 10_000;

/// A member of a location.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// What they call themselves, if a token has said so.
    pub name: Option<String>,
    /// Viewer or editor.
    pub role: Role,
    /// When they became a member.
    pub added_at: Timestamp,
}

/// What a user is to a location, and where that stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Whose it is.
    pub owner: UserId,
    /// What the user is as a member of it.
    pub member: Option<Role>,
    /// Its newest version.
    pub version: u64,
}

impl Store {
    /// What a user is to a location. `None`: there is no such location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn standing(&self, id: LocationId, of: UserId) -> Result<Option<Standing>> {
        let sql = "SELECT owner_id, version, (SELECT role FROM member WHERE location_id = ? AND user_id = ?) \
                   FROM location WHERE id = ?";
        let read = || async {
            let db = self.reader()?;
            let row = db.query_one_raw(statement(&db, sql, [id.get(), of.get(), id.get()])).await?;
            row.map(|row| {
                let (owner, version, role): (i64, i64, Option<i16>) = row.try_get_many_by_index()?;
                let member = role.map(from_number).transpose()?;
                Ok(Standing { owner: user(owner)?, member, version: version as u64 })
            })
            .transpose()
        };
        self.answered(read).await
    }

    /// The members of a location, longest first, then by id.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn members(&self, id: LocationId) -> Result<Vec<Member>> {
        let sql = "SELECT member.user_id, account.name, member.role, member.added_at \
                   FROM member LEFT JOIN account ON account.id = member.user_id \
                   WHERE member.location_id = ? ORDER BY member.added_at, member.user_id";
        let read = || async {
            let db = self.reader()?;
            let rows = db.query_all_raw(statement(&db, sql, [id.get()])).await?;
            let member = rows.iter().map(|row| {
                let (id, name, role, added_at): (i64, Option<String>, i16, i64) =
                    row.try_get_many_by_index()?;
                let added_at = Timestamp::from_millis(added_at);
                Ok(Member { user: user(id)?, name, role: from_number(role)?, added_at })
            });
            member.collect()
        };
        let mut members: Vec<Member> = self.answered(read).await?;
        // What was said last may not be written down yet.
        let (said, _) = self.names.of(&members.iter().map(|member| member.user).collect::<Vec<_>>());
        let mut said = said.into_iter().peekable();
        for member in &mut members {
            if let Some((_, name)) = said.next_if(|(user, _)| *user == member.user) {
                member.name = Some(name);
            }
        }
        Ok(members)
    }

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
    let was = self::role(tx, id, user).await?;
    if was == Some(role) {
        return Ok(held.unchanged());
    }
    pay(held.pair_payer)?;
    let deed = match was {
        Some(_) => {
            let sql = "UPDATE member SET role = ? WHERE location_id = ? AND user_id = ?";
            tx.execute_raw(statement(tx, sql, [number, location, user_id])).await?;
            Deed::Changed(user, role)
        }
        None => {
            let sql = "SELECT COUNT(*) FROM member WHERE location_id = ?";
            if count(tx, statement(tx, sql, [location])).await? >= MAX_MEMBERS {
                let detail = format!("location {id} has {MAX_MEMBERS} members, the most there may be");
                return Err(Error::new(Code::TooManyMembers, detail).into());
            }
            let sql = "INSERT INTO member (location_id, user_id, role, added_at) VALUES (?, ?, ?, ?)";
            tx.execute_raw(statement(tx, sql, [location, user_id, number, now])).await?;
            Deed::Added(user, role)
        }
    };
    held.made(tx, (), Some(deed)).await
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
    held.made(tx, (), Some(Deed::Removed(user, Timestamp::from_millis(added_at)))).await
}

/// What a user is to a location as a member of it.
pub async fn role(db: &impl ConnectionTrait, id: LocationId, user: UserId) -> DbResult<Option<Role>> {
    let sql = "SELECT role FROM member WHERE location_id = ? AND user_id = ?";
    let row = db.query_one_raw(statement(db, sql, [id.get(), user.get()])).await?;
    row.map(|row| from_number(row.try_get_by_index(0)?)).transpose()
}

/// All members of a location and their roles.
pub async fn of(db: &impl ConnectionTrait, id: LocationId) -> DbResult<HashMap<UserId, Role>> {
    let sql = "SELECT user_id, role FROM member WHERE location_id = ?";
    let rows = db.query_all_raw(statement(db, sql, [id.get()])).await?;
    let role = rows.iter().map(|row| {
        let (id, role): (i64, i16) = row.try_get_many_by_index()?;
        Ok((user(id)?, from_number(role)?))
    });
    role.collect()
}

/// What users are to locations as members of them, by one statement; none for none.
pub async fn roles(
    db: &impl ConnectionTrait,
    mut asked: Vec<(LocationId, UserId)>,
) -> DbResult<HashMap<(LocationId, UserId), Role>> {
    // As `rows::id_list`: few different texts.
    let Some(last) = asked.last().copied() else { return Ok(HashMap::new()) };
    asked.resize(asked.len().next_power_of_two(), last);
    let pairs = vec!["(?,?)"; asked.len()].join(",");
    let sql = match db.get_database_backend() {
        DatabaseBackend::MySql => {
            format!("SELECT location_id, user_id, role FROM member WHERE (location_id, user_id) IN ({pairs})")
        }
        // It would read all members of the locations to compare them with a list.
        _ => format!(
            "WITH asked (location_id, user_id) AS (VALUES {pairs}) \
             SELECT location_id, user_id, role FROM asked CROSS JOIN member USING (location_id, user_id)"
        ),
    };
    let values = asked.iter().flat_map(|(id, user)| [id.get(), user.get()]);
    let values = values.map(|number| Value::from(number as i64));
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let by_pair: HashMap<_, _> =
        asked.iter().map(|(id, user)| ((id.get() as i64, user.get() as i64), (*id, *user))).collect();
    let role = db.query_all_raw(statement).await?.into_iter().filter_map(|row| {
        let role = || {
            let (id, user, role): (i64, i64, i16) = row.try_get_many_by_index()?;
            Ok(by_pair.get(&(id, user)).copied().zip(Some(from_number(role)?)))
        };
        role().transpose()
    });
    role.collect()
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

/// See [`number`].
fn from_number(number: i16) -> DbResult<Role> {
    match number {
        1 => Ok(Role::Viewer),
        2 => Ok(Role::Editor),
        _ => Err(DbErr::Custom(format!("member.role holds {number}"))),
    }
}
