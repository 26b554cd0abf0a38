//! Answers for browsers that open the gateway's port: a page that explains the gateway, and the JavaScript client as a
//! file.
//!
//! Browsers begin no session, so `transport.rs` never sees their requests.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::response::{ResponseBody, full};

/// The JavaScript client, built for a `<script>`: `dist/socket.io.min.js` of the npm package `socket.io-client`.
const CLIENT: &[u8] = include_bytes!("socket.io-4.8.4.min.js");
const CLIENT_TAG: &str = "\"4.8.4\"";
/// Paths of the client, the same as those of Socket.IO's server for Node.
const CLIENT_PATHS: [&str; 2] = ["/socket.io/socket.io.js", "/socket.io/socket.io.min.js"];

const TEXT: &str = "text/plain; charset=utf-8";
const SCRIPT: &str = "application/javascript; charset=utf-8";

const WELCOME: &str = "\
This is the Socket.IO gateway of a georoom server. Connect a Socket.IO client (2.x, 3.x or 4.x) to this address; the
path is /socket.io, as it is by default. A page can load the client from /socket.io/socket.io.js. The HTTP API listens
on another port.
";
const NOTHING_HERE: &str =
    "There is nothing here: this is a Socket.IO gateway, and its path is /socket.io.\n";

/// Answers a request that no Socket.IO client sends. Returns `None` for a request that may be one of a client.
pub fn answer<B>(request: &Request<B>) -> Option<Response<ResponseBody>> {
    let path = request.uri().path();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if CLIENT_PATHS.contains(&path) && is_read {
        return Some(client(request.headers().get(header::IF_NONE_MATCH)));
    }
    let under = path.strip_prefix("/socket.io");
    if under.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return None;
    }
    let is_welcome = path == "/" && is_read && !request.headers().contains_key(header::UPGRADE);
    Some(match is_welcome {
        true => page(StatusCode::OK, TEXT, WELCOME.as_bytes()),
        false => page(StatusCode::NOT_FOUND, TEXT, NOTHING_HERE.as_bytes()),
    })
}

/// Answers with the JavaScript client, or with 304 if the browser has it already.
fn client(known: Option<&HeaderValue>) -> Response<ResponseBody> {
    let is_known =
        known.and_then(|known| known.to_str().ok()).is_some_and(|known| known.contains(CLIENT_TAG));
    let mut answer = match is_known {
        true => page(StatusCode::NOT_MODIFIED, SCRIPT, b""),
        false => page(StatusCode::OK, SCRIPT, CLIENT),
    };
    let headers = answer.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_static(CLIENT_TAG));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
    answer
}

fn page(status: StatusCode, kind: &'static str, body: &'static [u8]) -> Response<ResponseBody> {
    let mut answer = Response::new(full(Bytes::from_static(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
