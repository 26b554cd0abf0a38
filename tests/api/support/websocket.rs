//! A Socket.IO 4 client by hand over WebSocket, frame by frame: it reads when it is told to, and sends what
//! a stock client never would.

use std::{net::SocketAddr, time::SystemTime};

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::clients::{ASIDE, PATIENCE};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CONTINUATION: u8 = 0;
const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The end of a handshake's answer.
const HEAD_END: &[u8] = b"\r\n\r\n";

pub struct WebSocket {
    pub id: String,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// Read and not yet looked at.
    unread: Vec<u8>,
    /// Bytes of `unread` that were looked at.
    done: usize,
    acks: u64,
}

/// What a client is sent.
#[derive(Debug)]
pub enum Seen {
    Position(Position),
    /// A `chat` that somebody sent.
    Relayed(Value),
    Ack(u64, Value),
    Exception(Value),
    RoomClosed(Value),
    /// The connection has ended.
    End,
}

/// A `chat` with a stored Feature.
#[derive(Debug)]
pub struct Position {
    pub room: u64,
    pub version: u64,
    /// Length of its body.
    pub bytes: usize,
    /// When it was committed.
    pub at: SystemTime,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chat {
    room_name: String,
    version: Option<u64>,
    message: Box<RawValue>,
}

#[derive(Deserialize)]
struct Stored {
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    updated_at: String,
}

impl Position {
    /// `None`: somebody's message.
    pub fn read(body: &str) -> Option<Self> {
        let Chat { room_name, version, message } = serde_json::from_str(body).expect("a chat");
        let version = version?;
        let stored: Stored = serde_json::from_str(message.get()).expect("a Feature");
        let at = humantime::parse_rfc3339(&stored.properties.updated_at).expect("a time");
        Some(Self { room: room_name.parse().expect("an id"), version, bytes: body.len(), at })
    }
}

impl Seen {
    /// A packet that is no ping.
    pub fn read(packet: &str) -> Self {
        if packet == "41" || packet == "1" {
            return Self::End;
        }
        if let Some(body) = packet.strip_prefix(r#"42["chat","#).and_then(|rest| rest.strip_suffix(']')) {
            return match Position::read(body) {
                Some(position) => Self::Position(position),
                None => Self::Relayed(serde_json::from_str(body).expect("a chat")),
            };
        }
        for (event, seen) in
            [("exception", Self::Exception as fn(Value) -> Self), ("room_closed", Self::RoomClosed)]
        {
            let body = packet.strip_prefix("42[\"").and_then(|rest| rest.strip_prefix(event));
            if let Some(body) = body.and_then(|rest| rest.strip_prefix("\",")?.strip_suffix(']')) {
                return seen(serde_json::from_str(body).expect("JSON"));
            }
        }
        let ack = packet.strip_prefix("43").and_then(|rest| rest.split_once('['));
        let (number, body) = ack.unwrap_or_else(|| panic!("{packet}"));
        let body = serde_json::from_str(body.strip_suffix(']').expect("one argument")).expect("JSON");
        Self::Ack(number.parse().expect("a number"), body)
    }
}

impl WebSocket {
    /// Connected to the namespace `/` of a gateway or of nginx.
    pub async fn connect(gateway: &str) -> Self {
        Self::connect_to(gateway, "/socket.io/", false).await
    }

    /// A narrow one has room for next to nothing on its way, as a slow road and not as loopback has.
    pub async fn connect_to(url: &str, path: &str, narrow: bool) -> Self {
        Self::connect_with(url, path, narrow, "").await
    }

    /// Who shows something in the handshake: the text of a JSON object.
    pub async fn connect_with(url: &str, path: &str, narrow: bool, auth: &str) -> Self {
        let mut client = Self::open(url, path, None, narrow).await;
        let open = client.text().await.expect("open");
        let open: Value = serde_json::from_str(open.strip_prefix('0').expect("open")).expect("JSON");
        client.id = open["sid"].as_str().expect("a sid").to_owned();
        client.send(&format!("40{auth}")).await;
        let connected = client.text().await.expect("connected");
        assert!(connected.starts_with("40{"), "{connected}");
        // That of the namespace is the one the log has.
        let connected: Value = serde_json::from_str(&connected[2..]).expect("JSON");
        client.id = connected["sid"].as_str().expect("a sid").to_owned();
        client
    }

    /// After the HTTP handshake; with a session that is to be taken over.
    pub async fn open(url: &str, path: &str, session: Option<&str>, narrow: bool) -> Self {
        let sid = session.map(|session| format!("&sid={session}")).unwrap_or_default();
        let host = url.strip_prefix("http://").expect("a URL");
        let request = format!(
            "GET {path}?EIO=4&transport=websocket{sid} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let (client, answer) = Self::shake_hands(url, &request, narrow).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        client
    }

    /// Sends a handshake as it is; returns the head of the answer too.
    pub async fn shake_hands(url: &str, request: &str, narrow: bool) -> (Self, String) {
        let addr: SocketAddr = url.strip_prefix("http://").expect("a URL").parse().expect("an address");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        if narrow {
            socket.set_recv_buffer_size(2048).expect("a socket");
            socket.set_tcp_mss(536).expect("a socket");
        }
        let stream: TcpStream =
            TcpSocket::from_std_stream(socket.into()).connect(addr).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let (from, to) = stream.into_split();
        let mut client = Self { id: String::new(), from, to, unread: Vec::new(), done: 0, acks: 0 };
        client.raw(request.as_bytes()).await;
        let end = loop {
            if let Some(at) = client.unread.windows(HEAD_END.len()).position(|part| part == HEAD_END) {
                break at + HEAD_END.len();
            }
            assert!(client.more().await, "an answer");
        };
        client.done = end;
        let head = String::from_utf8(client.unread[..end].to_vec()).expect("text");
        (client, head)
    }

    /// Of its own end of the connection.
    pub fn port(&self) -> u16 {
        self.from.local_addr().expect("an address").port()
    }

    /// Bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) {
        self.try_raw(bytes).await.expect("a connection");
    }

