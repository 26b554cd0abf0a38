//! The TCP stream under a WebSocket, as the library is given it: passes bytes on, and knows where frames begin and end.
//!
//! Owning this stream lets the gateway insert frames of its own (`outbound.rs`) and see the pongs that answer its pings
//! (`inbound.rs`). The stream also ends a connection whose other end takes no bytes for too long, which nothing above
//! it would do.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{
    connection::Connection,
    end_reason::EndReason,
    inbound::{Found, Inbound},
    read_turns::ReadTurns,
    refusal,
    unidentified::UNIDENTIFIED_BYTES,
    upgrade::LIBRARY_ANSWER_BYTES,
};

#[cfg(test)]
mod tests;

/// Bytes of an unfinished message that are not held against the caller's budget.
const FREE_MESSAGE_BYTES: usize = 16 * 1024;

pub struct Stream {
    /// Owns the TCP stream itself.
    connection: Arc<Connection>,
    /// Bytes that the HTTP side has read already.
    already_read: Bytes,
    inbound: Inbound,
    /// The connection may hold bytes of attachments.
    has_attachments: bool,
    /// Bytes that the connection holds for a message that has not ended.
    reserved: usize,
    /// Bytes of the library that are not to be written: its answer to a probe, which `upgrade.rs` has answered.
    skipped: usize,
    /// The library has begun to read.
    has_reader: bool,
    /// The rounds in which the caller's sockets read, once the caller is known.
    read_turns: Option<Arc<ReadTurns>>,
    /// Time for which the other end may take no bytes.
    write_timeout: Duration,
    /// Runs while the other end takes no bytes.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// Creates the stream of a connection. With `is_upgrade` its session has been polling.
    pub fn new(
        stream: TcpStream,
        already_read: Bytes,
        connection: Arc<Connection>,
        is_upgrade: bool,
        write_timeout: Duration,
    ) -> Self {
        // A second WebSocket of a session gets a connection of its own, so that it cannot harm the first.
        let connection = match connection.open_websocket(stream, is_upgrade) {
            Ok(()) => connection,
            Err(stream) => Connection::detached(stream),
        };
        if connection.is_aborted() {
            // It was aborted before it had this stream, which has to be closed too.
            connection.abort();
        }
        Self {
            connection,
            already_read,
            inbound: Inbound::default(),
            // Attachments may have come while the session was polling.
            has_attachments: is_upgrade,
            reserved: 0,
            skipped: if is_upgrade { LIBRARY_ANSWER_BYTES } else { 0 },
            has_reader: false,
            read_turns: None,
            write_timeout,
            deadline: None,
        }
    }

    /// Writes bytes as soon as the kernel takes some.
    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.connection.poll_write(cx, bytes) {
            Poll::Ready(written) => {
                self.deadline = None;
                Poll::Ready(written)
            }
            Poll::Pending => self.poll_deadline(cx),
        }
    }

    /// Writes what is pending of our own frames, because the library may have nothing to write after them.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.connection.watch_pending(cx.waker()) {
            true => self.poll_write_bytes(cx, &[]).map_ok(drop),
            false => Poll::Ready(Ok(())),
        }
    }

    /// Waits until the other end has taken no bytes for too long, and returns an error then.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
        ready!(deadline.as_mut().poll(cx));
        self.abort_unread()
    }

    /// Aborts the connection. The error alone would go unnoticed until the next read.
    fn abort_unread(&self) -> Poll<io::Result<usize>> {
        self.connection.abort_unread(EndReason::Unread);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Returns whether the caller's sockets may read now. If not, the reader is woken when they may.
    fn poll_turn(&mut self, cx: &Context<'_>) -> bool {
        if self.read_turns.is_none() {
            self.read_turns = self.connection.read_turns();
        }
        self.read_turns.as_ref().is_none_or(|turns| turns.poll_turn(cx.waker()))
    }

    /// Acts on what is in the bytes of the client: takes pongs, counts messages and attachments, and ends a connection
    /// that asks for other namespaces too often.
    fn inspect(&mut self, bytes: &mut [u8]) {
        let (mut messages, mut is_malformed) = (0, false);
        let Self { connection, inbound, has_attachments, .. } = self;
        let frames = inbound.inspect(bytes, |found| match found {
            Found::Pong(payload) => connection.record_pong(payload),
            Found::Text { is_socket_io, wants_other_namespace } => {
                messages += 1;
                if is_socket_io && std::mem::take(has_attachments) {
                    connection.release_attachments();
                }
                is_malformed |= wants_other_namespace && !connection.record_other_namespace();
            }
            Found::Kept(bytes) => {
                *has_attachments = true;
                connection.record_attachment(bytes);
            }
        });
        if let Some(turns) = &self.read_turns {
            turns.record_read(frames);
        }
        if is_malformed {
            self.connection.abort_for(EndReason::Malformed);
        }
        self.reserve_unfinished();
        if messages > 0 {
            self.connection.record_messages(messages);
        }
    }

    /// Reserves bytes for a message that has begun to come. The library keeps them for as long as the client likes, so
    /// the connection is ended if the caller's budget has no room for them.
    fn reserve_unfinished(&mut self) {
        let unfinished = self.inbound.unfinished_bytes();
        let wanted = if unfinished > FREE_MESSAGE_BYTES { unfinished } else { 0 };
        if wanted > self.reserved {
            let is_too_long = wanted > UNIDENTIFIED_BYTES && self.connection.is_unidentified();
            if is_too_long || !self.connection.reserve(wanted - self.reserved) {
                self.connection.abort_for(EndReason::TooMuchWaits);
                return;
            }
        } else if wanted < self.reserved {
            self.connection.release(self.reserved - wanted);
        }
        self.reserved = wanted;
    }
}

/// The session ends with its stream, even if the library never used the stream: it would leave the session between its
/// transports, and answer every poll with nothing.
impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.close_websocket();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.has_reader = true;
        if let Poll::Ready(Err(e)) = this.poll_drain(cx) {
            return Poll::Ready(Err(e));
        }
        if !this.poll_turn(cx) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.already_read.is_empty() {
            ready!(this.connection.poll_read(cx, buffer))?;
        } else {
            let length = this.already_read.len().min(buffer.remaining());
            // Splitting off the last bytes also drops the buffer that they were read into.
            buffer.put_slice(&this.already_read.split_to(length));
        }
        this.inspect(&mut buffer.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The kernel or a proxy may go on taking bytes that the client never reads. Each heartbeat of the library is an
        // occasion to notice that.
        if self.connection.is_unanswered_for(2 * self.write_timeout) {
            return self.abort_unread();
        }
        if self.skipped > 0 {
            let skipped = self.skipped.min(bytes.len());
            self.skipped -= skipped;
            return Poll::Ready(Ok(skipped));
        }
        if self.connection.is_closing()
            && let Some(replacement) = refusal::find_refusal(bytes)
        {
            if replacement.start == 0 {
                self.connection.send_instead(replacement.frame);
                return Poll::Ready(Ok(replacement.length));
            }
            bytes = &bytes[..replacement.start];
        }
        match ready!(self.poll_write_bytes(cx, bytes)) {
            // The library creates a session before it writes. If that write fails it forgets the session, and nothing
            // would end it, so the library has to find the error by reading.
            Err(_) if !self.has_reader => Poll::Ready(Ok(bytes.len())),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll_drain(cx)) {
            Err(_) if !self.has_reader => Poll::Ready(Ok(())),
            drained => Poll::Ready(drained),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.connection.shut_down_writing())
    }
}
