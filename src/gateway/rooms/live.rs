//! Reads of a live room that stand in for the database: the state of its location, and its size.
//!
//! The service asks for them through its port (`gateway/live.rs`).

use std::sync::atomic::Ordering;

use super::registry::Rooms;
use crate::{
    domain::{
        access::{Action, Caller, may},
        error::Result,
        id::LocationId,
    },
    service::{Current, RoomSize},
};

impl Rooms {
    /// Returns a location as its room was last told of it, or an error if the caller may not see it. `None`: this is
    /// not known.
    pub fn current(&self, caller: &Caller, id: LocationId) -> Option<Result<Current>> {
        let room = self.room(id)?;
        let role = room.rights.lock().role(caller, id).ok()?;
        let state = room.state.lock();
        let current = state.current()?;
        let seen = may(role, Action::See, id);
        Some(seen.map(|()| Current { version: current.version, feature: current.message().to_owned() }))
    }

    /// Returns the number of sockets that a caller pays for when it updates a location, and the bytes of the last
    /// Feature. Every PUT asks this, so it waits for no lock that is held while something is sent.
    pub fn size(&self, caller: &Caller, id: LocationId) -> RoomSize {
        let Some(room) = self.room(id) else { return RoomSize::default() };
        // Rights are locked while somebody enters, who may wait for the lock of the state.
        let role = room.rights.try_lock().and_then(|rights| rights.role(caller, id).ok());
        match role.map(|role| may(role, Action::Move, id)) {
            // The update will be refused, so nobody is sent it.
            Some(Err(_)) => RoomSize::default(),
            _ => RoomSize {
                sockets: room.presence.lock().paid_sockets(),
                update_bytes: room.feature_bytes.load(Ordering::Relaxed),
            },
        }
    }
}
