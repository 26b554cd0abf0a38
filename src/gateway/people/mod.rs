//! The users connected to this node, and the events that go to users and not to rooms.

pub mod directory;
pub mod list_events;
