//! What a door has refused, by code: one counter each, made at the start.

use crate::{
    domain::error::Code,
    metrics::{Counter, Metrics},
};

/// A counter for each code, in the order of the table.
#[derive(Debug)]
pub struct Refusals(Vec<Counter>);

impl Refusals {
    /// None yet.
    pub fn at(door: &'static str, metrics: &Metrics) -> Self {
        Self(Code::ALL.iter().map(|code| metrics.refused(door, code.as_str())).collect())
    }

    /// One more.
    pub fn count(&self, code: Code) {
        self.0[code as usize].inc();
    }
}
