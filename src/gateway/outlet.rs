//! What goes to one socket: at once while it keeps up, else what must not be lost waits here, in order.
//!
//! Positions never wait: a room sends the newest one as soon as the outlet takes it (`room.rs`).

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use socketioxide::{
    SendError, SocketError,
    extract::{AckSender, SocketRef},
};
use tracing::info;

use super::{link::Link, session::log_name};

/// Events and acks that may wait; one more ends the connection.
const CAPACITY: usize = 256;
/// What a packet has besides its body, about.
const ENVELOPE: usize = 16;

/// The way to one socket. Kept by the socket, so it never holds that.
pub struct Outlet {
    link: Arc<Link>,
    /// Written by whoever has something for the socket; emptied when it reads again.
    waiting: Mutex<VecDeque<Waiting>>,
    blocked: Arc<Blocked>,
}

enum Waiting {
    Event(&'static str, Arc<RawValue>),
    Ack(AckSender, Arc<RawValue>),
}

/// Sockets for which something waits. Written when something begins to, emptied by [`flush`].
pub type Blocked = Mutex<Vec<(SocketRef, Arc<Outlet>)>>;

impl Outlet {
    /// Of a socket that is connecting.
    pub fn new(link: Arc<Link>, blocked: Arc<Blocked>) -> Self {
        Self { link, waiting: Mutex::default(), blocked }
    }

    /// Sends a position; `false`: the socket does not keep up, and gets the newest one later.
    pub fn position(&self, socket: &SocketRef, chat: &RawValue) -> bool {
        self.waiting.lock().is_empty() && self.link.is_open() && self.emit(socket, "chat", chat)
    }

    /// Sends an event, now or in its turn.
    pub fn event(self: &Arc<Self>, socket: &SocketRef, event: &'static str, body: Arc<RawValue>) {
        self.send(socket, Waiting::Event(event, body));
    }

    /// Sends an ack, now or in its turn.
    pub fn ack(self: &Arc<Self>, socket: &SocketRef, ack: AckSender, body: Arc<RawValue>) {
        self.send(socket, Waiting::Ack(ack, body));
    }

    fn send(self: &Arc<Self>, socket: &SocketRef, next: Waiting) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= CAPACITY {
            info!(socket = log_name(socket), "too many events wait for it: it is to connect again");
            waiting.clear();
            self.link.cut();
            return;
        }
        waiting.push_back(next);
        if waiting.len() == 1 && !self.send_waiting(socket, &mut waiting) {
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
                Waiting::Event(event, body) => drop(self.emit(socket, event, &body)),
                Waiting::Ack(ack, body) => {
                    self.link.sent(body.get().len() + ENVELOPE);
                    // Gone, or so far behind that it is about to be cut.
                    let _ = ack.send(&body);
                }
            }
        }
        waiting.is_empty()
    }

    /// `false`: the library's queue is full.
    fn emit(&self, socket: &SocketRef, event: &'static str, body: &RawValue) -> bool {
        // Before it goes: it may be fetched, and the next poll be there, before this returns.
        self.link.sent(body.get().len() + ENVELOPE);
        let sent = socket.emit(event, body);
        !matches!(sent, Err(SendError::Socket(SocketError::InternalChannelFull)))
    }

    /// Ends the connection; the client connects again.
    pub fn cut(&self) {
        self.link.cut();
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
