//! The socket of a client: its session, the events that it sends and the events that wait for it.

pub mod events;
pub mod inbox;
pub mod outbox;
pub mod reply;
pub mod session;
