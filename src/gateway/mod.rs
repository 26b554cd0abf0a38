//! The Socket.IO door: clients connect, join rooms, and are sent what happens to locations.
//!
//! The library socketioxide, which only this module imports, does transports, handshake, heartbeat and packets. Rooms
//! are our own (`rooms/`), because membership and the version that a member was sent last are decided under one lock;
//! and a client enters a room only through a handler that has checked its right.
//!
//! An import goes in one direction: from this file to `connect`, from there to `client`, `event_loop` and `announcer`,
//! then to `rooms`, `people`, `socket` and `wire`.

mod announcer;
mod client;
mod connect;
mod disconnect;
mod event_loop;
mod live;
mod people;
mod rooms;
mod socket;
mod wire;

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use socketioxide::{ParserConfig, SocketIo, SocketIoBuilder};
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tower::{Layer, Service as TowerService, service_fn};

#[doc(hidden)]
pub use self::socket::events::fuzz;
use self::{
    announcer::Announcer,
    client::Clients,
    event_loop::EventLoop,
    live::LiveGateway,
    people::directory::Directory,
    rooms::Rooms,
    socket::outbox::Blocked,
    wire::{
        connections::Connections,
        metrics::SocketMetrics,
        response::{ResponseBody, refused},
        transport::Transport,
    },
};
use crate::{
    config::{Heartbeat, Limits, Timings},
    domain::event::Event,
    net::{
        client::TrustedProxies,
        origins::{NOT_FOR_US, Origins},
    },
    service::{Service, refusals::Refusals},
};

/// Limits the packets that wait for one socket in the library. This is more than `wire/flow.rs` lets be under way.
/// Memory is taken as they come, not beforehand.
const SOCKET_QUEUE: usize = 4_096;
/// The bytes into which a WebSocket reads, from the start and for good. A longer frame gets as much as it needs, but
/// comes in by this many bytes at a time, which for the largest message is 512 reads.
const READ_BUFFER: usize = 256;
/// Limits the binary attachments of one event. An event that has some is refused, but its sender must be allowed to
/// send it to be told so. Together the attachments may be as large as a message.
const MAX_ATTACHMENTS: usize = 256;
/// Limits the time in which sockets are told to go.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Limits the time in which rooms are sent what they lack.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Limits the time in which clients that poll fetch their last answer.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);

/// The running gateway. It takes events to rooms until it is closed.
#[derive(Debug)]
pub struct Gateway {
    io: SocketIo,
    connections: Arc<Connections>,
    /// Tasks that go on by themselves until the end.
    chores: [AbortHandle; 3],
    /// A signal, by being dropped, that no more events come.
    stop_events: Option<oneshot::Sender<()>>,
    event_loop: JoinHandle<()>,
}

impl Gateway {
    /// Starts taking `events` to rooms. It also returns the tower service that `net::accept` serves.
    pub fn start(
        service: Arc<Service>,
        events: mpsc::Receiver<Event>,
        heartbeat: Heartbeat,
        origins: &Origins,
        proxies: TrustedProxies,
        limits: &Limits,
        timings: Timings,
    ) -> (Self, impl Served) {
        let (socketio, io) = library(heartbeat, limits).build_svc();
        let directory = Arc::<Directory>::default();
        let rooms = Rooms::start(service.clone(), directory.clone(), timings);
        let blocked = Arc::<Blocked>::default();
        let (connections, session_ends) = Connections::new(SocketMetrics::new(&service.metrics));
        let connections = Arc::new(connections);
        service.set_live_rooms(LiveGateway {
            service: Arc::downgrade(&service),
            rooms: Arc::downgrade(&rooms),
            directory: Arc::downgrade(&directory),
        });
        let clients = Arc::new(Clients {
            service: service.clone(),
            rooms: rooms.clone(),
            directory: directory.clone(),
            blocked: blocked.clone(),
            refusals: Refusals::at("gateway", &service.metrics),
            task: service.tasks.task("socket_events"),
        });
        connect::install(&io, clients, connections.clone());
        let chores = start_chores(&service, &rooms, &directory, timings);
        let (stop_events, stopped) = oneshot::channel();
        let task = service.tasks.task("forwarder");
        let event_loop = EventLoop {
            service: service.clone(),
            rooms,
            directory,
            blocked,
            opened: connections.common.opened.clone(),
            task: task.clone(),
            reads: service.tasks.task("room_reads"),
        };
        let event_loop = task.spawn_once(event_loop.run(events, stopped));
        let transport =
            Transport::new(socketio, connections.clone(), session_ends, heartbeat.timeout, limits, &service);
        let serve = move |request| transport.clone().serve(request);
        let served = origins.cors().layer(check_requests(serve, &service, origins, proxies));
        (Self { io, connections, chores, stop_events: Some(stop_events), event_loop }, served)
    }

