//! Counters of refusals at one door, one for each code.

use crate::{
    domain::error::Code,
    metrics::{Counter, Metrics},
};

/// A counter for each code, in the order of the table.
#[derive(Debug)]
pub struct Refusals(Vec<Counter>);

impl Refusals {
    /// Creates the counters.
    pub fn at(door: &'static str, metrics: &Metrics) -> Self {
        Self(Code::ALL.iter().map(|code| metrics.refused(door, code.as_str())).collect())
    }

    /// Counts a refusal.
    pub fn count(&self, code: Code) {
        self.0[code as usize].inc();
    }
}
