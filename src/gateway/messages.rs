//! What clients may send, and what it does.

pub mod fuzz;

use std::{collections::HashSet, fmt, marker::PhantomData, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Value, value::RawValue};
use socketioxide::{
    ParserError,
    adapter::LocalAdapter,
    extract::{Data, Event, SocketRef},
    handler::FromMessageParts,
    socket::Socket,
};
use tokio::{task::AbortHandle, time::sleep};
use tracing::info;

use super::{
    inbox::Inbox,
    link::{Counted, Link},
    outlet::{Outlet, body},
    presence::Leaving,
    reply::{Reply, refusal},
    rooms::Rooms,
    session::{Session, log_name},
};
use crate::{
    domain::{
        access::{Caller, Payer},
        error::{Code, Error, Result},
        id::{LocationId, UserId},
        json::{self, Plain},
        presence::{MAX_NAME, Name, presentable},
        time::Timestamp,
    },
    service::{
        access::Identity,
        limits::{Events, Seat},
    },
};

/// A relayed message as JSON text.
const MAX_CHAT_BYTES: usize = 16 * 1024;
/// In characters, what is wrong with a payload: some reasons repeat it.
const MAX_REASON: usize = 200;
/// How long the time a token has left is believed.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// An event from a client, its payload checked.
enum Message {
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
struct Heard(Result<Message>);

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
struct JoinRoom {
    location_id: LocationId,
    user_id: Option<UserId>,
    #[serde(default, deserialize_with = "version")]
    since: Option<u64>,
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
struct LeaveRoom {
    location_id: LocationId,
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
struct Join {
    user_id: UserId,
    #[serde(default, deserialize_with = "name")]
    user_name: Option<String>,
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
struct Presence {
    location_id: LocationId,
}

/// `{token}`
#[derive(Deserialize)]
struct Authenticate {
    token: String,
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

/// One socket's side of the conversation: what its handlers share.
pub struct Client {
    pub session: Arc<Session>,
    pub outlet: Arc<Outlet>,
    inbox: Inbox<(Result<Message>, Reply)>,
    /// The caller whose budgets its events draw on, with those of all other sockets of theirs.
    pub payer: Payer,
    /// How many events it may send; `None`: any number.
    events: Option<Events>,
    rooms: Arc<Rooms>,
    /// Given back when it disconnects.
    seat: Mutex<Option<(Seat, Counted)>>,
    /// Ends the socket with its token. Written once it is connected.
    expiry: Mutex<Option<AbortHandle>>,
}

impl Client {
    /// Takes every event of a socket into its inbox.
    pub fn install(
        socket: &SocketRef,
        identity: Option<Identity>,
        seat: Seat,
        link: Arc<Link>,
        rooms: Arc<Rooms>,
    ) -> Arc<Self> {
        let (limits, payer) = (&rooms.service.limits, seat.payer());
        let seat = (seat, link.counted());
        let outlet = Arc::new(Outlet::new(link, rooms.blocked.clone()));
        let session = Arc::new(Session::new(identity, limits.memberships(payer)));
        let (inbox, events) = (Inbox::new(), limits.events());
        let (seat, expiry) = (Mutex::new(Some(seat)), Mutex::default());
        let client = Arc::new(Self { session, outlet, inbox, payer, events, rooms, seat, expiry });
        let this = client.clone();
        // One for all events: each would be kept for each socket. Not an async closure: its body would run in a
        // task of its own, overtaken by the next event's.
        socket.on_fallback(move |socket: SocketRef, Heard(message): Heard, reply: Reply| {
            this.clone().take(socket, message, reply)
        });
        client
    }

    /// Queues an event now; the future works off the queue if nobody else is at it.
    fn take(
        self: Arc<Self>,
        socket: SocketRef,
        message: Result<Message>,
        reply: Reply,
    ) -> impl Future<Output = ()> + Send {
        let mine = self.receive(message, reply);
        async move {
            if mine {
                self.work(&socket).await;
            }
        }
    }

