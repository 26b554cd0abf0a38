//! Long-polling over a connection: when an answer counts as read, and when a session may change to a WebSocket.
//!
//! An answer counts as read when it has left the process and the client polls again. A client that polls before that,
//! or whose poll breaks off, loses its session, because nobody can tell how much of the answer it has. A WebSocket
//! that opens is only an attempt: the session goes on polling until the client confirms the change over the WebSocket
//! (`upgrade.rs`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use super::{
    connection::{Connection, State},
    end_reason::EndReason,
    polling::{Polling, PollingSession},
};
use crate::{
    domain::access::Payer,
    net::{
        byte_budget::Reservation,
        delivery::{Answers, Delivery},
    },
};

/// Time for an answer to leave this process after the client has polled again. The client has read all of it by then,
/// so only this process can be late.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time that a poll may wait while the client changes to a WebSocket, which it does after its last poll.
const NOOP_DELAY: Duration = Duration::from_millis(100);

/// A poll that is being answered. Dropping it ends the session, because packets that the library had ready for the
/// answer may be lost.
pub struct PollGuard(Option<Arc<Connection>>);

impl PollGuard {
    /// Begins a poll. Returns `None`, and ends the session, if another poll is being answered: the client may not read
    /// that answer.
    pub fn begin(connection: &Arc<Connection>) -> Option<Self> {
        if connection.with_polling(Polling::begin_poll) == Some(false) {
            connection.abort_for(EndReason::AnswerLost);
            return None;
        }
        Some(Self(Some(connection.clone())))
    }

    /// Ends the poll without ending the session, because it has an answer that is followed.
    pub fn disarm(mut self) {
        if let Some(connection) = self.0.take() {
            connection.with_polling(Polling::end_poll);
        }
    }
}

impl Drop for PollGuard {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take().filter(|connection| !connection.is_websocket()) {
            // No reason is given, because the client's network ended the poll.
            connection.abort();
        }
    }
}

/// A change to a WebSocket that is under way until this is dropped.
pub struct UpgradeGuard(Arc<Connection>);

impl UpgradeGuard {
    /// Records that the WebSocket works, and that the client waits for its last poll to end.
    pub fn record_probe(&self) {
        self.0.with_polling(Polling::record_probe);
    }
}

impl Drop for UpgradeGuard {
    fn drop(&mut self) {
        self.0.with_polling(Polling::end_upgrade);
    }
}

impl Connection {
    fn with_polling<T>(&self, f: impl FnOnce(&mut Polling) -> T) -> Option<T> {
        self.state.lock().polling.as_deref_mut().map(f)
    }

    /// Records that the connection belongs to a session that begins by long-polling.
    pub fn set_polling(&self, session: PollingSession) {
        self.state.lock().polling = Some(Box::new(Polling::new(session)));
    }

    /// Confirms the last answer, because a new poll has come. Returns `false`, and ends the session, if that answer is
    /// lost or the client has not read it.
    pub async fn confirm_last_answer(&self) -> bool {
        // The answer stays in the state, because another poll may come meanwhile.
        let answer = self.with_polling(|polling| polling.last_answer.clone()).flatten();
        if let Some((delivery, _)) = answer {
            match timeout(DELIVERY_TIMEOUT, delivery.done()).await {
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
            if let Some(polling) = polling.as_deref().filter(|_| !outbound.is_websocket()) {
                flow.record_poll(polling.answered, Instant::now());
            }
        });
        true
    }

    /// Records that a poll is answered with these packets. Returns the bytes that they hold of the caller's budget
    /// until they have left. They are not refused here, because they were held before as packets that wait.
    pub fn record_answer(&self, body: &[u8]) -> Option<Reservation<Payer>> {
        let State { flow, outbound, polling, .. } = &mut *self.state.lock();
        let polling = polling.as_deref_mut()?;
        outbound.record_answer(body, polling.session.has_lengths);
        polling.answered = flow.sent() - outbound.library_bytes() as u64;
        Some(self.common.waiting.record(outbound.payer()?, body.len()))
    }

    /// Records the delivery of the last answer, and the HTTP connection that it goes over.
    pub fn set_last_answer(&self, delivery: Delivery, answers: Answers) {
        let is_polling = self.with_polling(|polling| polling.last_answer = Some((delivery, answers)));
        if is_polling.is_some() && self.is_aborted() {
            // The session was ended meanwhile, so no more of the answer may be handed out.
            self.with_polling(|polling| polling.abort_last_answer());
        }
    }

    /// Waits until a poll that has just come must be answered with nothing, because the client waits for its end.
    pub async fn wait_for_noop(&self) {
        let state = self.with_polling(|polling| (polling.probed(), polling.is_probed()));
        let Some((probed, is_late)) = state else { return std::future::pending().await };
        if is_late {
            sleep(NOOP_DELAY).await;
        }
        loop {
            // The future exists before the check, so that a notification in between is not lost.
            let notified = probed.notified();
            if self.with_polling(|polling| polling.is_probed()) == Some(true) {
                return;
            }
            notified.await;
        }
    }

    /// Begins a change to a WebSocket. Returns `None` if one is under way or done, or if the session does not poll.
    pub fn begin_upgrade(self: &Arc<Self>) -> Option<UpgradeGuard> {
        let State { outbound, polling, .. } = &mut *self.state.lock();
        let can_begin = !outbound.is_websocket() && polling.as_deref_mut()?.begin_upgrade();
        can_begin.then(|| UpgradeGuard(self.clone()))
    }
}
