//! The server as one object: bound first, then served until it is told to stop. What `main` starts, tests start.
//!
//! `database.rs` connects and migrates, `greeting.rs` has what a person reads after the start.

mod database;
mod greeting;

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    config::{Config, Invalid},
    gateway::Gateway,
    http,
    metrics::Metrics,
    net::{
        accept::{Acceptor, Connections},
        heads::Heads,
    },
    service::Service,
    storage::Store,
    supervise::{Supervisor, Task},
    telemetry::{self, LogFormat},
};

use database::{Migration, finish_migration, prepare};

pub use database::migrate;

/// The time that the last writes may take, and then the goodbye to the database.
const FINISH_TIMEOUT: Duration = Duration::from_millis(700);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(700);
/// Connections that may wait to be accepted, if the system allows so many.
const BACKLOG: u32 = 4_096;

/// The reason why the server did not start: one line that names the setting.
pub type StartError = Invalid;

/// The error of a server that has stopped because a task that it depends on could not go on. It has to be started
/// again.
#[derive(Debug, thiserror::Error)]
#[error("the task `{0}` could not go on; start georoom again")]
pub struct Failed(&'static str);

/// A server that has its ports and has not accepted any connection yet.
pub struct Server {
    config: Config,
    store: Store,
    /// The migration, if it is not done yet.
    migration: Option<Migration>,
    api: TcpListener,
    gateway: TcpListener,
}

impl Server {
    /// Takes the ports, connects to the database and migrates it. A database that is away is waited for while serving.
    ///
    /// # Errors
    /// The setting that cannot be followed, and why.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let listen = |name: &str, addr: SocketAddr| {
            bind_listener(addr).map_err(|error| Invalid::new(name, format!("{addr}: {error}")))
        };
        let api = listen("API_ADDR", config.addresses.api)?;
        let gateway = listen("GATEWAY_ADDR", config.addresses.gateway)?;
        let (store, migration) = prepare(&config.database).await?;
        Ok(Self { config, store, migration, api, gateway })
    }

    /// Returns the addresses of the API and of the gateway.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn addrs(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.api.local_addr()?, self.gateway.local_addr()?))
    }

    /// Logs where the server is and, unless the log is for machines, prints what to try.
    pub fn greet(&self) {
        let Ok((api, gateway)) = self.addrs() else { return };
        info!(%api, %gateway, version = env!("CARGO_PKG_VERSION"), "started");
        let keys = self.config.auth.keys.as_ref();
        if keys.is_none() {
            warn!("open mode: no authentication; everyone who reaches these ports may do everything");
        }
        if self.config.log.format == LogFormat::Text {
            telemetry::print(&greeting::greeting(api, gateway, keys));
        }
    }

    /// Serves until `stop`. Then accepts nothing more, finishes what is in flight, forwards what was committed, tells
    /// the sockets and closes the database.
    ///
    /// # Errors
    /// The task that could not go on, if that was why the server stopped.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), Failed> {
        self.serve_observed(stop, |_| {}).await
    }

    /// Serves as [`Self::serve`] does. `observe` gets the supervisor of the tasks when they have been started.
    async fn serve_observed(
        self,
        stop: impl Future<Output = ()>,
        observe: impl FnOnce(&Supervisor),
    ) -> Result<(), Failed> {
        let Self { config, store, migration, api, gateway } = self;
        let Config { database, auth, heartbeat, history, notifications, limits, timings, .. } = config;
        let (service, events) = Service::start(store.clone(), history, notifications, auth.keys, &limits);
        let tasks = service.tasks.clone();
        let migrating = tasks.task("migrations");
        let migrating = migration.map(|migration| {
            let migration = finish_migration(migration, store.clone(), database.url);
            tokio::spawn(async move { run_or_fail(&migrating, migration).await })
        });
        let proxies = auth.trusted_proxies;
        let (mut forwarding, sockets) = Gateway::start(
            service.clone(),
            events,
            heartbeat,
            &auth.origins,
            proxies.clone(),
            &limits,
            timings,
        );
        let requests = http::service(service.clone(), &auth.origins, proxies);
        let acceptor = Acceptor {
            heads: Heads::default(),
            header_timeout: limits.header_timeout,
            answer_timeout: limits.body_timeout,
        };
        let accepting = tasks.task("accept");
        register_metrics(&service.metrics, &acceptor.heads);

        let stop = async {
            tokio::select! {
                () = stop => {}
                _ = tasks.failed() => {}
            }
            info!("stopping");
            tasks.stop();
        };
        // The API ends first: then every acknowledged write has been published. Sockets go on meanwhile, and those that
        // are told to go come back elsewhere, or here after the restart.
        let (api_done, api_is_done) = oneshot::channel::<()>();
        let api = async {
            let connections = run_or_fail(&accepting, acceptor.serve(api, requests, stop)).await;
            drain(connections, timings.api_grace).await;
            drop(api_done);
        };
        let gateway = async {
            // Requests are taken until the last event is out, so that clients that poll can fetch it.
            let stop = async {
                drop(api_is_done.await);
                forwarding.flush().await;
            };
            let connections = run_or_fail(&accepting, acceptor.serve(gateway, sockets, stop)).await;
            tokio::join!(drain(connections, timings.gateway_grace), forwarding.close());
        };
        observe(&tasks);
        tokio::join!(api, gateway);

        migrating.inspect(|migrating| migrating.abort());
        let _ = timeout(FINISH_TIMEOUT, service.finish()).await;
        if timeout(CLOSE_TIMEOUT, store.close()).await.is_err() {
            warn!("the database did not answer when its connections were closed");
        }
        info!("stopped");
        tasks.failure().map_or(Ok(()), |task| Err(Failed(task)))
    }
}

async fn drain(connections: Option<Connections>, grace: Duration) {
    if let Some(connections) = connections {
        connections.drain(grace).await;
    }
}

/// Runs a future that the server depends on. If it panics, the server stops.
async fn run_or_fail<T>(task: &Task, future: impl Future<Output = T>) -> Option<T> {
    let output = task.catch_async(future).await;
    if output.is_none() {
        task.fail("it panicked");
    }
    output
}

fn register_metrics(metrics: &Metrics, heads: &Heads) {
    let help = "Log lines dropped because the log was not read fast enough or could not be written";
    metrics.watch_counter("log_lines_dropped", help, telemetry::dropped_lines);
    let heads = heads.clone();
    let help = "Bytes over 8 KiB of each incomplete request head";
    metrics.watch_bytes("heads", help, move || heads.used());
}

/// Listens with room for many clients that come back at once: one that finds no room tries again only after a second.
fn bind_listener(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The port is free again as soon as the last server on it has ended.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
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
        let served = server.serve_observed(future::pending(), |tasks| {
            tasks.task("test").spawn_once(async { panic!("in a test") });
        });
        let ended = timeout(Duration::from_secs(10), served).await.expect("the end within 10 s");
        assert!(ended.unwrap_err().to_string().contains("`test`"));
        assert!(bind_listener(api).is_ok(), "its ports are free again");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
