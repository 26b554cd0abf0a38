//! What both doors share about the network: accepting connections, who is calling, and which web pages may.
//!
//! It knows nothing of locations, and every other module may import it.

pub mod accept;
pub mod address;
pub mod bearer;
pub mod byte_budget;
pub mod client;
pub mod connection;
pub mod delivery;
pub mod heads;
pub mod origins;
