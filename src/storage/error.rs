//! The database's errors: what kind of error one is, whether it may go away, and which domain error it becomes.
//!
//! sea-orm's `DbErr` is the error of this floor. MySQL's errors are told apart by number, SQLite's by primary result
//! code.

use std::time::Duration;

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, sqlx};
use tokio::time::timeout;

use crate::domain::error::Error;

/// A result of the database.
pub type DbResult<T> = std::result::Result<T, DbErr>;

/// Deadlock found. The transaction is rolled back and may simply be tried again.
const MYSQL_DEADLOCK: u16 = 1213;
/// Lock wait timeout exceeded.
const MYSQL_LOCK_TIMEOUT: u16 = 1205;
/// Query execution was interrupted, session was killed, disconnected because of inactivity.
const MYSQL_KILLED: [u16; 3] = [1317, 3169, 4031];
/// Maximum statement execution time exceeded.
const MYSQL_TOO_LONG: u16 = 3024;
/// Cannot execute statement in a READ ONLY transaction.
const MYSQL_READ_ONLY_TRANSACTION: u16 = 1792;
/// Too many connections: of all, of this user (the server's limit, that of the account).
const MYSQL_NO_CONNECTION: [u16; 3] = [1040, 1203, 1226];
/// Server shutdown in progress; server is offline.
const MYSQL_AWAY: [u16; 2] = [1053, 3032];
/// Running with --read-only, in read-only mode, InnoDB in read-only mode.
const MYSQL_READ_ONLY: [u16; 3] = [1290, 1836, 1874];
/// Disk full (two of them), table full; error writing file (two), temporary file, binary log.
const MYSQL_FULL: [u16; 7] = [20, 1021, 1114, 3, 1026, 1878, 1598];
/// SQLITE_BUSY, SQLITE_LOCKED: another process uses the file.
const SQLITE_BUSY: [u32; 2] = [5, 6];
/// SQLITE_BUSY, SQLITE_LOCKED, SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN.
const SQLITE_AWAY: [u32; 6] = [5, 6, 8, 10, 13, 14];

/// The text of [`being_migrated`].
const BEING_MIGRATED: &str = "another process migrates the database";

/// Whether a transaction whose COMMIT was not sent may be tried again at once: it lost a deadlock, or its connection.
pub fn may_try_again(error: &DbErr) -> bool {
    is_deadlock(error) || is_broken(error)
}

/// Whether the transaction was rolled back because two waited for each other.
pub fn is_deadlock(error: &DbErr) -> bool {
    mysql_number(error) == Some(MYSQL_DEADLOCK)
}

/// Whether somebody else has held a lock for too long.
pub fn is_lock_timeout(error: &DbErr) -> bool {
    mysql_number(error) == Some(MYSQL_LOCK_TIMEOUT)
}

/// Whether the connection allows no changes. It never will: MySQL's `transaction_read_only` is what it was when
/// the connection was made.
pub fn is_read_only(error: &DbErr) -> bool {
    mysql_number(error) == Some(MYSQL_READ_ONLY_TRANSACTION)
}

/// Whether the connection has broken.
pub fn is_broken(error: &DbErr) -> bool {
    mysql_number(error).is_some_and(|number| MYSQL_KILLED.contains(&number))
        || matches!(
            sqlx_error(error),
            Some(
                sqlx::Error::Io(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::WorkerCrashed
            )
        )
}

/// Whether MySQL grants no further connection for now.
pub fn is_out_of_connections(error: &DbErr) -> bool {
    mysql_number(error).is_some_and(|number| MYSQL_NO_CONNECTION.contains(&number))
}

/// Whether there is no usable connection. Otherwise the database has answered and refused.
pub fn is_unreachable(error: &DbErr) -> bool {
    matches!(error, DbErr::Conn(_) | DbErr::ConnectionAcquire(_))
        || is_broken(error)
        || is_out_of_connections(error)
        || mysql_number(error).is_some_and(|number| MYSQL_AWAY.contains(&number))
}

/// The error of a row that makes no sense.
pub fn unreadable(error: Error) -> DbErr {
    DbErr::Custom(std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))
}

/// The most attempts at something that loses its connection, or a deadlock.
pub const TRIES: u32 = 20;
/// The time that the database has for the statements of one request.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The error of a database that does not answer.
pub fn no_answer() -> DbErr {
    DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)
}

/// Whether the database has not answered in time; see [`no_answer`].
pub fn is_silence(error: &DbErr) -> bool {
    matches!(error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))
}

/// Whether the store has been closed: the server is about to end.
pub fn is_closed(error: &DbErr) -> bool {
    matches!(error, DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed))
        || matches!(sqlx_error(error), Some(sqlx::Error::PoolClosed))
}

/// Waits for the database, not longer than [`STATEMENT_TIMEOUT`].
pub async fn in_time<T>(answer: impl Future<Output = DbResult<T>>) -> DbResult<T> {
    timeout(STATEMENT_TIMEOUT, answer).await.unwrap_or_else(|_| Err(no_answer()))
}

/// The domain error for an error of the database: `storage_unavailable` if it is away or busy, otherwise `internal`.
pub fn domain_error(error: DbErr) -> Error {
    if is_away(&error) { Error::database_away().because(error) } else { Error::internal(error) }
}

/// The driver's error, if it is one.
pub fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(e))
        | DbErr::Exec(RuntimeErr::SqlxError(e))
        | DbErr::Query(RuntimeErr::SqlxError(e)) => Some(e),
        _ => None,
    }
}

/// The number of an error of MySQL.
pub fn mysql_number(error: &DbErr) -> Option<u16> {
    let database = sqlx_error(error)?.as_database_error()?;
    Some(database.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?.number())
}

/// Whether anything else would fail, too, for now.
pub fn is_away(error: &DbErr) -> bool {
    // Whatever the reason: without a connection there is no database.
    matches!(error, DbErr::Conn(_)) || may_come_back(error)
}

/// Whether this error may go away by itself.
pub fn may_come_back(error: &DbErr) -> bool {
    if matches!(error, DbErr::ConnectionAcquire(_))
        || may_try_again(error)
        || is_lock_timeout(error)
        || is_read_only(error)
    {
        return true;
    }
    if let Some(number) = mysql_number(error) {
        return number == MYSQL_TOO_LONG
            || [&MYSQL_NO_CONNECTION[..], &MYSQL_AWAY, &MYSQL_READ_ONLY, &MYSQL_FULL]
                .iter()
                .any(|numbers| numbers.contains(&number));
    }
    sqlite_code(error).is_some_and(|code| SQLITE_AWAY.contains(&code))
        || matches!(sqlx_error(error), Some(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed))
}

/// The error of a migration for which another process has to be waited for.
pub fn being_migrated() -> DbErr {
    DbErr::Custom(BEING_MIGRATED.to_owned())
}

/// Whether another process uses the database and will soon be done. Several may start at once.
pub fn is_in_use(error: &DbErr) -> bool {
    matches!(error, DbErr::Custom(text) if text == BEING_MIGRATED)
        || sqlite_code(error).is_some_and(|code| SQLITE_BUSY.contains(&code))
}

/// The primary result code of an error of SQLite.
pub fn sqlite_code(error: &DbErr) -> Option<u32> {
    let database = sqlx_error(error)?.as_database_error()?;
    database.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    // Extended result codes carry the primary code in their low byte.
    Some(database.code()?.parse::<u32>().ok()? & 0xff)
}
