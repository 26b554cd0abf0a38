//! The TCP stream under a WebSocket, as the library is given it: passes bytes on, and knows where frames begin
//! and end.
//!
//! That is what it takes to slip in frames of our own (`outbound.rs`) and to see the answers to those that ask for
//! confirmation (`connection.rs`). It also ends a connection whose other end takes nothing for too long, which
//! nothing above it would do.

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
    connection::{Connection, EndReason},
    frames::{BINARY, Ended, Frames, PONG, TEXT, is_begun, is_control, opcode},
    payload::{DECISIVE_BYTES, ELSEWHERE, MESSAGE, NOOP, announces_attachments},
    readers::Readers,
    refusal,
    transport::UNIDENTIFIED_BYTES,
    upgrade::LIBRARY_ANSWER_BYTES,
};

/// Every client may send a heartbeat at any time. It takes the place of a [`NOOP`], which Swift's client sends after an
/// upgrade.
const HEARTBEAT: u8 = b'2';

/// Bytes of an unfinished message that every client may have for nothing.
const FREE_BYTES: usize = 16 * 1024;

pub struct Stream {
    /// Has the TCP stream itself.
    connection: Arc<Connection>,
    /// Read by the HTTP side already.
    first: Bytes,
    inbound: Frames,
    /// Bytes of the frames of a message that goes on in another.
    begun: u64,
    /// The library keeps the message that has begun until its event is whole: a binary attachment, or the text before it.
    is_kept: bool,
    /// The client's connection may hold room for attachments.
    has_attachments: bool,
    /// What the client's connection holds for a message that has not come to its end.
    held: usize,
    /// Bytes of the library's that are not to be written: its answer to a probe, which has been answered.
    left_out: usize,
    /// Something was read from it, or will not be any more.
    has_read: bool,
    /// The turns of the sockets of its caller, once that caller is known.
    readers: Option<Arc<Readers>>,
    /// How long the other end may take nothing.
    patience: Duration,
    /// Runs while it takes nothing.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// `is_upgrade`: of a session that has been polling.
    pub fn new(
        stream: TcpStream,
        first: Bytes,
        connection: Arc<Connection>,
        is_upgrade: bool,
        patience: Duration,
    ) -> Self {
        // A second WebSocket of a session comes to nothing, without harm to the first.
        let connection = match connection.set_stream(stream, is_upgrade) {
            Ok(()) => connection,
            Err(stream) => Connection::of_its_own(stream),
        };
        if connection.is_aborted() {
            // Before there was anything to cut.
            connection.abort();
        }
        let left_out = if is_upgrade { LIBRARY_ANSWER_BYTES } else { 0 };
        Self {
            connection,
            first,
            inbound: Frames::default(),
            begun: 0,
            is_kept: false,
            // Some may have come while the session was polling.
            has_attachments: is_upgrade,
            held: 0,
            left_out,
            has_read: false,
            readers: None,
            patience,
            deadline: None,
        }
    }

    /// Writes what can be written, as soon as that is something.
    fn put(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.connection.poll_write(cx, bytes) {
            Poll::Ready(done) => {
                self.deadline = None;
                Poll::Ready(done)
            }
            Poll::Pending => self.blocked(cx),
        }
    }

