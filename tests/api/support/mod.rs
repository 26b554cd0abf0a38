//! Starts the real server on free ports with a fresh database, and stops it.

pub mod administrator;
pub mod clients;
pub mod exposition;
pub mod features;
pub mod followers;
pub mod history;
pub mod kernel;
pub mod lists;
pub mod load;
pub mod machine;
pub mod mysqld;
pub mod nginx;
pub mod noise;
pub mod people;
pub mod polling;
pub mod problem;
pub mod process;
pub mod promises;
pub mod proxy;
pub mod site;
pub mod stream;
pub mod tokens;
pub mod truth;
pub mod websocket;
pub mod writers;

use std::{
    collections::HashMap,
    env,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use georoom::{config::Config, server::Server};
use reqwest::{Method, Response, StatusCode, header::CONTENT_TYPE};
use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};

use administrator::{administer, mysql_url};
use machine::Share;

/// One machine sends as much as a town. Tests of limits say so.
pub const UNLIMITED: (&str, &str) = ("RATE_LIMITS", "off");

/// Only what is wrong, and what the server says when it is ready: a line for each of thousands of requests helps nobody.
pub const QUIET: (&str, &str) = ("RUST_LOG", "warn,georoom::server=info");

/// A room that nobody is in. Leaving it does nothing but ask for an ack, behind everything that was sent before.
pub const NOWHERE: u64 = 9_007_199_254_740_991;

/// A number from the environment, by which the soak asks for more than `make test`.
pub fn setting(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Db {
    Sqlite,
    MySql,
}

/// Makes one test of an async function for each database: `name::sqlite` and `name::mysql`.
#[macro_export]
macro_rules! on_both_databases {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                super::$name($crate::support::Db::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn mysql() {
                super::$name($crate::support::Db::MySql).await;
            }
        }
    )+};
}

/// Makes tests of functions to which it is the same where locations are kept: `name::sqlite`, and an ignored
/// `name::mysql`, which `make soak` runs.
#[macro_export]
macro_rules! on_one_database {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                super::$name($crate::support::Db::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            #[ignore = "says nothing about storage; make soak runs it"]
            async fn mysql() {
                super::$name($crate::support::Db::MySql).await;
            }
        }
    )+};
}

/// A database of its own, gone at the end.
pub struct TestDatabase {
    pub url: String,
    pub name: String,
    folder: Option<PathBuf>,
    /// Held as long as the test has a database, also while none of its servers runs.
    _share: Arc<Share>,
}

impl TestDatabase {
    pub async fn create(db: Db) -> Self {
        let share = machine::share().await;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("georoom_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match db {
            Db::Sqlite => {
                let folder = env::temp_dir().join(&name);
                let url = format!("sqlite://{}/georoom.db?mode=rwc", folder.display());
                Self { url, name, folder: Some(folder), _share: share }
            }
            Db::MySql => {
                let url = format!("{}/{name}", mysql_url());
                administer(&format!("CREATE DATABASE {name} CHARACTER SET latin1")).await;
                Self { url, name, folder: None, _share: share }
            }
        }
    }

    /// A connection of the test's own.
    pub async fn open(&self) -> DatabaseConnection {
        let mut options = ConnectOptions::new(&self.url);
        options.max_connections(1).sqlx_logging(false);
        Database::connect(options).await.expect("the test's database")
    }

    pub async fn drop(self) {
        if self.folder.is_none() {
            administer(&format!("DROP DATABASE {}", self.name)).await;
        }
    }
}

