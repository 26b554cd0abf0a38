//! The people connected to this node, and what each of them is told wherever their sockets are.

pub mod announcer;
pub mod directory;
pub mod list_events;
