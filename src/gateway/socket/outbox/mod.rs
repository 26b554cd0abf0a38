//! The events and acks on their way to one socket: sent at once while its client keeps up, queued in order otherwise.
//!
//! Positions are never queued: a room sends the newest one as soon as the connection takes it (`rooms/room`). Bytes and
//! confirmations belong to [`Connection`].

mod queue;
mod queued;

use std::{io::IoSlice, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use socketioxide::{SendError, SocketError, extract::SocketRef, socket::Sid};
use tokio::time::{Instant, sleep};

pub use self::queued::{Ack, CHAT, Item, Kind, body};
use self::{
    queue::{Queue, TooMuchWaits},
    queued::{PACKET_END, Queued, Topic, UnreadTopics},
};
use super::session::{Session, log_name};
use crate::{
    domain::{event::RemovalReason, id::LocationId},
    gateway::wire::{
        connection::{Connection, SendOutcome},
        end_reason::EndReason,
    },
};

const ENVELOPE_BYTES: usize = 16;
/// Time for a client to confirm data that it may no longer see. Within a second nothing more of it may leave.
const WITHDRAWAL_TIMEOUT: Duration = Duration::from_millis(800);
const READ_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Queues and records the events and acks of one socket. The socket owns it, so it never holds the socket.
pub struct Outbox {
    pub connection: Arc<Connection>,
    /// Every sender writes it; the event loop empties the queue when the client reads again.
    state: Mutex<State>,
    blocked: Arc<Blocked>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// The socket is among those of [`Blocked`].
    is_blocked: bool,
    unread: UnreadTopics,
}

/// Sends events and acks to one socket.
#[derive(Clone)]
pub struct SocketHandle {
    pub socket: SocketRef,
    pub outbox: Arc<Outbox>,
}

/// A socket with its session, as rooms and the directory know it.
#[derive(Clone)]
pub struct Subscriber {
    pub handle: SocketHandle,
    pub session: Arc<Session>,
}

/// The sockets whose queues are not empty. A sender adds a socket, and [`flush_blocked`] removes it.
pub type Blocked = Mutex<Vec<SocketHandle>>;

impl SocketHandle {
    pub fn id(&self) -> Sid {
        self.socket.id
    }

    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(&raw const *self.socket, &raw const *other.socket)
    }

    pub fn log_name(&self) -> &str {
        log_name(&self.socket)
    }

    /// Sends the removal of a location from the list, and drops the list event that waits about it. Returns a mark
    /// behind sent data that the socket may no longer see, for [`Outbox::withdraw`], unless it was read.
    pub fn send_removal(
        &self,
        location: LocationId,
        body: Arc<RawValue>,
        reason: RemovalReason,
    ) -> Option<u64> {
        self.send(Kind::ListEvent(Item::Deleted(location)), body);
        self.outbox.unread_mark(|topic| match topic {
            Topic::Room(id) => id == location && reason != RemovalReason::Deleted,
            Topic::Listed(id) => id == location && reason == RemovalReason::Withdrawn,
            Topic::Users => false,
        })
    }

    /// Sends bodies of `chat` through the library, all or none, after the connection has returned
    /// [`SendOutcome::ByLibrary`]. Returns a mark behind them.
    pub fn send_positions<'a>(&self, bodies: impl Iterator<Item = &'a RawValue> + Clone) -> Option<u64> {
        let bytes = |body: &RawValue| body.get().len() + ENVELOPE_BYTES;
        if !self.outbox.connection.reserve_for_library(bodies.clone().map(bytes).sum()) {
            return None;
        }
        let mut mark = 0;
        for body in bodies {
            mark = self.outbox.connection.record_given(bytes(body));
            if self.emit(CHAT, body).is_err() {
                // The library holds far more than the window. It may have taken some, so none can be sent again.
                self.outbox.abort(EndReason::TooMuchWaits);
            }
        }
        Some(mark)
    }

    /// Sends a last event and disconnects the socket, once its client has read what it was sent before. A client that
    /// has not within [`WITHDRAWAL_TIMEOUT`] is aborted, because the library would send everything that waits before it
    /// disconnects the socket.
    pub async fn disconnect(&self, event: &'static str, body: Arc<RawValue>) {
        let mark = self.outbox.connection.request_confirmation();
        self.send(Kind::Event(event), body);
        let deadline = Instant::now() + WITHDRAWAL_TIMEOUT;
        while !self.outbox.connection.has_read_to(mark) && Instant::now() < deadline {
            sleep(READ_CHECK_INTERVAL).await;
        }
        let has_read = self.outbox.connection.has_read_to(mark) && self.outbox.connection.is_open();
        if has_read && self.outbox.state.lock().queue.is_empty() {
            let _ = self.socket.clone().disconnect();
        } else {
            self.outbox.abort(EndReason::TokenEnded);
        }
    }

    /// Sends an event or an ack, now or in its turn.
    pub fn send(&self, kind: Kind, body: Arc<RawValue>) {
        let State { queue, is_blocked, unread } = &mut *self.outbox.state.lock();
        let mut next = Queued { kind, body };
        if queue.is_empty() {
            match self.try_send(next, unread) {
                Ok(()) => return,
                Err(unsent) => next = unsent,
            }
        }
        if self.outbox.enqueue(queue, next).is_err() {
            self.outbox.clear(queue);
            self.outbox.abort(EndReason::TooMuchWaits);
            return;
        }
        self.outbox.connection.set_has_queued(!queue.is_empty());
        if !queue.is_empty() && !std::mem::replace(is_blocked, true) {
            self.outbox.blocked.lock().push(self.clone());
        }
    }

    /// Sends what waits, as far as the connection takes it. Returns whether the queue is empty then.
    fn flush(&self) -> bool {
        let State { queue, is_blocked, unread } = &mut *self.outbox.state.lock();
        if !self.socket.connected() || self.outbox.connection.is_aborted() {
            self.outbox.clear(queue);
        }
        let mut before = queue.bytes();
        while let Some((number, next)) = queue.pop() {
            if let Err(next) = self.try_send(next, unread) {
                queue.put_back(number, next);
                break;
            }
            self.outbox.connection.release(before - queue.bytes());
            before = queue.bytes();
        }
        *is_blocked = !queue.is_empty();
        self.outbox.connection.set_has_queued(*is_blocked);
        !*is_blocked
    }

    /// Sends one event or ack, and records a mark behind what it tells of a topic.
    ///
    /// # Errors
    /// The event or ack, if the connection takes nothing for now.
    fn try_send(&self, next: Queued, unread: &mut UnreadTopics) -> Result<(), Queued> {
        let (topic, body, start) = (next.kind.topic(), &next.body, next.frame_start());
        let parts = [&start, body.get().as_bytes(), PACKET_END].map(IoSlice::new);
        let rest = |part: usize, from: usize| match part {
            0 => Bytes::copy_from_slice(&start[from..]),
            1 => Bytes::from_owner(SharedBody(body.clone())).slice(from..),
            _ => Bytes::from_static(PACKET_END),
        };
        let mark = match self.outbox.connection.send_queued(&parts, rest, std::time::Instant::now()) {
            SendOutcome::Sent(mark) => mark,
            SendOutcome::Closed => return Err(next),
            SendOutcome::ByLibrary => self.give_to_library(next)?,
        };
        if let Some(topic) = topic {
            unread.record(topic, mark, |mark| self.outbox.connection.has_read_to(mark));
        }
        Ok(())
    }

    /// Sends one event or ack through the library, and returns a mark behind it.
    ///
    /// # Errors
    /// The event or ack, if there is no room for it.
    fn give_to_library(&self, next: Queued) -> Result<u64, Queued> {
        let bytes = next.body.get().len() + ENVELOPE_BYTES;
        if !self.outbox.connection.reserve_for_library(bytes) {
            return Err(next);
        }
        // It is recorded first, because a poll may fetch it and the next poll come before the library returns.
        let mark = self.outbox.connection.record_given(bytes);
        if let Some(name) = next.kind.name() {
            let _ = self.emit(name, &next.body);
        } else if let Kind::Ack(ack) = next.kind
            && ack.sender.send(&next.body).is_err()
        {
            // The socket is gone, or so far behind that it is about to be aborted.
            self.outbox.connection.record_not_taken();
        }
        Ok(mark)
    }

    /// Gives an event to the library.
    ///
    /// # Errors
    /// The library's queue is full.
    fn emit(&self, name: &'static str, body: &RawValue) -> Result<(), ()> {
        let sent = self.socket.emit(name, body);
        if sent.is_err() {
            self.outbox.connection.record_not_taken();
        }
        match sent {
            Err(SendError::Socket(SocketError::InternalChannelFull)) => Err(()),
            _ => Ok(()),
        }
    }
}

