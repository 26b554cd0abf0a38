//! A client's connection under its session: what it was sent, what it has read, and whether it may be sent more.
//!
//! A client that has left too much unread is sent nothing more for now. `flow.rs` decides that, and `outbound.rs` holds
//! the outgoing bytes. The methods that only one transport needs are in `websocket.rs` and `polls.rs`.

use std::{
    io::IoSlice,
    net::{IpAddr, Shutdown},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use socket2::SockRef;

use super::{
    common::Common, end_reason::EndReason, flow::Flow, frames::ping, metrics::SocketMetrics,
    outbound::Outbound, polling::Polling, read_turns::ReadTurns,
};
use crate::{domain::access::Payer, net::byte_budget::Reservation};

/// Requests for other namespaces than the main one that a client may make.
const MAX_OTHER_NAMESPACES: u8 = 2;

#[derive(Debug, Default)]
pub struct Connection {
    /// The connection was ended from this side, and nothing more goes over it.
    is_aborted: AtomicBool,
    /// The connection will be aborted in a moment.
    is_closing: AtomicBool,
    /// Requests of the client for other namespaces.
    other_namespaces: AtomicU8,
    /// The outbox holds events that must be sent before anything else. It writes this under its own lock. A sender that
    /// reads an old value sends beside the event that is just leaving the outbox, or tries again later.
    has_queued: AtomicBool,
    /// Every sender and every confirmation writes it, and it is held while frames go to the kernel.
    pub(super) state: Mutex<State>,
    pub(super) common: Arc<Common>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub flow: Flow,
    pub outbound: Outbound,
    /// The state of a session that began by long-polling.
    pub polling: Option<Box<Polling>>,
    /// The place among the sessions whose client is not known yet.
    unidentified: Option<Box<Reservation<IpAddr>>>,
    /// See [`Connection::read_turns`].
    read_turns: Option<Arc<ReadTurns>>,
    /// Bytes of binary attachments that the library may keep until their event is complete.
    attachment_bytes: usize,
    /// The number of its connected sockets: two for a moment while a client connects again.
    pub counted: u8,
    end_reason: Option<EndReason>,
}

/// A socket that is counted as connected until this is dropped.
#[derive(Debug)]
pub struct CountedSocket(Arc<Connection>);

impl Drop for CountedSocket {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.counted = state.counted.saturating_sub(1);
        self.0.metrics().connected(state.outbound.is_websocket()).dec();
    }
}

/// The result of sending frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SendOutcome {
    /// The frames are on their way. The mark is behind them, for [`Connection::has_read_to`].
    Sent(u64),
    /// The frames were not sent, because the connection is sent nothing for now.
    Closed,
    /// The frames were not sent, because packets that the library was given must go first, or because the transport is
    /// long-polling. They must be sent through the library.
    ByLibrary,
}

/// The client and its caller.
impl Connection {
    /// Creates the connection of a session that is connecting.
    pub(super) fn new(common: &Arc<Common>) -> Self {
        Self { common: common.clone(), ..Self::default() }
    }

    /// Records the address of a client that has not been identified yet, and its place among such sessions.
    pub fn set_unidentified(&self, address: Payer, place: Option<Reservation<IpAddr>>) {
        self.set_payer(address, place);
    }

    /// Records the caller: from now on what waits for the socket is held against the budget of that user or address.
    pub fn identify(&self, payer: Payer) {
        self.set_payer(payer, None);
        self.state.lock().read_turns = Some(self.common.read_turns.of(payer, ReadTurns::default));
    }

    fn set_payer(&self, payer: Payer, place: Option<Reservation<IpAddr>>) {
        let state = &mut *self.state.lock();
        state.unidentified = place.map(Box::new);
        let bytes = state.outbound.reserved_bytes();
        state.outbound.set_reservation(self.common.waiting.record(payer, bytes));
    }

    /// Returns whether the client is not identified yet. It is always `false` if unidentified sessions are not limited.
    pub fn is_unidentified(&self) -> bool {
        self.state.lock().unidentified.is_some()
    }

    /// Returns the caller, or the address of a client that is not identified yet.
    pub fn payer(&self) -> Option<Payer> {
        self.state.lock().outbound.payer()
    }

    /// Returns the rounds in which the caller's WebSockets read, once the caller is known.
    pub(super) fn read_turns(&self) -> Option<Arc<ReadTurns>> {
        self.state.lock().read_turns.clone()
    }

