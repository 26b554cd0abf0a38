//! The load generator: one thread, one epoll, open loop. A request is sent when it is due, whatever became of
//! the ones before, and its time runs from when it was due.

use std::{
    collections::VecDeque,
    error::Error,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    ops::AddAssign,
    time::{Duration, Instant},
};

use memchr::memmem;
use rustix::{
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    fd::OwnedFd,
};

use crate::wire::{
    CLOSE, PING, PONG, TEXT, UPGRADE, client_frame, frame, http_body, member, number, request, status,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// After so long without any progress nothing more is expected.
const QUIET: Duration = Duration::from_secs(4);
/// How many sockets are opened side by side.
const WAVE: usize = 50;
/// How many connections the requests of a stream may use; if more are due they wait, and their time runs.
const CALLERS: usize = 512;
const VERSION: &[u8] = b"\"version\":";
/// Marks the tokens of callers, among those of sockets.
const CALLER: u64 = 1 << 31;

/// What arrived otherwise than it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Versions that were committed and did not come.
    pub lost: u64,
    /// Versions that came again.
    pub repeated: u64,
    /// Versions that came after a later one.
    pub swapped: u64,
    /// Requests without the answer they should have.
    pub failed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.swapped += other.swapped;
        self.failed += other.failed;
    }
}

/// The order in which the versions of a location came to one subscriber, or were answered.
#[derive(Default)]
struct Order {
    last: u64,
    /// Passed over so far.
    missing: Vec<u64>,
}

impl Order {
    /// `true`: it had not come before.
    fn came(&mut self, version: u64, tally: &mut Tally) -> bool {
        if version > self.last {
            self.missing.extend(self.last + 1..version);
            self.last = version;
        } else if let Some(at) = self.missing.iter().position(|missing| *missing == version) {
            self.missing.swap_remove(at);
            tally.swapped += 1;
        } else {
            tally.repeated += 1;
            return false;
        }
        true
    }

    /// How many up to `head` have not come; they are not expected any more.
    fn lost(&mut self, head: u64) -> u64 {
        let lost = self.missing.len() as u64 + head.saturating_sub(self.last);
        self.missing.clear();
        self.last = self.last.max(head);
        lost
    }
}

struct Socket {
    /// None once it has been closed.
    stream: Option<TcpStream>,
    room: usize,
    order: Order,
    /// The beginning of a frame that is not whole yet.
    rest: Vec<u8>,
}

struct Caller {
    /// None once it has been closed.
    stream: Option<TcpStream>,
    /// What it has asked: which stream, and where in its exchanges.
    asked: Option<(usize, usize)>,
    rest: Vec<u8>,
}

/// A location and who is in its room.
struct Room {
    id: u64,
    members: u64,
    answers: Order,
    /// For each version after `base`: how many have it, and when the last of them got it.
    seen: Vec<(u64, u64)>,
    base: u64,
}

/// The locations, subscribers and connections of one server.
pub struct Fleet {
    api: SocketAddr,
    sockets: Vec<Socket>,
    callers: Vec<Caller>,
    idle: Vec<usize>,
    rooms: Vec<Room>,
    tally: Tally,
    hint: usize,
    /// First deliveries since the window began, and how many there will be as far as answers tell.
    delivered: u64,
    expected: u64,
}

/// One request and its answer; times in ns since the generator began.
#[derive(Clone, Copy, Default)]
pub struct Exchange {
    /// When it was due.
    pub due: u64,
    /// When it was answered; 0: never.
    pub answered: u64,
    /// Which of the fleet's locations.
    pub room: usize,
    /// The version in the answer.
    pub version: u64,
    /// How many geometries were in a list; of a single location that was read, its version.
    pub hits: u64,
}

/// When requests are due.
#[derive(Clone, Copy)]
pub enum Pace {
    /// So many a second.
    Rate(f64),
    /// The next when one is answered; so many in flight. Not open: for what is asked of the most there is.
    InFlight(usize),
}