impl Outbox {
    pub fn new(connection: Arc<Connection>, blocked: Arc<Blocked>) -> Self {
        Self { connection, state: Mutex::default(), blocked }
    }

    /// Ends the connection of a client that does not read; the client connects again.
    pub fn abort(&self, reason: EndReason) {
        self.connection.abort_unread(reason);
    }

    /// Drops the list events that wait, except removals. Returns a mark behind those that were sent, for
    /// [`Outbox::withdraw`], unless they were read.
    #[must_use]
    pub fn drop_list_events(&self) -> Option<u64> {
        self.drop_queued(|kind| kind.is_list_event() && kind.topic().is_some());
        self.unread_mark(|_| true)
    }

    /// Drops the events of a room that wait. Returns a mark behind those that were sent, without positions, for
    /// [`Outbox::withdraw`], unless they were read.
    pub fn drop_room_events(&self, room: LocationId) -> Option<u64> {
        self.drop_queued(|kind| matches!(kind, Kind::RoomEvent(id, ..) if *id == room));
        self.unread_mark(|topic| topic == Topic::Room(room))
    }

    fn drop_queued(&self, is_dropped: impl Fn(&Kind) -> bool) {
        let State { queue, .. } = &mut *self.state.lock();
        let before = queue.bytes();
        queue.retain(|kind| !is_dropped(kind));
        self.connection.release(before - queue.bytes());
        self.connection.set_has_queued(!queue.is_empty());
    }

