//! What is known of one socket besides its connection: whose it is and which rooms it is in.

use std::collections::HashSet;

use parking_lot::Mutex;
use socketioxide::extract::SocketRef;

use crate::domain::id::{LocationId, UserId};

/// The state of one socket. Owned by its event handlers and the rooms it is in; never holds the socket
/// itself, which holds the handlers.
#[derive(Debug, Default)]
pub struct Session {
    /// Written when the socket says who it is, enters or leaves a room, and disconnects. Taken after a
    /// room's lock, never before.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    user: Option<UserId>,
    rooms: HashSet<LocationId>,
    disconnected: bool,
}

impl Session {
    /// Whose socket this is.
    pub fn user(&self) -> UserId {
        self.state.lock().user.unwrap_or(UserId::DEFAULT)
    }

    /// Open mode: the first name given stays.
    pub fn introduce(&self, user: Option<UserId>) -> UserId {
        let mut state = self.state.lock();
        state.user = state.user.or(user);
        state.user.unwrap_or(UserId::DEFAULT)
    }

    /// Notes that the socket is in a room; `false` if it has disconnected.
    pub fn enter(&self, room: LocationId) -> bool {
        let mut state = self.state.lock();
        if !state.disconnected {
            state.rooms.insert(room);
        }
        !state.disconnected
    }

    /// Notes that the socket is no longer in a room.
    pub fn leave(&self, room: LocationId) {
        self.state.lock().rooms.remove(&room);
    }

    /// The end: returns the rooms it was in; it enters no other.
    pub fn disconnect(&self) -> HashSet<LocationId> {
        let mut state = self.state.lock();
        state.disconnected = true;
        std::mem::take(&mut state.rooms)
    }
}

/// Enough of a socket's id to find its lines in the log; the whole would be a key to its session.
pub fn log_name(socket: &SocketRef) -> &str {
    socket.id.as_str().get(..6).unwrap_or_default()
}
