//! Counts the changes of a location's members and shares, so that whoever remembers them sees that they
//! are no longer true.

use sea_orm_migration::prelude::*;

use crate::Location;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.has_column("location", "grants").await? {
            return Ok(());
        }
        let mut grants = ColumnDef::new(Location::Grants);
        grants.big_integer().not_null().default(0);
        manager.alter_table(Table::alter().table(Location::Table).add_column(grants).to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .alter_table(Table::alter().table(Location::Table).drop_column(Location::Grants).to_owned())
            .await
    }
}