/// What is asked, time after time.
pub struct Stream<'a> {
    /// When.
    pub pace: Pace,
    /// The location (its place in the fleet) and the request of the i-th, which is due at that second.
    pub make: &'a mut dyn FnMut(u64, f64) -> (usize, Vec<u8>),
    /// The status of an answer to count.
    pub good: u16,
    /// Stop after so many.
    pub most: u64,
}

/// What came of it.
#[derive(Default)]
pub struct Window {
    /// The good ones, of each stream.
    pub exchanges: Vec<Vec<Exchange>>,
    /// Deliveries, each counted once.
    pub delivered: u64,
    /// From the first request due to the last answer or delivery, in seconds.
    pub seconds: f64,
    /// How long after the last request was due the last answer or delivery came, in seconds.
    pub lag: f64,
    /// What went wrong in it.
    pub tally: Tally,
}

#[derive(Default)]
struct Flow {
    exchanges: Vec<Exchange>,
    issued: u64,
    /// Issued, and not answered: sent or still waiting for a connection.
    in_flight: usize,
    sent: usize,
    waiting: VecDeque<(usize, Vec<u8>)>,
}

impl Flow {
    /// Or failed.
    fn answered(&mut self) {
        self.in_flight -= 1;
        self.sent -= 1;
    }
}

/// The generator.
pub struct Generator {
    epoll: OwnedFd,
    fleets: Vec<Fleet>,
    buffer: Vec<u8>,
    start: Instant,
}

