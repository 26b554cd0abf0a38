//! The events that clients may send: their names, and what their payloads must look like.
//!
//! A file of its own because it decides by the text alone, which is also how `tests/fuzz` calls it. What an event does
//! is in `client.rs`.

pub mod fuzz;

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Value, value::RawValue};
use socketioxide::{
    ParserError,
    adapter::LocalAdapter,
    extract::{Data, Event},
    handler::FromMessageParts,
    socket::Socket,
};

use crate::domain::{
    error::{Code, Error, Result},
    id::{LocationId, UserId},
    json::{self, Plain},
    presence::{MAX_NAME, presentable},
};

/// A relayed message as JSON text.
const MAX_CHAT_BYTES: usize = 16 * 1024;
/// In characters, what is wrong with a payload: some reasons repeat it.
const MAX_REASON: usize = 200;

/// An event from a client, its payload checked.
pub enum Message {
    /// `join_room`
    JoinRoom(JoinRoom),
    /// `leave_room`
    LeaveRoom(LeaveRoom),
    /// `chat`: the message as JSON text, which is all that waits of it.
    Chat(String, LocationId),
    /// `join`
    Join(Join),
    /// `presence`
    Presence(Presence),
    /// `authenticate`
    Authenticate(Authenticate),
}

/// An event as it came.
pub struct Heard(pub Result<Message>);

impl FromMessageParts<LocalAdapter> for Heard {
    type Error = ParserError;

    fn from_message_parts(
        socket: &Arc<Socket>,
        value: &mut socketioxide_core::Value,
        ack: &Option<i64>,
    ) -> std::result::Result<Self, ParserError> {
        let Event(name) = Event::from_message_parts(socket, value, ack)?;
        Ok(Self(match name.as_str() {
            "join_room" => payload(socket, value, Message::JoinRoom),
            "leave_room" => payload(socket, value, Message::LeaveRoom),
            "chat" => payload(socket, value, |chat: Chat| chat).and_then(|Chat { message, room_name }| {
                Ok(Message::Chat(message_text(&message.0)?, room_name))
            }),
            "join" => payload(socket, value, Message::Join),
            "presence" => payload(socket, value, Message::Presence),
            "authenticate" => payload(socket, value, Message::Authenticate),
            _ => {
                let name: String = name.chars().take(40).collect();
                Err(Error::new(Code::UnknownEvent, format!("there is no event `{name}`")))
            }
        }))
    }
}

fn payload<T: DeserializeOwned, M>(
    socket: &Arc<Socket>,
    value: &mut socketioxide_core::Value,
    message: fn(T) -> M,
) -> Result<M> {
    if let socketioxide_core::Value::Str(_, Some(_)) = value {
        return Err(Error::new(Code::InvalidPayload, "an event carries JSON; binary data is not taken"));
    }
    let payload = Data::<Object<T>>::from_message_parts(socket, value, &None);
    payload.map(|Data(Object(payload))| message(payload)).map_err(|e| match value {
        socketioxide_core::Value::Str(text, _) if has_no_payload(text) => {
            Error::new(Code::InvalidPayload, "the event has no payload; it takes an object")
        }
        _ => invalid_payload(&e),
    })
}

/// Is this the text of an event that has a name and nothing else?
fn has_no_payload(event: &str) -> bool {
    serde_json::from_str::<Vec<IgnoredAny>>(event).is_ok_and(|parts| parts.len() < 2)
}

/// `{locationId, userId?, since?}`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRoom {
    pub location_id: LocationId,
    pub user_id: Option<UserId>,
    #[serde(default, deserialize_with = "version")]
    pub since: Option<u64>,
}

/// A version, as far as a JavaScript client can count; `null` is none.
fn version<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<u64>, D::Error> {
    let Plain(version) = Plain::deserialize(deserializer)?;
    match json::integer(&version) {
        None if version.is_null() => Ok(None),
        None => Err(serde::de::Error::custom("since must be an integer from 0 to 2^53-1")),
        version => Ok(version),
    }
}

/// `{locationId}`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaveRoom {
    pub location_id: LocationId,
}

/// `{message, roomName}`; any other member is dropped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chat {
    message: Plain,
    room_name: LocationId,
}