    /// Puts an event in its turn, unless there are too many. `true`: the caller is to work the queue off.
    fn receive(&self, message: Result<Message>, mut reply: Reply) -> bool {
        let limits = &self.rooms.service.limits;
        let taken = self.events.as_ref().map_or(Ok(()), Events::take).and_then(|()| limits.event(self.payer));
        let refused = match taken {
            Ok(()) => match self.inbox.push((message, reply)) {
                Ok(mine) => return mine,
                Err((_, unheard)) => {
                    reply = unheard;
                    limits.too_many_waiting.inc();
                    Error::new(Code::RateLimited, "too many events of this socket wait; send fewer at once")
                }
            },
            Err(error) => error,
        };
        self.refuse(&mut reply, &refused);
        false
    }

    /// Lets what the socket has sent take effect, one after the other. An event that panics is refused, and the
    /// next one is handled: nobody else would take over the inbox.
    pub async fn work(&self, socket: &SocketRef) {
        while let Some((message, mut reply)) = self.inbox.next() {
            let act = async { self.act(socket, message?, &mut reply).await };
            let done = self.rooms.tasks.events.catch_async(act).await;
            if let Err(error) = done.unwrap_or_else(|| Err(Error::internal("the event panicked"))) {
                self.refuse(&mut reply, &error);
            }
        }
    }

    fn refuse(&self, reply: &mut Reply, error: &Error) {
        self.rooms.counts.refusals.count(error.code);
        reply.refuse(error);
    }

    async fn act(&self, socket: &SocketRef, message: Message, reply: &mut Reply) -> Result<()> {
        let Self { session, rooms, .. } = self;
        match message {
            Message::JoinRoom(JoinRoom { location_id, user_id, since }) => {
                self.introduce(socket, user_id, None);
                rooms.join(self, socket, location_id, since, reply).await?;
            }
            Message::LeaveRoom(LeaveRoom { location_id }) => {
                if rooms.leave(socket.id, session, location_id, Leaving::ForGood) {
                    let user = session.name();
                    info!(socket = log_name(socket), room = %location_id, user, "leave");
                }
                self.outlet.forget(location_id);
                reply.ack(&location_id.to_string());
            }
            Message::Chat(message, room_name) => {
                let relayed = Arc::from(relayed(session.user(), &message, room_name)?);
                rooms.relay(socket.id, self.payer, room_name, &relayed)?;
                reply.ack(&relayed);
            }
            Message::Join(Join { user_id, user_name }) => {
                self.introduce(socket, Some(user_id), user_name);
                reply.ack(&Joined {
                    user_id: session.user(),
                    user_name: None,
                    socket_id: socket.id.as_str(),
                });
                self.register(socket);
            }
            Message::Presence(Presence { location_id }) => {
                reply.ack(&Box::pin(rooms.who_is_in(self.payer, &session.caller(), location_id)).await?);
            }
            Message::Authenticate(Authenticate { token }) => {
                let fresh = rooms.service.bearer(&token)?;
                let exp = fresh.expires_at.map(|at| at.as_millis() / 1_000);
                let is_other = session.differs(&fresh)?;
                if is_other {
                    // An admin no more, for one. If rights cannot be read nothing of it counts.
                    for room in session.rooms() {
                        Box::pin(rooms.know(room)).await?;
                    }
                }
                let is_admin = matches!(fresh.caller, Caller::User { is_admin: true, .. });
                session.renew(fresh);
                if is_other {
                    self.place(socket);
                    session.rooms().into_iter().for_each(|room| rooms.recheck(room));
                }
                if is_other && !is_admin {
                    let withhold = || {
                        let unread = self.outlet.withhold().map(|mark| (self.outlet.clone(), mark));
                        Outlet::withdraw(Vec::from_iter(unread));
                    };
                    withhold();
                    // And what is being sent to all admins just now.
                    Box::pin(rooms.service.taken_in()).await;
                    withhold();
                }
                reply.ack(&Authenticated { exp });
            }
        }
        Ok(())
    }

    /// Open mode: whose socket it is.
    fn introduce(&self, socket: &SocketRef, user: Option<UserId>, name: Option<String>) {
        if self.session.introduce(user, name) {
            self.place(socket);
            self.rooms.introduced(socket.id, &self.session);
        }
    }

