//! When requests are sent, and waiting for their answers and deliveries.

use std::{
    net::SocketAddr,
    num::NonZeroU64,
    time::{Duration, Instant},
};

use rustix::{
    event::epoll::{self, CreateFlags, Event},
    fd::OwnedFd,
    io::Errno,
};

use super::{
    Exchange, Pace, Result, Stream, Tally, Window,
    fleet::{Fleet, Flow, Token},
    opening::Opening,
};
use crate::wire::request;

/// A window ends when nothing has come for this time.
const QUIET_TIMEOUT: Duration = Duration::from_secs(4);
/// The number of sockets that are opened side by side.
const OPENING_AT_ONCE: usize = 50;
/// The number of connections that the requests of a stream may use. More requests wait, and their time runs.
const MAX_CALLERS: usize = 512;

/// The load generator.
pub struct Generator {
    epoll: OwnedFd,
    fleets: Vec<Fleet>,
    buffer: Vec<u8>,
    start: Instant,
}

/// The schedule of a window, in ns since the generator began.
struct Schedule {
    start: u64,
    end: u64,
    last_due: u64,
}

impl Generator {
    /// Makes a generator without fleets.
    pub fn new() -> Result<Self> {
        // The kernel may wake sleepers late, by default by 50 µs.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, fleets: Vec::new(), buffer: vec![0; 64 * 1024], start: Instant::now() })
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Adds a fleet of a server, without locations and sockets, and returns its number.
    pub fn fleet(&mut self, api: SocketAddr) -> usize {
        self.fleets.push(Fleet::new(api, self.fleets.len()));
        self.fleets.len() - 1
    }

    /// Forgets all fleets and closes their connections.
    pub fn clear(&mut self) {
        self.fleets.clear();
    }

    /// Returns the ids of a fleet's locations.
    pub fn ids(&self, fleet: usize) -> Vec<u64> {
        self.fleets[fleet].ids()
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
        // The id in an answer is kept in the place of a version.
        self.fleets[fleet].set_rooms(window.exchanges[0].iter().map(|exchange| exchange.version));
        Ok(())
    }

    /// Opens `n` sockets. They join the locations' rooms in turn; without locations they stay idle.
    pub fn subscribe(&mut self, fleet: usize, gateway: SocketAddr, n: usize) -> Result<()> {
        self.fleets[fleet].add_sockets(n);
        self.open(fleet, gateway)?;
        Ok(())
    }

    /// Opens the sockets that are not open, and lets them join. Returns their number.
    pub fn open(&mut self, fleet: usize, gateway: SocketAddr) -> Result<usize> {
        let closed = self.fleets[fleet].closed();
        for wave in closed.chunks(OPENING_AT_ONCE) {
            let mut opening: Vec<_> = wave.iter().map(|_| Opening::begin(gateway)).collect::<Result<_>>()?;
            for socket in &mut opening {
                socket.connect()?;
            }
            for (number, socket) in wave.iter().zip(&mut opening) {
                socket.join(self.fleets[fleet].location_of(*number))?;
            }
            for (number, mut socket) in wave.iter().zip(opening) {
                let is_member = self.fleets[fleet].location_of(*number).is_some();
                let version = if is_member { socket.wait_for_snapshot()? } else { 0 };
                socket.finish()?;
                self.fleets[fleet].set_open(*number, socket, version, &self.epoll)?;
            }
        }
        Ok(closed.len())
    }

    /// Reads and answers pings for a while.
    pub fn rest(&mut self, time: Duration) -> Result<()> {
        let until = self.now() + time.as_nanos() as u64;
        while self.now() < until {
            self.wait(until, usize::MAX, &mut [], &[])?;
        }
        Ok(())
    }

    /// Sends the requests that are due in a time, then waits until all of them are answered and delivered.
    pub fn drive(&mut self, fleet: usize, time: Duration, streams: &mut [Stream]) -> Result<Window> {
        self.fleets[fleet].begin_window();
        let mut flows: Vec<_> = streams.iter().map(|_| Flow::default()).collect();
        let good: Vec<_> = streams.iter().map(|stream| stream.good).collect();
        let start = self.now() + 1_000_000;
        let mut schedule = Schedule { start, end: start + time.as_nanos() as u64, last_due: start };
        let mut progress = (start, 0, 0);
        loop {
            let now = self.now();
            let next = schedule.issue(now, streams, &mut flows);
            for (number, flow) in flows.iter_mut().enumerate() {
                while flow.sent < MAX_CALLERS
                    && let Some((at, request)) = flow.waiting.pop_front()
                {
                    self.fleets[fleet].send(&self.epoll, (number, at), &request)?;
                    flow.sent += 1;
                }
            }
            let in_flight: usize = flows.iter().map(|flow| flow.in_flight).sum();
            let (delivered, expected) = self.fleets[fleet].deliveries();
            if next == u64::MAX && in_flight == 0 && delivered >= expected && now >= start {
                // Any request that a closed loop still has time for was issued above.
                break;
            }
            let so_far = (in_flight as u64, delivered);
            if so_far != (progress.1, progress.2) || now < schedule.end {
                progress = (now, so_far.0, so_far.1);
            } else if now > progress.0 + QUIET_TIMEOUT.as_nanos() as u64 {
                break;
            }
            self.wait(next.min(now + 100_000_000), fleet, &mut flows, &good)?;
        }
        Ok(self.fleets[fleet].end_window(flows, start, schedule.last_due))
    }

    /// Waits until a time at most, and reads what has come. Answers count for the fleet that is driven.
    fn wait(&mut self, until: u64, driven: usize, flows: &mut [Flow], good: &[u16]) -> Result<()> {
        let wait = Duration::from_nanos(until.saturating_sub(self.now()));
        let timeout =
            rustix::time::Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut events: [std::mem::MaybeUninit<Event>; 512] = [std::mem::MaybeUninit::uninit(); 512];
        let (events, _) = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Err(Errno::INTR) => return Ok(()),
            other => other?,
        };
        for event in events {
            let token = Token::of_event(event);
            let Some(fleet) = self.fleets.get_mut(token.fleet) else { continue };
            if !token.is_caller {
                fleet.read_socket(token.number, &mut self.buffer, self.start);
            } else if token.fleet == driven {
                fleet.read_caller(token.number, &mut self.buffer, self.start, flows, good);
            } else {
                fleet.read_caller(token.number, &mut self.buffer, self.start, &mut [], &[]);
            }
        }
        Ok(())
    }

