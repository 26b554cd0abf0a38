//! The body that creates a share link.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    error::{Code, Error, Result},
    json,
    time::Timestamp,
};

const MAX_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// Characters of a label.
const MAX_LABEL: usize = 255;
/// Bytes of a password.
pub const MAX_PASSWORD: usize = 1_024;

/// A body of `POST /location/{id}/shares`.
#[derive(Debug, PartialEq)]
pub struct NewShare {
    /// A label for those who manage links.
    pub label: Option<String>,
    pub expires_at: Timestamp,
    /// The password that is asked for besides the link.
    pub password: Option<String>,
}

impl NewShare {
    /// Reads `{label?, expiresAt, password?}`.
    ///
    /// # Errors
    /// `invalid_json`, `invalid_body`, `duplicate_member`, `invalid_expires_at`.
    pub fn from_body(body: &[u8], now: Timestamp) -> Result<Self> {
        let members = json::object(body)?;
        let text = |name: &str, is_fit: &dyn Fn(&str) -> bool, rule: &str| match members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if is_fit(text) => Ok(Some(text.clone())),
            Some(_) => {
                let detail = format!("{name} must be text of {rule}");
                Err(Error::new(Code::InvalidBody, detail).at(format!("/{name}")))
            }
        };
        let label = text("label", &|label| label.chars().count() <= MAX_LABEL, "at most 255 characters")?;
        let is_password = |text: &str| (1..=MAX_PASSWORD).contains(&text.len());
        let password = text("password", &is_password, "1 to 1024 bytes")?;
        let expires_at = expires_at(members.get("expiresAt"), now)
            .map_err(|detail| Error::new(Code::InvalidExpiresAt, detail).at("/expiresAt"))?;
        Ok(Self { label, expires_at, password })
    }
}

/// Reads the time at which a link ends, or returns what is wrong with it.
fn expires_at(value: Option<&Value>, now: Timestamp) -> Result<Timestamp, &'static str> {
    let form = "expiresAt must be text with a date, a time and an offset from UTC (RFC 3339), \
                such as 2026-11-21T12:00:00Z or 2026-11-21T21:00:00+09:00";
    let Some(value) = value else {
        return Err("expiresAt is missing: a link ends within 30 days, such as at 2026-11-21T12:00:00Z");
    };
    let at = value.as_str().and_then(time_with_offset).ok_or(form)?;
    let ms = i64::try_from(at.unix_timestamp_nanos() / 1_000_000).map_err(|_| form)?;
    match (now.as_millis() + 1..=now.as_millis() + MAX_MS).contains(&ms) {
        true => Ok(Timestamp::from_millis(ms)),
        false => Err("expiresAt must be a time of the next 30 days"),
    }
}

/// Parses a time of RFC 3339. The offset may also be in ISO 8601's basic form, without a colon: `+0900`.
fn time_with_offset(text: &str) -> Option<OffsetDateTime> {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    parse(text).or_else(|| {
        let (time, offset) = text.split_at_checked(text.len().checked_sub(5)?)?;
        let (hours, minutes) = offset.split_at_checked(3)?;
        parse(&format!("{time}{hours}:{minutes}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_ends_within_thirty_days() {
        let now = Timestamp::from_millis(1_795_221_296_000); // 2026-11-21T00:34:56Z
        let ends = |text: &str| {
            let body = format!(r#"{{"expiresAt": {text}}}"#);
            NewShare::from_body(body.as_bytes(), now).map(|new| new.expires_at.as_millis()).ok()
        };
        assert_eq!(ends(r#""2026-11-21T00:34:57Z""#), Some(1_795_221_297_000));
        assert_eq!(ends(r#""2026-11-21T01:34:57.5+01:00""#), Some(1_795_221_297_500));
        assert_eq!(ends(r#""2026-11-21T09:34:57+0900""#), Some(1_795_221_297_000));
        assert_eq!(ends(r#""2026-11-20T19:34:57.000001-0500""#), Some(1_795_221_297_000));
        assert_eq!(ends(r#""2026-12-21T00:34:56Z""#), Some(now.as_millis() + MAX_MS));
        for text in [
            r#""2026-12-21T00:34:56.001Z""#,
            r#""2026-11-21T00:34:56Z""#,
            r#""2026-11-20T00:34:56Z""#,
            r#""9999-12-31T23:59:59Z""#,
            r#""2026-11-22""#,
            r#""2026-11-22T00:00:00""#,
            r#""2026-11-22T00:00:00+09""#,
            r#""2026-11-22T00:00:00 0900""#,
            r#""0900""#,
            r#""é0900""#,
            r#""soon""#,
            "1795221297000",
            "null",
            "[]",
        ] {
            assert_eq!(ends(text), None, "{text}");
        }
        let missing = NewShare::from_body(b"{}", now).unwrap_err();
        assert_eq!((missing.code, missing.pointer.as_deref()), (Code::InvalidExpiresAt, Some("/expiresAt")));
        for (text, words) in [
            (r#""2026-11-22T00:00:00""#, "2026-11-21T21:00:00+09:00"),
            ("1795221297000", "RFC 3339"),
            (r#""2027-01-01T00:00:00Z""#, "next 30 days"),
        ] {
            let body = format!(r#"{{"expiresAt": {text}}}"#);
            let error = NewShare::from_body(body.as_bytes(), now).unwrap_err();
            assert!(error.detail.contains(words), "{text}: {}", error.detail);
        }
    }
}
