//! One connection's account and its way out: what its socket was sent and has not read yet, end to end.
//!
//! A socket that owes too much is sent nothing more for now. What counts as read is `flow.rs`'s; the bytes on
//! their way are `outbound.rs`'s.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Shutdown},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{io::ReadBuf, net::TcpStream};

use super::{
    connections::Common, flow::Flow, frames::ping, metrics::SocketMetrics, outbound::Outbound,
    polling::Polling, readers::Readers,
};
use crate::{domain::access::Payer, net::byte_budget::Reservation};

/// How often a client may try to connect to other namespaces than the main one.
const WANDERINGS: u8 = 2;

/// The account of one socket, and its way out.
#[derive(Debug, Default)]
pub struct Connection {
    /// Nothing more goes over it.
    is_aborted: AtomicBool,
    /// It is about to be cut.
    pub(super) is_closing: AtomicBool,
    /// How often the client wanted another namespace.
    wanderings: AtomicU8,
    /// Written by whoever sends, and when confirmations come; held while frames go to the kernel.
    pub(super) state: Mutex<State>,
    /// Something that was to be sent before waits. Written under the lock of what waits (`socket/outbox`): whoever reads
    /// the value of a moment ago sends beside what is just being handed out, or once more later.
    is_owed: AtomicBool,
    /// What all connections share.
    pub(super) common: Arc<Common>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub flow: Flow,
    pub outbound: Outbound,
    /// Of a session that began by long-polling.
    pub polling: Option<Box<Polling>>,
    /// Its place among the sessions whose client is not known yet.
    unidentified: Option<Box<Reservation<IpAddr>>>,
    /// See [`Connection::readers`].
    readers: Option<Arc<Readers>>,
    /// Bytes of binary attachments that the library may be keeping until their event is whole.
    attached: usize,
    /// How often it is among the sockets, by transport: twice for a moment, where a client connects again.
    counted: u8,
    /// Why it was cut, if that was our doing.
    why: Option<EndReason>,
}

/// Why a connection is ended from this end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EndReason {
    /// For too long its client took nothing, or read nothing of what it was sent; or it polled anew without having
    /// read the last answer.
    Unread,
    /// The connection ended with the answer to a poll on it: what was in it may be lost.
    AnswerLost,
    /// More waited for it than may.
    TooMuchWaits,
    /// It was promised every version, and is too slow for that.
    StalledInReplay,
    /// It had not read what it may no longer see.
    Withdrawn,
    /// It had not read what it was sent before its token ended.
    TokenEnded,
    /// What came is not as its protocol has it.
    Malformed,
}

/// A socket that is counted, until this is dropped.
#[derive(Debug)]
pub struct CountedSocket(Arc<Connection>);

impl Drop for CountedSocket {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.counted = state.counted.saturating_sub(1);
        self.0.sockets().over(state.outbound.was_opened()).dec();
    }
}

/// The result of sending frames to a socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SendOutcome {
    /// They are on their way. A mark behind them, for [`Connection::has_read_to`].
    Sent(u64),
    /// The socket is to be sent nothing for now.
    Closed,
    /// Not sent: packets that the library was given must go first, or the transport is long-polling. Send through the
    /// library.
    ByLibrary,
}

impl Connection {
    /// Creates the connection of a session that is connecting.
    pub(super) fn new(common: &Arc<Common>) -> Self {
        Self { common: common.clone(), ..Self::default() }
    }

    fn sockets(&self) -> &SocketMetrics {
        &self.common.sockets
    }

    /// Counts its socket as connected, until what is returned is dropped.
    pub fn count_socket(self: &Arc<Self>) -> CountedSocket {
        let mut state = self.state.lock();
        state.counted = state.counted.saturating_add(1);
        self.sockets().over(state.outbound.was_opened()).inc();
        CountedSocket(self.clone())
    }

