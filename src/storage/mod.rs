//! The database, MySQL or SQLite, and nothing but: rows in, domain values out.
//!
//! The only floor that imports sea-orm. It decides nothing about rights and tells nobody what happened,
//! except that the writer hands every commit, in order, to whoever it was given.

mod area;
mod batch;
mod connect;
mod entity;
mod error;
mod geometry;
mod history;
mod locations;
mod retention;
mod rows;
mod writer;

pub use connect::{ConnectError, Store};
pub use locations::Page;
pub use retention::Retention;
pub use writer::Writer;
