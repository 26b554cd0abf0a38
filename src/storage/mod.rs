//! The database, MySQL or SQLite, and nothing but: rows in, domain values out.
//!
//! The only floor that imports sea-orm. It has the domain decide about rights, where that must be under the
//! lock of what is changed, and tells nobody what happened, except that the writer hands every commit, in
//! order, to whoever it was given.

mod entity;
mod error;
mod geometry;
mod index;
mod pool;
mod read;
mod retention;
mod sql;
mod write;

pub use error::is_in_use;
pub use pool::{Readiness, Store, explain};
pub use read::{
    accounts::Names,
    history::Past,
    listing::{Listing, Shown},
    locations::{Head, Page},
    members::Member,
    notifications::{Notification, Notifications},
    search::Filter,
    shares::{Share, StoredShare},
};
pub use retention::{Expiry, Retention};
/// Why the database could not be opened or migrated.
pub use sea_orm::DbErr as ConnectError;
pub use write::{NewShare, ShareUses, Writer};
