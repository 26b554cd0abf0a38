//! What must not take the server along: a database that goes away, a query that costs a lot.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    on_both_databases,
    support::{
        Db, TestDatabase, TestServer,
        clients::Clients,
        machine, point,
        process::Process,
        proxy::{End, Loss, Proxy},
    },
};

on_both_databases!(a_costly_query_holds_up_nobody);

/// MySQL has committed, and says so to a connection that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_out_and_neither_repeated_nor_forgotten() {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let server = Process::start(&[("DATABASE_URL", &proxy.url)]).await;
    let http = reqwest::Client::new();
    let location = format!("{}/location", server.api);
    let send = |method: Method, path: &str| {
        let request = http.request(method, format!("{location}{path}"));
        request.json(&json!({"geometry": point(1.0, 2.0)})).send()
    };
    let clients = Clients::start();
    let mut member = clients.connect(&server.gateway).await;

    let mut losses = proxy.losses();
    proxy.lose_next(Some(Loss::Answer));
    assert_eq!(send(Method::POST, "").await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(*losses.borrow_and_update(), 1, "an answer was lost");
    assert_eq!(member.join(1).await["version"], 1);
    for version in 2..=9 {
        proxy.lose_next((version % 2 == 0).then_some(Loss::Answer));
        let answer = send(Method::PUT, "/1").await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["data"]["updatedLocationResult"]["properties"]["version"], version);
        assert_eq!(member.event("chat").await["version"], version);
    }

    // And the database stays away: the caller cannot be told, the room is told later.
    let mut losses = proxy.losses();
    proxy.lose_next(Some(Loss::Answer));
    let put = tokio::spawn(send(Method::PUT, "/1"));
    losses.changed().await.unwrap();
    let addr = proxy.cut().await;
    let answer = put.await.unwrap().unwrap().status();
    let proxy = Proxy::start(&database, Some(addr)).await;
    assert!([StatusCode::CREATED, StatusCode::SERVICE_UNAVAILABLE].contains(&answer), "{answer}");
    assert_eq!(member.event("chat").await["version"], 10, "without a further change");

    proxy.lose_next(Some(Loss::Answer));
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

/// As where a router between forgets them: the other end is there, and nothing comes through.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_have_fallen_silent_are_given_up() {
    // Behind a COMMIT the connection is on its way back into the pool.
    join_all([true, false].map(async |begins_behind_commit| {
        let database = TestDatabase::create(Db::MySql).await;
        let proxy = Proxy::start(&database, None).await;
        let server = Process::start(&[("DATABASE_URL", &proxy.url)]).await;
        // The server ends connections that are idle for half a minute, as this test may take.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let location = format!("{}/location", server.api);
        let body = json!({"geometry": point(1.0, 2.0)});
        let post = http.post(&location).json(&body).send().await.unwrap();
        assert_eq!(post.status(), StatusCode::CREATED);
        let (put, get) =
            (|| http.put(format!("{location}/1")).json(&body), || http.get(format!("{location}/1")));
        let mut version = 1;
        for is_behind_commit in [begins_behind_commit, false] {
            if is_behind_commit {
                proxy.lose_next(Some(Loss::Rest));
                assert_eq!(put().send().await.unwrap().status(), StatusCode::CREATED);
                version += 1;
            } else {
                proxy.end_all(End::Silent);
            }
            let started = Instant::now();
            let resumed = async |request: &dyn Fn() -> reqwest::RequestBuilder| loop {
                match request().send().await.expect("an answer").status() {
                    StatusCode::SERVICE_UNAVAILABLE => {}
                    status => return status,
                }
            };
            assert_eq!(resumed(&put).await, StatusCode::CREATED);
            assert_eq!(resumed(&get).await, StatusCode::OK);
            // TCP alone would go on for a quarter of an hour.
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
            version += 1;
            let feature: Value = get().send().await.unwrap().json().await.unwrap();
            assert_eq!(feature["properties"]["version"], version, "nothing twice");
        }
        server.signal("TERM").await;
        assert_eq!(server.ended().await, Some(0));
        proxy.cut().await;
        database.drop().await;
    }))
    .await;
}

/// Seen from the pole every position of a parallel is equally near: no shortcut helps.
async fn a_costly_query_holds_up_nobody(db: Db) {
    let _share = machine::half().await;
    let server = TestServer::start(db).await;
    // One whose row is kept while its page is found, and one whose is not.
    for positions in [1_000, 2_000] {
        let zigzag: Vec<_> = (0..positions).map(|n| [if n % 2 == 0 { 180 } else { -180 }, 10]).collect();
        let line = json!({"geometry": {"type": "LineString", "coordinates": zigzag}});
        assert_eq!(server.post(&line).await.0, StatusCode::CREATED);
    }
    let near = format!("{}/location?near=0,90&radius=20000000", server.api);
    let queries: Vec<_> = (0..4).map(|_| tokio::spawn(server.http.get(&near).send())).collect();
    let mut answered = 0;
    while queries.iter().any(|query| !query.is_finished()) {
        let healthy = timeout(Duration::from_secs(1), server.get("/healthz"));
        assert_eq!(healthy.await.expect("an answer in time").0, StatusCode::OK);
        answered += 1;
    }
    assert!(answered > 3, "{answered}");
    for query in queries {
        // Refused where this machine takes too long over it.
        let status = query.await.unwrap().unwrap().status();
        assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&status), "{status}");
    }
    server.stop().await;
}
