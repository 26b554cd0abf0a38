//! Who asks for a lot and takes it slowly, or sends a lot and never ends: it costs them, and nobody else.
//!
//! With the limits as they are by default. Memory is that of a process of its own.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::{join_all, select};
use georoom::domain::error::Code;
use reqwest::{
    Method, StatusCode,
    header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, ORIGIN, RETRY_AFTER},
};
use sea_orm::{ConnectionTrait, DatabaseBackend};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    on_both_databases,
    support::{
        Db, QUIET, TestServer,
        clients::Clients,
        exposition::Exposition,
        history::versions,
        machine,
        noise::{self, BROKEN_ROW},
        problem::Problem,
        process::Process,
        tokens::{KEY, Pass, token},
    },
};

on_both_databases!(
    greedy_readers_take_little_memory_and_an_honest_one_gets_the_whole_page,
    wide_searches_hold_up_nobody,
    a_right_that_ends_ends_the_rest_of_an_answer,
    the_total_of_a_long_list_is_right,
);

const ON: (&str, &str) = ("RATE_LIMITS", "on");
/// By how much what one caller does may let the process grow.
const GROWTH: f64 = 64.0;
const MIB: usize = 1024 * 1024;
/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a process of its own.
async fn serve(db: Db, settings: &[(&str, &str)]) -> TestServer {
    Process::serve(db, &[&[ON, QUIET], settings].concat()).await.0
}

async fn resident_mib(server: &TestServer) -> f64 {
    Exposition::scrape(server).await.value("process_resident_memory_bytes") / MIB as f64
}

/// How far the process grows from now on while something goes on, in MiB.
async fn growth<T>(server: &TestServer, during: impl Future<Output = T>) -> (f64, T) {
    let (before, mut most) = (resident_mib(server).await, 0.0_f64);
    let watch = async {
        loop {
            most = most.max(resident_mib(server).await);
            sleep(Duration::from_millis(20)).await;
        }
    };
    let done = {
        let (watch, during) = (std::pin::pin!(watch), std::pin::pin!(during));
        match select(during, watch).await {
            futures_util::future::Either::Left((done, _)) => done,
            futures_util::future::Either::Right((never, _)) => never,
        }
    };
    (most.max(resident_mib(server).await) - before, done)
}

/// A polygon whose text has about so many bytes.
fn large(bytes: usize) -> Value {
    let corner = |n: usize| json!([10.0 + (n % 1000) as f64 / 1e4, 20.0 + n as f64 / 1e7]);
    let mut ring: Vec<_> = (0..bytes / 19).map(corner).collect();
    ring.push(ring[0].clone());
    json!({"type": "Polygon", "coordinates": [ring]})
}

/// Adds copies of a location and its index box, so many that there are `count` then.
async fn multiply(server: &TestServer, id: u64, count: usize) {
    let db = server.database.open().await;
    let columns =
        "owner_id, version, geometry, altitudes, properties, updated_by, created_at, updated_at, area";
    let area = match db.get_database_backend() {
        DatabaseBackend::MySql => "area",
        _ => "west, east, south, north",
    };
    let mut there = 1;
    while there < count {
        let more = there.min(count - there);
        // Of those that are like it.
        let like = format!(
            "owner_id = (SELECT owner_id FROM (SELECT owner_id FROM location WHERE id = {id}) AS one)"
        );
        let sql = format!(
            "INSERT INTO location ({columns}) SELECT {columns} FROM location WHERE {like} LIMIT {more}"
        );
        db.execute_unprepared(&sql).await.expect("copies");
        there += more;
    }
    let sql = format!(
        "INSERT INTO location_area (location_id, {area}) SELECT location.id, {} \
         FROM location CROSS JOIN location_area AS one \
         WHERE one.location_id = {id} AND location.id NOT IN (SELECT location_id FROM (SELECT location_id FROM location_area) AS known)",
        area.split(", ").map(|side| format!("one.{side}")).collect::<Vec<_>>().join(", ")
    );
    db.execute_unprepared(&sql).await.expect("boxes");
    db.close().await.expect("close");
}

