//! Ids of locations, users and share links: integers that a JavaScript client can hold exactly.
//!
//! An id in JSON is a number whose value is an integer, or a decimal string: Lua writes every number with a point, and
//! HTML forms have no numbers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    error::{Code, Error, Result},
    json::{Plain, integer},
};

pub use super::json::MAX_SAFE_INTEGER;

/// A location's id, 1 to 2^53-1; in decimal also the name of its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct LocationId(u64);

impl LocationId {
    /// `None` outside 1 to 2^53-1.
    pub fn new(id: u64) -> Option<Self> {
        (1..=MAX_SAFE_INTEGER).contains(&id).then_some(Self(id))
    }

    pub fn get(self) -> u64 {
        self.0
    }

    /// Reads a body's `id`.
    ///
    /// # Errors
    /// `invalid_id` at `/id`.
    pub fn from_json(value: Option<&Value>) -> Result<Self> {
        value.and_then(Self::of_value).ok_or_else(|| {
            let detail = "id must be an integer from 1 to 2^53-1, or its decimal string";
            Error::new(Code::InvalidId, detail).at("/id")
        })
    }

    fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => text.parse().ok(),
            value => integer(value).and_then(Self::new),
        }
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

    fn from_str(text: &str) -> Result<Self, ()> {
        parse_canonical(text).and_then(Self::new).ok_or(())
    }
}

/// Parses a positive integer without sign, leading zero or space: in this form one number has one text.
pub fn parse_canonical(text: &str) -> Option<u64> {
    let is_canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    is_canonical.then(|| text.parse().ok()).flatten()
}

impl<'de> Deserialize<'de> for LocationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of_value(&Plain::deserialize(deserializer)?.0).ok_or_else(|| {
            serde::de::Error::custom("a location's id is an integer from 1 to 2^53-1, or its decimal string")
        })
    }
}

/// A user's id, 0 to 2^53-1. In open mode only a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct UserId(u64);

impl UserId {
    /// The user of a caller in open mode who gives no user id.
    pub const DEFAULT: Self = Self(1);

    /// `None` above 2^53-1.
    pub fn new(id: u64) -> Option<Self> {
        (id <= MAX_SAFE_INTEGER).then_some(Self(id))
    }

    pub fn get(self) -> u64 {
        self.0
    }

    fn invalid() -> Error {
        Error::new(Code::InvalidUserId, "userId must be an integer from 0 to 2^53-1")
    }

    /// A number that is an integer by its value, or its decimal string without leading zeros: one user has one name.
    pub fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => text.parse().ok().filter(|id: &Self| id.to_string() == *text),
            value => integer(value).and_then(Self::new),
        }
    }

    /// Reads a body's `userId`; absent is the default.
    ///
    /// # Errors
    /// `invalid_user_id` at `/userId`.
    pub fn from_json(value: Option<&Value>) -> Result<Self> {
        match value {
            None => Ok(Self::DEFAULT),
            Some(value) => Self::of_value(value).ok_or_else(|| Self::invalid().at("/userId")),
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
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of_value(&Plain::deserialize(deserializer)?.0)
            .ok_or_else(|| serde::de::Error::custom("a userId is an integer from 0 to 2^53-1"))
    }
}

/// A share link's id, which is public; its token is secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ShareId(pub u64);

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

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
    fn an_id_in_json_is_a_number_by_its_value_or_its_string() {
        fn both<T: DeserializeOwned>(
            text: &str,
            from_json: fn(Option<&Value>) -> Result<T>,
            get: fn(T) -> u64,
        ) -> Option<u64> {
            let value = serde_json::from_str(text).unwrap();
            let in_body = from_json(Some(&value)).map(get).ok();
            let in_event = serde_json::from_str(text).map(get).ok();
            assert_eq!(in_body, in_event, "{text}");
            in_body
        }
        let location = |text: &str| both(text, LocationId::from_json, LocationId::get);
        let user = |text: &str| both(text, UserId::from_json, UserId::get);
        for text in ["42", "42.0", "4.2e1", "\"42\""] {
            assert_eq!((location(text), user(text)), (Some(42), Some(42)), "{text}");
        }
        for text in ["1.5", "-1", "null", "[1]", "\"\"", "\"1.0\"", "true", "{}", "9007199254740992"] {
            assert_eq!((location(text), user(text)), (None, None), "{text}");
        }
        assert_eq!((location("0"), location("-0"), location("\"01\"")), (None, None, None));
        assert_eq!((user("0"), user("-0")), (Some(0), Some(0)));
    }
}
