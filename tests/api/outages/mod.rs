//! What is promised must outlive the database's bad hours, and what the machine runs out of.
//!
//! Writers never pause and followers check what they are sent while something is done to the database; at
//! the end nothing acknowledged may be missing, done twice or in another order. `GEOROOM_OUTAGES` says how
//! often, `GEOROOM_SLOW` how many slow connections; `make soak` asks for more than `make test`.

mod mysql;
mod resources;
mod scene;
mod sqlite;

use std::{collections::BTreeMap, env, fs::File, ops::Range, process::Stdio, time::Duration};

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder, StatusCode, header::RETRY_AFTER};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use scene::{Scene, refused, succeeded};

use crate::{
    on_both_databases,
    support::{
        Db, QUIET, TestDatabase,
        administrator::{connection_id, kill_others},
        answer,
        clients::{Clients, KINDS},
        followers::{Entry, Followers},
        history::version,
        machine,
        mysqld::Mysqld,
        noise::{self, DATABASE_AWAY, NO_CONNECTION},
        point,
        process::{Process, run, signal},
        promises::check_promises,
        proxy::{End, Proxy},
        setting,
        site::Site,
        truth::Random,
        writers::{Outage, REFUSED_WITHIN, Writers, Written},
    },
};

on_both_databases!(what_another_server_commits_reaches_the_rooms_though_nothing_follows);

/// After a fault, until every subscriber shows what was committed last.
const CONVERGED_WITHIN: Duration = Duration::from_secs(5);

/// After a fault, until the first write is done.
const RESUMED_WITHIN: Duration = Duration::from_secs(5);

/// What needs no database does not wait for one.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_start_before_its_mysql() {
    let _share = machine::half().await;
    let mut mysqld = Mysqld::new().await;
    let started = Instant::now();
    let server = Process::start(&[("DATABASE_URL", &mysqld.url())]).await;
    println!("started after {:?}", started.elapsed());
    assert!(started.elapsed() < REFUSED_WITHIN);
    let http = reqwest::Client::new();
    let post = || http.post(format!("{}/location", server.api)).json(&json!({"geometry": point(1.0, 2.0)}));
    let get = |path: &str| http.get(format!("{}{path}", server.api));
    assert_eq!(get("/healthz").send().await.unwrap().status(), StatusCode::OK);
    let clients = Clients::start();
    let mut early = clients.connect(&server.gateway).await;
    tokio::join!(refused(post()), refused(get("/readyz")), refused(get("/location")));
    let ack = early.ask("join_room", json!({"locationId": 1})).await;
    assert_eq!((&ack["status"], &ack["code"]), (&json!("error"), &json!("storage_unavailable")));

    let ended = mysqld.start().await;
    let all = async {
        succeeded(post, StatusCode::CREATED).await;
        succeeded(|| get("/readyz"), StatusCode::OK).await;
        succeeded(|| get("/location/1/history"), StatusCode::OK).await;
    };
    timeout_at(ended + RESUMED_WITHIN, all).await.expect("it is migrated and used");
    println!("used after {:?}", ended.elapsed());
    assert_eq!(early.join(1).await["version"], 1, "on the socket that was there before");
    server.stop().await;
}

/// Nothing that comes right by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_stops_the_start_and_is_not_shown() {
    let database = TestDatabase::create(Db::MySql).await;
    let url = database.url.replacen("root@", "root:hunter2@", 1);
    assert_ne!(url, database.url);
    let ended = run(
        &[
            ("DATABASE_URL", &url),
            ("API_ADDR", "127.0.0.1:0"),
            ("GATEWAY_ADDR", "127.0.0.1:0"),
            ("RUST_LOG", "debug"),
        ],
        &[],
    )
    .await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("georoom: DATABASE_URL: "), "{ended:?}");
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.contains("denied"), "{ended:?}");
    assert!(!format!("{}{}", ended.stderr, ended.stdout).contains("hunter2"), "{ended:?}");
    database.drop().await;
}

/// Nothing tells the first server of it.
async fn what_another_server_commits_reaches_the_rooms_though_nothing_follows(db: Db) {
    let database = TestDatabase::create(db).await;
    let settings = [("DATABASE_URL", database.url.as_str()), QUIET];
    let (first, second) = (Process::start(&settings).await, Process::start(&settings).await);
    let http = reqwest::Client::new();
    let send = async |method: Method, path: &str| {
        let request = http.request(method, format!("{}/location{path}", second.api));
        answer(request.json(&json!({"geometry": point(1.5, 2.5)})).send().await.unwrap()).await
    };
    for id in 1..=3 {
        let (_, made) = send(Method::POST, "").await;
        assert_eq!(made["data"]["location"]["id"], id);
    }
    let clients = Clients::start();
    let mut members = Vec::new();
    for kind in KINDS {
        let mut member = clients.connect_as(kind.0, kind.1, &first.gateway).await;
        for id in 1..=3 {
            assert_eq!(member.join(id).await["version"], 1);
        }
        members.push(member);
    }

    let (status, moved) = send(Method::PUT, "/1").await;
    assert_eq!(status, StatusCode::CREATED, "{moved}");
    let converged = timeout(CONVERGED_WITHIN, async {
        for member in &mut members {
            assert_eq!(member.event("chat").await["message"], moved["data"]["updatedLocationResult"]);
        }
    });
    converged.await.expect("the newest version in time");

    // Several at a time, all of which are sent.
    for _ in 0..5 {
        send(Method::PUT, "/2").await;
    }
    let converged = timeout(CONVERGED_WITHIN, async {
        for member in &mut members {
            member.follow(2, 1, 6).await;
        }
    });
    converged.await.expect("every version in time");

    assert_eq!(send(Method::DELETE, "/3").await.0, StatusCode::NO_CONTENT);
    let converged = timeout(CONVERGED_WITHIN, async {
        for member in &mut members {
            let closed = member.event("room_closed").await;
            assert_eq!(closed, json!({"roomName": "3", "reason": "deleted"}));
        }
    });
    converged.await.expect("the end of the room in time");
    for member in &mut members {
        assert_eq!(member.drain().await, Vec::<Value>::new());
    }
    first.stop().await;
    second.stop().await;
    database.drop().await;
}
