//! The events that a client may send: one table of their names, and their payloads as checked values.
//!
//! Decoding knows no socket, so that fuzzing (`fuzz.rs`) calls it as the handlers do.

pub mod fuzz;
#[cfg(test)]
mod tests;

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Value, value::RawValue};
use socketioxide::{ParserError, adapter::LocalAdapter, handler::FromMessageParts, socket::Socket};
use socketioxide_core::{Value as Packet, parser::Parse};
use socketioxide_parser_common::CommonParser;

use crate::domain::{
    error::{Code, Error, Result},
    id::{LocationId, UserId},
    json::{self, Plain},
    presence::{MAX_NAME, presentable},
};

/// Limits the JSON text of a relayed message.
const MAX_CHAT_BYTES: usize = 16 * 1024;
/// Limits the characters of a sentence that says what is wrong with a payload, because some of these repeat it.
const MAX_REASON: usize = 200;
/// Limits the characters of an unknown event's name in an error.
const MAX_EVENT_NAME: usize = 40;

/// An event from a client, with its payload checked.
pub enum ClientEvent {
    JoinRoom(JoinRoom),
    LeaveRoom(OneRoom),
    Chat(Chat),
    Join(Join),
    Presence(OneRoom),
    Authenticate(Authenticate),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRoom {
    pub location_id: LocationId,
    pub user_id: Option<UserId>,
    #[serde(default, deserialize_with = "version")]
    pub since: Option<u64>,
}

/// The payload of `leave_room` and of `presence`: `{locationId}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OneRoom {
    pub location_id: LocationId,
}

/// The payload of `chat`: `{message, roomName}`. Any other member is dropped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// JSON text.
    #[serde(deserialize_with = "json_text")]
    message: String,
    pub room_name: LocationId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    pub user_id: UserId,
    #[serde(default, deserialize_with = "name")]
    pub user_name: Option<String>,
}

#[derive(Deserialize)]
pub struct Authenticate {
    pub token: String,
}

/// An event as it came, for a handler.
pub struct Received(pub Result<ClientEvent>);

impl FromMessageParts<LocalAdapter> for Received {
    type Error = ParserError;

    fn from_message_parts(
        _: &Arc<Socket>,
        packet: &mut Packet,
        _: &Option<i64>,
    ) -> Result<Self, ParserError> {
        let name = CommonParser.read_event(packet)?.to_owned();
        Ok(Self(decode(&name, packet)))
    }
}

/// Decodes the payload of the event `name` from its packet.
///
/// # Errors
/// `unknown_event`, `invalid_payload`, `message_too_large`.
fn decode(name: &str, packet: &mut Packet) -> Result<ClientEvent> {
    match name {
        "join_room" => payload(packet).map(ClientEvent::JoinRoom),
        "leave_room" => payload(packet).map(ClientEvent::LeaveRoom),
        "chat" => payload(packet).and_then(Chat::checked).map(ClientEvent::Chat),
        "join" => payload(packet).map(ClientEvent::Join),
        "presence" => payload(packet).map(ClientEvent::Presence),
        "authenticate" => payload(packet).map(ClientEvent::Authenticate),
        _ => {
            let name: String = name.chars().take(MAX_EVENT_NAME).collect();
            Err(Error::new(Code::UnknownEvent, format!("there is no event `{name}`")))
        }
    }
}

fn payload<T: DeserializeOwned>(packet: &mut Packet) -> Result<T> {
    if let Packet::Str(_, Some(_)) = packet {
        return Err(Error::new(Code::InvalidPayload, "an event carries JSON; binary data is not taken"));
    }
    let payload = CommonParser.decode_value::<Object<T>>(packet, true);
    payload.map(|Object(payload)| payload).map_err(|error| match packet {
        Packet::Str(text, _) if has_no_payload(text) => {
            Error::new(Code::InvalidPayload, "the event has no payload; it takes an object")
        }
        _ => invalid_payload(&error),
    })
}

/// Checks whether this is the text of an event that has a name and nothing else.
fn has_no_payload(event: &str) -> bool {
    serde_json::from_str::<Vec<IgnoredAny>>(event).is_ok_and(|parts| parts.len() < 2)
}

/// Says what is wrong with a payload. The position in the packet is left out, because the sender has not seen the
/// packet.
fn invalid_payload(error: &ParserError) -> Error {
    let reason = error.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default();
    Error::new(Code::InvalidPayload, reason.chars().take(MAX_REASON).collect::<String>())
}

/// Reads a version, as far as a JavaScript client can count; `null` is none.
fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Plain(version) = Plain::deserialize(deserializer)?;
    match json::integer(&version) {
        None if version.is_null() => Ok(None),
        None => Err(serde::de::Error::custom("since must be an integer from 0 to 2^53-1")),
        version => Ok(version),
    }
}

/// Reads the name that somebody gives; `null` is none.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    match name.as_deref().map(|name| name.chars().count()) {
        Some(length) if length > MAX_NAME => {
            Err(serde::de::Error::custom("userName must have at most 255 characters"))
        }
        _ => Ok(name.as_deref().and_then(presentable)),
    }
}

impl Chat {
    fn checked(self) -> Result<Self> {
        if self.message.len() > MAX_CHAT_BYTES {
            let detail = format!("a message has at most {MAX_CHAT_BYTES} bytes of JSON");
            return Err(Error::new(Code::MessageTooLarge, detail));
        }
        Ok(self)
    }

    /// Returns the body of the `chat` that the room is sent. It never has a `version`, which only a stored Feature has.
    ///
    /// # Errors
    /// `internal`.
    pub fn relayed(&self, user: UserId) -> Result<Arc<RawValue>> {
        let Self { message, room_name } = self;
        let text = format!(r#"{{"userId":{user},"message":{message},"roomName":"{room_name}"}}"#);
        RawValue::from_string(text).map(Arc::from).map_err(Error::internal)
    }
}

/// Reads any JSON as its text.
fn json_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Plain::deserialize(deserializer).map(|Plain(value)| Value::to_string(&value))
}

/// A payload that must be an object. A derived implementation would also take an array in the order of the fields.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}