    /// Reads each location that was moved, and compares its version with those that were answered. `lost` versions were
    /// answered and are not there; `repeated` ones were committed more often than answered.
    pub fn audit(&mut self, fleet: usize) -> Result<Tally> {
        let moved = self.fleets[fleet].moved();
        let mut make =
            |i: u64, _: f64| (usize::MAX, request("GET", &format!("/location/{}", moved[i as usize].0), ""));
        let gets = Stream { pace: Pace::InFlight(32), make: &mut make, good: 200, most: moved.len() as u64 };
        let window = self.drive(fleet, Duration::from_secs(60), &mut [gets])?;
        let mut tally = window.tally;
        for (exchange, (_, head)) in window.exchanges[0].iter().zip(&moved) {
            tally.repeated += exchange.hits.saturating_sub(*head);
            tally.lost += head.saturating_sub(exchange.hits);
        }
        Ok(tally)
    }

    /// Returns for each PUT of the last window the time until the last member had its version, in ns.
    pub fn times_to_last(&self, fleet: usize, puts: &[Exchange]) -> Vec<u64> {
        self.fleets[fleet].times_to_last(puts)
    }

    /// Returns the number of the fleet's sockets that have been closed.
    pub fn closed(&self, fleet: usize) -> usize {
        self.fleets[fleet].closed().len()
    }
}

impl Schedule {
    /// Makes the requests that are due. Returns when the next one is; `u64::MAX` if none is, or if it depends on an answer.
    fn issue(&mut self, now: u64, streams: &mut [Stream], flows: &mut [Flow]) -> u64 {
        let mut next = u64::MAX;
        for (stream, flow) in streams.iter_mut().zip(flows) {
            loop {
                let due = match stream.pace {
                    Pace::Rate(rate) => self.start + (flow.issued as f64 / rate * 1e9) as u64,
                    Pace::InFlight(most) if flow.in_flight < most => now.max(self.start),
                    Pace::InFlight(_) => break,
                };
                if due >= self.end || flow.issued >= stream.most {
                    break;
                }
                if due > now {
                    next = next.min(due);
                    break;
                }
                let (room, request) = (stream.make)(flow.issued, due as f64 / 1e9);
                flow.issue(Exchange { due, room, ..Exchange::default() }, request);
                self.last_due = due;
            }
        }
        next
    }
}
