//! The token of an `Authorization` header (RFC 6750 §2.1).

use headers::{
    HeaderMapExt,
    authorization::{Authorization, Bearer},
};
use http::{HeaderMap, header};

/// Returns the token, or `None` if there is no such header.
///
/// # Errors
/// What is wrong with the header, in words for the caller.
pub fn bearer(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    if headers.get_all(header::AUTHORIZATION).iter().nth(1).is_some() {
        // The library takes the first one; a proxy in between may have checked the other.
        return Err("the Authorization header is given twice");
    }
    match headers.typed_try_get::<Authorization<Bearer>>() {
        Ok(authorization) => Ok(authorization.map(|authorization| authorization.token().to_owned())),
        Err(_) => Err("send `Authorization: Bearer <token>`"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_header_with_the_scheme_bearer_has_a_token() {
        let bad = Err("send `Authorization: Bearer <token>`");
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&[&b"Bearer abc"[..]], Ok(Some("abc"))),
            (&[b"bearer   a.b.c"], Ok(Some("a.b.c"))),
            (&[b"Basic abc"], bad),
            (&[b"Bearer"], bad),
            (&[b"Bearerabc"], bad),
            (&[b""], bad),
            (&[b"Bearer caf\xe9"], bad),
            (&[b"Bearer a", b"Bearer a"], Err("the Authorization header is given twice")),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
            }
            assert_eq!(bearer(&headers), expected.map(|token| token.map(str::to_owned)), "{values:?}");
        }
    }
}
