//! The location itself: one row, rewritten at every move.
//!
//! No spatial index on `geometry`: keeping one costs more than everything else in an update.
//! `location_area` (next but one) carries it. Times are milliseconds since 1970, UTC.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

use crate::Location;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mysql = manager.get_database_backend() == DatabaseBackend::MySql;

        // AUTO_INCREMENT and AUTOINCREMENT both promise that an id is never given twice.
        let mut id = ColumnDef::new(Location::Id);
        id.big_integer().not_null().auto_increment().primary_key();

        let mut geometry = ColumnDef::new(Location::Geometry);
        // GEOMETRY is 2D: altitudes stand beside it.
        let mut altitudes = ColumnDef::new(Location::Altitudes);
        // JSON text, at most 64 KiB; the database's own charset may be anything.
        let mut properties = ColumnDef::new(Location::Properties);
        if mysql {
            geometry.custom("GEOMETRY").not_null().extra("SRID 4326");
            altitudes.custom("MEDIUMBLOB").null();
            properties.custom("MEDIUMTEXT CHARACTER SET utf8mb4").not_null();
        } else {
            geometry.blob().not_null();
            altitudes.blob().null();
            properties.text().not_null();
        }

        manager
            .create_table(
                Table::create()
                    .table(Location::Table)
                    .if_not_exists()
                    .col(id)
                    .col(ColumnDef::new(Location::OwnerId).big_integer().not_null())
                    .col(ColumnDef::new(Location::Version).big_integer().not_null())
                    .col(geometry)
                    .col(altitudes)
                    .col(properties)
                    .col(ColumnDef::new(Location::UpdatedBy).big_integer().not_null())
                    .col(ColumnDef::new(Location::CreatedAt).big_integer().not_null())
                    .col(ColumnDef::new(Location::UpdatedAt).big_integer().not_null())
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table(Location::Table).to_owned()).await
    }
}
