//! SQL: statements, their parameters, the columns of rows, and statements that write many rows.

use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, Statement, Value};

use super::error::DbResult;
use crate::domain::id::{LocationId, UserId};

mod rows;

pub use rows::{Cell, Dialect, Rows};

/// The ids of notifications that a notice may have: more than the most members of a location and its owner. The id of
/// a notification is its notice's id times this, and a number of its own.
pub const NOTIFICATIONS_OF_A_NOTICE: u64 = 1 << 14;

/// The clause that locks the rows a query finds; SQLite locks the whole file.
pub fn for_update(db: &impl ConnectionTrait) -> &'static str {
    match db.get_database_backend() {
        DatabaseBackend::MySql => "FOR UPDATE",
        _ => "",
    }
}

/// A statement whose parameters are all numbers.
pub fn statement(db: &impl ConnectionTrait, sql: &str, numbers: impl IntoIterator<Item = u64>) -> Statement {
    let values = numbers.into_iter().map(|number| Value::from(number as i64));
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

/// The one number a statement asks for; 0 where there is none.
pub async fn count(db: &impl ConnectionTrait, statement: Statement) -> DbResult<u64> {
    let row = db.query_one_raw(statement).await?;
    // No row, or that of an aggregate over no rows.
    let count: Option<Option<i64>> = row.map(|row| row.try_get_by_index(0)).transpose()?;
    Ok(count.flatten().unwrap_or_default() as u64)
}

/// A user's id as a row has it.
pub fn user(id: i64) -> DbResult<UserId> {
    let user = u64::try_from(id).ok().and_then(UserId::new);
    user.ok_or_else(|| DbErr::Custom(format!("{id} is the id of no user")))
}

/// A list of ids for a statement, and its values. Its length is a power of two, with the last id repeated,
/// so that there are few different texts to prepare.
pub fn id_list(ids: &[LocationId]) -> (String, Vec<Value>) {
    padded(ids.iter().map(|id| id.get()))
}

/// The same of any numbers.
pub fn padded(numbers: impl Iterator<Item = u64>) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = numbers.map(|number| (number as i64).into()).collect();
    if let Some(last) = values.last().cloned() {
        values.resize(values.len().next_power_of_two(), last);
    }
    (vec!["?"; values.len()].join(","), values)
}
