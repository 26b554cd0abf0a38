//! The events and acks that an outbox sends: what each is about, and the frame that it becomes.

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

pub struct Queued {
    pub kind: Kind,
    /// Many sockets may share it.
    pub body: Arc<RawValue>,
}

/// The address of an event or an ack, and the subject by which it may be dropped.
pub enum Kind {
    Event(&'static str),
    /// An event of a room, the user that it is about or from, and its name. It is dropped when the socket leaves the
    /// room.
    RoomEvent(LocationId, Option<UserId>, &'static str),
    /// An event of a list. It is dropped when the socket loses the right to see the item.
    ListEvent(Item),
    /// The list of connected users, of which only the newest matters.
    UserList,
    Ack(Ack),
}

pub struct Ack {
    /// The number of the event that it answers, on this socket.
    pub id: i64,
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
    pub fn location(self) -> LocationId {
        let (Self::Created(id, _) | Self::Updated(id, _) | Self::Deleted(id)) = self;
        id
    }

    pub fn action(self) -> &'static str {
        match self {
            Self::Created(..) => "create",
            Self::Updated(..) => "update",
            Self::Deleted(_) => "delete",
        }
    }

    /// Makes the body of an event that names the location and does not show it.
    pub fn named(self) -> Arc<RawValue> {
        let version = match self {
            Self::Created(_, version) | Self::Updated(_, version) => Some(version),
            Self::Deleted(_) => None,
        };
        body(&Named { action: self.action(), location_id: self.location(), version })
    }
}

impl Kind {
    /// Returns whether it makes an earlier event unnecessary. For events about locations in lists see
    /// `Queue::replace_list_event`.
    pub fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::UserList, Self::UserList) => true,
            // Presence: only the newest state of a user, or the newest number of users, matters.
            (Self::RoomEvent(room, user, name), Self::RoomEvent(old_room, old_user, old_name)) => {
                *name != CHAT && (room, user, name) == (old_room, old_user, old_name)
            }
            _ => false,
        }
    }

    /// Returns the sender, `None` for a guest, if it is a chat.
    pub fn chat_sender(&self) -> Option<Option<UserId>> {
        match self {
            Self::RoomEvent(_, sender, name) if *name == CHAT => Some(*sender),
            _ => None,
        }
    }

    /// Returns whether it is an event of a list. Such events never end a connection.
    pub fn is_list_event(&self) -> bool {
        matches!(self, Self::ListEvent(_) | Self::UserList)
    }

    /// Returns the subject that the socket may lose the right to see.
    pub fn topic(&self) -> Option<Topic> {
        match self {
            Self::RoomEvent(id, ..) => Some(Topic::Room(*id)),
            Self::ListEvent(Item::Created(id, _) | Item::Updated(id, _)) => Some(Topic::Listed(*id)),
            Self::UserList => Some(Topic::Users),
            Self::ListEvent(Item::Deleted(_)) | Self::Event(_) | Self::Ack(_) => None,
        }
    }

    pub fn name(&self) -> Option<&'static str> {
        match self {
            Self::Event(name) | Self::RoomEvent(_, _, name) => Some(name),
            Self::UserList => Some("user_list"),
            Self::ListEvent(_) => Some("locations"),
            Self::Ack(_) => None,
        }
    }
}

impl Queued {
    /// Returns the bytes that count while it waits. Bodies of rooms do not, because all members share them.
    pub fn counted_bytes(&self) -> usize {
        if let Kind::RoomEvent(..) = self.kind { 0 } else { self.body.get().len() }
    }

    /// Makes the beginning of its frame, up to the body. [`PACKET_END`] follows the body.
    pub fn frame_start(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(48);
        let written = match &self.kind {
            Kind::Ack(Ack { id, .. }) => write!(packet, "43{id}["),
            event => write!(packet, "42[\"{}\",", event.name().unwrap_or_default()),
        };
        written.expect("writing to a Vec cannot fail");
        let mut frame = frames::text_header(packet.len() + self.body.get().len() + PACKET_END.len());
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

/// The topics of which a socket may not have read everything that it was sent, each once, with a mark behind the last
/// event about it. Topics that were read go whenever one is recorded, so the connection's window bounds the list.
#[derive(Default)]
pub struct UnreadTopics(Vec<(Topic, u64)>);

impl UnreadTopics {
    /// Records that an event about a topic was sent, with a mark behind it.
    pub fn record(&mut self, topic: Topic, mark: u64, has_read_to: impl Fn(u64) -> bool) {
        let earlier = self.0.iter().find(|(known, _)| *known == topic).map_or(0, |(_, mark)| *mark);
        self.0.retain(|(known, mark)| *known != topic && !has_read_to(*mark));
        self.0.push((topic, mark.max(earlier)));
    }

    /// Returns a mark behind the last event about any of some topics.
    pub fn last_mark(&self, is_wanted: impl Fn(Topic) -> bool) -> Option<u64> {
        self.0.iter().filter(|(topic, _)| is_wanted(*topic)).map(|(_, mark)| *mark).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mark_of_a_topic_stays_until_it_is_read() {
        let room = |id| Topic::Room(LocationId::new(id).unwrap());
        let mut unread = UnreadTopics::default();
        unread.record(room(1), 20, |_| false);
        unread.record(room(1), 10, |_| false);
        unread.record(Topic::Users, 30, |_| false);
        assert_eq!(unread.last_mark(|topic| topic == room(1)), Some(20), "the later mark");
        assert_eq!(unread.last_mark(|_| true), Some(30));
        assert_eq!(unread.last_mark(|topic| topic == room(2)), None);
        unread.record(room(2), 40, |mark| mark <= 30);
        assert_eq!(unread.0.len(), 1, "topics that were read go");
    }
}
