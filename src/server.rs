//! The server as one object: bound first, then served until told to stop. What main starts, tests start.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
    task::{AbortHandle, JoinHandle},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    config::{Config, Invalid, Secret},
    domain::token::Keys,
    gateway::Gateway,
    http,
    net::{accept, heads::Heads},
    service::Service,
    storage::{ConnectError, Store, explain, is_in_use},
    supervise::{Supervisor, Task},
    telemetry::{self, LogFormat},
};

/// How long requests in flight may take once the server stops; those of the gateway, which are short. With
/// what `gateway`, the database and the log are waited for, one after the other, it is less than ten seconds.
const GRACE: Duration = Duration::from_secs(4);
const GATEWAY_GRACE: Duration = Duration::from_secs(2);

/// How long the start waits for the database before it serves without, and for tables to be made once it is
/// there.
const START: Duration = Duration::from_secs(1);
const MIGRATING: Duration = Duration::from_secs(30);
/// Between two looks for a database that is not there yet.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Connections that may wait to be accepted, where the system allows so many.
const WAITING: u32 = 4_096;
/// How long the database may take over the last writes, and over its goodbye.
const FINISH_TIMEOUT: Duration = Duration::from_millis(700);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(700);

/// Why the server did not start: one line, naming the setting.
pub type StartError = Invalid;

/// A task that the server lives by could not go on, so the server has stopped. It has to be started again.
#[derive(Debug, thiserror::Error)]
#[error("the task `{0}` could not go on; start georoom again")]
pub struct Failed(&'static str);

/// A server that is bound and has not accepted anyone yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    store: Store,
    /// Migrates, as soon as the database is there.
    preparing: JoinHandle<()>,
    api: TcpListener,
    gateway: TcpListener,
}

