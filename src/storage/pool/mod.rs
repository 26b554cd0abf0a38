//! Connections to the database: opening, dividing, replacing them, and whether they can be used.

mod address;
mod connect;
mod connections;
mod migrate;
mod readiness;

pub use address::explain;
pub(super) use connect::SEARCH_HINT;
pub use connect::{ConnectError, Store};
pub use migrate::is_in_use;
pub use readiness::Readiness;
