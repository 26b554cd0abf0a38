//! The life of a client: it takes events one after the other, ends with its token, and is counted until it disconnects.
//!
//! The acts that events cause are in `acts.rs`, their payloads in `socket/events`. Connecting and disconnecting are
//! in `gateway/connect.rs` and `gateway/disconnect.rs`.

mod acts;

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use socketioxide::extract::SocketRef;
use tokio::{task::AbortHandle, time::sleep};
use tracing::info;

use super::{
    people::directory::Directory,
    rooms::{Leaving, Rooms},
    socket::{
        events::{ClientEvent, Received},
        inbox::Inbox,
        outbox::{Blocked, Outbox, SocketHandle, Subscriber},
        reply::{Reply, failure},
        session::Session,
    },
    wire::connection::{Connection, CountedSocket},
};
use crate::{
    domain::{
        access::{Caller, Payer},
        error::{Code, Error, Result},
        id::LocationId,
        time::Timestamp,
    },
    service::{
        Service,
        access::Identity,
        limits::{SocketEvents, SocketPermit},
        refusals::Refusals,
    },
    supervise::Task,
};

/// A client's remaining time is computed again after this long, because the clock may be set.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The parts of the server that the events of clients act on.
pub struct Clients {
    pub service: Arc<Service>,
    pub rooms: Arc<Rooms>,
    pub directory: Arc<Directory>,
    /// Sockets that something other than a position waits for.
    pub blocked: Arc<Blocked>,
    /// Counts refused events and handshakes.
    pub refusals: Refusals,
    /// Catches a panic over one event, so that the client's next events are handled.
    pub task: Task,
}

/// The state that the handlers of one socket share.
pub struct Client {
    session: Arc<Session>,
    outbox: Arc<Outbox>,
    inbox: Inbox<(Result<ClientEvent>, Reply)>,
    /// The budget of this user or address pays for the client's events, as for those of all its other sockets.
    payer: Payer,
    /// Limits the events of this socket; `None`: there is no limit.
    events: Option<SocketEvents>,
    clients: Arc<Clients>,
    /// The places of the client among all and in the metrics. They are given back when it disconnects.
    permit: Mutex<Option<(SocketPermit, CountedSocket)>>,
    /// Ends the client with its token. Written once, when it is connected.
    expiry: Mutex<Option<AbortHandle>>,
}

impl Client {
    /// Creates the client of a socket that connects, and takes every event of the socket into its inbox.
    pub fn install(
        clients: &Arc<Clients>,
        socket: &SocketRef,
        identity: Option<Identity>,
        permit: SocketPermit,
        connection: Arc<Connection>,
    ) -> Arc<Self> {
        let (limits, payer) = (&clients.service.limits, permit.payer());
        let permit = Mutex::new(Some((permit, connection.count_socket())));
        let outbox = Arc::new(Outbox::new(connection, clients.blocked.clone()));
        socket.extensions.insert(outbox.clone());
        let session = Arc::new(Session::new(identity, limits.room_permits(payer)));
        let (inbox, events, expiry) = (Inbox::new(), limits.socket_events(), Mutex::default());
        let clients = clients.clone();
        let client = Arc::new(Self { session, outbox, inbox, payer, events, clients, permit, expiry });
        let this = client.clone();
        // One handler takes all events, because each handler would be kept for each socket. It is not an async closure:
        // the body of one would run in a task of its own, and be overtaken by the next event's.
        socket.on_fallback(move |socket: SocketRef, Received(event): Received, reply: Reply| {
            this.clone().take(socket, event, reply)
        });
        client
    }

    /// Begins the life of a client that is connected: it is placed in the directory, told who it is, and handles the
    /// events that have come in the meantime.
    pub async fn begin(self: &Arc<Self>, socket: SocketRef) {
        let subscriber = self.subscriber(socket);
        self.place(&subscriber);
        self.register(&subscriber.handle);
        self.expire(&subscriber.handle);
        self.handle_events(subscriber).await;
    }

    /// Returns the user as text for the log.
    pub fn log_user(&self) -> String {
        self.session.log_user()
    }

    /// Returns how long the client has been connected.
    pub fn connected_for(&self) -> Duration {
        self.session.since.elapsed()
    }

