//! The service's port to the gateway: what rooms and connections know without the database.
//!
//! The service stands below the gateway and cannot import it, so the gateway hands itself in as [`LiveRooms`]. Reads
//! turn to it while the database is away; writes ask it how many sockets a change is sent to, and charge for that.

use std::fmt::Debug;

use crate::domain::{
    access::Caller,
    error::Result,
    id::{LocationId, UserId},
    presence::ActiveUsers,
};

/// A location as it stands.
#[derive(Debug)]
pub struct Current {
    /// The version in its properties.
    pub version: u64,
    /// The Feature as GeoJSON text.
    pub feature: String,
}

/// The sockets that a change of a location is sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoomSize {
    /// The number of sockets that the author of the change pays for.
    pub sockets: usize,
    /// The size of the update that was sent last, in bytes.
    pub update_bytes: usize,
}

/// The gateway, as the service knows it.
pub trait LiveRooms: Debug + Send + Sync {
    /// Reads a location that somebody listens to, as it was last sent to them; `None`: nobody does, or the room cannot
    /// tell whether the caller may see it.
    fn current(&self, by: &Caller, id: LocationId) -> Option<Result<Current>>;

    /// Counts the sockets that a change by this caller is sent to. None where it is known that the caller may not
    /// change the location. Called for every PUT.
    fn room_size(&self, by: &Caller, id: LocationId) -> RoomSize;

    /// Lists the users who are connected, or were a moment ago.
    fn active_users(&self) -> ActiveUsers;

    /// A token has given a user another name.
    fn rename(&self, user: UserId);
}
