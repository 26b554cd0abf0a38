//! Members of locations: who they are and what they may do.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, Statement, Value};

use crate::{
    domain::{
        access::Role,
        error::Result,
        id::{LocationId, UserId},
        time::Timestamp,
    },
    storage::{
        error::DbResult,
        pool::Store,
        sql::{statement, user},
    },
};

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
        self.read(read).await
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
        let mut members: Vec<Member> = self.read(read).await?;
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
fn from_number(number: i16) -> DbResult<Role> {
    match number {
        1 => Ok(Role::Viewer),
        2 => Ok(Role::Editor),
        _ => Err(DbErr::Custom(format!("member.role holds {number}"))),
    }
}
