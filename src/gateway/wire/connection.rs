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
    connections::Common, flow::Account, frames::ping, outbound::Road, polling::Polling, readers::Readers,
};
use crate::{domain::access::Payer, gateway::metrics::Sockets, net::byte_budget::Reservation};

/// How often a client may try to connect to other namespaces than the main one.
const WANDERINGS: u8 = 2;

/// The account of one socket, and its way out.
#[derive(Debug, Default)]
pub struct Link {
    /// Nothing more goes over it.
    is_cut: AtomicBool,
    /// It is about to be cut.
    pub(super) is_ending: AtomicBool,
    /// How often the client wanted another namespace.
    wanderings: AtomicU8,
    /// Written by whoever sends, and when confirmations come; held while frames go to the kernel.
    pub(super) state: Mutex<State>,
    /// Something that was to be sent before waits. Written under the lock of what waits (`socket/outbox`): whoever reads
    /// the value of a moment ago sends beside what is just being handed out, or once more later.
    is_owed: AtomicBool,
    /// What all links share.
    pub(super) common: Arc<Common>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub account: Account,
    pub road: Road,
    /// Of a session that began by long-polling.
    pub polling: Option<Box<Polling>>,
    /// Its place among the sessions whose client is not known yet.
    unidentified: Option<Box<Reservation<IpAddr>>>,
    /// See [`Link::readers`].
    readers: Option<Arc<Readers>>,
    /// Bytes of binary attachments that the library may be keeping until their event is whole.
    attached: usize,
    /// How often it is among the sockets, by transport: twice for a moment, where a client connects again.
    counted: u8,
    /// Why it was cut, if that was our doing.
    why: Option<Why>,
}

/// Why a connection is ended from this end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
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
pub struct Counted(Arc<Link>);

impl Drop for Counted {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.counted = state.counted.saturating_sub(1);
        self.0.sockets().over(state.road.was_opened()).dec();
    }
}

/// The result of sending frames to a socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sent {
    /// They are on their way. A mark behind them, for [`Link::has_read_to`].
    Yes(u64),
    /// The socket is to be sent nothing for now.
    Closed,
    /// Not sent: packets that the library was given must go first, or the transport is long-polling. Send through the
    /// library.
    Library,
}

impl Link {
    /// Creates the link of a session that is connecting.
    pub(super) fn new(common: &Arc<Common>) -> Self {
        Self { common: common.clone(), ..Self::default() }
    }

    fn sockets(&self) -> &Sockets {
        &self.common.sockets
    }

    /// Counts its socket as connected, until what is returned is dropped.
    pub fn counted(self: &Arc<Self>) -> Counted {
        let mut state = self.state.lock();
        state.counted = state.counted.saturating_add(1);
        self.sockets().over(state.road.was_opened()).inc();
        Counted(self.clone())
    }

    /// Creates the link of a WebSocket that is no session's.
    pub(super) fn of_its_own(stream: TcpStream) -> Arc<Self> {
        let link = Arc::<Self>::default();
        // It has none.
        let _ = link.set_stream(stream, false);
        link
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
        state.road.hold_against(self.common.waiting.record(payer, state.road.held_bytes()));
    }

    /// Is it not known yet who its client is? Without limits nobody asks.
    pub fn is_unidentified(&self) -> bool {
        self.state.lock().unidentified.is_some()
    }

    /// Whose it is, once that is known.
    pub fn payer(&self) -> Option<Payer> {
        self.state.lock().road.payer()
    }

    /// Has the socket read enough to be sent more?
    pub fn is_open(&self) -> bool {
        !self.is_cut() && self.state.lock().account.is_open(Instant::now())
    }

