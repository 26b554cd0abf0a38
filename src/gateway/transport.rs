//! Between HTTP and the library: takes WebSockets over, to own the stream under them, and sees the polls
//! of those who have none.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    upgrade,
};
use tokio::time::timeout;
use tower::{Service, ServiceExt};
use tracing::debug;
use tungstenite::handshake::derive_accept_key;

use super::{
    BoxError, ResponseBody,
    link::{Link, Links},
    refused,
    stream::Stream,
};
use crate::net::{accept::freed, client::Client};

/// The library, and what it is not left to do. `L` serves requests and ready-made WebSocket streams.
#[derive(Clone)]
pub struct Transport<L> {
    library: L,
    links: Arc<Links>,
    /// How long a WebSocket may take nothing, and half of how long a client may read nothing.
    patience: Duration,
    /// How long a request's body may take.
    body_timeout: Duration,
}

impl<L, B> Transport<L>
where
    L: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Service<(Stream, Request<()>), Error: std::fmt::Display, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    pub fn new(library: L, links: Arc<Links>, patience: Duration, body_timeout: Duration) -> Self {
        Self { library, links, patience, body_timeout }
    }

    pub async fn serve(self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
        let session = parameter(&request, "sid").map(str::to_owned);
        let link = session.as_ref().and_then(|session| self.links.find(session));
        if let Some(link) = &link
            && request.method() == Method::POST
            && link.is_unanswered_for(2 * self.patience)
        {
            // It is heard of, and polls no more.
            link.cut();
        }
        if link.as_ref().is_some_and(|link| link.is_cut()) {
            // The client takes the session for lost, and connects again.
            return Ok(refused(StatusCode::BAD_REQUEST, "this session has ended"));
        }
        if let Some(accept) = accepted(&request) {
            return Ok(self.take_over(request, session, accept));
        }
        let is_poll = request.method() == Method::GET;
        if let Some(link) = &link
            && is_poll
        {
            link.polled();
        }
        let is_sent = request.method() == Method::POST;
        let response = Service::<Request<Incoming>>::call(&mut { self.library }, request);
        let response = match is_sent {
            // What a poll waits for is not its body.
            false => response.await?,
            true => match timeout(self.body_timeout, response).await {
                Ok(response) => response?,
                Err(_) => return Ok(refused(StatusCode::REQUEST_TIMEOUT, "the body took too long to come")),
            },
        };
        let Some(link) = link.filter(|_| is_poll && response.status() == StatusCode::OK) else {
            return Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()));
        };
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return Ok(refused(StatusCode::BAD_REQUEST, "cut off")) };
        let body = body.to_bytes();
        link.answered(&body);
        Ok(Response::from_parts(parts, Full::from(body).map_err(Into::into).boxed_unsync()))
    }

    /// Answers a WebSocket handshake; once the stream is free the library gets it, wrapped.
    fn take_over(
        self,
        mut request: Request<Incoming>,
        session: Option<String>,
        accept: HeaderValue,
    ) -> Response<ResponseBody> {
        let Self { library, links, patience, .. } = self;
        let is_upgrade = session.is_some();
        let link = session.map_or_else(|| links.nameless(), |session| links.of(&session));
        let upgrading = upgrade::on(&mut request);
        let request = small(&request, &link);
        tokio::spawn(async move {
            let Some((stream, first)) = freed(upgrading).await else { return };
            let stream = Stream::new(stream, first, link, is_upgrade, patience);
            if let Err(error) = library.oneshot((stream, request)).await {
                debug!(%error, "WebSocket");
            }
        });
        let mut response = Response::new(Default::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response
    }
}

/// What to accept a WebSocket handshake with (RFC 6455 §4.2); `None`: it is none, or not a good one, and
/// the library says so.
fn accepted(request: &Request<Incoming>) -> Option<HeaderValue> {
    let has = |name, token: &str| {
        let value = request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        value.is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    let path = request.uri().path().strip_prefix("/socket.io")?;
    let is_good = request.method() == Method::GET
        && (path.is_empty() || path.starts_with('/'))
        && parameter(request, "transport") == Some("websocket")
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).filter(|_| is_good)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()
}

/// The request as the socket keeps it for life: a copy, because the original holds on to the whole buffer
/// it was read into.
fn small(request: &Request<Incoming>, link: &Arc<Link>) -> Request<()> {
    let mut small = Request::new(());
    *small.uri_mut() = request.uri().to_string().parse().unwrap_or_default();
    for value in request.headers().get_all(header::AUTHORIZATION) {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            small.headers_mut().append(header::AUTHORIZATION, value);
        }
    }
    if let Some(client) = request.extensions().get::<Client>() {
        small.extensions_mut().insert(*client);
    }
    small.extensions_mut().insert(link.clone());
    small
}

/// A parameter of the query, as it stands.
fn parameter<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a str> {
    let query = request.uri().query()?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}