impl Server {
    /// Takes the ports and migrates the database; one that is not there yet is waited for while serving.
    ///
    /// # Errors
    /// The setting that cannot be followed, and why.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let listen = |name: &str, addr: SocketAddr| {
            listener(addr).map_err(|e| Invalid::new(name, format!("{addr}: {e}")))
        };
        let api = listen("API_ADDR", config.addresses.api)?;
        let gateway = listen("GATEWAY_ADDR", config.addresses.gateway)?;
        let store = connected(&config).await?;
        let (hopeless, is_hopeless) = oneshot::channel();
        let preparing = tokio::spawn(prepare(store.clone(), config.database.url.clone(), hopeless));
        let is_there = timeout(START, store.answers()).await.is_ok();
        let hopeless = timeout(if is_there { MIGRATING } else { Duration::ZERO }, is_hopeless).await;
        match hopeless {
            Ok(Ok(error)) => Err(bad_database(&config.database.url, error)),
            _ => Ok(Self { config, store, preparing, api, gateway }),
        }
    }

    /// Where the API and the gateway listen.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn addrs(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.api.local_addr()?, self.gateway.local_addr()?))
    }

    /// Says where the server is and, unless the log is for machines, what to try.
    pub fn greet(&self) {
        let Ok((api, gateway)) = self.addrs() else { return };
        info!(%api, %gateway, version = env!("CARGO_PKG_VERSION"), "started");
        let keys = self.config.auth.keys.as_ref();
        if keys.is_none() {
            warn!("open mode: no authentication; everyone who reaches these ports may do everything");
        }
        if self.config.log.format == LogFormat::Text {
            telemetry::print(&format!("{}\n", try_next(from_here(api), from_here(gateway), keys)));
        }
    }

    /// Serves until `stop`; then accepts nothing more, finishes what is in flight, forwards what was
    /// committed, tells the sockets and closes the database.
    ///
    /// # Errors
    /// If it stopped because a task could not go on.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), Failed> {
        self.serve_watched(stop, |_| {}).await
    }

    /// The same; `started` is given whoever watches the tasks.
    async fn serve_watched(
        self,
        stop: impl Future<Output = ()>,
        started: impl FnOnce(&Supervisor),
    ) -> Result<(), Failed> {
        let Self { config, store, preparing, api, gateway } = self;
        let (service, events) = Service::start(
            store.clone(),
            config.history,
            config.notifications,
            config.auth.keys,
            &config.limits,
        );
        let tasks = service.tasks.clone();
        let preparing = watch_preparing(preparing, &tasks);
        let help =
            "Log lines that were dropped because the log was not read fast enough or could not be written";
        service.metrics.watch_counter("log_lines_dropped", help, telemetry::dropped_lines);
        let (mut forwarding, sockets) = Gateway::start(
            service.clone(),
            events,
            config.heartbeat,
            &config.auth.origins,
            config.auth.trusted_proxies.clone(),
            &config.limits,
        );
        let requests = http::service(service.clone(), &config.auth.origins, config.auth.trusted_proxies);
        let timeouts = (config.limits.header_timeout, config.limits.body_timeout);
        let heads = Heads::default();
        let incomplete = heads.clone();
        let help = "Bytes over 8 KiB of each request head that has not come whole";
        service.metrics.watch_bytes("heads", help, move || incomplete.used());

        // The API first: once it is done every acknowledged write has been published. The sockets go
        // on meanwhile; told to go they come back elsewhere, or here after the restart.
        let (api_done, api_is_done) = oneshot::channel::<()>();
        let stop = async {
            tokio::select! {
                () = stop => {}
                _ = tasks.failed() => {}
            }
            info!("stopping");
            tasks.stop();
        };
        let accepting = tasks.task("accept");
        let api = async {
            let connections = accept::serve(api, requests, heads.clone(), timeouts, stop);
            if let Some(connections) = watched(&accepting, connections).await {
                connections.drain(GRACE).await;
            }
            drop(api_done);
        };
        let gateway = async {
            // Until the last event is out, also those who poll can fetch it.
            let stop = async {
                drop(api_is_done.await);
                forwarding.flush().await;
            };
            let connections = accept::serve(gateway, sockets, heads.clone(), timeouts, stop);
            let connections = watched(&accepting, connections).await;
            let drained = async {
                if let Some(connections) = connections {
                    connections.drain(GATEWAY_GRACE).await;
                }
            };
            tokio::join!(drained, forwarding.close());
        };
        started(&tasks);
        tokio::join!(api, gateway);
        preparing.abort();
        let _ = timeout(FINISH_TIMEOUT, service.finish()).await;
        if timeout(CLOSE_TIMEOUT, store.close()).await.is_err() {
            warn!("the database did not answer the goodbye");
        }
        info!("stopped");
        tasks.failure().map_or(Ok(()), |task| Err(Failed(task)))
    }
}

/// A server whose database is never made ready would refuse everything for ever.
fn watch_preparing(preparing: JoinHandle<()>, tasks: &Supervisor) -> AbortHandle {
    let (abort, task) = (preparing.abort_handle(), tasks.task("migrations"));
    tokio::spawn(async move {
        if preparing.await.is_err_and(|ended| ended.is_panic()) {
            task.fail("it panicked");
        }
    });
    abort
}

/// What an accept loop returns. If it panics, the other one is stopped too.
async fn watched<T>(task: &Task, accepting: impl Future<Output = T>) -> Option<T> {
    let ended = task.catch_async(accepting).await;
    if ended.is_none() {
        task.fail("it panicked");
    }
    ended
}

/// With room for everybody who comes back at once: a connection that finds none tries again after a second.
fn listener(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port is free again as soon as the last server on it has ended.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(WAITING)
}

/// Returns the address by which a client on this machine reaches a listener.
fn from_here(mut addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    addr
}