    /// Writes what is left of frames that are not the library's: it may have none to come after them.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.connection.is_drained(cx.waker()) {
            true => Poll::Ready(Ok(())),
            false => self.put(cx, &[]).map_ok(drop),
        }
    }

    /// Checks whether the sockets of this caller may read now.
    fn may_read(&mut self, cx: &Context<'_>) -> bool {
        if self.readers.is_none() {
            self.readers = self.connection.readers();
        }
        self.readers.as_ref().is_none_or(|readers| readers.may_read(cx.waker()))
    }

    /// Holds room for a message that has begun to come. The library keeps what it has of it for as long as the client
    /// likes, so a client for which there is no more room is cut off.
    fn hold_unfinished(&mut self) {
        let unfinished = self.begun.saturating_add(self.inbound.unfinished()) as usize;
        let wanted = if unfinished > FREE_BYTES { unfinished } else { 0 };
        if wanted > self.held {
            let is_too_long = wanted > UNIDENTIFIED_BYTES && self.connection.is_unidentified();
            if is_too_long || !self.connection.hold(wanted - self.held) {
                self.connection.abort_for(EndReason::TooMuchWaits);
                return;
            }
        } else if wanted < self.held {
            self.connection.release(self.held - wanted);
        }
        self.held = wanted;
    }

    /// Follows the frames in what was read: takes pongs, counts messages and attachments, and ends a connection that
    /// wants another namespace too often. A packet that means nothing becomes a heartbeat.
    fn follow(&mut self, bytes: &mut [u8]) {
        let (mut frames, mut messages, mut is_elsewhere) = (0, 0, false);
        let Self { connection, inbound, begun, is_kept, has_attachments, .. } = self;
        let mut noops = Vec::new();
        inbound.pass(bytes, |Ended { first, start, length, end }| {
            frames += 1;
            let is_whole = !is_begun(first) && *begun == 0;
            match opcode(first) {
                PONG => connection.record_pong(start),
                BINARY => *is_kept = true,
                TEXT => {
                    messages += 1;
                    let is_cut = is_begun(first) && start.len() < DECISIVE_BYTES;
                    *is_kept = is_cut || announces_attachments(start);
                    if start.starts_with(MESSAGE.as_bytes()) && std::mem::take(has_attachments) {
                        connection.release_attachments();
                    }
                    // In pieces so small that it cannot be seen what it is, counts too.
                    let is_hidden = is_begun(first) && start.len() < ELSEWHERE.len();
                    let is_other = start.starts_with(ELSEWHERE.as_bytes()) || is_hidden;
                    is_elsewhere |= is_other && !connection.may_wander();
                    if is_whole && length == 1 && start == NOOP.as_bytes() {
                        noops.push(end - 1);
                    }
                }
                _ => {}
            }
            if !is_control(first) {
                *begun = begun.saturating_add(length);
                if !is_begun(first) {
                    let whole = std::mem::take(begun);
                    if *is_kept {
                        *has_attachments = true;
                        connection.record_attachment(whole as usize);
                    }
                }
            }
        });
        for last in noops {
            // XOR changes the byte in the same way under a mask.
            bytes[last] ^= NOOP.as_bytes()[0] ^ HEARTBEAT;
        }
        if let Some(readers) = &self.readers {
            readers.record(frames);
        }
        if is_elsewhere {
            self.connection.abort_for(EndReason::Malformed);
        }
        self.hold_unfinished();
        if messages > 0 {
            self.connection.record_messages(messages);
        }
    }

    /// Polls the deadline of a stream that takes nothing; an error once it is over.
    fn blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        ready!(deadline.as_mut().poll(cx));
        self.end()
    }

    /// An error alone would go unnoticed until the next read.
    fn end(&self) -> Poll<io::Result<usize>> {
        self.connection.abort_unread(EndReason::Unread);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The end of the session, also if it never got as far as using this stream: the library would leave it
/// between its transports, and answer every poll that there is nothing new.
impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.lose_stream();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.has_read = true;
        if let Poll::Ready(Err(e)) = this.drain(cx) {
            return Poll::Ready(Err(e));
        }
        if !this.may_read(cx) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.first.is_empty() {
            ready!(this.connection.poll_read(cx, buffer))?;
        } else {
            let length = this.first.len().min(buffer.remaining());
            // Of the last, nothing is kept.
            buffer.put_slice(&this.first.split_to(length));
        }
        this.follow(&mut buffer.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The kernel or a proxy may go on taking heartbeats. Each is a look at whether anybody reads them.
        if self.connection.is_unanswered_for(2 * self.patience) {
            return self.end();
        }
        if self.left_out > 0 {
            let left_out = self.left_out.min(bytes.len());
            self.left_out -= left_out;
            return Poll::Ready(Ok(left_out));
        }
        if self.connection.is_closing()
            && let Some(replaced) = refusal::find(bytes)
        {
            if replaced.start == 0 {
                self.connection.put(replaced.frame);
                return Poll::Ready(Ok(replaced.length));
            }
            bytes = &bytes[..replaced.start];
        }
        match ready!(self.put(cx, bytes)) {
            // The library makes a session before it writes, and forgets it if it cannot; nobody would end it. It
            // is to find out by reading.
            Err(_) if !self.has_read => Poll::Ready(Ok(bytes.len())),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.drain(cx)) {
            Err(_) if !self.has_read => Poll::Ready(Ok(())),
            drained => Poll::Ready(drained),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.connection.shut_down())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::IoSlice,
        sync::atomic::{AtomicU64, Ordering},
        time::Instant,
    };

    use bytes::BytesMut;
    use futures_util::{FutureExt, future::join_all};
    use socket2::SockRef;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpSocket},
        time::timeout,
    };

    use super::super::{
        connection::SendOutcome,
        connections::Connections,
        frames::{self, NONCE_BYTES, PING},
        metrics::SocketMetrics,
    };
    use super::*;
    use crate::domain::{access::Payer, id::UserId};

    /// Fills the outbound, so that a ping does not fit; returns how much was put on it.
    fn fill(stream: &TcpStream) -> usize {
        let mut filled = 0;
        while let Ok(written) = stream.try_write(&[0; 4096]) {
            filled += written;
        }
        filled
    }

    /// The library may have nothing more to write, and the socket be sent nothing before it has answered.
    #[tokio::test]
    async fn what_did_not_fit_follows_as_soon_as_it_does() {
        for is_flushed in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            server.writable().await.unwrap();
            let (connection, patience) = (Arc::<Connection>::default(), Duration::from_secs(60));
            let connected = text("40{}");
            let filled = fill(&server);
            let mut stream = Stream::new(server, Bytes::new(), connection.clone(), false, patience);
            let mut bytes = vec![0; filled];
            client.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&connected).await.unwrap();
            client.read_exact(&mut bytes[..connected.len()]).await.unwrap();
            let filled = fill(connection.state.lock().outbound.stream().unwrap());
            let frame = Bytes::from(text("42[]"));
            let sent =
                connection.send(&[IoSlice::new(&frame)], |_, from| frame.slice(from..), Instant::now());
            assert!(matches!(sent, SendOutcome::Sent(_)), "{sent:?}");
            let used = tokio::spawn(async move {
                if is_flushed {
                    stream.flush().await.unwrap();
                }
                while stream.read_u8().await.is_ok() {}
            });
            let mut bytes = vec![0; filled + frame.len() + 2 + NONCE_BYTES];
            let read = timeout(Duration::from_secs(5), client.read_exact(&mut bytes)).await;
            read.expect("a ping").unwrap();
            let (own, ping) = bytes[filled..].split_at(frame.len());
            assert_eq!((own, ping[0], ping[1]), (&*frame, 0x80 | PING, NONCE_BYTES as u8));
            client.write_all(&[&[0x80 | PONG, 0x88, 0, 0, 0, 0], &ping[2..]].concat()).await.unwrap();
            timeout(Duration::from_secs(5), async {
                while !connection.has_read() {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect("the pong counts");
            used.abort();
        }
    }

    /// However many sockets of one caller have something to say, others' work goes between, and who is gone while it
    /// waits holds up nobody.
    #[tokio::test]
    async fn sockets_of_one_caller_take_turns() {
        const SOCKETS: usize = 200;
        let connections = Connections::new(SocketMetrics::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let speaking = async |user| {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            client.write_all(&text("42[]")).await.unwrap();
            server.readable().await.unwrap();
            let connection = connections.create();
            connection.identify(Payer::User(UserId::new(user).unwrap()));
            (client, Stream::new(server, Bytes::new(), connection, false, Duration::from_secs(60)))
        };
        let mut one = Vec::new();
        for _ in 0..SOCKETS {
            one.push(speaking(1).await);
        }
        let mut other = speaking(2).await;
        let read = |(_, stream): &mut (TcpStream, Stream)| {
            stream.read(&mut [0; 256]).now_or_never().is_some_and(|read| read.is_ok())
        };
        let at_once = one.iter_mut().filter_map(|socket| read(socket).then_some(())).count();
        assert!((1..SOCKETS / 4).contains(&at_once), "{at_once}");
        assert!(read(&mut other));
        // Among them are some that wait.
        one.truncate(SOCKETS / 2);
        let rest = one.split_off(at_once);
        let all = rest.into_iter().map(|(client, mut stream)| async move {
            assert!(stream.read(&mut [0; 256]).await.unwrap() > 0);
            drop(client);
        });
        timeout(Duration::from_secs(10), join_all(all)).await.expect("all have their turn");
    }

    /// A connection whose outbound is narrow.
    async fn pair(patience: Duration) -> (TcpStream, Stream, Arc<Connection>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        SockRef::from(&server).set_send_buffer_size(4096).unwrap();
        let connection = Arc::<Connection>::default();
        (client, Stream::new(server, Bytes::new(), connection.clone(), false, patience), connection)
    }

    fn text(payload: &str) -> Vec<u8> {
        [&frames::header(payload.len()), payload.as_bytes()].concat()
    }

    /// The library writes in pieces of any length, on one thread; others send frames of their own, on another.
    /// The client confirms what it reads.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn frames_of_both_kinds_stay_whole_and_in_order() {
        const EACH: usize = 3_000;
        let (client, stream, connection) = pair(Duration::from_secs(60)).await;
        let (mut read, mut write) = tokio::io::split(stream);
        let given = Arc::<AtomicU64>::default();
        let counted = given.clone();
        let library = {
            let connection = connection.clone();
            let writing = async move {
                write.write_all(&text("40{}")).await.unwrap();
                for n in 0..EACH {
                    assert!(connection.hold(100));
                    connection.give(100);
                    given.fetch_add(1, Ordering::SeqCst);
                    let frame = text(&format!("42[\"library\",{n},\"{}\"]", "x".repeat(n * 7 % 900)));
                    for piece in frame.chunks(1 + n % 400) {
                        write.write_all(piece).await.unwrap();
                    }
                    if n % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                write.flush().await.unwrap();
            };
            // In one task: the library too sees to it that both are woken.
            let reading = async move { while read.read_u8().await.is_ok() {} };
            tokio::spawn(async move { tokio::join!(writing, reading) })
        };
        let own = tokio::spawn(async move {
            let (mut n, mut by_library) = (0, 0);
            while n < EACH {
                // Read before: what the library is given after it may be overtaken.
                let given = counted.load(Ordering::SeqCst);
                let frames = [0, 1].map(|more| {
                    let pad = "y".repeat(n * 13 % 3_000);
                    Bytes::from(text(&format!("42[\"own\",{},{given},\"{pad}\"]", n + more)))
                });
                let slices = [IoSlice::new(&frames[0]), IoSlice::new(&frames[1])];
                match connection.send(&slices, |part, from| frames[part].slice(from..), Instant::now()) {
                    SendOutcome::Sent(_) => n += 2,
                    SendOutcome::Closed => tokio::task::yield_now().await,
                    SendOutcome::ByLibrary => {
                        by_library += 1;
                        tokio::task::yield_now().await;
                    }
                }
            }
            by_library
        });
        let (mut from, mut to) = client.into_split();
        let seen = tokio::spawn(async move {
            let (mut library, mut own, mut pings) = (0, 0, 0);
            let mut bytes = BytesMut::new();
            while library < EACH || own < EACH {
                let mut follower = Frames::default();
                let whole = (1..=bytes.len()).find(|at| {
                    let mut ended = false;
                    follower.pass(&bytes[at - 1..*at], |_| ended = true);
                    ended
                });
                let Some(length) = whole else {
                    assert_ne!(from.read_buf(&mut bytes).await.unwrap(), 0, "the end");
                    continue;
                };
                let frame = bytes.split_to(length);
                if frame[0] == 0x80 | PING {
                    pings += 1;
                    to.write_all(&[&[0x80 | PONG, 0x88, 0, 0, 0, 0], &frame[2..]].concat()).await.unwrap();
                    continue;
                }
                let header = if frame[1] == 126 { 4 } else { 2 };
                let payload = str::from_utf8(&frame[header..]).unwrap();
                if payload.starts_with("40") {
                    continue;
                }
                let parts: serde_json::Value = serde_json::from_str(&payload[2..]).unwrap();
                match parts[0].as_str().unwrap() {
                    "library" => {
                        assert_eq!(parts[1], library);
                        library += 1;
                    }
                    _ => {
                        assert_eq!(parts[1], own);
                        assert!(parts[2].as_u64().unwrap() <= library as u64, "{parts} overtook {library}");
                        own += 1;
                    }
                }
            }
            pings
        });
        let (seen, own) = timeout(Duration::from_secs(60), async { tokio::join!(seen, own) }).await.unwrap();
        println!("{} pings, {} times by the library", seen.unwrap(), own.unwrap());
        library.abort();
    }
}
