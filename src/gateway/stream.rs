//! The TCP stream under a WebSocket: passes bytes on, and knows where frames begin and end.
//!
//! That is what it takes to slip in the ping frames that ask for confirmation (`link.rs`) and to see their
//! answers. It also ends a connection whose other end takes nothing for too long, which nothing above it
//! would do.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::link::{Link, cut};

/// A ping frame without payload, unmasked as a server's frames are (RFC 6455 §5.5.2).
const PING: [u8; 2] = [0x89, 0];
const PONG: u8 = 0xA;
const TEXT: u8 = 1;
/// What the client of a session that leaves long-polling says first: `2probe` and `5`. Until then the library
/// takes nothing else, not even the answer to a ping.
const UPGRADE_MESSAGES: u8 = 2;

pub struct Stream {
    stream: Arc<TcpStream>,
    link: Arc<Link>,
    /// Is it the one that the link knows?
    is_known: bool,
    /// Messages to come before confirmation may be asked for.
    unready: u8,
    /// Read by the HTTP side already.
    first: Bytes,
    inbound: Frames,
    outbound: Frames,
    /// What is left of a ping that is partly written.
    ping: &'static [u8],
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
        link: Arc<Link>,
        is_upgrade: bool,
        patience: Duration,
    ) -> Self {
        let stream = Arc::new(stream);
        Self {
            is_known: link.has_stream(&stream),
            unready: if is_upgrade { UPGRADE_MESSAGES } else { 0 },
            stream,
            link,
            first,
            inbound: Frames::default(),
            outbound: Frames::default(),
            ping: &[],
            patience,
            deadline: None,
        }
    }

    /// Writes what can be written now.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while !self.ping.is_empty() {
            let written = self.stream.try_write(self.ping)?;
            self.ping = &self.ping[written..];
        }
        let written = self.stream.try_write(bytes)?;
        self.outbound.pass(&bytes[..written], |_| {});
        Ok(written)
    }

    /// Asks for confirmation between two frames, if it is time.
    fn ask(&mut self) {
        if self.unready == 0 && self.ping.is_empty() && self.outbound.is_between() && self.link.asks() {
            self.ping = &PING;
            // What does not fit goes as soon as it does.
            let _ = self.try_write(&[]);
        }
    }

    /// Writes what can be written, as soon as that is something.
    fn put(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return self.blocked(cx),
            }
            match self.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.deadline = None;
                    return Poll::Ready(done);
                }
            }
        }
    }

    /// Writes what is left of a ping: there may be no next frame before its answer.
    fn put_ping(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.ping {
            [] => Poll::Ready(Ok(())),
            _ => self.put(cx, &[]).map_ok(drop),
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
        cut(&self.stream);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The end of the session, also if it never got as far as using this stream: the library would leave it
/// between its transports, and answer every poll that there is nothing new.
impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_known {
            self.link.cut();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(Err(e)) = this.put_ping(cx) {
            return Poll::Ready(Err(e));
        }
        let before = buffer.filled().len();
        if this.first.is_empty() {
            loop {
                ready!(this.stream.poll_read_ready(cx))?;
                match this.stream.try_read(buffer.initialize_unfilled()) {
                    Ok(read) => {
                        buffer.advance(read);
                        break;
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Poll::Ready(Err(e)),
                }
            }
        } else {
            let length = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first[..length]);
            this.first.advance(length);
        }
        let (mut is_confirmed, was_unready) = (false, this.unready > 0);
        this.inbound.pass(&buffer.filled()[before..], |opcode| match opcode {
            PONG => is_confirmed = true,
            TEXT => this.unready = this.unready.saturating_sub(1),
            _ => {}
        });
        if is_confirmed {
            this.link.confirmed();
        }
        if is_confirmed || was_unready {
            this.ask();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // The kernel or a proxy may go on taking heartbeats. Each is a look at whether anybody reads them.
        if self.link.is_unanswered_for(2 * self.patience) {
            return self.end();
        }
        let written = ready!(self.put(cx, bytes))?;
        self.ask();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.put_ping(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}

/// Follows the frames of a WebSocket (RFC 6455 §5.2) through bytes that come in any pieces.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; 14],
    /// Bytes of the header so far.
    have: usize,
    /// Bytes of the payload still to come.
    left: u64,
}

impl Frames {
    /// Passes over bytes; `begun` is told the opcode of each frame that begins.
    fn pass(&mut self, mut bytes: &[u8], mut begun: impl FnMut(u8)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let length = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= length as u64;
                bytes = &bytes[length..];
                continue;
            }
            self.header[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if let Some(length) = self.payload() {
                begun(self.header[0] & 0x0f);
                self.left = length;
                self.have = 0;
            }
        }
    }

    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// The length of the payload, once the header is complete.
    fn payload(&self) -> Option<u64> {
        let header = &self.header[..self.have];
        let second = *header.get(1)?;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (extended, length) = match second & 0x7f {
            126 => (2, u64::from(u16::from_be_bytes(header.get(2..4)?.try_into().ok()?))),
            127 => (8, u64::from_be_bytes(header.get(2..10)?.try_into().ok()?)),
            length => (0, u64::from(length)),
        };
        (header.len() >= 2 + extended + mask).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    use super::*;

    /// A frame as RFC 6455 §5.2 has it.
    fn frame(opcode: u8, length: usize, is_masked: bool) -> Vec<u8> {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        // Bytes that would be headers if they were taken for some.
        bytes.resize(bytes.len() + length + if is_masked { 4 } else { 0 }, 0x8a);
        bytes
    }

    /// Fills the road, so that a ping does not fit; returns how much was put on it.
    fn fill(stream: &mut Stream) -> usize {
        let mut filled = 0;
        while stream.ping.is_empty() {
            while let Ok(written) = stream.stream.try_write(&[0; 4096]) {
                filled += written;
            }
            stream.link.sent(1 << 20);
            stream.ask();
        }
        filled
    }

    /// The library may have nothing more to write, and the socket be sent nothing before it has answered.
    #[tokio::test]
    async fn a_ping_that_did_not_fit_follows_as_soon_as_it_does() {
        for is_flushed in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            server.writable().await.unwrap();
            let (link, patience) = (Arc::<Link>::default(), Duration::from_secs(60));
            let mut stream = Stream::new(server, Bytes::new(), link, false, patience);
            let filled = fill(&mut stream);
            let used = tokio::spawn(async move {
                if is_flushed {
                    stream.flush().await.unwrap();
                }
                stream.read_u8().await
            });
            let mut bytes = vec![0; filled + PING.len()];
            let read = timeout(Duration::from_secs(5), client.read_exact(&mut bytes)).await;
            read.expect("a ping").unwrap();
            assert_eq!(bytes[filled..], PING);
            used.abort();
        }
    }

    proptest! {
        #[test]
        fn frames_are_followed_through_pieces_of_any_length(
            frames in vec((0..16_u8, prop_oneof![0..300_usize, 65_530..65_540_usize], any::<bool>()), 1..6),
            pieces in vec(prop_oneof![1..5_usize, 1..40_000_usize], 1..50),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (opcode, length, is_masked) in &frames {
                bytes.extend(frame(*opcode, *length, *is_masked));
                ends.push(bytes.len());
            }
            let (mut follower, mut begun, mut at) = (Frames::default(), Vec::new(), 0);
            let mut pieces = pieces.iter().cycle();
            while at < bytes.len() {
                let to = bytes.len().min(at + pieces.next().unwrap());
                follower.pass(&bytes[at..to], |opcode| begun.push(opcode));
                at = to;
                prop_assert_eq!(follower.is_between(), ends.contains(&at));
            }
            prop_assert_eq!(begun, frames.iter().map(|(opcode, ..)| *opcode).collect::<Vec<_>>());
        }
    }
}
