//! Everything but positions on its way to one socket: at once while the socket keeps up, else it waits here, in
//! order.
//!
//! Positions never wait: a room sends the newest one as soon as the outlet takes it (`room.rs`).

use std::{
    collections::VecDeque,
    io::{IoSlice, Write as _},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use socketioxide::{
    SendError, SocketError,
    extract::{AckSender, SocketRef},
};
use tokio::time::{Instant, sleep};

use super::{
    frames,
    link::{Link, Sent, Why},
    room::Update,
};
use crate::domain::id::{LocationId, UserId};

/// Events and acks that may wait; one more ends the connection.
const CAPACITY: usize = 256;
/// Bytes of their bodies, where there are several. Those of rooms do not count: each is small, and one for all members.
const CAPACITY_BYTES: usize = 1024 * 1024;
/// Chats that may wait: of all senders, and of one. Older ones give way, so that chats alone end no connection.
const CHATS: usize = 128;
const CHATS_OF_ONE: usize = 32;
/// What a packet has besides its body, about.
const ENVELOPE: usize = 16;
/// How long what a socket may no longer see may be on its way to it. Within a second nothing more may leave.
const WITHDRAWN: Duration = Duration::from_millis(800);
/// How often it is looked whether that was read.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The way to one socket. Kept by the socket, so it never holds that.
pub struct Outlet {
    link: Arc<Link>,
    /// Written by whoever has something for the socket; emptied when it reads again.
    state: Mutex<State>,
    blocked: Arc<Blocked>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Which locations the socket was sent something of that it may not have read, each once, with a mark behind it
    /// for the link; `None` is the list of all users. Cleared of what was read whenever one is added, so the window of
    /// the link bounds it.
    unread: Vec<(Topic, u64)>,
}

/// What somebody may lose the right to see.
type Topic = Option<LocationId>;

/// An event or an ack.
enum Waiting {
    Event(Event),
    /// Nothing to be sent once the socket is out of the room. Of whom it is.
    InRoom(LocationId, Option<UserId>, Event),
    /// Nothing to be sent once whose socket it is may not see that.
    OfList(Item, Event),
    Ack(Ack, Arc<RawValue>),
}

/// An event and its body, which many may share.
struct Event {
    name: &'static str,
    body: Arc<RawValue>,
}

/// Where an ack goes.
pub struct Ack {
    /// Its number in the packet.
    pub id: i64,
    /// The library's way.
    pub sender: AckSender,
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

/// The event of a relayed message, of which only the newest few of each sender wait.
pub const CHAT: &str = "chat";

impl Waiting {
    /// Does it make what waits unnecessary?
    fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::OfList(Item::Location(_), ..), _) => false,
            (Self::OfList(item, ..), Self::OfList(before, ..)) => item == before,
            // Whether somebody is there, or how many are: nobody needs to know what was before.
            (Self::InRoom(room, person, event), Self::InRoom(of, whose, before)) => {
                event.name != CHAT && event.name == before.name && room == of && person == whose
            }
            _ => false,
        }
    }

    /// The sender of a chat.
    fn is_chat_of(&self) -> Option<Option<UserId>> {
        match self {
            Self::InRoom(_, sender, event) if event.name == CHAT => Some(*sender),
            _ => None,
        }
    }

    /// What it tells something of that the right to see may end.
    fn topic(&self) -> Option<Topic> {
        match self {
            Self::InRoom(id, ..) | Self::OfList(Item::Location(id) | Item::Update(id), _) => Some(Some(*id)),
            Self::OfList(Item::Users, _) => Some(None),
            Self::Event(_) | Self::Ack(..) => None,
        }
    }

    fn body(&self) -> &Arc<RawValue> {
        match self {
            Self::Event(event) | Self::InRoom(_, _, event) | Self::OfList(_, event) => &event.body,
            Self::Ack(_, body) => body,
        }
    }

    /// What it adds to [`CAPACITY_BYTES`].
    fn bytes(&self) -> usize {
        match self {
            Self::InRoom(..) => 0,
            _ => self.body().get().len(),
        }
    }

    /// The beginning of its frame, up to the body.
    fn head(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(48);
        let written = match self {
            Self::Event(Event { name, .. })
            | Self::InRoom(_, _, Event { name, .. })
            | Self::OfList(_, Event { name, .. }) => write!(packet, "42[\"{name}\","),
            Self::Ack(Ack { id, .. }, _) => write!(packet, "43{id}["),
        };
        written.expect("a Vec takes everything");
        let mut frame = frames::header(packet.len() + self.body().get().len() + TAIL.len());
        frame.append(&mut packet);
        frame
    }
}

/// The end of a packet, after its body.
const TAIL: &[u8] = b"]";

/// Sockets for which something waits. Written when something begins to, emptied by [`flush`].
pub type Blocked = Mutex<Vec<(SocketRef, Arc<Outlet>)>>;

impl Outlet {
    /// Creates the outlet of a socket that is connecting.
    pub fn new(link: Arc<Link>, blocked: Arc<Blocked>) -> Self {
        Self { link, state: Mutex::default(), blocked }
    }