/// A connection that takes little at a time.
async fn narrow(addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket");
    socket.connect(addr).await.expect("a connection")
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

async fn greedy_readers_take_little_memory_and_an_honest_one_gets_the_whole_page(db: Db) {
    const LOCATIONS: usize = 24;
    let server = serve(db, &[]).await;
    let (status, made) = server.post(&json!({"geometry": large(850_000)})).await;
    assert_eq!(status, StatusCode::CREATED);
    let made = &made["data"]["location"];
    multiply(&server, made["id"].as_u64().expect("an id"), LOCATIONS).await;
    let is_over = AtomicBool::new(false);
    let greedy = async |n: usize| {
        let mut stream = narrow(server.addrs.0).await;
        let path = if n.is_multiple_of(3) {
            "/location?perPage=100&bbox=0,0,50,50"
        } else {
            "/location?perPage=100"
        };
        stream.write_all(request("GET", path, "").as_bytes()).await.expect("to write");
        let mut some = [0; 1024];
        while !is_over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(250)).await;
            // Half of them read nothing, the others 4 KiB a second.
            if n.is_multiple_of(2) && stream.read(&mut some).await.is_ok_and(|read| read == 0) {
                return;
            }
        }
    };
    let honest = async {
        // Not before the others have begun.
        sleep(Duration::from_secs(2)).await;
        let answer = server.http.get(format!("{}/location?perPage=100", server.api)).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let text = answer.text().await.expect("all of it");
        is_over.store(true, Ordering::Relaxed);
        text
    };
    let all = async { tokio::join!(honest, join_all((0..12).map(greedy))).0 };
    let (grown, text) = growth(&server, timeout(PATIENCE, all)).await;
    let page: Value = serde_json::from_str(&text.expect("in time")).expect("JSON");
    println!("{grown:.1} MiB for 12 greedy readers");
    assert!(grown < GROWTH, "{grown} MiB");
    let members: Vec<_> = page.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(members, ["type", "features", "page", "perPage", "total"]);
    assert_eq!(page["total"], LOCATIONS);
    let features = page["features"].as_array().expect("an array");
    assert_eq!(features.len(), LOCATIONS);
    let ids: Vec<_> = features.iter().map(|feature| feature["id"].as_u64().expect("an id")).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "{ids:?}");
    assert!(features.iter().all(|feature| feature["geometry"] == made["geometry"]));
    Exposition::until(&server, "georoom_answers_unread_bytes", 0.0).await;
    server.stop().await;
}

