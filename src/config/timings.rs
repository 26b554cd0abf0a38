//! The times that the contract promises, or that its promises rest on.

use std::time::Duration;

/// No setting changes these; a test hands in shorter ones. What decides by the clock without waiting is given the time
/// of its decision instead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timings {
    /// The time between two sweeps of the live rooms. A lost version is noticed after at most two of them.
    pub sweep_interval: Duration,
    /// A user may be away for this long without being announced as gone: a phone that changes networks.
    pub presence_grace: Duration,
    /// The shortest time between two numbers of sockets that a room of many users is sent.
    pub presence_count_interval: Duration,
    /// The shortest time between two lists of all users.
    pub list_interval: Duration,
    /// A user that has gone stays on that list for this long.
    pub listed_after_leaving: Duration,
    /// How long requests may go on after the server was told to stop,
    pub api_grace: Duration,
    /// and after them sockets.
    pub gateway_grace: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            sweep_interval: Duration::from_millis(1_500),
            presence_grace: Duration::from_secs(3),
            presence_count_interval: Duration::from_secs(1),
            list_interval: Duration::from_secs(1),
            listed_after_leaving: Duration::from_secs(60),
            api_grace: Duration::from_secs(4),
            gateway_grace: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_contracts() {
        let timings = Timings::default();
        // A subscriber has the last version five seconds after a fault; a read of it may take a second or two.
        assert!(2 * timings.sweep_interval <= Duration::from_secs(3));
        assert_eq!(timings.presence_count_interval, Duration::from_secs(1));
        assert_eq!(timings.listed_after_leaving, Duration::from_secs(60));
        // The server ends ten seconds after it was told to stop.
        assert!(timings.api_grace + timings.gateway_grace <= Duration::from_secs(7));
    }
}
