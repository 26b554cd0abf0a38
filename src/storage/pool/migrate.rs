//! Creating and changing the tables, one process at a time.
//!
//! The steps are in the crate `migrations`. Here they are run under a lock, and a database that was made by another
//! version of georoom is told apart from one that is away.

use std::sync::atomic::Ordering;

use migrations::Migrator;
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, Statement, TransactionTrait};
use sea_orm_migration::MigratorTrait;

use super::{store::Store, writes::immediate};
use crate::storage::error::{DbResult, being_migrated};

/// The name of the MySQL lock that is held while migrating. Such names belong to the whole server, hence the
/// database's.
const LOCK_NAME: &str = "SHA2(CONCAT('georoom.migrate.', DATABASE()), 224)";
/// The seconds for which one attempt waits for that lock.
const LOCK_TIMEOUT_S: u32 = 3;

impl Store {
    /// Runs the steps that this database has not seen.
    ///
    /// # Errors
    /// Any error of the database; that another process is migrating it ([`crate::storage::is_in_use`]); that another
    /// version of georoom has made it.
    pub async fn migrate(&self) -> DbResult<()> {
        self.writer.pool.renew_if_read_only(self.run_steps()).await?;
        self.is_migrated.store(true, Ordering::Release);
        Ok(())
    }

    /// Runs the steps while no other process does. On SQLite the transaction keeps others out. On MySQL, where each
    /// statement commits by itself, a named lock of the transaction's connection does.
    async fn run_steps(&self) -> DbResult<()> {
        let tx = self.writer.pool.current().begin_with_options(immediate()).await?;
        if self.backend() != DatabaseBackend::MySql {
            run_unseen(&tx).await?;
            return tx.commit().await;
        }
        let take = format!("SELECT GET_LOCK({LOCK_NAME}, {LOCK_TIMEOUT_S})");
        let answer = tx.query_one_raw(Statement::from_string(DatabaseBackend::MySql, take)).await?;
        // 0 is a timeout; NULL is an error, such as a lack of memory.
        let is_locked = answer.map(|row| row.try_get_by_index::<Option<i64>>(0)).transpose()?.flatten();
        if is_locked != Some(1) {
            return Err(being_migrated());
        }
        let done = run_unseen(&tx).await;
        // The connection lives on and would keep the lock.
        let released = tx.execute_unprepared(&format!("SELECT RELEASE_LOCK({LOCK_NAME})")).await;
        done?;
        released?;
        tx.commit().await
    }
}

async fn run_unseen(tx: &DatabaseTransaction) -> DbResult<()> {
    let Err(error) = Migrator::up(tx, None).await else { return Ok(()) };
    // If steps are recorded that it does not know, the migrator's error has a line for each.
    let recorded = Migrator::get_migration_models(tx).await.unwrap_or_default();
    let known = Migrator::migrations();
    let is_unknown = |step: &String| known.iter().all(|known| known.name() != step);
    let unknown = recorded.into_iter().map(|record| record.version).filter(is_unknown).max();
    Err(unknown.map_or(error, |step| {
        DbErr::Custom(format!(
            "the database was made by another version of georoom: its step {step} is unknown; \
             use that version or an empty database"
        ))
    }))
}
