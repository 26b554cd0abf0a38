//! Reads the HTTP requests of Engine.IO: query parameters, headers, and the WebSocket handshake (RFC 6455 §4.2).

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use hyper::body::Incoming;
use tungstenite::handshake::derive_accept_key;

use crate::net::client::Client;

/// A valid WebSocket handshake: the headers of its answer that differ from client to client (RFC 6455 §4.2.2).
pub struct Handshake {
    pub accept_key: HeaderValue,
    /// The first subprotocol that the client offers, as Node's server chooses: some clients give up if none is chosen.
    pub subprotocol: Option<HeaderValue>,
}

/// Reads a WebSocket handshake. Returns `None` if the request is none or is not valid; the library refuses it then.
pub fn websocket_handshake(request: &Request<Incoming>) -> Option<Handshake> {
    let has = |name, token: &str| has_token(request, name, token);
    let path = request.uri().path().strip_prefix("/socket.io")?;
    let is_valid = request.method() == Method::GET
        && (path.is_empty() || path.starts_with('/'))
        && parameter(request, "transport") == Some("websocket")
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).filter(|_| is_valid)?;
    let accept_key = HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()?;
    Some(Handshake { accept_key, subprotocol: first_subprotocol(request.headers()) })
}

fn first_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let first = offered.split(',').map(str::trim).find(|name| !name.is_empty())?;
    HeaderValue::from_str(first).ok()
}

/// Returns whether the body of this request, or of its answer, is framed as version 3 of Engine.IO requires, which
/// writes the length of each packet before the packet.
pub fn has_lengths<B>(request: &Request<B>) -> bool {
    parameter(request, "EIO") == Some("3")
}

/// Returns whether a header lists this token.
pub fn has_token<B>(request: &Request<B>, name: HeaderName, token: &str) -> bool {
    let value = request.headers().get(name).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
}

/// Returns a parameter of the query, without decoding it.
pub fn parameter<'a, B>(request: &'a Request<B>, name: &str) -> Option<&'a str> {
    let query = request.uri().query()?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    // The library ends a value at a second `=`, and both must find the same session.
    value.split('=').next()
}

/// Copies the parts of a request that the library needs. The library keeps the request as long as the session lasts,
/// and the original would hold on to the whole buffer that it was read into.
pub fn copy_for_library(request: &Request<Incoming>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().to_string().parse().unwrap_or_default();
    // `Content-Type` is left out, because the library would choose by it how to read a body, which is always text here.
    for value in request.headers().get_all(header::AUTHORIZATION) {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            copy.headers_mut().append(header::AUTHORIZATION, value);
        }
    }
    if let Some(client) = request.extensions().get::<Client>() {
        copy.extensions_mut().insert(*client);
    }
    copy
}
