//! The acts: what a caller may do to locations, the same over HTTP and Socket.IO.
//!
//! This floor knows no HTTP and no sockets. Each act is one method of [`Service`], in the file of what it acts on; the
//! doors parse a request, call the act and reply.

pub mod access;
pub mod events;
pub mod features;
pub mod limits;
pub mod locations;
pub mod members;
pub mod memory;
pub mod names;
mod passwords;
mod reads;
pub mod refusals;
mod searches;
pub mod shares;
mod state;
pub mod turns;
pub mod users;
mod write_behind;

pub use state::{Current, LiveRooms, RoomSize, Service};