    /// Counts its socket as connected until the result is dropped.
    pub fn count_socket(self: &Arc<Self>) -> CountedSocket {
        let mut state = self.state.lock();
        state.counted = state.counted.saturating_add(1);
        self.metrics().connected(state.outbound.is_websocket()).inc();
        CountedSocket(self.clone())
    }

    /// Counts list events that the socket will not be sent, because too much waited for it.
    pub fn record_dropped_list_events(&self, dropped: u64) {
        self.metrics().dropped_list_events.inc_by(dropped);
    }

    /// Counts a request of the client for another namespace than the main one. Returns `false` if that was one too
    /// many.
    pub fn record_other_namespace(&self) -> bool {
        self.other_namespaces.fetch_add(1, Ordering::Relaxed) < MAX_OTHER_NAMESPACES
    }

    pub(super) fn metrics(&self) -> &SocketMetrics {
        &self.common.metrics
    }
}

/// Sending, and confirmation that the client has read.
impl Connection {
    /// Returns whether the client has read enough to be sent more.
    pub fn is_open(&self) -> bool {
        !self.is_aborted() && self.state.lock().flow.is_open(Instant::now())
    }

    /// Returns whether the client has read enough to be sent what it has missed, and nothing waits in the outbox.
    pub fn has_room(&self) -> bool {
        !self.has_queued() && !self.is_aborted() && self.state.lock().flow.has_room(Instant::now())
    }

    fn has_queued(&self) -> bool {
        self.has_queued.load(Ordering::Relaxed)
    }

    /// Records whether something waits in the outbox.
    pub fn set_has_queued(&self, has_queued: bool) {
        self.has_queued.store(has_queued, Ordering::Relaxed);
    }

    /// Sends whole frames, all or none, unless something waits in the outbox. The caller gives the time, so that the
    /// clock is read once for many connections. For `rest` see [`Outbound::send`].
    pub fn send(
        &self,
        frames: &[IoSlice<'_>],
        rest: impl Fn(usize, usize) -> Bytes,
        now: Instant,
    ) -> SendOutcome {
        if self.has_queued() { SendOutcome::Closed } else { self.send_queued(frames, rest, now) }
    }

    /// Sends frames of the outbox, whose turn it is.
    pub fn send_queued(
        &self,
        frames: &[IoSlice<'_>],
        rest: impl Fn(usize, usize) -> Bytes,
        now: Instant,
    ) -> SendOutcome {
        if self.is_aborted() {
            return SendOutcome::Closed;
        }
        let State { flow, outbound, .. } = &mut *self.state.lock();
        if !flow.is_open(now) {
            return SendOutcome::Closed;
        }
        if !outbound.can_send() {
            return SendOutcome::ByLibrary;
        }
        flow.record_sent(frames.iter().map(|frame| frame.len()).sum());
        if flow.is_question_due(now) {
            // The ping goes in the same system call, because alone it would cost as much as the frames.
            let ping = ping(flow.ask(now));
            outbound.send(&[frames, &[IoSlice::new(&ping)]].concat(), |part, from| {
                if part == frames.len() { Bytes::copy_from_slice(&ping[from..]) } else { rest(part, from) }
            });
        } else {
            outbound.send(frames, rest);
        }
        SendOutcome::Sent(flow.sent())
    }

    /// Asks the client for confirmation. Returns a mark behind all that was sent, for [`Connection::has_read_to`].
    pub fn request_confirmation(&self) -> u64 {
        let state = &mut *self.state.lock();
        state.flow.expedite_question();
        state.ask_if_due();
        state.flow.sent()
    }

    /// Returns whether everything before this mark is proved to be read.
    pub fn has_read_to(&self, mark: u64) -> bool {
        self.state.lock().flow.has_read_to(mark)
    }

    /// Returns whether everything that was sent is proved to be read.
    pub fn has_read_all(&self) -> bool {
        self.state.lock().flow.unread() == 0
    }

    /// Returns whether the client has left a question unanswered, or the library has written nothing, for longer than
    /// this.
    pub(super) fn is_unanswered_for(&self, time: Duration) -> bool {
        let state = self.state.lock();
        state.flow.is_unanswered_for(time) || state.outbound.is_library_stuck_for(time)
    }

    /// Returns whether there is, or was, a WebSocket.
    pub(super) fn is_websocket(&self) -> bool {
        self.state.lock().outbound.is_websocket()
    }

    /// Changes the state, and notifies the waiting senders if the client may then be sent more.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let now = Instant::now();
        let before = (state.flow.is_open(now), state.flow.has_room(now));
        let result = change(&mut state);
        if (state.flow.is_open(now), state.flow.has_room(now)) > before {
            self.common.opened.notify_one();
        }
        result
    }
}

impl State {
    /// Sends a ping if confirmation is due and everything that was sent is on the wire.
    pub fn ask_if_due(&mut self) {
        let now = Instant::now();
        if self.flow.is_question_due(now) && self.outbound.can_send() {
            let ping = ping(self.flow.ask(now));
            self.outbound.send(&[IoSlice::new(&ping)], |_, from| Bytes::copy_from_slice(&ping[from..]));
        }
    }
}

/// Bytes held against the caller's budget, and packets given to the library.
impl Connection {
    /// Reserves bytes that will wait for the socket, or that have come of a message. Returns `false` if the caller's
    /// budget has no room for them.
    pub fn reserve(&self, bytes: usize) -> bool {
        self.state.lock().outbound.reserve(bytes)
    }

