//! A place for servers that come and go: one database, and addresses that stay.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU8, Ordering},
};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Db, TestDatabase, answer, history::version, point, process::Process};

/// How many versions one page of a history is asked for.
const PAGE: usize = 100;

pub struct Site {
    pub api: String,
    pub gateway: String,
    http: reqwest::Client,
    /// Removed at the end; none: somebody else's.
    database: Option<TestDatabase>,
    settings: Vec<(String, String)>,
}

impl Site {
    pub async fn new(db: Db, settings: &[(&str, &str)]) -> Self {
        let database = TestDatabase::create(db).await;
        let url = database.url.clone();
        Self { database: Some(database), ..Self::on(&url, settings) }
    }

    /// On a database that is there, or will be.
    pub fn on(url: &str, settings: &[(&str, &str)]) -> Self {
        let (api, gateway) = addrs();
        let own = [("DATABASE_URL", url.to_owned())];
        let own =
            own.into_iter().chain([("API_ADDR", api.to_string()), ("GATEWAY_ADDR", gateway.to_string())]);
        let given = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let settings = own.chain(given).map(|(name, value)| (name.to_owned(), value)).collect();
        Self {
            api: format!("http://{api}"),
            gateway: format!("http://{gateway}"),
            http: reqwest::Client::new(),
            database: None,
            settings,
        }
    }

    /// A process that is ready when this returns.
    pub async fn start(&self) -> Process {
        Process::start(&self.settings()).await
    }

    /// What its processes are started with.
    pub fn settings(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    pub async fn drop(self) {
        if let Some(database) = self.database {
            database.drop().await;
        }
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = self.http.request(method, format!("{}{path}", self.api));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        answer(request.send().await.expect("an answer")).await
    }

    /// Makes locations; returns their ids.
    pub async fn create(&self, count: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let body = json!({"geometry": point(-0.5, -0.5)});
            let (status, answer) = self.send(Method::POST, "/location", Some(body)).await;
            assert_eq!(status, StatusCode::CREATED, "{answer}");
            ids.push(answer["data"]["location"]["id"].as_u64().expect("an id"));
        }
        ids
    }

    /// Moves each location once, all at the same time; returns their new versions.
    pub async fn move_all(&self, locations: &[u64]) -> BTreeMap<u64, u64> {
        let moves = locations.iter().map(async |id| {
            let body = json!({"geometry": point(-1.5, -1.5)});
            let (status, answer) = self.send(Method::PUT, &format!("/location/{id}"), Some(body)).await;
            assert_eq!(status, StatusCode::CREATED, "{answer}");
            (*id, version(&answer["data"]["updatedLocationResult"]))
        });
        join_all(moves).await.into_iter().collect()
    }

    /// The newest version of each location.
    pub async fn heads(&self, locations: &[u64]) -> BTreeMap<u64, u64> {
        join_all(locations.iter().map(async |id| (*id, version(&self.get(*id).await))))
            .await
            .into_iter()
            .collect()
    }

    pub async fn get(&self, id: u64) -> Value {
        let (status, feature) = self.send(Method::GET, &format!("/location/{id}"), None).await;
        assert_eq!(status, StatusCode::OK, "{feature}");
        feature
    }

    /// What is kept of a location's past, oldest first, page by page.
    pub async fn history(&self, id: u64) -> Vec<Value> {
        let mut versions: Vec<Value> = Vec::new();
        loop {
            let since = versions.last().map_or(0, version);
            let path = format!("/location/{id}/history?since={since}&limit={PAGE}");
            let (status, page) = self.send(Method::GET, &path, None).await;
            assert_eq!(status, StatusCode::OK, "{path}: {page}");
            let features = page["features"].as_array().expect("a FeatureCollection").clone();
            assert!(features.len() <= PAGE, "{path}: {} features", features.len());
            if features.is_empty() {
                return versions;
            }
            for feature in features {
                assert_eq!(feature["id"], id, "{path}");
                let follows = versions.last().is_none_or(|last| version(&feature) == version(last) + 1);
                assert!(follows, "{path}: {} after {:?}", version(&feature), versions.last().map(version));
                versions.push(feature);
            }
        }
    }
}

/// Two ports of a loopback address of this site's own. While no server runs nobody else can come by them:
/// on 127.0.0.1 another test might, or a client that tries to reconnect and is given the very port as its
/// own end.
pub(super) fn addrs() -> (SocketAddr, SocketAddr) {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::Relaxed), high, low);
    let free = || TcpListener::bind((ip, 0)).expect("a port");
    let (api, gateway) = (free(), free());
    (api.local_addr().expect("an address"), gateway.local_addr().expect("an address"))
}
