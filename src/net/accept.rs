//! The accept loop: HTTP/1.1 on one listener, a tower service for every connection, and an end that
//! waits for what is in flight.

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    upgrade::OnUpgrade,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tower::{Service, ServiceExt};

use super::{
    connection::{Answers, Connection},
    heads::{Heads, MAX_HEAD},
};

/// A pause when the process is out of file descriptors or the like: those return by themselves.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// While it lasts it is said so often.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Bytes that the kernel takes of a connection without being able to send them. More would lie there for a client
/// that reads slowly.
const UNSENT: u32 = 64 * 1024;

/// The connection a request came over, in its extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address of the other end.
    pub addr: SocketAddr,
    /// What goes back.
    pub answers: Answers,
}

/// Accepts and serves until `stop`; what is returned still holds the connections. A request line and its headers
/// may take `header_timeout`, as may the time until the next; a client that takes nothing of an answer for
/// `answer_timeout`, or less than a lowest rate, is given up. One whose head finds no room among `heads` is closed.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    heads: Heads,
    (header_timeout, answer_timeout): (Duration, Duration),
    stop: impl Future<Output = ()>,
) -> Connections
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(MAX_HEAD);
    // Every connection holds a receiver: the last one gone is the last connection ended.
    let (stopping, stopped) = watch::channel(Phase::Serve);
    let mut stop = pin!(stop);
    let mut said: Option<Instant> = None;

    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return Connections(stopping),
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) if is_of_one_connection(&e) => continue,
            Err(e) => {
                if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                    tracing::error!(error = %e, "accept");
                    said = Some(Instant::now());
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        prepare(&stream, answer_timeout);
        let head = heads.follow(peer.ip());
        let stream = Connection::new(stream, answer_timeout, head.clone());
        let peer = Peer { addr: peer, answers: stream.answers() };
        let next_head = head.clone();
        let service = service.clone().map_request(move |mut request: Request<Incoming>| {
            head.complete();
            request.extensions_mut().insert(peer.clone());
            request
        });
        let service = service.map_response(move |response| {
            next_head.begin();
            response
        });
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection.with_upgrades());
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = reached(&mut stopped, Phase::Drain) => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = reached(&mut stopped, Phase::Cut) => return,
                    }
                }
            };
            if let Err(e) = ended {
                tracing::debug!(error = %e, "connection");
            }
        });
    }
}

/// The open connections of a listener that accepts no more.
pub struct Connections(watch::Sender<Phase>);

/// What connections do.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Phase {
    Serve,
    /// End after the request in flight.
    Drain,
    /// End now: an answer after this would promise what nobody sees to any more.
    Cut,
}

impl Connections {
    /// Lets every request in flight end, within `grace`. Upgraded connections are not waited for.
    pub async fn drain(self, grace: Duration) {
        self.0.send_replace(Phase::Drain);
        if timeout(grace, self.0.closed()).await.is_err() {
            tracing::warn!(
                grace_s = grace.as_secs(),
                "requests were still in flight at the end of their grace"
            );
            self.0.send_replace(Phase::Cut);
        }
    }
}

/// The stream of a connection that has been upgraded to something else than HTTP, and what was read from it
/// too early.
pub async fn freed(upgrade: OnUpgrade) -> Option<(TcpStream, Bytes)> {
    let upgraded = upgrade.await.inspect_err(|error| tracing::debug!(%error, "upgrade")).ok()?;
    let parts = upgraded.downcast::<TokioIo<Connection>>().ok()?;
    let stream = parts.io.into_inner().into_stream();
    // Whoever has it now sees to it that its other end reads.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(None);
    // A copy: even nothing, as a slice, keeps the whole buffer that the request was read into.
    Some((stream, Bytes::copy_from_slice(&parts.read_buf)))
}

async fn reached(phase: &mut watch::Receiver<Phase>, reached: Phase) {
    // An error: the listener's end of it is gone, and with it every phase.
    let _ = phase.wait_for(|phase| *phase >= reached).await;
}

fn prepare(stream: &TcpStream, answer_timeout: Duration) {
    // Small frames, each worth having at once.
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "TCP_NODELAY");
    }
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(stream);
        // `Connection` sees to those who read too little. The kernel counts a window that never has room for all it
        // wants to send as none, so its own patience, for those who are gone, is longer.
        if let Err(e) = socket.set_tcp_user_timeout(Some(4 * answer_timeout)) {
            tracing::debug!(error = %e, "TCP_USER_TIMEOUT");
        }
        if let Err(e) = socket.set_tcp_notsent_lowat(UNSENT) {
            tracing::debug!(error = %e, "TCP_NOTSENT_LOWAT");
        }
    }
}

/// Errors that say nothing about the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
