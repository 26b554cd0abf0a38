//! Successful answers, made of JSON text that is already there: a Feature is written once and not parsed again.
//!
//! Each answer is for one caller, so caches must not keep it. The exception is the cache of a client that asks each
//! time whether a Feature is still the same (RFC 9111 §5.2.2). The bytes that answers hold are counted in
//! [`crate::service::memory`]. Errors are in `error.rs`.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use headers::{ETag, HeaderMapExt};
use http::{HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use serde::Serialize;
use warp::{Reply, reply};

use crate::{
    domain::{
        access::Payer,
        error::{Code, Error, Result},
    },
    service::{features::Features, memory::Budget},
};

const GEO_JSON: HeaderValue = HeaderValue::from_static("application/geo+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The `Cache-Control` of every answer without an `ETag`.
pub const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// The `Cache-Control` of answers with an `ETag`.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Writes the text `{"status":…,"data":{"<name>":…}}`.
pub fn data_text(status: StatusCode, name: &str, value: &str) -> String {
    [r#"{"status":"#, status.as_str(), r#","data":{""#, name, r#"":"#, value, "}}"].concat()
}

/// Answers with a text of [`data_text`].
pub fn data(status: StatusCode, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut reply = with_text(text.into(), JSON, NO_STORE);
    *reply.status_mut() = status;
    reply
}

/// Answers with one Feature, which the client may keep together with its entity tag.
pub fn feature(text: Bytes, etag: ETag) -> Response<Bytes> {
    let mut reply = with_text(text, GEO_JSON, REVALIDATE);
    reply.headers_mut().typed_insert(etag);
    reply
}

/// Answers 304: the Feature that the client has is still the same.
pub fn not_modified(etag: ETag) -> Response<Bytes> {
    let mut reply = Response::default();
    *reply.status_mut() = StatusCode::NOT_MODIFIED;
    reply.headers_mut().insert(header::CACHE_CONTROL, REVALIDATE);
    reply.headers_mut().typed_insert(etag);
    reply
}

/// Answers with a FeatureCollection. `members` is the text of its foreign members, each with a comma before it.
///
/// A collection that fits into one piece is sent with its length. Otherwise one piece after another is read as the
/// client takes them; an error then ends the connection, so that no client takes a part for the whole.
///
/// # Errors
/// Those of reading the first piece.
pub async fn collection(mut features: Features, members: &str) -> Result<reply::Response> {
    let mut text = String::from(r#"{"type":"FeatureCollection","features":["#);
    let end = format!("]{members}}}");
    features.write_piece(&mut text).await?;
    if features.is_done() {
        text.push_str(&end);
        return Ok(with_text(features.hold(text), GEO_JSON, NO_STORE).into_response());
    }
    let first = features.hold(text);
    let state = Some((features, end));
    let rest = stream::try_unfold(state, async |state| {
        let Some((mut features, end)) = state else { return Ok(None) };
        let mut text = String::new();
        while text.is_empty() && !features.is_done() {
            features.write_piece(&mut text).await.inspect_err(log_interrupted)?;
        }
        let is_done = features.is_done();
        if is_done {
            text.push_str(&end);
        }
        let piece = features.hold(text);
        Ok::<_, Error>(Some((piece, (!is_done).then_some((features, end)))))
    });
    let pieces = stream::StreamExt::chain(stream::iter([Ok(first)]), rest);
    let mut reply = reply::stream(SyncStream(Mutex::new(Box::pin(pieces)))).into_response();
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, GEO_JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    Ok(reply)
}

/// Answers with any other JSON. Its bytes count for the caller until they are sent.
///
/// # Errors
/// `rate_limited`, `storage_unavailable`.
pub fn json(answers: &Budget, payer: Payer, body: &impl Serialize) -> Result<Response<Bytes>> {
    Ok(with_text(answers.hold(payer, text(body))?, JSON, NO_STORE))
}

/// Answers with JSON that cannot be refused any more, see [`Budget::hold_anyway`].
pub fn json_anyway(answers: &Budget, payer: Payer, body: &impl Serialize) -> Response<Bytes> {
    with_text(answers.hold_anyway(payer, text(body)), JSON, NO_STORE)
}

fn text(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("answers have only strings and numbers")
}

/// Answers `{"status":"ok"}`.
pub fn ok() -> Response<Bytes> {
    with_text(Bytes::from_static(br#"{"status":"ok"}"#), JSON, NO_STORE)
}

/// Answers `ok` for a database that can be read but refuses changes.
pub fn reads_only() -> Response<Bytes> {
    with_text(Bytes::from_static(br#"{"status":"ok","writes":"failing"}"#), JSON, NO_STORE)
}

fn log_interrupted(error: &Error) {
    let cause = std::error::Error::source(error);
    match error.code {
        Code::NotFound | Code::Forbidden => {
            tracing::info!(%error, "an answer was broken off, because the caller's right to it ended")
        }
        _ if error.is_failure() => tracing::error!(%error, cause, "an answer was broken off"),
        _ => tracing::debug!(%error, "an answer was broken off, because too much is under way"),
    }
}

fn with_text(text: Bytes, content_type: HeaderValue, cache_control: HeaderValue) -> Response<Bytes> {
    let mut reply = Response::new(text);
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, cache_control);
    reply
}

/// A stream that is `Sync`, as warp asks of a body. Nobody ever waits for the lock: polling takes `&mut`.
struct SyncStream<S>(Mutex<Pin<Box<S>>>);

impl<S: Stream> Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.get_mut().as_mut().poll_next(cx)
    }
}
