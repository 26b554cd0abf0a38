//! The database, MySQL or SQLite, and nothing but: rows in, domain values out.
//!
//! The only floor that imports sea-orm. It has the domain decide about rights, where that must be under the
//! lock of what is changed, and tells nobody what happened, except that the writer hands every commit, in
//! order, to whoever it was given.

mod access;
mod accounts;
mod address;
mod area;
mod batch;
mod beside;
mod connect;
mod connections;
mod counts;
mod entity;
mod error;
mod expiry;
mod geometry;
mod history;
mod lanes;
mod listing;
mod locations;
mod members;
mod notices;
mod notifications;
mod pieces;
mod queue;
mod readiness;
mod retention;
mod rows;
mod search;
mod shares;
mod totals;
mod writer;

pub use access::Granted;
pub use address::explain;
pub use connect::{ConnectError, Store, is_in_use};
pub use counts::watch_channel;
pub use expiry::Expiry;
pub use history::Past;
pub use listing::{Listing, Shown};
pub use locations::{Head, Page};
pub use members::Member;
pub use notices::Toll;
pub use notifications::{Notification, Notifications};
pub use readiness::Readiness;
pub use retention::Retention;
pub use search::Filter;
pub use shares::{NewShare, Share, StoredShare};
pub use writer::Writer;
