//! The database's history, oldest first: one DDL statement a step, because MySQL commits each by itself.
//!
//! A room of its own so that it can never import the entities: a step describes the schema as it was
//! on the day it was written, not as the code sees it now. A step that has landed is never edited, unless to make
//! it repeatable: it may be broken off before it is noted as done, and then runs again on what it has made.

use sea_orm_migration::prelude::*;

mod m0001_create_location;
mod m0002_index_location_created_at;
mod m0003_create_location_area;
mod m0004_create_history;
mod m0005_begin_history;
mod m0006_add_location_box;
mod m0007_create_member;
mod m0008_create_share;
mod m0009_create_account;
mod m0010_add_location_grants;
mod m0011_index_location_owner;
mod m0012_create_notice;
mod m0013_create_notification;
mod m0014_add_notice_actor;

/// Runs the steps a database has not seen yet.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_create_location::Migration),
            Box::new(m0002_index_location_created_at::Migration),
            Box::new(m0003_create_location_area::Migration),
            Box::new(m0004_create_history::Migration),
            Box::new(m0005_begin_history::Migration),
            Box::new(m0006_add_location_box::Migration),
            Box::new(m0007_create_member::Migration),
            Box::new(m0008_create_share::Migration),
            Box::new(m0009_create_account::Migration),
            Box::new(m0010_add_location_grants::Migration),
            Box::new(m0011_index_location_owner::Migration),
            Box::new(m0012_create_notice::Migration),
            Box::new(m0013_create_notification::Migration),
            Box::new(m0014_add_notice_actor::Migration),
        ]
    }
}

#[derive(DeriveIden)]
enum Location {
    Table,
    Id,
    OwnerId,
    Version,
    Geometry,
    Altitudes,
    Properties,
    UpdatedBy,
    CreatedAt,
    UpdatedAt,
    Area,
    Grants,
}
