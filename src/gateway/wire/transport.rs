//! The HTTP side of Engine.IO: sends each request to the library, or answers it where the library is not trusted to.
//!
//! The transport takes over the TCP streams of WebSockets, follows the answers to polls until they have left, and
//! checks bodies before the library sees them. `mod.rs` says why.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, Request, Response, StatusCode, header, response::Parts};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    upgrade,
};
use socketioxide::socket::Sid;
use tokio::sync::mpsc::UnboundedReceiver;
use tower::{Service as TowerService, ServiceExt};
use tracing::debug;

use super::{
    bodies::Bodies,
    connection::Connection,
    connections::Connections,
    end_reason::EndReason,
    polling::{self, PollingSession},
    polls::PollGuard,
    refusal,
    request::{Handshake, copy_for_library, has_lengths, has_token, parameter, websocket_handshake},
    response::{BoxError, ResponseBody, boxed, full, poll_answer_head, refused, switching_protocols},
    stream::Stream,
    unidentified::UnidentifiedSessions,
    upgrade::wait_for_upgrade,
};
use crate::{
    config,
    domain::access::Payer,
    net::{
        accept::{Peer, upgraded},
        byte_budget::Reservation,
        client::Client,
    },
    service::{Service, limits::payer},
};

/// The library's answer to a request of a session that it does not know.
const UNKNOWN_SESSION: &str = r#"{"code":"1","message":"Session ID unknown"}"#;

/// Answers requests. The library `L` serves requests and the streams of WebSockets.
#[derive(Clone)]
pub struct Transport<L> {
    library: L,
    connections: Arc<Connections>,
    /// Time for which a WebSocket may take no bytes, and half of the time for which a client may confirm none.
    write_timeout: Duration,
    bodies: Bodies,
    unidentified: UnidentifiedSessions,
}

type Answer = Result<Response<ResponseBody>, Infallible>;