/// `{userId, userName?}`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    pub user_id: UserId,
    #[serde(default, deserialize_with = "name")]
    pub user_name: Option<String>,
}

/// What somebody wants to be called; `null` is nothing.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    match name.as_deref().map(|name| name.chars().count()) {
        Some(length) if length > MAX_NAME => {
            Err(serde::de::Error::custom("userName must have at most 255 characters"))
        }
        _ => Ok(name.as_deref().and_then(presentable)),
    }
}

/// `{locationId}`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    pub location_id: LocationId,
}

/// `{token}`
#[derive(Deserialize)]
pub struct Authenticate {
    pub token: String,
}

/// A payload that must be an object: derived implementations would take an array in the fields' order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> std::result::Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// What is wrong with a payload, without where in the packet: the sender has not seen the packet.
fn invalid_payload(error: &ParserError) -> Error {
    let reason = error.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default();
    Error::new(Code::InvalidPayload, reason.chars().take(MAX_REASON).collect::<String>())
}

/// A message of a `chat` as JSON text.
pub fn message_text(message: &Value) -> Result<String> {
    let message = message.to_string();
    if message.len() > MAX_CHAT_BYTES {
        let detail = format!("a message has at most {MAX_CHAT_BYTES} bytes of JSON");
        return Err(Error::new(Code::MessageTooLarge, detail));
    }
    Ok(message)
}

/// The body of a relayed `chat`: never with `version`, which only a stored Feature has.
pub fn relayed(user: UserId, message: &str, room: LocationId) -> Result<Box<RawValue>> {
    let text = format!(r#"{{"userId":{user},"message":{message},"roomName":"{room}"}}"#);
    RawValue::from_string(text).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command to `serde_json::Value`, a name like any other to everybody else.
    const RAW: &str = "$serde_json::private::RawValue";

    #[test]
    fn a_chat_is_relayed_as_it_was_sent() {
        let message = format!(r#"{{"{RAW}":"[1]"}}"#);
        let payload = format!(r#"{{"message":{message},"roomName":7}}"#);
        let Object(chat) = serde_json::from_str::<Object<Chat>>(&payload).unwrap();
        assert_eq!(chat.message.0.to_string(), message);
    }

    #[test]
    fn an_object_is_no_number_whatever_it_is_called() {
        let is_join = |id: &str, user: &str, since: &str| {
            let payload = format!(r#"{{"locationId":{id},"userId":{user},"since":{since}}}"#);
            serde_json::from_str::<Object<JoinRoom>>(&payload).is_ok()
        };
        let seven = format!(r#"{{"{RAW}":"7"}}"#);
        assert!(is_join("7", "7", "7"));
        assert!(!is_join(&seven, "7", "7") && !is_join("7", &seven, "7") && !is_join("7", "7", &seven));
    }

    #[test]
    fn an_event_without_a_payload_is_told_from_one_with_a_bad_one() {
        assert!(has_no_payload(r#"["join_room"]"#));
        for event in [r#"["join_room",null]"#, r#"["join_room",{}]"#, r#"["join_room",7,8]"#] {
            assert!(!has_no_payload(event), "{event}");
        }
    }

    #[test]
    fn versions_and_ids_are_integers_by_their_value() {
        let payload = r#"{"locationId":7.0,"userId":"8","since":9.0}"#;
        let Object(join) = serde_json::from_str::<Object<JoinRoom>>(payload).unwrap();
        let ids = (join.location_id.get(), join.user_id.map(UserId::get), join.since);
        assert_eq!(ids, (7, Some(8), Some(9)));
        for since in ["9.5", "-1", "\"9\"", "true", "9007199254740992.0"] {
            let payload = format!(r#"{{"locationId":7,"since":{since}}}"#);
            assert!(serde_json::from_str::<Object<JoinRoom>>(&payload).is_err(), "{since}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_all_that_was_sent() {
        let payload = format!("\"{}\"", "é".repeat(MAX_CHAT_BYTES));
        let error = serde_json::from_str::<Object<Chat>>(&payload).err().unwrap();
        let error = invalid_payload(&ParserError::new(error));
        assert!(error.detail.chars().count() <= MAX_REASON, "{}", error.detail.len());
    }
}
