//! Answers made of JSON text that is already there: a Feature is written once and not parsed again.
//!
//! All of them are somebody's, so no cache keeps one, but for that of a reader who asks each time whether a Feature is
//! still the same (RFC 9111 §5.2.2). What answers hold in memory, [`crate::service::memory`] counts.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
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
/// For every answer without an `ETag`.
pub const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// For those with one.
pub const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The text `{"status":…,"data":{"<name>":…}}`.
pub fn data_text(status: StatusCode, name: &str, value: &str) -> String {
    [r#"{"status":"#, status.as_str(), r#","data":{""#, name, r#"":"#, value, "}}"].concat()
}

/// Such a text as an answer.
pub fn data(status: StatusCode, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut reply = of(text.into(), JSON, NO_STORE);
    *reply.status_mut() = status;
    reply
}

/// One Feature, to be kept beside its `ETag`.
pub fn feature(text: Bytes) -> Response<Bytes> {
    of(text, GEO_JSON, REVALIDATE)
}

/// A FeatureCollection; `members` are the texts of its own after `features`, each with a comma before it.
///
/// What fits into one piece goes with its length. Else one piece after another is read as the client takes them; an
/// error then ends the connection, so that nobody takes a part for the whole.
///
/// # Errors
/// Those of the first piece.
pub async fn collection(mut features: Features, members: &str) -> Result<reply::Response> {
    let mut text = String::from(r#"{"type":"FeatureCollection","features":["#);
    let end = format!("]{members}}}");
    features.write_piece(&mut text).await?;
    if features.is_done() {
        text.push_str(&end);
        return Ok(of(features.hold(text), GEO_JSON, NO_STORE).into_response());
    }
    let first = features.hold(text);
    let state = Some((features, end));
    let rest = stream::try_unfold(state, async |state| {
        let Some((mut features, end)) = state else { return Ok(None) };
        let mut text = String::new();
        while text.is_empty() && !features.is_done() {
            features.write_piece(&mut text).await.inspect_err(log_broken_off)?;
        }
        let is_done = features.is_done();
        if is_done {
            text.push_str(&end);
        }
        let piece = features.hold(text);
        Ok::<_, Error>(Some((piece, (!is_done).then_some((features, end)))))
    });
    let pieces = stream::StreamExt::chain(stream::iter([Ok(first)]), rest);
    let mut reply = reply::stream(Shared(Mutex::new(Box::pin(pieces)))).into_response();
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, GEO_JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    Ok(reply)
}

/// Any other JSON, counted for its caller until it is sent.
///
/// # Errors
/// `rate_limited`, `storage_unavailable`.
pub fn json(answers: &Budget, payer: Payer, body: &impl Serialize) -> Result<Response<Bytes>> {
    Ok(of(answers.hold(payer, text(body))?, JSON, NO_STORE))
}

/// The same of an answer that must be given, see [`Budget::hold_anyway`].
pub fn json_anyway(answers: &Budget, payer: Payer, body: &impl Serialize) -> Response<Bytes> {
    of(answers.hold_anyway(payer, text(body)), JSON, NO_STORE)
}

fn text(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("answers are of strings and numbers")
}

/// `{"status":"ok"}`.
pub fn ok() -> Response<Bytes> {
    of(Bytes::from_static(br#"{"status":"ok"}"#), JSON, NO_STORE)
}

/// The same of a database that refuses changes.
pub fn reads_only() -> Response<Bytes> {
    of(Bytes::from_static(br#"{"status":"ok","writes":"failing"}"#), JSON, NO_STORE)
}

fn log_broken_off(error: &Error) {
    let cause = std::error::Error::source(error);
    match error.code {
        Code::NotFound | Code::Forbidden => {
            tracing::info!(%error, "the right to an answer ended; it was broken off")
        }
        _ if error.is_failure() => tracing::error!(%error, cause, "an answer was broken off"),
        _ => tracing::debug!(%error, "an answer was broken off: too much is under way"),
    }
}

fn of(text: Bytes, content_type: HeaderValue, cache_control: HeaderValue) -> Response<Bytes> {
    let mut reply = Response::new(text);
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, cache_control);
    reply
}

/// A stream that may be shared between threads, as warp asks of a body: polling it takes `&mut`, so nobody ever waits
/// for the lock, and nobody shares it.
struct Shared<S>(Mutex<Pin<Box<S>>>);

impl<S: Stream> Stream for Shared<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.get_mut().as_mut().poll_next(cx)
    }
}
