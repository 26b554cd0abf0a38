//! The events and acks that an outbox sends: what each is about, and the frame that it becomes.
//!
//! `queue.rs` decides which of them wait and which give way.

use std::{io::Write as _, sync::Arc};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use socketioxide::extract::AckSender;

use crate::{
    domain::id::{LocationId, UserId},
    gateway::wire::frames,
};

/// The end of a packet, after its body.
pub const PACKET_END: &[u8] = b"]";
/// The event of a position and of a relayed message.
pub const CHAT: &str = "chat";

/// An event or an ack.
pub enum Queued {
    Event(Event),
    /// An event of a room, and the user that it is about or from. It is dropped when the socket leaves the room.
    RoomEvent(LocationId, Option<UserId>, Event),
    /// An event of a list. It is dropped when the socket loses the right to see the item.
    ListEvent(Item, Event),
    Ack(Ack, Arc<RawValue>),
}

/// The name and the body of an event. Many sockets may share the body.
pub struct Event {
    pub name: &'static str,
    pub body: Arc<RawValue>,
}

/// The address of an ack.
pub struct Ack {
    /// The number of the event that it answers, on this socket.
    pub id: i64,
    /// Sends the ack through the library.
    pub sender: AckSender,
}

/// The subject of a list event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item {
    /// This location, in this version, has come into the list.
    Created(LocationId, u64),
    /// This location of the list now has this version.
    Updated(LocationId, u64),
    /// This location has left the list. Everybody may know that.
    Deleted(LocationId),
    /// The list of connected users, of which only the newest matters.
    Users,
}

/// A subject that a socket may lose the right to see.
#[derive(Clone, Copy, PartialEq)]
pub enum Topic {
    Room(LocationId),
    Listed(LocationId),
    Users,
}

/// The body of `locations` that names a location without showing it, because it has left the list or is too large.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    action: &'static str,
    location_id: LocationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

impl Item {
    /// Returns the location that it is about.
    pub fn location(self) -> Option<LocationId> {
        match self {
            Self::Created(id, _) | Self::Updated(id, _) | Self::Deleted(id) => Some(id),
            Self::Users => None,
        }
    }

    /// Returns the `action` of an event about a location.
    pub fn action(self) -> &'static str {
        match self {
            Self::Created(..) => "create",
            Self::Updated(..) => "update",
            Self::Deleted(_) | Self::Users => "delete",
        }
    }

    /// Makes the body of an event that names the location and does not show it. The list of users has none.
    pub fn named(self) -> Option<Arc<RawValue>> {
        let version = match self {
            Self::Created(_, version) | Self::Updated(_, version) => Some(version),
            Self::Deleted(_) | Self::Users => None,
        };
        Some(body(&Named { action: self.action(), location_id: self.location()?, version }))
    }
}

impl Queued {
    /// Returns whether it makes an earlier event unnecessary. For events about locations in lists see
    /// `Queue::replace_list_event`.
    pub fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::ListEvent(Item::Users, _), Self::ListEvent(Item::Users, _)) => true,
            // Presence: only the newest state of a user, or the newest number of users, matters.
            (Self::RoomEvent(room, user, event), Self::RoomEvent(old_room, old_user, old_event)) => {
                let is_same = event.name == old_event.name && room == old_room && user == old_user;
                is_same && event.name != CHAT
            }
            _ => false,
        }
    }

    /// Returns the sender, `None` for a guest, if it is a chat.
    pub fn chat_sender(&self) -> Option<Option<UserId>> {
        match self {
            Self::RoomEvent(_, sender, event) if event.name == CHAT => Some(*sender),
            _ => None,
        }
    }

    /// Returns whether it is an event of a list. Such events never end a connection.
    pub fn is_list_event(&self) -> bool {
        matches!(self, Self::ListEvent(..))
    }

    /// Returns the subject that the socket may lose the right to see.
    pub fn topic(&self) -> Option<Topic> {
        match self {
            Self::RoomEvent(id, ..) => Some(Topic::Room(*id)),
            Self::ListEvent(Item::Created(id, _) | Item::Updated(id, _), _) => Some(Topic::Listed(*id)),
            Self::ListEvent(Item::Users, _) => Some(Topic::Users),
            Self::ListEvent(Item::Deleted(_), _) | Self::Event(_) | Self::Ack(..) => None,
        }
    }

    pub fn body(&self) -> &Arc<RawValue> {
        match self {
            Self::Event(event) | Self::RoomEvent(_, _, event) | Self::ListEvent(_, event) => &event.body,
            Self::Ack(_, body) => body,
        }
    }

    /// Returns the bytes that count while it waits. Bodies of rooms do not, because all members share them.
    pub fn counted_bytes(&self) -> usize {
        match self {
            Self::RoomEvent(..) => 0,
            _ => self.body().get().len(),
        }
    }

    /// Makes the beginning of its frame, up to the body. [`PACKET_END`] follows the body.
    pub fn frame_start(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(48);
        let written = match self {
            Self::Event(Event { name, .. })
            | Self::RoomEvent(_, _, Event { name, .. })
            | Self::ListEvent(_, Event { name, .. }) => write!(packet, "42[\"{name}\","),
            Self::Ack(Ack { id, .. }, _) => write!(packet, "43{id}["),
        };
        written.expect("writing to a Vec cannot fail");
        let mut frame = frames::text_header(packet.len() + self.body().get().len() + PACKET_END.len());
        frame.append(&mut packet);
        frame
    }
}

/// Turns the body of an `update` into that of a `create`.
pub fn as_created(update: &Arc<RawValue>) -> Arc<RawValue> {
    let text = update.get().replacen(r#""action":"update""#, r#""action":"create""#, 1);
    RawValue::from_string(text).map_or_else(|_| update.clone(), Arc::from)
}

/// Writes a body as JSON text that many sockets may share.
pub fn body<T: Serialize + ?Sized>(value: &T) -> Arc<RawValue> {
    to_raw_value(value).expect("bodies consist of strings, numbers and JSON text").into()
}
