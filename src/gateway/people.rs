//! The people connected to this node: which sockets are whose, and which are admins'.
//!
//! Not in rooms: what goes to a person goes to all of their sockets, wherever those are. Guests of share links
//! are nobody here. In open mode everybody may do everything, so every socket is an admin's, and somebody's from
//! when it has said whose.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::Arc,
};

use parking_lot::Mutex;
use serde_json::value::RawValue;
use socketioxide::{extract::SocketRef, socket::Sid};

use super::{outlet::Outlet, session::Session};
use crate::domain::{access::Caller, id::UserId};

/// Everybody who is connected here.
#[derive(Default)]
pub struct People {
    /// Written when a socket connects, says who it is, changes its rights, disconnects. Taken before a session's,
    /// with no room's, and never held while anything is sent.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    users: HashMap<UserId, Vec<Way>>,
    admins: HashMap<Sid, Way>,
}

/// The way to one socket.
#[derive(Clone)]
struct Way {
    socket: SocketRef,
    outlet: Arc<Outlet>,
}

impl Way {
    fn is_to(&self, socket: &SocketRef) -> bool {
        std::ptr::eq(&raw const *self.socket, &raw const **socket)
    }
}

impl People {
    /// Takes a socket in, or takes over that it now is somebody's or has other rights; nothing once it has
    /// disconnected.
    pub fn place(&self, session: &Session, outlet: &Arc<Outlet>, socket: &SocketRef) {
        let state = &mut *self.state.lock();
        // With the lock: who disconnects says so first, and is taken out after it.
        if session.is_over() {
            return;
        }
        let (user, is_admin) = match session.known() {
            None => (None, true),
            Some(Caller::Anyone(user)) => (Some(user), true),
            Some(Caller::User { id, is_admin }) => (Some(id), is_admin),
            Some(Caller::Guest(_)) => return,
        };
        let way = Way { socket: socket.clone(), outlet: outlet.clone() };
        if is_admin {
            state.admins.insert(socket.id, way.clone());
        } else {
            state.admins.remove(&socket.id);
        }
        let Some(user) = user else { return };
        let ways = state.users.entry(user).or_default();
        if !ways.iter().any(|known| known.is_to(socket)) {
            // Most have one.
            ways.reserve_exact(usize::from(ways.is_empty()));
            ways.push(way);
        }
    }

    /// Takes out a socket that has disconnected or whose token has ended.
    pub fn remove(&self, user: UserId, socket: &SocketRef) {
        let state = &mut *self.state.lock();
        state.admins.remove(&socket.id);
        if let Entry::Occupied(mut known) = state.users.entry(user) {
            known.get_mut().retain(|way| !way.is_to(socket));
            if known.get().is_empty() {
                known.remove();
            }
        }
    }

    /// Is a user connected here?
    pub fn has(&self, user: UserId) -> bool {
        self.state.lock().users.contains_key(&user)
    }

    /// Sends an event to all sockets of a user.
    pub fn to_user(&self, user: UserId, event: &'static str, body: &Arc<RawValue>) {
        let ways = self.state.lock().users.get(&user).cloned().unwrap_or_default();
        send(ways, event, body);
    }

    /// Sends an event to all sockets of all admins; in open mode to every socket.
    pub fn to_admins(&self, event: &'static str, body: &Arc<RawValue>) {
        let ways = self.state.lock().admins.values().cloned().collect();
        send(ways, event, body);
    }
}

fn send(ways: Vec<Way>, event: &'static str, body: &Arc<RawValue>) {
    for Way { socket, outlet } in ways {
        outlet.event(&socket, event, body.clone());
    }
}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("People").finish_non_exhaustive()
    }
}