    /// Takes the last events to rooms, and waits a little for clients that poll to fetch them.
    pub async fn flush(&mut self) {
        self.chores.iter().for_each(AbortHandle::abort);
        self.stop_events.take();
        if timeout(FLUSH_TIMEOUT, &mut self.event_loop).await.is_err() {
            tracing::warn!("rooms were still behind when the server stopped");
        }
        let _ = timeout(POLL_TIMEOUT, self.connections.wait_until_polled()).await;
    }

    /// Tells every socket to come back later, and ends.
    pub async fn close(self) {
        let sockets = self.io.sockets();
        // A socket whose peer reads nothing would be waited for without end.
        if timeout(CLOSE_TIMEOUT, self.io.close()).await.is_err() {
            tracing::warn!("sockets that read nothing were disconnected when the server stopped");
            self.connections.abort_all();
        }
        disconnect::closed(&sockets);
    }
}

/// Configures the library.
fn library(heartbeat: Heartbeat, limits: &Limits) -> SocketIoBuilder {
    let parser = ParserConfig::common()
        .max_incoming_binaries(MAX_ATTACHMENTS)
        .max_incoming_binary_buf_size(limits.message_bytes);
    SocketIo::builder()
        .ping_interval(heartbeat.interval)
        .ping_timeout(heartbeat.timeout)
        .max_buffer_size(SOCKET_QUEUE)
        .ws_read_buffer_size(READ_BUFFER)
        .max_payload(limits.poll_bytes as u64)
        .ws_max_message_size(limits.message_bytes)
        .ws_max_frame_size(limits.message_bytes)
        .connect_timeout(limits.handshake_timeout)
        .with_parser(parser)
}

/// Starts the tasks beside the event loop: the sweep, the announcer, and the lookup of names.
fn start_chores(
    service: &Arc<Service>,
    rooms: &Arc<Rooms>,
    directory: &Arc<Directory>,
    timings: Timings,
) -> [AbortHandle; 3] {
    let tasks = &service.tasks;
    let sweep = tasks.task("sweep").spawn(rooms.clone(), |rooms| rooms.sweep().boxed());
    let task = tasks.task("herald");
    let announcer =
        Announcer { rooms: rooms.clone(), directory: directory.clone(), timings, task: task.clone() };
    let announcer = task.spawn(announcer, |announcer| announcer.run().boxed());
    let names = (service.clone(), directory.clone());
    let names =
        tasks.task("names").spawn(names, |(service, directory)| directory.look_up_names(service).boxed());
    [sweep.abort_handle(), announcer.abort_handle(), names.abort_handle()]
}

/// Refuses requests that are for another server or from a page that may not connect. Browsers that open the port get a
/// page; everything else is given to `serve`.
fn check_requests<S, F>(
    serve: S,
    service: &Service,
    origins: &Origins,
    proxies: TrustedProxies,
) -> impl Served + use<S, F>
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<ResponseBody>, Infallible>> + Send,
{
    let (origins, foreign) = (origins.clone(), service.limits.foreign.clone());
    let is_open = service.is_open();
    service_fn(move |mut request: Request<Incoming>| {
        proxies.note(&mut request);
        let headers = request.headers();
        let checked = if !origins.is_for_us(headers) {
            foreign.inc();
            Err(refused(StatusCode::MISDIRECTED_REQUEST, NOT_FOR_US))
        } else if let Some(page) = wire::pages::answer(&request) {
            Err(page)
        } else if is_open && !origins.admits(headers) {
            foreign.inc();
            Err(refused(StatusCode::FORBIDDEN, "this origin is not allowed"))
        } else {
            Ok(serve(request))
        };
        async move {
            match checked {
                Ok(served) => served.await,
                Err(response) => Ok(response),
            }
        }
    })
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
