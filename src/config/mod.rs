//! Settings, read once from flags and environment and checked before anything starts.
//!
//! [`SETTINGS`] is the table of them. Each group has a file here that checks its values, and `Source` knows how a kind
//! of value is read. Secrets never come by flag and are never printed, not even in the error about them.

mod auth;
mod database;
mod limits;
mod settings;
mod source;
mod timings;

use std::{env::VarError, ops::RangeInclusive, time::Duration};

use crate::telemetry::{LogFormat, check_filter};

use limits::COUNTS;
use source::Source;

pub use self::{
    auth::{Addresses, Auth},
    database::{Database, Secret},
    limits::{Limits, Quotas},
    settings::{RESERVED, SETTINGS, Setting},
    source::Invalid,
    timings::Timings,
};

/// Far more versions than anybody keeps; the bound keeps sums of versions far from overflow.
const HISTORY_VERSIONS: RangeInclusive<u64> = 1..=1_000_000_000;

/// Everything the server needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The database.
    pub database: Database,
    /// The addresses to listen on.
    pub addresses: Addresses,
    /// The rules by which callers are let in.
    pub auth: Auth,
    /// The heartbeat of every socket.
    pub heartbeat: Heartbeat,
    /// The history that is kept of each location.
    pub history: History,
    /// The notifications that are kept of each user.
    pub notifications: Notifications,
    /// The limits of callers and connections.
    pub limits: Limits,
    /// The log.
    pub log: Log,
    /// The times that no setting changes.
    pub timings: Timings,
}

impl Config {
    /// Reads and checks every setting. `flag` looks one up on the command line, `variable` in the environment; an empty
    /// value counts as none.
    ///
    /// # Errors
    /// The first setting that is wrong, or is not built yet.
    pub fn load(
        flag: impl Fn(&str) -> Option<String>,
        variable: impl Fn(&str) -> Result<String, VarError>,
    ) -> Result<Self, Invalid> {
        let source = &Source::read(flag, variable)?;
        let addresses = Addresses::read(source)?;
        Ok(Self {
            addresses,
            auth: Auth::read(source, addresses)?,
            heartbeat: Heartbeat {
                interval: source.duration("PING_INTERVAL")?,
                timeout: source.duration("PING_TIMEOUT")?,
            },
            history: History::read(source)?,
            notifications: Notifications::read(source)?,
            limits: Limits::read(source)?,
            log: Log::read(source)?,
            timings: Timings::default(),
            database: Database::read(source)?,
        })
    }

    /// Reads and checks settings that come by environment alone.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Invalid> {
        Self::load(|_| None, |name| variable(name).ok_or(VarError::NotPresent))
    }
}

/// Engine.IO's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heartbeat {
    /// The time between two pings.
    pub interval: Duration,
    /// The time after which a missing pong ends the socket.
    pub timeout: Duration,
}

/// The history that is kept of a location.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct History {
    /// The number of versions, the newest included; at least 1.
    pub versions: u64,
    /// The age of the oldest version. The newest is kept whatever its age. `None`: any age.
    pub age: Option<Duration>,
}

impl History {
    fn read(source: &Source) -> Result<Self, Invalid> {
        const AGE: &str = "HISTORY_AGE";
        let versions = source.number("HISTORY_VERSIONS", "an integer", &HISTORY_VERSIONS)?;
        let expected = "a time of at least 1s, such as 30d; unset: no limit";
        let age = source.given(AGE).map(|_| source.age(AGE, expected)).transpose()?;
        Ok(Self { versions, age })
    }
}

/// The notifications that are kept of a user.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Notifications {
    /// The age of the oldest notification.
    pub age: Duration,
    /// The number of notifications of one user.
    pub count: u64,
}

impl Notifications {
    fn read(source: &Source) -> Result<Self, Invalid> {
        let age = source.age("NOTIFICATION_AGE", "a time of at least 1s, such as 90d")?;
        let count = source.number("NOTIFICATION_COUNT", "an integer", &COUNTS)?;
        Ok(Self { age, count: count.get().into() })
    }
}

/// The log's format, and the lines that it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// A filter as `tracing-subscriber` reads it.
    pub filter: String,
}

impl Log {
    fn read(source: &Source) -> Result<Self, Invalid> {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = source.choice("LOG_FORMAT", "text or json", &formats)?;
        let filter = source.text("RUST_LOG").to_owned();
        check_filter(&filter).map_err(|reason| Invalid::new("RUST_LOG", reason))?;
        Ok(Self { format, filter })
    }
}

#[cfg(test)]
mod tests;
