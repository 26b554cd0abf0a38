//! Who is in which room, and how snapshot and stream meet.
//!
//! A room exists here while somebody is in it or entering it. It keeps its head: the newest version
//! committed, as the finished body of a `chat`. Entering takes the room's lock, as does every update, so
//! a member is sent the head and then everything after it: no hole, no repeat. Updates come in the
//! order of their commits; one that is not newer than the head is dropped.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use socketioxide::{SendError, SocketError, extract::SocketRef, socket::Sid};
use tokio::sync::OnceCell;
use tracing::debug;

use super::{
    reply::Reply,
    session::{Session, log_name},
};
use crate::{
    domain::{
        error::{Code, Error, Result},
        id::LocationId,
        location::Location,
    },
    service::Service,
};

/// All rooms of this process.
#[derive(Debug)]
pub struct Rooms {
    service: Service,
    /// Written when a room's first member enters or its last leaves. Taken before a room's lock, and
    /// never held while anything is sent.
    rooms: Mutex<HashMap<LocationId, Arc<Room>>>,
    /// Rooms with members whose queue was full: those still owe them the head.
    behind: Mutex<HashSet<LocationId>>,
}

#[derive(Debug)]
struct Room {
    id: LocationId,
    /// Whether the head was read from the database; many who enter at once share one read.
    loaded: OnceCell<()>,
    /// Written by entering, leaving and every update; held while an update is queued to its members.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    head: Option<Head>,
    members: HashMap<Sid, Member>,
    /// Entering: they keep the room, and with it the head, alive.
    visitors: usize,
    /// The location was deleted.
    closed: bool,
}

#[derive(Debug)]
struct Head {
    version: u64,
    /// The body of a `chat`: `{userId, message, roomName, version}`.
    chat: Box<RawValue>,
}

#[derive(Debug)]
struct Member {
    socket: SocketRef,
    session: Arc<Session>,
    /// Its queue was full when the head was sent.
    behind: bool,
}

/// The ack of a `join_room` with `since`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Recovery<'a> {
    room_name: &'a str,
    version: u64,
    recovered: bool,
}

/// The body of `room_closed`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RoomClosed<'a> {
    room_name: &'a str,
    reason: &'static str,
}

impl Rooms {
    /// No rooms yet; heads come from `service`.
    pub fn new(service: Service) -> Self {
        Self { service, rooms: Mutex::default(), behind: Mutex::default() }
    }

    /// Lets a socket in: ack, then the head unless it has it, then everything newer. `false` if the
    /// socket has disconnected meanwhile.
    ///
    /// # Errors
    /// `not_found`, `storage_unavailable`, `internal`.
    pub async fn join(
        &self,
        socket: &SocketRef,
        session: &Arc<Session>,
        id: LocationId,
        since: Option<u64>,
        reply: &mut Reply,
    ) -> Result<bool> {
        // From here on the room sees updates, so what commits after the read below is not missed.
        let visit = Visit::new(self, id);
        let room = &visit.room;
        let read = async || {
            let head = Head::of(&self.service.location(id).await?)?;
            room.state.lock().advance(head);
            Ok(())
        };
        room.loaded.get_or_try_init(read).await?;
        let mut state = room.state.lock();
        let State { head: Some(head), members, closed: false, .. } = &mut *state else {
            return Err(Error::no_location(id));
        };
        if !session.enter(id) {
            return Ok(false);
        }
        let name = id.to_string();
        match since {
            None => reply.ack(&name),
            Some(since) => {
                let recovered = since == head.version;
                reply.ack(&Recovery { room_name: &name, version: head.version, recovered });
            }
        }
        let behind = since != Some(head.version) && !send(socket, "chat", &head.chat);
        if behind {
            self.behind.lock().insert(id);
        }
        members.insert(socket.id, Member { socket: socket.clone(), session: session.clone(), behind });
        Ok(true)
    }

    /// Takes a socket out; `false` if it was not in.
    pub fn leave(&self, socket: Sid, session: &Session, id: LocationId) -> bool {
        session.leave(id);
        let Some(room) = self.room(id) else { return false };
        let was_in = room.state.lock().members.remove(&socket).is_some();
        self.drop_if_empty(&room);
        was_in
    }

    /// Takes a socket that has disconnected out of every room.
    pub fn leave_all(&self, socket: Sid, session: &Session) {
        for id in session.disconnect() {
            self.leave(socket, session, id);
        }
    }

