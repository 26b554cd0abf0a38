//! Request bodies: JSON, at most 1 MiB, whatever their length header says.

use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, header};
use tokio::time::timeout;

use crate::domain::error::{Code, Error, Result};

const MAX_BYTES: usize = 1024 * 1024;
/// A longer body is still read this far, so that an ordinary client has sent it and reads the answer.
const DRAIN_BYTES: usize = 8 * MAX_BYTES;

/// The body, which must say that it is JSON.
///
/// # Errors
/// `unsupported_media_type`, `payload_too_large`, `request_timeout`, `invalid_json`.
pub async fn json<B: Buf, E>(
    headers: &HeaderMap,
    body: impl Stream<Item = std::result::Result<B, E>>,
    time: Duration,
) -> Result<Bytes> {
    let bytes = in_time(time, read(body, MAX_BYTES)).await?;
    let named_json = match headers.get(header::CONTENT_TYPE) {
        Some(content_type) => content_type.to_str().is_ok_and(is_json),
        // A page may send this to any server without a preflight; apps and curl name no origin.
        None => !headers.contains_key(header::ORIGIN),
    };
    if !named_json {
        let detail = "send JSON, with Content-Type: application/json or application/geo+json";
        return Err(Error::new(Code::UnsupportedMediaType, detail));
    }
    Ok(bytes)
}

/// Reads a body that nobody wants, so that an ordinary client has sent it and reads the answer.
pub async fn discard<B: Buf, E>(body: impl Stream<Item = std::result::Result<B, E>>, time: Duration) {
    let _ = in_time(time, read(body, 0)).await;
}

async fn in_time(time: Duration, read: impl Future<Output = Result<Bytes>>) -> Result<Bytes> {
    let late = |_| Error::new(Code::RequestTimeout, "the body took too long to come");
    timeout(time, read).await.map_err(late)?
}

/// Keeps up to `max` bytes.
async fn read<B: Buf, E>(body: impl Stream<Item = std::result::Result<B, E>>, max: usize) -> Result<Bytes> {
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(chunk) = body.next().await {
        let Ok(mut chunk) = chunk else {
            return Err(Error::new(Code::InvalidJson, "the body ended before its end"));
        };
        length += chunk.remaining();
        if length > DRAIN_BYTES {
            break;
        }
        if length <= max {
            while chunk.has_remaining() {
                let part = chunk.chunk();
                bytes.extend_from_slice(part);
                let advanced = part.len();
                chunk.advance(advanced);
            }
        }
    }
    if length > max {
        let detail = format!("a body has at most {max} bytes");
        return Err(Error::new(Code::PayloadTooLarge, detail));
    }
    Ok(bytes.into())
}

/// `application/json`, `text/json`, `application/geo+json` and other `+json`, with any parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/json")
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}
