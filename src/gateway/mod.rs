//! The Socket.IO door: who connects, which rooms they are in, what they are sent.
//!
//! The only room that imports socketioxide, which does transports, handshake, heartbeat and packets.
//! Rooms are our own (`rooms/`): who is in a room and which version its members have seen are decided
//! under one lock, and no client can enter one except through a handler that checked.

mod client;
mod connect;
mod event_loop;
mod metrics;
mod people;
mod rooms;
mod socket;
mod wire;

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use socketioxide::{ParserConfig, SocketIo};
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tower::{Service as TowerService, ServiceBuilder, service_fn};

#[doc(hidden)]
pub use self::socket::events::fuzz;
use self::{
    rooms::Rooms,
    wire::{
        connections::Connections,
        metrics::SocketMetrics,
        response::{ResponseBody, refused},
        transport::Transport,
    },
};
use crate::{
    config::{Heartbeat, Limits},
    domain::event::Event,
    net::{
        client::TrustedProxies,
        origins::{NOT_FOR_US, Origins},
    },
    service::Service,
};

/// Packets that may wait for one socket: more than `wire/flow.rs` lets be under way. Memory is taken as they
/// come, not beforehand.
const SOCKET_QUEUE: usize = 4_096;
/// What a WebSocket reads into, from the start and for good; a longer frame gets as much as it needs, but comes in
/// by so many bytes at a time, which for the largest message is 512 reads.
const READ_BUFFER: usize = 256;
/// Binary attachments of one event. An event that has some is refused, and to be told so its sender must be allowed to
/// send it; together the attachments may be as large as a message.
const MAX_ATTACHMENTS: usize = 256;
/// How long sockets may take over their goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long rooms may take over what they lack.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long those who poll may take over their last poll.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);

/// The running gateway: keeps forwarding until it is closed.
#[derive(Debug)]
pub struct Gateway {
    io: SocketIo,
    connections: Arc<Connections>,
    /// What goes on by itself until the end.
    chores: [AbortHandle; 3],
    /// Dropped: no more events come.
    stop_forwarding: Option<oneshot::Sender<()>>,
    forwarder: JoinHandle<()>,
}

impl Gateway {
    /// Starts forwarding `events` to rooms; also returns the tower service that `net::accept` serves.
    pub fn start(
        service: Arc<Service>,
        events: mpsc::Receiver<Event>,
        heartbeat: Heartbeat,
        origins: &Origins,
        proxies: TrustedProxies,
        limits: &Limits,
    ) -> (Self, impl Served) {
        let parser = ParserConfig::common()
            .max_incoming_binaries(MAX_ATTACHMENTS)
            .max_incoming_binary_buf_size(limits.message_bytes);
        let (socketio, io) = SocketIo::builder()
            .ping_interval(heartbeat.interval)
            .ping_timeout(heartbeat.timeout)
            .max_buffer_size(SOCKET_QUEUE)
            .ws_read_buffer_size(READ_BUFFER)
            .max_payload(limits.poll_bytes as u64)
            .ws_max_message_size(limits.message_bytes)
            .ws_max_frame_size(limits.message_bytes)
            .connect_timeout(limits.handshake_timeout)
            .with_parser(parser)
            .build_svc();
        let rooms = Arc::new(Rooms::new(service.clone()));
        service.set_live_rooms(Arc::downgrade(&rooms));
        metrics::watch(&rooms, &service.metrics);
        let sockets = SocketMetrics::new(&service.metrics);
        let connections = Arc::new(Connections::new(sockets));
        connect::install(&io, rooms.clone(), connections.clone());

        let (stop_forwarding, stopped) = oneshot::channel();
        let tasks = &service.tasks;
        let chores = [
            tasks.task("sweep").spawn(rooms.clone(), |rooms| rooms.sweep().boxed()).abort_handle(),
            tasks
                .task("herald")
                .spawn(rooms.clone(), |rooms| people::announcer::run(rooms).boxed())
                .abort_handle(),
            tasks
                .task("names")
                .spawn(rooms.clone(), |rooms| people::announcer::name(rooms).boxed())
                .abort_handle(),
        ];
        let forwarding = event_loop::run(rooms, events, connections.opened(), stopped);
        let forwarder = tasks.task("forwarder").spawn_once(forwarding);

        let transport = Transport::new(socketio, connections.clone(), heartbeat.timeout, limits, &service);
        let (policy, foreign) = (origins.clone(), service.limits.foreign.clone());
        let is_open = service.is_open();
        let checked = service_fn(move |mut request: Request<Incoming>| {
            proxies.note(&mut request);
            let headers = request.headers();
            let answer = if !policy.is_for_us(headers) {
                foreign.inc();
                Err(refused(StatusCode::MISDIRECTED_REQUEST, NOT_FOR_US))
            } else if let Some(page) = wire::pages::answer(&request) {
                Err(page)
            } else if is_open && !policy.admits(headers) {
                foreign.inc();
                Err(refused(StatusCode::FORBIDDEN, "this origin is not allowed"))
            } else {
                Ok(transport.clone())
            };
            async move {
                match answer {
                    Ok(transport) => transport.serve(request).await,
                    Err(answer) => Ok(answer),
                }
            }
        });
        let served = ServiceBuilder::new().layer(origins.cors()).service(checked);
        (Self { io, connections, chores, stop_forwarding: Some(stop_forwarding), forwarder }, served)
    }

    /// Forwards what has happened, and waits a little for those who poll to fetch it.
    pub async fn flush(&mut self) {
        self.chores.iter().for_each(AbortHandle::abort);
        self.stop_forwarding.take();
        if timeout(FLUSH_TIMEOUT, &mut self.forwarder).await.is_err() {
            tracing::warn!("rooms were still behind at the end");
        }
        let _ = timeout(POLL_TIMEOUT, self.connections.wait_until_polled()).await;
    }

    /// Tells every socket to come back later, and ends.
    pub async fn close(self) {
        let sockets = self.io.sockets();
        // A socket whose peer reads nothing would be waited for without end.
        if timeout(CLOSE_TIMEOUT, self.io.close()).await.is_err() {
            tracing::warn!("sockets that read nothing were cut off at the end");
            self.connections.abort_all();
        }
        connect::closed(&sockets);
    }
}

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
