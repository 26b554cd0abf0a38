//! Reading the members of locations and their roles, everybody who has rights to a location, and users' names. The
//! newest names are in the cache of the service.

use std::collections::HashMap;

use sea_orm::{
    ColIdx, ConnectionTrait, DatabaseBackend, DatabaseConnection, DbErr, QueryResult, TransactionTrait,
    TryGetError, TryGetable,
};

use crate::{
    domain::{
        access::{Access, Role},
        error::Result,
        id::{LocationId, UserId},
        time::Timestamp,
    },
    storage::{
        error::DbResult,
        pool::Store,
        sql::{Number, Unsigned, number_list, statement, with_values},
    },
};

/// The users whose names are read by one statement.
const USERS_OF_STATEMENT: usize = 1_000;

/// A member of a location.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The member.
    pub user: UserId,
    /// The name that their token had last.
    pub name: Option<String>,
    /// Viewer or editor.
    pub role: Role,
    /// The time at which they became a member.
    pub added_at: Timestamp,
}

/// A user's relation to a location, and its newest version.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The owner of the location.
    pub owner: UserId,
    /// The role of the user as a member. `None`: they are none.
    pub member: Option<Role>,
    /// The newest version of the location.
    pub version: u64,
}

impl Store {
    /// Reads a user's relation to a location. `None`: there is no such location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn standing(&self, id: LocationId, user: UserId) -> Result<Option<Standing>> {
        let sql = "SELECT owner_id, version, (SELECT role FROM member WHERE location_id = ? AND user_id = ?) \
                   FROM location WHERE id = ?";
        let read = async |db: DatabaseConnection| {
            let values = [Number::from(id), user.into(), id.into()];
            let row = db.query_one_raw(statement(&db, sql, values)).await?;
            let standing = row.map(|row| {
                let (owner, Unsigned(version), member) = row.try_get_many_by_index()?;
                Ok(Standing { owner, member, version })
            });
            standing.transpose()
        };
        self.read(read).await
    }

    /// Reads the members of a location: who became one first comes first, then by id.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn members(&self, id: LocationId) -> Result<Vec<Member>> {
        let sql = "SELECT member.user_id, account.name, member.role, member.added_at \
                   FROM member LEFT JOIN account ON account.id = member.user_id \
                   WHERE member.location_id = ? ORDER BY member.added_at, member.user_id";
        let read = async |db: DatabaseConnection| {
            let rows = db.query_all_raw(statement(&db, sql, [id])).await?;
            let member = rows.iter().map(|row| {
                let (user, name, role, added_at) = row.try_get_many_by_index()?;
                Ok(Member { user, name, role, added_at })
            });
            member.collect()
        };
        self.read(read).await
    }

    /// Reads everybody who has rights to a location, in one snapshot: its owner, its members, and the shares that have
    /// not ended. `None`: there is no such location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn access(&self, id: LocationId) -> Result<Option<Access>> {
        let read = async |db: DatabaseConnection| {
            let tx = db.begin().await?;
            let sql = "SELECT owner_id, grants FROM location WHERE id = ?";
            let Some(row) = tx.query_one_raw(statement(&tx, sql, [id])).await? else { return Ok(None) };
            let (owner, Unsigned(grants)): (UserId, _) = row.try_get_many_by_index()?;
            let sql = "SELECT user_id, role FROM member WHERE location_id = ?";
            let members = tx.query_all_raw(statement(&tx, sql, [id])).await?;
            let members = members.iter().map(|row| row.try_get_many_by_index()).collect::<DbResult<_>>()?;
            let sql = "SELECT id, expires_at FROM share WHERE location_id = ? AND expires_at > ?";
            let now = Timestamp::now();
            let shares = tx.query_all_raw(statement(&tx, sql, [Number::from(id), now.into()])).await?;
            let shares = shares.iter().map(|row| row.try_get_many_by_index()).collect::<DbResult<_>>()?;
            tx.commit().await?;
            Ok(Some(Access { owner, members, shares, grants }))
        };
        self.read(read).await
    }

    /// Reads the names of users. Users without a name are left out.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn names(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>> {
        let mut names = Vec::new();
        for some in users.chunks(USERS_OF_STATEMENT) {
            names.append(&mut self.read(async |db| read_names(&db, some).await).await?);
        }
        Ok(names)
    }
}

/// Reads the names of users over a connection; nothing is read for no users.
pub async fn read_names(db: &impl ConnectionTrait, users: &[UserId]) -> DbResult<Vec<(UserId, String)>> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let (placeholders, values) = number_list(users.iter().copied());
    let sql = format!("SELECT id, name FROM account WHERE name IS NOT NULL AND id IN ({placeholders})");
    let names = db.query_all_raw(with_values(db, &sql, values)).await?;
    names.iter().map(|row| row.try_get_many_by_index()).collect()
}

/// Reads the role of a user as a member of a location.
pub async fn read_role(db: &impl ConnectionTrait, id: LocationId, user: UserId) -> DbResult<Option<Role>> {
    let sql = "SELECT role FROM member WHERE location_id = ? AND user_id = ?";
    let row = db.query_one_raw(statement(db, sql, [Number::from(id), user.into()])).await?;
    row.map(|row| row.try_get_by_index(0)).transpose()
}

/// Reads the roles of users as members of locations by one statement, or by none if no pair is given.
pub async fn read_roles(
    db: &impl ConnectionTrait,
    mut pairs: Vec<(LocationId, UserId)>,
) -> DbResult<HashMap<(LocationId, UserId), Role>> {
    // As in `number_list`: few different texts.
    let Some(last) = pairs.last().copied() else { return Ok(HashMap::new()) };
    pairs.resize(pairs.len().next_power_of_two(), last);
    let placeholders = vec!["(?,?)"; pairs.len()].join(",");
    let sql = match db.get_database_backend() {
        DatabaseBackend::MySql => format!(
            "SELECT location_id, user_id, role FROM member WHERE (location_id, user_id) IN ({placeholders})"
        ),
        // With IN SQLite would read all members of the locations.
        _ => format!(
            "WITH asked (location_id, user_id) AS (VALUES {placeholders}) \
             SELECT location_id, user_id, role FROM asked CROSS JOIN member USING (location_id, user_id)"
        ),
    };
    let values = pairs.iter().flat_map(|(id, user)| [Number::from(*id), (*user).into()]);
    let rows = db.query_all_raw(statement(db, &sql, values)).await?;
    let role = rows.iter().map(|row| {
        let (id, user, role) = row.try_get_many_by_index()?;
        Ok(((id, user), role))
    });
    role.collect()
}

/// A role as `member.role` has it; the writer has the numbers the other way round.
impl TryGetable for Role {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> std::result::Result<Self, TryGetError> {
        match i16::try_get_by(row, index)? {
            1 => Ok(Self::Viewer),
            2 => Ok(Self::Editor),
            number => Err(DbErr::Custom(format!("member.role holds {number}")).into()),
        }
    }
}