    /// Gives back bytes that were reserved.
    pub fn release(&self, bytes: usize) {
        self.state.lock().outbound.release(bytes);
    }

    /// Reserves bytes of a packet that the library is to be given. Returns `false` if there is no room for them.
    pub fn reserve_for_library(&self, bytes: usize) -> bool {
        self.state.lock().outbound.reserve_for_library(bytes)
    }

    /// Records that the library is about to be given an event or an ack, for which [`Connection::reserve_for_library`]
    /// found room. Returns a mark behind it, for [`Connection::has_read_to`].
    pub fn record_given(&self, bytes: usize) -> u64 {
        let State { flow, outbound, .. } = &mut *self.state.lock();
        outbound.record_given(bytes);
        flow.record_sent(bytes);
        if !outbound.is_websocket() {
            flow.expect_poll(Instant::now());
        }
        flow.sent()
    }

    /// Records that the library did not take the last packet.
    pub fn record_not_taken(&self) {
        self.state.lock().outbound.record_not_taken();
    }

    /// Reserves bytes of a binary attachment, which the library keeps until its event is complete. Ends the connection
    /// if the caller's budget has no room for them.
    pub(super) fn record_attachment(&self, bytes: usize) {
        let is_reserved = {
            let State { outbound, attachment_bytes, .. } = &mut *self.state.lock();
            let is_reserved = outbound.reserve(bytes);
            *attachment_bytes += if is_reserved { bytes } else { 0 };
            is_reserved
        };
        if !is_reserved {
            self.abort_for(EndReason::TooMuchWaits);
        }
    }

    /// Gives back the bytes of attachments. The next message of the client has come, so the library keeps none of them.
    pub(super) fn release_attachments(&self) {
        let State { outbound, attachment_bytes, .. } = &mut *self.state.lock();
        outbound.release(std::mem::take(attachment_bytes));
    }
}

/// Ending the connection.
impl Connection {
    /// Ends the connection of a client that does not read.
    pub fn abort_unread(&self, reason: EndReason) {
        if self.end(Some(reason)) {
            self.metrics().given_up.inc();
        }
    }

    /// Ends the connection for a reason that the log will name.
    pub fn abort_for(&self, reason: EndReason) {
        self.end(Some(reason));
    }

    /// Ends the connection at once, and drops everything that waits; the client connects again. The library's
    /// disconnect would wait in the same queue, and it tells the client to stay away.
    pub fn abort(&self) {
        self.end(None);
    }

    /// Ends the connection. Returns `false` if it had ended before.
    fn end(&self, reason: Option<EndReason>) -> bool {
        let mut state = self.state.lock();
        let is_first = !self.is_aborted.swap(true, Ordering::Relaxed);
        if is_first {
            state.end_reason = reason;
            if !state.outbound.is_websocket()
                && let Some(polling) = &state.polling
            {
                let _ = self.common.session_ends.send(polling.session);
                polling.abort_last_answer();
            }
        }
        if let Some(stream) = state.outbound.stream() {
            // The other end is not waited for. If either call fails, the stream is closed already.
            let _ = stream.set_zero_linger();
            let _ = SockRef::from(stream).shutdown(Shutdown::Both);
        }
        is_first
    }

    /// Returns whether the connection was ended from this side.
    pub fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Relaxed)
    }

    /// Returns why it was ended from this side. `None`: it has not been, or for no reason of ours.
    pub fn end_reason(&self) -> Option<EndReason> {
        self.state.lock().end_reason
    }

    /// Records that the connection will be aborted in a moment. Returns `false` if that was recorded before.
    pub(super) fn begin_closing(&self) -> bool {
        !self.is_closing.swap(true, Ordering::Relaxed)
    }

    /// Returns whether the connection will be aborted in a moment.
    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }
}