    /// Creates the connection of a WebSocket that is no session's.
    pub(super) fn of_its_own(stream: TcpStream) -> Arc<Self> {
        let connection = Arc::<Self>::default();
        // It has none.
        let _ = connection.set_stream(stream, false);
        connection
    }

    /// Notes that nobody knows yet who its client is, only where it comes from; `place`: its place among such sessions.
    pub fn set_unidentified(&self, from: Payer, place: Option<Reservation<IpAddr>>) {
        self.set_payer(from, place);
    }

    /// Notes whose it is: whatever waits for the socket is held against the budget of that user or address.
    pub fn identify(&self, payer: Payer) {
        self.set_payer(payer, None);
        self.state.lock().readers = Some(self.common.readers.of(payer, Readers::default));
    }

    /// Returns the turns in which the caller's sockets read, once the caller is known.
    pub(super) fn readers(&self) -> Option<Arc<Readers>> {
        self.state.lock().readers.clone()
    }

    fn set_payer(&self, payer: Payer, place: Option<Reservation<IpAddr>>) {
        let state = &mut *self.state.lock();
        state.unidentified = place.map(Box::new);
        state.outbound.hold_against(self.common.waiting.record(payer, state.outbound.held_bytes()));
    }

    /// Is it not known yet who its client is? Without limits nobody asks.
    pub fn is_unidentified(&self) -> bool {
        self.state.lock().unidentified.is_some()
    }

    /// Whose it is, once that is known.
    pub fn payer(&self) -> Option<Payer> {
        self.state.lock().outbound.payer()
    }

    /// Has the socket read enough to be sent more?
    pub fn is_open(&self) -> bool {
        !self.is_aborted() && self.state.lock().flow.is_open(Instant::now())
    }

    /// Has the socket read so much that it may be sent what it has missed?
    pub fn has_room(&self) -> bool {
        !self.is_aborted() && self.state.lock().flow.has_room(Instant::now())
    }

    /// Does something wait for the socket?
    pub fn is_owed(&self) -> bool {
        self.is_owed.load(Ordering::Relaxed)
    }

    /// Notes whether something waits for the socket.
    pub fn owe(&self, something: bool) {
        self.is_owed.store(something, Ordering::Relaxed);
    }