impl Generator {
    /// Without fleets yet.
    pub fn new() -> Result<Self> {
        // The kernel may wake sleepers late, by default by 50 µs.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, fleets: Vec::new(), buffer: vec![0; 64 * 1024], start: Instant::now() })
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// A fleet of a server, without anything yet; its number.
    pub fn fleet(&mut self, api: SocketAddr) -> usize {
        self.fleets.push(Fleet {
            api,
            sockets: Vec::new(),
            callers: Vec::new(),
            idle: Vec::new(),
            rooms: Vec::new(),
            tally: Tally::default(),
            hint: 0,
            delivered: 0,
            expected: 0,
        });
        self.fleets.len() - 1
    }

    /// Forgets all fleets and closes their connections.
    pub fn clear(&mut self) {
        self.fleets.clear();
    }

    /// The ids of the fleet's locations.
    pub fn ids(&self, fleet: usize) -> Vec<u64> {
        self.fleets[fleet].rooms.iter().map(|room| room.id).collect()
    }

    /// Creates `n` locations; `body` returns the body of the request for each.
    pub fn create(&mut self, fleet: usize, n: usize, body: &dyn Fn(usize) -> String) -> Result<()> {
        let mut make = |i: u64, _: f64| (usize::MAX, request("POST", "/location", &body(i as usize)));
        let pace = Pace::InFlight(n.min(256));
        let posts = Stream { pace, make: &mut make, good: 201, most: n as u64 };
        let window = self.drive(fleet, Duration::from_secs(300), &mut [posts])?;
        if window.tally.failed > 0 || window.exchanges[0].len() < n {
            return Err(format!("{} of {n} locations could not be made", window.tally.failed).into());
        }
        // The id of an answer is kept where a PUT's version is.
        self.fleets[fleet].rooms = window.exchanges[0]
            .iter()
            .map(|exchange| Room {
                id: exchange.version,
                members: 0,
                answers: Order { last: 1, missing: Vec::new() },
                seen: Vec::new(),
                base: 1,
            })
            .collect();
        Ok(())
    }

    /// Opens `n` sockets; with locations they join the rooms in turn, without they stay idle.
    pub fn subscribe(&mut self, fleet: usize, gateway: SocketAddr, n: usize) -> Result<()> {
        let rooms = self.fleets[fleet].rooms.len();
        for number in 0..n {
            let room = number % rooms.max(1);
            if let Some(room) = self.fleets[fleet].rooms.get_mut(room) {
                room.members += 1;
            }
            let socket = Socket { stream: None, room, order: Order::default(), rest: Vec::new() };
            self.fleets[fleet].sockets.push(socket);
        }
        self.open(fleet, gateway)?;
        Ok(())
    }

    /// Opens the sockets that are not open, and lets them join; returns how many those were.
    pub fn open(&mut self, fleet: usize, gateway: SocketAddr) -> Result<usize> {
        let rooms = self.fleets[fleet].rooms.len();
        let sockets = self.fleets[fleet].sockets.iter().enumerate();
        let closed: Vec<_> =
            sockets.filter(|(_, socket)| socket.stream.is_none()).map(|(number, _)| number).collect();
        for wave in closed.chunks(WAVE) {
            let mut opening = Vec::new();
            for number in wave {
                let mut stream = TcpStream::connect(gateway)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                stream.write_all(UPGRADE)?;
                opening.push((number, Opening { stream, got: Vec::new() }));
            }
            for (_, opening) in &mut opening {
                opening.upgraded()?;
                opening.packet(b"0{")?;
                opening.stream.write_all(&client_frame(TEXT, b"40"))?;
            }
            for (number, opening) in &mut opening {
                opening.packet(b"40{")?;
                if rooms > 0 {
                    let id = self.fleets[fleet].rooms[**number % rooms].id;
                    let join = format!(r#"420["join_room",{{"locationId":{id}}}]"#);
                    opening.stream.write_all(&client_frame(TEXT, join.as_bytes()))?;
                }
            }
            for (number, mut opening) in opening {
                let mut order = Order::default();
                if rooms > 0 {
                    opening.packet(b"430[")?;
                    let chat = opening.packet(b"42[\"chat\"")?;
                    order.last = member(&chat, VERSION, &mut 0).ok_or("a snapshot without version")?;
                }
                while opening.next()?.is_some() {}
                opening.stream.set_nonblocking(true)?;
                let token = (fleet as u64) << 32 | *number as u64;
                epoll::add(&self.epoll, &opening.stream, EventData::new_u64(token), EventFlags::IN)?;
                let Opening { stream, got } = opening;
                let socket = &mut self.fleets[fleet].sockets[*number];
                (socket.stream, socket.order, socket.rest) = (Some(stream), order, got);
            }
        }
        Ok(closed.len())
    }

    /// Reads and answers pings for a while.
    pub fn rest(&mut self, time: Duration) -> Result<()> {
        let until = self.now() + time.as_nanos() as u64;
        while self.now() < until {
            self.turn(until, usize::MAX, &mut [], &[])?;
        }
        Ok(())
    }

    /// Sends what is due for so long, then waits until all of it is answered and delivered.
    pub fn drive(&mut self, fleet: usize, time: Duration, streams: &mut [Stream]) -> Result<Window> {
        {
            let fleet = &mut self.fleets[fleet];
            (fleet.tally, fleet.delivered, fleet.expected) = Default::default();
            for room in &mut fleet.rooms {
                room.base = room.answers.last;
                room.seen.clear();
            }
        }
        let mut flows: Vec<_> = streams.iter().map(|_| Flow::default()).collect();
        let good: Vec<_> = streams.iter().map(|stream| stream.good).collect();
        let start = self.now() + 1_000_000;
        let end = start + time.as_nanos() as u64;
        let mut last_due = start;
        let mut progress = (start, 0, 0);
        loop {
            let now = self.now();
            let mut next = u64::MAX;
            for (number, stream) in streams.iter_mut().enumerate() {
                let flow = &mut flows[number];
                loop {
                    let due = match stream.pace {
                        Pace::Rate(rate) => start + (flow.issued as f64 / rate * 1e9) as u64,
                        Pace::InFlight(most) if flow.in_flight < most => now.max(start),
                        Pace::InFlight(_) => break,
                    };
                    if due >= end || flow.issued >= stream.most {
                        break;
                    }
                    if due > now {
                        next = next.min(due);
                        break;
                    }
                    let (room, request) = (stream.make)(flow.issued, due as f64 / 1e9);
                    flow.exchanges.push(Exchange { due, room, ..Exchange::default() });
                    flow.waiting.push_back((flow.exchanges.len() - 1, request));
                    flow.issued += 1;
                    flow.in_flight += 1;
                    last_due = due;
                }
            }
            for (number, flow) in flows.iter_mut().enumerate() {
                while flow.sent < CALLERS
                    && let Some((at, request)) = flow.waiting.pop_front()
                {
                    self.fleets[fleet].send(fleet, &self.epoll, (number, at), &request)?;
                    flow.sent += 1;
                }
            }
            let done = &self.fleets[fleet];
            let in_flight: usize = flows.iter().map(|flow| flow.in_flight).sum();
            if next == u64::MAX && in_flight == 0 && done.delivered >= done.expected && now >= start {
                // All that a closed loop still has time for was asked above.
                break;
            }
            let so_far = (in_flight as u64, done.delivered);
            if so_far != (progress.1, progress.2) || now < end {
                progress = (now, so_far.0, so_far.1);
            } else if now > progress.0 + QUIET.as_nanos() as u64 {
                break;
            }
            self.turn(next.min(now + 100_000_000), fleet, &mut flows, &good)?;
        }
        Ok(self.fleets[fleet].result(flows, start, last_due))
    }

    /// Waits for something until then at most, and takes it in.
    fn turn(&mut self, until: u64, driven: usize, flows: &mut [Flow], good: &[u16]) -> Result<()> {
        let wait = Duration::from_nanos(until.saturating_sub(self.now()));
        let timeout =
            rustix::time::Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut events: [std::mem::MaybeUninit<Event>; 512] = [std::mem::MaybeUninit::uninit(); 512];
        let (events, _) = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        for event in events {
            let token = event.data.u64();
            let fleet = (token >> 32) as usize;
            let number = (token & (CALLER - 1)) as usize;
            let Some(of) = self.fleets.get_mut(fleet) else { continue };
            if token & CALLER == 0 {
                of.delivered(number, &mut self.buffer, self.start);
            } else if fleet == driven {
                of.answered(number, &mut self.buffer, self.start, flows, good);
            } else {
                of.answered(number, &mut self.buffer, self.start, &mut [], &[]);
            }
        }
        Ok(())
    }

    /// The version each location that was moved has by `GET`, against those that were answered: `lost` were
    /// answered and are not there.
    pub fn audit(&mut self, fleet: usize) -> Result<Tally> {
        let moved = self.fleets[fleet].rooms.iter().filter(|room| room.answers.last > 1);
        let moved: Vec<_> = moved.map(|room| (room.id, room.answers.last)).collect();
        let mut make =
            |i: u64, _: f64| (usize::MAX, request("GET", &format!("/location/{}", moved[i as usize].0), ""));
        let gets = Stream { pace: Pace::InFlight(32), make: &mut make, good: 200, most: moved.len() as u64 };
        let window = self.drive(fleet, Duration::from_secs(60), &mut [gets])?;
        let mut tally = window.tally;
        for (exchange, (_, head)) in window.exchanges[0].iter().zip(&moved) {
            // More than were answered: committed twice.
            tally.repeated += exchange.hits.saturating_sub(*head);
            tally.lost += head.saturating_sub(exchange.hits);
        }
        Ok(tally)
    }

    /// From when each PUT of the last window was due to when the last member had its version, in ns.
    pub fn to_the_last(&self, fleet: usize, puts: &[Exchange]) -> Vec<u64> {
        self.fleets[fleet].to_the_last(puts)
    }

    /// How many of the fleet's sockets have been closed.
    pub fn closed(&self, fleet: usize) -> usize {
        self.fleets[fleet].sockets.iter().filter(|socket| socket.stream.is_none()).count()
    }
}

impl Fleet {
    /// Sends a request on a connection that is free, or a new one.
    fn send(&mut self, number: usize, epoll: &OwnedFd, asked: (usize, usize), request: &[u8]) -> Result<()> {
        loop {
            let caller = match self.idle.pop() {
                Some(idle) => idle,
                None => {
                    let stream = TcpStream::connect(self.api)?;
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    let token = (number as u64) << 32 | CALLER | self.callers.len() as u64;
                    epoll::add(epoll, &stream, EventData::new_u64(token), EventFlags::IN)?;
                    self.callers.push(Caller { stream: Some(stream), asked: None, rest: Vec::new() });
                    self.callers.len() - 1
                }
            };
            let caller = &mut self.callers[caller];
            // A request is far smaller than what a connection without others takes at once.
            let sent = caller.stream.as_mut().map(|stream| stream.write_all(request));
            if let Some(Ok(())) = sent {
                caller.asked = Some(asked);
                return Ok(());
            }
            // The server has ended it in the meantime.
            caller.stream = None;
        }
    }

    /// Something came on a subscriber's socket.
    fn delivered(&mut self, number: usize, buffer: &mut [u8], start: Instant) {
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
                    if socket.order.came(version, tally) {
                        *delivered += 1;
                        let room = &mut rooms[socket.room];
                        let Some(at) = version.checked_sub(room.base + 1) else { continue };
                        let at = at as usize;
                        if room.seen.len() <= at {
                            room.seen.resize(at + 1, (0, 0));
                        }
                        room.seen[at].0 += 1;
                        room.seen[at].1 = now;
                    }
                }
                // A heartbeat of Engine.IO.
                TEXT if payload == b"2" => {
                    let _ = stream.write(&client_frame(TEXT, b"3"));
                }
                PING => {
                    let _ = stream.write(&client_frame(PONG, payload));
                }
                CLOSE => is_closed = true,
                _ => {}
            }
        }
        if at < bytes.len() {
            socket.rest = bytes[at..].to_vec();
        }
        if is_closed {
            socket.stream = None;
        }
    }

    /// Something came on a caller's connection.
    fn answered(
        &mut self,
        number: usize,
        buffer: &mut [u8],
        start: Instant,
        flows: &mut [Flow],
        good: &[u16],
    ) {
        let Self { callers, idle, rooms, tally, expected, .. } = self;
        let caller = &mut callers[number];
        let Some(stream) = &mut caller.stream else { return };
        let n = match stream.read(buffer) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Ok(n) if n > 0 => n,
            // The server has ended it: between requests it may.
            _ => {
                caller.stream = None;
                if let Some((flow, _)) = caller.asked.take() {
                    tally.failed += 1;
                    if let Some(flow) = flows.get_mut(flow) {
                        flow.answered();
                    }
                }
                return;
            }
        };
        caller.rest.extend_from_slice(&buffer[..n]);
        let Some(body) = http_body(&caller.rest) else { return };
        if let Some((number, at)) = caller.asked.take()
            && let Some(flow) = flows.get_mut(number)
        {
            flow.answered();
            if status(&caller.rest) == good[number] {
                let exchange = &mut flow.exchanges[at];
                exchange.answered = start.elapsed().as_nanos() as u64;
                let text = &caller.rest[body];
                if let Some(room) = rooms.get_mut(exchange.room) {
                    exchange.version = member(text, VERSION, &mut 0).unwrap_or(0);
                    // Answers on several connections have no order.
                    let mut answers = Tally::default();
                    room.answers.came(exchange.version, &mut answers);
                    tally.repeated += answers.repeated;
                    *expected += room.members;
                } else if good[number] == 201 {
                    exchange.version = member(text, b"\"id\":", &mut 0).unwrap_or(0);
                } else if text.starts_with(b"{\"type\":\"Feature\"") {
                    exchange.hits = member(text, VERSION, &mut 0).unwrap_or(0);
                } else {
                    exchange.hits = memmem::find_iter(text, b"\"geometry\":").count() as u64;
                }
            } else {
                tally.failed += 1;
            }
        }
        caller.rest.clear();
        idle.push(number);
    }

    fn result(&mut self, flows: Vec<Flow>, start: u64, last_due: u64) -> Window {
        let mut last = start;
        for room in &mut self.rooms {
            // What was answered but not seen in answers (they failed) is seen by the subscribers, all or none.
            let head = room.answers.last;
            self.tally.lost += room.answers.lost(head);
            last = room.seen.iter().map(|(_, at)| *at).fold(last, u64::max);
        }
        for socket in self.sockets.iter_mut().filter(|_| !self.rooms.is_empty()) {
            self.tally.lost += socket.order.lost(self.rooms[socket.room].answers.last);
        }
        let mut exchanges = Vec::new();
        for flow in flows {
            self.tally.failed += flow.in_flight as u64;
            let good: Vec<_> = flow.exchanges.into_iter().filter(|exchange| exchange.answered > 0).collect();
            last = good.iter().map(|exchange| exchange.answered).fold(last, u64::max);
            exchanges.push(good);
        }
        // A connection that still owes an answer is not used again.
        for caller in self.callers.iter_mut().filter(|caller| caller.asked.is_some()) {
            (caller.asked, caller.stream) = (None, None);
        }
        Window {
            exchanges,
            delivered: self.delivered,
            seconds: (last - start) as f64 / 1e9,
            lag: last.saturating_sub(last_due) as f64 / 1e9,
            tally: self.tally,
        }
    }

    /// From when each PUT was due to when the last member had its version, in ns.
    fn to_the_last(&self, puts: &[Exchange]) -> Vec<u64> {
        let time = |put: &Exchange| {
            let room = self.rooms.get(put.room)?;
            let (count, at) = room.seen.get(put.version.checked_sub(room.base + 1)? as usize)?;
            (*count == room.members).then(|| at.saturating_sub(put.due))
        };
        puts.iter().filter_map(time).collect()
    }
}

