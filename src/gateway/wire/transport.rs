//! Between HTTP and the library: takes WebSockets over, to own the stream under them, follows the polls of those who
//! have none, and lets nobody hold much before it is known who they are.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    upgrade,
};
use socketioxide::socket::Sid;
use tokio::{sync::mpsc, time::timeout};
use tower::{Service as TowerService, ServiceExt};
use tracing::debug;
use tungstenite::handshake::derive_accept_key;

use super::{
    connection::{Connection, EndReason},
    connections::Connections,
    payload::{
        ATTACHMENT, ELSEWHERE, MESSAGE, NOOP, announces_attachments, each_packet, from_version_3,
        without_noops,
    },
    polling::{self, PollGuard, PollingSession},
    refusal,
    response::{BoxError, ResponseBody, refused},
    stream::Stream,
    upgrade::wait,
};
use crate::{
    config,
    domain::{
        access::Payer,
        error::{Code, Error},
    },
    metrics::{Counter, Metrics},
    net::{
        accept::{Peer, upgraded},
        byte_budget::{ByteBudget, Reservation},
        client::Client,
    },
    service::{Service, limits::payer},
};

/// How large a body or a message may be while nobody knows its client: it holds at most a token.
pub const UNIDENTIFIED_BYTES: usize = 128 * 1024;
/// How much a body's buffer grows at a time.
const BODY_STEP: usize = 64 * 1024;

/// The library, and what it is not left to do. `L` serves requests and ready-made WebSocket streams.
#[derive(Clone)]
pub struct Transport<L> {
    library: L,
    connections: Arc<Connections>,
    /// How long a WebSocket may take nothing, and half of how long a client may read nothing.
    patience: Duration,
    bodies: Bodies,
    handshakes: Handshakes,
}

/// How large a request's body may be, and each message in it; how long it may take and where that is counted.
#[derive(Clone)]
struct Bodies {
    body: usize,
    message: usize,
    /// How long it may take of a session whose client is not known yet.
    handshake_timeout: Duration,
    service: Arc<Service>,
}

/// Sessions whose client nobody knows yet: of one address, and in all.
#[derive(Clone)]
struct Handshakes {
    /// `None`: any number.
    places: Option<ByteBudget<IpAddr>>,
    limited: Counter,
}

/// As the library says it.
const UNKNOWN_SESSION: &str = r#"{"code":"1","message":"Session ID unknown"}"#;

