//! Rows about PUTs and reads: their rate, their CPU time and their delay, also over different links to MySQL.

use Goal::{AtLeastTimes, AtMost, AtMostTimes};
use bench::{
    load::{Pace, Stream, Window},
    servers::{Kind, Link},
    table::{Goal, Line, median, percentile},
    wire::request,
};

use super::{
    ALONE, Bench, IN_FLIGHT, Make, Result,
    places::{move_in_turn, movement},
    times,
};

/// The servers whose commits are compared. The other engine of WebSockets commits as `Node` does.
const TRANSACTING: [Kind; 3] = [Kind::Georoom, Kind::Node, Kind::Naive];

impl Bench {
    pub(super) fn puts(&mut self) -> Result<Vec<Line>> {
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

    pub(super) fn put_alone(&mut self) -> Result<Vec<Line>> {
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
    pub(super) fn links(&mut self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        // The largest has 64 KiB with its name and the like, which is the most that is allowed.
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
        // Every server is warm before the first is measured.
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
}