impl<L, B> Transport<L>
where
    L: TowerService<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible, Future: Send>
        + TowerService<(Box<Stream>, Request<()>), Error: std::fmt::Display, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    /// Creates the transport in front of the library, and starts the task that ends polling sessions.
    pub fn new(
        library: L,
        connections: Arc<Connections>,
        session_ends: UnboundedReceiver<PollingSession>,
        write_timeout: Duration,
        limits: &config::Limits,
        service: &Arc<Service>,
    ) -> Self {
        let Service { metrics, tasks, .. } = &**service;
        let bodies = Bodies::new(limits, service);
        let unidentified = UnidentifiedSessions::new(limits, metrics);
        let state = (library.clone(), session_ends);
        tasks.task("session_ends").spawn(state, |(library, ends)| end_sessions(library, ends).boxed());
        let waiting = connections.common.waiting.clone();
        let help = "Bytes that wait for sockets in the process, and of incomplete messages from sockets";
        metrics.watch_bytes("sockets_waiting", help, move || waiting.used());
        Self { library, connections, write_timeout, bodies, unidentified }
    }

    /// Answers one request.
    pub async fn serve(self, request: Request<Incoming>) -> Answer {
        let handshake = websocket_handshake(&request);
        let Some(session) = parameter(&request, "sid").map(str::to_owned) else {
            return self.open(request, handshake).await;
        };
        let Some(connection) = self.connections.find(&session) else {
            // The request is refused before anything of its body is read.
            return Ok(refused(StatusCode::BAD_REQUEST, UNKNOWN_SESSION));
        };
        if request.method() == Method::POST && connection.is_unanswered_for(2 * self.write_timeout) {
            // The client goes on sending, but does not poll any more.
            connection.abort_unread(EndReason::Unread);
        }
        if connection.is_aborted() {
            // This answer makes the client give up the session and connect again.
            return Ok(refused(StatusCode::BAD_REQUEST, "this session has ended"));
        }
        match (handshake, request.method()) {
            (Some(handshake), _) => Ok(self.upgrade(request, connection, handshake)),
            (None, &Method::GET) => self.answer_poll(request, connection).await,
            (None, &Method::POST) => self.receive(request, connection).await,
            (None, _) => self.ask_library(copy_for_library(&request).map(|()| Full::default())).await,
        }
    }

    /// Begins a session, or answers a request that belongs to none.
    async fn open(self, request: Request<Incoming>, handshake: Option<Handshake>) -> Answer {
        let address = Client::address(request.extensions().get());
        if request.method() == Method::POST {
            return Ok(refused(StatusCode::BAD_REQUEST, "there is no session to send this to"));
        }
        let Ok(place) = self.unidentified.enter(address) else {
            return Ok(refused(StatusCode::TOO_MANY_REQUESTS, "too many handshakes at once; try again"));
        };
        let connection = self.connections.create();
        connection.set_unidentified(payer(None, address), place);
        if let Some(handshake) = handshake {
            return Ok(self.open_websocket(request, connection, handshake));
        }
        let mut request = copy_for_library(&request);
        request.extensions_mut().insert(connection.clone());
        let has_lengths = has_lengths(&request);
        let response = self.library.clone().oneshot(request.map(|()| Full::default())).await?;
        if response.status() != StatusCode::OK {
            return Ok(boxed(response));
        }
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return Ok(refused(StatusCode::BAD_REQUEST, "cut off")) };
        let body = body.to_bytes();
        if let Some(id) = session_in(&body) {
            connection.set_polling(PollingSession { id, has_lengths });
            self.connections.insert(id, &connection);
        }
        Ok(Response::from_parts(parts, full(body)))
    }

    async fn ask_library(&self, request: Request<Full<Bytes>>) -> Answer {
        Ok(boxed(self.library.clone().oneshot(request).await?))
    }

    /// Takes packets that the client of a polling session sends.
    async fn receive(self, request: Request<Incoming>, connection: Arc<Connection>) -> Answer {
        let (mut copy, body) = (copy_for_library(&request), request.into_body());
        match self.bodies.read(&copy, &connection, body).await {
            Ok(body) => {
                let sid = parameter(&copy, "sid").unwrap_or_default();
                let uri = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
                *copy.uri_mut() = uri.parse().unwrap_or_default();
                self.ask_library(copy.map(|()| Full::from(body))).await
            }
            Err((status, why)) => {
                if status == StatusCode::BAD_REQUEST {
                    connection.abort_for(EndReason::Malformed);
                }
                Ok(refused(status, why))
            }
        }
    }

    /// Answers a poll, and follows the answer until it has left this process.
    async fn answer_poll(self, request: Request<Incoming>, connection: Arc<Connection>) -> Answer {
        let Some(guard) = PollGuard::begin(&connection) else {
            return Ok(refused(StatusCode::BAD_REQUEST, "another poll of this session waits for its answer"));
        };
        if !connection.confirm_last_answer().await {
            return Ok(refused(StatusCode::BAD_REQUEST, "the last answer was not read"));
        }
        let keeps_alive = !has_token(&request, header::CONNECTION, "close");
        let answers = request.extensions().get::<Peer>().map(|peer| peer.answers.clone());
        let has_lengths = has_lengths(&request);
        let Some((mut parts, mut body)) = self.poll_library(&request, &connection, has_lengths).await? else {
            return Ok(refused(StatusCode::BAD_REQUEST, "cut off"));
        };
        if parts.status != StatusCode::OK {
            guard.disarm();
            return Ok(Response::from_parts(parts, full(body)));
        }
        let Some(answers) = answers else {
            return Ok(refused(StatusCode::INTERNAL_SERVER_ERROR, "no connection"));
        };
        if connection.is_closing() {
            // The rewritten refusal has another length than the library's.
            parts.headers.remove(header::CONTENT_LENGTH);
            body = refusal::rewrite_answer(body, has_lengths);
        }
        // The bytes were held against the caller's budget while they waited; now they are held until they have left.
        let held = connection.record_answer(&body);
        let (followed, delivery) = answers.follow(Bytes::from_owner(HeldAnswer(body, held)), keeps_alive);
        connection.set_last_answer(delivery, answers);
        guard.disarm();
        Ok(Response::from_parts(parts, followed.map_err(Into::into).boxed_unsync()))
    }

    /// Waits for the library's answer to a poll, or until the poll must be answered with nothing. Returns `None` if the
    /// answer breaks off.
    async fn poll_library(
        &self,
        request: &Request<Incoming>,
        connection: &Connection,
        has_lengths: bool,
    ) -> Result<Option<(Parts, Bytes)>, Infallible> {
        let answer = self.library.clone().oneshot(copy_for_library(request).map(|()| Full::default()));
        tokio::select! {
            biased;
            answer = answer => {
                let (parts, body) = answer?.into_parts();
                Ok(body.collect().await.ok().map(|body| (parts, body.to_bytes())))
            }
            // The library hands out no packet before it answers, so its answer may be dropped here.
            () = connection.wait_for_noop() => Ok(Some((poll_answer_head(), polling::noop(has_lengths)))),
        }
    }

    /// Answers a WebSocket handshake of a session that polls. The session goes on polling until the client confirms the
    /// change over the WebSocket.
    fn upgrade(
        self,
        mut request: Request<Incoming>,
        connection: Arc<Connection>,
        handshake: Handshake,
    ) -> Response<ResponseBody> {
        let Some(guard) = connection.begin_upgrade() else {
            return refused(StatusCode::BAD_REQUEST, "another WebSocket of this session is open");
        };
        let Self { library, write_timeout, .. } = self;
        let upgrading = upgrade::on(&mut request);
        let request = copy_for_library(&request);
        tokio::spawn(async move {
            let Some((mut stream, already_read)) = upgraded(upgrading).await else { return };
            let Some(read) = wait_for_upgrade(&mut stream, already_read, &guard).await else {
                debug!("an upgrade to WebSocket failed; its session goes on polling");
                return;
            };
            // A client changes after it has read the answer to its last poll, so the change confirms as a poll does.
            let Some(poll) = PollGuard::begin(&connection) else { return };
            if !connection.confirm_last_answer().await {
                return;
            }
            poll.disarm();
            // The stream is boxed because the library's tasks hold space for it in several places.
            let stream = Box::new(Stream::new(stream, read, connection, true, write_timeout));
            if let Err(error) = library.oneshot((stream, request)).await {
                debug!(%error, "a WebSocket ended with an error");
            }
            drop(guard);
        });
        switching_protocols(handshake)
    }

    /// Answers the WebSocket handshake of a new session.
    fn open_websocket(
        self,
        mut request: Request<Incoming>,
        connection: Arc<Connection>,
        handshake: Handshake,
    ) -> Response<ResponseBody> {
        let Self { library, write_timeout, .. } = self;
        let upgrading = upgrade::on(&mut request);
        let mut request = copy_for_library(&request);
        request.extensions_mut().insert(connection.clone());
        tokio::spawn(async move {
            let Some((stream, already_read)) = upgraded(upgrading).await else { return };
            let stream = Box::new(Stream::new(stream, already_read, connection, false, write_timeout));
            if let Err(error) = library.oneshot((stream, request)).await {
                debug!(%error, "a WebSocket ended with an error");
            }
        });
        switching_protocols(handshake)
    }
}

/// Ends polling sessions, by the request with which a client would.
async fn end_sessions<L, B>(library: &mut L, sessions: &mut UnboundedReceiver<PollingSession>)
where
    L: TowerService<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible, Future: Send> + Clone,
{
    while let Some(PollingSession { id, has_lengths }) = sessions.recv().await {
        let version = if has_lengths { 3 } else { 4 };
        let uri = format!("/socket.io/?EIO={version}&transport=polling&sid={}", id.as_str());
        let request = Request::post(uri).body(polling::close(has_lengths)).expect("the URI is plain ASCII");
        let _ = library.clone().oneshot(request).await;
    }
}

/// Returns the session that an answer opens. Its packet is `0{"sid":"…",…}`, with its length before it in version 3.
fn session_in(body: &[u8]) -> Option<Sid> {
    let (_, after) = str::from_utf8(body).ok()?.split_once(r#""sid":""#)?;
    after.split('"').next()?.parse().ok()
}

/// An answer to a poll, and the bytes that it holds of its caller's budget until it has left.
struct HeldAnswer(Bytes, #[expect(dead_code, reason = "given back when dropped")] Option<Reservation<Payer>>);

impl AsRef<[u8]> for HeldAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
