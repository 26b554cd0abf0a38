//! Lists are newest-created first. The column never changes after the insert, so moves do not pay for it.

use sea_orm_migration::prelude::*;

use crate::Location;

const NAME: &str = "location_created_at";

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