    /// Where positions go at once, while nothing waits here.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Sends positions by the library, as the link has said; all or none. Returns a mark behind them.
    pub fn send_positions(&self, socket: &SocketRef, updates: &[Update]) -> Option<u64> {
        let bytes = |update: &Update| update.chat().get().len() + ENVELOPE;
        if !self.link.may_give(updates.iter().map(bytes).sum()) {
            return None;
        }
        let mut mark = 0;
        for update in updates {
            mark = self.link.give(bytes(update));
            if self.emit(socket, CHAT, update.chat()).is_err() {
                // Far more than the window: some may have been taken, so none can be sent again.
                self.cut(Why::TooMuchWaits);
            }
        }
        Some(mark)
    }

    /// Has the socket read so much that it may be sent what it has missed?
    pub fn has_room(&self) -> bool {
        !self.link.is_owed() && self.link.has_room()
    }

    /// Sends an event, now or in its turn.
    pub fn event(self: &Arc<Self>, socket: &SocketRef, name: &'static str, body: Arc<RawValue>) {
        self.send(socket, Waiting::Event(Event { name, body }));
    }

    /// Sends an event of a room, now or in its turn, as long as the socket is in the room. `of`: who speaks, or who
    /// has come or gone.
    pub fn event_in(
        self: &Arc<Self>,
        socket: &SocketRef,
        room: LocationId,
        of: Option<UserId>,
        name: &'static str,
        body: Arc<RawValue>,
    ) {
        self.send(socket, Waiting::InRoom(room, of, Event { name, body }));
    }

    /// Sends an event of a list, now or in its turn, as long as that may be seen.
    pub fn event_of(
        self: &Arc<Self>,
        socket: &SocketRef,
        item: Item,
        name: &'static str,
        body: Arc<RawValue>,
    ) {
        self.send(socket, Waiting::OfList(item, Event { name, body }));
    }

    /// Drops what waits about a location that may no longer be seen, or of all lists; what is of rooms, see
    /// [`Outlet::forget`]. A mark behind what was sent of it, for [`Outlet::withdraw`], unless it was read.
    #[must_use]
    pub fn withhold(&self, location: Option<LocationId>) -> Option<u64> {
        let is_of = |waiting: &Waiting| match (location, waiting) {
            (_, Waiting::OfList(Item::Location(of) | Item::Update(of), _)) => {
                location.is_none_or(|location| *of == location)
            }
            (None, Waiting::OfList(Item::Users, _)) => true,
            _ => false,
        };
        self.drop_waiting(is_of);
        self.unread_of(|topic| location.is_none() || topic == location)
    }

    /// Drops what waits of a room that the socket may no longer see. A mark behind what was sent of it besides
    /// positions, unless it was read.
    pub fn forget(&self, room: LocationId) -> Option<u64> {
        self.drop_waiting(|waiting| matches!(waiting, Waiting::InRoom(of, ..) if *of == room));
        self.unread_of(|topic| topic == Some(room))
    }

    fn drop_waiting(&self, is_dropped: impl Fn(&Waiting) -> bool) {
        let State { waiting, .. } = &mut *self.state.lock();
        waiting.retain(|waiting| {
            let is_dropped = is_dropped(waiting);
            if is_dropped {
                self.link.release(waiting.bytes());
            }
            !is_dropped
        });
        self.link.owe(!waiting.is_empty());
    }

    /// A mark behind what was last sent of some topics, unless it was read.
    fn unread_of(&self, is_of: impl Fn(Topic) -> bool) -> Option<u64> {
        let state = self.state.lock();
        let mark = state.unread.iter().filter(|(topic, _)| is_of(*topic)).map(|(_, mark)| *mark).max()?;
        (!self.link.has_read_to(mark)).then_some(mark)
    }

    /// Notes that positions of a location were sent up to this mark, to a socket that is no longer in its room.
    pub fn note_unread(&self, location: LocationId, mark: u64) {
        if !self.link.has_read_to(mark) {
            self.note(&mut self.state.lock().unread, Some(location), mark);
        }
    }

