//! The acts of a client: what each event that it sends does.

use serde::Serialize;
use tracing::info;

use super::Client;
use crate::{
    domain::{
        access::Caller,
        error::Result,
        id::{LocationId, UserId},
        presence::Name,
    },
    gateway::{
        rooms::Leaving,
        socket::{
            events::{Authenticate, Chat, ClientEvent, Join, JoinRoom, OneRoom},
            outbox::{Kind, Outbox, SocketHandle, Subscriber, body},
            reply::Reply,
        },
    },
    service::access::Identity,
};

/// The ack of `join` and the body of `registered`. A socket's id is told here alone, and only to that socket.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Registered<'a> {
    user_id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<Name>,
    socket_id: &'a str,
}

/// The ack of `authenticate`.
#[derive(Serialize)]
struct Authenticated {
    /// The end of the token, in seconds since 1970-01-01T00:00:00Z, as in the token.
    exp: Option<i64>,
}

impl Client {
    /// Carries out an event and answers it, unless it is refused.
    pub(super) async fn act(
        &self,
        subscriber: &Subscriber,
        event: ClientEvent,
        reply: &mut Reply,
    ) -> Result<()> {
        // The rare acts are boxed, so that the common ones need not carry room for them.
        match event {
            ClientEvent::JoinRoom(JoinRoom { location_id, user_id, since }) => {
                self.introduce(subscriber, user_id, None);
                let rooms = &self.clients.rooms;
                rooms.join(subscriber.clone(), self.payer, location_id, since, reply).await
            }
            ClientEvent::LeaveRoom(OneRoom { location_id }) => {
                self.leave_room(&subscriber.handle, location_id);
                reply.ack(&location_id.to_string());
                Ok(())
            }
            ClientEvent::Chat(chat) => self.chat(&subscriber.handle, &chat, reply),
            ClientEvent::Join(Join { user_id, user_name }) => {
                self.introduce(subscriber, Some(user_id), user_name);
                reply.ack(&Self::registered(self.session.user(), None, &subscriber.handle));
                self.register(&subscriber.handle);
                Ok(())
            }
            ClientEvent::Presence(OneRoom { location_id }) => {
                let rooms = &self.clients.rooms;
                let caller = self.session.caller();
                reply.ack(&Box::pin(rooms.list_occupants(self.payer, &caller, location_id)).await?);
                Ok(())
            }
            ClientEvent::Authenticate(Authenticate { token }) => {
                reply.ack(&Box::pin(self.authenticate(subscriber, &token)).await?);
                Ok(())
            }
        }
    }

    fn leave_room(&self, socket: &SocketHandle, id: LocationId) {
        if self.clients.rooms.leave(socket.id(), &self.session, id, Leaving::ForGood) {
            info!(socket = socket.log_name(), room = %id, user = self.session.log_user(), "leave");
        }
        self.outbox.drop_room_events(id);
    }

    fn chat(&self, socket: &SocketHandle, chat: &Chat, reply: &mut Reply) -> Result<()> {
        let relayed = chat.relayed(self.session.user())?;
        self.clients.rooms.relay(socket.id(), self.payer, chat.room_name, &relayed)?;
        reply.ack(&relayed);
        Ok(())
    }

    /// Takes the user and the name that a client says in open mode.
    fn introduce(&self, subscriber: &Subscriber, user: Option<UserId>, name: Option<String>) {
        if self.session.introduce(user, name) {
            self.place(subscriber);
            self.clients.rooms.update_occupant(subscriber.handle.id(), &self.session);
        }
    }

    /// Tells a socket which user it belongs to, if it belongs to one.
    pub(super) fn register(&self, socket: &SocketHandle) {
        let Some(identity) = self.session.identity() else { return };
        let (Caller::Anyone(user) | Caller::User { id: user, .. }) = identity.caller else { return };
        let name = self.clients.directory.person(user).user_name;
        socket.send(Kind::Event("registered"), body(&Self::registered(user, name, socket)));
    }

    fn registered<'a>(user_id: UserId, user_name: Option<Name>, socket: &'a SocketHandle) -> Registered<'a> {
        Registered { user_id, user_name, socket_id: socket.socket.id.as_str() }
    }

    /// Takes a fresh token of the same user.
    async fn authenticate(&self, subscriber: &Subscriber, token: &str) -> Result<Authenticated> {
        let identity = self.clients.service.verify_token(token)?;
        let exp = identity.expires_at.map(|at| at.as_millis() / 1_000);
        if self.session.has_other_rights(&identity)? {
            self.change_rights(subscriber, identity).await?;
        } else {
            self.session.renew(identity);
        }
        Ok(Authenticated { exp })
    }

    /// Replaces the token by one with other rights, and withdraws what the client may no longer see. If rights cannot
    /// be read, nothing changes.
    async fn change_rights(&self, subscriber: &Subscriber, identity: Identity) -> Result<()> {
        let rooms = &self.clients.rooms;
        // Rooms that have seen only admins, for example, do not know whether this user may be there.
        for room in self.session.rooms() {
            rooms.ensure_rights(room).await?;
        }
        let is_admin = matches!(identity.caller, Caller::User { is_admin: true, .. });
        self.session.renew(identity);
        self.place(subscriber);
        self.session.rooms().into_iter().for_each(|room| rooms.recheck(room));
        if !is_admin {
            self.withdraw_lists();
            // An event that is just being sent to all admins comes after that.
            self.clients.service.events.wait_until_settled().await;
            self.withdraw_lists();
        }
        Ok(())
    }

    /// Drops the events of lists that wait. If others were sent and are not read soon, the client is disconnected.
    fn withdraw_lists(&self) {
        let unread = self.outbox.drop_list_events().map(|mark| (self.outbox.clone(), mark));
        Outbox::withdraw(Vec::from_iter(unread));
    }
}
