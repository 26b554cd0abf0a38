//! Frames of the library and our own on one stream, over real TCP connections.

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

use super::*;
use crate::{
    domain::{access::Payer, id::UserId},
    gateway::wire::{
        connection::SendOutcome,
        connections::Connections,
        frames::{self, FrameTracker, NONCE_BYTES, PING, PONG},
        metrics::SocketMetrics,
    },
};

const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Fills the socket's send buffer, so that a ping does not fit. Returns the number of bytes written.
fn fill(stream: &TcpStream) -> usize {
    let mut filled = 0;
    while let Ok(written) = stream.try_write(&[0; 4096]) {
        filled += written;
    }
    filled
}

/// The library may have nothing more to write, and the client be sent nothing more before it has answered.
#[tokio::test]
async fn what_did_not_fit_follows_as_soon_as_it_does() {
    for is_flushed in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        server.writable().await.unwrap();
        let connection = Arc::<Connection>::default();
        let connected = text("40{}");
        let filled = fill(&server);
        let mut stream = Stream::new(server, Bytes::new(), connection.clone(), false, WRITE_TIMEOUT);
        let mut bytes = vec![0; filled];
        client.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&connected).await.unwrap();
        client.read_exact(&mut bytes[..connected.len()]).await.unwrap();
        let filled = fill(connection.state.lock().outbound.stream().unwrap());
        let frame = Bytes::from(text("42[]"));
        let sent = connection.send(&[IoSlice::new(&frame)], |_, from| frame.slice(from..), Instant::now());
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
            while !connection.has_read_all() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the pong counts");
        used.abort();
    }
}

/// Other work runs between the reads of one caller's sockets, however many there are. A socket that is gone while it
/// waits holds up no other.
#[tokio::test]
async fn sockets_of_one_caller_take_turns() {
    const SOCKETS: usize = 200;
    let (connections, _) = Connections::new(SocketMetrics::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let speaking = async |user| {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(&text("42[]")).await.unwrap();
        server.readable().await.unwrap();
        let connection = connections.create();
        connection.identify(Payer::User(UserId::new(user).unwrap()));
        (client, Stream::new(server, Bytes::new(), connection, false, WRITE_TIMEOUT))
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
    // Some of the sockets that go away were waiting for their turn.
    one.truncate(SOCKETS / 2);
    let rest = one.split_off(at_once);
    let all = rest.into_iter().map(|(client, mut stream)| async move {
        assert!(stream.read(&mut [0; 256]).await.unwrap() > 0);
        drop(client);
    });
    timeout(Duration::from_secs(10), join_all(all)).await.expect("all have their turn");
}

/// Connects a client over TCP with small buffers.
async fn pair() -> (TcpStream, Stream, Arc<Connection>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    SockRef::from(&server).set_send_buffer_size(4096).unwrap();
    let connection = Arc::<Connection>::default();
    (client, Stream::new(server, Bytes::new(), connection.clone(), false, WRITE_TIMEOUT), connection)
}

fn text(payload: &str) -> Vec<u8> {
    [&frames::text_header(payload.len()), payload.as_bytes()].concat()
}

const FRAMES_OF_EACH: usize = 3_000;

/// The library writes in pieces of any length on one thread, while our own frames are sent on another. The client
/// confirms what it reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn frames_of_both_kinds_stay_whole_and_in_order() {
    let (client, stream, connection) = pair().await;
    let given = Arc::<AtomicU64>::default();
    let library = tokio::spawn(write_as_the_library(stream, connection.clone(), given.clone()));
    let own = tokio::spawn(send_own_frames(connection, given));
    let client = tokio::spawn(read_and_confirm(client));
    let (pings, by_library) =
        timeout(Duration::from_secs(60), async { tokio::join!(client, own) }).await.unwrap();
    println!("{} pings, {} times by the library", pings.unwrap(), by_library.unwrap());
    library.abort();
}

async fn write_as_the_library(stream: Stream, connection: Arc<Connection>, given: Arc<AtomicU64>) {
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = async move {
        write.write_all(&text("40{}")).await.unwrap();
        for n in 0..FRAMES_OF_EACH {
            assert!(connection.reserve_for_library(100));
            connection.record_given(100);
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
    // Both run in one task, as in the library, so that either may be woken for the other.
    let reading = async move { while read.read_u8().await.is_ok() {} };
    tokio::join!(writing, reading);
}

/// Returns how often frames had to be left to the library.
async fn send_own_frames(connection: Arc<Connection>, given: Arc<AtomicU64>) -> usize {
    let (mut n, mut by_library) = (0, 0);
    while n < FRAMES_OF_EACH {
        // This is read first, because packets that the library is given later may be overtaken.
        let given = given.load(Ordering::SeqCst);
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
}

/// Reads all frames and answers pings. Returns the number of pings.
async fn read_and_confirm(client: TcpStream) -> usize {
    let (mut from, mut to) = client.into_split();
    let (mut library, mut own, mut pings) = (0, 0, 0);
    let mut bytes = BytesMut::new();
    while library < FRAMES_OF_EACH || own < FRAMES_OF_EACH {
        let Some(length) = first_frame_length(&bytes) else {
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
}

fn first_frame_length(bytes: &[u8]) -> Option<usize> {
    let mut tracker = FrameTracker::default();
    (1..=bytes.len()).find(|at| {
        let mut has_ended = false;
        tracker.advance(&bytes[at - 1..*at], |_| has_ended = true);
        has_ended
    })
}
