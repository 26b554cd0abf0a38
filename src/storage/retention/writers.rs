//! Removing rows of writers that have ended. Each lane of each process has a row in the table `writer`.

use sea_orm::ConnectionTrait;

use crate::{
    domain::time::Timestamp,
    storage::{
        error::DbResult,
        pool::Store,
        sql::{numbers, statement},
    },
};

/// A row that was not written for so long belongs to a writer that has ended. A writer whose row is removed all the
/// same makes a new one with its next transaction.
const MAX_AGE_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// Removes the rows of writers that ended long ago.
pub async fn remove_old_rows(store: &Store) -> DbResult<()> {
    let oldest = (Timestamp::now().as_millis() - MAX_AGE_MS) as u64;
    // Read first: a DELETE that looks for them would wait for the rows of all writers.
    let read = || async {
        let db = store.reader()?;
        numbers(&db, statement(&db, "SELECT id FROM writer WHERE committed_at < ?", [oldest])).await
    };
    for id in store.read_raw(read).await? {
        let remove = store.write_outside_queue(move |tx| {
            let sql = "DELETE FROM writer WHERE id = ? AND committed_at < ?";
            Box::pin(async move { tx.execute_raw(statement(tx, sql, [id, oldest])).await })
        });
        remove.await?;
    }
    Ok(())
}
