//! Request bodies: JSON of at most 1 MiB, whatever the length header says.
//!
//! Nearly all bodies come whole together with their headers and are used without a copy. The bytes of any other body
//! are counted in [`crate::service::memory`] as they come, and they must come at a lowest rate. When a body is refused,
//! the rest of it is read and dropped for a moment ([`discard`]): otherwise a client that is still sending would find
//! its connection reset and the answer gone.

use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream::BoxStream};
use http::{HeaderMap, HeaderValue, header};
use tokio::time::{Instant, timeout, timeout_at};
use warp::{Filter, Rejection};

use crate::{
    domain::{
        access::Payer,
        error::{Code, Error, Result},
    },
    service::memory::Budget,
};

const MAX_BYTES: usize = 1024 * 1024;
/// The lowest rate of a body that comes in parts, counted after [`START_GRACE`].
const MIN_BYTES_PER_SECOND: usize = 1024;
const START_GRACE: Duration = Duration::from_secs(5);
/// Bounds of what is read and dropped of a refused body.
const DISCARD_BYTES: usize = 8 * MAX_BYTES;
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// Capacity of the buffer for a body of unknown length.
const INITIAL_CAPACITY: usize = 16 * 1024;

/// A body on its way in.
pub type Body = BoxStream<'static, Part>;

type Part = std::result::Result<Bytes, warp::Error>;

/// Extracts the body of a request.
pub fn body() -> impl Filter<Extract = (Body,), Error = Rejection> + Copy {
    warp::body::stream().map(|parts| StreamExt::boxed(TryStreamExt::map_ok(parts, to_bytes)))
}

/// Copies nothing where the buffer is made of [`Bytes`], as warp's are.
fn to_bytes(mut buffer: impl Buf) -> Bytes {
    buffer.copy_to_bytes(buffer.remaining())
}

/// The bounds within which a body is read.
pub struct ReadLimits<'a> {
    /// Counts the bytes of bodies that are not whole yet.
    pub budget: &'a Budget,
    /// The caller whom they are counted for.
    pub payer: Payer,
    /// The time that one body may take.
    pub time: Duration,
}

/// Reads a body and checks that its headers call it JSON. Does not parse it.
///
/// # Errors
/// `unsupported_media_type`, `payload_too_large`, `request_timeout`, `invalid_json`; `rate_limited` and
/// `storage_unavailable` if too much of other bodies has come already.
pub async fn read_json(headers: &HeaderMap, mut body: Body, limits: ReadLimits<'_>) -> Result<Bytes> {
    match read(headers, &mut body, &limits).await {
        Ok(bytes) => check_type(headers).map(|()| bytes),
        Err(error) => {
            discard(body);
            Err(error)
        }
    }
}

/// Reads and drops what still comes of a body that is refused, for a short time in the background.
pub fn discard(mut body: Body) {
    let mut dropped = 0;
    let mut goes_on = move |part: Option<Part>| {
        dropped += part.as_ref().and_then(|part| Some(part.as_ref().ok()?.len())).unwrap_or_default();
        matches!(part, Some(Ok(_))) && dropped <= DISCARD_BYTES
    };
    // Most bodies are short and have come already.
    while let Some(part) = body.next().now_or_never() {
        if !goes_on(part) {
            return;
        }
    }
    tokio::spawn(timeout(DISCARD_TIME, async move { while goes_on(body.next().await) {} }));
}

async fn read(headers: &HeaderMap, body: &mut Body, limits: &ReadLimits<'_>) -> Result<Bytes> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length| length > MAX_BYTES) {
        return Err(too_large());
    }
    let started = Instant::now();
    let Some(first) = read_part(body, started + START_GRACE.min(limits.time)).await? else {
        return Ok(Bytes::new());
    };
    if length == Some(first.len()) {
        return Ok(first);
    }
    // The end of a body without a length may have come together with the first part.
    let mut second = match body.next().now_or_never() {
        Some(None) if first.len() > MAX_BYTES => return Err(too_large()),
        Some(None) => return Ok(first),
        second => second.flatten(),
    };

    let mut reservation = limits.budget.reserve(limits.payer, 0)?;
    let mut bytes = Vec::with_capacity(length.unwrap_or(INITIAL_CAPACITY));
    let mut part = Some(first);
    while let Some(more) = part {
        if bytes.len() + more.len() > MAX_BYTES {
            return Err(too_large());
        }
        limits.budget.grow(limits.payer, &mut reservation, more.len())?;
        if bytes.capacity() - bytes.len() < more.len() {
            // Doubles, but never beyond the size that a body may have.
            bytes.reserve_exact(bytes.len().min(MAX_BYTES - bytes.len()).max(more.len()));
        }
        // Copied, because a part keeps the whole buffer that it was read into.
        bytes.extend_from_slice(&more);
        let time = START_GRACE + Duration::from_secs((bytes.len() / MIN_BYTES_PER_SECOND) as u64);
        part = match second.take() {
            Some(second) => Some(check_part(second)?),
            None => read_part(body, started + time.min(limits.time)).await?,
        };
    }
    Ok(bytes.into())
}

