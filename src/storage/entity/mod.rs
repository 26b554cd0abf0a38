//! The tables as sea-orm sees them.

pub mod location;
