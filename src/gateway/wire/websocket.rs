//! A connection's WebSocket, as the stream under it (`stream/`) reads, writes and ends it.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{io::ReadBuf, net::TcpStream};

use super::connection::{Connection, State};

impl Connection {
    /// Creates the connection of a WebSocket that belongs to no session.
    pub fn detached(stream: TcpStream) -> Arc<Self> {
        let connection = Arc::<Self>::default();
        // A new connection has no other stream.
        let _ = connection.open_websocket(stream, false);
        connection
    }

    /// Takes the stream of a WebSocket.
    ///
    /// # Errors
    /// The stream, if the connection has or had one already.
    pub fn open_websocket(&self, stream: TcpStream, is_upgrade: bool) -> Result<(), TcpStream> {
        let State { flow, outbound, counted, .. } = &mut *self.state.lock();
        outbound.open(stream, is_upgrade)?;
        flow.drop_question();
        self.metrics().connected(false).dec_by((*counted).into());
        self.metrics().connected(true).inc_by((*counted).into());
        Ok(())
    }

    /// Drops the stream, and ends the session with it.
    pub fn close_websocket(&self) {
        self.abort();
        self.state.lock().outbound.close();
    }

    /// Closes the stream for writing, because the library has nothing more to write.
    pub fn shut_down_writing(&self) -> io::Result<()> {
        match self.state.lock().outbound.stream() {
            Some(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            None => Ok(()),
        }
    }

    /// Reads bytes for the library.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state.lock().outbound.poll_read(cx, buffer)
    }

    /// Writes what is pending of our own frames, and then bytes of the library.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.change(|state| {
            let written = ready!(state.outbound.poll_write(cx, bytes))?;
            state.ask_if_due();
            Poll::Ready(Ok(written))
        })
    }

    /// Sends a frame in the place of one that the library is about to write.
    pub fn send_instead(&self, frame: Bytes) {
        self.state.lock().outbound.send(&[IoSlice::new(&frame)], |_, from| frame.slice(from..));
    }

    /// Returns whether frames of ours wait for the kernel, and has `reader` woken when there are some.
    pub fn watch_pending(&self, reader: &Waker) -> bool {
        self.state.lock().outbound.watch_pending(reader)
    }

    /// Records a pong of the client. A pong that answers no question confirms nothing.
    pub fn record_pong(&self, payload: &[u8]) {
        self.change(|state| {
            if state.flow.confirm(payload) {
                state.ask_if_due();
            }
        });
    }

    /// Counts messages that the client has sent.
    pub fn record_messages(&self, messages: usize) {
        let state = &mut *self.state.lock();
        state.outbound.record_messages(messages);
        state.ask_if_due();
    }
}
