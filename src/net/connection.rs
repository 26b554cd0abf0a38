//! A connection under HTTP: gives up a client that takes an answer too slowly, and tells when an answer has been
//! handed to the kernel.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::{Sleep, sleep},
};

use super::heads::Head;

/// Bytes of one read. HTTP reads ahead into a buffer that grows as long as reads fill it, and no budget counts that.
const MAX_READ: usize = 16 * 1024;
/// A client that does not take all there is takes at least so many bytes a second.
const LOWEST_RATE: u64 = 2 * 1024;

/// A TCP stream that HTTP is spoken over.
pub struct Connection {
    stream: TcpStream,
    /// How long the client may take less than [`LOWEST_RATE`].
    patience: Duration,
    /// Runs while there is more than the client takes: its end, and what it has taken since.
    slow: Option<(Pin<Box<Sleep>>, u64)>,
    answers: LastAnswer,
    /// Counts what has come of a request's head.
    head: Head,
}

/// The answer under way, which is lost when the connection ends.
struct LastAnswer(Answers);

impl Drop for LastAnswer {
    fn drop(&mut self) {
        if let Some(delivery) = self.0.0.last.lock().take() {
            delivery.0.lose();
        }
    }
}

impl Connection {
    /// Takes a stream over; its client may take too little of an answer for as long as `patience`.
    pub fn new(stream: TcpStream, patience: Duration, head: Head) -> Self {
        Self { stream, patience, slow: None, answers: LastAnswer(Answers::default()), head }
    }

    /// What follows the answers that are sent over it.
    pub fn answers(&self) -> Answers {
        self.answers.0.clone()
    }

    /// The stream, when something else than HTTP is to be spoken over it.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Counts what the client has taken; an error once it has taken too little for too long.
    fn check(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                if let Some((_, taken)) = &mut self.slow {
                    *taken += bytes as u64;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.answers.0.wake_on_abort(cx.waker());
                let patience = self.patience;
                let (end, taken) = self.slow.get_or_insert_with(|| (Box::pin(sleep(patience)), 0));
                ready!(end.as_mut().poll(cx));
                if *taken < LOWEST_RATE * patience.as_secs().max(1) {
                    return self.end(io::ErrorKind::TimedOut);
                }
                self.slow = None;
                return self.check(cx, Poll::Pending);
            }
        }
        written
    }
}

impl Connection {
    /// Ends the connection, and with it what the kernel has not sent.
    fn end(&self, why: io::ErrorKind) -> Poll<io::Result<usize>> {
        // Gone already, if it fails.
        let _ = self.stream.set_zero_linger();
        Poll::Ready(Err(why.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.stream);
        let before = buffer.filled().len();
        if buffer.remaining() <= MAX_READ {
            ready!(stream.poll_read(cx, buffer))?;
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(MAX_READ));
            ready!(stream.poll_read(cx, &mut part))?;
            let read = part.filled().len();
            buffer.advance(read);
        }
        match self.head.record_read(buffer.filled().len() - before) {
            true => Poll::Ready(Ok(())),
            false => Poll::Ready(Err(io::Error::other("too many request heads that have not come whole"))),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.answers.0.is_aborted() {
            return self.end(io::ErrorKind::ConnectionAborted);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.check(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.answers.0.is_aborted() {
            return self.end(io::ErrorKind::ConnectionAborted);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.check(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// HTTP calls this when the kernel has taken everything.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.slow = None;
        self.answers.0.record_flush();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The answers of one connection, of which one is under way at a time. In the extensions of its requests.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The answer under way. Written when one begins and when it has gone.
    last: Mutex<Option<Delivery>>,
    /// What is under way is not to be handed out any more.
    is_aborted: AtomicBool,
    /// Whoever waits for the kernel, to be woken then.
    writer: Mutex<Option<Waker>>,
}

impl Answers {
    /// Follows an answer with this body.
    pub fn follow(&self, body: Bytes) -> (FollowedBody, Delivery) {
        let delivery = Delivery(Arc::new(Progress { state: AtomicU8::new(WAITING), changed: Notify::new() }));
        *self.0.last.lock() = Some(delivery.clone());
        (FollowedBody { body: Some(body), delivery: delivery.clone() }, delivery)
    }

    fn record_flush(&self) {
        self.0.last.lock().take_if(|delivery| delivery.0.advance(TAKEN, DELIVERED));
    }

    /// Ends the connection if this answer is still under way on it.
    pub fn abort(&self, answer: &Delivery) {
        let is_last = self.0.last.lock().as_ref().is_some_and(|last| Arc::ptr_eq(&last.0, &answer.0));
        if is_last {
            self.0.is_aborted.store(true, Ordering::Release);
            if let Some(writer) = self.0.writer.lock().take() {
                writer.wake();
            }
        }
    }

    fn is_aborted(&self) -> bool {
        self.0.is_aborted.load(Ordering::Acquire)
    }

    fn wake_on_abort(&self, writer: &Waker) {
        *self.0.writer.lock() = Some(writer.clone());
    }
}

/// Whether an answer has been handed to the kernel.
#[derive(Clone, Debug)]
pub struct Delivery(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    /// One of the constants below; only ever changes from one to a later one.
    state: AtomicU8,
    changed: Notify,
}

/// HTTP has not taken the body yet; has taken it; has written all of it; never will.
const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const DELIVERED: u8 = 2;
const LOST: u8 = 3;

impl Progress {
    fn advance(&self, from: u8, to: u8) -> bool {
        let is_done = self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if is_done {
            self.changed.notify_waiters();
        }
        is_done
    }

    fn lose(&self) {
        let _ = self.advance(WAITING, LOST) || self.advance(TAKEN, LOST);
    }
}

impl Delivery {
    /// Waits for the end of the answer. `true`: it was handed to the kernel; `false`: it is lost.
    pub async fn done(&self) -> bool {
        loop {
            let changed = self.0.changed.notified();
            match self.0.state.load(Ordering::Acquire) {
                DELIVERED => return true,
                LOST => return false,
                _ => changed.await,
            }
        }
    }
}

/// The body of an answer that is followed.
#[derive(Debug)]
pub struct FollowedBody {
    body: Option<Bytes>,
    delivery: Delivery,
}

impl Body for FollowedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = self.body.take();
        if body.is_some() {
            self.delivery.0.advance(WAITING, TAKEN);
        }
        Poll::Ready(body.map(|body| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.as_ref().map_or(0, |body| body.len() as u64))
    }
}

impl Drop for FollowedBody {
    fn drop(&mut self) {
        if self.body.is_some() {
            self.delivery.0.lose();
        }
    }
}
