//! A user's own locations, newest-created first. No move changes a column of it.

use sea_orm_migration::prelude::*;

use crate::Location;

const NAME: &str = "location_owner";

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.has_index("location", NAME).await? {
            return Ok(());
        }
        manager
            .create_index(
                Index::create()
                    .name(NAME)
                    .table(Location::Table)
                    .col(Location::OwnerId)
                    .col(Location::CreatedAt)
                    .col(Location::Id)
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_index(Index::drop().name(NAME).table(Location::Table).to_owned()).await
    }
}
