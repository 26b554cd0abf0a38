//! What goes to one socket: at once while it keeps up, else what must not be lost waits here, in order.
//!
//! Positions never wait: a room sends the newest one as soon as the outlet takes it (`room.rs`).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use socketioxide::{
    SendError, SocketError,
    extract::{AckSender, SocketRef},
};
use tokio::time::{Instant, sleep};

use super::{
    link::{Link, Why},
    room::Update,
};
use crate::domain::id::{LocationId, UserId};

/// Events and acks that may wait; one more ends the connection.
const CAPACITY: usize = 256;
/// Bytes of their bodies, where there are several. Those of rooms do not count: each is small, and one for all members.
const CAPACITY_BYTES: usize = 1024 * 1024;
/// What a packet has besides its body, about.
const ENVELOPE: usize = 16;
/// How long what a socket may no longer see may be on its way to it. Within a second nothing more may leave.
const WITHDRAWN: Duration = Duration::from_millis(800);
/// While that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The way to one socket. Kept by the socket, so it never holds that.
pub struct Outlet {
    link: Arc<Link>,
    /// Written by whoever has something for the socket; emptied when it reads again.
    waiting: Mutex<VecDeque<Waiting>>,
    /// A mark behind what it was last sent of a list. Written with the lock of what waits.
    listed: AtomicU64,
    blocked: Arc<Blocked>,
}

enum Waiting {
    Event(&'static str, Arc<RawValue>),
    /// Nothing to be sent once the socket is out of the room.
    InRoom(LocationId, &'static str, Arc<RawValue>),
    /// Nothing to be sent once whose socket it is may not see that.
    OfList(Item, &'static str, Arc<RawValue>),
    Ack(AckSender, Arc<RawValue>),
}

/// What of a list is told. Who may see it may lose that right.
#[derive(Clone, Copy, PartialEq)]
pub enum Item {
    /// A location has come into the list.
    Location(LocationId),
    /// It is in the list, and now is this; nobody needs to know what it was before.
    Update(LocationId),
    /// All who are connected; nobody needs an older list.
    Users,
}

impl Waiting {
    /// Does it make what waits unnecessary?
    fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::OfList(Item::Location(_), ..), _) => false,
            (Self::OfList(item, ..), Self::OfList(before, ..)) => item == before,
            _ => false,
        }
    }

    /// What it adds to [`CAPACITY_BYTES`].
    fn bytes(&self) -> usize {
        match self {
            Self::InRoom(..) => 0,
            Self::Event(_, body) | Self::OfList(_, _, body) | Self::Ack(_, body) => body.get().len(),
        }
    }
}

/// Sockets for which something waits. Written when something begins to, emptied by [`flush`].
pub type Blocked = Mutex<Vec<(SocketRef, Arc<Outlet>)>>;

impl Outlet {
    /// Of a socket that is connecting.
    pub fn new(link: Arc<Link>, blocked: Arc<Blocked>) -> Self {
        Self { link, waiting: Mutex::default(), listed: AtomicU64::default(), blocked }
    }

    /// Where positions go at once, while nothing waits here.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Sends positions by the library, of which the link has said so.
    pub fn positions(&self, socket: &SocketRef, updates: &[Update]) {
        if !updates.iter().all(|update| self.emit(socket, "chat", update.chat())) {
            // Far more than the window: some may have been taken, so none can be sent again.
            self.cut(Why::TooMuchWaits);
        }
    }

    /// Has the socket read so much that it may be sent what it has missed?
    pub fn has_room(&self) -> bool {
        !self.link.is_owed() && self.link.has_room()
    }

    /// Sends an event, now or in its turn.
    pub fn event(self: &Arc<Self>, socket: &SocketRef, event: &'static str, body: Arc<RawValue>) {
        self.send(socket, Waiting::Event(event, body));
    }

    /// Sends an event of a room, now or in its turn, as long as the socket is in the room. `_sender`: the user who
    /// speaks, or has come or gone.
    pub fn event_in(
        self: &Arc<Self>,
        socket: &SocketRef,
        room: LocationId,
        _sender: Option<UserId>,
        event: &'static str,
        body: Arc<RawValue>,
    ) {
        self.send(socket, Waiting::InRoom(room, event, body));
    }

    /// Sends an event of a list, now or in its turn, as long as that may be seen.
    pub fn event_of(
        self: &Arc<Self>,
        socket: &SocketRef,
        item: Item,
        event: &'static str,
        body: Arc<RawValue>,
    ) {
        self.send(socket, Waiting::OfList(item, event, body));
    }

    /// Drops what waits about a location that may no longer be seen, or of all lists; what is of rooms, see
    /// [`Outlet::forget`]. A mark behind what was sent of lists, for [`Outlet::withdraw`], unless it was read.
    #[must_use]
    pub fn withhold(&self, location: Option<LocationId>) -> Option<u64> {
        let is_of = |item: Item| match (location, item) {
            (None, _) => true,
            (Some(location), Item::Location(of) | Item::Update(of)) => of == location,
            (Some(_), Item::Users) => false,
        };
        let mut waiting = self.waiting.lock();
        waiting.retain(|waiting| !matches!(waiting, Waiting::OfList(item, ..) if is_of(*item)));
        self.link.owe(!waiting.is_empty());
        let mark = self.listed.load(Ordering::Relaxed);
        let is_unread = !self.link.has_read_to(mark);
        is_unread.then(|| {
            self.link.mark();
            mark
        })
    }

