//! The accept loop: HTTP/1.1 on one listener and a tower service for every connection.
//!
//! [`Connections`] waits for the requests in flight when the server stops. A connection does more than HTTP, see
//! `connection.rs`.

use std::{error::Error, io, net::SocketAddr, pin::pin, time::Duration};

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
    connection::Connection,
    delivery::Answers,
    heads::{Heads, MAX_HEAD},
};

/// The pause when the process is out of file descriptors or the like, which come back by themselves.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The time between two log lines about that.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes that the kernel takes of a connection without being able to send them. More would lie there for a client
/// that reads slowly.
const MAX_UNSENT: u32 = 64 * 1024;

type BoxError = Box<dyn Error + Send + Sync>;

/// The connection that a request came over, in the request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address of the other end.
    pub addr: SocketAddr,
    /// The answers that go back.
    pub answers: Answers,
}

/// Accepts connections, and serves each with the same budgets and timeouts.
#[derive(Debug)]
pub struct Acceptor {
    /// The budget of request heads. A connection whose head finds no room is closed.
    pub heads: Heads,
    /// The time that a request line and its headers may take, and that a connection may idle between requests.
    pub header_timeout: Duration,
    /// The time for which a client may take less of an answer than a lowest rate before it is given up.
    pub answer_timeout: Duration,
}

impl Acceptor {
    /// Accepts and serves connections until `stop`. The connections that are still open then are returned.
    pub async fn serve<S, B>(
        &self,
        listener: TcpListener,
        service: S,
        stop: impl Future<Output = ()>,
    ) -> Connections
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        // Every connection holds a receiver: the last one gone is the last connection ended.
        let (phase, _) = watch::channel(Phase::Serve);
        let mut stop = pin!(stop);
        let mut logged_at: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => return Connections(phase),
            };
            match accepted {
                Ok((stream, addr)) => self.spawn(stream, addr, service.clone(), phase.subscribe()),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                        tracing::error!(%error, "a connection could not be accepted");
                        logged_at = Some(Instant::now());
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves one connection in a task of its own, and gives each request the [`Peer`] that it came from.
    fn spawn<S, B>(&self, stream: TcpStream, addr: SocketAddr, service: S, mut phase: watch::Receiver<Phase>)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        set_options(&stream, self.answer_timeout);
        let head = self.heads.follow(addr.ip());
        let stream = Connection::new(stream, self.answer_timeout, head.clone());
        let peer = Peer { addr, answers: stream.answers() };
        let next_head = head.clone();
        let service = service.map_request(move |mut request: Request<Incoming>| {
            head.complete();
            request.extensions_mut().insert(peer.clone());
            request
        });
        let service = service.map_response(move |response| {
            next_head.begin();
            response
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.header_timeout).max_buf_size(MAX_HEAD);
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::spawn(async move {
            let mut connection = pin!(connection.with_upgrades());
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = wait_until(&mut phase, Phase::Drain) => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = wait_until(&mut phase, Phase::Cut) => return,
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended with an error");
            }
        });
    }
}

/// The open connections of a listener that accepts no more.
pub struct Connections(watch::Sender<Phase>);

/// The phases of a listener's end, which its connections follow.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Phase {
    Serve,
    /// End after the request in flight.
    Drain,
    /// End at once: nobody would keep the promise of a later answer.
    Cut,
}

impl Connections {
    /// Lets every request in flight end, within `grace`. Upgraded connections are not waited for.
    pub async fn drain(self, grace: Duration) {
        self.0.send_replace(Phase::Drain);
        if timeout(grace, self.0.closed()).await.is_err() {
            let grace_s = grace.as_secs();
            tracing::warn!(grace_s, "requests were still in flight when the server stopped");
            self.0.send_replace(Phase::Cut);
        }
    }
}

/// Returns the stream of a connection that has been upgraded to another protocol than HTTP, and the bytes that HTTP has
/// read of that protocol.
pub async fn upgraded(upgrade: OnUpgrade) -> Option<(TcpStream, Bytes)> {
    let upgraded = upgrade.await.inspect_err(|error| tracing::debug!(%error, "an upgrade failed")).ok()?;
    let parts = upgraded.downcast::<TokioIo<Connection>>().ok()?;
    let stream = parts.io.into_inner().into_stream();
    // Whoever has the stream now checks that its other end reads.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(None);
    // Copied: even an empty slice keeps the whole buffer that the request was read into.
    Some((stream, Bytes::copy_from_slice(&parts.read_buf)))
}

async fn wait_until(phase: &mut watch::Receiver<Phase>, awaited: Phase) {
    // On an error the sender is gone: the listener ended without draining, and its connections end too.
    let _ = phase.wait_for(|phase| *phase >= awaited).await;
}

fn set_options(stream: &TcpStream, answer_timeout: Duration) {
    let log = |option| move |error: io::Error| tracing::debug!(%error, "{option}");
    // Frames are small, and each is worth having at once.
    stream.set_nodelay(true).unwrap_or_else(log("TCP_NODELAY"));
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(stream);
        // `Connection` gives up clients that read too little; the kernel gives up those that are gone. Its timeout is
        // longer, because it also runs while the client's window never has room for all that is to be sent.
        socket.set_tcp_user_timeout(Some(4 * answer_timeout)).unwrap_or_else(log("TCP_USER_TIMEOUT"));
        socket.set_tcp_notsent_lowat(MAX_UNSENT).unwrap_or_else(log("TCP_NOTSENT_LOWAT"));
    }
}

/// Says whether an error is of the connection, and means nothing for the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
