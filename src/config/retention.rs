//! The bounds within which history and notifications are kept. Number and age hold together.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    limits::COUNTS,
    source::{Invalid, Source},
};

/// Far more versions than anybody keeps; the bound keeps sums of versions far from overflow.
const HISTORY_VERSIONS: RangeInclusive<u64> = 1..=1_000_000_000;

/// The history that is kept of a location.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct History {
    /// The number of versions, the newest included; at least 1.
    pub versions: u64,
    /// The age of the oldest version. The newest is kept whatever its age. `None`: any age.
    pub age: Option<Duration>,
}

impl History {
    pub(super) fn read(source: &Source) -> Result<Self, Invalid> {
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
    pub(super) fn read(source: &Source) -> Result<Self, Invalid> {
        let age = source.age("NOTIFICATION_AGE", "a time of at least 1s, such as 90d")?;
        let count = source.number("NOTIFICATION_COUNT", "an integer", &COUNTS)?;
        Ok(Self { age, count: count.get().into() })
    }
}
