//! A connection under HTTP: gives up a client that takes an answer too slowly, and tells when an answer has been
//! handed to the kernel and whether its client has refused it there.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    os::fd::AsFd,
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
use socket2::Socket;
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
    /// Reads [`MAX_READ`] at most.
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
        self.answers.0.record_flush(&self.stream);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The answers of one connection, of which one is under way at a time. In the extensions of its requests.
///
/// An answer that the kernel has taken may still come to nothing: its client may have closed the connection before it
/// came, or before it read it. Either way the client's kernel resets the connection.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The answer under way, or the last one. Written when one begins.
    last: Mutex<Option<Delivery>>,
    /// What is under way is not to be handed out any more.
    is_aborted: AtomicBool,
    /// Whoever waits for the kernel, to be woken then.
    writer: Mutex<Option<Waker>>,
}

impl Answers {
    /// Follows an answer with this body. `keeps_alive`: its client has not said that the connection ends with it.
    pub fn follow(&self, body: Bytes, keeps_alive: bool) -> (FollowedBody, Delivery) {
        let (state, changed, socket) = (AtomicU8::new(WAITING), Notify::new(), Mutex::default());
        let delivery = Delivery(Arc::new(Progress { state, changed, keeps_alive, socket }));
        let former = self.0.last.lock().replace(delivery.clone());
        if let Some(Delivery(former)) = former {
            // Its client has gone on, so it has read it. The copy would keep the connection open.
            former.socket.lock().take();
        }
        (FollowedBody { body: Some(body), delivery: delivery.clone() }, delivery)
    }

    fn record_flush(&self, stream: &TcpStream) {
        let last = self.0.last.lock();
        let Some(Delivery(last)) = last.as_ref().filter(|last| last.0.state() == TAKEN) else { return };
        // HTTP may close its own before the next poll comes. Without one nothing more is found out.
        *last.socket.lock() = stream.as_fd().try_clone_to_owned().ok().map(Socket::from);
        last.advance(TAKEN, DELIVERED);
    }

    /// The connection has failed.
    fn record_error(&self, error: &io::Error) {
        if let Some(Delivery(last)) = self.0.last.lock().as_ref().filter(|last| last.0.is_refused_by(error)) {
            last.advance(DELIVERED, LOST);
        }
    }

    /// Ends the connection if this answer is still under way on it.
    pub fn abort(&self, answer: &Delivery) {
        let is_last = self.0.last.lock().as_ref().is_some_and(|last| Arc::ptr_eq(&last.0, &answer.0));
        if is_last && answer.0.state() < DELIVERED {
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

/// Tells whether an answer has been handed to the kernel, and whether its client has refused it there.
#[derive(Clone, Debug)]
pub struct Delivery(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    /// One of the constants below; only ever changes from one to a later one.
    state: AtomicU8,
    changed: Notify,
    keeps_alive: bool,
    /// The connection, for its error. Set when the answer is written, taken when somebody asks.
    socket: Mutex<Option<Socket>>,
}

/// HTTP has not taken the body yet; has taken it; has written all of it; never will, or for nothing.
const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const DELIVERED: u8 = 2;
const LOST: u8 = 3;

impl Progress {
    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    /// Does this error of the connection mean that the client has not read the answer?
    fn is_refused_by(&self, error: &io::Error) -> bool {
        match error.kind() {
            // The client had closed the connection before the answer came.
            io::ErrorKind::BrokenPipe => true,
            // It gave the connection up, with the answer unread; only proxies that open one for each request end them
            // so when they have read it.
            io::ErrorKind::ConnectionReset => self.keeps_alive,
            _ => false,
        }
    }

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
    /// Waits for the end of the answer. `true`: it was handed to the kernel, and so far its client has not refused it;
    /// `false`: it is lost.
    pub async fn done(&self) -> bool {
        loop {
            let changed = self.0.changed.notified();
            match self.0.state() {
                DELIVERED => return !self.is_refused(),
                LOST => return false,
                _ => changed.await,
            }
        }
    }

    /// Looks at the connection's error, once: the copy of it is closed.
    fn is_refused(&self) -> bool {
        let Some(socket) = self.0.socket.lock().take() else { return false };
        let error = socket.take_error().ok().flatten();
        let is_refused = error.is_some_and(|error| self.0.is_refused_by(&error));
        if is_refused {
            self.0.advance(DELIVERED, LOST);
        }
        is_refused
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