/// First steps for a person.
fn try_next(api: SocketAddr, gateway: SocketAddr, keys: Option<&Keys>) -> String {
    let mint = match keys {
        None => "",
        Some(keys) if keys.can_mint() => {
            "  TOKEN=$(georoom token --user 1)   # with the server's JWT_SECRET\n\n"
        }
        Some(_) => "  TOKEN=…   # of whoever has the private key of JWT_PUBLIC_KEY_FILE\n\n",
    };
    // The API answers 401 to a browser, which sends no token.
    let (header, auth, open) = match keys {
        None => ("", "", format!("\nAll locations, in a browser: http://{api}/location\n")),
        Some(_) => (
            " \\\n       -H \"Authorization: Bearer $TOKEN\"",
            ", { auth: { token: TOKEN } }",
            format!("\nThe gateway, in a browser: http://{gateway}/\n"),
        ),
    };
    format!(
        r#"
Try, in another terminal:

{mint}  curl -X POST http://{api}/location -H 'Content-Type: application/json'{header} \
       -d '{{"geometry": {{"type": "Point", "coordinates": [13.4, 52.5]}}, "properties": {{"name": "bike"}}}}'

  curl -X PUT http://{api}/location/1 -H 'Content-Type: application/json'{header} \
       -d '{{"geometry": {{"type": "Point", "coordinates": [13.41, 52.51]}}}}'

and join its room with any Socket.IO client:

  io("http://{gateway}"{auth}).on("chat", console.log).emit("join_room", {{ locationId: 1 }})
{open}"#
    )
}

/// Migrates, as soon as the database is there. An error that will not come right by itself goes to whom it may
/// concern; later on it may be put right by somebody.
async fn prepare(store: Store, url: Secret, hopeless: oneshot::Sender<ConnectError>) {
    let mut hopeless = Some(hopeless);
    while let Err(mut error) = store.migrate().await {
        if !store.is_away(&error)
            && let Some(hopeless) = hopeless.take()
        {
            match hopeless.send(error) {
                Ok(()) => return,
                Err(unheard) => error = unheard,
            }
        }
        let error = explain(url.expose(), &error);
        warn!(error, "DATABASE_URL: the database cannot be used yet; trying again");
        sleep(TRY_AGAIN).await;
    }
    info!("the database is there");
}

/// Runs the migrations of the configured database.
///
/// # Errors
/// `DATABASE_URL`, and what the driver says.
pub async fn migrate(config: &Config) -> Result<(), StartError> {
    let store = connected(config).await?;
    let until = Instant::now() + MIGRATING;
    while let Err(error) = store.migrate().await {
        if !is_in_use(&error) || Instant::now() > until {
            return Err(bad_database(&config.database.url, error));
        }
        sleep(TRY_AGAIN).await;
    }
    store.close().await;
    Ok(())
}

async fn connected(config: &Config) -> Result<Store, StartError> {
    let until = Instant::now() + MIGRATING;
    loop {
        match Store::connect_with(config.database.url.expose(), config.database.connections).await {
            // SQLite is asked for something already here, and does not wait where another process sets up the file.
            Err(error) if is_in_use(&error) && Instant::now() < until => sleep(TRY_AGAIN).await,
            done => return done.map_err(|error| bad_database(&config.database.url, error)),
        }
    }
}

fn bad_database(url: &Secret, error: ConnectError) -> StartError {
    Invalid::new("DATABASE_URL", explain(url.expose(), &error))
}

#[cfg(test)]
mod tests {
    use std::{env, future, process};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_that_cannot_go_on_ends_the_server_with_an_error() {
        let folder = env::temp_dir().join(format!("georoom_failed_{}", process::id()));
        let url = format!("sqlite://{}/georoom.db?mode=rwc", folder.display());
        let settings =
            [("DATABASE_URL", url.as_str()), ("API_ADDR", "127.0.0.1:0"), ("GATEWAY_ADDR", "127.0.0.1:0")];
        let value = |name: &str| Some(settings.iter().find(|(known, _)| *known == name)?.1.to_owned());
        let config = Config::from_variables(value).unwrap();
        let server = Server::bind(config).await.unwrap();
        let (api, _) = server.addrs().unwrap();
        let served = server.serve_watched(future::pending(), |tasks| {
            tasks.task("test").spawn_once(async { panic!("in a test") });
        });
        let ended = timeout(Duration::from_secs(10), served).await.expect("the end within 10 s");
        assert!(ended.unwrap_err().to_string().contains("`test`"));
        assert!(listener(api).is_ok(), "its ports are free again");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
