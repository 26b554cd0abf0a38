//! The database, MySQL or SQLite: values of the domain go in and come out.
//!
//! This is the only floor that imports sea-orm. It has the domain decide about rights where that must happen under the
//! lock of the row that is changed. The writer publishes every commit, in order, to the channel that it was given.
//!
//! `pool` holds the connections, `read` and `write` are the statements, `retention` removes what is no longer kept. The
//! others are on the floor below these: `sql` (values and rows), `row` and `geometry` (columns), `index` (the spatial
//! index), `error`.

mod error;
mod geometry;
mod index;
mod pool;
mod read;
mod retention;
mod row;
mod sql;
mod write;

pub use error::is_in_use;
pub use pool::{Readiness, Store, explain};
pub use read::{
    filter::Filter,
    history::Past,
    listing::{Listing, Shown},
    locations::{Head, Page},
    members::Member,
    notifications::{Notification, Notifications},
    shares::{Share, StoredShare},
};
pub use retention::{HistorySweeper, NotificationSweeper};
/// The error of a database that could not be opened or migrated.
pub use sea_orm::DbErr as ConnectError;
pub use write::{NewShare, ShareUses, Writer};