impl<L, B> Transport<L>
where
    L: TowerService<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible, Future: Send>
        + TowerService<(Box<Stream>, Request<()>), Error: std::fmt::Display, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    /// Puts a transport in front of the library, and ends sessions that have no connection.
    pub fn new(
        library: L,
        connections: Arc<Connections>,
        patience: Duration,
        limits: &config::Limits,
        service: &Arc<Service>,
    ) -> Self {
        let Service { metrics, tasks, .. } = &**service;
        let bodies = Bodies {
            body: limits.poll_bytes,
            message: limits.message_bytes,
            handshake_timeout: limits.handshake_timeout,
            service: service.clone(),
        };
        let handshakes = Handshakes::new(limits, metrics);
        let (ending, ended) = mpsc::unbounded_channel();
        connections.end_sessions_with(ending);
        let state = (library.clone(), ended);
        tasks.task("session_ends").spawn(state, |(library, ended)| end_sessions(library, ended).boxed());
        let waiting = connections.waiting();
        let help = "Bytes that wait for sockets in the process, and of incomplete messages from sockets";
        metrics.watch_bytes("sockets_waiting", help, move || waiting.used());
        Self { library, connections, patience, bodies, handshakes }
    }

    /// Answers one request.
    pub async fn serve(self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
        let session = parameter(&request, "sid").map(str::to_owned);
        let accept = accepted(&request);
        let Some(session) = session else { return self.open(request, accept).await };
        let Some(connection) = self.connections.find(&session) else {
            // Before anything of a body is read.
            return Ok(refused(StatusCode::BAD_REQUEST, UNKNOWN_SESSION));
        };
        if request.method() == Method::POST && connection.is_unanswered_for(2 * self.patience) {
            // It is heard of, and polls no more.
            connection.abort_unread(EndReason::Unread);
        }
        if connection.is_aborted() {
            // The client takes the session for lost, and connects again.
            return Ok(refused(StatusCode::BAD_REQUEST, "this session has ended"));
        }
        match (accept, request.method()) {
            (Some(accept), _) => Ok(self.upgrade(request, connection, accept)),
            (None, &Method::GET) => self.poll(request, connection).await,
            (None, &Method::POST) => self.receive(request, connection).await,
            (None, _) => self.ask(small(&request).map(|()| Full::default())).await,
        }
    }

    /// Begins a session, or answers what is of none.
    async fn open(
        self,
        request: Request<Incoming>,
        accept: Option<Accept>,
    ) -> Result<Response<ResponseBody>, Infallible> {
        let from = Client::address(request.extensions().get());
        if request.method() == Method::POST {
            return Ok(refused(StatusCode::BAD_REQUEST, "there is no session to send this to"));
        }
        let place = match self.handshakes.enter(from) {
            Ok(place) => place,
            Err(refusal) => return Ok(*refusal),
        };
        let connection = self.connections.create();
        connection.set_unidentified(payer(None, from), place);
        if let Some(accept) = accept {
            return Ok(self.take_over(request, connection, accept));
        }
        // Not as it came: the library keeps it for as long as the session lasts.
        let mut small = small(&request);
        small.extensions_mut().insert(connection.clone());
        let has_lengths = has_lengths(&small);
        let response = self.library.clone().oneshot(small.map(|()| Full::default())).await?;
        if response.status() != StatusCode::OK {
            return Ok(boxed(response));
        }
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return Ok(refused(StatusCode::BAD_REQUEST, "cut off")) };
        let body = body.to_bytes();
        if let Some(id) = opened_session(&body) {
            connection.set_polling(PollingSession { id, has_lengths });
            self.connections.insert(id, &connection);
        }
        Ok(Response::from_parts(parts, Full::from(body).map_err(Into::into).boxed_unsync()))
    }

    /// Lets the library answer.
    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Response<ResponseBody>, Infallible> {
        Ok(boxed(self.library.clone().oneshot(request).await?))
    }

    /// Takes what a session that polls sends.
    async fn receive(
        self,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Result<Response<ResponseBody>, Infallible> {
        let (mut small, body) = (small(&request), request.into_body());
        match self.bodies.read(&small, &connection, body).await {
            Ok(body) => {
                let sid = parameter(&small, "sid").unwrap_or_default();
                let uri = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
                *small.uri_mut() = uri.parse().unwrap_or_default();
                self.ask(small.map(|()| Full::from(body))).await
            }
            Err((status, why)) => {
                if status == StatusCode::BAD_REQUEST {
                    connection.abort_for(EndReason::Malformed);
                }
                Ok(refused(status, why))
            }
        }
    }

    /// Answers a poll.
    async fn poll(
        self,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Result<Response<ResponseBody>, Infallible> {
        let Some(guard) = PollGuard::begin(&connection) else {
            return Ok(refused(StatusCode::BAD_REQUEST, "another poll of this session waits for its answer"));
        };
        if !connection.record_poll().await {
            return Ok(refused(StatusCode::BAD_REQUEST, "the last answer was not read"));
        }
        let has_lengths = has_lengths(&request);
        let keeps_alive = !has_token(&request, header::CONNECTION, "close");
        let answers = request.extensions().get::<Peer>().map(|peer| peer.answers.clone());
        let library = self.library.clone();
        let request = small(&request).map(|()| Full::default());
        let answered = async { library.oneshot(request).await.map(Response::into_parts) };
        let (mut parts, body) = tokio::select! {
            biased;
            answered = answered => {
                let (parts, body) = answered?;
                let Ok(body) = body.collect().await else {
                    return Ok(refused(StatusCode::BAD_REQUEST, "cut off"));
                };
                (parts, body.to_bytes())
            }
            // Nothing is taken from the library before there is an answer, so it may be left.
            () = connection.wait_for_noop() => (noop_parts(), polling::noop(has_lengths)),
        };
        if parts.status != StatusCode::OK {
            guard.disarm();
            return Ok(Response::from_parts(parts, Full::from(body).map_err(Into::into).boxed_unsync()));
        }
        let Some(answers) = answers else {
            return Ok(refused(StatusCode::INTERNAL_SERVER_ERROR, "no connection"));
        };
        let body = match connection.is_closing() {
            true => {
                // The refusal has another length than the library's.
                parts.headers.remove(header::CONTENT_LENGTH);
                refusal::rewrite_answer(body, has_lengths)
            }
            false => body,
        };
        // It was held as long as it waited; from here on until it has left.
        let held = connection.record_answer(&body);
        let (followed, delivery) = answers.follow(Bytes::from_owner(Held(body, held)), keeps_alive);
        connection.follow_answer(delivery, answers);
        guard.disarm();
        Ok(Response::from_parts(parts, followed.map_err(Into::into).boxed_unsync()))
    }

    /// Answers a WebSocket handshake of a session that polls. It goes on polling until the client has changed over.
    fn upgrade(
        self,
        mut request: Request<Incoming>,
        connection: Arc<Connection>,
        accept: Accept,
    ) -> Response<ResponseBody> {
        let Some(guard) = connection.begin_upgrade() else {
            return refused(StatusCode::BAD_REQUEST, "another WebSocket of this session is open");
        };
        let Self { library, patience, .. } = self;
        let upgrading = upgrade::on(&mut request);
        let request = small(&request);
        tokio::spawn(async move {
            let Some((mut stream, first)) = upgraded(upgrading).await else { return };
            let Some(said) = wait(&mut stream, first, &guard).await else {
                debug!("an upgrade to WebSocket failed; its session goes on polling");
                return;
            };
            // A client changes over when it has read the answer to its last poll, as it polls again only then.
            let Some(poll) = PollGuard::begin(&connection) else { return };
            if !connection.record_poll().await {
                return;
            }
            poll.disarm();
            let stream = Box::new(Stream::new(stream, said, connection, true, patience));
            if let Err(error) = library.oneshot((stream, request)).await {
                debug!(%error, "a WebSocket ended with an error");
            }
            drop(guard);
        });
        switching(accept)
    }

    /// Answers a WebSocket handshake; once the stream is free the library gets it, wrapped.
    fn take_over(
        self,
        mut request: Request<Incoming>,
        connection: Arc<Connection>,
        accept: Accept,
    ) -> Response<ResponseBody> {
        let Self { library, patience, .. } = self;
        let upgrading = upgrade::on(&mut request);
        let mut request = small(&request);
        request.extensions_mut().insert(connection.clone());
        tokio::spawn(async move {
            let Some((stream, first)) = upgraded(upgrading).await else { return };
            // Boxed: the library's tasks have room for it at several places.
            let stream = Box::new(Stream::new(stream, first, connection, false, patience));
            if let Err(error) = library.oneshot((stream, request)).await {
                debug!(%error, "a WebSocket ended with an error");
            }
        });
        switching(accept)
    }
}

/// Ends sessions that have no connection, as their clients would.
async fn end_sessions<L, B>(library: &mut L, ended: &mut mpsc::UnboundedReceiver<PollingSession>)
where
    L: TowerService<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible, Future: Send> + Clone,
{
    while let Some(PollingSession { id, has_lengths }) = ended.recv().await {
        let version = if has_lengths { 3 } else { 4 };
        let uri = format!("/socket.io/?EIO={version}&transport=polling&sid={}", id.as_str());
        let request = Request::post(uri).body(polling::close(has_lengths)).expect("of plain text");
        let _ = library.clone().oneshot(request).await;
    }
}

impl Handshakes {
    fn new(limits: &config::Limits, metrics: &Metrics) -> Self {
        let places = limits.quotas.as_ref().map(|quotas| {
            let count = |count: std::num::NonZeroU32| count.get() as usize;
            ByteBudget::new(count(quotas.handshakes), count(quotas.address_handshakes))
        });
        if let Some(places) = places.clone() {
            let limit = places.total();
            metrics.queue("handshakes", limit, move || places.used());
        }
        Self { places, limited: metrics.limited("handshakes") }
    }

    /// Takes a place for a session that begins, until its client is known.
    ///
    /// # Errors
    /// What to answer: there are too many.
    fn enter(&self, from: IpAddr) -> Result<Option<Reservation<IpAddr>>, Box<Response<ResponseBody>>> {
        let Some(places) = &self.places else { return Ok(None) };
        let Payer::Address(network) = payer(None, from) else { return Ok(None) };
        places.reserve(network, 1).map(Some).ok_or_else(|| {
            self.limited.inc();
            Box::new(refused(StatusCode::TOO_MANY_REQUESTS, "too many handshakes at once; try again"))
        })
    }
}

type Refusal = (StatusCode, &'static str);

impl Bodies {
    /// The body of a request that sends something, framed as version 4 of Engine.IO has it.
    async fn read(
        &self,
        request: &Request<()>,
        connection: &Connection,
        body: Incoming,
    ) -> Result<Bytes, Refusal> {
        let payer =
            connection.payer().unwrap_or_else(|| payer(None, Client::address(request.extensions().get())));
        let limits = &self.service.limits;
        let (most, time) = match connection.is_unidentified() {
            true => (self.body.min(UNIDENTIFIED_BYTES), limits.body_timeout.min(self.handshake_timeout)),
            false => (self.body, limits.body_timeout),
        };
        let body = match timeout(time, self.collect(payer, body, most)).await {
            Ok(Ok(body)) => body,
            Ok(Err(Unread::TooLarge)) => return Err(self.too_large()),
            Ok(Err(Unread::Full(error))) => {
                let status = match error.code {
                    Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                return Err((status, "too much is being sent at once; try again"));
            }
            Ok(Err(Unread::BrokenOff)) => {
                // Its network did, and nothing it has sent is at fault.
                connection.abort();
                return Err((StatusCode::BAD_REQUEST, "the body ended before its end"));
            }
            Err(_) => {
                limits.too_slow.inc();
                return Err((StatusCode::REQUEST_TIMEOUT, "the body took too long to come"));
            }
        };
        let body = match has_lengths(request) {
            true => from_version_3(&body)
                .ok_or((StatusCode::BAD_REQUEST, "the body is not framed as its protocol has it"))?
                .into(),
            false => body,
        };
        let text = str::from_utf8(&body).map_err(|_| (StatusCode::BAD_REQUEST, "the body is not text"))?;
        let mut has_noop = false;
        each_packet(text, false, |packet| {
            if packet.len() > self.message {
                return Err(self.too_large());
            }
            has_noop |= packet == NOOP;
            if packet.starts_with(MESSAGE) {
                connection.release_attachments();
            }
            if packet.starts_with(ATTACHMENT) || announces_attachments(packet.as_bytes()) {
                connection.record_attachment(packet.len());
            }
            match packet.starts_with(ELSEWHERE) && !connection.may_wander() {
                true => Err((StatusCode::BAD_REQUEST, "there is no such namespace")),
                false => Ok(()),
            }
        })?;
        Ok(if has_noop { without_noops(text).into() } else { body })
    }

    /// The bytes of a body, `most` at most. One that comes whole at once is passed on as it is; others hold a part of
    /// the budget.
    async fn collect(&self, payer: Payer, mut body: Incoming, most: usize) -> Result<Bytes, Unread> {
        if body.size_hint().lower() > most as u64 {
            return Err(Unread::TooLarge);
        }
        let budget = &self.service.memory.bodies;
        let mut held = budget.reserve(payer, 0).map_err(Unread::Full)?;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.map_err(|_| Unread::BrokenOff)?.into_data() else { continue };
            let length = bytes.len() + chunk.len();
            if length > most {
                return Err(Unread::TooLarge);
            }
            if bytes.is_empty() && body.is_end_stream() {
                return Ok(chunk);
            }
            if bytes.capacity() < length {
                let more = BODY_STEP.max(chunk.len()).min(most - bytes.len());
                let new = bytes.len() + more - bytes.capacity();
                budget.grow(payer, &mut held, new).map_err(Unread::Full)?;
                bytes.reserve_exact(more);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }

    fn too_large(&self) -> Refusal {
        self.service.limits.too_large.inc();
        (StatusCode::PAYLOAD_TOO_LARGE, "the body, or a message in it, is too large")
    }
}

/// An answer, and what it holds of its client's budget until the connection has sent it.
struct Held(Bytes, #[expect(dead_code, reason = "given back when dropped")] Option<Reservation<Payer>>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Why a body was not read.
enum Unread {
    TooLarge,
    /// Too much of others, or of the same caller, is coming in.
    Full(Error),
    BrokenOff,
}

fn boxed<B>(response: Response<B>) -> Response<ResponseBody>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// The head of an answer to a poll.
fn noop_parts() -> http::response::Parts {
    let mut response = Response::new(());
    let plain = HeaderValue::from_static("text/plain; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response.into_parts().0
}

/// The headers of the answer to a WebSocket handshake that differ from client to client (RFC 6455 §4.2.2).
struct Accept {
    key: HeaderValue,
    /// The first that the client offers, as in Node's server: some give up where none is chosen.
    subprotocol: Option<HeaderValue>,
}

/// The answer to a good WebSocket handshake.
fn switching(accept: Accept) -> Response<ResponseBody> {
    let mut response = Response::new(Default::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.key);
    if let Some(subprotocol) = accept.subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}

/// The session that an answer to a handshake opens: its packet is `0{"sid":"…",…}`, with its length before it in
/// version 3.
fn opened_session(body: &[u8]) -> Option<Sid> {
    let (_, after) = str::from_utf8(body).ok()?.split_once(r#""sid":""#)?;
    after.split('"').next()?.parse().ok()
}

/// Version 3 of the protocol gives before each packet of a body its length in UTF-16 units.
fn has_lengths<B>(request: &Request<B>) -> bool {
    parameter(request, "EIO") == Some("3")
}

/// What to accept a WebSocket handshake with (RFC 6455 §4.2); `None`: it is none, or not a good one, and
/// the library says so.
fn accepted(request: &Request<Incoming>) -> Option<Accept> {
    let has = |name, token: &str| has_token(request, name, token);
    let path = request.uri().path().strip_prefix("/socket.io")?;
    let is_good = request.method() == Method::GET
        && (path.is_empty() || path.starts_with('/'))
        && parameter(request, "transport") == Some("websocket")
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).filter(|_| is_good)?;
    let key = HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()?;
    Some(Accept { key, subprotocol: subprotocol(request.headers()) })
}

/// Returns the first subprotocol that a client offers.
fn subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let first = offered.split(',').map(str::trim).find(|name| !name.is_empty())?;
    HeaderValue::from_str(first).ok()
}

/// Does a header list this token?
fn has_token<B>(request: &Request<B>, name: HeaderName, token: &str) -> bool {
    let value = request.headers().get(name).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
}

/// The request as the socket keeps it for life: a copy, because the original holds on to the whole buffer
/// it was read into.
fn small(request: &Request<Incoming>) -> Request<()> {
    let mut small = Request::new(());
    *small.method_mut() = request.method().clone();
    *small.uri_mut() = request.uri().to_string().parse().unwrap_or_default();
    // Not the `Content-Type`, by which the library would choose how to read a body: here it is always text.
    for value in request.headers().get_all(header::AUTHORIZATION) {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            small.headers_mut().append(header::AUTHORIZATION, value);
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
