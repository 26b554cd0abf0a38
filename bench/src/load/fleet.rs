//! The locations, subscribers and connections of one server, and what comes over the connections.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use memchr::memmem;
use rustix::{
    event::epoll::{self, Event, EventData, EventFlags},
    fd::OwnedFd,
};

use super::{Exchange, Result, Tally, VERSION, Window, opening::Opening, order::Order};
use crate::wire::{CLOSE, PING, PONG, TEXT, client_frame, frame, http_body, member, status};

/// The bit that marks the tokens of callers, among those of sockets.
const CALLER: u64 = 1 << 31;

/// The connection that an event of epoll is about.
pub struct Token {
    /// The number of its fleet.
    pub fleet: usize,
    /// Whether it carries requests and not a socket.
    pub is_caller: bool,
    /// Its number in the fleet.
    pub number: usize,
}

impl Token {
    /// Reads the token of an event.
    pub fn of_event(event: &Event) -> Self {
        let token = event.data.u64();
        Self {
            fleet: (token >> 32) as usize,
            is_caller: token & CALLER != 0,
            number: (token & (CALLER - 1)) as usize,
        }
    }

    fn data(&self) -> EventData {
        let kind = if self.is_caller { CALLER } else { 0 };
        EventData::new_u64((self.fleet as u64) << 32 | kind | self.number as u64)
    }
}

/// A subscriber's socket.
struct Socket {
    /// The connection; `None` once it has been closed.
    stream: Option<TcpStream>,
    room: usize,
    order: Order,
    /// The beginning of a frame that is not whole yet.
    rest: Vec<u8>,
}

/// A connection that carries requests.
struct Caller {
    /// The connection; `None` once it has been closed.
    stream: Option<TcpStream>,
    /// The request under way: the number of its stream, and its place in the stream's exchanges.
    request: Option<(usize, usize)>,
    rest: Vec<u8>,
}

/// A location, and the members of its room.
struct Room {
    id: u64,
    members: u64,
    answers: Order,
    /// For each version after `base`: the number of members that have it, and the time when the last of them got it.
    seen: Vec<(u64, u64)>,
    base: u64,
}

/// The requests of one stream in a window.
#[derive(Default)]
pub struct Flow {
    exchanges: Vec<Exchange>,
    /// The number of requests made.
    pub issued: u64,
    /// The number of requests that are not answered: sent, or waiting for a connection.
    pub in_flight: usize,
    /// The number of requests that are sent and not answered.
    pub sent: usize,
    /// The requests that wait for a connection.
    pub waiting: VecDeque<(usize, Vec<u8>)>,
}

impl Flow {
    /// Adds a request that is due.
    pub fn issue(&mut self, exchange: Exchange, request: Vec<u8>) {
        self.exchanges.push(exchange);
        self.waiting.push_back((self.exchanges.len() - 1, request));
        self.issued += 1;
        self.in_flight += 1;
    }

    /// Takes a request from those under way, because it is answered or has failed.
    fn end_request(&mut self) {
        self.in_flight -= 1;
        self.sent -= 1;
    }
}

/// The locations, subscribers and connections of one server.
pub struct Fleet {
    api: SocketAddr,
    number: usize,
    sockets: Vec<Socket>,
    callers: Vec<Caller>,
    idle: Vec<usize>,
    rooms: Vec<Room>,
    tally: Tally,
    hint: usize,
    /// First deliveries since the window began, and the number that there will be as far as answers tell.
    delivered: u64,
    expected: u64,
}

impl Fleet {
    /// Makes a fleet without locations and sockets.
    pub fn new(api: SocketAddr, number: usize) -> Self {
        Self {
            api,
            number,
            sockets: Vec::new(),
            callers: Vec::new(),
            idle: Vec::new(),
            rooms: Vec::new(),
            tally: Tally::default(),
            hint: 0,
            delivered: 0,
            expected: 0,
        }
    }

    /// Sets the locations, which have only been created yet.
    pub fn set_rooms(&mut self, ids: impl Iterator<Item = u64>) {
        let room = |id| Room { id, members: 0, answers: Order::after(1), seen: Vec::new(), base: 1 };
        self.rooms = ids.map(room).collect();
    }

    /// Adds sockets that are not open yet, for the rooms in turn.
    pub fn add_sockets(&mut self, n: usize) {
        for number in 0..n {
            let room = number % self.rooms.len().max(1);
            if let Some(room) = self.rooms.get_mut(room) {
                room.members += 1;
            }
            self.sockets.push(Socket { stream: None, room, order: Order::default(), rest: Vec::new() });
        }
    }

