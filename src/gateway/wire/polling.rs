//! A session that polls: when an answer counts as read, and how it moves to a WebSocket.
//!
//! An answer counts when it has left the process and the client polls again; a client that polls before that, or
//! whose poll breaks off, loses its session, because nobody can tell what it has of the answer. A WebSocket that
//! opens is only a try: the session goes on polling until the client has said over the WebSocket that it changes over
//! (`upgrade.rs`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use socketioxide::socket::Sid;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::connection::{Connection, EndReason, State};
use crate::{
    domain::access::Payer,
    net::{
        byte_budget::Reservation,
        delivery::{Answers, Delivery},
    },
};

/// How long an answer may take to leave the process once the client has polled again. It has read it all by then,
/// so only this process can be late.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a poll may wait while the client changes over to a WebSocket: it waits for its last poll.
const NOOP_AFTER: Duration = Duration::from_millis(100);

/// Which session, and how its packets are framed.
#[derive(Clone, Copy, Debug)]
pub struct PollingSession {
    /// Also the key to it: never logged whole.
    pub id: Sid,
    /// Version 3 of Engine.IO gives before each packet its length.
    pub has_lengths: bool,
}

/// The state of a session that began by long-polling.
#[derive(Debug)]
pub struct Polling {
    session: PollingSession,
    /// A mark behind what the last answer held, for the account.
    answered: u64,
    /// A poll is being answered.
    is_polled: bool,
    /// This tells whether the last answer has left the process, and over which connection it goes.
    answer: Option<(Delivery, Answers)>,
    upgrade: Upgrade,
    /// Told when the client waits for its last poll.
    probed: Arc<Notify>,
}

/// How far a session is on the way to a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Upgrade {
    None,
    /// A WebSocket is open; it may still come to nothing.
    Open,
    /// It works in both directions, and the client waits for its last poll to end.
    Probed,
}

impl Polling {
    pub fn session(&self) -> PollingSession {
        self.session
    }

    /// Ends the connection of the last answer, unless that has left.
    pub fn abort_answer(&self) {
        if let Some((delivery, answers)) = &self.answer {
            answers.abort(delivery);
        }
    }
}

/// A poll that is being answered. Ends its session when dropped: what the library had ready for it may be lost.
pub struct PollGuard(Option<Arc<Connection>>);

impl PollGuard {
    /// Begins a poll. `None`: another one is being answered, and what that is answered may be lost; the session is ended.
    pub fn begin(connection: &Arc<Connection>) -> Option<Self> {
        let is_second =
            connection.polling(|polling| std::mem::replace(&mut polling.is_polled, true)) == Some(true);
        if is_second {
            connection.abort_for(EndReason::AnswerLost);
        }
        (!is_second).then(|| Self(Some(connection.clone())))
    }

    /// The poll has its answer, which is followed.
    pub fn disarm(mut self) {
        if let Some(connection) = self.0.take() {
            connection.polling(|polling| polling.is_polled = false);
        }
    }
}

impl Drop for PollGuard {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take().filter(|connection| !connection.has_websocket()) {
            // Its connection has ended; the log says so.
            connection.abort();
        }
    }
}

impl Connection {
    /// Notes which session it is, that begins by long-polling.
    pub(super) fn set_polling(&self, session: PollingSession) {
        self.state.lock().polling = Some(Box::new(Polling {
            session,
            answered: 0,
            is_polled: false,
            answer: None,
            upgrade: Upgrade::None,
            probed: Arc::default(),
        }));
    }

    fn polling<T>(&self, with: impl FnOnce(&mut Polling) -> T) -> Option<T> {
        self.state.lock().polling.as_deref_mut().map(with)
    }

    /// A poll has come: what the last answer held is read. `false`: that answer is lost, or its client has not read
    /// it; the session is ended.
    pub(super) async fn record_poll(&self) -> bool {
        // It stays there: another poll may come meanwhile.
        let answer = self.polling(|polling| polling.answer.clone()).flatten();
        if let Some((answer, _)) = answer {
            match timeout(DELIVERY_TIMEOUT, answer.done()).await {
                Ok(true) => {}
                Ok(false) => {
                    self.abort_for(EndReason::AnswerLost);
                    return false;
                }
                Err(_) => {
                    self.abort_unread(EndReason::Unread);
                    return false;
                }
            }
        }
        self.change(|State { flow, outbound, polling, .. }| {
            if let Some(polling) = polling.as_deref().filter(|_| !outbound.was_opened()) {
                flow.record_poll(polling.answered, Instant::now());
            }
        });
        true
    }

    /// A poll is answered with these packets. Returns what they hold of the budget until they have left: they were
    /// held before, as packets that wait, so they are not refused here.
    pub(super) fn record_answer(&self, body: &[u8]) -> Option<Reservation<Payer>> {
        let State { flow, outbound, polling, .. } = &mut *self.state.lock();
        let polling = polling.as_deref_mut()?;
        outbound.record_answer(body, polling.session.has_lengths);
        polling.answered = flow.sent() - outbound.given_bytes() as u64;
        Some(self.common.waiting.record(outbound.payer()?, body.len()))
    }

    /// `delivery` tells when the last answer has left the process, by this connection.
    pub(super) fn follow_answer(&self, delivery: Delivery, answers: Answers) {
        let is_cut =
            self.polling(|polling| polling.answer = Some((delivery, answers))).is_some() && self.is_aborted();
        if is_cut {
            // The session was cut meanwhile, so nothing of the answer may be handed out any more.
            self.polling(|polling| polling.abort_answer());
        }
    }

    /// Waits until a poll that has just come is to be answered with nothing, because the client waits for it.
    pub(super) async fn wait_for_noop(&self) {
        let Some((probed, is_late)) =
            self.polling(|polling| (polling.probed.clone(), polling.upgrade == Upgrade::Probed))
        else {
            return std::future::pending().await;
        };
        if is_late {
            sleep(NOOP_AFTER).await;
        }
        loop {
            let told = probed.notified();
            if self.polling(|polling| polling.upgrade == Upgrade::Probed) == Some(true) {
                return;
            }
            told.await;
        }
    }

    /// Begins a change of transport. `None`: one is under way or done, or there is no session that polls.
    pub(super) fn begin_upgrade(self: &Arc<Self>) -> Option<UpgradeGuard> {
        let State { outbound, polling, .. } = &mut *self.state.lock();
        let polling = polling.as_deref_mut().filter(|polling| polling.upgrade == Upgrade::None)?;
        if outbound.was_opened() {
            return None;
        }
        polling.upgrade = Upgrade::Open;
        Some(UpgradeGuard(self.clone()))
    }
}

/// A change of transport under way, until this is dropped.
pub struct UpgradeGuard(Arc<Connection>);

impl UpgradeGuard {
    /// The client waits for its last poll to end.
    pub fn record_probe(&self) {
        self.0.polling(|polling| {
            polling.upgrade = Upgrade::Probed;
            polling.probed.notify_waiters();
        });
    }
}

impl Drop for UpgradeGuard {
    fn drop(&mut self) {
        self.0.polling(|polling| polling.upgrade = Upgrade::None);
    }
}

/// An answer to a poll that holds nothing: packet `6`, NOOP.
pub fn noop(has_lengths: bool) -> Bytes {
    Bytes::from_static(if has_lengths { b"1:6" } else { b"6" })
}

/// The body of a request that ends a session: packet `1`, CLOSE.
pub fn close(has_lengths: bool) -> Full<Bytes> {
    Full::from(Bytes::from_static(if has_lengths { b"1:1" } else { b"1" }))
}
