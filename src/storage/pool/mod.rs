//! Connections to the database: [`Store`] and what it is made of.

mod address;
mod connections;
mod health;
mod migrate;
mod options;
mod reads;
mod replaceable;
mod store;
mod writer_connection;
mod writes;

pub use address::explain;
pub use health::Readiness;
pub(super) use reads::SEARCH_HINT;
pub use store::Store;
