//! Whether an answer has reached its client.
//!
//! An answer that the kernel has taken may still be lost: its client may have closed the connection before the answer
//! came, or before it read it. Either way the client's kernel resets the connection, and that error is looked for here.
//! Long-polling needs this, to send what was lost once more.

use std::{
    convert::Infallible,
    io,
    os::fd::AsFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use socket2::Socket;
use tokio::{net::TcpStream, sync::Notify};

/// The answers of one connection, of which one is under way at a time. It is in the extensions of the connection's
/// requests.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The answer under way, or the last one. Written when an answer begins.
    last: Mutex<Option<Delivery>>,
    /// Whether the connection is to end before the rest of the answer is written.
    is_aborted: AtomicBool,
    /// The task that waits for the kernel to take more, to be woken by an abort.
    writer: Mutex<Option<Waker>>,
}

impl Answers {
    /// Follows an answer with this body. `keeps_alive` says that the client means to keep the connection open
    /// afterwards.
    pub fn follow(&self, body: Bytes, keeps_alive: bool) -> (FollowedBody, Delivery) {
        let (state, changed, socket) = (AtomicU8::new(WAITING), Notify::new(), Mutex::default());
        let delivery = Delivery(Arc::new(Progress { state, changed, keeps_alive, socket }));
        let former = self.0.last.lock().replace(delivery.clone());
        if let Some(Delivery(former)) = former {
            // Its client has sent another request, so it has read the answer. The copy would keep the connection open.
            former.socket.lock().take();
        }
        (FollowedBody { body: Some(body), delivery: delivery.clone() }, delivery)
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

    /// The kernel has taken everything that HTTP has written.
    pub(super) fn record_flush(&self, stream: &TcpStream) {
        let last = self.0.last.lock();
        let Some(Delivery(last)) = last.as_ref().filter(|last| last.0.state() == TAKEN) else { return };
        // A copy of the socket, because HTTP may close its own before anybody asks for the error. Without a copy
        // nothing more is found out.
        *last.socket.lock() = stream.as_fd().try_clone_to_owned().ok().map(Socket::from);
        last.advance(TAKEN, DELIVERED);
    }

    /// The connection has failed.
    pub(super) fn record_error(&self, error: &io::Error) {
        if let Some(Delivery(last)) = self.0.last.lock().as_ref().filter(|last| last.0.is_refused_by(error)) {
            last.advance(DELIVERED, LOST);
        }
    }

    /// The connection is gone, and with it an answer that the kernel has not taken.
    pub(super) fn lose_last(&self) {
        if let Some(delivery) = self.0.last.lock().take() {
            delivery.0.lose();
        }
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.0.is_aborted.load(Ordering::Acquire)
    }

    pub(super) fn wake_on_abort(&self, writer: &Waker) {
        *self.0.writer.lock() = Some(writer.clone());
    }
}

/// Tells whether an answer has been handed to the kernel, and whether its client has refused it there.
#[derive(Clone, Debug)]
pub struct Delivery(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    /// The state is one of the constants below, and only ever changes to a later one.
    state: AtomicU8,
    changed: Notify,
    keeps_alive: bool,
    /// A copy of the connection's socket, for its error. Set when the answer is written, taken by the first question.
    socket: Mutex<Option<Socket>>,
}

/// HTTP has not taken the body yet.
const WAITING: u8 = 0;
/// HTTP has taken the body and is writing it.
const TAKEN: u8 = 1;
/// The kernel has taken all of the answer.
const DELIVERED: u8 = 2;
/// The answer will not reach its client.
const LOST: u8 = 3;

impl Progress {
    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    /// Says whether this error of the connection means that the client has not read the answer.
    fn is_refused_by(&self, error: &io::Error) -> bool {
        match error.kind() {
            // The client had closed the connection before the answer came.
            io::ErrorKind::BrokenPipe => true,
            // The client gave the connection up with the answer unread. Only proxies that open a connection for each
            // request end it in this way when they have read the answer.
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
    /// Waits for the end of the answer. Returns `true` if it was handed to the kernel and its client has not refused it
    /// so far, `false` if it is lost.
    pub async fn done(&self) -> bool {
        loop {
            let changed = self.0.changed.notified();
            match self.0.state() {
                DELIVERED => return !self.check_refused(),
                LOST => return false,
                _ => changed.await,
            }
        }
    }

    /// Looks at the connection's error, once: the copy of the socket is closed.
    fn check_refused(&self) -> bool {
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
