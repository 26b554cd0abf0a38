//! The steps that bring a database to the current schema, oldest first.
//!
//! The steps are a crate of their own so that they can never import the entities: each describes the schema of the day
//! it was written. A released step is never edited. Each step must be repeatable, because a process may end after a
//! step has run and before it is recorded as done.

use sea_orm_migration::prelude::*;

mod m0001_create_tables;

/// Runs the steps that a database has not seen yet.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m0001_create_tables::Migration)]
    }
}