    fn note(&self, unread: &mut Vec<(Topic, u64)>, topic: Topic, mark: u64) {
        let before = unread.iter().find(|(of, _)| *of == topic).map_or(0, |(_, mark)| *mark);
        unread.retain(|(of, mark)| *of != topic && !self.link.has_read_to(*mark));
        unread.push((topic, mark.max(before)));
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
        // Asked for now, or a socket that reads would have no occasion to say so in time.
        marked.iter().for_each(|(outlet, _)| _ = outlet.link.mark());
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
    pub fn ack(self: &Arc<Self>, socket: &SocketRef, ack: Ack, body: Arc<RawValue>) {
        self.send(socket, Waiting::Ack(ack, body));
    }

    fn send(self: &Arc<Self>, socket: &SocketRef, next: Waiting) {
        let State { waiting, unread } = &mut *self.state.lock();
        let is_first = waiting.is_empty();
        let next = match is_first {
            true => match self.hand_out(socket, next, unread) {
                Ok(()) => return,
                Err(next) => next,
            },
            false => next,
        };
        self.make_room(waiting, &next);
        let bytes = waiting.iter().chain([&next]).map(Waiting::bytes).sum::<usize>();
        let is_too_much = waiting.len() >= CAPACITY || !waiting.is_empty() && bytes > CAPACITY_BYTES;
        if is_too_much || !self.link.hold(next.bytes()) {
            self.clear(waiting);
            self.cut(Why::TooMuchWaits);
            return;
        }
        waiting.push_back(next);
        self.link.owe(true);
        if is_first {
            self.blocked.lock().push((socket.clone(), self.clone()));
        }
    }

    /// Drops what the next makes unnecessary, and of chats the oldest.
    fn make_room(&self, waiting: &mut VecDeque<Waiting>, next: &Waiting) {
        waiting.retain(|earlier| {
            let is_replaced = next.replaces(earlier);
            if is_replaced {
                self.link.release(earlier.bytes());
            }
            !is_replaced
        });
        let Some(sender) = next.is_chat_of() else { return };
        let chats = |of: Option<Option<UserId>>| {
            let chats =
                waiting.iter().enumerate().filter_map(|(at, waiting)| Some((at, waiting.is_chat_of()?)));
            Vec::from_iter(chats.filter(|(_, by)| of.is_none_or(|of| of == *by)).map(|(at, _)| at))
        };
        let (theirs, all) = (chats(Some(sender)), chats(None));
        let oldest = match theirs.len() >= CHATS_OF_ONE {
            true => theirs.first(),
            false => all.first().filter(|_| all.len() >= CHATS),
        };
        if let Some(oldest) = oldest {
            waiting.remove(*oldest);
        }
    }

    /// Sends what waits, as far as the socket takes it; `true` if nothing is left.
    pub fn flush(&self, socket: &SocketRef) -> bool {
        let State { waiting, unread } = &mut *self.state.lock();
        if !socket.connected() || self.link.is_cut() {
            self.clear(waiting);
        }
        while let Some(next) = waiting.pop_front() {
            let bytes = next.bytes();
            if let Err(next) = self.hand_out(socket, next, unread) {
                waiting.push_front(next);
                break;
            }
            self.link.release(bytes);
        }
        self.link.owe(!waiting.is_empty());
        waiting.is_empty()
    }

    fn clear(&self, waiting: &mut VecDeque<Waiting>) {
        self.link.release(waiting.drain(..).map(|waiting| waiting.bytes()).sum());
        self.link.owe(false);
    }

    /// Sends what is next, and notes a mark behind what it tells of a location.
    ///
    /// # Errors
    /// What was to be sent: the socket takes nothing for now.
    fn hand_out(
        &self,
        socket: &SocketRef,
        next: Waiting,
        unread: &mut Vec<(Topic, u64)>,
    ) -> Result<(), Waiting> {
        let (topic, body, head) = (next.topic(), next.body(), next.head());
        let parts = [&head, body.get().as_bytes(), TAIL].map(IoSlice::new);
        let rest = |part: usize, from: usize| match part {
            0 => Bytes::copy_from_slice(&head[from..]),
            1 => Bytes::from_owner(Shared(body.clone())).slice(from..),
            _ => Bytes::from_static(TAIL),
        };
        let mark = match self.link.send_next(&parts, rest, std::time::Instant::now()) {
            Sent::Yes(mark) => mark,
            Sent::Closed => return Err(next),
            Sent::Library => self.give(socket, next)?,
        };
        if let Some(topic) = topic {
            self.note(unread, topic, mark);
        }
        Ok(())
    }

    /// Sends by the library.
    ///
    /// # Errors
    /// What was to be sent: there is no room for it.
    fn give(&self, socket: &SocketRef, next: Waiting) -> Result<u64, Waiting> {
        let bytes = next.body().get().len() + ENVELOPE;
        if !self.link.may_give(bytes) {
            return Err(next);
        }
        // Before it goes: it may be fetched, and the next poll be there, before this returns.
        let mark = self.link.give(bytes);
        match next {
            Waiting::Event(event) | Waiting::InRoom(_, _, event) | Waiting::OfList(_, event) => {
                let _ = self.emit(socket, event.name, &event.body);
            }
            Waiting::Ack(ack, body) => {
                if ack.sender.send(&body).is_err() {
                    // Gone, or so far behind that it is about to be cut.
                    self.link.take_back();
                }
            }
        }
        Ok(mark)
    }

    /// # Errors
    /// The library's queue is full.
    fn emit(&self, socket: &SocketRef, name: &'static str, body: &RawValue) -> Result<(), ()> {
        let sent = socket.emit(name, body);
        if sent.is_err() {
            self.link.take_back();
        }
        match sent {
            Err(SendError::Socket(SocketError::InternalChannelFull)) => Err(()),
            _ => Ok(()),
        }
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
        if self.link.has_read_to(mark) && self.state.lock().waiting.is_empty() && self.link.is_open() {
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

/// The bytes of a body, which a frame that the kernel did not take goes on sharing.
struct Shared(Arc<RawValue>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.get().as_bytes()
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
