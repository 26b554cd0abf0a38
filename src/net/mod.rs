//! The network code that both doors share: accepting connections, the address of a client, and web origins.
//!
//! This module knows nothing of locations, and every other module may import it.

pub mod accept;
pub mod address;
pub mod bearer;
pub mod byte_budget;
pub mod client;
pub mod connection;
pub mod delivery;
pub mod heads;
pub mod origins;
