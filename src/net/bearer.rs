//! The token of an `Authorization` header (RFC 6750 §2.1).

use http::{HeaderMap, header};

/// `None`: there is no such header.
///
/// # Errors
/// What is wrong with it.
pub fn bearer(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        // Whoever stands in between may have looked at the other.
        return Err("the Authorization header is given twice");
    }
    let value = value.to_str().map_err(|_| "the Authorization header is not ASCII")?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim().to_owned())),
        _ => Err("send `Authorization: Bearer <token>`"),
    }
}
