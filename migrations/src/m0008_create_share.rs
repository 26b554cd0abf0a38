//! Links that show one location to whoever has them. Of the link's secret only a SHA-256 is kept.
//!
//! AUTO_INCREMENT and AUTOINCREMENT: a revoked share's id never becomes another's.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let ddl = match manager.get_database_backend() {
            DatabaseBackend::MySql => {
                "CREATE TABLE IF NOT EXISTS share (\
                   id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,\
                   location_id BIGINT NOT NULL,\
                   token_hash BINARY(32) NOT NULL,\
                   label TEXT CHARACTER SET utf8mb4 NULL,\
                   password_hash TEXT CHARACTER SET utf8mb4 NULL,\
                   from_version BIGINT NOT NULL,\
                   created_at BIGINT NOT NULL,\
                   expires_at BIGINT NOT NULL,\
                   uses BIGINT NOT NULL DEFAULT 0,\
                   last_used_at BIGINT NULL,\
                   UNIQUE INDEX share_token_hash (token_hash),\
                   INDEX share_location_id (location_id, expires_at))"
            }
            _ => {
                "CREATE TABLE IF NOT EXISTS share (\
                   id INTEGER PRIMARY KEY AUTOINCREMENT,\
                   location_id INTEGER NOT NULL,\
                   token_hash BLOB NOT NULL UNIQUE,\
                   label TEXT NULL,\
                   password_hash TEXT NULL,\
                   from_version INTEGER NOT NULL,\
                   created_at INTEGER NOT NULL,\
                   expires_at INTEGER NOT NULL,\
                   uses INTEGER NOT NULL DEFAULT 0,\
                   last_used_at INTEGER NULL);\
                 CREATE INDEX IF NOT EXISTS share_location_id ON share (location_id, expires_at)"
            }
        };
        manager.get_connection().execute_unprepared(ddl).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE share").await?;
        Ok(())
    }
}
