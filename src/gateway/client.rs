//! One connected client: what the events that it sends do, one after the other.
//!
//! What they must look like is in `socket/events`.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::Serialize;
use socketioxide::extract::SocketRef;
use tokio::{task::AbortHandle, time::sleep};
use tracing::info;

use super::{
    rooms::{Rooms, presence::Leaving},
    socket::{
        events::{Authenticate, Heard, Join, JoinRoom, LeaveRoom, Message, Presence, relayed},
        inbox::Inbox,
        outbox::{Outbox, body},
        reply::{Reply, refusal},
        session::{Session, log_name},
    },
    wire::connection::{Connection, CountedSocket},
};
use crate::{
    domain::{
        access::{Caller, Payer},
        error::{Code, Error, Result},
        id::{LocationId, UserId},
        presence::Name,
        time::Timestamp,
    },
    service::{
        access::Identity,
        limits::{SocketEvents, SocketPermit},
    },
};

/// How long the time a token has left is believed.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// One socket's side of the conversation: what its handlers share.
pub struct Client {
    pub session: Arc<Session>,
    pub outbox: Arc<Outbox>,
    inbox: Inbox<(Result<Message>, Reply)>,
    /// The caller whose budgets its events draw on, with those of all other sockets of theirs.
    pub payer: Payer,
    /// How many events it may send; `None`: any number.
    events: Option<SocketEvents>,
    rooms: Arc<Rooms>,
    /// Given back when it disconnects.
    permit: Mutex<Option<(SocketPermit, CountedSocket)>>,
    /// Ends the socket with its token. Written once it is connected.
    expiry: Mutex<Option<AbortHandle>>,
}

impl Client {
    /// Takes every event of a socket into its inbox.
    pub fn install(
        socket: &SocketRef,
        identity: Option<Identity>,
        permit: SocketPermit,
        connection: Arc<Connection>,
        rooms: Arc<Rooms>,
    ) -> Arc<Self> {
        let (limits, payer) = (&rooms.service.limits, permit.payer());
        let permit = (permit, connection.count_socket());
        let outbox = Arc::new(Outbox::new(connection, rooms.blocked.clone()));
        let session = Arc::new(Session::new(identity, limits.room_permits(payer)));
        let (inbox, events) = (Inbox::new(), limits.socket_events());
        let (permit, expiry) = (Mutex::new(Some(permit)), Mutex::default());
        let client = Arc::new(Self { session, outbox, inbox, payer, events, rooms, permit, expiry });
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
        let taken = self
            .events
            .as_ref()
            .map_or(Ok(()), SocketEvents::take)
            .and_then(|()| limits.take_event(self.payer));
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
                self.outbox.drop_room_events(location_id);
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
                let fresh = rooms.service.verify_token(&token)?;
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
                        let unread = self.outbox.drop_list_events().map(|mark| (self.outbox.clone(), mark));
                        Outbox::withdraw(Vec::from_iter(unread));
                    };
                    withhold();
                    // And what is being sent to all admins just now.
                    Box::pin(rooms.service.wait_until_settled()).await;
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
        self.outbox.send_event(socket, "registered", body(&registered));
    }

    /// It is one of the sockets of its user, and an admin's if it is.
    pub fn place(&self, socket: &SocketRef) {
        let said = |user| self.rooms.service.name_said(user);
        self.rooms.people.place(&self.session, &self.outbox, socket, said);
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
        let Self { session, outbox, rooms, .. } = self;
        if let Caller::Guest(guest) = session.caller() {
            // Also one who is about to enter, and is not in any room yet.
            rooms.recheck(guest.location);
            return;
        }
        info!(socket = log_name(socket), user = %session.name(), "its token has ended");
        for room in session.disconnect() {
            rooms.leave(socket.id, session, room, Leaving::Lost);
            outbox.drop_room_events(room);
        }
        rooms.people.remove(session.user(), socket);
        let error = Error::new(Code::TokenExpired, "the token has ended; connect with a fresh one");
        rooms.counts.refusals.count(error.code);
        outbox.disconnect(socket, "exception", refusal(&error)).await;
    }

    /// The socket is gone, for good if it said so; returns the rooms it was in, once.
    pub fn disconnected(&self, socket: &SocketRef, for_good: bool) -> Option<HashSet<LocationId>> {
        let _given_back = self.permit.lock().take()?;
        if let Some(expiry) = self.expiry.lock().take() {
            expiry.abort();
        }
        let how = if for_good { Leaving::ForGood } else { Leaving::Lost };
        let rooms = self.rooms.leave_all(socket.id, &self.session, how);
        self.rooms.people.remove(self.session.user(), socket);
        Some(rooms)
    }
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