/// Also after a test that failed; a MySQL database then goes with its server.
impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // Never made, if the server did not get that far.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// A running server.
pub struct TestServer {
    pub api: String,
    pub gateway: String,
    pub http: reqwest::Client,
    pub database: TestDatabase,
    pub addrs: (SocketAddr, SocketAddr),
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl TestServer {
    pub async fn start(db: Db) -> Self {
        Self::start_with(db, &[]).await
    }

    /// With settings of its own.
    pub async fn start_with(db: Db, settings: &[(&str, &str)]) -> Self {
        Self::start_on(TestDatabase::create(db).await, settings).await
    }

    /// On a database that is there already.
    pub async fn start_on(database: TestDatabase, settings: &[(&str, &str)]) -> Self {
        let mut values: HashMap<&str, &str> = HashMap::from([
            ("DATABASE_URL", database.url.as_str()),
            ("API_ADDR", "127.0.0.1:0"),
            ("GATEWAY_ADDR", "127.0.0.1:0"),
            UNLIMITED,
        ]);
        values.extend(settings.iter().copied());
        let config = Config::from_variables(|name| values.get(name).map(|value| (*value).to_owned()));
        let watch = noise::Watch::start();
        let server = Server::bind(config.expect("settings")).await.expect("bind");
        let (api, gateway) = server.addrs().expect("addrs");
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async {
            server.serve(async { drop(stopped.await) }).await.expect("every task goes on until the end");
            drop(watch);
        });
        Self::at((api, gateway), database, stop, served)
    }

    /// One that runs already, and ends after `stop`.
    pub fn at(
        addrs: (SocketAddr, SocketAddr),
        database: TestDatabase,
        stop: oneshot::Sender<()>,
        served: JoinHandle<()>,
    ) -> Self {
        let (api, gateway) = addrs;
        Self {
            api: format!("http://{api}"),
            gateway: format!("http://{gateway}"),
            http: reqwest::Client::new(),
            database,
            addrs,
            stop,
            served,
        }
    }

    /// Stops the server and removes its database.
    pub async fn stop(self) {
        self.halt().await.drop().await;
    }

    /// Stops the server, whose log must be as its test has announced; the database stays.
    pub async fn halt(self) -> TestDatabase {
        self.stop.send(()).expect("the server runs until it is stopped");
        self.served.await.expect("the server ends without a panic, and its log is quiet");
        self.database
    }

    /// Sends a request; a body goes as JSON.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Response {
        self.send_to(&self.api, method, path, body).await
    }

    /// The same to another address of the API, such as nginx's.
    pub async fn send_to(&self, api: &str, method: Method, path: &str, body: Option<&Value>) -> Response {
        let mut request = self.http.request(method, format!("{api}{path}"));
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        request.send().await.expect("an answer")
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.send(Method::GET, path, None).await).await
    }

    pub async fn post(&self, body: &Value) -> (StatusCode, Value) {
        answer(self.send(Method::POST, "/location", Some(body)).await).await
    }

    pub async fn put(&self, body: &Value) -> (StatusCode, Value) {
        answer(self.send(Method::PUT, "/location", Some(body)).await).await
    }

    pub async fn delete(&self, id: u64) -> StatusCode {
        self.send(Method::DELETE, &format!("/location/{id}"), None).await.status()
    }

    /// Makes a location at a point and returns its id.
    pub async fn create_at(&self, lon: f64, lat: f64) -> u64 {
        let (status, answer) = self.post(&json!({"geometry": point(lon, lat)})).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        answer["data"]["location"]["id"].as_u64().expect("an id")
    }

    /// Moves a location to a point and returns the Feature of the answer.
    pub async fn move_to(&self, id: u64, lon: f64, lat: f64) -> Value {
        self.update(&self.api, &json!({"id": id, "geometry": point(lon, lat)})).await
    }

    /// Sends a PUT that must succeed to some address of the API; returns the Feature of the answer.
    pub async fn update(&self, api: &str, body: &Value) -> Value {
        let (status, answer) = answer(self.send_to(api, Method::PUT, "/location", Some(body)).await).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        answer["data"]["updatedLocationResult"].clone()
    }
}

pub fn point(lon: f64, lat: f64) -> Value {
    json!({"type": "Point", "coordinates": [lon, lat]})
}

/// Status and JSON body; an empty body is null.
pub async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.expect("a body");
    let body = match text.as_str() {
        "" => Value::Null,
        text => serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}")),
    };
    (status, body)
}
