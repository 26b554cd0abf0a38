//! The outgoing bytes of one connection: the library's frames and our own, one after the other.
//!
//! Our own frames are pings and finished text frames. They go to the kernel at once, past the library's queue, its
//! tasks and its copies, but never past a packet that the library was given earlier. [`LibraryQueue`] knows which of
//! those the library has not written yet. Over long-polling the library writes everything, and only that queue is used.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    frames::{FrameTracker, TEXT},
    payload::each_packet,
};
use crate::{domain::access::Payer, net::byte_budget::Reservation};

/// Messages with which a client changes from long-polling to a WebSocket: `2probe` and `5`. Before them the library
/// accepts no other frame, not even a pong.
const UPGRADE_MESSAGES: u8 = 2;
/// Bytes of several packets that the library may hold for a client that polls. All of it fits into the next answer;
/// the library may lose what does not fit when the client changes to a WebSocket.
const MAX_LIBRARY_BYTES: usize = 512 * 1024;

#[derive(Debug, Default)]
pub struct Outbound {
    /// The stream while there is a WebSocket. It is not behind a pointer, because every delivery uses it.
    stream: Option<TcpStream>,
    /// There is, or was, a WebSocket.
    is_websocket: bool,
    /// Messages that the client must send before a frame of our own may go.
    awaited_messages: u8,
    /// Tracks the frames that the library writes.
    frames: FrameTracker,
    /// Our own frames, or parts of them, that the kernel did not take. They are shared with every other socket that
    /// is sent the same. They go before anything else, and count as unread, so the flow's window bounds them.
    pending: VecDeque<Bytes>,
    /// The task that reads the WebSocket, to be woken when something is pending.
    reader: Option<Waker>,
    library: LibraryQueue,
    /// The bytes that wait for the socket, in the library or elsewhere, held against the budget of its caller, or of
    /// its address until the caller is known.
    reservation: Option<Box<Reservation<Payer>>>,
}

/// The events and acks that the library was given and has not written yet.
#[derive(Debug, Default)]
struct LibraryQueue {
    /// `None` if there are none, which is nearly always so. It is behind a pointer because every delivery looks at it.
    unwritten: Option<Box<Unwritten>>,
    /// The sum of their sizes.
    bytes: usize,
    /// The library has told the client that it is in the main namespace.
    is_connected: bool,
}

#[derive(Debug)]
struct Unwritten {
    /// The sizes of the packets, oldest first.
    sizes: VecDeque<u32>,
    /// The time at which the library was given a packet while it had none, or has written one.
    last_progress: Instant,
}

impl LibraryQueue {
    fn push(&mut self, bytes: usize) {
        let new = || Box::new(Unwritten { sizes: VecDeque::new(), last_progress: Instant::now() });
        self.unwritten.get_or_insert_with(new).sizes.push_back(bytes as u32);
        self.bytes += bytes;
    }

    /// Records that the library has written a packet. Returns the size of an event or an ack.
    fn record_written(&mut self, packet: &[u8]) -> usize {
        match packet {
            [b'4', b'0', ..] => {
                self.is_connected = true;
                0
            }
            [b'4', b'2' | b'3', ..] => self.remove(|unwritten| {
                unwritten.last_progress = Instant::now();
                unwritten.sizes.pop_front()
            }),
            _ => 0,
        }
    }

    /// Removes the newest packet, which the library did not take. Returns its size.
    fn remove_newest(&mut self) -> usize {
        self.remove(|unwritten| unwritten.sizes.pop_back())
    }

    fn remove(&mut self, pop: impl FnOnce(&mut Unwritten) -> Option<u32>) -> usize {
        let bytes = self.unwritten.as_mut().and_then(|unwritten| pop(unwritten)).unwrap_or_default() as usize;
        self.unwritten.take_if(|unwritten| unwritten.sizes.is_empty());
        self.bytes -= bytes;
        bytes
    }
}

/// Bytes to and from the WebSocket.
impl Outbound {
    /// Takes the stream of a WebSocket.
    ///
    /// # Errors
    /// The stream, if there is or was a WebSocket already.
    pub fn open(&mut self, stream: TcpStream, is_upgrade: bool) -> Result<(), TcpStream> {
        if std::mem::replace(&mut self.is_websocket, true) {
            return Err(stream);
        }
        self.stream = Some(stream);
        self.awaited_messages = if is_upgrade { UPGRADE_MESSAGES } else { 0 };
        Ok(())
    }

    /// Drops the stream and what was pending.
    pub fn close(&mut self) {
        self.stream = None;
        self.pending = VecDeque::new();
        self.reader = None;
    }

    /// Returns whether there is, or was, a WebSocket.
    pub fn is_websocket(&self) -> bool {
        self.is_websocket
    }

    pub fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    /// Counts messages that the client has sent.
    pub fn record_messages(&mut self, messages: usize) {
        let messages = u8::try_from(messages).unwrap_or(u8::MAX);
        self.awaited_messages = self.awaited_messages.saturating_sub(messages);
    }

