//! The rows of the table: what is measured for each, and the servers that are measured.
//!
//! Each group of rows has a file beside this one; the moving locations are in `places.rs`.

mod fan_out;
mod places;
mod state;
mod writes;

use std::{error::Error, time::Duration};

use bench::{
    load::{Exchange, Generator, Pace, Stream, Window},
    machine::{Cores, CpuTime, Others},
    mysql::MySql,
    servers::{Kind, Link, MySqlAddress, Server},
    table::Line,
};

use places::{move_in_turn, place};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A row: its name on the command line, and the function that measures it.
pub struct Row {
    pub name: &'static str,
    pub measure: fn(&mut Bench) -> Result<Vec<Line>>,
}

/// The rows in the table's order.
pub const ROWS: [Row; 9] = [
    Row { name: "fanout1", measure: |bench| bench.fan_out(1, 1000, 40.0, [1.15, 0.42]) },
    Row { name: "fanout10", measure: |bench| bench.fan_out(10, 1000, 400.0, [1.25, 0.36]) },
    Row { name: "most", measure: Bench::most },
    Row { name: "put256", measure: Bench::puts },
    Row { name: "put1", measure: Bench::put_alone },
    Row { name: "links", measure: Bench::links },
    Row { name: "last", measure: Bench::last },
    Row { name: "memory", measure: Bench::memory },
    Row { name: "bbox", measure: Bench::bbox },
];

/// Requests one after the other, with a pause so that none meets another.
const ALONE: Pace = Pace::Rate(50.0);
/// As many requests at once as a busy fleet has.
const IN_FLIGHT: Pace = Pace::InFlight(256);

/// What all rows need, and the noise that was seen meanwhile.
pub struct Bench {
    pub address: MySqlAddress,
    /// The link from servers to MySQL in rows that do not name one.
    pub link: Link,
    pub mysql: MySql,
    /// The process of mysqld, if it runs on this machine.
    pub mysqld: Option<u32>,
    pub cores: Cores,
    pub rounds: usize,
    pub seconds: f64,
    /// The kinds of servers that take part.
    pub kinds: Vec<Kind>,
    /// The number of files that this process may have open.
    pub files: usize,
    pub generator: Generator,
    /// The shares of the server's core and of the other that other processes took, window by window.
    pub noise: [Vec<f64>; 2],
}

/// Makes the n-th request, which is due at a second: returns the number of its location in the fleet, and its bytes.
type Make = Box<dyn FnMut(u64, f64) -> (usize, Vec<u8>)>;

/// A server, and the number of its fleet.
type Running = (Server, usize);

/// The CPU time of a window, in µs.
struct Spent {
    server: f64,
    mysqld: f64,
}

/// A window and what it cost.
type Measured = (Window, Spent);

impl Bench {
    fn among(&self, kinds: &[Kind]) -> Vec<Kind> {
        self.kinds.iter().copied().filter(|kind| kinds.contains(kind)).collect()
    }

    /// Returns the servers that send to rooms.
    fn senders(&self) -> Vec<Kind> {
        self.kinds.iter().copied().filter(|kind| *kind != Kind::Naive).collect()
    }

    /// Starts a server of each kind, with locations and subscribers.
    fn start_all(&mut self, kinds: &[Kind], locations: usize, sockets: usize) -> Result<Vec<Running>> {
        let mut running = Vec::new();
        for kind in kinds {
            let (server, fleet) = self.start_with(*kind, self.link, &vec![0; locations])?;
            self.generator.subscribe(fleet, server.gateway, sockets)?;
            running.push((server, fleet));
        }
        Ok(running)
    }

    /// Starts a server and creates a location for each of these sizes of properties in bytes.
    fn start_with(&mut self, kind: Kind, link: Link, sizes: &[usize]) -> Result<Running> {
        let server = self.start(kind, link)?;
        let fleet = self.generator.fleet(server.api);
        self.generator.create(fleet, sizes.len(), &|i| {
            let (geometry, pad) = (place(i, 0.0), "x".repeat(sizes[i]));
            format!(r#"{{"geometry":{geometry},"properties":{{"name":"bike","pad":"{pad}"}}}}"#)
        })?;
        Ok((server, fleet))
    }

    /// Returns the order in which servers are measured: each begins a round in its turn.
    fn turns(&self, running: &[Running]) -> Vec<usize> {
        let n = running.len();
        (0..self.rounds).flat_map(|round| (0..n).map(move |i| (round + i) % n)).collect()
    }

    /// Drives a fleet, and measures the CPU time from before the first request to after the last delivery.
    fn measure(&mut self, running: &Running, seconds: f64, streams: &mut [Stream]) -> Result<Measured> {
        let (server, fleet) = running;
        let mysqld = |of: &Self| of.mysqld.map(CpuTime::of).unwrap_or_default();
        let own = || CpuTime::of(std::process::id());
        let noise = [Others::watch(self.cores.server), Others::watch(self.cores.others)];
        let before = (server.cpu(), mysqld(self), own());
        let window = self.generator.drive(*fleet, Duration::from_secs_f64(seconds), streams)?;
        let server = server.cpu().since(&before.0);
        let mysqld = mysqld(self).since(&before.1);
        let own = own().since(&before.2);
        if seconds >= 1.0 {
            self.noise[0].push(noise[0].share(server));
            self.noise[1].push(noise[1].share(mysqld + own));
        }
        Ok((window, Spent { server: server as f64 / 1e3, mysqld: mysqld as f64 / 1e3 }))
    }

    /// Moves the fleet's locations in turn.
    fn put(&mut self, running: &Running, seconds: f64, pace: Pace) -> Result<Measured> {
        let ids = self.generator.ids(running.1);
        let mut make = move_in_turn(ids);
        let puts = Stream { pace, make: &mut make, good: 201, most: u64::MAX };
        self.measure(running, seconds, &mut [puts])
    }

    fn check_open(&self, running: &[Running]) -> Result<()> {
        match running.iter().find(|(_, fleet)| self.generator.closed(*fleet) > 0) {
            Some((server, fleet)) => {
                let closed = self.generator.closed(*fleet);
                Err(format!("{} closed {closed} sockets", server.kind).into())
            }
            None => Ok(()),
        }
    }
}

/// Returns the times from due to answered, in ns.
fn times(exchanges: &[Exchange]) -> Vec<u64> {
    exchanges.iter().map(|exchange| exchange.answered.saturating_sub(exchange.due)).collect()
}