    /// Returns the ids of the locations.
    pub fn ids(&self) -> Vec<u64> {
        self.rooms.iter().map(|room| room.id).collect()
    }

    /// Returns the numbers of the sockets that are not open.
    pub fn closed(&self) -> Vec<usize> {
        let sockets = self.sockets.iter().enumerate();
        sockets.filter(|(_, socket)| socket.stream.is_none()).map(|(number, _)| number).collect()
    }

    /// Returns the location whose room a socket joins; `None` if it stays idle.
    pub fn location_of(&self, socket: usize) -> Option<u64> {
        self.rooms.get(self.sockets[socket].room).map(|room| room.id)
    }

    /// Returns the ids and last answered versions of the locations that were moved.
    pub fn moved(&self) -> Vec<(u64, u64)> {
        let moved = self.rooms.iter().filter(|room| room.answers.last > 1);
        moved.map(|room| (room.id, room.answers.last)).collect()
    }

    /// Returns the number of deliveries in this window so far, and the number that is expected.
    pub fn deliveries(&self) -> (u64, u64) {
        (self.delivered, self.expected)
    }

    /// Puts a connection that has been opened in the place of a socket.
    pub fn set_open(&mut self, number: usize, opening: Opening, version: u64, epoll: &OwnedFd) -> Result<()> {
        let token = Token { fleet: self.number, is_caller: false, number };
        epoll::add(epoll, &opening.stream, token.data(), EventFlags::IN)?;
        let socket = &mut self.sockets[number];
        (socket.stream, socket.order, socket.rest) =
            (Some(opening.stream), Order::after(version), opening.rest);
        Ok(())
    }

    /// Forgets the counts of the last window.
    pub fn begin_window(&mut self) {
        (self.tally, self.delivered, self.expected) = Default::default();
        for room in &mut self.rooms {
            room.base = room.answers.last;
            room.seen.clear();
        }
    }

    /// Sends a request on a connection that is free, or on a new one.
    pub fn send(&mut self, epoll: &OwnedFd, exchange: (usize, usize), request: &[u8]) -> Result<()> {
        loop {
            let number = match self.idle.pop() {
                Some(idle) => idle,
                None => self.connect(epoll)?,
            };
            let caller = &mut self.callers[number];
            // A request is far smaller than the kernel's buffer of a connection that carries nothing else.
            let sent = caller.stream.as_mut().map(|stream| stream.write_all(request));
            if let Some(Ok(())) = sent {
                caller.request = Some(exchange);
                return Ok(());
            }
            // The server has ended the connection in the meantime.
            caller.stream = None;
        }
    }

    fn connect(&mut self, epoll: &OwnedFd) -> Result<usize> {
        let number = self.callers.len();
        let stream = TcpStream::connect(self.api)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let token = Token { fleet: self.number, is_caller: true, number };
        epoll::add(epoll, &stream, token.data(), EventFlags::IN)?;
        self.callers.push(Caller { stream: Some(stream), request: None, rest: Vec::new() });
        Ok(number)
    }

