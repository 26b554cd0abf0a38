//! Everything but positions on its way to one socket: at once while the socket keeps up, else it waits here, in
//! order.
//!
//! Positions never wait: a room sends the newest one as soon as the outbox takes it (`rooms/room`).

mod queue;

use std::{io::IoSlice, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use socketioxide::{SendError, SocketError, extract::SocketRef};
use tokio::time::{Instant, sleep};

pub use self::queue::{Ack, CHAT, Item, body};
use self::queue::{Event, Queue, Queued, TAIL, TooMuch, Topic};
use crate::{
    domain::{
        event::RemovalReason,
        id::{LocationId, UserId},
    },
    gateway::wire::{
        connection::{Connection, SendOutcome},
        end_reason::EndReason,
    },
};

/// What a packet has besides its body, about.
const ENVELOPE: usize = 16;
/// How long what a socket may no longer see may be on its way to it. Within a second nothing more may leave.
const WITHDRAWN: Duration = Duration::from_millis(800);
/// How often it is looked whether that was read.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The way to one socket. Kept by the socket, so it never holds that.
pub struct Outbox {
    connection: Arc<Connection>,
    /// Written by whoever has something for the socket; emptied when it reads again.
    state: Mutex<State>,
    blocked: Arc<Blocked>,
}

#[derive(Default)]
struct State {
    waiting: Queue,
    /// The outbox is among those of [`Blocked`].
    is_blocked: bool,
    /// Topics of which the socket may not have read everything yet, each once, with the connection's mark behind the last
    /// event. Whenever one is added those that were read go, so the connection's window bounds the list.
    unread: Vec<(Topic, u64)>,
}

/// Sockets for which something waits. Written when something begins to, emptied by [`flush`].
pub type Blocked = Mutex<Vec<(SocketRef, Arc<Outbox>)>>;

impl Outbox {
    /// Creates the outbox of a socket that is connecting.
    pub fn new(connection: Arc<Connection>, blocked: Arc<Blocked>) -> Self {
        Self { connection, state: Mutex::default(), blocked }
    }

    /// Where positions go at once, while nothing waits here.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Sends bodies of `chat` through the library, all or none. It returns a mark behind them.
    pub fn send_positions<'a>(
        &self,
        socket: &SocketRef,
        bodies: impl Iterator<Item = &'a RawValue> + Clone,
    ) -> Option<u64> {
        let bytes = |body: &RawValue| body.get().len() + ENVELOPE;
        if !self.connection.reserve_for_library(bodies.clone().map(bytes).sum()) {
            return None;
        }
        let mut mark = 0;
        for body in bodies {
            mark = self.connection.record_given(bytes(body));
            if self.emit(socket, CHAT, body).is_err() {
                // Far more than the window: some may have been taken, so none can be sent again.
                self.abort(EndReason::TooMuchWaits);
            }
        }
        Some(mark)
    }

    /// Has the socket read so much that it may be sent what it has missed?
    pub fn has_room(&self) -> bool {
        self.connection.has_room()
    }

    /// Sends an event, now or in its turn.
    pub fn send_event(self: &Arc<Self>, socket: &SocketRef, name: &'static str, body: Arc<RawValue>) {
        self.send(socket, Queued::Event(Event { name, body }));
    }

    /// Sends an event of a room, now or in its turn, as long as the socket is in the room. `of`: who speaks, or who
    /// has come or gone.
    pub fn send_room_event(
        self: &Arc<Self>,
        socket: &SocketRef,
        room: LocationId,
        of: Option<UserId>,
        name: &'static str,
        body: Arc<RawValue>,
    ) {
        self.send(socket, Queued::InRoom(room, of, Event { name, body }));
    }

    /// Sends an event of a list, now or in its turn, as long as that may be seen.
    pub fn send_list_event(
        self: &Arc<Self>,
        socket: &SocketRef,
        item: Item,
        name: &'static str,
        body: Arc<RawValue>,
    ) {
        self.send(socket, Queued::OfList(item, Event { name, body }));
    }

    /// Tells that a location is no longer in the list, and drops what else waits of the list about it. Returns a mark
    /// behind what was sent of it that may no longer be seen, for [`Outbox::withdraw`], unless it was read.
    pub fn send_removal(
        self: &Arc<Self>,
        socket: &SocketRef,
        location: LocationId,
        name: &'static str,
        body: Arc<RawValue>,
        ending: RemovalReason,
    ) -> Option<u64> {
        self.send_list_event(socket, Item::Deleted(location), name, body);
        self.unread_of(|topic| match topic {
            Topic::Room(id) => id == location && ending != RemovalReason::Deleted,
            Topic::Listed(id) => id == location && ending == RemovalReason::Withdrawn,
            Topic::Users => false,
        })
    }

    /// Drops what waits of all lists, which may no longer be seen; what is of rooms, see [`Outbox::drop_room_events`]. Returns a
    /// mark behind what was sent of them, for [`Outbox::withdraw`], unless it was read.
    #[must_use]
    pub fn drop_list_events(&self) -> Option<u64> {
        self.drop_waiting(|waiting| waiting.is_of_list() && waiting.topic().is_some());
        self.unread_of(|_| true)
    }

    /// Drops what waits of a room that the socket may no longer see. A mark behind what was sent of it besides
    /// positions, unless it was read.
    pub fn drop_room_events(&self, room: LocationId) -> Option<u64> {
        self.drop_waiting(|waiting| matches!(waiting, Queued::InRoom(of, ..) if *of == room));
        self.unread_of(|topic| topic == Topic::Room(room))
    }

    fn drop_waiting(&self, is_dropped: impl Fn(&Queued) -> bool) {
        let State { waiting, .. } = &mut *self.state.lock();
        let before = waiting.bytes();
        waiting.retain(|waiting| !is_dropped(waiting));
        self.connection.release(before - waiting.bytes());
        self.connection.set_has_queued(!waiting.is_empty());
    }

    /// A mark behind what was last sent of some topics, unless it was read.
    fn unread_of(&self, is_of: impl Fn(Topic) -> bool) -> Option<u64> {
        let state = self.state.lock();
        let mark = state.unread.iter().filter(|(topic, _)| is_of(*topic)).map(|(_, mark)| *mark).max()?;
        (!self.connection.has_read_to(mark)).then_some(mark)
    }

    /// Notes that positions of a location were sent up to this mark, to a socket that is no longer in its room.
    pub fn record_unread(&self, location: LocationId, mark: u64) {
        if !self.connection.has_read_to(mark) {
            self.note(&mut self.state.lock().unread, Topic::Room(location), mark);
        }
    }

    fn note(&self, unread: &mut Vec<(Topic, u64)>, topic: Topic, mark: u64) {
        let before = unread.iter().find(|(of, _)| *of == topic).map_or(0, |(_, mark)| *mark);
        unread.retain(|(of, mark)| *of != topic && !self.connection.has_read_to(*mark));
        unread.push((topic, mark.max(before)));
    }

    /// A mark behind all that was sent, for [`Outbox::withdraw`].
    pub fn mark(&self) -> u64 {
        self.connection.request_confirmation()
    }

    /// Ends connections that have not read within [`WITHDRAWN`] what they were sent before a mark: it may still
    /// be in this process, and nobody can take it back.
    pub fn withdraw(marked: Vec<(Arc<Self>, u64)>) {
        if marked.is_empty() {
            return;
        }
        // Asked for now, or a socket that reads would have no occasion to say so in time.
        marked.iter().for_each(|(outbox, _)| _ = outbox.connection.request_confirmation());
        tokio::spawn(async move {
            sleep(WITHDRAWN).await;
            for (outbox, mark) in marked {
                if !outbox.connection.has_read_to(mark) {
                    outbox.abort(EndReason::Withdrawn);
                }
            }
        });
    }

    /// Sends an ack, now or in its turn.
    pub fn ack(self: &Arc<Self>, socket: &SocketRef, ack: Ack, body: Arc<RawValue>) {
        self.send(socket, Queued::Ack(ack, body));
    }

    fn send(self: &Arc<Self>, socket: &SocketRef, next: Queued) {
        let State { waiting, is_blocked, unread } = &mut *self.state.lock();
        let next = match waiting.is_empty() {
            true => match self.hand_out(socket, next, unread) {
                Ok(()) => return,
                Err(next) => next,
            },
            false => next,
        };
        if self.add(waiting, next).is_err() {
            self.clear(waiting);
            self.abort(EndReason::TooMuchWaits);
            return;
        }
        self.connection.set_has_queued(!waiting.is_empty());
        if !waiting.is_empty() && !std::mem::replace(is_blocked, true) {
            self.blocked.lock().push((socket.clone(), self.clone()));
        }
    }

    /// Adds what has to wait, and holds it against the budget of whoever has the socket. An event of a list for which
    /// there is no room is dropped.
    ///
    /// # Errors
    /// [`TooMuch`].
    fn add(&self, waiting: &mut Queue, next: Queued) -> Result<(), TooMuch> {
        let (before, is_of_list) = (waiting.bytes(), next.is_of_list());
        waiting.push(next)?;
        let is_held = self.hold_instead(before, waiting.bytes());
        if !is_held {
            waiting.drop_last();
            self.connection.release(before - waiting.bytes());
        }
        match waiting.take_dropped() {
            0 => {}
            dropped => self.connection.record_dropped_list_events(dropped),
        }
        if is_held || is_of_list { Ok(()) } else { Err(TooMuch) }
    }

    /// Holds so many bytes instead of those before. `false`: there is no room for them, and nothing has changed.
    fn hold_instead(&self, before: usize, now: usize) -> bool {
        self.connection.release(before.saturating_sub(now));
        self.connection.reserve(now.saturating_sub(before))
    }

    /// Sends what waits, as far as the socket takes it; `true` if nothing is left.
    pub fn flush(&self, socket: &SocketRef) -> bool {
        let State { waiting, is_blocked, unread } = &mut *self.state.lock();
        if !socket.connected() || self.connection.is_aborted() {
            self.clear(waiting);
        }
        let mut before = waiting.bytes();
        while let Some((number, next)) = waiting.pop() {
            if let Err(next) = self.hand_out(socket, next, unread) {
                waiting.put_back(number, next);
                break;
            }
            self.connection.release(before - waiting.bytes());
            before = waiting.bytes();
        }
        *is_blocked = !waiting.is_empty();
        self.connection.set_has_queued(*is_blocked);
        !*is_blocked
    }

    fn clear(&self, waiting: &mut Queue) {
        self.connection.release(waiting.bytes());
        waiting.clear();
        self.connection.set_has_queued(false);
    }

    /// Sends what is next, and notes a mark behind what it tells of a location.
    ///
    /// # Errors
    /// What was to be sent: the socket takes nothing for now.
    fn hand_out(
        &self,
        socket: &SocketRef,
        next: Queued,
        unread: &mut Vec<(Topic, u64)>,
    ) -> Result<(), Queued> {
        let (topic, body, head) = (next.topic(), next.body(), next.head());
        let parts = [&head, body.get().as_bytes(), TAIL].map(IoSlice::new);
        let rest = |part: usize, from: usize| match part {
            0 => Bytes::copy_from_slice(&head[from..]),
            1 => Bytes::from_owner(Shared(body.clone())).slice(from..),
            _ => Bytes::from_static(TAIL),
        };
        let mark = match self.connection.send_queued(&parts, rest, std::time::Instant::now()) {
            SendOutcome::Sent(mark) => mark,
            SendOutcome::Closed => return Err(next),
            SendOutcome::ByLibrary => self.give(socket, next)?,
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
    fn give(&self, socket: &SocketRef, next: Queued) -> Result<u64, Queued> {
        let bytes = next.body().get().len() + ENVELOPE;
        if !self.connection.reserve_for_library(bytes) {
            return Err(next);
        }
        // Before it goes: it may be fetched, and the next poll be there, before this returns.
        let mark = self.connection.record_given(bytes);
        match next {
            Queued::Event(event) | Queued::InRoom(_, _, event) | Queued::OfList(_, event) => {
                let _ = self.emit(socket, event.name, &event.body);
            }
            Queued::Ack(ack, body) => {
                if ack.sender.send(&body).is_err() {
                    // Gone, or so far behind that it is about to be cut.
                    self.connection.record_not_taken();
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
            self.connection.record_not_taken();
        }
        match sent {
            Err(SendError::Socket(SocketError::InternalChannelFull)) => Err(()),
            _ => Ok(()),
        }
    }

    /// Sends a last event and disconnects the socket, once it has read what it was sent before. One that has not
    /// within [`WITHDRAWN`] is cut, for the same reason as in [`Outbox::withdraw`]: the library's disconnect
    /// would hand all of it out first.
    pub async fn disconnect(self: &Arc<Self>, socket: &SocketRef, event: &'static str, body: Arc<RawValue>) {
        let mark = self.mark();
        self.send_event(socket, event, body);
        let deadline = Instant::now() + WITHDRAWN;
        while !self.connection.has_read_to(mark) && Instant::now() < deadline {
            sleep(LOOK_AGAIN).await;
        }
        if self.connection.has_read_to(mark)
            && self.state.lock().waiting.is_empty()
            && self.connection.is_open()
        {
            let _ = socket.clone().disconnect();
        } else {
            self.abort(EndReason::TokenEnded);
        }
    }

    /// Ends the connection, of which too much is unread; the client connects again.
    pub fn abort(&self, why: EndReason) {
        self.connection.abort_unread(why);
    }
}

/// The bytes of a body, which a frame that the kernel did not take goes on sharing.
struct Shared(Arc<RawValue>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.get().as_bytes()
    }
}

/// Sends what waits for sockets that have read again.
pub fn flush(blocked: &Blocked) {
    let sockets = std::mem::take(&mut *blocked.lock());
    let mut still = sockets.into_iter().filter(|(socket, outbox)| !outbox.flush(socket)).collect();
    blocked.lock().append(&mut still);
}
