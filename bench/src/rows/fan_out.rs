//! Rows about deliveries to rooms: their CPU time, their highest rate, and their delay.

use Goal::{AtLeastTimes, AtMostTimes, AtMostTimesAndCommit};
use bench::{
    load::{Pace, Tally},
    servers::Kind,
    table::{Goal, Line, percentile},
};

use super::{Bench, Measured, Result};

/// The largest lag of a server that keeps up: its last delivery is done so many seconds after the last PUT was due. In
/// windows of 2 s a greater lag means a rate that is a tenth too high.
const MAX_LAG: f64 = 0.2;

impl Bench {
    pub(super) fn fan_out(
        &mut self,
        rooms: usize,
        sockets: usize,
        rate: f64,
        goals: [f64; 2],
    ) -> Result<Vec<Line>> {
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

    /// Searches for the highest rate that a server keeps up with: all delivered, nothing lost, no growing lag.
    pub(super) fn most(&mut self) -> Result<Vec<Line>> {
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
            // The rate rises until it is too much; then rates in between are tried.
            loop {
                let mut kept_up = None;
                // A second try, because a disturbance from outside is no limit of the server.
                for _ in 0..2 {
                    let (window, spent) = self.put(server, seconds, Pace::Rate(rate))?;
                    if window.lag <= MAX_LAG && window.tally == Tally::default() {
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

    pub(super) fn last(&mut self) -> Result<Vec<Line>> {
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
            let times = self.generator.times_to_last(server.1, &window.exchanges[0]);
            p50.add(kind, percentile(&times, 50.0));
            p99.add(kind, percentile(&times, 99.0));
            p50.count(kind, window.tally);
        }
        self.check_open(&running)?;
        p50.goals = vec![AtMostTimesAndCommit(1.3, Kind::Floor, percentile(&commits, 50.0))];
        Ok(vec![p50, p99])
    }
}
