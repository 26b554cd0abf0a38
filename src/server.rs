//! The server as one object: bound first, then served until told to stop. What main starts, tests start.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use tokio::{net::TcpListener, sync::oneshot, time::timeout};
use tracing::{info, warn};

use crate::{
    config::{Config, Invalid},
    gateway::Gateway,
    http,
    net::accept,
    service::Service,
    storage::{ConnectError, Store},
    telemetry::LogFormat,
};

/// How long requests in flight may take once the server stops.
const GRACE: Duration = Duration::from_secs(4);

/// How long the database may take over its goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the server did not start: one line, naming the setting.
pub type StartError = Invalid;

/// A server that is bound, connected and migrated, and has not accepted anyone yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    store: Store,
    api: TcpListener,
    gateway: TcpListener,
}

impl Server {
    /// Takes the ports, connects to the database and migrates it.
    ///
    /// # Errors
    /// The setting that cannot be followed, and why.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let listen = async |name: &str, addr: SocketAddr| {
            TcpListener::bind(addr).await.map_err(|e| Invalid::new(name, format!("{addr}: {e}")))
        };
        let api = listen("API_ADDR", config.api_addr).await?;
        let gateway = listen("GATEWAY_ADDR", config.gateway_addr).await?;
        let store = migrated(&config).await?;
        Ok(Self { config, store, api, gateway })
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
        warn!("open mode: no authentication; everyone who reaches these ports may do everything");
        if self.config.log_format == LogFormat::Text {
            // Nobody may be reading.
            let _ = writeln!(io::stdout(), "{}", try_next(api, gateway));
        }
    }

    /// Serves until `stop`; then accepts nothing more, finishes what is in flight, forwards what was
    /// committed, tells the sockets and closes the database.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let Self { config, store, api, gateway } = self;
        let (service, events) = Service::start(store.clone());
        let (forwarding, sockets) = Gateway::start(
            service.clone(),
            events,
            config.heartbeat,
            &config.origins,
            config.trusted_proxies.clone(),
        );
        let requests = http::service(service, &config.origins, config.trusted_proxies);

        // The API first: once it is done every acknowledged write has been published. The sockets go
        // on meanwhile; told to go they come back elsewhere, or here after the restart.
        let (api_done, api_is_done) = oneshot::channel::<()>();
        let api = async {
            let connections = accept::serve(api, requests, stop).await;
            info!("stopping");
            connections.drain(GRACE).await;
            drop(api_done);
        };
        let gateway = async {
            let connections = accept::serve(gateway, sockets, async { drop(api_is_done.await) }).await;
            tokio::join!(connections.drain(GRACE), forwarding.close());
        };
        tokio::join!(api, gateway);
        if timeout(CLOSE_TIMEOUT, store.close()).await.is_err() {
            warn!("the database did not answer the goodbye");
        }
        info!("stopped");
    }
}

/// First steps for a person.
fn try_next(api: SocketAddr, gateway: SocketAddr) -> String {
    format!(
        r#"
Try, in another terminal:

  curl -X POST http://{api}/location -H 'Content-Type: application/json' \
       -d '{{"geometry": {{"type": "Point", "coordinates": [13.4, 52.5]}}, "properties": {{"name": "bike"}}}}'

  curl -X PUT http://{api}/location/1 -H 'Content-Type: application/json' \
       -d '{{"geometry": {{"type": "Point", "coordinates": [13.41, 52.51]}}}}'

and join its room with any Socket.IO client:

  io("http://{gateway}").on("chat", console.log).emit("join_room", {{ locationId: 1 }})
"#
    )
}

/// Connects to the configured database and runs its migrations.
///
/// # Errors
/// `DATABASE_URL`, and what the driver says.
pub async fn migrated(config: &Config) -> Result<Store, StartError> {
    let fail = |e: ConnectError| Invalid::new("DATABASE_URL", e.to_string());
    let store = Store::connect(config.database_url.expose()).await.map_err(fail)?;
    store.migrate().await.map_err(fail)?;
    Ok(store)
}
