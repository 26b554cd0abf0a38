//! JSON in another reading than georoom's: every member is kept, and no member's name means anything.

#![allow(dead_code)]

use std::{collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

#[derive(Clone, Debug, PartialEq)]
pub enum Doc {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    /// Its bits: -0 is not 0.
    Float(u64),
    Text(String),
    Array(Vec<Doc>),
    Object(Vec<(String, Doc)>),
}

impl Doc {
    /// Reads JSON, which may have a byte order mark before it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)).ok()
    }

    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub fn members(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    pub fn items(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn get(&self, name: &str) -> Option<&Self> {
        self.members()?.iter().find(|member| member.0 == name).map(|member| &member.1)
    }

    /// A number that is a non-negative integer by its value.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Float(bits) => {
                let number = f64::from_bits(*bits);
                (number >= 0.0 && number.fract() == 0.0 && number < u64::MAX as f64).then_some(number as u64)
            }
            _ => None,
        }
    }

    /// An id: such a number, or its decimal string, which is its only name.
    pub fn as_id(&self) -> Option<u64> {
        match self {
            Self::Text(text) => text.parse().ok().filter(|id: &u64| id.to_string() == *text),
            number => number.as_u64(),
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Unsigned(number) => Some(*number as f64),
            Self::Signed(number) => Some(*number as f64),
            Self::Float(bits) => Some(f64::from_bits(*bits)),
            _ => None,
        }
    }

    /// Does a JSON Pointer (RFC 6901) lead to something?
    pub fn has(&self, pointer: &str) -> bool {
        let Some(rest) = pointer.strip_prefix('/') else { return pointer.is_empty() };
        let (token, rest) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let token = token.replace("~1", "/").replace("~0", "~");
        match self {
            Self::Array(items) => {
                token.parse::<usize>().is_ok_and(|n| items.get(n).is_some_and(|item| item.has(rest)))
            }
            Self::Object(members) => members.iter().any(|(name, value)| *name == token && value.has(rest)),
            _ => false,
        }
    }

    /// Is a member anywhere twice?
    pub fn repeats(&self) -> bool {
        match self {
            Self::Array(items) => items.iter().any(Self::repeats),
            Self::Object(members) => {
                let mut names = HashSet::new();
                members.iter().any(|(name, value)| !names.insert(name) || value.repeats())
            }
            _ => false,
        }
    }

    /// Equal, whatever the order of members.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Array(a), Self::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Self::Object(a), Self::Object(b)) => {
                let found = |name: &str, a: &Self| other.get(name).is_some_and(|b| a.same(b));
                a.len() == b.len() && a.iter().all(|(name, a)| found(name, a))
            }
            _ => self == other,
        }
    }

    /// RFC 7396, word for word.
    pub fn merged(self, patch: &Self) -> Self {
        let Self::Object(changes) = patch else { return patch.clone() };
        let mut members = match self {
            Self::Object(members) => members,
            _ => Vec::new(),
        };
        for (name, value) in changes {
            let at = members.iter().position(|member| member.0 == *name);
            let old = at.map(|at| members.remove(at).1);
            if *value != Self::Null {
                members.push((name.clone(), old.unwrap_or(Self::Null).merged(value)));
            }
        }
        Self::Object(members)
    }
}

impl<'de> Deserialize<'de> for Doc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Doc;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Doc, E> {
        Ok(Doc::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Doc, E> {
        Ok(Doc::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Doc, E> {
        Ok(Doc::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Doc, E> {
        Ok(Doc::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Doc, E> {
        Ok(Doc::Float(value.to_bits()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Doc, E> {
        Ok(Doc::text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Doc, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Doc::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Doc, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Doc::Object(object))
    }
}
