//! What users call themselves: the name their token had last.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let ddl = match manager.get_database_backend() {
            DatabaseBackend::MySql => {
                "CREATE TABLE IF NOT EXISTS account (\
                   id BIGINT NOT NULL PRIMARY KEY,\
                   name VARCHAR(255) CHARACTER SET utf8mb4 NULL,\
                   updated_at BIGINT NOT NULL)"
            }
            _ => {
                "CREATE TABLE IF NOT EXISTS account (\
                   id INTEGER PRIMARY KEY,\
                   name TEXT NULL,\
                   updated_at INTEGER NOT NULL)"
            }
        };
        manager.get_connection().execute_unprepared(ddl).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE account").await?;
        Ok(())
    }
}