    /// Sends a member's message to everyone in the room, the sender included.
    ///
    /// # Errors
    /// `not_in_room`.
    pub fn relay(&self, sender: Sid, id: LocationId, chat: &RawValue) -> Result<()> {
        let not_in_room = || Error::new(Code::NotInRoom, format!("join room {id} before sending to it"));
        let room = self.room(id).ok_or_else(not_in_room)?;
        let state = room.state.lock();
        if !state.members.contains_key(&sender) {
            return Err(not_in_room());
        }
        for member in state.members.values() {
            if !send(&member.socket, "chat", chat) {
                debug!(socket = log_name(&member.socket), room = %id, "relayed message lost: queue full");
            }
        }
        Ok(())
    }

    /// Sends a committed update to its room.
    ///
    /// # Errors
    /// `internal`.
    pub fn updated(&self, location: &Location) -> Result<()> {
        let Some(room) = self.room(location.id) else { return Ok(()) };
        let head = Head::of(location)?;
        if room.state.lock().advance(head) {
            self.behind.lock().insert(location.id);
        }
        Ok(())
    }

    /// Closes the room of a deleted location: each member is taken out, then told.
    pub fn deleted(&self, id: LocationId) {
        let Some(room) = self.rooms.lock().remove(&id) else { return };
        let mut state = room.state.lock();
        state.closed = true;
        let name = id.to_string();
        for (_, member) in state.members.drain() {
            member.session.leave(id);
            send(&member.socket, "room_closed", &RoomClosed { room_name: &name, reason: "deleted" });
        }
    }

    /// Is anybody waiting for the head of a room?
    pub fn are_behind(&self) -> bool {
        !self.behind.lock().is_empty()
    }

    /// Sends heads to those whose queue was full.
    pub fn catch_up(&self) {
        let behind = std::mem::take(&mut *self.behind.lock());
        for id in behind {
            if self.room(id).is_some_and(|room| room.state.lock().send_head(|member| member.behind)) {
                self.behind.lock().insert(id);
            }
        }
    }

    fn room(&self, id: LocationId) -> Option<Arc<Room>> {
        self.rooms.lock().get(&id).cloned()
    }

    fn drop_if_empty(&self, room: &Arc<Room>) {
        let mut rooms = self.rooms.lock();
        let state = room.state.lock();
        let unused = state.members.is_empty() && state.visitors == 0;
        if unused && rooms.get(&room.id).is_some_and(|listed| Arc::ptr_eq(listed, room)) {
            rooms.remove(&room.id);
        }
    }
}

impl State {
    /// Takes a newer head and sends it to the members; `true` if one could not be reached.
    fn advance(&mut self, head: Head) -> bool {
        if self.head.as_ref().is_some_and(|current| current.version >= head.version) {
            return false;
        }
        self.head = Some(head);
        self.send_head(|_| true)
    }

    /// Sends the head to some of the members; `true` if one of them could not be reached.
    fn send_head(&mut self, to: impl Fn(&Member) -> bool) -> bool {
        let Some(head) = &self.head else { return false };
        let mut behind = false;
        for member in self.members.values_mut().filter(|member| to(member)) {
            member.behind = !send(&member.socket, "chat", &head.chat);
            behind |= member.behind;
        }
        behind
    }
}

impl Head {
    fn of(location: &Location) -> Result<Self> {
        let Location { id, version, updated_by, .. } = location;
        let feature = location.to_feature();
        let chat =
            format!(r#"{{"userId":{updated_by},"message":{feature},"roomName":"{id}","version":{version}}}"#);
        Ok(Self { version: *version, chat: RawValue::from_string(chat).map_err(Error::internal)? })
    }
}

/// Queues an event for a socket; `false` if its queue is full. A closed socket is about to leave anyway.
fn send(socket: &SocketRef, event: &str, body: &(impl Serialize + ?Sized)) -> bool {
    !matches!(socket.emit(event, body), Err(SendError::Socket(SocketError::InternalChannelFull)))
}

/// Somebody on the way into a room: while it lasts, the room is there and sees every update.
struct Visit<'a> {
    rooms: &'a Rooms,
    room: Arc<Room>,
}

impl<'a> Visit<'a> {
    fn new(rooms: &'a Rooms, id: LocationId) -> Self {
        let mut all = rooms.rooms.lock();
        let room = all
            .entry(id)
            .or_insert_with(|| Arc::new(Room { id, loaded: OnceCell::new(), state: Mutex::default() }));
        let room = room.clone();
        room.state.lock().visitors += 1;
        Self { rooms, room }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.room.state.lock().visitors -= 1;
        self.rooms.drop_if_empty(&self.room);
    }
}
