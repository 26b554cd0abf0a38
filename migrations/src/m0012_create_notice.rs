//! What people are told: once, however many are told it. Outlives the location it speaks of.
//!
//! AUTO_INCREMENT and AUTOINCREMENT: those who are told know it by ids made of its id (see the next step).

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let ddl = match manager.get_database_backend() {
            DatabaseBackend::MySql => {
                "CREATE TABLE IF NOT EXISTS notice (\
                   id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,\
                   kind VARCHAR(32) CHARACTER SET ascii NOT NULL,\
                   location_id BIGINT NULL,\
                   message TEXT CHARACTER SET utf8mb4 NOT NULL,\
                   fields TEXT CHARACTER SET utf8mb4 NOT NULL,\
                   created_at BIGINT NOT NULL,\
                   INDEX notice_created_at (created_at))"
            }
            _ => {
                "CREATE TABLE IF NOT EXISTS notice (\
                   id INTEGER PRIMARY KEY AUTOINCREMENT,\
                   kind TEXT NOT NULL,\
                   location_id INTEGER NULL,\
                   message TEXT NOT NULL,\
                   fields TEXT NOT NULL,\
                   created_at INTEGER NOT NULL);\
                 CREATE INDEX IF NOT EXISTS notice_created_at ON notice (created_at)"
            }
        };
        manager.get_connection().execute_unprepared(ddl).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE notice").await?;
        Ok(())
    }
}
