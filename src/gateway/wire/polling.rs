//! The state of a session that began by long-polling: its current poll, its last answer, its change to a WebSocket.
//!
//! This file holds the state as a value, which `connection.rs` keeps under its lock; `polls.rs` acts on it.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use socketioxide::socket::Sid;
use tokio::sync::Notify;

use crate::net::delivery::{Answers, Delivery};

/// The id of a polling session, and the framing of its bodies.
#[derive(Clone, Copy, Debug)]
pub struct PollingSession {
    /// This is also the key to the session, so it is never logged whole.
    pub id: Sid,
    /// Version 3 of Engine.IO writes the length of each packet before the packet.
    pub has_lengths: bool,
}

/// The state of a polling session.
#[derive(Debug)]
pub struct Polling {
    pub session: PollingSession,
    /// The mark behind all that the last answer held, for the flow.
    pub answered: u64,
    /// The delivery of the last answer, and the HTTP connection that it goes over.
    pub last_answer: Option<(Delivery, Answers)>,
    has_poll: bool,
    upgrade: Upgrade,
    /// A poll waits here until the client waits for the end of that poll.
    probed: Arc<Notify>,
}

/// The progress of a session in changing to a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Upgrade {
    None,
    /// A WebSocket is open, but it may still fail.
    Open,
    /// The WebSocket works in both directions, and the client waits for its last poll to end.
    Probed,
}

impl Polling {
    pub fn new(session: PollingSession) -> Self {
        let (has_poll, upgrade, probed) = (false, Upgrade::None, Arc::default());
        Self { session, answered: 0, last_answer: None, has_poll, upgrade, probed }
    }

    /// Begins a poll. Returns `false` if another one is still being answered.
    pub fn begin_poll(&mut self) -> bool {
        !std::mem::replace(&mut self.has_poll, true)
    }

    /// Ends the current poll, which has its answer.
    pub fn end_poll(&mut self) {
        self.has_poll = false;
    }

    /// Ends the HTTP connection of the last answer, unless the answer has left this process.
    pub fn abort_last_answer(&self) {
        if let Some((delivery, answers)) = &self.last_answer {
            answers.abort(delivery);
        }
    }

    /// Begins the change to a WebSocket. Returns `false` if one is under way.
    pub fn begin_upgrade(&mut self) -> bool {
        let can_begin = self.upgrade == Upgrade::None;
        if can_begin {
            self.upgrade = Upgrade::Open;
        }
        can_begin
    }

    /// Records that the WebSocket works in both directions.
    pub fn record_probe(&mut self) {
        self.upgrade = Upgrade::Probed;
        self.probed.notify_waiters();
    }

    /// Ends the change to a WebSocket, because it has failed or is done.
    pub fn end_upgrade(&mut self) {
        self.upgrade = Upgrade::None;
    }

    /// Returns whether the client waits for its last poll to end, before it changes to its WebSocket.
    pub fn is_probed(&self) -> bool {
        self.upgrade == Upgrade::Probed
    }

    /// Returns what is notified when [`Polling::is_probed`] becomes true.
    pub fn probed(&self) -> Arc<Notify> {
        self.probed.clone()
    }
}

/// Returns the body of an answer that holds nothing: packet `6`, NOOP.
pub fn noop(has_lengths: bool) -> Bytes {
    Bytes::from_static(if has_lengths { b"1:6" } else { b"6" })
}

/// Returns the body of a request that ends a session: packet `1`, CLOSE.
pub fn close(has_lengths: bool) -> Full<Bytes> {
    Full::from(Bytes::from_static(if has_lengths { b"1:1" } else { b"1" }))
}
