//! Bytes to a JSON object, once, noticing what `serde_json::Value` alone would swallow: a member that
//! is there twice.
//!
//! The parser also accepts what senders write in different ways: a byte order mark, and integers such as `7.0`.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, map::Entry};

use super::error::{Code, Error, Result};

/// The largest integer that every sender can write exactly: JavaScript's `Number.MAX_SAFE_INTEGER`.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Windows programs write a byte order mark before UTF-8 text. A parser may ignore it (RFC 8259 §8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a number whose value is a non-negative integer: Lua, Godot and others have one type of number and write `7` as
/// `7.0`. `None` above 2^53-1, where such a number may stand for several integers.
pub fn integer(value: &Value) -> Option<u64> {
    let number = value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        // The range is checked first, so the cast is exact.
        let is_integer = (0.0..=MAX_SAFE_INTEGER as f64).contains(&number) && number.fract() == 0.0;
        is_integer.then_some(number as u64)
    });
    number.filter(|number| *number <= MAX_SAFE_INTEGER)
}

/// Parses a body that must be one JSON object. A byte order mark before it is ignored.
///
/// # Errors
/// `invalid_json` where it is not JSON, `duplicate_member` at the first member found twice,
/// `invalid_body` where it is another value than an object.
pub fn object(body: &[u8]) -> Result<Map<String, Value>> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut duplicate = None;
    let tree = Tree { path: Path::Root, duplicate: &mut duplicate };
    let value = tree
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|e| Error::new(Code::InvalidJson, format!("the body is not JSON: {e}")))?;
    if let Some(at) = duplicate {
        let detail = "a member of this name is already in the same object";
        return Err(Error::new(Code::DuplicateMember, detail).at(at));
    }
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(Error::new(Code::InvalidBody, "the body must be a JSON object").at("")),
    }
}

/// Any JSON as it was sent: to `serde_json::Value` the name `$serde_json::private::RawValue` is a command,
/// to parse text again inside the text, each time with a fresh limit of depth.
#[derive(Debug, Default)]
pub struct Plain(pub Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Tree { path: Path::Root, duplicate: &mut None }.deserialize(deserializer).map(Self)
    }
}

/// The place of a value in a body. It becomes a JSON Pointer only when the value is at fault.
#[derive(Debug)]
pub enum Path<'a> {
    Root,
    Member(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

/// Writes a JSON Pointer, each token escaped as RFC 6901 §3 says.
impl From<&Path<'_>> for String {
    fn from(path: &Path<'_>) -> Self {
        match *path {
            Path::Root => Self::new(),
            Path::Member(parent, name) => {
                Self::from(parent) + "/" + &name.replace('~', "~0").replace('/', "~1")
            }
            Path::Item(parent, index) => format!("{}/{index}", Self::from(parent)),
        }
    }
}

/// Builds a `Value` and remembers the first duplicate.
struct Tree<'a> {
    path: Path<'a>,
    duplicate: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = items.next_element_seed(Tree {
            path: Path::Item(&self.path, array.len()),
            duplicate: self.duplicate,
        })? {
            array.push(value);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let member = object.entry(name);
            let path = Path::Member(&self.path, member.key());
            if matches!(member, Entry::Occupied(_)) {
                self.duplicate.get_or_insert_with(|| String::from(&path));
            }
            let value = members.next_value_seed(Tree { path, duplicate: self.duplicate })?;
            *member.or_insert(Value::Null) = value;
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
