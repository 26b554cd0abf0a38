//! Rows about what a server holds: memory for idle sockets, and spatial queries over many locations.

use std::{thread::sleep, time::Duration};

use Goal::AtMost;
use bench::{
    load::{Pace, Stream},
    servers::Kind,
    table::{Goal, Line, percentile},
    wire::request,
};

use super::{
    Bench, Result,
    places::{bbox_of_20, movement},
    times,
};

/// The number of idle connections while memory is measured.
const IDLE_SOCKETS: usize = 5_000;

impl Bench {
    pub(super) fn memory(&mut self) -> Result<Vec<Line>> {
        let sockets = IDLE_SOCKETS.min(self.files.saturating_sub(500));
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
                // The first sockets bring code and pools into memory, which all sockets share.
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

    pub(super) fn bbox(&mut self) -> Result<Vec<Line>> {
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
            // Every tenth location moves.
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
            // The first round warms the server up: every location moves once or more.
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