/// Waits for the next part of a body, until `deadline`; returns `None` at the end of the body.
async fn read_part(body: &mut Body, deadline: Instant) -> Result<Option<Bytes>> {
    let late = |_| Error::new(Code::RequestTimeout, "the body took too long to come");
    timeout_at(deadline, body.next()).await.map_err(late)?.map(check_part).transpose()
}

fn check_part(part: Part) -> Result<Bytes> {
    part.map_err(|_| Error::new(Code::InvalidJson, "the body ended before its end"))
}

fn too_large() -> Error {
    Error::new(Code::PayloadTooLarge, format!("a body has at most {MAX_BYTES} bytes"))
}

fn check_type(headers: &HeaderMap) -> Result<()> {
    let is_declared_json = match headers.get(header::CONTENT_TYPE) {
        Some(content_type) => content_type.to_str().is_ok_and(is_json),
        // A page may send a body without a type to any server without a preflight. Apps and curl, which have no
        // `Origin`, harm nobody by it.
        None => !headers.contains_key(header::ORIGIN),
    };
    if !is_declared_json {
        let detail = "send JSON, with Content-Type: application/json or application/geo+json";
        return Err(Error::new(Code::UnsupportedMediaType, detail));
    }
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) {
        let detail = "send the body as it is: a Content-Encoding such as gzip is not taken here";
        return Err(Error::new(Code::UnsupportedMediaType, detail));
    }
    Ok(())
}

/// Says whether a body is sent without an encoding, which is called `identity` (RFC 9110 §12.5.3).
fn is_identity(content_encoding: &HeaderValue) -> bool {
    let is_none = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    content_encoding.to_str().is_ok_and(|codings| codings.split(',').map(str::trim).all(is_none))
}

/// Says whether a media type is `application/json`, `text/json`, or any `application/…+json`, with whatever parameters.
///
/// `headers::ContentType` cannot be asked for its parts, and refuses a type with a malformed parameter.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/json")
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_known_by_its_media_type_whatever_its_parameters() {
        for (content_type, expected) in [
            ("application/json", true),
            ("Application/JSON", true),
            ("application/json; charset=utf-8", true),
            ("application/json;charset", true),
            ("text/json", true),
            ("application/geo+json", true),
            ("application/vnd.geo+json ; charset=UTF-8", true),
            ("application/jsonp", false),
            ("application/geo", false),
            ("text/plain", false),
            ("text/html, application/json", false),
            ("image/x+json", false),
            ("json", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(is_json(content_type), expected, "{content_type}");
        }
    }

    #[test]
    fn a_body_needs_a_type_from_pages_and_no_encoding_from_anybody() {
        let code = |headers: &[(http::HeaderName, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            check_type(&headers.collect()).err().map(|error| error.code)
        };
        let (json, encoding) = ((header::CONTENT_TYPE, "application/json"), header::CONTENT_ENCODING);
        let refused = Some(Code::UnsupportedMediaType);
        assert_eq!(code(&[]), None);
        assert_eq!(code(&[(header::ORIGIN, "http://localhost")]), refused);
        assert_eq!(code(&[(header::ORIGIN, "http://localhost"), json.clone()]), None);
        assert_eq!(code(&[(header::CONTENT_TYPE, "text/plain")]), refused);
        assert_eq!(code(&[json.clone(), (encoding.clone(), "Identity, identity")]), None);
        assert_eq!(code(&[json, (encoding, "identity, gzip")]), refused);
    }
}
