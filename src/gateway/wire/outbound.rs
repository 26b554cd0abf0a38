//! The outgoing bytes of one connection: frames of the library and frames of our own, one after the other.
//!
//! Our own are pings and finished text frames. Those go to the kernel at once, past the library's queue, its
//! tasks and its copies; but never past a packet that the library was given before: the sizes of what it was given
//! and has not written yet are kept. For long-polling, where the library writes everything, only that is here.

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
    frames::{Frames, TEXT, opcode},
    payload::each_packet,
};
use crate::{domain::access::Payer, net::byte_budget::Reservation};

/// What the client of a session that leaves long-polling says first: `2probe` and `5`. Until then the library
/// takes nothing else, not even the answer to a ping.
const UPGRADE_MESSAGES: u8 = 2;

#[derive(Debug, Default)]
pub struct Outbound {
    /// While there is a WebSocket. Here and not behind a pointer, because each delivery comes by.
    stream: Option<TcpStream>,
    /// There was one.
    was_opened: bool,
    /// Messages to come before anything of ours may go.
    unready: u8,
    /// Follows what the library writes.
    frames: Frames,
    /// What the kernel did not take of our own frames, shared with every other socket that is sent the same. It goes
    /// before anything else, and is a part of what is unread, which the account bounds.
    pending: VecDeque<Bytes>,
    /// Whoever reads the WebSocket, to be woken when something is pending.
    reader: Option<Waker>,
    packets: Packets,
}

/// Bytes that the library may hold for a client that polls, where that is more than one packet: all of it fits into the
/// next answer. What does not, it may lose when the client changes to a WebSocket.
const MAX_GIVEN: usize = 512 * 1024;

/// What the library was given and has not written yet.
#[derive(Debug)]
struct Given {
    sizes: VecDeque<u32>,
    /// When it was last given something, or wrote something of that.
    at: Instant,
}

/// Events and acks that the library was given.
#[derive(Debug, Default)]
struct Packets {
    /// The sizes of those that it has not written yet, oldest first; `None`: none. Apart, because each delivery comes
    /// by and nearly always finds none.
    waiting: Option<Box<Given>>,
    /// Their sum.
    bytes: usize,
    /// The client has been told that it is in the main namespace.
    is_connected: bool,
    /// What they and whatever else waits for the socket hold of the budget of whoever has the socket; until that is
    /// known, of their address.
    held: Option<Box<Reservation<Payer>>>,
}

impl Packets {
    /// A packet was written.
    fn record_written(&mut self, packet: &[u8]) {
        match packet {
            [b'4', b'0', ..] => self.is_connected = true,
            [b'4', b'2' | b'3', ..] => {
                let bytes = self.waiting.as_mut().and_then(|waiting| {
                    waiting.at = Instant::now();
                    waiting.sizes.pop_front()
                });
                self.forget(bytes);
            }
            _ => {}
        }
    }

    fn forget(&mut self, bytes: Option<u32>) {
        let bytes = bytes.unwrap_or_default() as usize;
        self.waiting.take_if(|waiting| waiting.sizes.is_empty());
        self.bytes -= bytes;
        if let Some(held) = &mut self.held {
            held.shrink(bytes);
        }
    }
}

impl Outbound {
    /// There is a WebSocket.
    ///
    /// # Errors
    /// The stream, where there was one before.
    pub fn open(&mut self, stream: TcpStream, is_upgrade: bool) -> Result<(), TcpStream> {
        if std::mem::replace(&mut self.was_opened, true) {
            return Err(stream);
        }
        self.stream = Some(stream);
        self.unready = if is_upgrade { UPGRADE_MESSAGES } else { 0 };
        Ok(())
    }

    pub fn was_opened(&self) -> bool {
        self.was_opened
    }

    pub fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    /// The WebSocket is gone.
    pub fn close(&mut self) {
        self.stream = None;
        self.pending = VecDeque::new();
        self.reader = None;
    }

    /// A message of the client has come.
    pub fn record_message(&mut self) {
        self.unready = self.unready.saturating_sub(1);
    }

    /// From now on whatever waits for the socket is held against this budget.
    pub fn hold_against(&mut self, budget: Reservation<Payer>) {
        self.packets.held = Some(Box::new(budget));
    }

    /// Whose budget that is.
    pub fn payer(&self) -> Option<Payer> {
        self.packets.held.as_ref().map(|held| held.key())
    }

