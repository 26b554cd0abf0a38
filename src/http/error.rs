//! Errors as problem details (RFC 9457).
//!
//! This is the only place that gives a code its HTTP status. Failures of the server are logged here with their cause,
//! and the answer says nothing of it.

use std::{any::Any, convert::Infallible, error::Error as _, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use warp::{Filter, Reply, http::Method};

use super::reply::NO_STORE;
use crate::{
    domain::error::{Code, Error},
    net::client::Client,
    service::Service,
};

fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidJson => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Unauthorized
        | Code::InvalidToken
        | Code::TokenExpired
        | Code::InvalidShare
        | Code::ShareExpired
        | Code::InvalidSharePassword => StatusCode::UNAUTHORIZED,
        Code::Forbidden | Code::NotInRoom => StatusCode::FORBIDDEN,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
        Code::PayloadTooLarge | Code::MessageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::InvalidParameter
        | Code::InvalidBody
        | Code::DuplicateMember
        | Code::InvalidId
        | Code::IdMismatch
        | Code::InvalidUserId
        | Code::InvalidExpiresAt
        | Code::InvalidMember
        | Code::TooManyMembers
        | Code::TooManyShares
        | Code::NothingToUpdate
        | Code::InvalidProperties
        | Code::PropertiesTooLarge
        | Code::GeometryRequired
        | Code::InvalidGeometry
        | Code::UnknownGeometryType
        | Code::InvalidCoordinates
        | Code::InvalidPosition
        | Code::LongitudeOutOfRange
        | Code::LatitudeOutOfRange
        | Code::EmptyGeometry
        | Code::LineTooShort
        | Code::RingTooShort
        | Code::RingNotClosed
        | Code::TooManyPositions
        | Code::InvalidPayload
        | Code::UnknownEvent => StatusCode::UNPROCESSABLE_ENTITY,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::StorageUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal | Code::Unhealthy => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    /// `about:blank`: the status names the class of the error, and `code` the rest (RFC 9457 §4.2.1).
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
}

fn problem(error: &Error) -> Response<Bytes> {
    let status = status(error.code);
    if error.is_failure() {
        tracing::error!(code = error.code.as_str(), detail = %error.detail, cause = error.source(), "failed");
    } else if status.is_server_error() {
        // At a higher level callers could fill the log. Counters say how many there are.
        tracing::debug!(code = error.code.as_str(), detail = %error.detail, "refused");
    }
    let problem = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        detail: &error.detail,
        code: error.code.as_str(),
        pointer: error.pointer.as_deref(),
    };
    let body = serde_json::to_vec(&problem).expect("a problem has only strings and a number");
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    // The code is counted where the answer leaves.
    response.extensions_mut().insert(error.code);
    let headers = response.headers_mut();
    // Without this a cache might keep a 404 (RFC 9111 §4.2.2).
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::UNAUTHORIZED {
        // Required by RFC 6750 §3. Browsers ask for no password because of this scheme.
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
        // The header has whole seconds, and 0 would mean at once.
        let seconds = error.retry_after.map_or(1, |after| after.as_secs_f64().ceil().max(1.0) as u64);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

impl Reply for Error {
    fn into_response(self) -> warp::reply::Response {
        problem(&self).into_response()
    }
}

/// Answers 404 to whatever no route has answered. Each such request costs an answer and a line of the log, so an
/// address that sends many is refused like one that shows no valid token.
pub fn not_found(service: Arc<Service>) -> impl Filter<Extract = (impl Reply,), Error = Infallible> + Clone {
    warp::ext::optional::<Client>().map(move |client: Option<Client>| {
        let error = Error::new(Code::NotFound, "there is nothing at this path");
        service.limits.take_refusal(Client::address(client.as_ref())).err().unwrap_or(error)
    })
}

/// Answers a request whose path exists but has no such method, with `Allow` (RFC 9110 §15.5.6).
pub fn method_not_allowed(method: &Method, allow: &str) -> impl Reply {
    let detail = format!("{method} is not possible here; allowed: {allow}");
    warp::reply::with_header(Error::new(Code::MethodNotAllowed, detail), header::ALLOW, allow)
}

/// Answers 500 after a handler has panicked.
pub fn after_panic(panic: Box<dyn Any + Send>) -> Response<Full<Bytes>> {
    let cause = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "panic".to_owned());
    problem(&Error::internal(cause)).map(Full::new)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The table of docs/protocol.md has every code with its status.
    #[test]
    fn each_code_has_the_status_that_is_documented() {
        let protocol = include_str!("../../docs/protocol.md");
        let rows = protocol.lines().skip_while(|line| !line.starts_with("| code | status |")).skip(2);
        let rows = rows.take_while(|line| line.starts_with('|'));
        let documented: Vec<_> = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>()).collect();
        assert_eq!(documented.len(), Code::ALL.len());
        for (code, row) in Code::ALL.iter().zip(documented) {
            // Codes that only events have are documented without a status.
            if row[2] != "events" {
                assert_eq!(status(*code).as_str(), row[2], "{}", code.as_str());
            }
        }
    }

    #[test]
    fn a_problem_says_what_is_wrong_and_where_and_nothing_of_the_inside() {
        let error = Error::new(Code::RingNotClosed, "the ring is not closed").at("/geometry/coordinates/0");
        let answer = problem(&error);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        let expected = json!({
            "type": "about:blank", "title": "Unprocessable Entity", "status": 422, "code": "ring_not_closed",
            "detail": "the ring is not closed", "pointer": "/geometry/coordinates/0",
        });
        assert_eq!(body, expected);
        let body = problem(&Error::internal("a password")).into_body();
        assert!(!String::from_utf8_lossy(&body).contains("password"));
    }

    #[test]
    fn refusals_carry_the_headers_that_clients_act_on() {
        let answer = problem(&Error::new(Code::TokenExpired, "it has expired"));
        assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], "Bearer");
        assert_eq!(problem(&Error::database_away()).headers()[header::RETRY_AFTER], "1");
        let answer = method_not_allowed(&Method::PATCH, "GET, HEAD, OPTIONS").into_response();
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.headers()[header::ALLOW], "GET, HEAD, OPTIONS");
    }
}
