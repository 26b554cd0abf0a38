//! Who did what a notice tells of, so that of one person only so much is kept for another. Older notices have
//! nobody.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.has_column("notice", "actor_id").await? {
            return Ok(());
        }
        let integer = match manager.get_database_backend() {
            DatabaseBackend::MySql => "BIGINT",
            _ => "INTEGER",
        };
        let ddl = format!("ALTER TABLE notice ADD COLUMN actor_id {integer} NULL");
        manager.get_connection().execute_unprepared(&ddl).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("ALTER TABLE notice DROP COLUMN actor_id").await?;
        Ok(())
    }
}