/// A socket that is being opened, read step by step.
struct Opening {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Opening {
    fn more(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        let n = self.stream.read(&mut buffer)?;
        if n == 0 {
            return Err("a socket was closed while it was opened".into());
        }
        self.got.extend_from_slice(&buffer[..n]);
        Ok(())
    }

    fn upgraded(&mut self) -> Result<()> {
        loop {
            if let Some(end) = memmem::find(&self.got, b"\r\n\r\n") {
                let status = number(self.got.get(9..12).unwrap_or_default());
                if status != Some(101) {
                    return Err(format!("a WebSocket was refused: {status:?}").into());
                }
                self.got.drain(..end + 4);
                return Ok(());
            }
            self.more()?;
        }
    }

    /// The next packet that begins so; others are passed over.
    fn packet(&mut self, prefix: &[u8]) -> Result<Vec<u8>> {
        loop {
            match self.next()? {
                Some(packet) if packet.starts_with(prefix) => return Ok(packet),
                Some(_) => {}
                None => self.more()?,
            }
        }
    }

    /// The next of what has come; heartbeats, which may come at once, are answered.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(frame) = frame(&self.got) else { return Ok(None) };
        let end = frame.payload.end;
        let payload = self.got[frame.payload].to_vec();
        self.got.drain(..end);
        if frame.opcode == PING {
            self.stream.write_all(&client_frame(PONG, &payload))?;
        } else if payload == b"2" {
            self.stream.write_all(&client_frame(TEXT, b"3"))?;
        }
        Ok(Some(payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_comes_again_or_comes_late_is_counted() {
        let (mut order, mut tally) = (Order { last: 1, missing: Vec::new() }, Tally::default());
        // 3 comes before 2, 4 twice, 5 and 8 do not come.
        let first = [3, 2, 4, 4, 6, 7].map(|version| order.came(version, &mut tally));
        assert_eq!(first, [true, true, true, false, true, true]);
        tally.lost += order.lost(8);
        assert_eq!(tally, Tally { lost: 2, repeated: 1, swapped: 1, failed: 0 });
        // What was given up is not lost again.
        assert!(order.came(9, &mut tally));
        assert_eq!(order.lost(9), 0);
    }
}
