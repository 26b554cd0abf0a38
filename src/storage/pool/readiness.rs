//! Whether the database can be read and written, for `/readyz`.
//!
//! Whether it can be written is known from the last change, at no cost. If that failed, each question tries to write:
//! a load balancer that was told 503 sends no changes, so nothing else would find out that they succeed again.

use sea_orm::ConnectionTrait;

use super::{health::Readiness, store::Store};
use crate::storage::error::DbResult;

impl Store {
    /// Finds out what the database can be used for.
    pub async fn readiness(&self) -> Readiness {
        if self.ping().await.is_err() {
            return Readiness::Away;
        }
        if let Some(readiness) = self.write_health.readiness() {
            return readiness;
        }
        match self.on_writer(self.try_to_write()).await {
            Ok(()) => self.write_health.record_succeeded(),
            Err(error) => self.write_health.record_failed(&error),
        }
        self.write_health.readiness().unwrap_or(Readiness::NoWriter)
    }

    /// Runs a statement that a database without write access refuses, and that changes nothing.
    async fn try_to_write(&self) -> DbResult<()> {
        let tx = self.begin().await?;
        tx.execute_unprepared("UPDATE location SET version = version WHERE id = 0").await?;
        tx.rollback().await
    }
}