    /// Sends whole frames, all or none, unless something waits that must go before. `now`: for many sockets the clock
    /// is looked at once. `rest`: see [`Outbound::put`].
    pub fn send(
        &self,
        frames: &[IoSlice<'_>],
        rest: impl Fn(usize, usize) -> Bytes,
        now: Instant,
    ) -> SendOutcome {
        if self.is_owed() { SendOutcome::Closed } else { self.send_next(frames, rest, now) }
    }

    /// The same for what waits, whose turn it is.
    pub fn send_next(
        &self,
        frames: &[IoSlice<'_>],
        rest: impl Fn(usize, usize) -> Bytes,
        now: Instant,
    ) -> SendOutcome {
        if self.is_aborted() {
            return SendOutcome::Closed;
        }
        let mut state = self.state.lock();
        if !state.flow.is_open(now) {
            return SendOutcome::Closed;
        }
        let State { flow, outbound, .. } = &mut *state;
        if !outbound.is_clear() {
            return SendOutcome::ByLibrary;
        }
        flow.record_sent(frames.iter().map(|frame| frame.len()).sum());
        if flow.is_due(now) {
            // In one go: a ping by itself costs as much as they do.
            let ping = ping(flow.ask(now));
            outbound.put(&[frames, &[IoSlice::new(&ping)]].concat(), |part, from| {
                match part == frames.len() {
                    true => Bytes::copy_from_slice(&ping[from..]),
                    false => rest(part, from),
                }
            });
        } else {
            outbound.put(frames, rest);
        }
        SendOutcome::Sent(flow.sent())
    }

    /// Reserves room for bytes that will wait for the socket, or that have come of a message. It returns `false` when
    /// the caller's budget has no more room.
    pub fn hold(&self, bytes: usize) -> bool {
        self.state.lock().outbound.hold(bytes)
    }

    /// The same for what the library is to be given next.
    pub fn may_give(&self, bytes: usize) -> bool {
        self.state.lock().outbound.may_give(bytes)
    }

    /// Gives back room that [`Connection::hold`] has reserved.
    pub fn release(&self, bytes: usize) {
        self.state.lock().outbound.release(bytes);
    }

    /// Holds room for a binary attachment, which the library keeps until its event is whole. The connection is ended
    /// where there is no more.
    pub(super) fn record_attachment(&self, bytes: usize) {
        let is_held = {
            let State { outbound, attached, .. } = &mut *self.state.lock();
            let is_held = outbound.hold(bytes);
            *attached += if is_held { bytes } else { 0 };
            is_held
        };
        if !is_held {
            self.abort_for(EndReason::TooMuchWaits);
        }
    }

    /// Gives the room back: the next message of the client has come, so the library keeps no attachment any more.
    pub(super) fn release_attachments(&self) {
        let State { outbound, attached, .. } = &mut *self.state.lock();
        outbound.release(std::mem::take(attached));
    }

    /// Counts events of lists that the socket will not be sent: too much waited for it.
    pub fn record_unlisted(&self, dropped: u64) {
        self.sockets().unlisted.inc_by(dropped);
    }

    /// The library is about to be given an event or an ack of so many bytes, for which [`Connection::may_give`] found room.
    /// Returns a mark behind it, for [`Connection::has_read_to`].
    pub fn give(&self, bytes: usize) -> u64 {
        let State { flow, outbound, .. } = &mut *self.state.lock();
        outbound.give(bytes);
        flow.record_sent(bytes);
        if !outbound.was_opened() {
            flow.expect_poll(Instant::now());
        }
        flow.sent()
    }

    /// The library did not take it.
    pub fn take_back(&self) {
        self.state.lock().outbound.take_back();
    }

    /// Bytes that the library was given and has not written yet.
    #[cfg(test)]
    pub fn given_bytes(&self) -> usize {
        self.state.lock().outbound.given_bytes()
    }

    /// Is it allowed to ask for another namespace once more? There is none but the main one.
    pub fn may_wander(&self) -> bool {
        self.wanderings.fetch_add(1, Ordering::Relaxed) < WANDERINGS
    }

    /// Changes the state, and wakes whoever waits for the socket if it may then be sent more.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let now = Instant::now();
        let before = (state.flow.is_open(now), state.flow.has_room(now));
        let changed = change(&mut state);
        if (state.flow.is_open(now), state.flow.has_room(now)) > before {
            self.common.opened.notify_one();
        }
        changed
    }

    /// Asks for confirmation; returns a mark behind all that was sent, for [`Connection::has_read_to`].
    pub fn mark(&self) -> u64 {
        let state = &mut *self.state.lock();
        state.flow.hurry();
        state.ask();
        state.flow.sent()
    }

    /// Is everything before this mark proved to be read?
    pub fn has_read_to(&self, mark: u64) -> bool {
        self.state.lock().flow.has_read_to(mark)
    }

    /// Is everything proved to be read?
    pub fn has_read(&self) -> bool {
        self.state.lock().flow.unread() == 0
    }

    /// Gives the connection a WebSocket.
    ///
    /// # Errors
    /// The stream: there was one before, which counts.
    pub(super) fn set_stream(&self, stream: TcpStream, is_upgrade: bool) -> Result<(), TcpStream> {
        let State { flow, outbound, counted, .. } = &mut *self.state.lock();
        outbound.open(stream, is_upgrade)?;
        flow.forget_question();
        self.sockets().over(false).dec_by((*counted).into());
        self.sockets().over(true).inc_by((*counted).into());
        Ok(())
    }

    /// The WebSocket is gone, and with it the session.
    pub(super) fn lose_stream(&self) {
        self.abort();
        self.state.lock().outbound.close();
    }

    /// Is there, or was there, a WebSocket?
    pub(super) fn has_websocket(&self) -> bool {
        self.state.lock().outbound.was_opened()
    }

    /// Reads what the library is to read.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state.lock().outbound.poll_read(cx, buffer)
    }

