//! What must not take the server along: a database that goes away, a query that costs a lot.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    on_both_databases,
    support::{Db, TestDatabase, TestServer, clients::Clients, point, process::Process},
};

on_both_databases!(a_costly_query_holds_up_nobody);

/// A way to MySQL that can be cut.
struct Proxy {
    addr: SocketAddr,
    /// The database as seen through it.
    url: String,
    accepting: JoinHandle<()>,
    /// Swallows the answer to the next COMMIT, and the connection with it.
    swallow: Arc<AtomicBool>,
}

/// Carries bytes both ways; returns when the connection is to be cut.
async fn carry(near: &mut TcpStream, far: &mut TcpStream, swallow: &AtomicBool) -> std::io::Result<()> {
    let (mut from_near, mut from_far) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = near.read(&mut from_near) => {
                let sent = &from_near[..read?];
                far.write_all(sent).await?;
                let commits = sent.windows(6).any(|word| word == b"COMMIT");
                if sent.is_empty() || (commits && swallow.swap(false, Ordering::SeqCst)) {
                    // The answer says that MySQL has done it; nobody hears it.
                    return far.read(&mut from_far).await.map(drop);
                }
            }
            read = far.read(&mut from_far) => match read? {
                0 => return Ok(()),
                read => near.write_all(&from_far[..read]).await?,
            }
        }
    }
}

impl Proxy {
    /// Before a database; on a free port, or where an earlier one was cut.
    async fn start(database: &TestDatabase, on: Option<SocketAddr>) -> Self {
        let (credentials, rest) = database.url.split_once('@').expect("mysql://root@…");
        let (mysql, name) = rest.split_once('/').expect("a database");
        let to = mysql.to_owned();
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = TcpListener::bind(on.unwrap_or(any)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let url = format!("{credentials}@{addr}/{name}");
        let swallow = Arc::new(AtomicBool::new(false));
        let swallowing = swallow.clone();
        let accepting = tokio::spawn(async move {
            // Dropped with the task, and the connections with it.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.expect("accept");
                let (to, swallow) = (to.clone(), swallowing.clone());
                connections.spawn(async move {
                    let mut far = TcpStream::connect(to).await.expect("MySQL");
                    // However it ends, both ends are closed then.
                    let _ = carry(&mut near, &mut far, &swallow).await;
                });
            }
        });
        Self { addr, url, accepting, swallow }
    }

    async fn cut(self) -> SocketAddr {
        self.accepting.abort();
        let _ = self.accepting.await;
        self.addr
    }
}

/// MySQL has committed, and says so to a connection that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_out_and_neither_repeated_nor_forgotten() {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    // In the clear, for the proxy to see what it swallows.
    let url = format!("{}?ssl-mode=DISABLED", proxy.url);
    let server = Process::start(&[("DATABASE_URL", &url)]).await;
    let http = reqwest::Client::new();
    let location = format!("{}/location", server.api);
    let send = |method: Method, path: &str| {
        let request = http.request(method, format!("{location}{path}"));
        request.json(&json!({"geometry": point(1.0, 2.0)})).send()
    };
    let clients = Clients::start();
    let mut member = clients.connect(&server.gateway).await;

    proxy.swallow.store(true, Ordering::SeqCst);
    assert_eq!(send(Method::POST, "").await.unwrap().status(), StatusCode::CREATED);
    assert!(!proxy.swallow.load(Ordering::SeqCst), "an answer was swallowed");
    assert_eq!(member.join(1).await["version"], 1);
    for version in 2..=9 {
        proxy.swallow.store(version % 2 == 0, Ordering::SeqCst);
        let answer = send(Method::PUT, "/1").await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["data"]["updatedLocationResult"]["properties"]["version"], version);
        assert_eq!(member.event("chat").await["version"], version);
    }

    // And the database stays away: the caller cannot be told, the room is told later.
    proxy.swallow.store(true, Ordering::SeqCst);
    let (addr, swallow) = (proxy.addr, proxy.swallow.clone());
    let put = tokio::spawn(send(Method::PUT, "/1"));
    while swallow.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    proxy.cut().await;
    let answer = put.await.unwrap().unwrap().status();
    let proxy = Proxy::start(&database, Some(addr)).await;
    assert!([StatusCode::CREATED, StatusCode::SERVICE_UNAVAILABLE].contains(&answer), "{answer}");
    assert_eq!(member.event("chat").await["version"], 10, "without a further change");

    proxy.swallow.store(true, Ordering::SeqCst);
    assert_eq!(send(Method::DELETE, "/1").await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(member.event("room_closed").await["reason"], "deleted");
    server.signal("TERM").await;
    assert_eq!(server.ended().await, Some(0));
    proxy.cut().await;
    database.drop().await;
}

/// Not one after the other, each with its own wait for a connection.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_the_server_says_so_to_all_at_once_and_goes_on_when_it_is_back() {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let server = Process::start(&[("DATABASE_URL", &proxy.url)]).await;
    let http = reqwest::Client::new();
    let location = format!("{}/location", server.api);
    let post = || http.post(&location).json(&json!({"geometry": point(1.0, 2.0)})).send();
    assert_eq!(post().await.unwrap().status(), StatusCode::CREATED);

    let addr = proxy.cut().await;
    let started = Instant::now();
    let answers = join_all((0..20).map(|_| post())).await;
    for answer in answers {
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key("retry-after"));
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let ready = http.get(format!("{}/readyz", server.api)).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);

    let proxy = Proxy::start(&database, Some(addr)).await;
    let back = async {
        while post().await.unwrap().status() != StatusCode::CREATED {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), back).await.expect("service resumes by itself");
    server.signal("TERM").await;
    assert_eq!(server.ended().await, Some(0));
    proxy.cut().await;
    database.drop().await;
}

/// Seen from the pole every position of a parallel is equally near: no shortcut helps.
async fn a_costly_query_holds_up_nobody(db: Db) {
    let server = TestServer::start(db).await;
    let zigzag: Vec<_> = (0..2_000).map(|n| [if n % 2 == 0 { 180 } else { -180 }, 10]).collect();
    let (status, _) = server.post(&json!({"geometry": {"type": "LineString", "coordinates": zigzag}})).await;
    assert_eq!(status, StatusCode::CREATED);
    let near = format!("{}/location?near=0,90&radius=20000000", server.api);
    let queries: Vec<_> = (0..8).map(|_| tokio::spawn(server.http.get(&near).send())).collect();
    let mut answered = 0;
    while queries.iter().any(|query| !query.is_finished()) {
        let healthy = timeout(Duration::from_secs(1), server.get("/healthz"));
        assert_eq!(healthy.await.expect("an answer in time").0, StatusCode::OK);
        answered += 1;
    }
    assert!(answered > 3, "{answered}");
    for query in queries {
        assert_eq!(query.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    server.stop().await;
}
