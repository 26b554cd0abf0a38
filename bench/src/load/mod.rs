//! The load generator: one thread, one epoll, open loop.
//!
//! A request is sent when it is due, whatever has become of the requests before it, and its time runs from when it was
//! due. [`Generator`] decides when; the connections to one server are in `fleet.rs`.

mod fleet;
mod generator;
mod opening;
mod order;

use std::{error::Error, ops::AddAssign};

pub use generator::Generator;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const VERSION: &[u8] = b"\"version\":";

/// The number of deliveries and answers that were not as they should be.
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

/// A request and its answer. Times are in ns since the generator began.
#[derive(Clone, Copy, Default)]
pub struct Exchange {
    /// The time at which the request was due.
    pub due: u64,
    /// The time at which it was answered; 0 if it was not.
    pub answered: u64,
    /// The number of the location in the fleet.
    pub room: usize,
    /// The version in the answer.
    pub version: u64,
    /// The number of geometries in a list. For a single location that was read, its version.
    pub hits: u64,
}

/// The pace of requests.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Requests a second.
    Rate(f64),
    /// Requests in flight: the next is due when one is answered. This is a closed loop, for finding the most.
    InFlight(usize),
}

/// Requests that are sent again and again.
pub struct Stream<'a> {
    /// The pace.
    pub pace: Pace,
    /// Makes the i-th request, which is due at a second: the location (its place in the fleet) and the bytes.
    pub make: &'a mut dyn FnMut(u64, f64) -> (usize, Vec<u8>),
    /// The status of answers that count.
    pub good: u16,
    /// The largest number of requests.
    pub most: u64,
}

/// The result of driving a fleet for a while.
#[derive(Default)]
pub struct Window {
    /// The exchanges of each stream whose answer was good.
    pub exchanges: Vec<Vec<Exchange>>,
    /// Deliveries, each counted once.
    pub delivered: u64,
    /// The time from the first request due to the last answer or delivery, in seconds.
    pub seconds: f64,
    /// The time from the last request due to the last answer or delivery, in seconds.
    pub lag: f64,
    /// The faults.
    pub tally: Tally,
}