    /// Reads bytes that the client has sent.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_read(cx, buffer),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Writes what is pending, and then bytes of the library, as far as the kernel takes them.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream: Some(stream), frames, pending, library, reservation, .. } = self else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        while let Some(first) = pending.front_mut() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, first))?;
            first.advance(written);
            if first.is_empty() {
                pending.pop_front();
            }
        }
        // A client that reads in time costs no memory for pending frames.
        *pending = VecDeque::new();
        let written = ready!(Pin::new(stream).poll_write(cx, bytes))?;
        frames.advance(&bytes[..written], |frame| {
            if frame.opcode() == TEXT {
                shrink(reservation, library.record_written(frame.start));
            }
        });
        Poll::Ready(Ok(written))
    }

    /// Returns whether frames of ours wait for the kernel, and has `reader` woken when there are some.
    pub fn watch_pending(&mut self, reader: &Waker) -> bool {
        if !self.reader.as_ref().is_some_and(|known| known.will_wake(reader)) {
            self.reader = Some(reader.clone());
        }
        self.has_pending()
    }

    fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Returns whether a frame of ours may be sent now: between two frames of the library, and behind all that it was
    /// given.
    pub fn can_send(&self) -> bool {
        self.stream.is_some()
            && self.awaited_messages == 0
            && self.library.is_connected
            && self.library.unwritten.is_none()
            && self.frames.is_at_boundary()
    }

    /// Sends frames of ours, which may come in several parts. `rest(part, from)` returns the bytes of a part from that
    /// offset on, for the bytes that the kernel does not take. This may be called only if [`Outbound::can_send`], or
    /// where the library would begin a frame.
    pub fn send(&mut self, parts: &[IoSlice<'_>], rest: impl Fn(usize, usize) -> Bytes) {
        let Some(stream) = &self.stream else { return };
        let mut written = 0;
        if !self.has_pending() {
            let socket = SockRef::from(stream);
            let sent = match parts {
                [part] => socket.send(part),
                parts => socket.send_vectored(parts),
            };
            // The reader of the stream notices an error.
            written = sent.unwrap_or(0);
        }
        for (number, part) in parts.iter().enumerate() {
            let taken = written.min(part.len());
            written -= taken;
            if taken < part.len() {
                self.pending.push_back(rest(number, taken));
            }
        }
        if self.has_pending()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}

/// The packets given to the library, and the caller's budget for all bytes that wait.
impl Outbound {
    /// Holds what waits for the socket against another budget from now on.
    pub fn set_reservation(&mut self, reservation: Reservation<Payer>) {
        self.reservation = Some(Box::new(reservation));
    }

    /// Returns the owner of the budget.
    pub fn payer(&self) -> Option<Payer> {
        self.reservation.as_ref().map(|reservation| reservation.key())
    }

    /// Returns the number of bytes reserved now.
    pub fn reserved_bytes(&self) -> usize {
        self.reservation.as_ref().map_or(0, |reservation| reservation.bytes())
    }

    /// Reserves bytes that are to wait for the socket. Returns `false` if the budget has no room for them.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        self.reservation.as_mut().is_none_or(|reservation| reservation.grow(bytes))
    }

    /// Reserves bytes of a packet that the library is to be given. Returns `false` if there is no room for them.
    pub fn reserve_for_library(&mut self, bytes: usize) -> bool {
        let given = self.library.bytes;
        let fits = self.is_websocket || given == 0 || given + bytes <= MAX_LIBRARY_BYTES;
        fits && self.reserve(bytes)
    }

    /// Gives back bytes that were reserved.
    pub fn release(&mut self, bytes: usize) {
        shrink(&mut self.reservation, bytes);
    }

    /// Records that the library is about to be given a packet, for which [`Outbound::reserve_for_library`] found room.
    pub fn record_given(&mut self, bytes: usize) {
        self.library.push(bytes);
    }

    /// Records that the library did not take the last packet.
    pub fn record_not_taken(&mut self) {
        let bytes = self.library.remove_newest();
        self.release(bytes);
    }

    /// Returns the number of bytes that the library was given and has not written yet.
    pub fn library_bytes(&self) -> usize {
        self.library.bytes
    }

    /// Returns whether the library has written nothing to a WebSocket for longer than this, though it was given
    /// packets.
    pub fn is_library_stuck_for(&self, time: Duration) -> bool {
        let is_stuck = |unwritten: &Unwritten| unwritten.last_progress.elapsed() > time;
        self.is_websocket && self.library.unwritten.as_deref().is_some_and(is_stuck)
    }

    /// Records the packets in an answer to a poll as written.
    pub fn record_answer(&mut self, body: &[u8], has_lengths: bool) {
        let Ok(text) = str::from_utf8(body) else { return };
        let Ok(_) = each_packet(text, has_lengths, |packet| {
            shrink(&mut self.reservation, self.library.record_written(packet.as_bytes()));
            Ok::<_, Infallible>(())
        });
    }
}

fn shrink(reservation: &mut Option<Box<Reservation<Payer>>>, bytes: usize) {
    if let Some(reservation) = reservation {
        reservation.shrink(bytes);
    }
}