    /// Reads a subscriber's socket.
    pub fn read_socket(&mut self, number: usize, buffer: &mut [u8], start: Instant) {
        let Self { sockets, rooms, tally, hint, delivered, .. } = self;
        let socket = &mut sockets[number];
        let Some(stream) = &mut socket.stream else { return };
        let n = match stream.read(buffer) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Ok(n) if n > 0 => n,
            _ => {
                socket.stream = None;
                return;
            }
        };
        let now = start.elapsed().as_nanos() as u64;
        let mut joined = std::mem::take(&mut socket.rest);
        let bytes = if joined.is_empty() {
            &buffer[..n]
        } else {
            joined.extend_from_slice(&buffer[..n]);
            &joined[..]
        };
        let mut at = 0;
        let mut is_closed = false;
        while let Some(frame) = frame(&bytes[at..]) {
            let payload = &bytes[at + frame.payload.start..at + frame.payload.end];
            at += frame.payload.end;
            match frame.opcode {
                TEXT if payload.starts_with(b"42[\"chat\"") => {
                    let Some(version) = member(payload, VERSION, hint) else { continue };
                    if socket.order.record(version, tally) {
                        *delivered += 1;
                        rooms[socket.room].record_delivery(version, now);
                    }
                }
                // A heartbeat of Engine.IO.
                TEXT if payload == b"2" => drop(stream.write(&client_frame(TEXT, b"3"))),
                PING => drop(stream.write(&client_frame(PONG, payload))),
                CLOSE => is_closed = true,
                _ => {}
            }
        }
        socket.rest = bytes[at..].to_vec();
        if is_closed {
            socket.stream = None;
        }
    }

    /// Reads a connection that carries requests.
    pub fn read_caller(
        &mut self,
        number: usize,
        buffer: &mut [u8],
        start: Instant,
        flows: &mut [Flow],
        good: &[u16],
    ) {
        let caller = &mut self.callers[number];
        let Some(stream) = &mut caller.stream else { return };
        let n = match stream.read(buffer) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Ok(n) if n > 0 => n,
            // The server has ended the connection, which it may do between requests.
            _ => {
                caller.stream = None;
                if let Some((flow, _)) = caller.request.take() {
                    self.tally.failed += 1;
                    if let Some(flow) = flows.get_mut(flow) {
                        flow.end_request();
                    }
                }
                return;
            }
        };
        caller.rest.extend_from_slice(&buffer[..n]);
        let Some(body) = http_body(&caller.rest) else { return };
        let mut answer = std::mem::take(&mut caller.rest);
        if let Some((number, at)) = caller.request.take()
            && let Some(flow) = flows.get_mut(number)
        {
            flow.end_request();
            match status(&answer) == good[number] {
                true => {
                    flow.exchanges[at].answered = start.elapsed().as_nanos() as u64;
                    self.record_answer(&mut flow.exchanges[at], good[number], &answer[body]);
                }
                false => self.tally.failed += 1,
            }
        }
        answer.clear();
        self.callers[number].rest = answer;
        self.idle.push(number);
    }

    fn record_answer(&mut self, exchange: &mut Exchange, good: u16, text: &[u8]) {
        if let Some(room) = self.rooms.get_mut(exchange.room) {
            exchange.version = member(text, VERSION, &mut 0).unwrap_or(0);
            // Answers on several connections have no order.
            let mut answers = Tally::default();
            room.answers.record(exchange.version, &mut answers);
            self.tally.repeated += answers.repeated;
            self.expected += room.members;
        } else if good == 201 {
            exchange.version = member(text, b"\"id\":", &mut 0).unwrap_or(0);
        } else if text.starts_with(b"{\"type\":\"Feature\"") {
            exchange.hits = member(text, VERSION, &mut 0).unwrap_or(0);
        } else {
            exchange.hits = memmem::find_iter(text, b"\"geometry\":").count() as u64;
        }
    }

    /// Gives up what has not come in a window, and returns its result.
    pub fn end_window(&mut self, flows: Vec<Flow>, start: u64, last_due: u64) -> Window {
        let mut last = start;
        for room in &mut self.rooms {
            // A version that is in no answer, because its request failed, comes to all subscribers or to none.
            let head = room.answers.last;
            self.tally.lost += room.answers.give_up(head);
            last = room.seen.iter().map(|(_, at)| *at).fold(last, u64::max);
        }
        for socket in self.sockets.iter_mut().filter(|_| !self.rooms.is_empty()) {
            self.tally.lost += socket.order.give_up(self.rooms[socket.room].answers.last);
        }
        let mut exchanges = Vec::new();
        for flow in flows {
            self.tally.failed += flow.in_flight as u64;
            let good: Vec<_> = flow.exchanges.into_iter().filter(|exchange| exchange.answered > 0).collect();
            last = good.iter().map(|exchange| exchange.answered).fold(last, u64::max);
            exchanges.push(good);
        }
        // A connection that still owes an answer is not used again.
        for caller in self.callers.iter_mut().filter(|caller| caller.request.is_some()) {
            (caller.request, caller.stream) = (None, None);
        }
        Window {
            exchanges,
            delivered: self.delivered,
            seconds: (last - start) as f64 / 1e9,
            lag: last.saturating_sub(last_due) as f64 / 1e9,
            tally: self.tally,
        }
    }

    /// Returns for each PUT the time until the last member had its version, in ns.
    pub fn times_to_last(&self, puts: &[Exchange]) -> Vec<u64> {
        let time = |put: &Exchange| {
            let room = self.rooms.get(put.room)?;
            let (count, at) = room.seen.get(put.version.checked_sub(room.base + 1)? as usize)?;
            (*count == room.members).then(|| at.saturating_sub(put.due))
        };
        puts.iter().filter_map(time).collect()
    }
}

impl Room {
    fn record_delivery(&mut self, version: u64, now: u64) {
        let Some(at) = version.checked_sub(self.base + 1) else { return };
        let at = at as usize;
        if self.seen.len() <= at {
            self.seen.resize(at + 1, (0, 0));
        }
        self.seen[at].0 += 1;
        self.seen[at].1 = now;
    }
}
