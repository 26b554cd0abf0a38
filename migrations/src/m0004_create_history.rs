//! Every committed version of a location, whole.
//!
//! MySQL keeps a table in the order of its primary key: the versions of one location lie together, and a
//! recovery reads them as one run. No other index and no foreign key, for each costs every update. SQLite
//! gets a rowid beside a unique key, which is much cheaper for it than a table in the order of the key.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let ddl = match manager.get_database_backend() {
            DatabaseBackend::MySql => {
                "CREATE TABLE IF NOT EXISTS history (\
                   location_id BIGINT NOT NULL,\
                   version BIGINT NOT NULL,\
                   geometry GEOMETRY NOT NULL SRID 4326,\
                   altitudes MEDIUMBLOB NULL,\
                   properties MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL,\
                   updated_by BIGINT NOT NULL,\
                   updated_at BIGINT NOT NULL,\
                   PRIMARY KEY (location_id, version))"
            }
            _ => {
                "CREATE TABLE IF NOT EXISTS history (\
                   id INTEGER PRIMARY KEY,\
                   location_id INTEGER NOT NULL,\
                   version INTEGER NOT NULL,\
                   geometry BLOB NOT NULL,\
                   altitudes BLOB NULL,\
                   properties TEXT NOT NULL,\
                   updated_by INTEGER NOT NULL,\
                   updated_at INTEGER NOT NULL,\
                   UNIQUE (location_id, version))"
            }
        };
        manager.get_connection().execute_unprepared(ddl).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE history").await?;
        Ok(())
    }
}