    /// Returns the connection.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.outbox.connection
    }

    fn subscriber(&self, socket: SocketRef) -> Subscriber {
        let handle = SocketHandle { socket, outbox: self.outbox.clone() };
        Subscriber { handle, session: self.session.clone() }
    }

    /// Queues an event at once. The future handles what is queued, if no other task does.
    fn take(
        self: Arc<Self>,
        socket: SocketRef,
        event: Result<ClientEvent>,
        reply: Reply,
    ) -> impl Future<Output = ()> + Send {
        let must_handle = self.queue(event, reply);
        async move {
            if must_handle {
                self.handle_events(self.subscriber(socket)).await;
            }
        }
    }

    /// Queues an event, or refuses it if there are too many. It returns `true` if the caller must handle what is
    /// queued.
    fn queue(&self, event: Result<ClientEvent>, mut reply: Reply) -> bool {
        let limits = &self.clients.service.limits;
        let permitted = self.events.as_ref().map_or(Ok(()), SocketEvents::take);
        let refused = match permitted.and_then(|()| limits.take_event(self.payer)) {
            Ok(()) => match self.inbox.push((event, reply)) {
                Ok(must_handle) => return must_handle,
                Err((_, returned)) => {
                    reply = returned;
                    limits.too_many_waiting.inc();
                    Error::new(Code::RateLimited, "too many events of this socket wait; send fewer at once")
                }
            },
            Err(error) => error,
        };
        self.refuse(&mut reply, &refused);
        false
    }

    /// Handles the events that the client has sent, one after the other. An event that panics is refused and the next
    /// one is handled, because no other task would take over the inbox.
    async fn handle_events(&self, subscriber: Subscriber) {
        while let Some((event, mut reply)) = self.inbox.next() {
            let act = async { self.act(&subscriber, event?, &mut reply).await };
            let done = self.clients.task.catch_async(act).await;
            if let Err(error) = done.unwrap_or_else(|| Err(Error::internal("the event panicked"))) {
                self.refuse(&mut reply, &error);
            }
        }
    }

    fn refuse(&self, reply: &mut Reply, error: &Error) {
        self.clients.refusals.count(error.code);
        reply.refuse(error);
    }

    /// Places the socket in the directory: under its user, and among the admins if it is one's.
    fn place(&self, subscriber: &Subscriber) {
        let Clients { service, directory, .. } = &*self.clients;
        directory.place(subscriber, |user| service.names.get(user));
    }

    /// Ends the client when the time of its token or share link is over.
    fn expire(self: &Arc<Self>, socket: &SocketHandle) {
        if !self.session.can_expire() {
            return;
        }
        let (client, socket) = (self.clone(), socket.clone());
        let expiry = tokio::spawn(async move {
            // A fresh token may come in the meantime.
            while let Some(left) = client.session.time_left(Timestamp::now()) {
                sleep(left.min(EXPIRY_CHECK_INTERVAL)).await;
            }
            client.end_expired(&socket).await;
        });
        *self.expiry.lock() = Some(expiry.abort_handle());
        if self.session.has_ended() {
            // The client disconnected before the handle was there, so nobody else aborts the task.
            expiry.abort();
        }
    }

    /// Takes a guest out of the room of its share link. Other clients are told that their token has ended, and
    /// disconnected.
    async fn end_expired(&self, socket: &SocketHandle) {
        let Self { session, clients, .. } = self;
        if let Caller::Guest(guest) = session.caller() {
            // This also reaches a guest that is about to enter and is not in any room yet.
            clients.rooms.recheck(guest.location);
            return;
        }
        info!(socket = socket.log_name(), user = %session.log_user(), "the token of a socket has expired");
        for room in clients.rooms.leave_all(socket.id(), session, Leaving::Lost) {
            socket.outbox.drop_room_events(room);
        }
        clients.directory.remove(session.user(), socket);
        let error = Error::new(Code::TokenExpired, "the token has ended; connect with a fresh one");
        clients.refusals.count(error.code);
        socket.disconnect("exception", failure(&error)).await;
    }

    /// Ends a client whose socket is gone, for good if the client said so. It returns the rooms that it was in, and
    /// `None` when called again.
    pub fn end(&self, socket: &SocketRef, is_for_good: bool) -> Option<HashSet<LocationId>> {
        let _given_back = self.permit.lock().take()?;
        if let Some(expiry) = self.expiry.lock().take() {
            expiry.abort();
        }
        let how = if is_for_good { Leaving::ForGood } else { Leaving::Lost };
        let Subscriber { handle, session } = self.subscriber(socket.clone());
        let rooms = self.clients.rooms.leave_all(handle.id(), &session, how);
        self.clients.directory.remove(session.user(), &handle);
        Some(rooms)
    }
}
