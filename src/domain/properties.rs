//! A location's own properties: whatever the caller wants to keep with it, except what the server writes.
//!
//! Kept as compact JSON text: a move leaves them alone, so they are not parsed to be written again.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{
    error::{Code, Error, Result},
    json,
};

/// All properties of one location together, as compact JSON text in UTF-8.
const MAX_BYTES: usize = 64 * 1024;

/// Members that the server writes. They are ignored on input, so that a Feature may be sent back as it was received.
const RESERVED: [&str; 5] = ["version", "userId", "updatedBy", "createdAt", "updatedAt"];

/// A JSON object's text, without the server's members and at most 64 KiB.
#[derive(Clone, Debug, PartialEq)]
pub struct Properties(String);

impl Properties {
    /// Reads a body's `properties`: absent and null are none given.
    ///
    /// # Errors
    /// `invalid_properties` where it is no object.
    pub fn given(value: Option<Value>) -> Result<Option<Map<String, Value>>> {
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(mut members)) => {
                members.retain(|name, _| !RESERVED.contains(&name.as_str()));
                Ok(Some(members))
            }
            Some(_) => {
                let detail = "properties must be an object";
                Err(Error::new(Code::InvalidProperties, detail).at("/properties"))
            }
        }
    }

    /// # Errors
    /// `properties_too_large`.
    pub fn new(members: Map<String, Value>) -> Result<Self> {
        let text = Value::Object(members).to_string();
        if text.len() > MAX_BYTES {
            let detail =
                format!("a location's properties take at most {MAX_BYTES} bytes, these {}", text.len());
            return Err(Error::new(Code::PropertiesTooLarge, detail).at("/properties"));
        }
        Ok(Self(text))
    }

    /// Takes the text that the database keeps, which came from [`Properties::as_str`]. White space around it, which an
    /// operator's hand may have left there, is removed.
    ///
    /// # Errors
    /// `internal` if it is no JSON object. It is only scanned: this is on the way of every PUT.
    pub fn from_stored(mut text: String) -> Result<Self> {
        let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
        text.truncate(text.trim_end_matches(is_space).len());
        let before = text.len() - text.trim_start_matches(is_space).len();
        text.drain(..before);
        let is_json = || serde_json::from_str::<IgnoredAny>(&text).map(drop).map_err(|e| e.to_string());
        match text.starts_with('{').then(is_json) {
            Some(Ok(())) => Ok(Self(text)),
            Some(Err(why)) => Err(Error::internal(format!("stored properties are no JSON: {why}"))),
            None => Err(Error::internal("stored properties are no JSON object")),
        }
    }

    /// The text that the database keeps.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As objects again.
    ///
    /// # Errors
    /// `internal` where the database holds something else than was written.
    pub fn to_members(&self) -> Result<Map<String, Value>> {
        // Not `serde_json::from_str`: to that the name `$serde_json::private::RawValue` is a command.
        json::object(self.0.as_bytes()).map_err(Error::internal)
    }

    /// The location's name: the member `name`, if it is text and not empty.
    pub fn name(&self) -> Option<String> {
        // Most of those who are asked have one; who has none is not parsed.
        let own = self.0.contains(r#""name""#).then(|| self.to_members().ok()).flatten();
        own?.get("name").and_then(as_name).map(str::to_owned)
    }

    /// RFC 7396: members replace, null removes, objects merge.
    ///
    /// # Errors
    /// `properties_too_large`, or what [`Properties::to_members`] says.
    pub fn merged(&self, patch: &Map<String, Value>) -> Result<Self> {
        let mut members = Value::Object(self.to_members()?);
        json_patch::merge(&mut members, &Value::Object(patch.clone()));
        match members {
            Value::Object(members) => Self::new(members),
            _ => unreachable!("an object merged into an object is an object"),
        }
    }
}

/// The name that a patch gives; `None` where it leaves the name alone.
pub fn renamed(patch: &Map<String, Value>) -> Option<Option<&str>> {
    patch.get("name").map(as_name)
}

fn as_name(name: &Value) -> Option<&str> {
    name.as_str().map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        Properties::given(Some(value)).unwrap().unwrap()
    }

    #[test]
    fn merges_as_rfc_7396_and_keeps_the_servers_members_out() {
        let properties =
            Properties::new(object(json!({"name": "a", "n": {"x": 1, "y": 2}, "version": 9}))).unwrap();
        let patch = object(json!({"name": null, "n": {"x": null, "z": 3}, "l": [null], "userId": 7}));
        assert_eq!(properties.merged(&patch).unwrap().as_str(), r#"{"n":{"y":2,"z":3},"l":[null]}"#);
    }

    #[test]
    fn a_name_is_text_and_not_empty() {
        for (properties, name) in [
            (json!({"name": " bike "}), Some("bike")),
            (json!({"name": " "}), None),
            (json!({"name": 7}), None),
            (json!({"n": {"name": "x"}}), None),
            (json!({}), None),
        ] {
            let members = object(properties);
            assert_eq!(renamed(&members).flatten(), name);
            assert_eq!(Properties::new(members).unwrap().name().as_deref(), name);
        }
        assert_eq!(renamed(&object(json!({"n": 1}))), None);
        assert_eq!(renamed(&object(json!({"name": null}))), Some(None));
    }

    #[test]
    fn what_is_stored_is_an_object_or_an_error() {
        for (stored, read) in [
            ("{}", Some("{}")),
            (r#"{"a":{"b":[1e400,"}"]}}"#, Some(r#"{"a":{"b":[1e400,"}"]}}"#)),
            ("{}\n", Some("{}")),
            (" \r\n\t{ }\t ", Some("{ }")),
            ("", None),
            ("x", None),
            ("{", None),
            ("{}x", None),
            ("{} {}", None),
            ("{\"a\":}", None),
            ("[]", None),
            ("null", None),
            ("\u{a0}{}", None),
        ] {
            let properties = Properties::from_stored(stored.to_owned());
            assert_eq!(properties.as_ref().ok().map(Properties::as_str), read, "{stored:?}");
        }
    }

    #[test]
    fn counts_bytes_of_text_after_the_merge() {
        let filler = "é".repeat(32 * 1024 - 5);
        let properties = Properties::new(object(json!({"a": filler}))).unwrap();
        assert_eq!(properties.as_str().len(), MAX_BYTES - 2);
        let error = properties.merged(&object(json!({"b": 1}))).unwrap_err();
        assert_eq!(error.code, Code::PropertiesTooLarge);
    }
}
