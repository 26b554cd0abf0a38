//! Who besides its owner may see a location, or move it: role 1 sees, 2 moves too.
//!
//! The key finds the members of a location, the index the locations of a member.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let ddl = match manager.get_database_backend() {
            DatabaseBackend::MySql => {
                "CREATE TABLE IF NOT EXISTS member (\
                   location_id BIGINT NOT NULL,\
                   user_id BIGINT NOT NULL,\
                   role SMALLINT NOT NULL,\
                   added_at BIGINT NOT NULL,\
                   PRIMARY KEY (location_id, user_id),\
                   INDEX member_user_id (user_id, location_id))"
            }
            _ => {
                "CREATE TABLE IF NOT EXISTS member (\
                   location_id INTEGER NOT NULL,\
                   user_id INTEGER NOT NULL,\
                   role INTEGER NOT NULL,\
                   added_at INTEGER NOT NULL,\
                   PRIMARY KEY (location_id, user_id)) WITHOUT ROWID;\
                 CREATE INDEX IF NOT EXISTS member_user_id ON member (user_id, location_id)"
            }
        };
        manager.get_connection().execute_unprepared(ddl).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE member").await?;
        Ok(())
    }
}