    /// The same; an error where the connection has ended.
    pub async fn try_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        timeout(PATIENCE, self.to.write_all(bytes)).await.expect("to be read")
    }

    /// Answers a ping that may have come, unless the connection has ended.
    pub async fn beat(&mut self) {
        self.answer(TEXT, b"3").await;
    }

    /// One packet in one frame.
    pub async fn send(&mut self, packet: &str) {
        self.raw(&frame(TEXT, true, packet.as_bytes())).await;
    }

    /// Sends an event; returns the number its ack will have.
    pub async fn emit(&mut self, event: &str, payload: &Value) -> u64 {
        self.acks += 1;
        self.send(&format!(r#"42{}["{event}",{payload}]"#, self.acks)).await;
        self.acks
    }

    /// The same where the connection may have ended, which reading will show.
    pub async fn try_emit(&mut self, event: &str, payload: &Value) {
        self.acks += 1;
        let packet = format!(r#"42{}["{event}",{payload}]"#, self.acks);
        let _ = self.try_raw(&frame(TEXT, true, packet.as_bytes())).await;
    }

    /// Joins rooms, and reads where they are.
    pub async fn join(&mut self, rooms: &[u64]) {
        for room in rooms {
            let ack = self.emit("join_room", &json!({"locationId": room})).await;
            let mut is_answered = false;
            loop {
                match self.next().await {
                    Seen::Ack(number, body) if number == ack => {
                        assert_eq!(body, json!(room.to_string()));
                        is_answered = true;
                    }
                    Seen::Position(position) if position.room == *room && is_answered => break,
                    Seen::Position(position) if rooms.contains(&position.room) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// The next thing to be seen. Answers pings of both kinds.
    pub async fn next(&mut self) -> Seen {
        let Some(packet) = self.text().await else { return Seen::End };
        Seen::read(&packet)
    }

    /// The next packet that is no ping and not [`ASIDE`]; none at the end.
    pub async fn text(&mut self) -> Option<String> {
        loop {
            let packet = self.any().await?;
            if !is_aside(&packet) {
                return Some(packet);
            }
        }
    }

    /// The next packet that is no ping; none at the end.
    pub async fn any(&mut self) -> Option<String> {
        loop {
            let (opcode, payload) = timeout(PATIENCE, self.frame()).await.expect("a frame")?;
            match opcode {
                TEXT => {
                    let packet = String::from_utf8(payload).expect("UTF-8");
                    if packet == "2" {
                        self.answer(TEXT, b"3").await;
                    } else {
                        return Some(packet);
                    }
                }
                PING => self.answer(PONG, &payload).await,
                PONG => {}
                CLOSE => return None,
                other => panic!("opcode {other}"),
            }
        }
    }

    async fn answer(&mut self, opcode: u8, payload: &[u8]) {
        // Cut off meanwhile, if it fails: then reading says so.
        let _ = self.try_raw(&frame(opcode, true, payload)).await;
    }

    /// The next frame, which must be one as a server makes them; none at the end.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((opcode, payload, length)) = whole(&self.unread[self.done..]) {
                self.done += length;
                return Some((opcode, payload));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads on; `false` at the end.
    async fn more(&mut self) -> bool {
        self.unread.drain(..self.done);
        self.done = 0;
        matches!(self.from.read_buf(&mut self.unread).await, Ok(1..))
    }
}

/// Is it an event that comes by itself?
pub fn is_aside(packet: &str) -> bool {
    let event = packet.strip_prefix("42[\"").and_then(|rest| rest.split('"').next());
    event.is_some_and(|event| ASIDE.contains(&event))
}

/// Opcode, payload and length of the first frame, if it is whole.
fn whole(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let [first, second, rest @ ..] = bytes else { return None };
    assert_eq!((first & 0xf0, second & 0x80), (0x80, 0), "one frame a message, and none masked");
    let (length, begin) = match *second {
        126 => (u64::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(rest.get(..8)?.try_into().ok()?), 10),
        length => (u64::from(length), 2),
    };
    let end = begin + usize::try_from(length).expect("a length");
    Some((first & 0x0f, bytes.get(begin..end)?.to_vec(), end))
}

/// A client's frame, masked.
pub fn frame(opcode: u8, is_last: bool, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x89, 0x8a, 0xff];
    let mut frame = vec![if is_last { 0x80 } else { 0 } | opcode];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ ..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