    /// Reserves room for bytes that are to wait for the socket. `false`: there is none.
    pub fn hold(&mut self, bytes: usize) -> bool {
        self.packets.held.as_mut().is_none_or(|held| held.grow(bytes))
    }

    /// The same for what the library is to be given next.
    pub fn may_give(&mut self, bytes: usize) -> bool {
        let given = self.packets.bytes;
        let fits = self.was_opened || given == 0 || given + bytes <= MAX_GIVEN;
        fits && self.hold(bytes)
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.packets.held.as_ref().map_or(0, |held| held.bytes())
    }

    /// Has the library written nothing for so long, though it was given something?
    pub fn is_stuck_for(&self, time: Duration) -> bool {
        self.was_opened && self.packets.waiting.as_ref().is_some_and(|given| given.at.elapsed() > time)
    }

    /// Gives back room that [`Outbound::hold`] has reserved.
    pub fn release(&mut self, bytes: usize) {
        if let Some(held) = &mut self.packets.held {
            held.shrink(bytes);
        }
    }

    /// The library is about to be given an event or an ack of so many bytes, for which [`Outbound::may_give`] found room.
    pub fn give(&mut self, bytes: usize) {
        let new = || Box::new(Given { sizes: VecDeque::new(), at: Instant::now() });
        self.packets.waiting.get_or_insert_with(new).sizes.push_back(bytes as u32);
        self.packets.bytes += bytes;
    }

    /// It did not take it.
    pub fn take_back(&mut self) {
        let bytes = self.packets.waiting.as_mut().and_then(|waiting| waiting.sizes.pop_back());
        self.packets.forget(bytes);
    }

    /// Bytes that the library was given and has not written yet.
    pub fn given_bytes(&self) -> usize {
        self.packets.bytes
    }

    /// Takes note of the packets in an answer to a poll.
    pub fn record_answer(&mut self, body: &[u8], has_lengths: bool) {
        let Ok(text) = str::from_utf8(body) else { return };
        let Ok(_) = each_packet(text, has_lengths, |packet| {
            self.packets.record_written(packet.as_bytes());
            Ok::<_, Infallible>(())
        });
    }

    /// Reads what the client has sent.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_read(cx, buffer),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Writes what is pending of our own frames, and then what the library has to write, as far as the kernel takes
    /// it.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream: Some(stream), frames, pending, packets, .. } = self else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        while let Some(first) = pending.front_mut() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, first))?;
            first.advance(written);
            if first.is_empty() {
                pending.pop_front();
            }
        }
        // A socket that keeps up keeps no memory for it.
        *pending = VecDeque::new();
        let written = ready!(Pin::new(stream).poll_write(cx, bytes))?;
        frames.pass(&bytes[..written], |frame| {
            if opcode(frame.first) == TEXT {
                packets.record_written(frame.start);
            }
        });
        Poll::Ready(Ok(written))
    }

    /// Do frames of ours wait for the kernel?
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Remembers whom to wake when something of ours waits for the kernel.
    pub fn wake_when_pending(&mut self, reader: &Waker) {
        if !self.reader.as_ref().is_some_and(|known| known.will_wake(reader)) {
            self.reader = Some(reader.clone());
        }
    }

    /// May a frame of ours go now: between two frames of the library's, and behind all that it was given?
    pub fn is_clear(&self) -> bool {
        self.stream.is_some()
            && self.unready == 0
            && self.packets.is_connected
            && self.packets.waiting.is_none()
            && self.frames.is_between()
    }

    /// Puts frames of ours on the way, which may come in several parts. `rest` gives what follows a byte of a part,
    /// where the kernel did not take it. Only while [`Outbound::is_clear`], or where the library would begin a frame.
    pub fn put(&mut self, parts: &[IoSlice<'_>], rest: impl Fn(usize, usize) -> Bytes) {
        let Some(stream) = &self.stream else { return };
        let mut written = 0;
        if !self.has_pending() {
            let socket = SockRef::from(stream);
            let sent = match parts {
                [part] => socket.send(part),
                parts => socket.send_vectored(parts),
            };
            // An end of the connection is seen by whoever reads it.
            written = sent.unwrap_or(0);
        }
        for (number, part) in parts.iter().enumerate() {
            let gone = written.min(part.len());
            written -= gone;
            if gone < part.len() {
                self.pending.push_back(rest(number, gone));
            }
        }
        if self.has_pending()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}
