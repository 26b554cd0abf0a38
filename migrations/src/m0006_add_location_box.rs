//! The box in `location_area` again, beside the geometry it is around: read and decided under the lock of
//! one row. West, east, south, north as little-endian doubles; null where it is not known yet.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

use crate::Location;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.has_column("location", "area").await? {
            return Ok(());
        }
        let mut area = ColumnDef::new(Location::Area);
        match manager.get_database_backend() {
            DatabaseBackend::MySql => area.custom("VARBINARY(32)").null(),
            _ => area.blob().null(),
        };
        manager.alter_table(Table::alter().table(Location::Table).add_column(area).to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .alter_table(Table::alter().table(Location::Table).drop_column(Location::Area).to_owned())
            .await
    }
}
