//! The table of users' names. The newest names are in the cache of the service.

use sea_orm::{ConnectionTrait, Statement};

use crate::{
    domain::{error::Result, id::UserId},
    storage::{error::DbResult, pool::Store, sql::number_list},
};

/// The users of one statement.
const USERS_OF_STATEMENT: usize = 1_000;

impl Store {
    /// Reads the names of users. Users without a name are left out.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn names(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>> {
        let mut names = Vec::new();
        for some in users.chunks(USERS_OF_STATEMENT) {
            names.append(&mut self.read(|| async { read_names(&self.reader()?, some).await }).await?);
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
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let names = db.query_all_raw(statement).await?.into_iter().map(|row| row.try_get_many_by_index());
    names.collect()
}
