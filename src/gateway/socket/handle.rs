//! A socket as rooms and lists know it: the library's handle with the outbox through which events are sent to it.

use std::sync::Arc;

use serde_json::value::RawValue;
use socketioxide::{extract::SocketRef, socket::Sid};

use super::{
    outbox::{Item, Outbox},
    session::{Session, log_name},
};
use crate::domain::id::{LocationId, UserId};

/// Sends events to one socket.
#[derive(Clone)]
pub struct SocketHandle {
    pub socket: SocketRef,
    pub outbox: Arc<Outbox>,
}

/// A socket with its session, as a room has it among its members.
#[derive(Clone)]
pub struct Subscriber {
    pub handle: SocketHandle,
    pub session: Arc<Session>,
}

impl SocketHandle {
    pub fn id(&self) -> Sid {
        self.socket.id
    }

    /// Checks whether this is the same socket.
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(&raw const *self.socket, &raw const *other.socket)
    }

    /// Returns enough of the id for the log.
    pub fn log_name(&self) -> &str {
        log_name(&self.socket)
    }

    /// Sends an event, now or in its turn.
    pub fn send_event(&self, name: &'static str, body: Arc<RawValue>) {
        self.outbox.send_event(&self.socket, name, body);
    }

    /// Sends an event of a room, now or in its turn, as long as the socket is in the room. `user` speaks, has come or
    /// has gone.
    pub fn send_room_event(
        &self,
        room: LocationId,
        user: Option<UserId>,
        name: &'static str,
        body: Arc<RawValue>,
    ) {
        self.outbox.send_room_event(&self.socket, room, user, name, body);
    }

    /// Sends an event of a list, now or in its turn, as long as the socket may see that.
    pub fn send_list_event(&self, item: Item, name: &'static str, body: Arc<RawValue>) {
        self.outbox.send_list_event(&self.socket, item, name, body);
    }
}
