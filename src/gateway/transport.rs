//! Between HTTP and the library: takes WebSockets over, to own the stream under them, and sees the polls
//! of those who have none.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError};
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
    link::{Link, Links, Why},
    refused,
    stream::Stream,
};
use crate::{
    config,
    net::{accept::freed, client::Client},
    service::limits::Limits,
};

/// The library, and what it is not left to do. `L` serves requests and ready-made WebSocket streams.
#[derive(Clone)]
pub struct Transport<L> {
    library: L,
    links: Arc<Links>,
    /// How long a WebSocket may take nothing, and half of how long a client may read nothing.
    patience: Duration,
    limits: Limited,
}

/// How large a request's body may be, and each message in it; how long it may take and where that is counted.
#[derive(Clone)]
struct Limited {
    body: usize,
    message: usize,
    on: Arc<Limits>,
}

/// How a packet begins that connects to another namespace than the main one, of which there is none. The
/// library would repeat its name in a refusal that no limit counts.
pub const ELSEWHERE: &str = "40/";
/// Between packets of one body.
const SEPARATOR: char = '\u{1e}';

impl<L, B> Transport<L>
where
    L: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>
        + Service<(Box<Stream>, Request<()>), Error: std::fmt::Display, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    pub fn new(
        library: L,
        links: Arc<Links>,
        patience: Duration,
        limits: &config::Limits,
        on: &Arc<Limits>,
    ) -> Self {
        let limits = Limited { body: limits.poll_bytes, message: limits.message_bytes, on: on.clone() };
        Self { library, links, patience, limits }
    }

    pub async fn serve(self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
        let session = parameter(&request, "sid").map(str::to_owned);
        let link = session.as_ref().and_then(|session| self.links.find(session));
        if let Some(link) = &link
            && request.method() == Method::POST
            && link.is_unanswered_for(2 * self.patience)
        {
            // It is heard of, and polls no more.
            link.give_up(Why::Unread);
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
        // Not as it came: the library keeps it for as long as the session lasts.
        let (small, body) = (small(&request), request.into_body());
        let has_lengths = has_lengths(&small);
        let body = match self.limits.read(&small, has_lengths, link.as_deref(), body).await {
            Ok(body) => body,
            Err((status, why)) => {
                if let Some(link) = link.filter(|_| status == StatusCode::BAD_REQUEST) {
                    link.cut_for(Why::Malformed);
                }
                return Ok(refused(status, why));
            }
        };
        let request = small.map(|()| Full::from(body));
        let response = Service::<Request<Full<Bytes>>>::call(&mut { self.library }, request).await?;
        // It may have come to be meanwhile.
        let link = session.filter(|_| is_poll && response.status() == StatusCode::OK);
        let Some(link) = link.and_then(|session| self.links.find(&session)) else {
            return Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()));
        };
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return Ok(refused(StatusCode::BAD_REQUEST, "cut off")) };
        let body = body.to_bytes();
        link.answered(&body, has_lengths);
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
        let mut request = small(&request);
        request.extensions_mut().insert(link.clone());
        tokio::spawn(async move {
            let Some((stream, first)) = freed(upgrading).await else { return };
            // Boxed: the library's tasks have room for it at several places.
            let stream = Box::new(Stream::new(stream, first, link, is_upgrade, patience));
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

type Refusal = (StatusCode, &'static str);

impl Limited {
    /// The body of a request that sends something.
    async fn read(
        &self,
        request: &Request<()>,
        has_lengths: bool,
        link: Option<&Link>,
        body: Incoming,
    ) -> Result<Bytes, Refusal> {
        if request.method() != Method::POST {
            return Ok(Bytes::new());
        }
        if parameter(request, "sid").is_none() {
            return Err((StatusCode::BAD_REQUEST, "there is no session to send this to"));
        }
        let body =
            timeout(self.on.body_timeout, http_body_util::Limited::new(body, self.body).collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(self.too_large()),
            Ok(Err(_)) => {
                // Its network did, and nothing it has sent is at fault.
                link.inspect(|link| link.cut());
                return Err((StatusCode::BAD_REQUEST, "the body ended before its end"));
            }
            Err(_) => {
                self.on.too_slow.inc();
                return Err((StatusCode::REQUEST_TIMEOUT, "the body took too long to come"));
            }
        };
        let text = str::from_utf8(&body).map_err(|_| (StatusCode::BAD_REQUEST, "the body is not text"))?;
        let is_framed = each_packet(text, has_lengths, |packet| {
            if packet.len() > self.message {
                return Err(self.too_large());
            }
            match packet.starts_with(ELSEWHERE) && !link.is_some_and(Link::may_wander) {
                true => Err((StatusCode::BAD_REQUEST, "there is no such namespace")),
                false => Ok(()),
            }
        })?;
        if !is_framed {
            return Err((StatusCode::BAD_REQUEST, "the body is not framed as its protocol has it"));
        }
        Ok(body)
    }

    fn too_large(&self) -> Refusal {
        self.on.too_large.inc();
        (StatusCode::PAYLOAD_TOO_LARGE, "the body, or a message in it, is too large")
    }
}

/// Version 3 of the protocol gives before each packet of a body its length in UTF-16 units.
fn has_lengths<B>(request: &Request<B>) -> bool {
    parameter(request, "EIO") == Some("3")
}

/// Passes over the packets of a body; `false`: it is not framed as it should be, which the library may never
/// get over.
pub fn each_packet<E>(
    body: &str,
    has_lengths: bool,
    mut see: impl FnMut(&str) -> Result<(), E>,
) -> Result<bool, E> {
    if !has_lengths {
        body.split(SEPARATOR).try_for_each(see)?;
        return Ok(true);
    }
    let mut rest = body;
    while !rest.is_empty() {
        let Some((length, after)) = rest.split_once(':') else { return Ok(false) };
        let Ok(mut left) = length.parse::<usize>() else { return Ok(false) };
        let mut chars = after.chars();
        while left > 0 {
            match chars.next().and_then(|char| left.checked_sub(char.len_utf16())) {
                Some(less) => left = less,
                None => return Ok(false),
            }
        }
        let (packet, next) = after.split_at(after.len() - chars.as_str().len());
        see(packet)?;
        rest = next;
    }
    Ok(true)
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
fn small(request: &Request<Incoming>) -> Request<()> {
    let mut small = Request::new(());
    *small.method_mut() = request.method().clone();
    *small.uri_mut() = request.uri().to_string().parse().unwrap_or_default();
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
        for value in request.headers().get_all(&name) {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                small.headers_mut().append(&name, value);
            }
        }
    }
    if let Some(client) = request.extensions().get::<Client>() {
        small.extensions_mut().insert(*client);
    }
    small
}

/// A parameter of the query, as it stands.
fn parameter<'a, B>(request: &'a Request<B>, name: &str) -> Option<&'a str> {
    let query = request.uri().query()?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    // As the library reads it.
    value.split('=').next()
}