    /// Writes what the library has to write.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.change(|state| {
            let written = ready!(state.outbound.poll_write(cx, bytes))?;
            state.ask();
            Poll::Ready(Ok(written))
        })
    }

    /// Puts a frame on the way between two of the library's, at the beginning of one that it stands for.
    pub(super) fn put(&self, frame: Bytes) {
        self.state.lock().outbound.put(&[IoSlice::new(&frame)], |_, from| frame.slice(from..));
    }

    /// The library has nothing more to write.
    pub(super) fn shut_down(&self) -> io::Result<()> {
        match self.state.lock().outbound.stream() {
            Some(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            None => Ok(()),
        }
    }

    /// Is there nothing of ours that waits for the kernel? If there will be, `reader` is woken.
    pub(super) fn is_drained(&self, reader: &Waker) -> bool {
        let outbound = &mut self.state.lock().outbound;
        outbound.wake_when_pending(reader);
        !outbound.has_pending()
    }

    /// The client has sent a pong. One that nobody asked for confirms nothing.
    pub(super) fn record_pong(&self, payload: &[u8]) {
        self.change(|state| {
            if state.flow.confirm(payload) {
                state.ask();
            }
        });
    }

    /// The client has sent messages.
    pub(super) fn record_messages(&self, messages: usize) {
        let state = &mut *self.state.lock();
        (0..messages).for_each(|_| state.outbound.record_message());
        state.ask();
    }

    /// Checks whether the client has confirmed nothing, or the library has written nothing, for so long.
    pub(super) fn is_unanswered_for(&self, time: Duration) -> bool {
        let state = self.state.lock();
        state.flow.is_unanswered_for(time) || state.outbound.is_stuck_for(time)
    }

    /// Was it ended from here?
    pub fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Relaxed)
    }

    /// Is it about to be?
    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Ends the connection of a client that does not read.
    pub fn abort_unread(&self, why: EndReason) {
        if self.end(Some(why)) {
            self.sockets().given_up.inc();
        }
    }

    /// Ends the connection for a reason of ours.
    pub fn abort_for(&self, why: EndReason) {
        self.end(Some(why));
    }

    /// Ends the connection at once, whatever waits to be sent; the client connects again. Not the library's
    /// disconnect, which waits in the same queue and tells the client to stay away.
    pub fn abort(&self) {
        self.end(None);
    }

    /// `true`: it had not ended before.
    fn end(&self, why: Option<EndReason>) -> bool {
        let mut state = self.state.lock();
        let is_first = !self.is_aborted.swap(true, Ordering::Relaxed);
        if is_first {
            state.why = why;
            if !state.outbound.was_opened()
                && let Some(polling) = &state.polling
            {
                // There is a session to end, and what is on its way of an answer.
                self.common.end_session(polling.session());
                polling.abort_answer();
            }
        }
        if let Some(stream) = state.outbound.stream() {
            // Without waiting for its other end. Gone already, if either fails.
            let _ = stream.set_zero_linger();
            let _ = SockRef::from(stream).shutdown(Shutdown::Both);
        }
        is_first
    }

    /// Why it was ended; `None`: not from here, or not at all.
    pub fn why(&self) -> Option<EndReason> {
        self.state.lock().why
    }
}

impl State {
    /// Asks for confirmation, if it is time and everything that was sent is on the wire.
    fn ask(&mut self) {
        let now = Instant::now();
        if self.flow.is_due(now) && self.outbound.is_clear() {
            let ping = ping(self.flow.ask(now));
            self.outbound.put(&[IoSlice::new(&ping)], |_, from| Bytes::copy_from_slice(&ping[from..]));
        }
    }
}
