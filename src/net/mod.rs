//! What both doors share about the wire: accepting connections, who is calling, which web pages may.
//!
//! Knows nothing of locations; anyone may import it.

pub mod accept;
pub mod bearer;
pub mod byte_budget;
pub mod client;
pub mod connection;
pub mod heads;
pub mod origins;
