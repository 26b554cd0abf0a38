//! What the database said, as a domain error: away, or at fault.

use sea_orm::{DbErr, RuntimeErr, sqlx};

use crate::domain::error::{Code, Error};

/// Deadlock found: the transaction is rolled back and may simply be tried again.
const MYSQL_DEADLOCK: u16 = 1213;
/// Too many connections (of all, of this user), server shutdown in progress, lock wait timeout exceeded,
/// running with --read-only, in read-only mode.
const MYSQL_AWAY: [u16; 6] = [1040, 1203, 1053, 1205, 1290, 1836];
/// SQLITE_BUSY, SQLITE_LOCKED, SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN.
const SQLITE_AWAY: [u32; 6] = [5, 6, 8, 10, 13, 14];

/// May the same transaction be tried again at once?
pub fn may_try_again(error: &DbErr) -> bool {
    mysql_number(error) == Some(MYSQL_DEADLOCK)
}

/// Did the connection break off, so that nobody here knows what became of the statement?
pub fn is_unanswered(error: &DbErr) -> bool {
    matches!(
        sqlx_error(error),
        Some(
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed
        )
    )
}

/// `storage_unavailable` where the database is away or busy, else `internal`.
pub fn domain_error(error: DbErr) -> Error {
    if is_away(&error) { away().because(error) } else { Error::internal(error) }
}

/// The database is away or busy.
pub fn away() -> Error {
    Error::new(Code::StorageUnavailable, "the database cannot be reached; try again")
}

fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(e))
        | DbErr::Exec(RuntimeErr::SqlxError(e))
        | DbErr::Query(RuntimeErr::SqlxError(e)) => Some(e),
        _ => None,
    }
}

fn mysql_number(error: &DbErr) -> Option<u16> {
    let database = sqlx_error(error)?.as_database_error()?;
    Some(database.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?.number())
}

fn is_away(error: &DbErr) -> bool {
    if matches!(error, DbErr::ConnectionAcquire(_)) {
        return true;
    }
    if let Some(number) = mysql_number(error) {
        return number == MYSQL_DEADLOCK || MYSQL_AWAY.contains(&number);
    }
    match sqlx_error(error) {
        Some(sqlx::Error::Database(sqlite)) => {
            // Extended result codes carry the primary code in their low byte.
            let code = sqlite.code().and_then(|code| code.parse::<u32>().ok());
            code.is_some_and(|code| SQLITE_AWAY.contains(&(code & 0xff)))
        }
        Some(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => true,
        _ => is_unanswered(error),
    }
}
