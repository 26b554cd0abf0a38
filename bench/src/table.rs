//! The table of everything that was measured, with the goals.

use std::collections::BTreeMap;

use crate::{load::Tally, servers::Kind};

/// Returns the median of some values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Returns a percentile of times in ns, in ms.
pub fn percentile(times: &[u64], percent: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |ns| *ns as f64 / 1e6)
}

/// A goal for georoom's value.
#[derive(Clone, Debug)]
pub enum Goal {
    /// The value is at most so many times that of another server.
    AtMostTimes(f64, Kind),
    /// The value is at least so many times that of another server.
    AtLeastTimes(f64, Kind),
    /// The value is at most so many times that of another server, plus one commit of this many ms.
    AtMostTimesAndCommit(f64, Kind, f64),
    /// The value is at most this.
    AtMost(f64),
}

/// A line of the table: a value that was measured of each server.
pub struct Line {
    /// The name of the value.
    pub what: String,
    /// Digits behind the point.
    pub digits: usize,
    /// The goals of georoom.
    pub goals: Vec<Goal>,
    /// The value in each round.
    pub values: BTreeMap<Kind, Vec<f64>>,
    /// The faults in the windows of each server; empty if they are not counted.
    pub tally: BTreeMap<Kind, Tally>,
}

impl Line {
    /// Makes a line without values.
    pub fn new(what: impl Into<String>, digits: usize, goals: Vec<Goal>) -> Self {
        Self { what: what.into(), digits, goals, values: BTreeMap::new(), tally: BTreeMap::new() }
    }

    /// Adds the value of the next round.
    pub fn add(&mut self, kind: Kind, value: f64) {
        self.values.entry(kind).or_default().push(value);
    }

    /// Adds the faults of a window.
    pub fn count(&mut self, kind: Kind, tally: Tally) {
        *self.tally.entry(kind).or_default() += tally;
    }

    fn median(&self, kind: Kind) -> Option<f64> {
        self.values.get(&kind).map(|values| median(values))
    }

    /// Returns georoom's value divided by another's, for each round.
    fn ratios(&self, other: Kind) -> Vec<f64> {
        let of = |kind| self.values.get(&kind).into_iter().flatten();
        of(Kind::Georoom).zip(of(other)).map(|(ours, theirs)| ours / theirs).collect()
    }

    fn ratio(&self, other: Kind) -> String {
        let ratios = self.ratios(other);
        if ratios.is_empty() || other == Kind::Georoom {
            return "–".into();
        }
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("**{:.2}** ({least:.2}…{most:.2})", median(&ratios))
    }

    fn verdict(&self, goal: &Goal) -> String {
        let digits = self.digits;
        let (text, is, bound, at_most) = match *goal {
            Goal::AtMostTimes(times, kind) => {
                (format!("≤ {times} × {kind}"), median(&self.ratios(kind)), times, true)
            }
            Goal::AtLeastTimes(times, kind) => {
                (format!("≥ {times} × {kind}"), median(&self.ratios(kind)), times, false)
            }
            Goal::AtMostTimesAndCommit(times, kind, commit) => {
                let bounds =
                    self.values.get(&kind).into_iter().flatten().map(|theirs| times * theirs + commit);
                let ours = self.values.get(&Kind::Georoom).into_iter().flatten();
                let shares: Vec<_> = ours.zip(bounds).map(|(ours, bound)| ours / bound).collect();
                let text = format!("≤ {times} × {kind} + a commit ({commit:.digits$})");
                (text, median(&shares), 1.0, true)
            }
            Goal::AtMost(bound) => {
                (format!("≤ {bound}"), self.median(Kind::Georoom).unwrap_or(f64::NAN), bound, true)
            }
        };
        let met = if at_most { is <= bound } else { is >= bound };
        match (is.is_nan(), met) {
            (true, _) => format!("{text}: not measured"),
            (_, true) => format!("{text}: met"),
            (_, false) => {
                let off = (is / bound - 1.0) * 100.0;
                format!("{text}: **missed by {:.0} %**", off.abs().max(1.0))
            }
        }
    }

    fn faults(&self) -> String {
        if self.tally.is_empty() {
            return "–".into();
        }
        let text =
            |tally: &Tally| format!("{} {} {} {}", tally.lost, tally.repeated, tally.swapped, tally.failed);
        if self.tally.values().all(|tally| *tally == Tally::default()) {
            return "0 0 0 0".into();
        }
        let each: Vec<_> = self.tally.iter().map(|(kind, tally)| format!("{kind} {}", text(tally))).collect();
        each.join("; ")
    }
}

/// Writes the lines as Markdown, with columns for the servers that took part.
pub fn markdown(lines: &[Line], kinds: &[Kind]) -> String {
    let peers: Vec<_> = kinds.iter().filter(|kind| **kind != Kind::Georoom).collect();
    let mut head = vec!["median".to_owned()];
    head.extend(kinds.iter().map(ToString::to_string));
    head.extend(peers.iter().map(|peer| format!("georoom / {peer}")));
    head.extend(["lost repeated swapped failed".into(), "goal".into()]);
    let mut text = format!("| {} |\n|---{}\n", head.join(" | "), "|---".repeat(head.len() - 1) + "|");
    for line in lines {
        let digits = line.digits;
        let mut cells = vec![line.what.clone()];
        cells.extend(
            kinds.iter().map(|kind| {
                line.median(*kind).map_or_else(|| "–".into(), |value| format!("{value:.digits$}"))
            }),
        );
        cells.extend(peers.iter().map(|peer| line.ratio(**peer)));
        cells.push(line.faults());
        let verdicts: Vec<_> = line.goals.iter().map(|goal| line.verdict(goal)).collect();
        cells.push(if verdicts.is_empty() { "–".into() } else { verdicts.join("<br>") });
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_held_against_the_median_of_the_rounds() {
        let mut line = Line::new("µs", 1, vec![Goal::AtMostTimes(0.5, Kind::Node), Goal::AtMost(2.0)]);
        for (ours, theirs) in [(4.0, 10.0), (6.0, 10.0), (4.5, 10.0)] {
            line.add(Kind::Georoom, ours);
            line.add(Kind::Node, theirs);
        }
        assert_eq!(line.ratio(Kind::Node), "**0.45** (0.40…0.60)");
        assert_eq!(line.verdict(&line.goals[0]), "≤ 0.5 × node: met");
        assert_eq!(line.verdict(&line.goals[1]), "≤ 2: **missed by 125 %**");
    }
}
