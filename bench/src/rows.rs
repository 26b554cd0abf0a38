//! What is measured, a function a row of the table or a few.

use std::{error::Error, thread::sleep, time::Duration};

use Goal::{AtLeastTimes, AtMost, AtMostTimes, AtMostTimesAndCommit};
use bench::{
    load::{Exchange, Generator, Pace, Stream, Tally, Window},
    machine::{Cores, CpuTime, Others},
    mysql::MySql,
    servers::{Kind, Link, MySqlAddress, Server},
    table::{Goal, Line, median, percentile},
    wire::request,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A row: what it is called on the command line, and how it is measured.
pub struct Row {
    pub name: &'static str,
    pub measure: fn(&mut Bench) -> Result<Vec<Line>>,
}

/// In the table's order.
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

/// The servers whose commits are compared. The other engine of WebSockets commits as `Node` does.
const TRANSACTING: [Kind; 3] = [Kind::Georoom, Kind::Node, Kind::Naive];
/// One after the other, with a pause, so that none meets another.
const ALONE: Pace = Pace::Rate(50.0);
/// As many at once as a busy fleet has.
const IN_FLIGHT: Pace = Pace::InFlight(256);
/// How many connections are idle while memory is looked at.
const IDLE: usize = 5_000;
/// A server that has its last delivery done later than this after the last PUT was due does not keep up:
/// in windows of 2 s, that is a rate a tenth too high.
const KEEPS_UP: f64 = 0.2;

pub struct Bench {
    pub address: MySqlAddress,
    /// How servers reach MySQL, where a row does not say it.
    pub link: Link,
    pub mysql: MySql,
    /// Its process, if it runs here.
    pub mysqld: Option<u32>,
    pub cores: Cores,
    pub rounds: usize,
    pub seconds: f64,
    /// Who takes part.
    pub kinds: Vec<Kind>,
    /// How many files one may have open.
    pub files: usize,
    pub generator: Generator,
    /// What others took of the server's core and of the other, window by window.
    pub noise: [Vec<f64>; 2],
}

/// Makes the n-th request, which is due at a second: returns the number of its location in the fleet, and its bytes.
type Make = Box<dyn FnMut(u64, f64) -> (usize, Vec<u8>)>;

/// A server, the number of its fleet.
type Running = (Server, usize);

/// CPU time of a window, in µs.
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

    /// Each kind started, with its locations and subscribers.
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

    /// Who is next: each begins a round in its turn.
    fn turns(&self, running: &[Running]) -> Vec<usize> {
        let n = running.len();
        (0..self.rounds).flat_map(|round| (0..n).map(move |i| (round + i) % n)).collect()
    }

    /// Drives a fleet and takes the CPU time from before the first request to after the last delivery.
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

    /// PUTs to the fleet's locations in turn.
    fn put(&mut self, running: &Running, seconds: f64, pace: Pace) -> Result<Measured> {
        let ids = self.generator.ids(running.1);
        let mut make = move_in_turn(ids);
        let puts = Stream { pace, make: &mut make, good: 201, most: u64::MAX };
        self.measure(running, seconds, &mut [puts])
    }

    fn fan_out(&mut self, rooms: usize, sockets: usize, rate: f64, goals: [f64; 2]) -> Result<Vec<Line>> {
        let what = match rooms {
            1 => format!("server µs CPU a delivery, 1 room × {sockets}, {rate} PUT/s"),
            _ => format!(
                "server µs CPU a delivery, {rooms} rooms × {}, {rate} PUT/s, PUT included",
                sockets / rooms
            ),
        };
        let goals = vec![AtMostTimes(goals[0], Kind::Floor), AtMostTimes(goals[1], Kind::Node)];
        let mut line = Line::new(what, 2, goals);
        let running = self.start_all(&self.senders(), rooms, sockets)?;
        for server in &running {
            self.put(server, 2.0, Pace::Rate(rate))?;
        }
        for turn in self.turns(&running) {
            let server = &running[turn];
            let kind = server.0.kind;
            let (warm, _) = self.put(server, 1.0, Pace::Rate(rate))?;
            let (window, spent) = self.put(server, self.seconds, Pace::Rate(rate))?;
            line.add(kind, spent.server / window.delivered as f64);
            line.count(kind, warm.tally);
            line.count(kind, window.tally);
        }
        self.check_open(&running)?;
        Ok(vec![line])
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

    /// The highest rate that is kept up with: all delivered, nothing lost, no growing lag.
    fn most(&mut self) -> Result<Vec<Line>> {
        let goals = vec![AtLeastTimes(0.85, Kind::Floor), AtLeastTimes(2.8, Kind::Node)];
        let mut most = Line::new("most deliveries/s kept up with, 1 room × 1000", 0, goals);
        let mut per_cpu = Line::new("… a second of server CPU, at that rate", 0, Vec::new());
        let running = self.start_all(&self.senders(), 1, 1000)?;
        let seconds = (self.seconds / 2.0).max(1.0);
        let mut found = vec![0.0; running.len()];
        for turn in self.turns(&running) {
            let server = &running[turn];
            let kind = server.0.kind;
            let is_first = found[turn] == 0.0;
            let (mut rate, mut factor) = if is_first { (30.0, 1.5) } else { (0.9 * found[turn], 1.12) };
            let mut best: Option<(f64, Measured)> = None;
            let mut closed = 0;
            let mut too_much = f64::INFINITY;
            // Up until it is too much, then between.
            loop {
                let mut kept_up = None;
                // A disturbance from outside is no limit of the server's: once more.
                for _ in 0..2 {
                    let (window, spent) = self.put(server, seconds, Pace::Rate(rate))?;
                    if window.lag <= KEEPS_UP && window.tally == Tally::default() {
                        kept_up = Some((window, spent));
                        break;
                    }
                    closed += self.generator.open(server.1, server.0.gateway)?;
                }
                match kept_up {
                    Some(measured) => best = Some((rate, measured)),
                    None => too_much = rate,
                }
                let Some((kept_up, _)) = &best else {
                    rate /= 1.3;
                    if rate < 2.0 {
                        return Err(format!("{kind} keeps up with nothing").into());
                    }
                    continue;
                };
                if too_much / kept_up < 1.05 {
                    break;
                }
                rate = if too_much.is_finite() { (kept_up * too_much).sqrt() } else { kept_up * factor };
                factor = factor.min(1.3);
            }
            if closed > 0 {
                eprintln!("{kind} closed sockets {closed} times at rates that were too much");
            }
            let (rate, (window, spent)) = best.expect("found above");
            found[turn] = rate;
            most.add(kind, window.delivered as f64 / window.seconds);
            most.count(kind, window.tally);
            per_cpu.add(kind, window.delivered as f64 / (spent.server / 1e6));
        }
        Ok(vec![most, per_cpu])
    }

    fn puts(&mut self) -> Result<Vec<Line>> {
        let about = "1,000 locations, 256 in flight, durable";
        let mut rate = Line::new(format!("PUT/s, {about}"), 0, vec![AtLeastTimes(6.0, Kind::Node)]);
        let mut both =
            Line::new("server + mysqld µs CPU a PUT, same", 1, vec![AtMostTimes(0.10, Kind::Node)]);
        let mut server_only = Line::new("… server alone", 1, Vec::new());
        let running = self.start_all(&self.among(&TRANSACTING), 1000, 0)?;
        let pace = IN_FLIGHT;
        for server in &running {
            self.put(server, 2.0, pace)?;
        }
        for turn in self.turns(&running) {
            let server = &running[turn];
            let kind = server.0.kind;
            self.put(server, 1.0, pace)?;
            let (window, spent) = self.put(server, self.seconds, pace)?;
            let n = window.exchanges[0].len() as f64;
            rate.add(kind, n / window.seconds);
            rate.count(kind, window.tally);
            if self.mysqld.is_some() {
                both.add(kind, (spent.server + spent.mysqld) / n);
            }
            server_only.add(kind, spent.server / n);
        }
        for (server, fleet) in &running {
            let tally = self.generator.audit(*fleet)?;
            rate.count(server.kind, tally);
        }
        Ok(vec![rate, both, server_only])
    }

    fn put_alone(&mut self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        for (kib, link) in [(0, self.link), (16, Link::Tls)] {
            let goals = vec![AtMostTimes(1.0, Kind::Naive)];
            let mut p50 =
                Line::new(format!("one PUT alone, {kib} KiB of properties, over {link}, p50 ms"), 2, goals);
            let mut p99 = Line::new("… p99 ms", 2, Vec::new());
            let mut running = Vec::new();
            for kind in self.among(&TRANSACTING) {
                running.push(self.start_with(kind, link, &[kib << 10])?);
            }
            for server in &running {
                self.put(server, 2.0, ALONE)?;
            }
            for turn in self.turns(&running) {
                let server = &running[turn];
                let kind = server.0.kind;
                self.put(server, 0.3, ALONE)?;
                let (window, _) = self.put(server, self.seconds, ALONE)?;
                let times = times(&window.exchanges[0]);
                p50.add(kind, percentile(&times, 50.0));
                p99.add(kind, percentile(&times, 99.0));
                p50.count(kind, window.tally);
            }
            lines.extend([p50, p99]);
            self.generator.clear();
        }
        Ok(lines)
    }

    /// Measures how much the link to MySQL adds to PUTs and reads.
    fn links(&mut self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        // With its name and the like the last has the 64 KiB that are allowed.
        for kib in [0, 4, 16, 63] {
            let what = format!("one PUT alone, {kib} KiB of properties, p50 ms");
            let mut make = |ids: &[u64]| {
                let id = ids[0];
                Box::new(move |_, t| (0_usize, request("PUT", "/location", &movement(id, 0, t)))) as Make
            };
            lines.extend(self.compare_links(&what, &[kib << 10], (ALONE, 201), &mut make, &|window| {
                percentile(&times(&window.exchanges[0]), 50.0)
            })?);
        }
        let mut make = |ids: &[u64]| Box::new(move_in_turn(ids.to_vec())) as Make;
        let what = "256 PUTs in flight, 1,000 locations, ms a PUT";
        lines.extend(self.compare_links(what, &[0; 1000], (IN_FLIGHT, 201), &mut make, &|window| {
            1e3 * window.seconds / window.exchanges[0].len() as f64
        })?);
        for (what, path) in [
            ("a list of 50 locations of 4 KiB, p50 ms", "/location?perPage=50"),
            ("one location of 4 KiB, p50 ms", "/location/{id}"),
            ("its history, p50 ms", "/location/{id}/history"),
        ] {
            let mut make = |ids: &[u64]| {
                let path = path.replace("{id}", &ids[0].to_string());
                Box::new(move |_, _| (usize::MAX, request("GET", &path, ""))) as Make
            };
            lines.extend(self.compare_links(what, &[4 << 10; 50], (ALONE, 200), &mut make, &|window| {
                percentile(&times(&window.exchanges[0]), 50.0)
            })?);
        }
        Ok(lines)
    }

    /// Puts the same load on a server for each link, in turns. Returns a line for each link, and one with the ratio of the
    /// slowest median to the fastest.
    fn compare_links(
        &mut self,
        what: &str,
        sizes: &[usize],
        (pace, good): (Pace, u16),
        make: &mut dyn FnMut(&[u64]) -> Make,
        value: &dyn Fn(&Window) -> f64,
    ) -> Result<Vec<Line>> {
        let mut lines: Vec<_> =
            Link::ALL.iter().map(|link| Line::new(format!("{what}, over {link}"), 3, Vec::new())).collect();
        let mut spread = Line::new("… the dearest by the cheapest", 2, vec![AtMost(1.2)]);
        let mut running = Vec::new();
        for link in Link::ALL {
            running.push(self.start_with(Kind::Georoom, link, sizes)?);
        }
        let mut requests: Vec<_> =
            running.iter().map(|(_, fleet)| make(&self.generator.ids(*fleet))).collect();
        let mut drive = |bench: &mut Self, turn: usize, seconds| {
            let stream = Stream { pace, make: &mut *requests[turn], good, most: u64::MAX };
            bench.measure(&running[turn], seconds, &mut [stream])
        };
        // Each is warm before the first is measured.
        for turn in 0..running.len() {
            drive(self, turn, 2.0)?;
        }
        for turn in self.turns(&running) {
            let (window, _) = drive(self, turn, self.seconds)?;
            lines[turn].add(Kind::Georoom, value(&window));
            lines[turn].count(Kind::Georoom, window.tally);
        }
        self.generator.clear();
        let medians = lines.iter().map(|line| median(&line.values[&Kind::Georoom]));
        let (least, most) = medians
            .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        spread.add(Kind::Georoom, most / least);
        lines.push(spread);
        Ok(lines)
    }

    fn last(&mut self) -> Result<Vec<Line>> {
        let mut p50 = Line::new("PUT sent to last of 1,000 sockets, p50 ms", 2, Vec::new());
        let mut p99 = Line::new("… p99 ms", 2, Vec::new());
        let running = self.start_all(&self.senders(), 1, 1000)?;
        let pace = Pace::Rate(20.0);
        let mut commits = Vec::new();
        for server in &running {
            self.put(server, 2.0, pace)?;
        }
        self.mysql.query(&format!("USE {}", Kind::Georoom.database(self.link).expect("it has one")))?;
        for (i, turn) in self.turns(&running).into_iter().enumerate() {
            if i % running.len() == 0 {
                commits.extend(self.mysql.commits(60)?);
            }
            let server = &running[turn];
            let kind = server.0.kind;
            self.put(server, 0.5, pace)?;
            let (window, _) = self.put(server, self.seconds, pace)?;
            let times = self.generator.to_the_last(server.1, &window.exchanges[0]);
            p50.add(kind, percentile(&times, 50.0));
            p99.add(kind, percentile(&times, 99.0));
            p50.count(kind, window.tally);
        }
        self.check_open(&running)?;
        p50.goals = vec![AtMostTimesAndCommit(1.3, Kind::Floor, percentile(&commits, 50.0))];
        Ok(vec![p50, p99])
    }

    fn memory(&mut self) -> Result<Vec<Line>> {
        let sockets = IDLE.min(self.files.saturating_sub(500));
        let mut each =
            Line::new(format!("KiB resident an idle WebSocket, {sockets} of them"), 1, vec![AtMost(17.0)]);
        let mut empty = Line::new("MiB resident, empty process", 1, vec![AtMost(12.0)]);
        let kinds = self.among(&[Kind::Georoom, Kind::Node, Kind::Eiows]);
        for round in 0..self.rounds {
            for i in 0..kinds.len() {
                let kind = kinds[(round + i) % kinds.len()];
                let server = self.start(kind, self.link)?;
                sleep(Duration::from_secs(1));
                empty.add(kind, server.resident() as f64 / 1024.0);
                // The first ones bring code and pools into memory that all share.
                let first = self.generator.fleet(server.api);
                self.generator.subscribe(first, server.gateway, 100)?;
                self.generator.rest(Duration::from_secs(1))?;
                let before = server.resident();
                let fleet = self.generator.fleet(server.api);
                self.generator.subscribe(fleet, server.gateway, sockets)?;
                self.generator.rest(Duration::from_secs(2))?;
                each.add(kind, server.resident().saturating_sub(before) as f64 / sockets as f64);
                if self.generator.closed(fleet) > 0 {
                    return Err(format!("{kind} closed idle sockets").into());
                }
                self.generator.clear();
            }
        }
        Ok(vec![each, empty])
    }

    fn bbox(&mut self) -> Result<Vec<Line>> {
        let (stored, moving) = (100_000, 10_000_u64);
        let about = "100,000 locations stored, 10,000 moving at 1 Hz";
        let mut p50 =
            Line::new(format!("{about}: bbox query with about 20 hits, p50 ms"), 2, vec![AtMost(2.0)]);
        let mut p99 = Line::new("… p99 ms", 2, Vec::new());
        let mut hits = Line::new("… hits a query", 1, Vec::new());
        let mut put = Line::new("… PUT, p50 ms", 2, Vec::new());
        let mut rate = Line::new("… PUT/s, of 10,000 that were due", 0, Vec::new());
        let mut still = Line::new("… bbox query while nothing moves, p50 ms", 2, Vec::new());
        let running = self.start_all(&self.among(&[Kind::Georoom]), stored, 0)?;
        let server = &running[0];
        let ids = self.generator.ids(server.1);
        for round in 0..=self.rounds {
            // Every tenth moves.
            let mut moves = |i: u64, t: f64| {
                let room = (i % moving) as usize * (stored / moving as usize);
                (room, request("PUT", "/location", &movement(ids[room], room, t)))
            };
            let puts =
                Stream { pace: Pace::Rate(moving as f64), make: &mut moves, good: 201, most: u64::MAX };
            let mut query = |i, _| (usize::MAX, request("GET", &bbox_of_20(i), ""));
            let gets = Stream { pace: Pace::Rate(25.0), make: &mut query, good: 200, most: u64::MAX };
            let (window, _) = self.measure(server, self.seconds.max(2.0), &mut [puts, gets])?;
            let gets = Stream { pace: Pace::Rate(25.0), make: &mut query, good: 200, most: u64::MAX };
            let (quiet, _) = self.measure(server, 2.0, &mut [gets])?;
            // The first round warms up: every location moves once or more.
            if round == 0 {
                continue;
            }
            let [puts, gets] = &window.exchanges[..] else { unreachable!("two streams") };
            p50.add(Kind::Georoom, percentile(&times(gets), 50.0));
            p99.add(Kind::Georoom, percentile(&times(gets), 99.0));
            hits.add(Kind::Georoom, gets.iter().map(|get| get.hits as f64).sum::<f64>() / gets.len() as f64);
            put.add(Kind::Georoom, percentile(&times(puts), 50.0));
            rate.add(Kind::Georoom, puts.len() as f64 / window.seconds);
            still.add(Kind::Georoom, percentile(&times(&quiet.exchanges[0]), 50.0));
            p50.count(Kind::Georoom, window.tally);
        }
        let tally = self.generator.audit(server.1)?;
        p50.count(Kind::Georoom, tally);
        Ok(vec![p50, p99, hits, put, rate, still])
    }
}

/// From due to answered.
fn times(exchanges: &[Exchange]) -> Vec<u64> {
    exchanges.iter().map(|exchange| exchange.answered.saturating_sub(exchange.due)).collect()
}

/// PUTs that go round the locations, over all windows, so that none is moved twice at a time.
fn move_in_turn(ids: Vec<u64>) -> impl FnMut(u64, f64) -> (usize, Vec<u8>) {
    move |i, t| {
        let room = (i % ids.len() as u64) as usize;
        (room, request("PUT", "/location", &movement(ids[room], room, t)))
    }
}

fn movement(id: u64, number: usize, t: f64) -> String {
    format!(r#"{{"id":{id},"geometry":{}}}"#, place(number, t))
}

/// Where a location is at that second: spread over a degree square, each on its way at 15 m/s, five
/// minutes there and five back.
fn place(number: usize, t: f64) -> String {
    let way = 15.0 * (300.0 - (t % 600.0 - 300.0).abs());
    let (sin, cos) = (number as f64).sin_cos();
    let lon = 13.0 + part(number as u64, 0.618_033_988) + sin * way / 67_000.0;
    let lat = 52.0 + part(number as u64, 0.414_213_562) + cos * way / 111_000.0;
    format!(r#"{{"type":"Point","coordinates":[{lon:.6},{lat:.6}]}}"#)
}

/// The path of the i-th query, for a box of so much of the square as holds 20 of 100,000 locations.
fn bbox_of_20(i: u64) -> String {
    let (w, s) = (13.0 + 0.98 * part(i, 0.754_877), 52.0 + 0.98 * part(i, 0.569_840));
    format!("/location?bbox={w:.5},{s:.5},{:.5},{:.5}&perPage=100", w + 0.0141, s + 0.0141)
}

/// Evenly spread between 0 and 1.
fn part(i: u64, step: f64) -> f64 {
    (i as f64 * step).fract()
}
