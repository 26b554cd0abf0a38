//! The floor: the cheapest server that the bench can measure, as a bound for all others.
//!
//! It keeps the contract as far as the bench uses it, without a database. A frame is made once and sent to each member
//! with one `send`; no server that sends each delivery does it for less.

use std::{
    collections::HashMap,
    env,
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
};

use bench::wire::{self, TEXT, frame, http_body, member, server_frame};
use memchr::memmem;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

const API: u64 = 0;
const GATEWAY: u64 = 1;
/// The first token of a connection. Those below are the listeners'.
const FIRST: u64 = 2;

struct Connection {
    stream: TcpStream,
    /// Whether it has been upgraded and carries frames.
    is_socket: bool,
    /// Bytes of a request or frame that is not whole yet.
    got: Vec<u8>,
    /// Bytes that the kernel has not taken yet.
    left: Vec<u8>,
}

#[derive(Default)]
struct Room {
    version: u64,
    geometry: String,
    members: Vec<u64>,
}

struct Floor {
    epoll: rustix::fd::OwnedFd,
    connections: HashMap<u64, Connection>,
    rooms: HashMap<u64, Room>,
    next: u64,
}

fn main() -> io::Result<()> {
    let listen = |name: &str| {
        let listener = TcpListener::bind(env::var(name).unwrap_or_default())?;
        listener.set_nonblocking(true)?;
        io::Result::Ok(listener)
    };
    let listeners = [listen("API_ADDR")?, listen("GATEWAY_ADDR")?];
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (listener, token) in listeners.iter().zip([API, GATEWAY]) {
        epoll::add(&epoll, listener, EventData::new_u64(token), EventFlags::IN)?;
    }
    let mut floor = Floor { epoll, connections: HashMap::new(), rooms: HashMap::new(), next: FIRST };
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        events.clear();
        match epoll::wait(&floor.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        for event in &events {
            match event.data.u64() {
                listener @ (API | GATEWAY) => floor.accept(&listeners[listener as usize])?,
                token => {
                    let flags = event.flags;
                    if flags.contains(EventFlags::OUT) {
                        floor.send(token, &[]);
                    }
                    if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                        floor.receive(token, &mut buffer);
                    }
                }
            }
        }
    }
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            epoll::add(&self.epoll, &stream, EventData::new_u64(self.next), EventFlags::IN)?;
            let connection = Connection { stream, is_socket: false, got: Vec::new(), left: Vec::new() };
            self.connections.insert(self.next, connection);
            self.next += 1;
        }
        Ok(())
    }

    fn receive(&mut self, token: u64, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        match connection.stream.read(buffer) {
            Ok(0) => return self.close(token),
            Ok(n) => connection.got.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Err(_) => return self.close(token),
        }
        let mut got = std::mem::take(&mut connection.got);
        let mut is_socket = connection.is_socket;
        let mut at = 0;
        loop {
            let rest = &got[at..];
            if is_socket {
                let Some(frame) = frame(rest) else { break };
                at += frame.payload.end;
                let mut payload = rest[frame.payload].to_vec();
                let mask = frame.mask.unwrap_or_default();
                payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
                self.packet(token, &payload);
            } else {
                let Some(body) = http_body(rest) else { break };
                at += body.end;
                if rest.starts_with(b"GET /socket.io/") {
                    is_socket = true;
                    self.upgrade(token);
                } else {
                    let answer = self.request(&rest[..body.start], &rest[body]);
                    self.send(token, &answer);
                }
            }
        }
        got.drain(..at);
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.got = got;
            connection.is_socket = is_socket;
        }
    }

    fn upgrade(&mut self, token: u64) {
        // The generator does not check Sec-WebSocket-Accept.
        self.send(
            token,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        let open =
            br#"0{"sid":"1","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":100000}"#;
        self.send(token, &server_frame(TEXT, open));
    }

    fn packet(&mut self, token: u64, packet: &[u8]) {
        if packet == b"40" {
            self.send(token, &server_frame(TEXT, br#"40{"sid":"2"}"#));
        } else if memmem::find(packet, b"join_room").is_some()
            && let Some(id) = member(packet, b"\"locationId\":", &mut 0)
        {
            let ack = packet.get(2..).and_then(wire::number).unwrap_or(0);
            let room = self.rooms.entry(id).or_default();
            room.members.push(token);
            let chat = room.chat(id);
            self.send(token, &server_frame(TEXT, format!("43{ack}[\"{id}\"]").as_bytes()));
            self.send(token, &chat);
        }
    }

    fn request(&mut self, head: &[u8], body: &[u8]) -> Vec<u8> {
        let id = match head.starts_with(b"POST") {
            true => self.rooms.len() as u64 + 1,
            false => member(body, b"\"id\":", &mut 1).unwrap_or(0),
        };
        let room = self.rooms.entry(id).or_default();
        room.version += 1;
        let text = String::from_utf8_lossy(body);
        let geometry = text.find("\"geometry\":").map_or("", |at| &text[at + 11..]);
        let end = geometry.find('}').map_or(0, |end| end + 1);
        geometry[..end].clone_into(&mut room.geometry);
        let feature = room.feature(id);
        let chat = room.chat(id);
        let members = std::mem::take(&mut room.members);
        for member in &members {
            self.send(*member, &chat);
        }
        self.rooms.entry(id).or_default().members = members;
        let name = if head.starts_with(b"POST") { "location" } else { "updatedLocationResult" };
        let body = format!(r#"{{"status":201,"data":{{"{name}":{feature}}}}}"#);
        let length = body.len();
        format!(
            "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// Sends bytes behind those that still wait. Bytes that the kernel does not take wait too.
    fn send(&mut self, token: u64, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let was_waiting = !connection.left.is_empty();
        let sent = if was_waiting {
            connection.left.extend_from_slice(bytes);
            connection.stream.write(&connection.left)
        } else {
            connection.stream.write(bytes)
        };
        let sent = match sent {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return self.close(token),
        };
        if was_waiting {
            connection.left.drain(..sent);
        } else if sent < bytes.len() {
            connection.left.extend_from_slice(&bytes[sent..]);
        }
        let is_waiting = !connection.left.is_empty();
        if is_waiting != was_waiting {
            let also = if is_waiting { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(token);
            let _ = epoll::modify(&self.epoll, &connection.stream, data, EventFlags::IN | also);
        }
    }

    fn close(&mut self, token: u64) {
        self.connections.remove(&token);
        self.rooms.values_mut().for_each(|room| room.members.retain(|member| *member != token));
    }
}

impl Room {
    fn feature(&self, id: u64) -> String {
        let Self { version, geometry, .. } = self;
        format!(
            r#"{{"type":"Feature","id":{id},"geometry":{geometry},"properties":{{"name":"bike","version":{version},"userId":1,"updatedBy":1,"createdAt":"2026-01-01T00:00:00.000Z","updatedAt":"2026-01-01T00:00:00.000Z"}}}}"#
        )
    }

    fn chat(&self, id: u64) -> Vec<u8> {
        let (feature, version) = (self.feature(id), self.version);
        let packet =
            format!(r#"42["chat",{{"userId":1,"message":{feature},"roomName":"{id}","version":{version}}}]"#);
        server_frame(TEXT, packet.as_bytes())
    }
}
