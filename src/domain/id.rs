//! Who and what: ids of locations and users. Integers a JavaScript client can hold exactly.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    error::{Code, Error, Result},
    json::Plain,
};

/// Number.MAX_SAFE_INTEGER.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// A location's id, 1 to 2^53-1; in decimal also the name of its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct LocationId(u64);

impl LocationId {
    /// `None` outside 1 to 2^53-1.
    pub fn new(id: u64) -> Option<Self> {
        (1..=MAX_SAFE_INTEGER).contains(&id).then_some(Self(id))
    }

    /// The bare number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// From a JSON integer; `1.0`, `1e0` and `"1"` are not.
    ///
    /// # Errors
    /// `invalid_id` at `/id`.
    pub fn from_json(value: Option<&Value>) -> Result<Self> {
        value
            .and_then(Value::as_u64)
            .and_then(Self::new)
            .ok_or_else(|| Error::new(Code::InvalidId, "id must be an integer from 1 to 2^53-1").at("/id"))
    }
}

impl fmt::Display for LocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Canonical decimal only: no sign, no leading zero, no space, so that one location has one name.
impl FromStr for LocationId {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        let id = canonical.then(|| text.parse().ok()).flatten();
        id.and_then(Self::new).ok_or(())
    }
}

/// A number or its decimal string, as events carry it.
impl<'de> Deserialize<'de> for LocationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let id = match Plain::deserialize(deserializer)?.0 {
            Value::Number(number) => number.as_u64().and_then(Self::new),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        id.ok_or_else(|| {
            serde::de::Error::custom("a location's id is an integer from 1 to 2^53-1, or its decimal string")
        })
    }
}

/// A user's id, 0 to 2^53-1. In open mode only a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct UserId(u64);

impl UserId {
    /// Who acts when nobody says.
    pub const DEFAULT: Self = Self(1);

    /// `None` above 2^53-1.
    pub fn new(id: u64) -> Option<Self> {
        (id <= MAX_SAFE_INTEGER).then_some(Self(id))
    }

    /// The bare number.
    pub fn get(self) -> u64 {
        self.0
    }

    fn invalid() -> Error {
        Error::new(Code::InvalidUserId, "userId must be an integer from 0 to 2^53-1")
    }

    /// From a body's `userId`; absent is the default.
    ///
    /// # Errors
    /// `invalid_user_id` at `/userId`.
    pub fn from_json(value: Option<&Value>) -> Result<Self> {
        match value {
            None => Ok(Self::DEFAULT),
            Some(value) => value.as_u64().and_then(Self::new).ok_or_else(|| Self::invalid().at("/userId")),
        }
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Decimal digits, as a query parameter carries it.
impl FromStr for UserId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let id = digits.then(|| text.parse().ok()).flatten();
        id.and_then(Self::new).ok_or_else(Self::invalid)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let Plain(value) = Plain::deserialize(deserializer)?;
        let id = value.as_u64().and_then(Self::new);
        id.ok_or_else(|| serde::de::Error::custom("a userId is an integer from 0 to 2^53-1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_location_has_one_name() {
        for text in [
            "",
            "0",
            "01",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1.0",
            "1e0",
            "0x1",
            "١",
            "9007199254740992",
            "18446744073709551616",
        ] {
            assert!(text.parse::<LocationId>().is_err(), "{text:?}");
        }
        assert_eq!("9007199254740991".parse::<LocationId>().unwrap().get(), 9_007_199_254_740_991);
    }

    #[test]
    fn events_take_a_number_or_its_string() {
        let parse = |text: &str| serde_json::from_str::<LocationId>(text).map(LocationId::get).ok();
        assert_eq!(parse("42"), Some(42));
        assert_eq!(parse("\"42\""), Some(42));
        for text in ["1.0", "1e0", "-1", "0", "null", "[1]", "\"01\"", "true", "9007199254740992"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
