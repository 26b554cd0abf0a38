//! Who is told, and whether they have read it. Narrow, because one notice may be for thousands.
//!
//! An id is its notice's id times 16,384 and a number of its own: known before it is written, and in no need
//! of a column for the notice. The key keeps the notifications of a user together, oldest first.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let ddl = match manager.get_database_backend() {
            DatabaseBackend::MySql => {
                "CREATE TABLE IF NOT EXISTS notification (\
                   user_id BIGINT NOT NULL,\
                   id BIGINT NOT NULL,\
                   read_at BIGINT NULL,\
                   PRIMARY KEY (user_id, id))"
            }
            _ => {
                "CREATE TABLE IF NOT EXISTS notification (\
                   user_id INTEGER NOT NULL,\
                   id INTEGER NOT NULL,\
                   read_at INTEGER NULL,\
                   PRIMARY KEY (user_id, id)) WITHOUT ROWID"
            }
        };
        manager.get_connection().execute_unprepared(ddl).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE notification").await?;
        Ok(())
    }
}
