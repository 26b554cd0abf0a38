//! Locations made before there was a history begin theirs with the version they stand at.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // If the step was broken off before it was noted as done, its rows are there already.
        let insert = match manager.get_database_backend() {
            DatabaseBackend::MySql => "INSERT IGNORE",
            _ => "INSERT OR IGNORE",
        };
        let sql = format!(
            "{insert} INTO history \
               (location_id, version, geometry, altitudes, properties, updated_by, updated_at) \
             SELECT id, version, geometry, altitudes, properties, updated_by, updated_at FROM location"
        );
        manager.get_connection().execute_unprepared(&sql).await?;
        Ok(())
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }
}
