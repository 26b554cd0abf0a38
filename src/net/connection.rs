//! A TCP stream under HTTP.
//!
//! The stream gives up a client that takes an answer too slowly, counts the bytes of request heads, and tells
//! [`Answers`] when an answer has been handed to the kernel. Whether the client has read it is found out in
//! `delivery.rs`.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{delivery::Answers, heads::Head};

/// Bytes of one read. HTTP reads ahead into a buffer that grows as long as reads fill it, and no budget counts that.
const MAX_READ: usize = 16 * 1024;
/// The rate at which a client must take an answer that does not fit into the kernel's buffer.
const MIN_BYTES_PER_SECOND: u64 = 2 * 1024;

/// A TCP stream that HTTP is spoken over.
pub struct Connection {
    stream: TcpStream,
    /// The time for which the client may take less than [`MIN_BYTES_PER_SECOND`].
    patience: Duration,
    /// Set while the client takes less than there is: the end of its time, and the bytes it has taken meanwhile.
    slow: Option<(Pin<Box<Sleep>>, u64)>,
    answers: OpenAnswers,
    /// Counts the bytes of the request head that is being read.
    head: Head,
}

/// Loses the answer under way when the connection is dropped.
struct OpenAnswers(Answers);

impl Drop for OpenAnswers {
    fn drop(&mut self) {
        self.0.lose_last();
    }
}

impl Connection {
    /// Makes a connection of a stream, whose client may take an answer too slowly for as long as `patience`.
    pub fn new(stream: TcpStream, patience: Duration, head: Head) -> Self {
        Self { stream, patience, slow: None, answers: OpenAnswers(Answers::default()), head }
    }

    /// Returns a handle to the answers that are sent over it.
    pub fn answers(&self) -> Answers {
        self.answers.0.clone()
    }

    /// Returns the stream, to speak another protocol over it.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Counts the bytes that the client has taken. An error once it has taken too little for too long.
    fn check_rate(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                if let Some((_, taken)) = &mut self.slow {
                    *taken += *bytes as u64;
                }
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => {
                self.answers.0.wake_on_abort(cx.waker());
                let patience = self.patience;
                let (end, taken) = self.slow.get_or_insert_with(|| (Box::pin(sleep(patience)), 0));
                ready!(end.as_mut().poll(cx));
                if *taken < MIN_BYTES_PER_SECOND * patience.as_secs().max(1) {
                    return self.reset(io::ErrorKind::TimedOut);
                }
                self.slow = None;
                self.check_rate(cx, Poll::Pending)
            }
        }
    }

    /// Reads at most [`MAX_READ`] bytes.
    fn read_part(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.stream);
        if buffer.remaining() <= MAX_READ {
            return stream.poll_read(cx, buffer);
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(MAX_READ));
        ready!(stream.poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }

    /// Ends the connection, and drops the bytes that the kernel has not sent.
    fn reset(&self, reason: io::ErrorKind) -> Poll<io::Result<usize>> {
        // It fails if the connection is gone already.
        let _ = self.stream.set_zero_linger();
        Poll::Ready(Err(reason.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.read_part(cx, buffer)).inspect_err(|error| self.answers.0.record_error(error))?;
        match self.head.record_read(buffer.filled().len() - before) {
            true => Poll::Ready(Ok(())),
            false => Poll::Ready(Err(io::Error::other("too many request heads that have not come whole"))),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.answers.0.is_aborted() {
            return self.reset(io::ErrorKind::ConnectionAborted);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.check_rate(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.answers.0.is_aborted() {
            return self.reset(io::ErrorKind::ConnectionAborted);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.check_rate(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// HTTP calls this when the kernel has taken everything.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.slow = None;
        self.answers.0.record_flush(&self.stream);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