    fn unread_mark(&self, is_wanted: impl Fn(Topic) -> bool) -> Option<u64> {
        let mark = self.state.lock().unread.last_mark(is_wanted)?;
        (!self.connection.has_read_to(mark)).then_some(mark)
    }

    /// Records that positions of a location were sent up to this mark, to a socket that has left its room.
    pub fn record_unread(&self, location: LocationId, mark: u64) {
        if !self.connection.has_read_to(mark) {
            let unread = &mut self.state.lock().unread;
            unread.record(Topic::Room(location), mark, |mark| self.connection.has_read_to(mark));
        }
    }

    /// Ends the connections of clients that do not confirm within [`WITHDRAWAL_TIMEOUT`] what they were sent before a
    /// mark: some of it may still be in this process, and it cannot be taken back.
    pub fn withdraw(marked: Vec<(Arc<Self>, u64)>) {
        if marked.is_empty() {
            return;
        }
        // They are asked now, because a client that reads would have no occasion to confirm in time.
        marked.iter().for_each(|(outbox, _)| _ = outbox.connection.request_confirmation());
        tokio::spawn(async move {
            sleep(WITHDRAWAL_TIMEOUT).await;
            for (outbox, mark) in marked {
                if !outbox.connection.has_read_to(mark) {
                    outbox.abort(EndReason::Withdrawn);
                }
            }
        });
    }

    /// Adds an event or an ack to the queue, and holds its bytes against the caller's budget. A list event without room
    /// there is dropped.
    fn enqueue(&self, queue: &mut Queue, next: Queued) -> Result<(), TooMuchWaits> {
        let (before, is_list_event) = (queue.bytes(), next.kind.is_list_event());
        let mut dropped = u64::from(queue.push(next)?);
        self.connection.release(before.saturating_sub(queue.bytes()));
        let is_reserved = self.connection.reserve(queue.bytes().saturating_sub(before));
        if !is_reserved {
            queue.drop_newest();
            self.connection.release(before - queue.bytes());
            dropped += u64::from(is_list_event);
        }
        if dropped > 0 {
            self.connection.record_dropped_list_events(dropped);
        }
        if is_reserved || is_list_event { Ok(()) } else { Err(TooMuchWaits) }
    }

    fn clear(&self, queue: &mut Queue) {
        self.connection.release(queue.bytes());
        queue.clear();
        self.connection.set_has_queued(false);
    }
}

/// The bytes of a body, which a frame that the kernel did not take goes on sharing.
struct SharedBody(Arc<RawValue>);

impl AsRef<[u8]> for SharedBody {
    fn as_ref(&self) -> &[u8] {
        self.0.get().as_bytes()
    }
}

/// Sends what waits for sockets whose clients have read again.
pub fn flush_blocked(blocked: &Blocked) {
    let sockets = std::mem::take(&mut *blocked.lock());
    let mut still = sockets.into_iter().filter(|socket| !socket.flush()).collect();
    blocked.lock().append(&mut still);
}