    /// Tells a socket whose it is, unless it is nobody's.
    pub fn register(&self, socket: &SocketRef) {
        let Some(identity) = self.session.identity() else { return };
        let (Caller::Anyone(user_id) | Caller::User { id: user_id, .. }) = identity.caller else { return };
        let user_name = self.rooms.people.names(&[user_id]).pop().flatten();
        let registered = Joined { user_id, user_name, socket_id: socket.id.as_str() };
        self.outlet.event(socket, "registered", body(&registered));
    }

    /// It is one of the sockets of its user, and an admin's if it is.
    pub fn place(&self, socket: &SocketRef) {
        let said = |user| self.rooms.service.name_said(user);
        self.rooms.people.place(&self.session, &self.outlet, socket, said);
    }

    /// Ends what the socket came with when its time is over.
    pub fn expire(self: &Arc<Self>, socket: &SocketRef) {
        if !self.session.expires() {
            return;
        }
        let (client, of) = (self.clone(), socket.clone());
        let expiry = tokio::spawn(async move {
            // A fresh token may come meanwhile, and a clock may be set.
            while let Some(left) = client.session.left(Timestamp::now()) {
                sleep(left.min(LOOK_AGAIN)).await;
            }
            client.expired(&of).await;
        });
        *self.expiry.lock() = Some(expiry.abort_handle());
        if self.session.is_over() {
            // Since before: nobody else would.
            expiry.abort();
        }
    }

    async fn expired(&self, socket: &SocketRef) {
        let Self { session, outlet, rooms, .. } = self;
        if let Caller::Guest(guest) = session.caller() {
            // Also one who is about to enter, and is not in any room yet.
            rooms.recheck(guest.location);
            return;
        }
        info!(socket = log_name(socket), user = %session.name(), "its token has ended");
        for room in session.disconnect() {
            rooms.leave(socket.id, session, room, Leaving::Lost);
            outlet.forget(room);
        }
        rooms.people.remove(session.user(), socket);
        let error = Error::new(Code::TokenExpired, "the token has ended; connect with a fresh one");
        rooms.counts.refusals.count(error.code);
        outlet.end(socket, "exception", refusal(&error)).await;
    }

    /// The socket is gone, for good if it said so; returns the rooms it was in, once.
    pub fn disconnected(&self, socket: &SocketRef, for_good: bool) -> Option<HashSet<LocationId>> {
        let _given_back = self.seat.lock().take()?;
        if let Some(expiry) = self.expiry.lock().take() {
            expiry.abort();
        }
        let how = if for_good { Leaving::ForGood } else { Leaving::Lost };
        let rooms = self.rooms.leave_all(socket.id, &self.session, how);
        self.rooms.people.remove(self.session.user(), socket);
        Some(rooms)
    }
}

/// What is wrong with a payload, without where in the packet: the sender has not seen the packet.
fn invalid_payload(error: &ParserError) -> Error {
    let reason = error.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default();
    Error::new(Code::InvalidPayload, reason.chars().take(MAX_REASON).collect::<String>())
}

/// A message of a `chat` as JSON text.
fn message_text(message: &Value) -> Result<String> {
    let message = message.to_string();
    if message.len() > MAX_CHAT_BYTES {
        let detail = format!("a message has at most {MAX_CHAT_BYTES} bytes of JSON");
        return Err(Error::new(Code::MessageTooLarge, detail));
    }
    Ok(message)
}

/// The body of a relayed `chat`: never with `version`, which only a stored Feature has.
fn relayed(user: UserId, message: &str, room: LocationId) -> Result<Box<RawValue>> {
    let text = format!(r#"{{"userId":{user},"message":{message},"roomName":"{room}"}}"#);
    RawValue::from_string(text).map_err(Error::internal)
}

/// The ack of `join` and the body of `registered`: the one place that tells a socket's id, to that socket.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Joined<'a> {
    user_id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<Name>,
    socket_id: &'a str,
}

/// The ack of `authenticate`.
#[derive(Serialize)]
struct Authenticated {
    /// When the token ends, in seconds since 1970-01-01T00:00:00Z, as in the token.
    exp: Option<i64>,
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
