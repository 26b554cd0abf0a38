//! The session of a socket: its user and the rooms that it is in, shared by its handlers and rooms.

use std::{
    collections::HashSet,
    net::IpAddr,
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
    net::client::Client,
    service::{access::Identity, limits::RoomPermits},
};

/// The state of one socket. It never holds the socket, which holds it by its handlers.
#[derive(Debug)]
pub struct Session {
    /// The user and rooms. Written when the socket says which user it belongs to, enters or leaves a room, and
    /// disconnects. This lock is taken after a room's lock, never before.
    state: Mutex<State>,
    /// The time at which the socket connected.
    pub since: Instant,
}

#[derive(Debug)]
struct State {
    /// `None`: in open mode, as long as the client has not said which user it is.
    identity: Option<Identity>,
    rooms: HashSet<LocationId>,
    /// The number of `rooms`, counted against the limit of the caller.
    room_permits: RoomPermits,
    has_ended: bool,
}

impl Session {
    pub fn new(identity: Option<Identity>, room_permits: RoomPermits) -> Self {
        let state = State { identity, rooms: HashSet::new(), room_permits, has_ended: false };
        Self { state: Mutex::new(state), since: Instant::now() }
    }

    pub fn caller(&self) -> Caller {
        self.state.lock().identity.as_ref().map(|identity| identity.caller.clone()).unwrap_or_default()
    }

    pub fn identity(&self) -> Option<Identity> {
        self.state.lock().identity.clone()
    }

    /// Returns the user that the socket counts for in rooms. `None`: a guest of a share link, which is sent positions,
    /// is counted and never named.
    pub fn occupant(&self) -> Option<UserId> {
        match self.caller() {
            Caller::Guest(_) => None,
            caller => Some(caller.user()),
        }
    }

    pub fn user(&self) -> UserId {
        self.caller().user()
    }

    /// Returns the user as text for the log. A guest is shown as its share link, a socket without a user as `-`.
    pub fn log_user(&self) -> String {
        match &self.state.lock().identity {
            None => "-".to_owned(),
            Some(Identity { caller: Caller::Guest(guest), .. }) => format!("share {}", guest.share.0),
            Some(Identity { caller, .. }) => caller.user().to_string(),
        }
    }

    /// Checks whether the token or share link ends at some time.
    pub fn can_expire(&self) -> bool {
        self.state.lock().identity.as_ref().is_some_and(|identity| identity.expires_at.is_some())
    }

    /// Returns how long the session may go on; `None`: its time is over.
    pub fn time_left(&self, now: Timestamp) -> Option<Duration> {
        let state = self.state.lock();
        let Some(Identity { caller, expires_at: Some(at), .. }) = &state.identity else {
            return Some(Duration::MAX);
        };
        // A token is accepted for this long after its end.
        let leeway = if let Caller::User { .. } = caller { LEEWAY } else { Duration::ZERO };
        let left_ms = at.as_millis() - now.as_millis() + leeway.as_millis() as i64;
        u64::try_from(left_ms).ok().filter(|left_ms| *left_ms > 0).map(Duration::from_millis)
    }

    /// Takes the user and the name that a client has said in open mode. The user stays the one that was said first. It
    /// returns `true` if something of that is new.
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

    /// Checks whether a fresh token of the same user gives other rights.
    ///
    /// # Errors
    /// `invalid_token`: the token is another user's.
    pub fn has_other_rights(&self, fresh: &Identity) -> Result<bool> {
        let known = self.caller();
        if known.account().is_none() || known.account() != fresh.caller.account() {
            return Err(Error::new(Code::InvalidToken, "the token is of another user than this socket"));
        }
        Ok(known != fresh.caller)
    }

    /// Replaces the token by a fresh one of the same user.
    pub fn renew(&self, fresh: Identity) {
        self.state.lock().identity = Some(fresh);
    }

    pub fn rooms(&self) -> Vec<LocationId> {
        self.state.lock().rooms.iter().copied().collect()
    }

    /// Checks whether the socket may enter one more room. It may always enter one again.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn may_enter(&self, room: LocationId) -> Result<()> {
        let State { rooms, room_permits, .. } = &*self.state.lock();
        if rooms.contains(&room) { Ok(()) } else { room_permits.check_room(rooms.len()) }
    }

    /// Records that the socket is in a room. It returns `false` if the session has ended.
    pub fn enter(&self, room: LocationId) -> bool {
        self.change_rooms(|rooms| rooms.insert(room))
    }

    /// Records that the socket is no longer in a room, unless the session has ended.
    pub fn leave(&self, room: LocationId) {
        self.change_rooms(|rooms| rooms.remove(&room));
    }

    fn change_rooms(&self, change: impl FnOnce(&mut HashSet<LocationId>) -> bool) -> bool {
        let State { rooms, room_permits, has_ended, .. } = &mut *self.state.lock();
        if !*has_ended {
            change(rooms);
            room_permits.set_count(rooms.len());
        }
        !*has_ended
    }

    pub fn has_ended(&self) -> bool {
        self.state.lock().has_ended
    }

    /// Ends the session, so that the socket enters no other room. It returns the rooms that it was in, also if it has
    /// ended before.
    pub fn end(&self) -> HashSet<LocationId> {
        let mut state = self.state.lock();
        state.has_ended = true;
        state.room_permits.set_count(0);
        state.rooms.clone()
    }
}

pub fn address(socket: &SocketRef) -> IpAddr {
    Client::address(socket.req_parts().extensions.get())
}

/// Returns enough of a socket's id to find its lines in the log. The whole id would be a key to its session.
pub fn log_name(socket: &SocketRef) -> &str {
    socket.id.as_str().get(..6).unwrap_or_default()
}