    /// Has the socket read so much that it may be sent what it has missed?
    pub fn has_room(&self) -> bool {
        !self.is_cut() && self.state.lock().account.has_room(Instant::now())
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
    /// is looked at once. `rest`: see [`Road::put`].
    pub fn send(&self, frames: &[IoSlice<'_>], rest: impl Fn(usize, usize) -> Bytes, now: Instant) -> Sent {
        if self.is_owed() { Sent::Closed } else { self.send_next(frames, rest, now) }
    }

    /// The same for what waits, whose turn it is.
    pub fn send_next(
        &self,
        frames: &[IoSlice<'_>],
        rest: impl Fn(usize, usize) -> Bytes,
        now: Instant,
    ) -> Sent {
        if self.is_cut() {
            return Sent::Closed;
        }
        let mut state = self.state.lock();
        if !state.account.is_open(now) {
            return Sent::Closed;
        }
        let State { account, road, .. } = &mut *state;
        if !road.is_clear() {
            return Sent::Library;
        }
        account.record_sent(frames.iter().map(|frame| frame.len()).sum());
        if account.is_due(now) {
            // In one go: a ping by itself costs as much as they do.
            let ping = ping(account.ask(now));
            road.put(&[frames, &[IoSlice::new(&ping)]].concat(), |part, from| match part == frames.len() {
                true => Bytes::copy_from_slice(&ping[from..]),
                false => rest(part, from),
            });
        } else {
            road.put(frames, rest);
        }
        Sent::Yes(account.sent())
    }

    /// Reserves room for bytes that will wait for the socket, or that have come of a message. It returns `false` when
    /// the caller's budget has no more room.
    pub fn hold(&self, bytes: usize) -> bool {
        self.state.lock().road.hold(bytes)
    }

    /// The same for what the library is to be given next.
    pub fn may_give(&self, bytes: usize) -> bool {
        self.state.lock().road.may_give(bytes)
    }

    /// Gives back room that [`Link::hold`] has reserved.
    pub fn release(&self, bytes: usize) {
        self.state.lock().road.release(bytes);
    }

    /// Holds room for a binary attachment, which the library keeps until its event is whole. The connection is ended
    /// where there is no more.
    pub(super) fn record_attachment(&self, bytes: usize) {
        let is_held = {
            let State { road, attached, .. } = &mut *self.state.lock();
            let is_held = road.hold(bytes);
            *attached += if is_held { bytes } else { 0 };
            is_held
        };
        if !is_held {
            self.cut_for(Why::TooMuchWaits);
        }
    }

    /// Gives the room back: the next message of the client has come, so the library keeps no attachment any more.
    pub(super) fn release_attachments(&self) {
        let State { road, attached, .. } = &mut *self.state.lock();
        road.release(std::mem::take(attached));
    }

    /// Counts events of lists that the socket will not be sent: too much waited for it.
    pub fn record_unlisted(&self, dropped: u64) {
        self.sockets().unlisted.inc_by(dropped);
    }

    /// The library is about to be given an event or an ack of so many bytes, for which [`Link::may_give`] found room.
    /// Returns a mark behind it, for [`Link::has_read_to`].
    pub fn give(&self, bytes: usize) -> u64 {
        let State { account, road, .. } = &mut *self.state.lock();
        road.give(bytes);
        account.record_sent(bytes);
        if !road.was_opened() {
            account.expect_poll(Instant::now());
        }
        account.sent()
    }

    /// The library did not take it.
    pub fn take_back(&self) {
        self.state.lock().road.take_back();
    }

    /// Bytes that the library was given and has not written yet.
    #[cfg(test)]
    pub fn given_bytes(&self) -> usize {
        self.state.lock().road.given_bytes()
    }

    /// Is it allowed to ask for another namespace once more? There is none but the main one.
    pub fn may_wander(&self) -> bool {
        self.wanderings.fetch_add(1, Ordering::Relaxed) < WANDERINGS
    }

    /// Changes the state, and wakes whoever waits for the socket if it may then be sent more.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let now = Instant::now();
        let before = (state.account.is_open(now), state.account.has_room(now));
        let changed = change(&mut state);
        if (state.account.is_open(now), state.account.has_room(now)) > before {
            self.common.opened.notify_one();
        }
        changed
    }

    /// Asks for confirmation; returns a mark behind all that was sent, for [`Link::has_read_to`].
    pub fn mark(&self) -> u64 {
        let state = &mut *self.state.lock();
        state.account.hurry();
        state.ask();
        state.account.sent()
    }

    /// Is everything before this mark proved to be read?
    pub fn has_read_to(&self, mark: u64) -> bool {
        self.state.lock().account.has_read_to(mark)
    }

    /// Is everything proved to be read?
    pub fn has_read(&self) -> bool {
        self.state.lock().account.unread() == 0
    }

    /// Gives the link a WebSocket.
    ///
    /// # Errors
    /// The stream: there was one before, which counts.
    pub(super) fn set_stream(&self, stream: TcpStream, is_upgrade: bool) -> Result<(), TcpStream> {
        let State { account, road, counted, .. } = &mut *self.state.lock();
        road.open(stream, is_upgrade)?;
        account.forget_question();
        self.sockets().over(false).dec_by((*counted).into());
        self.sockets().over(true).inc_by((*counted).into());
        Ok(())
    }

    /// The WebSocket is gone, and with it the session.
    pub(super) fn lose_stream(&self) {
        self.cut();
        self.state.lock().road.close();
    }

    /// Is there, or was there, a WebSocket?
    pub(super) fn has_websocket(&self) -> bool {
        self.state.lock().road.was_opened()
    }

    /// Reads what the library is to read.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state.lock().road.poll_read(cx, buffer)
    }

    /// Writes what the library has to write.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.change(|state| {
            let written = ready!(state.road.poll_write(cx, bytes))?;
            state.ask();
            Poll::Ready(Ok(written))
        })
    }

    /// Puts a frame on the way between two of the library's, at the beginning of one that it stands for.
    pub(super) fn put(&self, frame: Bytes) {
        self.state.lock().road.put(&[IoSlice::new(&frame)], |_, from| frame.slice(from..));
    }

    /// The library has nothing more to write.
    pub(super) fn shut_down(&self) -> io::Result<()> {
        match self.state.lock().road.stream() {
            Some(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            None => Ok(()),
        }
    }

    /// Is there nothing of ours that waits for the kernel? If there will be, `reader` is woken.
    pub(super) fn is_drained(&self, reader: &Waker) -> bool {
        let road = &mut self.state.lock().road;
        road.wake_when_pending(reader);
        !road.has_pending()
    }

    /// The client has sent a pong. One that nobody asked for confirms nothing.
    pub(super) fn record_pong(&self, payload: &[u8]) {
        self.change(|state| {
            if state.account.confirm(payload) {
                state.ask();
            }
        });
    }

    /// The client has sent messages.
    pub(super) fn record_messages(&self, messages: usize) {
        let state = &mut *self.state.lock();
        (0..messages).for_each(|_| state.road.record_message());
        state.ask();
    }

    /// Checks whether the client has confirmed nothing, or the library has written nothing, for so long.
    pub(super) fn is_unanswered_for(&self, time: Duration) -> bool {
        let state = self.state.lock();
        state.account.is_unanswered_for(time) || state.road.is_stuck_for(time)
    }

    /// Was it ended from here?
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// Is it about to be?
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// Ends the connection of a client that does not read.
    pub fn give_up(&self, why: Why) {
        if self.end(Some(why)) {
            self.sockets().given_up.inc();
        }
    }

    /// Ends the connection for a reason of ours.
    pub fn cut_for(&self, why: Why) {
        self.end(Some(why));
    }

    /// Ends the connection at once, whatever waits to be sent; the client connects again. Not the library's
    /// disconnect, which waits in the same queue and tells the client to stay away.
    pub fn cut(&self) {
        self.end(None);
    }

    /// `true`: it had not ended before.
    fn end(&self, why: Option<Why>) -> bool {
        let mut state = self.state.lock();
        let is_first = !self.is_cut.swap(true, Ordering::Relaxed);
        if is_first {
            state.why = why;
            if !state.road.was_opened()
                && let Some(polling) = &state.polling
            {
                // There is a session to end, and what is on its way of an answer.
                self.common.end_session(polling.session());
                polling.abort_answer();
            }
        }
        if let Some(stream) = state.road.stream() {
            // Without waiting for its other end. Gone already, if either fails.
            let _ = stream.set_zero_linger();
            let _ = SockRef::from(stream).shutdown(Shutdown::Both);
        }
        is_first
    }

    /// Why it was ended; `None`: not from here, or not at all.
    pub fn why(&self) -> Option<Why> {
        self.state.lock().why
    }
}

impl State {
    /// Asks for confirmation, if it is time and everything that was sent is on the wire.
    fn ask(&mut self) {
        let now = Instant::now();
        if self.account.is_due(now) && self.road.is_clear() {
            let ping = ping(self.account.ask(now));
            self.road.put(&[IoSlice::new(&ping)], |_, from| Bytes::copy_from_slice(&ping[from..]));
        }
    }
}
