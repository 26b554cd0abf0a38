//! The Socket.IO door: who connects, which rooms they are in, what they are sent.
//!
//! The only room that imports socketioxide, which does transports, handshake, heartbeat and packets.
//! Rooms are our own (`rooms.rs`): who is in a room and which version its members have seen are decided
//! under one lock, and no client can enter one except through a handler that checked.

mod forward;
mod handshake;
mod inbox;
mod messages;
mod reply;
mod rooms;
mod session;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use socketioxide::{ParserConfig, SocketIo};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tower::{Service as TowerService, ServiceBuilder, ServiceExt, service_fn};

use self::rooms::Rooms;
use crate::{
    config::Heartbeat,
    domain::event::Event,
    net::{client::TrustedProxies, origins::Origins},
    service::Service,
};

/// Packets that may wait for one socket. Memory is taken as they come, not beforehand.
const SOCKET_QUEUE: usize = 1_024;
/// One inbound message: a 16 KiB `chat` in which every byte is escaped, and its envelope.
const MAX_MESSAGE_BYTES: usize = 128 * 1024;
/// One long-polling request: many messages in one body, as clients that cannot be told a limit send them.
const MAX_POLL_BYTES: u64 = 1024 * 1024;
/// How long sockets may take over their goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The running gateway: keeps forwarding until it is closed.
#[derive(Debug)]
pub struct Gateway {
    io: SocketIo,
    stop_forwarding: oneshot::Sender<()>,
    forwarder: JoinHandle<()>,
}

impl Gateway {
    /// Starts forwarding `events` to rooms; also returns the tower service that `net::accept` serves.
    pub fn start(
        service: Service,
        events: mpsc::Receiver<Event>,
        heartbeat: Heartbeat,
        origins: &Origins,
        proxies: TrustedProxies,
    ) -> (Self, impl Served) {
        let (socketio, io) = SocketIo::builder()
            .ping_interval(heartbeat.interval)
            .ping_timeout(heartbeat.timeout)
            .max_buffer_size(SOCKET_QUEUE)
            .max_payload(MAX_POLL_BYTES)
            .ws_max_message_size(MAX_MESSAGE_BYTES)
            .ws_max_frame_size(MAX_MESSAGE_BYTES)
            .with_parser(ParserConfig::common())
            .build_svc();
        let rooms = Arc::new(Rooms::new(service));
        handshake::install(&io, rooms.clone(), proxies);

        let (stop_forwarding, stopped) = oneshot::channel();
        let forwarder = tokio::spawn(forward::run(rooms, events, stopped));

        let policy = origins.clone();
        let checked = service_fn(move |request: Request<Incoming>| {
            let admitted = policy.admits(request.headers()).then(|| socketio.clone());
            async move {
                match admitted {
                    Some(socketio) => {
                        let response = socketio.oneshot(request).await?;
                        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
                    }
                    None => Ok(foreign_origin()),
                }
            }
        });
        let served = ServiceBuilder::new().layer(origins.cors()).service(checked);
        (Self { io, stop_forwarding, forwarder }, served)
    }

    /// Forwards what has happened, tells every socket to come back later, and ends.
    pub async fn close(self) {
        let _ = self.stop_forwarding.send(());
        if timeout(CLOSE_TIMEOUT, self.forwarder).await.is_err() {
            tracing::warn!("rooms were still behind at the end");
        }
        // A socket whose peer reads nothing would be waited for without end.
        if timeout(CLOSE_TIMEOUT, self.io.close()).await.is_err() {
            tracing::warn!("sockets were still open at the end");
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// The gateway as a tower service.
pub trait Served:
    TowerService<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Served for S where
    S: TowerService<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

fn foreign_origin() -> Response<ResponseBody> {
    let mut response =
        Response::new(Full::from("this origin is not allowed").map_err(Into::into).boxed_unsync());
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}
