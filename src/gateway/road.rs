//! The way out of a WebSocket: frames of the library and frames of our own, one after the other.
//!
//! Our own are pings and finished text frames. Those go to the kernel at once, past the library's queue, its
//! tasks and its copies; but never past a packet that the library was given before: what it is given and what
//! of that has gone out is counted.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    frames::{Frames, TEXT, opcode},
    transport::each_packet,
};

/// What the client of a session that leaves long-polling says first: `2probe` and `5`. Until then the library
/// takes nothing else, not even the answer to a ping.
const UPGRADE_MESSAGES: u8 = 2;

#[derive(Debug, Default)]
pub struct Road {
    /// While there is a WebSocket. Here and not behind a pointer, because each delivery comes by.
    stream: Option<TcpStream>,
    /// There was one.
    was_opened: bool,
    /// Messages to come before anything of ours may go.
    unready: u8,
    /// What the library writes.
    frames: Frames,
    /// Of our own, what the kernel did not take. It goes before anything else.
    pending: BytesMut,
    /// Whoever reads the WebSocket, to be woken when something is pending.
    reader: Option<Waker>,
    packets: Packets,
}

/// What has gone out of what the library has to send.
#[derive(Debug, Default)]
struct Packets {
    /// Events and acks that it was given, and how many of them have gone out.
    given: u64,
    passed: u64,
    /// The client has been told that it is in the main namespace.
    is_connected: bool,
}

impl Packets {
    fn passed(&mut self, packet: &[u8]) {
        match packet {
            [b'4', b'0', ..] => self.is_connected = true,
            [b'4', b'2' | b'3', ..] => self.passed += 1,
            _ => {}
        }
    }
}

impl Road {
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
        self.pending = BytesMut::new();
        self.reader = None;
    }

    /// A message of the client has come.
    pub fn heard(&mut self) {
        self.unready = self.unready.saturating_sub(1);
    }

    /// The library is about to be given an event or an ack.
    pub fn give(&mut self) {
        self.packets.given += 1;
    }

    #[cfg(test)]
    pub fn given(&self) -> u64 {
        self.packets.given
    }

    /// It did not take it.
    pub fn take_back(&mut self) {
        self.packets.given -= 1;
    }

    /// Counts the packets of an answer to a poll; whether nothing else was given. `None`: it cannot be followed.
    pub fn polled(&mut self, body: &[u8], has_lengths: bool) -> Option<bool> {
        let see = |packet: &str| {
            self.packets.passed(packet.as_bytes());
            Ok::<_, Infallible>(())
        };
        let Ok(is_framed) = each_packet(str::from_utf8(body).ok()?, has_lengths, see);
        is_framed.then_some(self.packets.given == self.packets.passed)
    }

    /// Reads what the client has sent.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_read(cx, buffer),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Writes what the library has to write, as far as the kernel takes it.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream: Some(stream), frames, pending, packets, .. } = self else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        while !pending.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, pending))?;
            pending.advance(written);
        }
        // A socket that keeps up keeps no memory for it.
        *pending = BytesMut::new();
        let written = ready!(Pin::new(stream).poll_write(cx, bytes))?;
        frames.pass(&bytes[..written], |first, start| {
            if opcode(first) == TEXT {
                packets.passed(start);
            }
        });
        Poll::Ready(Ok(written))
    }

    /// Is there nothing of ours that the kernel did not take? If there will be, `reader` is woken.
    pub fn is_drained(&mut self, reader: &Waker) -> bool {
        if !self.reader.as_ref().is_some_and(|known| known.will_wake(reader)) {
            self.reader = Some(reader.clone());
        }
        self.pending.is_empty()
    }

    /// May a frame of ours go now, between two of the library's?
    pub fn is_between(&self) -> bool {
        self.stream.is_some() && self.unready == 0 && self.frames.is_between()
    }

    /// And would an event overtake nothing?
    pub fn is_clear(&self) -> bool {
        self.packets.is_connected && self.packets.given == self.packets.passed && self.is_between()
    }

    /// Puts whole frames of ours on the way. Not before [`Road::is_between`].
    pub fn put(&mut self, frames: &[IoSlice<'_>]) {
        let Some(stream) = &self.stream else { return };
        let mut written = 0;
        if self.pending.is_empty() {
            let socket = SockRef::from(stream);
            let sent = match frames {
                [frame] => socket.send(frame),
                frames => socket.send_vectored(frames),
            };
            // An end of the connection is seen by whoever reads it.
            written = sent.unwrap_or(0);
        }
        for frame in frames {
            let gone = written.min(frame.len());
            written -= gone;
            self.pending.extend_from_slice(&frame[gone..]);
        }
        if !self.pending.is_empty()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}