/// Sends all but the last byte of a body of 1 MiB, as far as it is taken; what it was answered, if it was.
async fn half_sent(addr: SocketAddr, headers: &str, is_over: &AtomicBool) -> Option<String> {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    let length = format!("{headers}Content-Type: application/json\r\nContent-Length: {MIB}\r\n");
    stream.write_all(request("POST", "/location", &length).as_bytes()).await.expect("to write");
    let (mut from, mut to) = stream.split();
    let send = async {
        // It may be refused before it is sent.
        let _ = to.write_all(&vec![b' '; MIB - 1]).await;
        while !is_over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let mut head = vec![0; 4096];
    let read = async {
        let read = from.read(&mut head).await.unwrap_or(0);
        String::from_utf8_lossy(&head[..read]).into_owned()
    };
    match select(std::pin::pin!(read), std::pin::pin!(send)).await {
        futures_util::future::Either::Left((said, _)) => Some(said),
        futures_util::future::Either::Right(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_bodies_take_little_memory_and_hold_up_nobody() {
    const BODIES: usize = 400;
    let bearer = |user: u64| format!("Authorization: Bearer {}\r\n", token(user));
    for (about, is_open, user) in [
        ("one user", false, (|_| 7) as fn(u64) -> u64),
        ("many users", false, |n| 100 + n),
        ("an address", true, |_| 0),
    ] {
        let settings: &[_] = if is_open { &[] } else { &[KEY] };
        let server = serve(Db::Sqlite, settings).await;
        let honest = if is_open { Pass::Nothing } else { Pass::user(1) };
        let id = honest.create(&server).await;
        let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        let attack = join_all((0..BODIES as u64).map(|n| {
            let headers = if is_open { String::new() } else { bearer(user(n)) };
            let (is_over, answered, server) = (&is_over, &answered, &server);
            async move {
                let said = half_sent(server.addrs.0, &headers, is_over).await;
                if let Some(said) = said.filter(|said| !said.is_empty()) {
                    let refused = ["HTTP/1.1 429 ", "HTTP/1.1 503 ", "HTTP/1.1 408 "];
                    assert!(refused.iter().any(|status| said.starts_with(status)), "{said}");
                    assert!(said.contains("408") || said.to_lowercase().contains("retry-after: "), "{said}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
        let others = async {
            for _ in 0..20 {
                sleep(Duration::from_millis(100)).await;
                honest.mv(&server, id).await;
            }
            // A large one that comes at once is one of few, except where the attacker has their budget.
            is_over.store(true, Ordering::Relaxed);
        };
        let (grown, _) = growth(&server, async { tokio::join!(attack, others) }).await;
        println!("{about}: {grown:.1} MiB, {} refused", answered.load(Ordering::Relaxed));
        assert!(grown < GROWTH, "{about}: {grown} MiB");
        assert!(answered.load(Ordering::Relaxed) > BODIES / 2, "{about}");
        Exposition::until(&server, "georoom_bodies_incomplete_bytes", 0.0).await;
        // Whoever has stopped may go on.
        let body = json!({"geometry": large(850_000)});
        honest.must(&server, Method::POST, "/location", Some(body)).await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_comes_at_a_lowest_rate_and_what_is_too_long_is_not_waited_for() {
    let server = TestServer::start_with(Db::Sqlite, &[ON, KEY]).await;
    let bearer = format!("Authorization: Bearer {}\r\n", token(1));
    let said = async |headers: String, body: usize| {
        let mut stream = TcpStream::connect(server.addrs.0).await.expect("a connection");
        let headers = format!("{headers}Content-Type: application/json\r\n");
        stream.write_all(request("POST", "/location", &headers).as_bytes()).await.expect("to write");
        let started = Instant::now();
        let (mut from, mut to) = stream.split();
        let sending = async {
            // It may be answered before all of it is sent.
            let _ = to.write_all(&vec![b' '; body]).await;
            std::future::pending::<()>().await;
        };
        let mut head = vec![0; 4096];
        let read = timeout(PATIENCE, from.read(&mut head));
        let read = match select(std::pin::pin!(read), std::pin::pin!(sending)).await {
            futures_util::future::Either::Left((read, _)) => read.expect("in time").expect("an answer"),
            futures_util::future::Either::Right(_) => unreachable!(),
        };
        (String::from_utf8_lossy(&head[..read])[..13].to_owned(), started.elapsed())
    };
    let slow = said(format!("{bearer}Content-Length: 100\r\n"), 10);
    let chunked = said(format!("{bearer}Transfer-Encoding: chunked\r\n"), 0);
    let long = said(format!("{bearer}Content-Length: 3000000\r\n"), 0);
    let refused = said("Content-Length: 1000000\r\n".to_owned(), 1000);
    let refused_whole = said("Content-Length: 8000000\r\n".to_owned(), 8_000_000);
    let (slow, chunked, long, refused, refused_whole) =
        tokio::join!(slow, chunked, long, refused, refused_whole);
    for late in [slow, chunked] {
        assert_eq!(late.0, "HTTP/1.1 408 ");
        assert!((Duration::from_secs(4)..Duration::from_secs(20)).contains(&late.1), "{:?}", late.1);
    }
    for (at_once, status) in
        [(long, "HTTP/1.1 413 "), (refused, "HTTP/1.1 401 "), (refused_whole, "HTTP/1.1 401 ")]
    {
        assert_eq!(at_once.0, status);
        assert!(at_once.1 < Duration::from_secs(5), "{status}: {:?}", at_once.1);
    }
    server.stop().await;
}

async fn wide_searches_hold_up_nobody(db: Db) {
    let _share = machine::most().await;
    const SEARCHES: usize = 60;
    const LOCATIONS: usize = 30_000;
    let server = serve(db, &[]).await;
    let id = server.create_at(0.5, 0.5).await;
    multiply(&server, id, LOCATIONS).await;
    let (_, newest) = server.get("/location?perPage=100").await;
    let newest = newest["features"].as_array().expect("an array").iter();
    let ids: Vec<_> = newest.map(|feature| feature["id"].as_u64().expect("an id")).collect();
    let clients = Clients::start();
    let is_over = AtomicBool::new(false);
    let search = async || {
        let url = format!("{}/location?near=0,0&radius=21000000", server.api);
        let answer = server.http.get(url).send().await.expect("an answer");
        let (status, after) = (answer.status(), answer.headers().contains_key(RETRY_AFTER));
        let body: Value = answer.json().await.expect("JSON");
        match status {
            StatusCode::OK => assert_eq!(body["features"].as_array().map(Vec::len), Some(20)),
            StatusCode::TOO_MANY_REQUESTS => assert!(after && body["code"] == "rate_limited", "{body}"),
            _ => assert!(after && body["code"] == "storage_unavailable", "{status} {body}"),
        }
        status
    };
    let attack = async {
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.extend(join_all((0..SEARCHES).map(|_| search())).await);
        }
        is_over.store(true, Ordering::Relaxed);
        statuses
    };
    let others = async {
        let (mut slowest, mut turns) = ([Duration::ZERO; 4], 0);
        while !is_over.load(Ordering::Relaxed) {
            let started = Instant::now();
            let (status, _) = server.get(&format!("/location/{id}")).await;
            assert_eq!(status, StatusCode::OK);
            slowest[0] = slowest[0].max(started.elapsed());
            let started = Instant::now();
            server.move_to(id, 0.5, 0.5).await;
            slowest[1] = slowest[1].max(started.elapsed());
            let started = Instant::now();
            let (status, _) = server.get("/readyz").await;
            assert_eq!(status, StatusCode::OK);
            slowest[2] = slowest[2].max(started.elapsed());
            let mut client = clients.connect(&server.gateway).await;
            let started = Instant::now();
            // A room that nobody is in.
            client.join(ids[turns % ids.len()]).await;
            slowest[3] = slowest[3].max(started.elapsed());
            client.kill();
            turns += 1;
        }
        slowest
    };
    let (statuses, slowest) = tokio::join!(attack, others);
    let found = statuses.iter().filter(|status| **status == StatusCode::OK).count();
    println!("{found} of {}; GET, PUT, /readyz and join took at most {slowest:?}", statuses.len());
    // On a busy machine none may have been found in time.
    let alone = async { while search().await != StatusCode::OK {} };
    timeout(PATIENCE, alone).await.expect("what is searched for alone is found");
    assert!(slowest.iter().all(|time| *time < Duration::from_secs(2)), "{slowest:?}");
    server.stop().await;
}

/// Reads an answer by hand to its end, as an ordinary client that reads slowly at first.
async fn a_right_that_ends_ends_the_rest_of_an_answer(db: Db) {
    const LOCATIONS: usize = 16;
    let server = serve(db, &[KEY]).await;
    let (owner, member) = (Pass::user(1), Pass::user(2));
    let body = json!({"geometry": large(850_000)});
    let made = owner.must(&server, Method::POST, "/location", Some(body)).await;
    let id = made["data"]["location"]["id"].as_u64().expect("an id");
    multiply(&server, id, LOCATIONS).await;
    let db = server.database.open().await;
    db.execute_unprepared(
        "INSERT INTO member (location_id, user_id, role, added_at) SELECT id, 2, 1, 5 FROM location",
    )
    .await
    .expect("members");
    db.close().await.expect("close");

    let read = async |path: &str| {
        let mut stream = narrow(server.addrs.0).await;
        let headers = format!("Authorization: Bearer {}\r\nConnection: close\r\n", token(2));
        stream.write_all(request("GET", path, &headers).as_bytes()).await.expect("to write");
        let mut first = vec![0; 1000];
        stream.read_exact(&mut first).await.expect("a beginning");
        (stream, first)
    };
    let (mut list, first) = read("/location?perPage=100").await;
    let history = format!("/location/{id}/history");
    for n in 0..LOCATIONS {
        let body = json!({"properties": {"n": n}});
        owner.must(&server, Method::PUT, &format!("/location/{id}"), Some(body)).await;
    }
    let (mut past, _) = read(&history).await;
    // The oldest is the last of the list.
    owner.must(&server, Method::DELETE, &format!("/location/{id}/members/2"), None).await;
    let mut bytes = first;
    timeout(PATIENCE, list.read_to_end(&mut bytes)).await.expect("in time").expect("to its end");
    let text = String::from_utf8(bytes).expect("text");
    assert!(text.contains("transfer-encoding: chunked"), "{:.400}", text);
    assert!(text.ends_with("0\r\n\r\n"), "whole");
    assert_eq!(text.matches(r#""type":"Feature","#).count(), LOCATIONS - 1);
    assert!(!text.contains(&format!(r#""id":{id},"#)));
    let mut rest = Vec::new();
    // It is broken off, which may come as a reset.
    let _ = timeout(PATIENCE, past.read_to_end(&mut rest)).await.expect("in time");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "broken off");
    // Who may not see it any more is told so from the beginning.
    let problem = Problem::of(member.send(&server, Method::GET, &history, None).await).await;
    Problem::check(problem, StatusCode::NOT_FOUND, Code::NotFound, &history);
    server.stop().await;
}

async fn the_total_of_a_long_list_is_right(db: Db) {
    const LOCATIONS: usize = 10_050;
    let server = serve(db, &[]).await;
    let id = server.create_at(0.5, 0.5).await;
    multiply(&server, id, LOCATIONS).await;
    for (query, found) in [
        ("", 20),
        ("perPage=100&page=100", 100),
        // Deep, the last, the one after, and far beyond.
        ("perPage=100&page=101", 50),
        ("perPage=50&page=201", 50),
        ("perPage=50&page=202", 0),
        ("perPage=100&page=1099511627776", 0),
    ] {
        let (status, page) = server.get(&format!("/location?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{query}: {page}");
        assert_eq!(page["features"].as_array().map(Vec::len), Some(found), "{query}");
        assert_eq!(page["total"], LOCATIONS, "{query}");
    }
    // What is older than a moment is counted anew.
    server.create_at(0.5, 0.5).await;
    let started = Instant::now();
    while server.get("/location").await.1["total"] != LOCATIONS + 1 {
        assert!(started.elapsed() < PATIENCE);
        sleep(Duration::from_millis(100)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_history_is_whole_however_large() {
    const UPDATES: u64 = 40;
    let server = TestServer::start_with(Db::Sqlite, &[ON]).await;
    let (_, made) = server.post(&json!({"geometry": large(400_000)})).await;
    let id = made["data"]["location"]["id"].as_u64().expect("an id");
    for n in 0..UPDATES {
        server.update(&server.api, &json!({"id": id, "properties": {"n": n}})).await;
    }
    let page = server.history_page(id, "").await;
    assert_eq!(versions(&page.features), (1..=UPDATES + 1).collect::<Vec<_>>());
    assert!(page.bytes > 15 * MIB);
    assert!(page.features.iter().all(|feature| feature["geometry"] == made["data"]["location"]["geometry"]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_is_missing_and_nothing_else() {
    noise::expect(&BROKEN_ROW);
    let server = TestServer::start_with(Db::Sqlite, &[ON]).await;
    let (first, broken, last) = (
        server.create_at(0.5, 0.5).await,
        server.create_at(0.5, 0.5).await,
        server.create_at(0.5, 0.5).await,
    );
    let db = server.database.open().await;
    let sql = format!("UPDATE location SET geometry = x'00' WHERE id = {broken}");
    db.execute_unprepared(&sql).await.expect("an update");
    db.close().await.expect("close");
    for query in ["", "bbox=0,0,1,1", "near=0.5,0.5&radius=10"] {
        let (status, page) = server.get(&format!("/location?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{query}: {page}");
        let ids: Vec<_> =
            page["features"].as_array().expect("an array").iter().map(|f| f["id"].clone()).collect();
        assert_eq!(ids, [last, first], "{query}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_large_features_has_a_price_and_asking_for_changes_has_none() {
    let server = TestServer::start_with(Db::Sqlite, &[ON, KEY, ("LIMIT_USER_ROWS", "1000")]).await;
    let (owner, other) = (Pass::user(1), Pass::user(2));
    let body = json!({"geometry": large(900_000)});
    let created = owner.send(&server, Method::POST, "/location", Some(&body)).await;
    let id = created.json::<Value>().await.expect("JSON")["data"]["location"]["id"].as_u64().expect("an id");
    let one = format!("/location/{id}");
    let read = async |path: &str| owner.send(&server, Method::GET, path, None).await;
    let mut reads = 0;
    let refused = loop {
        let answer = read(&one).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        reads += 1;
        answer.bytes().await.expect("a Feature");
        assert!(reads < 100, "a second's worth is one, and ten at once");
    };
    assert_eq!((refused.status(), reads > 3), (StatusCode::TOO_MANY_REQUESTS, true), "after {reads}");
    assert!(refused.headers().contains_key(RETRY_AFTER));
    for path in ["/location".to_owned(), format!("{one}/history")] {
        assert_eq!(read(&path).await.status(), StatusCode::TOO_MANY_REQUESTS, "{path}");
    }
    let unchanged = async |pass: &Pass, tag: &str| {
        let request = pass.on(server.http.get(format!("{}{one}", server.api))).header(IF_NONE_MATCH, tag);
        request.send().await.expect("an answer").status()
    };
    assert_eq!(unchanged(&owner, "\"1\"").await, StatusCode::NOT_MODIFIED);
    assert_eq!(unchanged(&owner, "\"7\"").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(unchanged(&other, "\"1\"").await, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cache_keeps_a_location() {
    let settings = [ON, KEY, ("CORS_ORIGINS", "https://map.example:443,http://map.example:8080")];
    let server = TestServer::start_with(Db::Sqlite, &settings).await;
    let owner = Pass::user(1);
    let id = owner.create(&server).await;
    let guest = owner.guest(&server, id).await;
    let one = format!("/location/{id}");
    let history = format!("/location/{id}/history");
    let put = json!({"properties": {"n": 1}});
    for (pass, method, path, body, kept) in [
        (&owner, Method::GET, &one, None, "private, no-cache"),
        (&guest, Method::GET, &one, None, "private, no-cache"),
        (&guest, Method::HEAD, &one, None, "private, no-cache"),
        (&guest, Method::GET, &history, None, "no-store"),
        (&owner, Method::GET, &"/location".to_owned(), None, "no-store"),
        (&owner, Method::GET, &"/location?bbox=0,0,1,1".to_owned(), None, "no-store"),
        (&owner, Method::PUT, &one, Some(&put), "no-store"),
        (&owner, Method::GET, &format!("{one}/shares"), None, "no-store"),
        (&guest, Method::GET, &"/location/999999".to_owned(), None, "no-store"),
        (&Pass::Nothing, Method::GET, &one, None, "no-store"),
    ] {
        let answer = pass.send(&server, method.clone(), path, body).await;
        assert_eq!(answer.headers()[CACHE_CONTROL], kept, "{method} {path}");
        if let Some(etag) = answer.headers().get(ETAG) {
            let request =
                pass.on(server.http.get(format!("{}{path}", server.api))).header(IF_NONE_MATCH, etag);
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
            assert_eq!(answer.headers()[CACHE_CONTROL], kept, "{method} {path}");
        }
    }
    for (origin, is_allowed) in [
        ("https://map.example", true),
        ("http://map.example:8080", true),
        ("https://map.example:443", false),
        ("http://map.example", false),
    ] {
        let request = owner.on(server.http.get(format!("{}{one}", server.api))).header(ORIGIN, origin);
        let answer = request.send().await.expect("an answer");
        let allowed =
            answer.headers().get("access-control-allow-origin").map(|it| it.to_str().expect("text"));
        assert_eq!(allowed, is_allowed.then_some(origin));
    }
    server.stop().await;
}
