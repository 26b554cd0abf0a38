//! Request bodies: JSON, at most 1 MiB, whatever their length header says.
//!
//! A body that comes whole with its headers, as nearly all do, is taken as it is. Of any other the bytes that have
//! come are counted in [`crate::service::memory`], and it must come at a lowest rate. What is left of a body that
//! nobody wants is taken and dropped for a moment after the answer: a client that is still sending would else find
//! its connection reset and the answer gone.

use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{FutureExt, Stream, StreamExt};
use http::{HeaderMap, HeaderValue, header};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    domain::{
        access::Payer,
        error::{Code, Error, Result},
    },
    service::memory::Budget,
};

const MAX_BYTES: usize = 1024 * 1024;
/// Bytes a second that a body must come with, after some time to begin.
const LOWEST_RATE: usize = 1024;
const GRACE: Duration = Duration::from_secs(5);
/// How much of a body that nobody wants is taken after its answer, and for how long.
const DRAIN_BYTES: usize = 8 * MAX_BYTES;
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// A buffer begins with so many bytes where no length is given.
const FIRST_BYTES: usize = 16 * 1024;

/// A body on its way in.
pub trait Body: Stream<Item = std::result::Result<Self::Part, warp::Error>> + Send + Unpin + 'static {
    type Part: Buf + Send;
}

impl<B, S> Body for S
where
    B: Buf + Send,
    S: Stream<Item = std::result::Result<B, warp::Error>> + Send + Unpin + 'static,
{
    type Part = B;
}

/// How bodies may come.
pub struct Terms<'a> {
    /// Counts the bytes of those that are not whole yet.
    pub budget: &'a Budget,
    /// For whom they are counted.
    pub payer: Payer,
    /// How long one may take.
    pub time: Duration,
}

/// The body, which must say that it is JSON.
///
/// # Errors
/// `unsupported_media_type`, `payload_too_large`, `request_timeout`, `invalid_json`; `rate_limited` and
/// `storage_unavailable` where too much of other bodies has come already.
pub async fn json(headers: &HeaderMap, mut body: impl Body, terms: Terms<'_>) -> Result<Bytes> {
    let bytes = match read(headers, &mut body, &terms).await {
        Ok(bytes) => bytes,
        Err(error) => {
            discard(body);
            return Err(error);
        }
    };
    let named_json = match headers.get(header::CONTENT_TYPE) {
        Some(content_type) => content_type.to_str().is_ok_and(is_json),
        // A page may send this to any server without a preflight; apps and curl name no origin.
        None => !headers.contains_key(header::ORIGIN),
    };
    if !named_json {
        let detail = "send JSON, with Content-Type: application/json or application/geo+json";
        return Err(Error::new(Code::UnsupportedMediaType, detail));
    }
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) {
        let detail = "send the body as it is: a Content-Encoding such as gzip is not taken here";
        return Err(Error::new(Code::UnsupportedMediaType, detail));
    }
    Ok(bytes)
}

/// Takes what still comes of a body that nobody wants, while its answer is on the way; not for long.
pub fn discard(mut body: impl Body) {
    let mut taken = 0;
    let mut is_wanted = move |next: Option<std::result::Result<_, warp::Error>>| match next {
        Some(Ok(part)) => {
            taken += Buf::remaining(&part);
            taken <= DRAIN_BYTES
        }
        _ => false,
    };
    // Most are short, and there.
    while let Some(next) = body.next().now_or_never() {
        if !is_wanted(next) {
            return;
        }
    }
    tokio::spawn(timeout(DRAIN_TIME, async move { while is_wanted(body.next().await) {} }));
}

async fn read(headers: &HeaderMap, body: &mut impl Body, terms: &Terms<'_>) -> Result<Bytes> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length| length > MAX_BYTES) {
        return Err(too_large());
    }
    let started = Instant::now();
    let Some(first) = next(body, started + GRACE.min(terms.time)).await? else { return Ok(Bytes::new()) };
    if length == Some(first.len()) {
        return Ok(first);
    }
    // Without a length, its end may have come with it.
    let mut following = body.next().now_or_never();
    if let Some(None) = following {
        return if first.len() > MAX_BYTES { Err(too_large()) } else { Ok(first) };
    }

    let mut held = terms.budget.reserve(terms.payer, 0)?;
    let mut bytes = Vec::with_capacity(length.unwrap_or(FIRST_BYTES));
    let mut part = first;
    loop {
        if bytes.len() + part.len() > MAX_BYTES {
            return Err(too_large());
        }
        terms.budget.grow(terms.payer, &mut held, part.len())?;
        if bytes.capacity() - bytes.len() < part.len() {
            // Twice as much each time, but never more than a body may have.
            let more = bytes.len().min(MAX_BYTES - bytes.len()).max(part.len());
            bytes.reserve_exact(more);
        }
        // A copy: the part keeps the whole buffer that it was read into.
        bytes.extend_from_slice(&part);
        part = match following.take() {
            Some(said) => match said {
                Some(said) => whole(said)?,
                None => break,
            },
            None => {
                let rate = Duration::from_secs((bytes.len() / LOWEST_RATE) as u64);
                match next(body, started + (GRACE + rate).min(terms.time)).await? {
                    Some(part) => part,
                    None => break,
                }
            }
        };
    }
    Ok(bytes.into())
}

/// The next part of a body, in time; `None` at its end.
async fn next(body: &mut impl Body, deadline: Instant) -> Result<Option<Bytes>> {
    let late = |_| Error::new(Code::RequestTimeout, "the body took too long to come");
    timeout_at(deadline, body.next()).await.map_err(late)?.map(whole).transpose()
}

fn whole(part: std::result::Result<impl Buf, warp::Error>) -> Result<Bytes> {
    let mut part = part.map_err(|_| Error::new(Code::InvalidJson, "the body ended before its end"))?;
    Ok(part.copy_to_bytes(part.remaining()))
}

fn too_large() -> Error {
    Error::new(Code::PayloadTooLarge, format!("a body has at most {MAX_BYTES} bytes"))
}

/// Is the body sent without an encoding? `identity` is the name for that (RFC 9110 §12.5.3).
fn is_identity(content_encoding: &HeaderValue) -> bool {
    content_encoding.to_str().is_ok_and(|codings| {
        codings
            .split(',')
            .map(str::trim)
            .all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity"))
    })
}

/// `application/json`, `text/json`, `application/geo+json` and other `+json`, with any parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/json")
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}
