//! The spatial index: a box around each location with room to move in, so that most moves leave it alone.
//!
//! MySQL has an R-tree over a GEOMETRY column, SQLite the R*Tree module: the same table by two means.
//! SRID 0, the plane: in 4326 MySQL's boxes are bounded by geodesics, and wrong from 180 degrees of width.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let ddl = match manager.get_database_backend() {
            DatabaseBackend::MySql => {
                "CREATE TABLE IF NOT EXISTS location_area (\
                   location_id BIGINT NOT NULL PRIMARY KEY,\
                   area GEOMETRY NOT NULL SRID 0,\
                   SPATIAL INDEX location_area_area (area))"
            }
            _ => {
                "CREATE VIRTUAL TABLE IF NOT EXISTS location_area \
                 USING rtree(location_id, west, east, south, north)"
            }
        };
        manager.get_connection().execute_unprepared(ddl).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE location_area").await?;
        Ok(())
    }
}
