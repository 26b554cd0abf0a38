//! What is known of one socket besides its connection: whose it is and which rooms it is in.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use socketioxide::extract::SocketRef;

use crate::{
    domain::{
        access::Caller,
        error::{Code, Error, Result},
        id::{LocationId, UserId},
        time::Timestamp,
        token::LEEWAY,
    },
    service::{access::Identity, limits::RoomPermits},
};

/// The state of one socket. Owned by its event handlers and the rooms it is in; never holds the socket
/// itself, which holds the handlers.
#[derive(Debug)]
pub struct Session {
    /// Written when the socket says who it is, enters or leaves a room, and disconnects. Taken after a
    /// room's lock, never before.
    state: Mutex<State>,
    /// Since when it is connected.
    pub since: Instant,
}

#[derive(Debug)]
struct State {
    /// `None`: open mode, and nobody has said who they are.
    identity: Option<Identity>,
    rooms: HashSet<LocationId>,
    /// How many these are, counted for its caller.
    room_permits: RoomPermits,
    disconnected: bool,
}

impl Session {
    /// Of a socket whose caller is known, or in open mode is not.
    pub fn new(identity: Option<Identity>, room_permits: RoomPermits) -> Self {
        let state = State { identity, rooms: HashSet::new(), room_permits, disconnected: false };
        Self { state: Mutex::new(state), since: Instant::now() }
    }

    /// Whose socket this is.
    pub fn caller(&self) -> Caller {
        self.state.lock().identity.as_ref().map(|identity| identity.caller.clone()).unwrap_or_default()
    }

    /// Who that is; `None` in open mode until it has said so.
    pub fn identity(&self) -> Option<Identity> {
        self.state.lock().identity.clone()
    }

    /// As whom it is in rooms; `None`: a guest.
    pub fn member(&self) -> Option<UserId> {
        match &self.state.lock().identity {
            None => Some(UserId::DEFAULT),
            Some(Identity { caller: Caller::Guest(_), .. }) => None,
            Some(Identity { caller, .. }) => Some(caller.user()),
        }
    }

    /// As whom it speaks.
    pub fn user(&self) -> UserId {
        self.state.lock().identity.as_ref().map_or(UserId::DEFAULT, |identity| identity.caller.user())
    }

    /// The same for the log: a guest is nobody, and in open mode is whoever says nothing.
    pub fn name(&self) -> String {
        match &self.state.lock().identity {
            None => "-".to_owned(),
            Some(Identity { caller: Caller::Guest(guest), .. }) => format!("share {}", guest.share.0),
            Some(Identity { caller, .. }) => caller.user().to_string(),
        }
    }

    /// Does what it came with end?
    pub fn expires(&self) -> bool {
        self.state.lock().identity.as_ref().is_some_and(|identity| identity.expires_at.is_some())
    }

    /// How long it may go on; `None`: its time is over.
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        let state = self.state.lock();
        let Some(Identity { caller, expires_at: Some(at), .. }) = &state.identity else {
            return Some(Duration::MAX);
        };
        // As long as a token is taken for.
        let leeway = if let Caller::User { .. } = caller { LEEWAY } else { Duration::ZERO };
        let left_ms = at.as_millis() - now.as_millis() + leeway.as_millis() as i64;
        u64::try_from(left_ms).ok().filter(|left_ms| *left_ms > 0).map(Duration::from_millis)
    }

    /// Open mode: whose it is, which stays as it was first said, and what they are called. `true`: something of
    /// that is new.
    pub fn introduce(&self, user: Option<UserId>, name: Option<String>) -> bool {
        let state = &mut *self.state.lock();
        let Some(user) = user else { return false };
        let is_new = state.identity.is_none();
        let identity = state.identity.get_or_insert_with(|| Identity::label(user));
        let is_named = identity.caller == Caller::Anyone(user) && name.is_some() && name != identity.name;
        if is_named {
            identity.name = name;
        }
        is_new || is_named
    }

    /// Does a fresh token of the same user give other rights?
    ///
    /// # Errors
    /// `invalid_token`: somebody else's.
    pub fn differs(&self, fresh: &Identity) -> Result<bool> {
        match &self.state.lock().identity {
            Some(known)
                if known.caller.account().is_some() && known.caller.account() == fresh.caller.account() =>
            {
                Ok(known.caller != fresh.caller)
            }
            _ => Err(Error::new(Code::InvalidToken, "the token is of another user than this socket")),
        }
    }

    /// From now on it has this token, of the same user.
    pub fn renew(&self, fresh: Identity) {
        self.state.lock().identity = Some(fresh);
    }

    /// The rooms it is in.
    pub fn rooms(&self) -> Vec<LocationId> {
        self.state.lock().rooms.iter().copied().collect()
    }

    /// May it enter a room? It may always enter one again.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn may_enter(&self, room: LocationId) -> Result<()> {
        let State { rooms, room_permits, .. } = &*self.state.lock();
        if rooms.contains(&room) { Ok(()) } else { room_permits.check_room(rooms.len()) }
    }

    /// Notes that the socket is in a room; `false` if it has disconnected.
    pub fn enter(&self, room: LocationId) -> bool {
        let State { rooms, room_permits, disconnected, .. } = &mut *self.state.lock();
        if !*disconnected {
            rooms.insert(room);
            room_permits.set_count(rooms.len());
        }
        !*disconnected
    }

    /// Notes that the socket is no longer in a room, unless it has disconnected.
    pub fn leave(&self, room: LocationId) {
        let State { rooms, room_permits, disconnected, .. } = &mut *self.state.lock();
        if !*disconnected {
            rooms.remove(&room);
            room_permits.set_count(rooms.len());
        }
    }

    /// Has it disconnected?
    pub fn is_over(&self) -> bool {
        self.state.lock().disconnected
    }

    /// The end: returns the rooms it was in, also if it has ended before; it enters no other.
    pub fn disconnect(&self) -> HashSet<LocationId> {
        let mut state = self.state.lock();
        state.disconnected = true;
        state.room_permits.set_count(0);
        state.rooms.clone()
    }
}

/// Enough of a socket's id to find its lines in the log; the whole would be a key to its session.
pub fn log_name(socket: &SocketRef) -> &str {
    socket.id.as_str().get(..6).unwrap_or_default()
}