    /// Drops what waits of a room that the socket may no longer see.
    pub fn forget(&self, room: LocationId) {
        let mut waiting = self.waiting.lock();
        waiting.retain(|waiting| !matches!(waiting, Waiting::InRoom(of, ..) if *of == room));
        self.link.owe(!waiting.is_empty());
    }

    /// A mark behind all that was sent, for [`Outlet::withdraw`].
    pub fn mark(&self) -> u64 {
        self.link.mark()
    }

    /// Ends connections that have not read within [`WITHDRAWN`] what they were sent before a mark: it may still
    /// be in this process, and nobody can take it back.
    pub fn withdraw(marked: Vec<(Arc<Self>, u64)>) {
        if marked.is_empty() {
            return;
        }
        tokio::spawn(async move {
            sleep(WITHDRAWN).await;
            for (outlet, mark) in marked {
                if !outlet.link.has_read_to(mark) {
                    outlet.cut(Why::Withdrawn);
                }
            }
        });
    }

    /// Sends an ack, now or in its turn.
    pub fn ack(self: &Arc<Self>, socket: &SocketRef, ack: AckSender, body: Arc<RawValue>) {
        self.send(socket, Waiting::Ack(ack, body));
    }

    fn send(self: &Arc<Self>, socket: &SocketRef, next: Waiting) {
        let mut waiting = self.waiting.lock();
        let is_first = waiting.is_empty();
        waiting.retain(|earlier| !next.replaces(earlier));
        let bytes = waiting.iter().chain([&next]).map(Waiting::bytes).sum::<usize>();
        if waiting.len() >= CAPACITY || !waiting.is_empty() && bytes > CAPACITY_BYTES {
            waiting.clear();
            self.cut(Why::TooMuchWaits);
            self.link.owe(false);
            return;
        }
        waiting.push_back(next);
        if is_first && !self.send_waiting(socket, &mut waiting) {
            self.blocked.lock().push((socket.clone(), self.clone()));
        }
    }

    /// Sends what waits, as far as the socket takes it; `true` if nothing is left.
    pub fn flush(&self, socket: &SocketRef) -> bool {
        self.send_waiting(socket, &mut self.waiting.lock())
    }

    fn send_waiting(&self, socket: &SocketRef, waiting: &mut VecDeque<Waiting>) -> bool {
        if !socket.connected() || self.link.is_cut() {
            waiting.clear();
        }
        while self.link.is_open()
            && let Some(next) = waiting.pop_front()
        {
            match next {
                Waiting::Event(event, body) | Waiting::InRoom(_, event, body) => {
                    self.emit(socket, event, &body);
                }
                Waiting::OfList(_, event, body) => {
                    self.emit(socket, event, &body);
                    self.listed.store(self.link.sent(), Ordering::Relaxed);
                }
                Waiting::Ack(ack, body) => {
                    self.link.give(body.get().len() + ENVELOPE);
                    if ack.send(&body).is_err() {
                        // Gone, or so far behind that it is about to be cut.
                        self.link.take_back();
                    }
                }
            }
        }
        self.link.owe(!waiting.is_empty());
        waiting.is_empty()
    }

    /// `false`: the library's queue is full.
    fn emit(&self, socket: &SocketRef, event: &'static str, body: &RawValue) -> bool {
        // Before it goes: it may be fetched, and the next poll be there, before this returns.
        self.link.give(body.get().len() + ENVELOPE);
        let sent = socket.emit(event, body);
        if sent.is_err() {
            self.link.take_back();
        }
        !matches!(sent, Err(SendError::Socket(SocketError::InternalChannelFull)))
    }

    /// Sends a last event and disconnects the socket, once it has read what it was sent before. One that has not
    /// within [`WITHDRAWN`] is cut, for the same reason as in [`Outlet::withdraw`]: the library's disconnect
    /// would hand all of it out first.
    pub async fn end(self: &Arc<Self>, socket: &SocketRef, event: &'static str, body: Arc<RawValue>) {
        let mark = self.mark();
        self.event(socket, event, body);
        let deadline = Instant::now() + WITHDRAWN;
        while !self.link.has_read_to(mark) && Instant::now() < deadline {
            sleep(LOOK_AGAIN).await;
        }
        if self.link.has_read_to(mark) && self.waiting.lock().is_empty() && self.link.is_open() {
            let _ = socket.clone().disconnect();
        } else {
            self.cut(Why::TokenEnded);
        }
    }

    /// Ends the connection, of which too much is unread; the client connects again.
    pub fn cut(&self, why: Why) {
        self.link.give_up(why);
    }
}

/// A body as JSON text, which many may share.
pub fn body<T: Serialize + ?Sized>(value: &T) -> Arc<RawValue> {
    to_raw_value(value).expect("bodies are of strings, numbers and JSON text").into()
}

/// Sends what waits for sockets that have read again.
pub fn flush(blocked: &Blocked) {
    let sockets = std::mem::take(&mut *blocked.lock());
    let mut still = sockets.into_iter().filter(|(socket, outlet)| !outlet.flush(socket)).collect();
    blocked.lock().append(&mut still);
}
