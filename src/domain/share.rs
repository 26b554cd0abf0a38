//! What a share link is asked to be.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    error::{Code, Error, Result},
    json,
    time::Timestamp,
};

/// How far ahead a link may end.
const MAX_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// Characters of a label.
const MAX_LABEL: usize = 255;
/// Bytes of a password.
pub const MAX_PASSWORD: usize = 1_024;

/// A body of `POST /location/{id}/shares`.
#[derive(Debug, PartialEq)]
pub struct NewShare {
    /// For those who manage links.
    pub label: Option<String>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What is asked for besides the link.
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
        let expires_at = members.get("expiresAt").and_then(Value::as_str);
        let expires_at = expires_at.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        let expires_at = expires_at.map(|at| at.unix_timestamp_nanos() / 1_000_000);
        let latest = now.as_millis() + MAX_MS;
        let in_time = |ms: &i64| (now.as_millis() + 1..=latest).contains(ms);
        let expires_at = expires_at.and_then(|ms| i64::try_from(ms).ok()).filter(in_time);
        let expires_at = expires_at.map(Timestamp::from_millis).ok_or_else(|| {
            let detail = "expiresAt must be a time of the next 30 days, such as 2026-11-21T12:00:00Z";
            Error::new(Code::InvalidExpiresAt, detail).at("/expiresAt")
        })?;
        Ok(Self { label, expires_at, password })
    }
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
        assert_eq!(ends(r#""2026-12-21T00:34:56Z""#), Some(now.as_millis() + MAX_MS));
        for text in [
            r#""2026-12-21T00:34:56.001Z""#,
            r#""2026-11-21T00:34:56Z""#,
            r#""2026-11-20T00:34:56Z""#,
            r#""9999-12-31T23:59:59Z""#,
            r#""2026-11-22""#,
            r#""2026-11-22T00:00:00""#,
            r#""soon""#,
            "1795221297000",
            "null",
            "[]",
        ] {
            assert_eq!(ends(text), None, "{text}");
        }
        let missing = NewShare::from_body(b"{}", now).unwrap_err();
        assert_eq!((missing.code, missing.pointer.as_deref()), (Code::InvalidExpiresAt, Some("/expiresAt")));
    }
}
